"""Towers of some ten thousand random weights, one a family: shared by the tests of what encodes."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from functools import partial
from typing import Any

import timm.models.eva as timm_eva
import timm.models.vision_transformer as timm_vit
import torch
from timm.layers import LayerNorm
from timm.models import is_model, register_model
from torch import nn

from entropy_vision.encoder import VisionEncoder

SMALL: dict[str, Any] = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8},
}


def small_tower(*, quick_gelu: bool = False, **vision: Any) -> VisionEncoder:
    """A 4x4 tower whose weights are all away from their initial zeros and ones; `vision` changes its vision_cfg."""
    config = deepcopy(SMALL) | {"quick_gelu": quick_gelu}
    config["vision_cfg"] |= vision
    return shaken(VisionEncoder.from_config(config))


def shaken(encoder: VisionEncoder) -> VisionEncoder:
    """Every weight moved, so that none is a zero or a one that hides what it does."""
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return encoder.eval()


# timm's makers of the families, cut down to the size of SMALL
_COMMON: dict[str, Any] = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2}
_VIT: dict[str, tuple[str, dict[str, Any]]] = {
    "siglip": ("vit_base_patch16_siglip_224", {"class_token": False, "global_pool": "map"}),
    "siglip2": (
        "vit_so400m_patch16_siglip_256",
        {"class_token": False, "global_pool": "map", "mlp_ratio": 3.7362, "act_layer": "gelu_tanh"},
    ),
    "clip": ("vit_base_patch16_clip_224", {"pre_norm": True, "norm_layer": partial(LayerNorm, eps=1e-5)}),
    "registers": (
        "vit_medium_patch16_reg4_gap_256",
        {"class_token": False, "no_embed_class": True, "reg_tokens": 4, "global_pool": "avg", "init_values": 0.3},
    ),
    "class-registers": ("vit_base_patch14_reg4_dinov2", {"reg_tokens": 3, "init_values": 0.3, "qk_norm": True}),
    "no-places": ("vit_base_patch16_224", {"pos_embed": "none", "scale_attn_norm": True, "scale_mlp_norm": True}),
}
_EVA: dict[str, tuple[str, dict[str, Any]]] = {
    "eva01": ("eva_giant_patch14_224", {"mlp_ratio": 3.0}),
    "eva02": (
        "eva02_base_patch16_clip_224",
        {
            "qkv_fused": False,
            "mlp_ratio": 4 * 2 / 3,
            "swiglu_mlp": True,
            "scale_mlp": True,
            "scale_attn_inner": True,
            "use_rot_pos_emb": True,
            "ref_feat_shape": (3, 3),
            "global_pool": "token",
        },
    ),
    "eva02-post": ("eva02_enormous_patch14_clip_224", {"use_post_norm": True, "global_pool": "token"}),
    "perception": (
        "vit_pe_core_tiny_patch16_384",
        {
            "global_pool": "map",
            "attn_type": "rope",
            "use_pre_transformer_norm": True,
            "use_rot_pos_emb": True,
            "ref_feat_shape": (4, 4),
            "rope_grid_offset": 1.0,
            "rope_grid_indexing": "xy",
            "attn_pool_num_heads": 4,
            "attn_pool_mlp_ratio": 4.0,
        },
    ),
    "rope-registers": (
        "vit_medium_patch16_rope_reg1_gap_256",
        {
            "class_token": False,
            "num_reg_tokens": 2,
            "use_rot_pos_emb": True,
            "use_abs_pos_emb": False,
            "swiglu_mlp": True,
            "init_values": 0.3,
            "global_pool": "avg",
        },
    ),
}
_HEADS = {"siglip": "none", "siglip2": "none", "registers": "linear"}  # open_clip's timm_proj; None elsewhere


def _register(family: str, like: str, changes: dict[str, Any]) -> str:
    name = f"ev_small_{family.replace('-', '_')}"
    if not is_model(name):
        create = timm_vit._create_vision_transformer if family in _VIT else timm_eva._create_eva

        def make(pretrained: bool = False, **kwargs: Any) -> nn.Module:
            return create(like, pretrained=pretrained, **(_COMMON | changes | kwargs))

        make.__name__ = name
        register_model(make)
    return name


def timm_config(family: str) -> dict[str, Any]:
    """The open_clip config of a small tower of one of timm's families."""
    like, changes = (_VIT | _EVA)[family]
    pool = changes.get("global_pool", "token")
    vision = {"timm_model_name": _register(family, like, changes), "timm_pool": pool, "timm_proj": _HEADS.get(family)}
    return {"embed_dim": 16, "vision_cfg": vision}


FAMILIES: dict[str, Callable[[], VisionEncoder]] = {
    "open_clip": small_tower,
    "coca": partial(small_tower, attentional_pool=True, attn_pooler_heads=4, attn_pooler_queries=5),
    **{name: lambda name=name: shaken(VisionEncoder.from_config(timm_config(name))) for name in _VIT | _EVA},
}
"""Every class of tower, and every way in which towers of one class differ."""
