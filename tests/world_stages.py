"""A scene of a family, without the World around it."""

from __future__ import annotations

from typing import Any

import numpy as np

from entropy_vision.data.world.families import STAGED
from entropy_vision.data.world.stage import Setting


def stage_of(family: str, target: Any, seed: int = 0, split: str = "train", d: float = 0.5, frames: int = 8) -> Any:
    """A scene, by the family itself; the same stream for every target."""
    rng = np.random.default_rng(seed)
    while True:
        count = 1 if STAGED[family].media == "image" else frames
        stage = STAGED[family].stage(STAGED[family], target, Setting(split, d, count), rng)
        if stage is not None:
            return stage


def rendered(stage: Any, size: int = 96) -> np.ndarray:
    pixels: np.ndarray = stage.render(size, np.random.default_rng(7))
    return pixels


def patches_that_differ(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """bool [F, R, C] at patch size 16."""
    count = a.shape[1] // 16
    changed: np.ndarray = (a != b).any(axis=3).reshape(len(a), count, 16, count, 16).any(axis=(2, 4))
    return changed
