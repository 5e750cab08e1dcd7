"""Bits per patch: the Gaussian rate of what could not be predicted.

    R(p, t) = sum over blocks b of p  n_b * r_b,   r of one predictor = sum over channels c of r(V / D)
    r(x)    = 1/4 log2(1 + x^2)  ~  max(0, 1/2 log2 x)

This is the rate-distortion function of a Gaussian source with side information (Cover and Thomas, "Elements of
Information Theory", 13.3.2; Wyner and Ziv 1976). Per block b (about 8 x 8 pixels of a picture, a quarter of a patch in
later frames; n_b of its pixels are inside the frame) and channel c of YCbCr, V is the mean squared error of a predictor
and D what is not worth describing. One unit for pictures and videos:

intra   (`intra.py`) The block against its surroundings in the same frame, where nothing was seen before: in the first
        frame, after a cut, and in what a moving camera brings into view.
inter   (`inter.py`) The block against the frame before and a memory of what stood still, both followed along the
        camera's motion. What its surroundings would predict no longer counts: an object of low contrast on strong
        texture is nothing unusual as texture goes, and yet it moves.

Colour counts like luma: an object of the ground's own luma is as visible in Cb and Cr as any.
"""

from __future__ import annotations

import functools

import numba
import numpy as np

from entropy_vision.grid import pad, real_pixels
from entropy_vision.inter import Memory
from entropy_vision.intra import picture_bits
from entropy_vision.planes import SAMPLES, halves_alone, planes_and_thumbnail


class Bits:
    """Bits of every patch of one frame after the other, given those before.

    Holds the frame before, a memory of the ground and a few fields of block size, however many frames come.
    """

    def __init__(self, patch_size: int) -> None:
        self.patch_size, self.memory = patch_size, Memory()

    def __call__(self, frame: np.ndarray) -> np.ndarray:
        """The next frame's: uint8 [H, W, 3], RGB -> float32 [R, C], >= 0. Padding has no bits."""
        return self.read(frame)[0]

    def read(self, frame: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The next frame's bits, and its thumbnail, uint8 [3, 4 R, 4 C]."""
        (padded,) = pad(frame[None], self.patch_size)
        planes, thumbnail = planes_and_thumbnail(padded, self.patch_size)
        news = self.memory.news(planes)
        if news is None:
            return _of_picture(frame, self.patch_size), thumbnail
        return _of_blocks(news[None], self._real(frame))[0], thumbnail

    def read_all(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """`read` of frames that follow: uint8 [F, H, W, 3] -> float32 [F, R, C], uint8 [F, 3, 4 R, 4 C]."""
        real, count = self._real(pixels[0]), len(pixels)
        rows, columns = real.shape
        bits, rates = (np.empty((count, times * rows, times * columns), np.float32) for times in (1, 2))
        thumbnails = np.empty((count, 3, 4 * rows, 4 * columns), np.uint8)
        whole = pixels.shape[1:3] == (rows * self.patch_size, columns * self.patch_size)
        plain = pixels.flags.c_contiguous and pixels.flags.writeable  # for other arrays all would be compiled anew
        together, at = whole and plain and halves_alone(self.patch_size), 0
        while at < count:
            if together and (rest := self.memory.rest(pixels[at:], SAMPLES * rows, rates[at:], thumbnails[at:])):
                bits[at : at + rest] = _of_blocks(rates[at : at + rest], real)
                at += rest
            if at < count:  # the first of all, or one that is more than a rest
                bits[at], thumbnails[at] = self.read(pixels[at])
                at += 1
        return bits, thumbnails

    def _real(self, frame: np.ndarray) -> np.ndarray:
        """float32 [R, C], how many pixels of each patch are inside the frame."""
        return _real(frame.shape[0], frame.shape[1], self.patch_size)


def patch_bits(pixels: np.ndarray, patch_size: int) -> np.ndarray:
    """Bits of every patch of a video: uint8 [F, H, W, 3], RGB -> float32 [F, R, C]."""
    if len(pixels) == 1:  # nothing comes after it that would be compared with it
        return _of_picture(pixels[0], patch_size)[None]
    return Bits(patch_size).read_all(pixels)[0]


def _of_picture(frame: np.ndarray, patch_size: int) -> np.ndarray:
    """Bits [R, C] of a frame that nothing was seen before."""
    height, width, _ = frame.shape
    (padded,) = pad(frame[None], patch_size)
    return picture_bits(padded, patch_size) * _real(height, width, patch_size)


@numba.njit(cache=True)
def _of_blocks(news: np.ndarray, real: np.ndarray) -> np.ndarray:
    """Bits [F, R, C] of patches, `real` [R, C] of whose pixels are inside the frame, by bits a pixel of 2 x 2 blocks,
    [F, R', C']."""
    out = np.empty((len(news), *real.shape), np.float32)
    for t in range(len(out)):
        for y in range(out.shape[1]):
            above, below = news[t, 2 * y], news[t, 2 * y + 1]
            for x in range(out.shape[2]):
                total = (above[2 * x] + above[2 * x + 1]) + (below[2 * x] + below[2 * x + 1])
                out[t, y, x] = total * np.float32(0.25) * real[y, x]
    return out


_real = functools.lru_cache(maxsize=8)(real_pixels)  # the same for every frame of a video
