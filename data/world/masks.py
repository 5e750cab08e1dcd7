"""From pixels and boxes to the patches of an evidence mask."""

from __future__ import annotations

import numpy as np

from .stage import PATCH


def patches(mask: np.ndarray) -> np.ndarray:
    """bool [R, C]: the patches (edge patches padded) in which a uint8 [size, size] mask holds anything but zero."""
    size = mask.shape[0]
    count = -(-size // PATCH)
    padded = np.zeros((count * PATCH, count * PATCH), np.uint8)
    padded[:size, :size] = mask
    rows = padded.reshape(count, PATCH, -1).max(axis=1)  # whole rows first: several times as fast as both at once
    return np.asarray(rows.reshape(count, count, PATCH).max(axis=2) > 0)


def box_patches(box: tuple[float, float, float, float], size: int) -> np.ndarray:
    """bool [R, C]: the patches that share a pixel with a box (x0, y0, x1, y1), given as fractions of the frame."""
    count = -(-size // PATCH)
    x0, y0, x1, y1 = (
        min(max(int(edge), 0), size)
        for edge in (box[0] * size, box[1] * size, np.ceil(box[2] * size), np.ceil(box[3] * size))
    )
    mask = np.zeros((count, count), bool)
    if x1 > x0 and y1 > y0:
        mask[y0 // PATCH : -(-y1 // PATCH), x0 // PATCH : -(-x1 // PATCH)] = True
    return mask
