"""rate: the bits a patch costs to describe, given what has been shown before (see `entropy_vision.rate`).

A tenth of the budget goes to evenly spread patches, whatever they score: where clever pruners lose to random, this is
what they lack.
"""

from __future__ import annotations

import numpy as np

from entropy_vision.budget import exact, spread
from entropy_vision.frames import Frames
from entropy_vision.rate import patch_bits

_COVERAGE = 0.1  # of the budget


class Rate:
    """Bits against the image's own context and the frames before."""

    name = "rate"
    version = 1

    def score(self, frames: Frames, patch_size: int) -> np.ndarray:
        """float32 [F, R, C], bits."""
        return patch_bits(frames.pixels, patch_size)

    def choose(self, bits: np.ndarray, count: int) -> np.ndarray:
        """bool [F, R, C]: the most bits, after the coverage floor."""
        frames, rows, columns = bits.shape
        return exact(bits, count, spread((frames, rows, columns), int(_COVERAGE * count)))
