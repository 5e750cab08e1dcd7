"""FLOPs of a policy by stage, in closed form: nothing is computed, so no model is too large.

model = meta_policy("ViT-L-14-336", "llama")              # sizes of Llama-7B; a folder or a name on the hub works too
policy_flops(model, PackedPatches.pack([kept]), prompt=64, answer=128)

Each input is one row: its visual tokens, then a prompt, then an answer that is decoded token by token with a cache.
Attention under a causal mask counts as the full square, as everywhere here (see `cost`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import CONFIG_MAPPING, AutoConfig, AutoModelForCausalLM, PreTrainedConfig
from transformers.cache_utils import DynamicCache

from entropy_vision.arguments import check_language
from entropy_vision.cost import count_flops
from entropy_vision.encoder import VisionEncoder
from entropy_vision.errors import UsageError
from entropy_vision.packed import PackedPatches
from entropy_vision.policy import EntropyVLM
from entropy_vision.policy_config import EntropyVLMConfig
from entropy_vision.policy_parts import check_decoder
from entropy_vision.projectors import projector_flops
from entropy_vision.tower import Tower

_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts")


def policy_flops(model: EntropyVLM, patches: PackedPatches, prompt: int, answer: int) -> dict[str, int]:
    """FLOPs of one answer about each input of a pack.

    Args:
        model: any policy; it is counted as its configuration says, wherever its weights are.
        patches: the kept patches.
        prompt: text tokens of every row, at least 1; answer: tokens that follow, at least 1.

    A policy that merges tokens in its tower (tome) is counted while that runs once; so it needs weights.

    Returns:
        embed, tower, project, prefill (visual tokens and prompt, logits of the last place) and decode; of
        `cost.STAGES` those that torch runs.
    """
    tower, reduction = Tower.from_config(model.encoder.config), model.reduction
    packed = patches.attending(model.config.attend)
    tokens = len(patches) if reduction is None else sum(model.slot_counts(patches))
    vision = {
        "embed": tower.embed_flops(len(patches)),
        "tower": tower.block_flops(packed.segments(tower.prefix)),
        "project": projector_flops(model.projector, tokens),
    }
    if reduction is not None and reduction.kind == "tome":
        vision["tower"] = _merging(model, packed)
    language = meta_decoder(model.config.get_text_config())
    return vision | language_flops(language, model.slot_counts(patches), prompt, answer)


@dataclass(frozen=True)
class Price:
    """What one pass of a decoder costs: n * linear + n * (n + past) * square + head FLOPs for n tokens behind `past`
    others, with the logits of the last one."""

    linear: int
    square: int
    head: int

    @classmethod
    def of(cls, language: Any) -> Price:
        """Of a decoder on the meta device, counted on two passes of one token."""
        config = language.config
        hidden = torch.empty(1, 1, config.hidden_size, device="meta", dtype=language.dtype)
        with torch.no_grad():
            head = _count(lambda: language.get_output_embeddings()(hidden))
            first, second = (_count(partial(_read_one, language, past)) for past in (0, 1))
        return cls(linear=2 * first - second, square=second - first, head=head)

    def __call__(self, length: int, past: int = 0) -> int:
        return length * self.linear + length * (length + past) * self.square + self.head


def language_flops(language: Any, visual: Sequence[int], prompt: int, answer: int) -> dict[str, int]:
    """FLOPs of a decoder on the meta device for rows of `visual` visual tokens each: prefill and decode.

    Raises:
        UsageError: no prompt or no answer.
    """
    if prompt < 1 or answer < 1:
        raise UsageError(f"a row needs at least one token of prompt and of answer, got {prompt} and {answer}")
    price, steps = Price.of(language), answer - 1
    lengths = [count + prompt for count in visual]
    # a step costs `square` more than the one before it, which has one token fewer behind it
    grows = price.square * (steps * (steps - 1) // 2)
    return {
        "prefill": sum(price(length) for length in lengths),
        "decode": sum(steps * price(1, length) + grows for length in lengths),
    }


def meta_policy(tower: str, language: str | Path | PreTrainedConfig) -> EntropyVLM:
    """A policy on the meta device: the shapes of a tower and a decoder, no weights.

    Args:
        tower: an open_clip model name, one of this package's, or a local folder.
        language: a configuration; a folder or name on the hub that holds one; or a `model_type` such as "llama" or
            "qwen2", for the sizes that transformers gives it by default.

    Raises:
        UsageError: neither is known, or a decoder that EntropyVLM does not run.
    """
    config = meta_language(language)
    with torch.device("meta"):
        vision = VisionEncoder(tower).config
        return EntropyVLM(EntropyVLMConfig(vision=vision, text=config.to_dict())).eval()


def meta_language(language: str | Path | PreTrainedConfig) -> PreTrainedConfig:
    """The text configuration that a name stands for; as `meta_policy` takes it."""
    if isinstance(language, PreTrainedConfig):
        config = language
    elif str(language) in CONFIG_MAPPING:
        config = CONFIG_MAPPING[str(language)]()
    else:
        check_language(str(language))
        try:
            config = AutoConfig.from_pretrained(language)
        except (OSError, ValueError) as error:
            raise UsageError(
                f"no language model {str(language)!r}: give a folder with config.json, a name on the hub, or a "
                "model_type of transformers such as llama"
            ) from error
    config = config.get_text_config()
    check_decoder(config)
    if any(getattr(config, name, None) for name in _EXPERTS):
        raise UsageError(
            f"{config.model_type!r} sends its tokens to experts, which is not counted: give a dense decoder"
        )
    return config


def meta_decoder(config: PreTrainedConfig) -> Any:
    """A causal language model without weights."""
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config).eval()


def _merging(model: EntropyVLM, packed: PackedPatches) -> int:
    """FLOPs of blocks that merge, counted. Raises UsageError: a policy without weights, which tells nothing alike."""
    if model.device.type == "meta":
        raise UsageError("what tome costs is counted as it runs: give a policy with weights, or evs-features")
    with torch.no_grad():
        hidden = model.encoder.embed(packed)
        return _count(lambda: model.see(packed, hidden))


def _read_one(language: Any, past: int) -> None:
    """One token through a decoder's body on the meta device, behind `past` others."""
    config = language.config
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads

    def meta(*shape: int, dtype: torch.dtype = language.dtype) -> Tensor:
        return torch.empty(shape, dtype=dtype, device="meta")

    seen = meta(1, config.num_key_value_heads, past, head)
    language.base_model(
        inputs_embeds=meta(1, 1, config.hidden_size),
        attention_mask=meta(1, 1, 1, past + 1, dtype=torch.bool),
        position_ids=meta(1, 1, dtype=torch.long),
        cache=DynamicCache([(seen, seen)] * config.num_hidden_layers) if past else DynamicCache(),
        use_cache=True,
    )


def _count(run: Any) -> int:
    return sum(count_flops(run).values())
