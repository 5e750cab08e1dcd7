"""EntropyVLM: kept patches -> vision tower -> projector that adds their places -> causal language model.

Two ways in, one arithmetic. `forward`/`generate` follow transformers' conventions (one placeholder token a kept
patch, pictures and videos wherever the prompt has them). `read_patches` and `read` are what training uses: they return
a `Prefix` (keys, values and who may be seen), so that a picture is read once, a question once, and all completions of a
group continue from there, with gradients.

A visual token's place is its (t, y, x), which the projector adds; its rank in the sequence says nothing. So by
default all visual tokens of a picture share one rotary position, that of the text before them (0 where there is none),
and text counts on from there: what the text sees does not depend on how many patches were kept. Of a decoder that
learned places from rotary positions, as LLaVA's, `visual_positions="grid"` leaves every token the one it has with
nothing dropped. "sequential" counts them like text.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    PreTrainedModel,
)
from transformers.cache_utils import Cache, DynamicCache
from transformers.generation import GenerationMixin
from transformers.modeling_outputs import CausalLMOutputWithPast

from entropy_vision.errors import UsageError
from entropy_vision.lanes import LaneCache, padded
from entropy_vision.loading import check_kind, check_loaded, check_token_ids, told_here
from entropy_vision.model_card import write_card
from entropy_vision.packed import PackedPatches
from entropy_vision.placeholders import check_placeholders, rotary_positions
from entropy_vision.policy_config import EntropyVLMConfig
from entropy_vision.policy_parts import Parts, check_decoder, fresh_parts
from entropy_vision.prefix import Prefix as Prefix
from entropy_vision.projectors import POOLS, Places, Slots
from entropy_vision.reduced import check_reduction, reduced_counts, see
from entropy_vision.reduction import Reduction


class EntropyVLM(PreTrainedModel, GenerationMixin):
    """The policy. Build one with `EntropyVLM(config)` or `from_pretrained`; see the module's docstring."""

    config_class = EntropyVLMConfig
    base_model_prefix = "policy"
    main_input_name = "input_ids"
    _supports_sdpa = True
    _supports_cache_class = True
    supports_gradient_checkpointing = False
    accepts_loss_kwargs = False  # its loss is a mean over the rows it is given

    config: EntropyVLMConfig

    def __init__(self, config: EntropyVLMConfig, parts: Parts | None = None) -> None:
        """
        Args:
            parts: what to make it of, where it exists already; by default everything is made from `config`.

        Raises:
            UsageError: a configuration of another model, a decoder that this class does not run, an unknown tower, or a
                reduction that this one cannot do.
        """
        if not isinstance(config, EntropyVLMConfig) or not config.vision or not config.text:
            raise UsageError("this configuration is of no EntropyVLM; EntropyVLM.from_llava reads LLaVA checkpoints")
        super().__init__(config)
        text_config = config.get_text_config()
        check_decoder(text_config)
        unsampled = check_token_ids(config, text_config.vocab_size)
        if parts is None:
            parts = fresh_parts(config, text_config)
        else:  # made elsewhere, each as it was there
            dtype = parts.language.dtype
            parts.encoder.to(dtype), parts.projector.to(dtype)
            self.generation_config = copy.deepcopy(parts.language.generation_config)
        self.encoder, self.projector, self.language = parts.encoder, parts.projector, parts.language
        if self.reduction is not None:
            if getattr(self.projector, "image_newline", None) is not None:
                raise UsageError(POOLS)
            check_reduction(self.encoder, self.reduction)
        blocked = torch.zeros(text_config.vocab_size, dtype=torch.bool)
        blocked[unsampled] = True
        self.register_buffer("blocked", blocked, persistent=True)
        self.post_init()

    @classmethod
    def from_llava(cls, path: str | Path, **options: Any) -> EntropyVLM:
        """A LLaVA-1.5 or LLaVA-OneVision checkpoint of transformers as a policy; see `llava.load_llava`."""
        from entropy_vision.llava import load_llava

        return load_llava(cls, path, **options)

    @classmethod
    def from_pretrained(cls, path: str | Path, *args: Any, **kwargs: Any) -> Any:  # type: ignore[override]
        """transformers' own; but weights that are not those of the configuration are an error and no note.

        Raises:
            UsageError: a checkpoint of another model, or weights that are missing, too many or of other shapes.
            InputError: a file of weights that is damaged.
        """
        if kwargs.get("config") is None:
            check_kind(path)
        told, tolerant = kwargs.pop("output_loading_info", False), kwargs.get("ignore_mismatched_sizes", False)
        kwargs |= {"output_loading_info": True, "ignore_mismatched_sizes": True}
        with told_here(path):
            model, info = super().from_pretrained(path, *args, **kwargs)
        check_loaded(path, {**info, "mismatched_keys": []} if tolerant else info)
        return (model, info) if told else model

    def save_pretrained(self, save_directory: str | Path, **kwargs: Any) -> Any:
        """transformers' own, and a model card (README.md) where the folder has none.

        Raises:
            UsageError: low-rank maps are still beside the weights, under names that no checkpoint has.
        """
        if "state_dict" not in kwargs and any("lora_" in name for name, _ in self.named_parameters()):
            raise UsageError("low-rank maps are not part of a checkpoint: call encoder.merge_lora() first")
        if kwargs.get("is_main_process", True):
            write_card(self, Path(save_directory))
        return super().save_pretrained(save_directory, **kwargs)

    def _init_weights(self, module: nn.Module) -> None:
        """Leave the parts as their own libraries initialise them; only the projector is ours and keeps torch's.

        Buffers that no checkpoint holds (timm's rotations) are made anew: transformers builds a policy that it reads
        on the meta device, and would leave what happens to lie in memory.
        """
        renew = getattr(module, "init_non_persistent_buffers", None)
        if renew is not None:
            renew()

    @property
    def word_embeddings(self) -> Tensor:
        """[V, D_text], the language model's input embeddings."""
        return cast(Tensor, self.get_input_embeddings().weight)

    def get_input_embeddings(self) -> nn.Module:
        return cast(nn.Module, self.language.get_input_embeddings())

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.language.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module:
        return cast(nn.Module, self.language.get_output_embeddings())

    def set_output_embeddings(self, value: nn.Module) -> None:
        self.language.set_output_embeddings(value)

    def resize_token_embeddings(self, new_num_tokens: int | None = None, *args: Any, **kwargs: Any) -> nn.Module:
        """transformers' own, of the language model; tokens that are new may be sampled."""
        table = self.language.resize_token_embeddings(new_num_tokens, *args, **kwargs)
        blocked = torch.zeros(len(self.word_embeddings), dtype=torch.bool, device=self.device)
        known = self.get_buffer("blocked")[: len(blocked)]
        blocked[: len(known)] = known
        self.register_buffer("blocked", blocked, persistent=True)
        self.config.text["vocab_size"] = len(blocked)
        return cast(nn.Module, table)

    # ---- vision ----------------------------------------------------------------------------------------------

    @property
    def reduction(self) -> Reduction | None:
        """How many tokens come out of the tower, where they are fewer than the patches that go in."""
        return Reduction.read(self.config.reduction)

    def see(self, patches: PackedPatches, hidden: Tensor | None = None) -> tuple[Tensor, Places]:
        """Visual tokens float [N, D_vision], and where they stand: the pack itself unless its tokens are reduced.

        Args:
            hidden: `encoder.embed` of the patches as this policy attends, where already at hand.
        """
        return see(self.encoder, patches.attending(self.config.attend), self.reduction, hidden)

    def look(self, patches: PackedPatches) -> tuple[Tensor, Slots]:
        """Kept patches of all inputs -> what fills their placeholders in the prompt, [M, D_text], and which those
        are."""
        tokens, places = self.see(patches)
        return self.projector.embed(tokens, places), self.projector.slots(places)

    def embed_patches(self, patches: PackedPatches) -> Tensor:
        """What fills the placeholders, [M, D_text]."""
        return self.look(patches)[0]

    def slots(self, patches: PackedPatches) -> Slots:
        """The placeholders that a pack fills; one a kept patch unless the projector pools or tokens are reduced. Which
        tokens that leaves only the tower tells, so it is run then."""
        if self.reduction is None:
            return self.projector.slots(patches)
        with torch.no_grad():
            return self.look(patches)[1]

    def slot_counts(self, patches: PackedPatches) -> tuple[int, ...]:
        """`slots(patches).counts`, without running the tower."""
        reduction = self.reduction
        if reduction is None:
            return self.projector.slots(patches).counts
        return reduced_counts(patches.attending(self.config.attend), reduction, self.encoder.layers)

    def _check_holes(self, holes: Tensor, patches: PackedPatches) -> None:
        """Whether a pack fills a prompt's placeholders. Raises UsageError: it does not, as where the processor that
        wrote them reduces tokens otherwise than this policy."""
        hint = (
            "; or do processor.reduction and attend (processor_config.json) differ from those of model.config "
            f"(config.json), which are {self.config.reduction} and {self.config.attend!r}? "
            "processor.follow(model) makes them fit"
        )
        check_placeholders(holes, self.slot_counts(patches), hint)

    def _pad_visual(self, tokens: Tensor, counts: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        """[N, D] -> ([B, Kmax, D], live bool [B, Kmax]), padded at the right."""
        if len(set(counts)) == 1:
            return tokens.view(len(counts), counts[0], -1), tokens.new_ones(len(counts), counts[0], dtype=torch.bool)
        padded = nn.utils.rnn.pad_sequence(list(tokens.split(list(counts))), batch_first=True)
        lengths = torch.tensor(counts, device=tokens.device)
        return padded, torch.arange(padded.shape[1], device=tokens.device) < lengths[:, None]

    # ---- reading in steps: training and rollouts ---------------------------------------------------------------

    def empty_prefix(self, rows: int) -> Prefix:
        """A prefix that has read nothing: the blind policy's start."""
        config = self.language.config
        head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        empty = torch.zeros(rows, config.num_key_value_heads, 0, head, device=self.device, dtype=self.dtype)
        layers = tuple((empty, empty) for _ in range(config.num_hidden_layers))
        live = torch.zeros(rows, 0, dtype=torch.bool, device=self.device)
        # pictures of "shared" stand at the position of the text before them, so the first text is at 1
        first = int(self.config.visual_positions == "shared")
        return Prefix(layers, live, torch.full((rows,), first, dtype=torch.long, device=self.device))

    def read_patches(
        self,
        patches: PackedPatches,
        tokens: Tensor | None = None,
        start: Prefix | None = None,
        slots: Slots | None = None,
    ) -> Prefix:
        """Read the visual tokens of B inputs.

        Args:
            tokens: `embed_patches(patches)`, where already at hand.
            start: the text before them; of one row where all inputs have the same, which is then read once.
            slots: those of `look(patches)`, to go with `tokens`; without them the tower may have to run for them.
        """
        grid = self.config.visual_positions == "grid"
        if tokens is None:
            tokens, slots = self.look(patches)
        embeds, live = self._pad_visual(tokens, self.slot_counts(patches))
        start = self.empty_prefix(len(live)) if start is None else start
        if len(start.live) != len(live):
            start = start.rows(torch.zeros(len(live), dtype=torch.long, device=live.device))
        ranks = torch.zeros_like(live, dtype=torch.long)
        if self.config.visual_positions == "shared":
            ranks, length = ranks - 1, torch.zeros_like(start.next_position)
        elif grid:
            slots = slots or self.slots(patches)
            ranks[live] = slots.ranks.to(live.device)
            length = torch.tensor(slots.totals, device=live.device)
        else:
            ranks, length = live.long().cumsum(1) - 1, live.sum(1)
        _, layers, seen = self._run(start, embeds, live, start.next_position[:, None] + ranks)
        return Prefix(layers, seen, start.next_position + length)

    def read(self, prefix: Prefix, ids: Tensor, live: Tensor) -> tuple[Tensor, Prefix]:
        """Read text behind a prefix.

        Args:
            prefix: B rows.
            ids: int64 [B, T]; live: bool [B, T], False at padding (at the right).

        Returns:
            (logits [B, T, V] over the support, the longer prefix). Logits of unsampled tokens are -inf in training,
            scoring and sampling alike, so a sampler's log-probabilities are the scorer's.
        """
        hidden, longer = self._read_text(prefix, ids, live)
        return self.logits(hidden), longer

    def read_silently(self, prefix: Prefix, ids: Tensor, live: Tensor) -> Prefix:
        """`read` of text that nothing is predicted from: without its logits, the larger part of a large vocabulary's
        bill."""
        return self._read_text(prefix, ids, live)[1]

    def _read_text(self, prefix: Prefix, ids: Tensor, live: Tensor) -> tuple[Tensor, Prefix]:
        steps = live.long().cumsum(1)
        positions = (prefix.next_position[:, None] + steps - 1).clamp_min(0)
        hidden, layers, seen = self._run(prefix, self.get_input_embeddings()(ids), live, positions)
        return hidden, Prefix(layers, seen, prefix.next_position + live.sum(1))

    def read_lanes(
        self,
        prefix: Prefix,
        ids: Tensor,
        steps: Tensor,
        sees: Tensor,
        slots: Tensor | None = None,
        most: int = 0,
    ) -> tuple[Tensor, Prefix]:
        """Read text of several continuations of one prefix side by side in one row.

        The completions of a group continue from the same picture and question. As rows of their own each would carry
        a copy of that prefix; as lanes of one row they share its keys and values, and what keeps them apart is who
        sees whom.

        Args:
            prefix: B rows, S slots.
            ids: int64 [B, N], the lanes' tokens in any order.
            steps: int64 [N] or [B, N], how many tokens of its lane stand before each token.
            sees: bool [B, N, S + N], which slots each token sees, itself included.
            slots: int64 [B, N] below S + N, the slot that each token takes; by default the N behind the prefix.
            most: slots that there may be in the end, where this is one of several steps; see `lanes.padded`.

        Returns:
            (logits [B, N, V] over the support, the prefix longer by N slots). Its `live` and `next_position` mean
            nothing to a reader without lanes; keep the ones from before.
        """
        positions = prefix.next_position[:, None] + steps
        embeds = self.get_input_embeddings()(ids)
        length = padded(sees.shape[2], max(most, sees.shape[2]))
        sees = nn.functional.pad(sees, (0, length - sees.shape[2]))
        hidden, layers = self._decode(LaneCache(prefix, length, slots), embeds, positions, sees)
        live = torch.cat((prefix.live, torch.ones_like(ids, dtype=torch.bool)), dim=1)
        return self.logits(hidden), Prefix(layers, live, prefix.next_position)

    def logits(self, hidden: Tensor) -> Tensor:
        """Hidden states [..., D] -> fp32 logits [..., V], -inf outside the support."""
        logits = self.get_output_embeddings()(hidden).float()
        return logits.masked_fill(cast(Tensor, self.blocked), float("-inf"))

    def _run(
        self, prefix: Prefix, embeds: Tensor, live: Tensor, positions: Tensor
    ) -> tuple[Tensor, tuple[tuple[Tensor, Tensor], ...], Tensor]:
        """The decoder behind a prefix: causal among the new slots, padding never seen."""
        length, past = embeds.shape[1], prefix.live.shape[1]
        causal = torch.ones(length, length, dtype=torch.bool, device=embeds.device).tril()
        # a padded query would see nothing at all and softmax to NaN: let it see itself
        new = (live[:, None, :] & causal) | torch.eye(length, dtype=torch.bool, device=embeds.device)
        sees = torch.cat((prefix.live[:, None, :].expand(-1, length, past), new), dim=2)
        cache = DynamicCache(prefix.layers if past else None)
        hidden, layers = self._decode(cache, embeds, positions, sees)
        return hidden, layers, torch.cat((prefix.live, live), dim=1)

    def _decode(
        self, cache: Cache, embeds: Tensor, positions: Tensor, sees: Tensor
    ) -> tuple[Tensor, tuple[tuple[Tensor, Tensor], ...]]:
        """The language model on new slots behind what a cache holds, under an explicit mask bool [B, N, S + N]."""
        mask = sees[:, None]
        if self.language.config._attn_implementation == "eager":  # which adds its mask to the scores, as it stands
            mask = torch.zeros_like(mask, dtype=embeds.dtype).masked_fill(~mask, torch.finfo(embeds.dtype).min)
        output = self.language.base_model(
            inputs_embeds=embeds,
            attention_mask=mask,
            position_ids=positions,
            cache=cache,
            use_cache=True,
        )
        return output.last_hidden_state, tuple((layer.keys, layer.values) for layer in output.cache.layers)

    # ---- transformers' conventions -----------------------------------------------------------------------------

    def positions(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        patches: PackedPatches | None = None,
        slots: Slots | None = None,
    ) -> Tensor:
        """Rotary positions int64 [B, T] of whole rows of text and placeholders; 0 at padding.

        Args:
            slots: those of `patches`, where already at hand.

        Raises:
            UsageError: visual_positions="grid", placeholders, and nothing to say what they stand for.
        """
        live = torch.ones_like(input_ids) if attention_mask is None else attention_mask.long()
        holes = (input_ids == self.config.image_token_id) & live.bool()
        if self.config.visual_positions != "grid" or not bool(holes.any()):
            slots = None
        elif slots is None:
            if patches is None:
                raise UsageError('positions of visual_positions="grid" depend on which patches were kept: give patches')
            slots = self.slots(patches)
        return rotary_positions(live, holes, self.config.visual_positions, slots)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        cache: Cache | None = None,
        visual_embeds: Tensor | None = None,
        patches: PackedPatches | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """One pass over rows with one placeholder a kept patch.

        Args:
            input_ids: int64 [B, T], with one `image_token_id` for every kept patch (for every slot, see `slots`).
            patches: the pictures and videos of all rows, in the order of their placeholders; or
            visual_embeds: [M, D_text], what `embed_patches` gave for them.
            labels: int64 [B, T], -100 where nothing is learned, as at placeholders; loss is their mean negative
                log-probability.

        Raises:
            UsageError: the placeholders and the kept patches do not agree.
        """
        if input_ids is None:
            raise UsageError("EntropyVLM.forward needs input_ids (one placeholder a kept patch)")
        embeds = self.get_input_embeddings()(input_ids)
        holes = input_ids == self.config.image_token_id
        slots = None
        if patches is not None:
            self._check_holes(holes, patches)
            visual_embeds, slots = self.look(patches)
        if visual_embeds is not None:
            if int(holes.sum()) != len(visual_embeds):
                raise UsageError(f"the prompt has {int(holes.sum())} placeholders for {len(visual_embeds)} embeddings")
            embeds = embeds.masked_scatter(holes[:, :, None], visual_embeds.to(embeds.dtype))
        if position_ids is None:
            if cache is not None and cache.get_seq_length() > 0:
                raise UsageError("EntropyVLM.forward behind a cache needs position_ids; generate() gives them")
            position_ids = self.positions(input_ids, attention_mask, patches, slots)
        if attention_mask is None:
            # without a mask transformers would read restarting positions as packed sequences
            past = cache.get_seq_length() if cache is not None else 0
            attention_mask = input_ids.new_ones(len(input_ids), past + input_ids.shape[1])
        output = self.language.base_model(
            inputs_embeds=embeds,
            attention_mask=attention_mask,
            position_ids=position_ids,
            cache=cache,
            use_cache=use_cache,
        )
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self.logits(output.last_hidden_state[:, kept])
        loss = None
        if labels is not None:
            labels = labels.masked_fill(labels == self.config.image_token_id, -100)
            loss = nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
        return CausalLMOutputWithPast(loss=loss, logits=logits, cache=output.cache)

    def prepare_inputs_for_generation(  # type: ignore[override]
        self,
        input_ids: Tensor,
        cache: Cache | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        visual_embeds: Tensor | None = None,
        is_first_iteration: bool | None = False,
        **kwargs: Any,
    ) -> dict[str, Any]:
        past = cache.get_seq_length() if cache is not None else 0
        if visual_embeds is not None:  # [B, most of a row, D]
            slot = torch.arange(visual_embeds.shape[1], device=input_ids.device)
            holes = (input_ids == self.config.image_token_id).sum(1)
            visual_embeds = visual_embeds[slot < holes[:, None]] if past == 0 else None
        return {
            "input_ids": input_ids[:, past:],
            "attention_mask": attention_mask,
            "position_ids": position_ids[:, past:] if position_ids is not None else None,
            "cache": cache,
            "visual_embeds": visual_embeds,
            "use_cache": kwargs.get("use_cache", True),
            "logits_to_keep": 1,
        }

    @torch.no_grad()
    def generate(  # type: ignore[override]
        self,
        input_ids: Tensor,
        patches: PackedPatches | None = None,
        attention_mask: Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        """transformers' generate; every picture is encoded once, whatever is sampled from it.

        Args:
            input_ids: int64 [B, T], padded at the left where rows differ in length.
            patches: the pictures and videos of all rows, in the order of their placeholders.
            attention_mask: int64 [B, T], 0 at padding; without it what equals the pad token is padding.
            kwargs: what transformers' `generate` takes.

        Raises:
            UsageError: the placeholders and the kept patches do not agree, or a row is padded at the right.
        """
        if attention_mask is None:
            pad = getattr(self.config, "pad_token_id", None)
            pad = self.generation_config.pad_token_id if pad is None else pad  # type: ignore[union-attr]
            attention_mask = torch.ones_like(input_ids) if pad is None else (input_ids != pad).long()
        if bool((attention_mask[:, -1] == 0).any()):
            raise UsageError("generate() continues a row at its right end: pad at the left (padding_side='left')")
        slots = None
        if patches is not None:
            holes = input_ids == self.config.image_token_id
            self._check_holes(holes, patches)
            embeds, slots = self.look(patches)
            kwargs["visual_embeds"] = self._pad_visual(embeds, tuple(holes.sum(1).tolist()))[0]
        kwargs["position_ids"] = self.positions(input_ids, attention_mask, patches, slots)
        return super().generate(input_ids, attention_mask=attention_mask, **kwargs)  # type: ignore[misc]


def count_parameters(model: nn.Module) -> int:
    """Number of distinct parameters (tied ones counted once)."""
    return sum(p.numel() for p in model.parameters())


def load_policy(path: str | Path) -> EntropyVLM:
    """Load a checkpoint folder written by `save_pretrained`, in eval mode.

    Raises:
        UsageError: no checkpoint of this model is there.
    """
    folder = Path(path)
    if not (folder / "config.json").is_file():
        raise UsageError(f"{folder} holds no checkpoint (no config.json); name the folder that `train` printed")
    return cast(EntropyVLM, EntropyVLM.from_pretrained(folder)).eval()


AutoModel.register(EntropyVLMConfig, EntropyVLM, exist_ok=True)
AutoModelForCausalLM.register(EntropyVLMConfig, EntropyVLM, exist_ok=True)
AutoModelForImageTextToText.register(EntropyVLMConfig, EntropyVLM, exist_ok=True)
