"""dtd: in every frame, the patches that changed most since the frame before.

    s(p, t) = mean over the patch's pixels and channels of |x_t - x_(t-1)| / 255,   s(p, 0): above every other

The form in pixels of Differential Token Drop (L. Yao, Y. Li, Y. Wei and others, "TimeChat-Online: 80% Visual Tokens are
Naturally Redundant in Streaming Videos", ACM Multimedia 2025, arXiv 2504.17343). The first frame is kept whole. Later
ones keep what changed by a threshold or more, Budget(threshold=); for pixels none is published as a default (0.5 is the
cosine of the form in features). Or they drop the same share of every frame: that is the budget variant here, equal
counts for all frames after the first, the larger ones earlier. So it needs no look at later frames, as a stream asks
for, and cannot move tokens to the frames where something happens; `evs` can.

It is blind to what `evs` is blind to.
"""

from __future__ import annotations

import numpy as np

from entropy_vision.budget import exact
from entropy_vision.frames import Frames
from entropy_vision.selection.base import Selector
from entropy_vision.selection.measures import frame_difference


class Dtd(Selector):
    """Mean absolute difference to the frame before, frame by frame."""

    name = "dtd"
    version = 1

    def score(self, frames: Frames, patch_size: int) -> np.ndarray:
        """float32 [F, R, C], share of the grey scale in [0, 1]; 256 in the first frame."""
        return frame_difference(frames.pixels, patch_size, unit=255)

    def by_bits_alone(self, moments: int) -> bool:
        """Always."""
        return True

    def choose(self, bits: np.ndarray, count: int, frames: Frames, patch_size: int) -> np.ndarray:
        """bool [F, R, C]: the first frame, then equally many of each later frame, its largest changes."""
        falling = np.argsort(-bits.reshape(len(bits), -1), axis=1, kind="stable")
        rank = np.argsort(falling, axis=1, kind="stable")
        rank[0] = 0  # all of the first frame comes before any frame's second
        return exact(-rank.astype(np.float32).reshape(bits.shape), count)
