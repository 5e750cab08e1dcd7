"""Bits per patch: the Gaussian rate of what could not be predicted.

    R(p, t) = min over predictors m of  sum over blocks b in p, channels c of  n_b * max(0, 1/2 log2(V_bc / D_bc))

the rate-distortion function of a Gaussian source with side information (Cover and Thomas, "Elements of Information
Theory", 13.3.2; Wyner and Ziv 1976), V the energy of the residual and D the energy that is not worth describing.
"""

from __future__ import annotations

import cv2
import numpy as np

from entropy_vision.grid import block_side, pad, real_pixels

_D0 = 4.0  # grey levels squared: an error of 2 of 255 is not worth a bit


def block_mean(planes: np.ndarray, side: int) -> np.ndarray:
    """Mean of each side x side block: float32 [H, W, 3] -> [H / side, W / side, 3]."""
    height, width = planes.shape[:2]
    return cv2.resize(planes, (width // side, height // side), interpolation=cv2.INTER_AREA)


def rate(energy: np.ndarray, floor: np.ndarray) -> np.ndarray:
    """max(0, 1/2 log2(energy / floor)), bits a pixel."""
    return np.maximum(0.5 * np.log2(np.maximum(energy, 1e-12) / floor), 0)


def _median(blocks: np.ndarray) -> np.ndarray:
    """Median over the 5 x 5 blocks around each."""
    return cv2.medianBlur(np.ascontiguousarray(blocks), 5)


def intra_bits(planes: np.ndarray, side: int) -> np.ndarray:
    """Bits a pixel of each block against its own surroundings: float32 [H, W, 3] -> [R', C']."""
    mean, square = block_mean(planes, side), block_mean(planes * planes, side)
    around = _median(mean)
    energy = np.maximum(square - 2 * mean * around + around * around, 0)
    floor = 2 * np.maximum(_median(energy), np.median(energy, axis=(0, 1)) * 0.5) + _D0
    return rate(energy, floor).sum(axis=-1)


def inter_bits(now: np.ndarray, before: np.ndarray, side: int) -> np.ndarray:
    """Bits a pixel of each block against the frame before, in place: two float32 [H, W, 3] -> [R', C']."""
    residual = now - before
    residual -= np.median(residual[::2, ::2], axis=(0, 1))
    energy = block_mean(residual * residual, side)
    floor = 2 * np.quantile(energy, 0.25, axis=(0, 1)) + _D0
    return rate(energy, floor).sum(axis=-1)


def patch_bits(pixels: np.ndarray, patch_size: int) -> np.ndarray:
    """Bits of every patch.

    Args:
        pixels: uint8 [F, H, W, 3].

    Returns:
        float32 [F, R, C], >= 0.
    """
    side = block_side(patch_size)
    planes = [cv2.cvtColor(frame, cv2.COLOR_RGB2YCrCb).astype(np.float32) for frame in pad(pixels, patch_size)]
    rows, columns = planes[0].shape[0] // side, planes[0].shape[1] // side
    full = np.zeros((rows, columns), np.float32)
    real = real_pixels(*pixels.shape[1:3], side)
    full[: real.shape[0], : real.shape[1]] = real
    out = []
    for t, now in enumerate(planes):
        bits = intra_bits(now, side)
        if t:
            bits = np.minimum(bits, inter_bits(now, planes[t - 1], side))
        per = patch_size // side
        out.append((bits * full).reshape(rows // per, per, columns // per, per).sum(axis=(1, 3)))
    return np.stack(out).astype(np.float32)
