"""A scene that is ready to be drawn, whatever it is made of; the one thing `World` asks of every kind of scene."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from entropy_vision.question import SceneObject

if TYPE_CHECKING:
    from .family import Ask

PATCH = 16  # of every evidence mask


@dataclass(frozen=True)
class Setting:
    """What a scene is made for.

    Attributes:
        split: one of `SPLITS`.
        difficulty: 0..1.
        frame_count: frames of a video; an image has one.
    """

    split: str
    difficulty: float
    frame_count: int


class Stage(Protocol):
    """Where everything is, and what is asked of it. Its answers never depend on pixels or on the size of them."""

    @property
    def asks(self) -> Sequence[Ask]:
        """The questions."""

    @property
    def facts(self) -> Mapping[str, Any]:
        """What else is true of the scene (events, programs, regimes), fit for JSON; goes into `Item.meta`."""

    def render(self, size: int, rng: np.random.Generator) -> np.ndarray:
        """uint8 [F, size, size, 3]: every frame. Knows nothing of the questions."""

    def objects(self) -> Sequence[SceneObject]:
        """What is drawn and where."""

    def evidence(self, size: int) -> Sequence[np.ndarray]:
        """For each question bool [F, R, C] at patch size 16 (edge patches padded): what one must see to answer."""
