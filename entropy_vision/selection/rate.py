"""rate: the bits a patch costs to describe, given what has been shown before (see `entropy_vision.rate`).

A tenth of the budget goes to evenly spread patches, whatever they score: where clever pruners lose to random, this is
what they lack. Where fewer patches than the budget say anything at all, the rest of it is spread evenly too.
"""

from __future__ import annotations

import numpy as np

from entropy_vision.budget import exact, spread
from entropy_vision.frames import Frames
from entropy_vision.rate import patch_bits

_COVERAGE = 0.1  # of the budget
_NOTHING = 1.0  # a patch of less than one bit says nothing
_ROUNDS = 4  # of spreading more patches where some fell on patches already in


class Rate:
    """Bits against the image's own context and the frame before."""

    name = "rate"
    version = 1

    def score(self, frames: Frames, patch_size: int) -> np.ndarray:
        """float32 [F, R, C], bits."""
        return patch_bits(frames.pixels, patch_size)

    def choose(self, bits: np.ndarray, count: int) -> np.ndarray:
        """bool [F, R, C]: the coverage floor, then the most bits."""
        frames, rows, columns = bits.shape
        if count == bits.size:
            return np.ones(bits.shape, bool)
        spare = int(_COVERAGE * count)
        worth = bits >= _NOTHING
        if worth.sum() + spare <= count:
            return exact(bits, count, _filled(worth, count))
        return exact(bits, count, spread((frames, rows, columns), spare))


def _filled(mask: np.ndarray, count: int) -> np.ndarray:
    """`mask` and evenly spread patches, together `count` or a few less."""
    frames, rows, columns = mask.shape
    full, points = mask, count - int(mask.sum())
    for _ in range(_ROUNDS):
        more = mask | spread((frames, rows, columns), points)
        short = count - int(more.sum())
        if short < 0:
            break
        full, points = more, points + short  # as many fell on patches that were in already
        if not short or points > mask.size:
            break
    return full
