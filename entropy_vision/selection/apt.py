"""apt: a quadtree by entropy; quiet areas keep one patch, busy ones all of theirs.

    H_i(cell) = entropy of the 256-bin grey histogram of a cell of 2^i x 2^i patches, the sum of its children's
    from the coarsest scale down: a cell with H_i < tau_i stays whole, any other is split

R. Choudhury, J. Kim, J. Park, E. Yang, L. A. Jeni, K. M. Kitani, "Accelerating Vision Transformers with Adaptive Patch
Sizes", arXiv 2510.18091. There a whole cell becomes one large token that shows all of it, scaled down. Here every
patch has one size, so a whole cell keeps its child of the highest entropy and the rest of it is not seen: the same
count of tokens, less of the picture, and no judgement on the original. Cells cut by the border have the children that
they have; there they are always split. The original takes still images; the frames of a video are scored one by one.

Its thresholds fix no count. The budget variant adds one offset o to all of them and takes the o that gives the count.
As o rises every patch leaves once: at the least H_i - tau_i of the cells that another patch stands for. That is the
score, and the largest scores are what a bisection on o finds. What stands for a coarsest cell never leaves; these come
first, by their H. Budget(threshold=6), o = 0, is the published choice: tau = 6.0 and 4.0 for 2 x 2 and 4 x 4 patches
(its configurations with one coarse scale have 5.5).

It sees no colour, spends everything on noise and foliage, and has no notion of time.
"""

from __future__ import annotations

import cv2
import numpy as np

from entropy_vision.frames import Frames
from entropy_vision.selection.base import Selector
from entropy_vision.selection.histogram import entropy, histograms

THRESHOLDS = (6.0, 4.0)  # bits, of 2 x 2 and of 4 x 4 patches


def quadtree(plane: np.ndarray, patch_size: int, thresholds: tuple[float, ...] = THRESHOLDS) -> np.ndarray:
    """The offset to all thresholds up to which each patch is kept, plus the largest threshold.

    Args:
        plane: uint8 [H, W].
        thresholds: in (0, 8], one for each coarse scale, the finest first.

    Returns:
        float32 [R, C]: in [0, 8 + largest - smallest threshold] or, of what represents a coarsest cell,
        [8 + largest threshold, 16 + largest threshold].
    """
    counts = histograms(plane, patch_size)
    rows, columns = counts.shape[:2]
    side = 2 ** len(thresholds)
    counts = np.pad(counts, ((0, -rows % side), (0, -columns % side), (0, 0)))
    fine = np.where(counts.any(axis=-1), entropy(counts), -1.0)  # beyond the border: never a representative
    alone = np.ones(fine.shape, bool)  # represents its cell
    score, bits = np.full(fine.shape, np.inf), fine
    for scale, threshold in enumerate(thresholds, start=1):
        counts = counts[::2, ::2] + counts[1::2, ::2] + counts[::2, 1::2] + counts[1::2, 1::2]
        bits = entropy(counts).repeat(2**scale, axis=0).repeat(2**scale, axis=1)
        alone = _best(np.where(alone, fine, -2.0), 2**scale)
        score = np.where(alone, score, np.minimum(score, bits - threshold))
    score = np.where(alone, bits + 8, score) + max(thresholds)
    return score[:rows, :columns].astype(np.float32)


def _best(values: np.ndarray, side: int) -> np.ndarray:
    """bool [R, C]: the largest value of each cell of side x side, the first of equals."""
    rows, columns = values.shape[0] // side, values.shape[1] // side
    cells = values.reshape(rows, side, columns, side).swapaxes(1, 2).reshape(rows, columns, side * side)
    best = cells.argmax(axis=-1)[..., None] == np.arange(side * side)
    return best.reshape(rows, columns, side, side).swapaxes(1, 2).reshape(values.shape)


class Apt(Selector):
    """Quadtree by the entropy of the grey histogram."""

    name = "apt"
    version = 1

    def score(self, frames: Frames, patch_size: int) -> np.ndarray:
        """float32 [F, R, C], bits in [0, 22]: 6 + the offset at which the patch leaves, 14 + H where it never does."""
        planes = (cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames.pixels)
        return np.stack([quadtree(plane, patch_size) for plane in planes])
