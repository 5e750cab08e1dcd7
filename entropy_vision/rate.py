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
from entropy_vision.planes import planes_and_thumbnail


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
        height, width, _ = frame.shape
        return _of_blocks(news, _real(height, width, self.patch_size)), thumbnail


def patch_bits(pixels: np.ndarray, patch_size: int) -> np.ndarray:
    """Bits of every patch of a video: uint8 [F, H, W, 3], RGB -> float32 [F, R, C]."""
    if len(pixels) == 1:  # nothing comes after it that would be compared with it
        return _of_picture(pixels[0], patch_size)[None]
    return bits_and_thumbnails(pixels, patch_size)[0]


def bits_and_thumbnails(pixels: np.ndarray, patch_size: int) -> tuple[np.ndarray, np.ndarray]:
    """`patch_bits` of at least two frames, and what is seen of them on the way: uint8 [F, 3, 4 R, 4 C]."""
    bits = Bits(patch_size)
    read = [bits.read(frame) for frame in pixels]
    return np.stack([one for one, _ in read]), np.stack([thumbnail for _, thumbnail in read])


def _of_picture(frame: np.ndarray, patch_size: int) -> np.ndarray:
    """Bits [R, C] of a frame that nothing was seen before."""
    height, width, _ = frame.shape
    (padded,) = pad(frame[None], patch_size)
    return picture_bits(padded, patch_size) * _real(height, width, patch_size)


@numba.njit(cache=True)
def _of_blocks(news: np.ndarray, real: np.ndarray) -> np.ndarray:
    """Bits [R, C] of patches of `real` [R, C] pixels inside the frame, by bits a pixel of 2 x 2 blocks, [2 R, 2 C]."""
    out = np.empty_like(real)
    for y in range(out.shape[0]):
        above, below = news[2 * y], news[2 * y + 1]
        for x in range(out.shape[1]):
            total = (above[2 * x] + above[2 * x + 1]) + (below[2 * x] + below[2 * x + 1])
            out[y, x] = total * np.float32(0.25) * real[y, x]
    return out


_real = functools.lru_cache(maxsize=8)(real_pixels)  # the same for every frame of a video
