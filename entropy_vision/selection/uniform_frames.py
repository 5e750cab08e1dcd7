"""uniform_frames: whole frames at even distances, whatever they show.

    n = R * C patches a frame:   floor(K / n) whole frames at linspace(0, F - 1), the rest of K evenly in the others

Sampling fewer frames is how video models have met a budget since temporal segment networks (L. Wang, Y. Xiong, Z. Wang
and others, "Temporal Segment Networks", ECCV 2016, arXiv 1608.00859). Because every frame keeps at least one patch
where K >= F, the frames between the whole ones hold one each even where the rest of K would not do; the last of the
whole frames give them up. It sees everything in the frames it takes and hardly anything between them.
"""

from __future__ import annotations

import numpy as np

from entropy_vision.budget import spread
from entropy_vision.frames import Frames
from entropy_vision.grid import grid_size
from entropy_vision.selection.base import Selector


class UniformFrames(Selector):
    """Whole frames at even distances."""

    name = "uniform_frames"
    version = 1

    def score(self, frames: Frames, patch_size: int) -> np.ndarray:
        """float32 [F, R, C], all one: every patch counts the same, so Budget(bits=n) keeps n patches."""
        return np.ones((frames.count, *grid_size(*frames.size, patch_size)), np.float32)

    def by_bits_alone(self, moments: int) -> bool:
        """Always."""
        return True

    def choose(self, bits: np.ndarray, count: int, frames: Frames, patch_size: int) -> np.ndarray:
        """bool [F, R, C]: floor(count / (R * C)) whole frames, the rest spread over the others."""
        moments, rows, columns = bits.shape
        size = rows * columns
        whole = np.linspace(0, moments - 1, count // size).round().astype(int)
        others = np.setdiff1d(np.arange(moments), whole)
        between = max(count - size * len(whole), len(others) if count >= moments else 0)
        mask = np.zeros(bits.shape, bool)
        if len(others):
            mask[others] = spread((len(others), rows, columns), between)
        spare = count - between - len(whole)  # beyond the one patch that each of the whole moments has anyway
        for place, frame in enumerate(whole):
            share = 1 + min(max(spare - place * (size - 1), 0), size - 1)
            mask[frame] = spread((1, rows, columns), share)[0]
        return mask
