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

from entropy_vision.colour import apart, chroma_of, luma_of, weigh
from entropy_vision.grid import pad

SAMPLES = 8  # of luma, along a patch's side
BLOCK = 4  # samples of luma along a block's side: 2 x 2 blocks a patch
_u = np.uint64  # of places: a signed one may count from the end, and asking keeps several from being taken at once
_16 = np.uint16


@dataclass(frozen=True, eq=False)
class Planes:
    """One frame of R x C patches, uint8 or float32.

    Attributes:
        luma: [8 R, 8 C].
        chroma: [2, 4 R, 4 C], Cr and Cb.
    """

    luma: np.ndarray
    chroma: np.ndarray

    def astype(self, kind: type) -> Planes:
        """A copy of that type."""
        return Planes(self.luma.astype(kind), self.chroma.astype(kind))


def planes_of(frame: np.ndarray, patch_size: int) -> Planes:
    """The planes of uint8 [R P, C P, 3], RGB."""
    return planes_and_thumbnail(frame, patch_size)[0]


def thumbnails(pixels: np.ndarray, patch_size: int) -> np.ndarray:
    """Those of a video, uint8 [F, H, W, 3], alone: uint8 [F, 3, 4 R, 4 C]."""
    return np.stack([planes_and_thumbnail(frame, patch_size)[1] for frame in pad(pixels, patch_size)])


