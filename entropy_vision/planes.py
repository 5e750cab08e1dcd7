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
    luma = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
    while luma.shape[0] >= 2 * height:
        luma = cv2.pyrDown(luma)
    colour = cv2.cvtColor(cv2.pyrDown(reduced(frame, width, height)), cv2.COLOR_RGB2YCrCb)
    chroma = np.empty((height // 2, width // 2, 2), np.uint8)
    cv2.mixChannels([colour], [chroma], [1, 0, 2, 1])  # a slice to copy would take six times as long
    return Planes(_sized(luma, width, height), chroma)


def reduced(frame: np.ndarray, width: int, height: int) -> np.ndarray:
    """A frame at another size, by means of 2 x 2 pixels as often as these fit."""
    while frame.shape[0] >= 2 * height:
        height_now, width_now, _ = frame.shape
        if height_now % 2 or width_now % 2:  # what is cut off at the rim would shift the grid: stretched instead
            frame = cv2.resize(frame, (width_now // 2, height_now // 2), interpolation=cv2.INTER_AREA)
        else:
            frame = _halved(np.ascontiguousarray(frame))
    return _sized(frame, width, height)


@numba.njit(cache=True)
def _halved(frame: np.ndarray) -> np.ndarray:
    """Means of 2 x 2 pixels, rounded: uint8 [H, W, 3], even -> [H / 2, W / 2, 3].

    OpenCV's INTER_AREA gives the same and takes twice as long.
    """
    height, width, _ = frame.shape
    wide, out = 3 * width, np.empty((height // 2, width // 2, 3), np.uint8)
    pixels, halved, both = frame.reshape(height, wide), out.reshape(len(out), -1), np.empty(wide, np.uint16)
    for y in range(len(out)):
        one, two, row = pixels[2 * y], pixels[2 * y + 1], halved[y]
        for i in range(wide):
            both[i] = np.uint16(one[i]) + np.uint16(two[i])
        for x in range(width // 2):  # three channels, written out: twice as fast
            row[3 * x] = (both[6 * x] + both[6 * x + 3] + 2) >> 2
            row[3 * x + 1] = (both[6 * x + 1] + both[6 * x + 4] + 2) >> 2
            row[3 * x + 2] = (both[6 * x + 2] + both[6 * x + 5] + 2) >> 2
    return out


def _sized(plane: np.ndarray, width: int, height: int) -> np.ndarray:
    """Less than halved, or enlarged, where the patch is not 8 pixels times a power of two."""
    if plane.shape[:2] == (height, width):
        return plane
    return cv2.resize(plane, (width, height), interpolation=cv2.INTER_LINEAR)
