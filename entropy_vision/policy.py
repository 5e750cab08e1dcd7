"""EntropyVLM: kept patches -> open_clip tower -> projector that adds their places -> causal language model.

Two ways in, one arithmetic. `forward`/`generate` follow transformers' conventions (one placeholder token a kept
patch). `read_patches` and `read` are what training uses: they return a `Prefix` (keys, values and who may be seen),
so that a picture is read once, a question once, and all completions of a group continue from there, with gradients.

A visual token's place is its (t, y, x), which the projector adds; its rank in the sequence says nothing. So by
default all visual tokens of a row share rotary position 0 and text counts on from 1: what the text sees does not
depend on how many patches were kept. `visual_positions="sequential"` counts them like text, as LLaVA does.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.cache_utils import Cache, DynamicCache
from transformers.generation import GenerationMixin
from transformers.modeling_outputs import CausalLMOutputWithPast

from entropy_vision.encoder import VisionEncoder
from entropy_vision.errors import UsageError
from entropy_vision.packed import PackedPatches
from entropy_vision.policy_config import EntropyVLMConfig

_OCTAVES = 5


@dataclass(frozen=True)
class Prefix:
    """What B rows have read so far.

    Attributes:
        layers: (keys, values), each [B, heads, S, head_width], of every layer of the language model.
        live: bool [B, S], False where a slot is padding.
        next_position: int64 [B], rotary position of each row's next token.
    """

    layers: tuple[tuple[Tensor, Tensor], ...]
    live: Tensor
    next_position: Tensor

    def rows(self, index: Tensor) -> Prefix:
        """Rows `index` [B'] of this prefix: one picture for many questions, one question for a group."""
        layers = tuple((k.index_select(0, index), v.index_select(0, index)) for k, v in self.layers)
        return Prefix(layers, self.live.index_select(0, index), self.next_position.index_select(0, index))


class Projector(nn.Module):
    """Visual token and its place -> the language model's width.

    The place enters as sines and cosines of y, x in [0, 1] (fractions of the frame) and t in [0, 1] (fraction of the
    video) at octave frequencies, so that grids of any size share one meaning of "top left".
    """

    def __init__(self, vision_width: int, text_width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(vision_width)
        self.look = nn.Linear(vision_width, text_width)
        self.place = nn.Linear(6 * _OCTAVES, text_width, bias=False)
        self.mix = nn.Sequential(nn.GELU(), nn.Linear(text_width, text_width))

    def forward(self, tokens: Tensor, places: Tensor) -> Tensor:
        """tokens [N, D_vision], places [N, 3] as (t, y, x) in [0, 1] -> [N, D_text]."""
        octaves = 2.0 ** torch.arange(_OCTAVES, device=places.device, dtype=places.dtype) * torch.pi
        angles = (places[:, :, None] * octaves).flatten(1)
        waves = torch.cat((angles.sin(), angles.cos()), dim=1).to(tokens.dtype)
        joined = self.look(self.norm(tokens)) + self.place(waves)
        return joined + self.mix(joined)


class EntropyVLM(PreTrainedModel, GenerationMixin):
    """The policy. Build one with `EntropyVLM(config)` or `from_pretrained`; see the module's docstring."""

    config_class = EntropyVLMConfig
    base_model_prefix = "policy"
    main_input_name = "input_ids"
    _supports_sdpa = True
    _supports_cache_class = True
    supports_gradient_checkpointing = False

    config: EntropyVLMConfig

    def __init__(self, config: EntropyVLMConfig) -> None:
        super().__init__(config)
        text_config = config.get_text_config()
        self.encoder = VisionEncoder.from_config(config.vision)
        self.projector = Projector(self.encoder.width, text_config.hidden_size)
        self.language = AutoModelForCausalLM.from_config(text_config)
        blocked = torch.zeros(text_config.vocab_size, dtype=torch.bool)
        blocked[[config.image_token_id, *config.unsampled_token_ids]] = True
        self.register_buffer("blocked", blocked, persistent=True)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Leave the parts as their own libraries initialise them; only the projector is ours and keeps torch's."""

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

    # ---- vision ----------------------------------------------------------------------------------------------

    def embed_patches(self, patches: PackedPatches) -> Tensor:
        """Kept patches of all inputs -> visual tokens in the language model's width, [N, D_text]."""
        tokens = self.encoder.encode(patches)
        extents = torch.tensor(patches.grids, device=tokens.device).repeat_interleave(
            torch.tensor(patches.counts, device=tokens.device), dim=0
        )
        places = (patches.centres.to(tokens.device) + 0.5) / extents
        return self.projector(tokens, places.float())

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
        return Prefix(layers, live, torch.ones(rows, dtype=torch.long, device=self.device))

    def read_patches(self, patches: PackedPatches, tokens: Tensor | None = None) -> Prefix:
        """Read the visual tokens of B inputs. `tokens` are `embed_patches(patches)`, where already at hand."""
        tokens = self.embed_patches(patches) if tokens is None else tokens
        embeds, live = self._pad_visual(tokens, patches.counts)
        start = self.empty_prefix(len(patches.counts))
        if self.config.visual_positions == "shared":
            positions = torch.zeros_like(live, dtype=torch.long)
            following = torch.ones_like(start.next_position)
        else:
            positions = live.long().cumsum(1) - 1
            following = live.sum(1)
        _, layers, live = self._run(start, embeds, live, positions)
        return Prefix(layers, live, following)

    def read(self, prefix: Prefix, ids: Tensor, live: Tensor) -> tuple[Tensor, Prefix]:
        """Read text behind a prefix.

        Args:
            prefix: B rows.
            ids: int64 [B, T]; live: bool [B, T], False at padding (at the right).

        Returns:
            (logits [B, T, V] over the support, the longer prefix). Logits of unsampled tokens are -inf in training,
            scoring and sampling alike, so a sampler's log-probabilities are the scorer's.
        """
        steps = live.long().cumsum(1)
        positions = (prefix.next_position[:, None] + steps - 1).clamp_min(0)
        hidden, layers, seen = self._run(prefix, self.get_input_embeddings()(ids), live, positions)
        longer = Prefix(layers, seen, prefix.next_position + steps[:, -1])
        return self.logits(hidden), longer

    def read_lanes(self, prefix: Prefix, ids: Tensor, steps: Tensor, sees: Tensor) -> tuple[Tensor, Prefix]:
        """Read text of several continuations of one prefix side by side in one row.

        The completions of a group continue from the same picture and question. As rows of their own each would carry
        a copy of that prefix; as lanes of one row they share its keys and values, and what keeps them apart is who
        sees whom.

        Args:
            prefix: B rows, S slots.
            ids: int64 [B, N], the lanes' tokens in any order.
            steps: int64 [N] or [B, N], how many tokens of its lane stand before each token.
            sees: bool [B, N, S + N], which slots each token sees, itself included.

        Returns:
            (logits [B, N, V] over the support, the prefix longer by N slots). Its `live` and `next_position` mean
            nothing to a reader without lanes; keep the ones from before.
        """
        positions = prefix.next_position[:, None] + steps
        hidden, layers = self._decode(prefix, self.get_input_embeddings()(ids), positions, sees)
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
        hidden, layers = self._decode(prefix, embeds, positions, sees)
        return hidden, layers, torch.cat((prefix.live, live), dim=1)

    def _decode(
        self, prefix: Prefix, embeds: Tensor, positions: Tensor, sees: Tensor
    ) -> tuple[Tensor, tuple[tuple[Tensor, Tensor], ...]]:
        """The language model on new slots behind a prefix, under an explicit mask bool [B, N, S + N]."""
        output = self.language.base_model(
            inputs_embeds=embeds,
            attention_mask=sees[:, None],
            position_ids=positions,
            cache=DynamicCache(prefix.layers if prefix.live.shape[1] else None),
            use_cache=True,
        )
        return output.last_hidden_state, tuple((layer.keys, layer.values) for layer in output.cache.layers)

    # ---- transformers' conventions -----------------------------------------------------------------------------

    def _positions(self, input_ids: Tensor, attention_mask: Tensor | None) -> Tensor:
        """Rotary positions [B, T] of a whole row of placeholders and text."""
        live = torch.ones_like(input_ids) if attention_mask is None else attention_mask.long()
        if self.config.visual_positions == "sequential":
            return (live.cumsum(1) - 1).clamp_min(0)
        text = live * (input_ids != self.config.image_token_id)
        return text.cumsum(1) * text

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
            input_ids: int64 [B, T], with as many `image_token_id` in row i as input i kept patches.
            patches: the kept patches of the B inputs; or
            visual_embeds: [N, D_text], what `embed_patches` gave for them.
            labels: int64 [B, T], -100 where nothing is learned; loss is their mean negative log-probability.

        Raises:
            UsageError: the placeholders and the kept patches do not agree.
        """
        if input_ids is None:
            raise UsageError("EntropyVLM.forward needs input_ids (one placeholder a kept patch)")
        embeds = self.get_input_embeddings()(input_ids)
        if patches is not None:
            visual_embeds = self.embed_patches(patches)
        if visual_embeds is not None:
            holes = input_ids == self.config.image_token_id
            self._check_placeholders(holes, visual_embeds, patches)
            embeds = embeds.masked_scatter(holes[:, :, None], visual_embeds.to(embeds.dtype))
        if position_ids is None:
            if cache is not None and cache.get_seq_length() > 0:
                raise UsageError("EntropyVLM.forward behind a cache needs position_ids; generate() gives them")
            position_ids = self._positions(input_ids, attention_mask)
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
            loss = nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
        return CausalLMOutputWithPast(loss=loss, logits=logits, cache=output.cache)

    def _check_placeholders(self, holes: Tensor, visual: Tensor, patches: PackedPatches | None) -> None:
        wanted = holes.sum(1).tolist()
        if sum(wanted) != len(visual) or (patches is not None and wanted != list(patches.counts)):
            got = list(patches.counts) if patches is not None else len(visual)
            raise UsageError(f"the prompt has {wanted} placeholders a row for {got} kept patches; write one for each")

    def prepare_inputs_for_generation(  # type: ignore[override]
        self,
        input_ids: Tensor,
        cache: Cache | None = None,
        attention_mask: Tensor | None = None,
        visual_embeds: Tensor | None = None,
        is_first_iteration: bool | None = False,
        **kwargs: Any,
    ) -> dict[str, Any]:
        past = cache.get_seq_length() if cache is not None else 0
        positions = self._positions(input_ids, attention_mask)
        return {
            "input_ids": input_ids[:, past:],
            "attention_mask": attention_mask,
            "position_ids": positions[:, past:],
            "cache": cache,
            "visual_embeds": visual_embeds.flatten(0, 1) if visual_embeds is not None and past == 0 else None,
            "use_cache": kwargs.get("use_cache", True),
            "logits_to_keep": 1,
        }

    @torch.no_grad()
    def generate(  # type: ignore[override]
        self, input_ids: Tensor, patches: PackedPatches | None = None, **kwargs: Any
    ) -> Any:
        """transformers' generate; the picture is encoded once, whatever is sampled from it.

        Rows with different numbers of kept patches are generated one after another by the caller, or together
        through `read_patches`/`read`; here the rows of a batch keep equally many.
        """
        if patches is not None:
            if len(set(patches.counts)) != 1:
                raise UsageError(
                    "generate() wants equally many kept patches in every row of a batch; "
                    "generate rows one by one, or select with Budget(tokens=...)"
                )
            holes = input_ids == self.config.image_token_id
            tokens = self.embed_patches(patches)
            self._check_placeholders(holes, tokens, patches)
            kwargs["visual_embeds"] = tokens.view(len(patches.counts), patches.counts[0], -1)
        return super().generate(input_ids, **kwargs)  # type: ignore[misc]


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
