"""What a predictor leaves of a frame, and how many bits a pixel of it are news.

A residual energy V is judged by its floor D = noise + registration error x gradient energy + 2.5, both read off the
frame itself: what the better quarter of the blocks cannot predict is noise, and what steep blocks leave beyond that is
a motion known not quite. The common change of the light is taken off before.
"""

from __future__ import annotations

import numba
import numpy as np

from entropy_vision.blocks import compare, every, quantiles, ranked
from entropy_vision.intra import gaussian_rate
from entropy_vision.planes import BLOCK, Planes

D0 = 2.5  # grey levels squared, of halved pixels
_FLICKER = 24.0  # grey levels; a larger common change is another picture, not another exposure
UNCHANGED = np.zeros(3, np.float32)
_REGISTRATION = 0.03  # samples squared: a larger error is motion, not registration


def residual(now: Planes, predicted: Planes, around: np.ndarray = UNCHANGED) -> tuple[np.ndarray, np.ndarray]:
    """Mean squared error [3, R', C'] after the frame's median change [3] is taken off, and that change.

    Args:
        around: float32 [3], the change that was known last: a common change is told from another picture by how far it
            is from that. Memory keeps the light it began in, which may be long ago.
    """
    step = every(now.luma.shape[0] // BLOCK, now.luma.shape[1] // BLOCK)
    square, light = residual_of(now.luma, now.chroma, predicted.luma, predicted.chroma, step, around)
    return square, light


@numba.njit(cache=True)
def residual_of(
    luma: np.ndarray,
    chroma: np.ndarray,
    other_luma: np.ndarray,
    other_chroma: np.ndarray,
    step: int,
    around: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    mean, square = compare(luma, chroma, other_luma, other_chroma, around)
    light = quantiles(mean, 0.5, step)
    for k in range(3):
        known = min(max(light[k], -np.float32(_FLICKER)), np.float32(_FLICKER))
        one, other = square[k].ravel(), mean[k].ravel()
        for i in range(len(one)):
            one[i] = max(one[i] + known * (known - np.float32(2) * other[i]), np.float32(0))
        light[k] = around[k] + known
    return square, light


@numba.njit(cache=True)
def scales(variance: np.ndarray, slope: np.ndarray, step: int) -> tuple[np.ndarray, np.ndarray]:
    """What a frame tells of its error floors, whatever predicts it: the most that is noise, and the median slope, [3].

    Noise is never more than a quarter of the blocks already hold by themselves (twice, for two noisy frames are
    subtracted): after a cut all residuals are large, and that is no noise.
    """
    return np.float32(2) * quantiles(variance, 0.25, step), quantiles(slope, 0.5, step)


@numba.njit(cache=True)
def error_floor(most: np.ndarray, middle: np.ndarray, slope: np.ndarray, energy: np.ndarray, step: int) -> np.ndarray:
    """What of a predictor's residual energy is not news: [3, R', C'], every so many blocks are looked at.

    The noise is what the better quarter of the blocks cannot predict. The registration error is the typical residual
    per gradient energy over the steeper half.

    Args:
        most, middle: of `scales`.
        slope, energy: [3, R', C'].
    """
    floor, excess = np.empty_like(energy), np.empty(energy[0].size, np.float32)
    for k in range(3):
        errors, slopes, out = energy[k].ravel(), slope[k].ravel(), floor[k].ravel()
        noise, steep = min(ranked(errors[::step], 0.25), most[k]), 0
        for i in range(0, len(errors), step):
            if slopes[i] >= middle[k]:
                excess[steep] = max(errors[i] - noise, np.float32(0)) / (slopes[i] + np.float32(1))
                steep += 1
        shift = min(ranked(excess[:steep], 0.5), np.float32(_REGISTRATION))
        for i in range(len(out)):
            out[i] = slopes[i] * shift + (noise + np.float32(D0))
    return floor


@numba.njit(cache=True)
def news_rate(energy: np.ndarray, floor: np.ndarray) -> np.ndarray:
    """Bits a pixel [R', C'] of residual energies [3, R', C'] above their floor; see `intra.gaussian_rate`."""
    _, rows, columns = energy.shape
    out = np.empty((rows, columns), np.float32)
    for y in range(rows):
        for x in range(columns):
            odds = np.float32(1)
            for k in range(3):
                ratio = energy[k, y, x] / floor[k, y, x]
                odds *= np.float32(1) + ratio * ratio
            out[y, x] = gaussian_rate(odds)
    return out
