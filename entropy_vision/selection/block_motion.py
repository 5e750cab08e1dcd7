"""Block motion as a video codec searches it: one whole-pixel vector for each 16 x 16 block.

From a quarter of the size over a half to the full one, each time around what was found before: at most 19 pixels far.
A vector is paid for by its length, and none at all is always a candidate, so that noise points nowhere.
"""

from __future__ import annotations

import cv2
import numpy as np

from entropy_vision.grid import pad

BLOCK = 16  # pixels of the full-size frame
_REACHES = ((4, 4), (2, 1), (1, 1))  # (pixels that are one here, steps searched around the vector found before)
_PRICE = 0.03  # grey levels of mean absolute difference that a pixel of a vector costs


def motion(before: np.ndarray, now: np.ndarray) -> np.ndarray:
    """Where each block of `now` was in `before`. Blocks cut by the border are filled up with its pixels.

    Args:
        before, now: uint8 [H, W], luma.

    Returns:
        int [ceil(H / 16), ceil(W / 16), 2], (down, right) in pixels: now(y, x) ~ before(y + down, x + right).
    """
    before, now = (pad(plane[None], BLOCK)[0] for plane in (before, now))
    vectors = np.zeros((now.shape[0] // BLOCK, now.shape[1] // BLOCK, 2), int)
    for scale, reach in _REACHES:
        size = now.shape[1] // scale, now.shape[0] // scale
        small, target = (cv2.resize(plane, size, interpolation=cv2.INTER_AREA) for plane in (before, now))
        vectors = search(small, target, vectors // scale, reach, BLOCK // scale) * scale
    return vectors


def search(before: np.ndarray, now: np.ndarray, start: np.ndarray, reach: int, side: int) -> np.ndarray:
    """The cheapest vector of each block: none, or within `reach` of `start`; of equals none, then the nearest to it.

    Args:
        before, now: uint8 [R * side, C * side].
        start: int [R, C, 2], (down, right).

    Returns:
        int [R, C, 2].
    """
    rows, columns = start.shape[:2]
    margin, span = int(np.abs(start).max()) + reach, side + 2 * reach
    wide = cv2.copyMakeBorder(before, margin, margin, margin, margin, cv2.BORDER_REPLICATE)
    corners = np.indices((rows, columns)).transpose(1, 2, 0) * side + start + margin - reach
    windows = np.lib.stride_tricks.sliding_window_view(wide, (span, span))[corners[..., 0], corners[..., 1]]
    # blocks last: a step is a slice, and everything after it runs through memory in order
    windows = np.ascontiguousarray(windows.reshape(-1, span, span).transpose(1, 2, 0))
    blocks = _blocks(now, side)
    best = np.zeros_like(start)
    least = _difference(_blocks(before, side), blocks).reshape(rows, columns)
    around = range(-reach, reach + 1)
    for y, x in sorted(((y, x) for y in around for x in around), key=lambda step: abs(step[0]) + abs(step[1])):
        there = windows[reach + y : reach + y + side, reach + x : reach + x + side]
        vectors = start + np.array([y, x])
        length = np.abs(vectors).sum(axis=-1) * (BLOCK // side)
        cost = _difference(there, blocks).reshape(rows, columns) + _PRICE * length
        better = cost < least
        least = np.where(better, cost, least)
        best = np.where(better[..., None], vectors, best)
    return best


def _blocks(plane: np.ndarray, side: int) -> np.ndarray:
    """[R * side, C * side] -> [side, side, R * C]."""
    height, width = plane.shape
    cut = plane.reshape(height // side, side, width // side, side).transpose(1, 3, 0, 2)
    return np.ascontiguousarray(cut.reshape(side, side, -1))


def _difference(one: np.ndarray, two: np.ndarray) -> np.ndarray:
    """Mean absolute difference of blocks: uint8 [side, side, n] -> float64 [n]."""
    difference = np.maximum(one, two) - np.minimum(one, two)
    return difference.reshape(-1, difference.shape[-1]).sum(axis=0, dtype=np.int32) / len(one) ** 2


def compensate(before: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """`before` with each block taken from where its vector points; outside, the border is repeated.

    Args:
        before: uint8 [H, W].
        vectors: what `motion` gave.

    Returns:
        uint8 [H, W].
    """
    height, width = before.shape
    down, right = vectors.repeat(BLOCK, axis=0).repeat(BLOCK, axis=1)[:height, :width].transpose(2, 0, 1)
    y = np.clip(np.arange(height)[:, None] + down, 0, height - 1)
    x = np.clip(np.arange(width) + right, 0, width - 1)
    return before[y, x]
