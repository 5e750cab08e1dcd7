"""evs: patches that changed since the frame before, in pixels.

    s(p, t) = mean over the patch's pixels and channels of |x_t - x_(t-1)|,   s(p, 0): above every other

The form in RGB of EVS (N. Bagrov, E. Khvedchenia, B. Tymchenko and others, "Efficient Video Sampling: Pruning
Temporally Redundant Tokens for Faster VLM Inference", arXiv 2510.14624): all of the first frame, then the patches that
changed most over the whole video, a share of 1 - q. Serving engines run the same rule on the tower's features, after
the tower. The pruning rate q is a budget already, Budget(keep=1 - q); a published model runs at q = 0.7.

It finds what moves before a camera at rest. When the camera moves or the light flickers, everything changed; what
drifts slowly never did. One image, and any budget below one frame, is filled in reading order, for the patches of the
first frame are all worth the same.
"""

from __future__ import annotations

import numpy as np

from entropy_vision.frames import Frames
from entropy_vision.selection.base import Selector
from entropy_vision.selection.measures import frame_difference


class Evs(Selector):
    """Mean absolute difference to the frame before, over the whole video."""

    name = "evs"
    version = 1

    def score(self, frames: Frames, patch_size: int) -> np.ndarray:
        """float32 [F, R, C], grey levels in [0, 255]; 256 in the first frame."""
        return frame_difference(frames.pixels, patch_size)
