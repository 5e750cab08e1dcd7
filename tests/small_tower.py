"""A tower of some ten thousand random weights: shared by the tests of what encodes."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import torch

from entropy_vision.encoder import VisionEncoder

SMALL: dict[str, Any] = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8},
}


def small_tower(*, quick_gelu: bool = False, **vision: Any) -> VisionEncoder:
    """A 4x4 tower whose weights are all away from their initial zeros and ones; `vision` changes its vision_cfg."""
    config = deepcopy(SMALL) | {"quick_gelu": quick_gelu}
    config["vision_cfg"] |= vision
    encoder = VisionEncoder.from_config(config).eval()
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return encoder
