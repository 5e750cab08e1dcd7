"""Scenes that several families ask about: layouts of flat things, and the questions that were found in one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from entropy_vision.question import SceneObject

from .draw import HELD_OUT, boxes, render, touched_patches
from .family import Ask, LayoutFamily
from .layout import Layout, Media, Wish, image_layout, thing_count, video_layout
from .stage import PATCH, Setting

_ATTEMPTS = 2000  # a scene that fits is found within tens; reaching this is a defect of a family, not bad luck


@dataclass(frozen=True)
class LayoutStage:
    """A layout and the questions that are asked of it."""

    layout: Layout
    asks: tuple[Ask, ...]
    difficulty: float
    split: str = "train"
    facts: Mapping[str, Any] = field(default_factory=dict)

    def render(self, size: int, rng: np.random.Generator) -> np.ndarray:
        """uint8 [F, size, size, 3]: every frame."""
        kind = HELD_OUT if self.split == "background" else None
        return render(self.layout, size, self.difficulty, rng, kind)

    def objects(self) -> tuple[SceneObject, ...]:
        """What is drawn and where."""
        return tuple(
            SceneObject(color=sprite.color, shape=sprite.shape, boxes=box)
            for sprite, box in zip(self.layout.sprites, boxes(self.layout), strict=True)
        )

    def evidence(self, size: int) -> list[np.ndarray]:
        """bool [F, R, C] for each question: what its things touch in the frames that it says."""
        count = -(-size // PATCH)
        wanted = {need[0] for ask in self.asks for need in ask.needs}
        touched = {k: touched_patches(self.layout, k, size, PATCH) for k in wanted}
        masks = []
        for ask in self.asks:
            mask = np.zeros((self.layout.frame_count, count, count), bool)
            for k, *bounds in ask.needs:
                frames = slice(bounds[0], bounds[1] if len(bounds) > 1 else None)
                mask[frames] |= touched[k][frames]
            masks.append(mask)
        return masks


def longer(setting: Setting) -> int:
    """Frames of a video; twice as many in the split "more"."""
    return setting.frame_count * (2 if setting.split == "more" else 1)


def shared_stage(
    media: Media, wanted: Sequence[tuple[LayoutFamily, Any]], setting: Setting, rng: np.random.Generator
) -> LayoutStage:
    """The first random layout that has every wanted answer, and the questions."""
    if setting.split == "template":
        wanted = [(replace(family, templates=(family.held_out,)), target) for family, target in wanted]
    wish = sum((family.wish(target) for family, target in wanted), Wish())
    n = thing_count(rng, media, setting.difficulty, setting.split)
    frame_count = longer(setting)
    for _ in range(_ATTEMPTS):
        layout = (
            image_layout(rng, setting.difficulty, n, setting.split)
            if media == "image"
            else video_layout(rng, setting.difficulty, n, wish, frame_count, setting.split)
        )
        if layout is None:
            continue
        asks = _pose_all(layout, wanted, rng)
        if asks is not None:
            return LayoutStage(layout, asks, setting.difficulty, setting.split)
    raise RuntimeError(f"no scene with {[(f.name, t) for f, t in wanted]} in {_ATTEMPTS} attempts")


def _pose_all(
    layout: Layout, wanted: Sequence[tuple[LayoutFamily, Any]], rng: np.random.Generator
) -> tuple[Ask, ...] | None:
    """A question for everything wanted, or None where the layout lacks one answer."""
    asks: list[Ask] = []
    for family, target in wanted:
        ask = family.pose(family, layout, target, rng)
        if ask is None:
            return None
        asks.append(ask)
    return tuple(asks)
