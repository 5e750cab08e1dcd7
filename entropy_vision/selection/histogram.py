"""histogram: the literal reading of "high-entropy areas" and "an entropy delta between frames".

An image:  H(p) = log2 n - (1/n) * sum_v c_v log2 c_v, with c_v the number of the patch's n pixels of grey value v.
A video:   the same of the absolute difference to the frame before; the first frame by itself.

This is the score of APT (Choudhury et al., "Accelerating Vision Transformers with Adaptive Patch Sizes",
arXiv 2510.18091) with 256 bins, which 8-bit grey fills. It is here to be compared with: it sees no colour, ranks
noise and foliage first, gives nothing to a flat object that fills its patches, and finds everything new when the
camera moves.
"""

from __future__ import annotations

from itertools import pairwise

import cv2
import numpy as np

from entropy_vision.frames import Frames
from entropy_vision.grid import grid_size
from entropy_vision.selection.base import Selector

_BINS = 256


def histograms(plane: np.ndarray, patch_size: int) -> np.ndarray:
    """How often each value occurs inside each patch; padding is not counted.

    Args:
        plane: uint8 [H, W].

    Returns:
        int64 [R, C, 256].
    """
    rows, columns = grid_size(plane.shape[0], plane.shape[1], patch_size)
    row, column = (np.arange(side) // patch_size for side in plane.shape)
    patch = row[:, None] * columns + column
    counts = np.bincount((patch * _BINS + plane).ravel(), minlength=rows * columns * _BINS)
    return counts.reshape(rows, columns, _BINS)


def entropy(counts: np.ndarray) -> np.ndarray:
    """Shannon entropy of histograms, bits a value: int [..., n] -> float64 [...]; 0 where nothing was counted."""
    total = counts.sum(axis=-1)
    table = np.arange(total.max() + 1, dtype=np.float64)  # c log2 c of every possible count
    table[1:] *= np.log2(table[1:])
    total = np.maximum(total, 1)
    return np.maximum(np.log2(total) - table[counts].sum(axis=-1) / total, 0)


def histogram_entropy(plane: np.ndarray, patch_size: int) -> np.ndarray:
    """Shannon entropy of the values inside each patch; padding is not counted.

    Args:
        plane: uint8 [H, W].

    Returns:
        float32 [R, C], bits a pixel in [0, 8].
    """
    return entropy(histograms(plane, patch_size)).astype(np.float32)


class Histogram(Selector):
    """Entropy of the grey histogram, or of the frame difference's."""

    name = "histogram"
    version = 1

    def score(self, frames: Frames, patch_size: int) -> np.ndarray:
        """float32 [F, R, C], bits a pixel in [0, 8]."""
        grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames.pixels]
        planes = [grey[0], *(cv2.absdiff(now, before) for before, now in pairwise(grey))]
        return np.stack([histogram_entropy(plane, patch_size) for plane in planes])
