"""random: the baseline every clever selector must beat, and often does not.

Score: U(0, 1) from a counter-based generator (Philox 4x64-10; Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as
easy as 1, 2, 3", SC 2011) keyed by the seed. The content plays no part: the same seed and grid give the same patches,
and a smaller budget keeps a subset of a larger one's (but for the patch that every frame keeps).
"""

from __future__ import annotations

import numpy as np

from entropy_vision.budget import exact
from entropy_vision.frames import Frames
from entropy_vision.grid import grid_size


class Random:
    """Patches by lot."""

    name = "random"
    version = 1

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def score(self, frames: Frames, patch_size: int) -> np.ndarray:
        """float32 [F, R, C] in [0, 1): lots, not bits."""
        grid = (frames.count, *grid_size(*frames.size, patch_size))
        key = self.seed % 2**128
        return np.random.Generator(np.random.Philox(key=key)).random(grid, dtype=np.float32)

    def choose(self, bits: np.ndarray, count: int) -> np.ndarray:
        """bool [F, R, C]: the highest lots."""
        return exact(bits, count)
