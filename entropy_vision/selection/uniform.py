"""uniform: patches evenly spread over space and time, whatever they show.

Equal shares for every frame, a lattice of about equal steps inside a frame, shifted from frame to frame by the
plastic-number sequence (M. Roberts, "The unreasonable effectiveness of quasirandom sequences", 2018). The choice
depends on the count: 10 evenly spread patches are not a subset of 11.
"""

from __future__ import annotations

import numpy as np

from entropy_vision.budget import spread
from entropy_vision.frames import Frames
from entropy_vision.grid import grid_size
from entropy_vision.selection.base import Selector


class Uniform(Selector):
    """Patches on a lattice."""

    name = "uniform"
    version = 1

    def score(self, frames: Frames, patch_size: int) -> np.ndarray:
        """float32 [F, R, C], all one: every patch counts the same, so Budget(bits=n) keeps n patches."""
        return np.ones((frames.count, *grid_size(*frames.size, patch_size)), np.float32)

    def by_bits_alone(self, moments: int) -> bool:
        """Always."""
        return True

    def choose(self, bits: np.ndarray, count: int, frames: Frames, patch_size: int) -> np.ndarray:
        """bool [F, R, C]: the lattice of `count` patches."""
        moments, rows, columns = bits.shape
        return spread((moments, rows, columns), count)