def planes_and_thumbnail(frame: np.ndarray, patch_size: int) -> tuple[Planes, np.ndarray]:
    """The planes of uint8 [R P, C P, 3], RGB, and red, green and blue by means of pixels alone, uint8 [3, 4 R, 4 C].

    What is cut off at an odd rim would shift a grid; there it is stretched instead.
    """
    width, height = (SAMPLES * (side // patch_size) for side in (frame.shape[1], frame.shape[0]))
    if halves_alone(patch_size):
        luma, chroma, thumbnail = by_halves(frame, height)
        return Planes(luma, chroma), thumbnail
    luma, colours = _halves(frame, height)
    colours = _means(colours, height)
    half = width // 2, height // 2
    thumbnail = _sized(_means(colours, half[1]), *half)
    return Planes(_sized(luma, width, height)[0], _chroma(_sized(colours, width, height))), thumbnail


def halves_alone(patch_size: int) -> bool:
    """Whether halving gives planes and thumbnails of such patches, whatever the size of the frame."""
    return patch_size >= SAMPLES and not patch_size & (patch_size - 1)


@numba.njit(cache=True)
def by_halves(frame: np.ndarray, height: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Luma, chroma and thumbnail of uint8 [H, W, 3], where halving gives them; `height` of luma.

    One call: calls from Python cost as much as the sums.
    """
    luma, colours = _halves(frame, height)
    return luma[0], _chroma(colours), _halved(colours)


@numba.njit(cache=True)
def _halves(frame: np.ndarray, height: int) -> tuple[np.ndarray, np.ndarray]:
    """Luma [1, ...] and colours [3, ...] of uint8 [H, W, 3], as often halved as they stay at least `height` high, and
    the colours' sides even."""
    if frame.shape[0] >= 2 * height and frame.shape[0] % 2 == 0 and frame.shape[1] % 2 == 0:
        luma, colours = _luma_and_half(frame)
    else:
        colours = apart(frame)
        luma = luma_of(colours)
    planes = luma.reshape(1, frame.shape[0], frame.shape[1])
    while planes.shape[1] >= 2 * height:
        planes = smoothed(planes)
    while _halves_evenly(colours, height):
        colours = _halved(colours)
    return planes, colours


@numba.njit(cache=True)
def _luma_and_half(frame: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`luma_of` and `_halved` of uint8 [H, W, 3], even, two rows at a time: what is not kept stays in the cache."""
    height, width, _ = frame.shape
    pixels = np.ascontiguousarray(frame).reshape(height, 3 * width)
    luma, half = np.empty((height, width), np.uint8), np.empty((3, height // 2, width // 2), np.uint8)
    rows, both = np.empty((2, 3, width), np.uint8), np.empty(width, np.uint16)
    for y in range(height // 2):
        for i in range(2):
            row, one, two, three = pixels[2 * y + i], rows[i, 0], rows[i, 1], rows[i, 2]
            for x in range(width):
                one[x], two[x], three[x] = row[3 * x], row[3 * x + 1], row[3 * x + 2]
            weigh(one, two, three, luma[2 * y + i])
        for k in range(3):
            _row_of_means(rows[0, k], rows[1, k], both, half[k, y])
    return luma, half


def _means(colours: np.ndarray, height: int) -> np.ndarray:
    """Planes [n, H, W] by means of 2 x 2 pixels, as often halved as they stay at least `height` high.

    Those with odd sides are halved by stretching.
    """
    while colours.shape[1] >= 2 * height:
        if _halves_evenly(colours, height):
            colours = _halved(colours)
        else:
            colours = _resized(colours, colours.shape[2] // 2, colours.shape[1] // 2, cv2.INTER_AREA)
    return colours


@numba.njit(cache=True)
def _halves_evenly(planes: np.ndarray, height: int) -> bool:
    _, rows, columns = planes.shape
    return rows >= 2 * height and rows % 2 == 0 and columns % 2 == 0


@numba.njit(cache=True)
def _halved(colours: np.ndarray) -> np.ndarray:
    """Means of 2 x 2 pixels, rounded: uint8 [n, H, W], even -> [n, H / 2, W / 2]."""
    count, height, width = colours.shape
    out, both = np.empty((count, height // 2, width // 2), np.uint8), np.empty(width, np.uint16)
    for k in range(count):
        for y in range(height // 2):
            _row_of_means(colours[k, 2 * y], colours[k, 2 * y + 1], both, out[k, y])
    return out


@numba.njit(cache=True, inline="always")  # a call takes longer than a row
def _row_of_means(one: np.ndarray, two: np.ndarray, both: np.ndarray, out: np.ndarray) -> None:
    """Of two rows, through room for their sums, uint16: side by side these are taken at once."""
    for x in range(_u(len(both))):
        both[x] = _16(one[x]) + _16(two[x])
    for x in range(_u(len(out))):
        out[x] = np.uint8(_16(_16(both[_u(2) * x] + both[_u(2) * x + _u(1)]) + _16(2)) >> 2)


@numba.njit(cache=True)
def smoothed(colours: np.ndarray) -> np.ndarray:
    """Every second pixel seen through (1 4 6 4 1) / 16 both ways: uint8 [n, H, W] -> [n, (H + 1) / 2, (W + 1) / 2].

    The border is mirrored, so a side has at least 3 pixels.
    """
    count, height, width = colours.shape
    out, column = np.empty((count, (height + 1) // 2, (width + 1) // 2), np.uint8), np.empty(width, np.uint16)
    half = out.shape[2]
    even, odd = np.empty(half + 2, np.uint16), np.empty(half + 1, np.uint16)  # of -2, 0, 2 ... and of -1, 1, 3 ...
    for k in range(count):
        plane = colours[k]
        for y in range(out.shape[1]):
            row, last = out[k, y], 2 * (height - 1)
            one, two, three = plane[abs(2 * y - 2)], plane[abs(2 * y - 1)], plane[2 * y]
            four, five = plane[min(2 * y + 1, last - 2 * y - 1)], plane[min(2 * y + 2, last - 2 * y - 2)]
            for x in range(_u(width)):  # sums are cut to 16 bits: they are at most 255 * 256 + 128
                beside = _16(_16(two[x]) + _16(four[x]))
                column[x] = _16(_16(one[x]) + _16(five[x])) + _16(_16(4) * beside + _16(6) * _16(three[x]))
            for x in range(_u(width // 2)):
                even[x + _u(1)], odd[x + _u(1)] = column[_u(2) * x], column[_u(2) * x + _u(1)]
            even[0], odd[0] = column[2], column[1]
            if width % 2:
                even[half], even[half + 1], odd[half] = column[width - 1], column[width - 3], column[width - 2]
            else:
                even[half + 1] = column[width - 2]
            for x in range(_u(half)):
                beside = _16(odd[x] + odd[x + _u(1)])
                both = _16(_16(even[x] + even[x + _u(2)]) + _16(_16(4) * beside + _16(6) * even[x + _u(1)]))
                row[x] = np.uint8(_16(both + _16(128)) >> 8)
    return out


@numba.njit(cache=True)
def _chroma(colours: np.ndarray) -> np.ndarray:
    """Cr and Cb of uint8 [3, 2 H, 2 W], RGB, through the last halving: [2, H, W]."""
    return chroma_of(smoothed(colours))


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
