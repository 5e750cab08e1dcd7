"""Sizes of timm's towers by name, for prices that are wanted before torch is loaded; a test holds them to timm.

Those that open_clip names, and a few ViTs beside them. Any other ViT or EVA of timm runs too: it brings its sizes along
in `VisionEncoder.config`.
"""

from __future__ import annotations

from typing import Any

# patch size, width, layers, hidden width of the MLP, prefix tokens, gated MLP
_SIZES = {
    "eva02_base_patch16_clip_224": (16, 768, 12, 2048, 1, True),
    "eva02_enormous_patch14_clip_224": (14, 1792, 64, 15360, 1, False),
    "eva02_large_patch14_clip_224": (14, 1024, 24, 2730, 1, True),
    "eva02_large_patch14_clip_336": (14, 1024, 24, 2730, 1, True),
    "eva_giant_patch14_224": (14, 1408, 40, 6144, 1, False),
    "vit_base_patch14_reg4_dinov2": (14, 768, 12, 3072, 5, False),
    "vit_base_patch16_clip_224": (16, 768, 12, 3072, 1, False),
    "vit_base_patch16_siglip_224": (16, 768, 12, 3072, 0, False),
    "vit_base_patch16_siglip_256": (16, 768, 12, 3072, 0, False),
    "vit_base_patch16_siglip_384": (16, 768, 12, 3072, 0, False),
    "vit_base_patch16_siglip_512": (16, 768, 12, 3072, 0, False),
    "vit_base_patch16_siglip_gap_224": (16, 768, 12, 3072, 0, False),
    "vit_base_patch32_clip_224": (32, 768, 12, 3072, 1, False),
    "vit_base_patch32_siglip_256": (32, 768, 12, 3072, 0, False),
    "vit_giantopt_patch16_siglip_256": (16, 1536, 40, 6144, 0, False),
    "vit_giantopt_patch16_siglip_384": (16, 1536, 40, 6144, 0, False),
    "vit_huge_patch14_clip_224": (14, 1280, 32, 5120, 1, False),
    "vit_large_patch14_clip_224": (14, 1024, 24, 4096, 1, False),
    "vit_large_patch14_clip_336": (14, 1024, 24, 4096, 1, False),
    "vit_large_patch16_siglip_256": (16, 1024, 24, 4096, 0, False),
    "vit_large_patch16_siglip_384": (16, 1024, 24, 4096, 0, False),
    "vit_large_patch16_siglip_512": (16, 1024, 24, 4096, 0, False),
    "vit_medium_patch16_gap_256": (16, 512, 12, 2048, 0, False),
    "vit_medium_patch16_reg4_gap_256": (16, 512, 12, 2048, 4, False),
    "vit_pe_core_base_patch16_224": (16, 768, 12, 3072, 1, False),
    "vit_pe_core_gigantic_patch14_448": (14, 1536, 50, 8960, 0, False),
    "vit_pe_core_large_patch14_336": (14, 1024, 24, 4096, 1, False),
    "vit_pe_core_small_patch16_384": (16, 384, 12, 1536, 1, False),
    "vit_pe_core_tiny_patch16_384": (16, 192, 12, 768, 1, False),
    "vit_so400m_patch14_siglip_224": (14, 1152, 27, 4304, 0, False),
    "vit_so400m_patch14_siglip_378": (14, 1152, 27, 4304, 0, False),
    "vit_so400m_patch14_siglip_384": (14, 1152, 27, 4304, 0, False),
    "vit_so400m_patch16_siglip_256": (16, 1152, 27, 4304, 0, False),
    "vit_so400m_patch16_siglip_384": (16, 1152, 27, 4304, 0, False),
    "vit_so400m_patch16_siglip_512": (16, 1152, 27, 4304, 0, False),
}
_NAMES = ("patch_size", "width", "layers", "hidden", "prefix", "gated")

SIZES: dict[str, dict[str, Any]] = {model: dict(zip(_NAMES, sizes, strict=True)) for model, sizes in _SIZES.items()}
"""timm's name -> what `Tower` is made of."""
