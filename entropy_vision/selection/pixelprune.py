"""pixelprune: patches that are not a copy of a neighbour.

    C B     pred = B if C ~ A and not C ~ B, else A;  first row: A, first column: B, the first patch is always kept
    A x     s = max over pixels and channels of |x - pred|;  y ~ z: max |y - z| <= tau

N. Wang, Z. Jin, C. Chen, H. Lu, "PixelPrune: Pixel-Level Adaptive Visual Token Reduction via Predictive Coding", arXiv
2604.00886, after the edge detector of LOCO-I (M. J. Weinberger, G. Seroussi, G. Sapiro, IEEE Transactions on Image
Processing 9, 2000). The original drops x where s <= tau, by default tau = 0, exact copies only: Budget(threshold=1).
The variant for a fixed count is the largest s. The original takes still images; the frames of a video are scored one
by one.

With tau > 0 the neighbours are what was kept of them (a dropped patch is its prediction), or small steps would add up;
`anchored_error` does that, one diagonal of the grid after the other. Where patches are padded only real pixels are
compared.

It is made for documents and screens. In a photograph nothing is a copy and s is the one pixel that is worst predicted,
so noise comes first; it has no notion of time.
"""

from __future__ import annotations

import cv2
import numpy as np

from entropy_vision.frames import Frames
from entropy_vision.grid import grid_size, pad, patchify
from entropy_vision.selection.base import Selector
from entropy_vision.selection.measures import FIRST_FRAME


def prediction_error(frame: np.ndarray, patch_size: int) -> np.ndarray:
    """s of every patch at tau = 0: uint8 [H, W, 3] -> float32 [R, C], grey levels in 0..255; 256 for the first."""
    left = _largest_change(frame[:, patch_size:], frame[:, :-patch_size], patch_size)  # |x - A|, from column 1 on
    up = _largest_change(frame[patch_size:], frame[:-patch_size], patch_size)  # |x - B|, from row 1 on
    error = np.full(grid_size(frame.shape[0], frame.shape[1], patch_size), FIRST_FRAME, np.float32)
    error[:1, 1:], error[1:, :1] = left[:1], up[:, :1]
    # C ~ A is what x ~ B is one column earlier; where C ~ B holds as well, A and B are the same
    error[1:, 1:] = np.where(up[:, :-1] == 0, up[:, 1:], left[1:])
    return error


def _largest_change(now: np.ndarray, before: np.ndarray, patch_size: int) -> np.ndarray:
    """Largest |now - before| of each patch: uint8 [H, W, 3], empty where there is no neighbour -> uint8 [R, C]."""
    if not now.size:
        return np.zeros(grid_size(now.shape[0], now.shape[1], patch_size), np.uint8)
    change = cv2.absdiff(now, before)
    rows = [change[top : top + patch_size].max(axis=0) for top in range(0, len(change), patch_size)]
    return np.maximum.reduceat(np.stack(rows).max(axis=-1), np.arange(0, change.shape[1], patch_size), axis=1)


def anchored_error(frame: np.ndarray, patch_size: int, tau: float) -> np.ndarray:
    """s of every patch against what was kept of its neighbours.

    Args:
        frame: uint8 [H, W, 3].
        tau: grey levels; at 0 this is `prediction_error`.

    Returns:
        float32 [R, C], grey levels in 0..255; 256 for the first patch. The original keeps what is above tau.
    """
    height, width, _ = frame.shape
    rows, columns = grid_size(height, width, patch_size)
    padded = pad(frame[None], patch_size).astype(np.int16)
    inside = np.zeros(padded.shape, bool)
    inside[:, :height, :width] = True
    patches, real = (patchify(one, patch_size).reshape(rows, columns, -1) for one in (padded, inside))
    kept, error = patches.copy(), np.full((rows, columns), FIRST_FRAME, np.float32)
    for diagonal in range(1, rows + columns - 1):  # all neighbours of a diagonal are on the two before it
        r = np.arange(max(0, diagonal - columns + 1), min(rows, diagonal + 1))
        c = diagonal - r
        above, before = np.maximum(r - 1, 0), np.maximum(c - 1, 0)
        a, b, corner = kept[r, before], kept[above, c], kept[above, before]
        like_a = _distance(corner, a, real[r, before]) <= tau
        like_b = _distance(corner, b, real[above, c]) <= tau
        use_up = (like_a & ~like_b & (r > 0)) | (c == 0)
        predicted = np.where(use_up[:, None], b, a)
        error[r, c] = _distance(patches[r, c], predicted, real[r, c])
        copies = error[r, c] <= tau
        kept[r[copies], c[copies]] = predicted[copies]
    return error


def _distance(one: np.ndarray, two: np.ndarray, real: np.ndarray) -> np.ndarray:
    """Largest difference of patches where both are real: [n, P * P * 3] -> [n]."""
    return (np.abs(one - two) * real).max(axis=-1)


class PixelPrune(Selector):
    """Largest error of a prediction from the patches to the left, above and between."""

    name = "pixelprune"
    version = 1

    def score(self, frames: Frames, patch_size: int) -> np.ndarray:
        """float32 [F, R, C], grey levels in 0..255; 256 in the first patch of every frame."""
        return np.stack([prediction_error(frame, patch_size) for frame in frames.pixels])
