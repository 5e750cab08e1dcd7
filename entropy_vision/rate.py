"""Bits per patch: the Gaussian rate of what could not be predicted.

    R(p, t) = sum over blocks b of p  n_b * r_b,   r of one predictor = sum over channels c of r(V / D)
    r(x)    = 1/4 log2(1 + x^2)  ~  max(0, 1/2 log2 x)

This is the rate-distortion function of a Gaussian source with side information (Cover and Thomas, "Elements of
Information Theory", 13.3.2; Wyner and Ziv 1976). Per block b (about 8 x 8 pixels, n_b of them inside the frame) and
channel c of YCbCr, V is the mean squared error of a predictor and D what is not worth describing. One unit for pictures
and videos:

intra   (`intra.py`) The block against its surroundings in the same frame, where nothing was seen before: in the first
        frame, after a cut, and in what a moving camera brings into view.
inter   (`inter.py`) The block against the frame before and a memory of what stood still, both followed along the
        camera's motion. What its surroundings would predict no longer counts: an object of low contrast on strong
        texture is nothing unusual as texture goes, and yet it moves.

Colour counts like luma: an object of the ground's own luma is as visible in Cb and Cr as any.
"""

from __future__ import annotations

import numpy as np

from entropy_vision.grid import pad, real_pixels
from entropy_vision.inter import Memory
from entropy_vision.intra import picture_bits
from entropy_vision.planes import planes_of


def patch_bits(pixels: np.ndarray, patch_size: int) -> np.ndarray:
    """Bits of every patch, given its own frame and those before.

    Args:
        pixels: uint8 [F, H, W, 3], RGB.

    Returns:
        float32 [F, R, C], >= 0. Padding has no bits.
    """
    padded = pad(pixels, patch_size)
    memory, bits = Memory(), []
    for frame in padded:
        news = memory.news(planes_of(frame, patch_size)) if len(padded) > 1 else None
        if news is None:
            bits.append(picture_bits(frame, patch_size) * patch_size**2)
        else:
            rows, columns = news.shape[0] // 2, news.shape[1] // 2
            blocks = news.reshape(rows, 2, columns, 2)
            bits.append(blocks.sum(axis=(1, 3)) * (patch_size**2 / 4))
    real = real_pixels(pixels.shape[1], pixels.shape[2], patch_size) / np.float32(patch_size**2)
    return np.stack(bits) * real
