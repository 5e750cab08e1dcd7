"""What a selector is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import numpy as np

from entropy_vision.budget import exact
from entropy_vision.errors import UsageError
from entropy_vision.frames import Frames


class Selector(ABC):
    """Scores patches and chooses among them. Deterministic, without state, cheap to make.

    Scoring and choosing are apart so that one scoring serves many budgets, and so that a selector whose choice depends
    on how many it may keep (`uniform`, or a coverage floor) has a place for it.

    Attributes:
        name: the name users give.
        version: goes up whenever the same pixels can score or be chosen differently; part of the fingerprint.
    """

    name: str
    version: int

    @abstractmethod
    def score(self, frames: Frames, patch_size: int) -> np.ndarray:
        """float32 [F, R, C], finite, >= 0; more means more worth keeping."""

    def stream(self, patch_size: int) -> Callable[[np.ndarray], np.ndarray]:
        """What scores one frame after the other, uint8 [H, W, 3] -> float32 [R, C], as `score` does all of them.

        Raises:
            UsageError: the score needs frames that come later, or a state nobody has written down yet.
        """
        raise UsageError(f"{self.name} scores whole videos only; what streams is rate")

    def by_bits_alone(self, moments: int) -> bool:
        """Whether `choose` goes by the bits alone for so many frames, so that it can be made without their pixels."""
        return type(self).choose is Selector.choose

    def choose(self, bits: np.ndarray, count: int, frames: Frames, patch_size: int) -> np.ndarray:
        """bool [F, R, C] with exactly `count` True and, where count >= F, at least one in every frame.

        The largest scores, unless a selector has another way. `bits` are what `score` gave for `frames`.
        """
        return exact(bits, count)
