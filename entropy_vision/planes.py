"""A frame at the resolution at which it is compared with others: luma, and colour at half of that, as codecs have it.

A patch of any size has 8 x 8 samples of luma and 4 x 4 of each colour. Halving a patch of 16 pixels makes the camera's
noise half as strong and costs a quarter of the time; what is finer is no motion, and pictures are judged at full size
(`intra.py`). The last halving is through a binomial kernel, for what is aliased does not move with the camera.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numba
import numpy as np

from entropy_vision.colour import apart, luma_of, ycrcb

SAMPLES = 8  # of luma, along a patch's side
BLOCK = 4  # samples of luma along a block's side: 2 x 2 blocks a patch


@dataclass(frozen=True, eq=False)
class Planes:
    """One frame of R x C patches, uint8 or float32.

    Attributes:
        luma: [8 R, 8 C].
        chroma: [4 R, 4 C, 2], Cr and Cb.
    """

    luma: np.ndarray
    chroma: np.ndarray

    def astype(self, kind: type) -> Planes:
        """A copy of that type."""
        return Planes(self.luma.astype(kind), self.chroma.astype(kind))


def planes_of(frame: np.ndarray, patch_size: int) -> Planes:
    """The planes of uint8 [R P, C P, 3], RGB."""
    width, height = (SAMPLES * (side // patch_size) for side in (frame.shape[1], frame.shape[0]))
    luma, colours = _halves(frame, height)
    return Planes(_sized(luma, width, height)[0], _chroma(_sized_by_means(colours, width, height)))


@numba.njit(cache=True)
def _halves(frame: np.ndarray, height: int) -> tuple[np.ndarray, np.ndarray]:
    """Luma [1, ...] and colours [3, ...] of uint8 [H, W, 3], as often halved as they stay at least `height` high.

    One call for all: calls from Python cost as much as the sums.
    """
    colours = apart(frame)
    luma = luma_of(colours).reshape(1, frame.shape[0], frame.shape[1])
    while luma.shape[1] >= 2 * height:
        luma = smoothed(luma)
    return luma, _means(colours, height)


def reduced(frame: np.ndarray, width: int, height: int) -> np.ndarray:
    """Red, green and blue of uint8 [H, W, 3] at another size, by means of 2 x 2 pixels as often as these fit: [3, ...].

    What is cut off at an odd rim would shift the grid; there it is stretched instead.
    """
    return _sized_by_means(_means_of(frame, height), width, height)


@numba.njit(cache=True)
def _means_of(frame: np.ndarray, height: int) -> np.ndarray:
    return _means(apart(frame), height)


@numba.njit(cache=True)
def _means(colours: np.ndarray, height: int) -> np.ndarray:
    """Planes [n, H, W], halved as long as their sides are even and they stay at least `height` high."""
    while colours.shape[1] >= 2 * height and colours.shape[1] % 2 == 0 and colours.shape[2] % 2 == 0:
        colours = _halved(colours)
    return colours


def _sized_by_means(colours: np.ndarray, width: int, height: int) -> np.ndarray:
    """Planes that `_means` has left, at their size: those with odd sides are halved by stretching."""
    while colours.shape[1] >= 2 * height:
        _, height_now, width_now = colours.shape
        colours = _means(_resized(colours, width_now // 2, height_now // 2, cv2.INTER_AREA), height)
    return _sized(colours, width, height)


@numba.njit(cache=True)
def _halved(colours: np.ndarray) -> np.ndarray:
    """Means of 2 x 2 pixels, rounded: uint8 [n, H, W], even -> [n, H / 2, W / 2]."""
    count, height, width = colours.shape
    out, both = np.empty((count, height // 2, width // 2), np.uint8), np.empty(width, np.uint16)
    for k in range(count):
        for y in range(height // 2):
            one, two, row = colours[k, 2 * y], colours[k, 2 * y + 1], out[k, y]
            for x in range(width):
                both[x] = np.uint16(one[x]) + np.uint16(two[x])
            for x in range(len(row)):
                row[x] = (both[2 * x] + both[2 * x + 1] + 2) >> 2
    return out


@numba.njit(cache=True)
def smoothed(colours: np.ndarray) -> np.ndarray:
    """Every second pixel seen through (1 4 6 4 1) / 16 both ways: uint8 [n, H, W] -> [n, (H + 1) / 2, (W + 1) / 2].

    The border is mirrored, so a side has at least 3 pixels.
    """
    count, height, width = colours.shape
    out, column = np.empty((count, (height + 1) // 2, (width + 1) // 2), np.uint8), np.empty(width + 4, np.uint16)
    inside, sums = column[2:-2], np.empty(width, np.uint16)
    for k in range(count):
        plane = colours[k]
        for y in range(out.shape[1]):
            row, last = out[k, y], 2 * (height - 1)
            one, two, three = plane[abs(2 * y - 2)], plane[abs(2 * y - 1)], plane[2 * y]
            four, five = plane[min(2 * y + 1, last - 2 * y - 1)], plane[min(2 * y + 2, last - 2 * y - 2)]
            for x in range(width):
                beside = np.uint16(two[x]) + np.uint16(four[x])
                inside[x] = np.uint16(one[x]) + np.uint16(five[x]) + 4 * beside + 6 * np.uint16(three[x])
            column[0], column[1], column[-2], column[-1] = inside[2], inside[1], inside[-2], inside[-3]
            for x in range(width):  # every one, though every second is needed: side by side they are taken at once
                beside = column[x + 1] + column[x + 3]
                both = np.uint16(column[x] + column[x + 4] + 4 * beside + 6 * column[x + 2] + 128)
                sums[x] = both >> 8  # at most 255 * 256 + 128, so it fits 16 bits
            for x in range(len(row)):
                row[x] = sums[2 * x]
    return out


@numba.njit(cache=True)
def _chroma(colours: np.ndarray) -> np.ndarray:
    """Cr and Cb of uint8 [3, 2 H, 2 W], RGB, through the last halving: [H, W, 2]."""
    return beside(ycrcb(smoothed(colours))[1:])


@numba.njit(cache=True)
def beside(chroma: np.ndarray) -> np.ndarray:
    """[2, H, W] -> [H, W, 2]."""
    _, height, width = chroma.shape
    out = np.empty((height, width, 2), chroma.dtype)
    for y in range(height):
        for x in range(width):
            out[y, x, 0], out[y, x, 1] = chroma[0, y, x], chroma[1, y, x]
    return out


def _sized(colours: np.ndarray, width: int, height: int) -> np.ndarray:
    """Less than halved, or enlarged, where the patch is not 8 pixels times a power of two: [n, H, W].

    Through (1 2 1) / 4 both ways where it shrinks: what is aliased does not move with the camera (at patch 14 a pan on
    strong texture loses three moving patches in a hundred to it). Means over areas do as well and take three times as
    long for the whole score.
    """
    if colours.shape[1:] == (height, width):
        return colours
    if colours.shape[1] > height:
        colours = np.stack([cv2.GaussianBlur(plane, (3, 3), 0) for plane in colours])
    return _resized(colours, width, height, cv2.INTER_LINEAR)


def _resized(colours: np.ndarray, width: int, height: int, how: int) -> np.ndarray:
    return np.stack([cv2.resize(plane, (width, height), interpolation=how) for plane in colours])
