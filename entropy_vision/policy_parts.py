"""What a policy is made of, and which language models can be part of one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedConfig

from entropy_vision.encoder import VisionEncoder
from entropy_vision.errors import UsageError
from entropy_vision.hf_vision import HFVisionEncoder
from entropy_vision.projectors import LlavaProjector, Projector, make_projector

if TYPE_CHECKING:
    from entropy_vision.policy_config import EntropyVLMConfig

_LOGIT_SCALES = ("final_logit_softcapping", "logit_scale", "logits_scaling", "lm_head_multiplier")


@dataclass(frozen=True)
class Parts:
    """What a policy is made of: a tower, its projector, a causal language model of transformers."""

    encoder: VisionEncoder | HFVisionEncoder
    projector: Projector | LlavaProjector
    language: Any


def fresh_parts(config: EntropyVLMConfig, text_config: PreTrainedConfig) -> Parts:
    """Parts with their libraries' initial weights."""
    encoder: VisionEncoder | HFVisionEncoder
    if "model_type" in config.vision:
        encoder = HFVisionEncoder.from_config(config.vision)
    else:
        encoder = VisionEncoder.from_config(config.vision)
    projector = make_projector(config.projector, encoder.width, text_config.hidden_size)
    # checkpoints name a precision for each part; what holds is that of the whole
    kernel = getattr(config, "_attn_implementation", None)
    language = AutoModelForCausalLM.from_config(
        text_config, dtype=torch.get_default_dtype(), attn_implementation=kernel
    )
    return Parts(encoder, projector, language)


def check_decoder(config: PreTrainedConfig) -> None:
    """Refuse a language model whose logits are not its head's product, or whose memory is not keys and values.

    Raises:
        UsageError: such a model, or one that transformers has no causal language model for.
    """
    what = None
    layers = getattr(config, "layer_types", None) or ()
    if type(config) not in AutoModelForCausalLM._model_mapping:  # transformers has no other way to ask
        what = "is no causal language model"
    elif getattr(config, "is_encoder_decoder", False):
        what = "reads through an encoder"
    elif any("attention" not in layer or "linear" in layer for layer in layers):
        what = "has layers without attention"
    elif getattr(config, "kv_lora_rank", None) or config.model_type == "llama4_text":
        what = "keeps something else in its memory than keys and values of each head"
    elif getattr(config, "num_key_value_heads", None) is None:
        what = "does not say its num_key_value_heads"
    elif any(getattr(config, name, None) not in (None, 1, 1.0) for name in _LOGIT_SCALES):
        what = "scales its logits behind the head"
    if what:
        raise UsageError(
            f"the decoder {config.model_type!r} {what}, which EntropyVLM does not run: "
            "use one such as qwen2, qwen3, llama, mistral or smollm3"
        )
