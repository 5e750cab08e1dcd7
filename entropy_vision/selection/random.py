"""random: the baseline every clever selector must beat, and often does not.

Score: U(0, 1) from a counter-based generator (Philox 4x64-10; Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as
easy as 1, 2, 3", SC 2011) keyed by the seed and a checksum of the pixels: the same input always draws the same lots,
two inputs draw different ones. (With one draw for all inputs, a set of questions would measure a single mask.) A
smaller budget keeps a subset of a larger one's, but for the patch that every frame keeps.
"""

from __future__ import annotations

import zlib

import numpy as np

from entropy_vision.frames import Frames
from entropy_vision.grid import grid_size
from entropy_vision.selection.base import Selector

_EVERY = 4  # pixels in each direction: enough to tell inputs apart


class Random(Selector):
    """Patches by lot."""

    name = "random"
    version = 2

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def score(self, frames: Frames, patch_size: int) -> np.ndarray:
        """float32 [F, R, C] in [0, 1): lots, not bits."""
        grid = (frames.count, *grid_size(*frames.size, patch_size))
        seen = frames.pixels[:, ::_EVERY, ::_EVERY].tobytes()
        key = (self.seed % 2**64) << 64 | zlib.crc32(seen)
        return np.random.Generator(np.random.Philox(key=key)).random(grid, dtype=np.float32)
