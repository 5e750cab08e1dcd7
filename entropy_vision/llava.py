"""LLaVA-1.5 and LLaVA-OneVision checkpoints, as transformers writes them, read into an EntropyVLM.

transformers' own class reads the files, so every layout it knows is read; then its tower, projector and decoder are
taken over as they are, and nothing is copied or renamed. With every patch kept the policy's logits are LLaVA's. With
fewer it computes what LLaVA would, were the dropped patches masked in the tower and in the decoder: each kept token
stays at the rotary position it has in the whole picture (`visual_positions="grid"`).

OneVision reads a picture as one tile, as transformers does where a prompt has several, and pools the frames of a
video. Its cutting of a single picture into tiles of many shapes is left out: what is spent on tiles and what a budget
saves would work against each other.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    LlavaForConditionalGeneration,
    LlavaOnevisionForConditionalGeneration,
    PreTrainedConfig,
)
from transformers.image_processing_base import ImageProcessingMixin
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from entropy_vision.errors import UsageError
from entropy_vision.hf_vision import HFVisionEncoder
from entropy_vision.loading import check_loaded, told_here
from entropy_vision.policy_config import EntropyVLMConfig
from entropy_vision.policy_parts import Parts, check_decoder
from entropy_vision.projectors import LlavaProjector

if TYPE_CHECKING:
    from entropy_vision.policy import EntropyVLM

_CLASSES = {"llava": LlavaForConditionalGeneration, "llava_onevision": LlavaOnevisionForConditionalGeneration}


def load_llava(cls: type[EntropyVLM], path: str | Path, **options: Any) -> EntropyVLM:
    """The policy of a LLaVA checkpoint, in eval mode.

    Args:
        path: its folder, or its name on the hub.
        options: what `from_pretrained` takes, such as `dtype` and `device_map`.

    Raises:
        UsageError: no LLaVA-1.5 or LLaVA-OneVision checkpoint, or one with features of several layers, a class token
            among them, a tower that is neither CLIP nor SigLIP, or a decoder that EntropyVLM does not run.
    """
    source = llava_config(path)
    check_decoder(source.text_config)
    tolerant = options.get("ignore_mismatched_sizes", False)
    told = {"output_loading_info": True, "ignore_mismatched_sizes": True}  # told here in one line
    with told_here(path):
        whole, info = cast(Any, _CLASSES[source.model_type]).from_pretrained(path, **options | told)
    check_loaded(path, {**info, "mismatched_keys": []} if tolerant else info, unexpected=False)
    body = whole.model
    mean, std = pixel_statistics(path)
    encoder = HFVisionEncoder(body.vision_tower, source.vision_feature_layer, mean, std)
    projection = {
        "activation": source.projector_hidden_act,
        "bias": source.multimodal_projector_bias,
        "newline": source.model_type == "llava_onevision",
    }
    config = EntropyVLMConfig(
        vision=encoder.config,
        text=source.text_config.to_dict(),
        image_token_id=source.image_token_id,
        visual_positions="grid",
        projector={"kind": "llava", **projection},
        pad_token_id=source.text_config.pad_token_id,
        eos_token_id=source.text_config.eos_token_id,
        dtype=whole.dtype,
    )
    with torch.device("meta"):
        projector = LlavaProjector(encoder.width, source.text_config.hidden_size, **projection)
        language = AutoModelForCausalLM.from_config(source.text_config)
    projector.linear_1, projector.linear_2 = body.multi_modal_projector.linear_1, body.multi_modal_projector.linear_2
    projector.image_newline = getattr(body, "image_newline", None)
    setattr(language, language.base_model_prefix, body.language_model)
    language.set_output_embeddings(whole.lm_head)
    model = cls(config, Parts(encoder, projector, language))
    if any(tensor.is_meta for tensor in (*model.parameters(), *model.buffers())):
        raise UsageError(f"{path}: the decoder {source.text_config.model_type!r} has weights beside its body and head")
    if whole.generation_config is not None:
        model.generation_config = whole.generation_config
    return model.to(dtype=whole.dtype, device=whole.device).eval()


def llava_config(path: str | Path) -> PreTrainedConfig:
    """The configuration of a LLaVA checkpoint that can be read. Raises as `load_llava`."""
    try:
        config = AutoConfig.from_pretrained(path)
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} holds no LLaVA checkpoint: {str(error).strip().splitlines()[0]}") from error
    if config.model_type not in _CLASSES:
        raise UsageError(
            f"{path} holds a checkpoint of {config.model_type!r}; from_llava reads those of {' and '.join(_CLASSES)}"
        )
    tower, strategy = config.vision_config.model_type, config.vision_feature_select_strategy
    what = None
    if not isinstance(config.vision_feature_layer, int):
        what = f"features of several layers ({config.vision_feature_layer})"
    elif (tower, strategy) not in (("clip_vision_model", "default"), ("siglip_vision_model", "full")):
        what = f"features {strategy!r} of a {tower!r} tower"
    if what:
        raise UsageError(
            f"{path} takes {what}, which from_llava does not read: CLIP with 'default', SigLIP with 'full'"
        )
    return config


def pixel_statistics(path: str | Path) -> tuple[list[float], list[float]]:
    """(mean, std) of each channel that a checkpoint's image processor normalises with; CLIP's where it has none."""
    try:
        settings, _ = ImageProcessingMixin.get_image_processor_dict(path)
    except OSError:
        settings = {}
    return settings.get("image_mean") or OPENAI_CLIP_MEAN, settings.get("image_std") or OPENAI_CLIP_STD
