"""How rare a patch is among the patches of its own picture, in bits.

    s(p) = -log2 (1/n) * sum over j of exp(-|f_p - f_j|^2 / (2 h^2)),   h = 1.3 n^(-1 / (d + 4))

f: d = 6 features of a patch (mean of each channel, log of 1 + gradient energy of luma, entropy of 16 levels of luma,
the largest range of a channel), each standardised over the picture. Self-information as a measure of saliency (N. D. B.
Bruce, J. K. Tsotsos, "Saliency Based on Information Maximization", NIPS 2005) under a Gaussian kernel density (E.
Parzen, 1962) with Scott's bandwidth (1992), a little wider. `selection/surprisal.py` is its plain form; the range makes
a stroke of ink stand out of texture of the same energy.

At most 128 kernels, evenly spread, so the time grows with the number of patches and no faster; a patch that has no
kernel adds its own. A patch like all others has 0 bits, one unlike any other log2 n.
"""

from __future__ import annotations

import numba
import numpy as np

_KERNELS = 128
_WIDER = 1.3
_FEATURES = 6
_POWER = 256  # of the kernel, see `_density_bits`


def self_information(frame: np.ndarray, patch_size: int) -> np.ndarray:
    """Bits of each patch of a picture, float32 [R, C]; uint8 [H, W, 3], YCrCb, sides multiples of `patch_size`."""
    rows, columns = frame.shape[0] // patch_size, frame.shape[1] // patch_size
    points = np.empty((rows * columns, _FEATURES), np.float32)
    _describe(frame, patch_size, points)
    return rarity(points).reshape(rows, columns)


def rarity(points: np.ndarray) -> np.ndarray:
    """Bits of each point under the density of all: float32 [N, d] -> float32 [N] in [0, log2(min(N, 128) + 1)]."""
    deviation = points.std(axis=0)
    scale = np.where(deviation > 1e-4, deviation, np.inf)  # a feature that is the same everywhere says nothing
    step = -(-len(points) // _KERNELS)
    kernels = -(-len(points) // step)
    width = _WIDER * kernels ** (-1 / (points.shape[1] + 4))
    shrunk = ((points - points.mean(axis=0)) / (scale * width * np.sqrt(2 * _POWER))).astype(np.float32)
    bits = np.empty(len(points), np.float32)
    _density_bits(shrunk, np.ascontiguousarray(shrunk[::step].T), step, bits)
    return bits


@numba.njit(cache=True, fastmath=True)
def _density_bits(points: np.ndarray, centres: np.ndarray, step: int, out: np.ndarray) -> None:
    """`centres` is [d, kernels], so that all of them are met at once; (1 - x / 256)^256 stands for exp(-x)."""
    kernels = centres.shape[1]
    left = np.empty(kernels, np.float32)
    for i in range(len(points)):
        left[:] = 1
        for k in range(len(centres)):
            at = points[i, k]
            for j in range(kernels):
                apart = at - centres[k, j]
                left[j] -= apart * apart
        own = np.float32(0 if i % step == 0 else 1)
        density = own
        for j in range(kernels):
            near = max(left[j], np.float32(0))
            for _ in range(8):
                near *= near
            density += near
        out[i] = max(-np.log2(density / (np.float32(kernels) + own)), np.float32(0))


@numba.njit(cache=True)
def _describe(frame: np.ndarray, size: int, out: np.ndarray) -> None:
    """The features of every patch; columns are accumulated over whole rows first, patches are put together last."""
    height, width, _ = frame.shape
    flat, wide, columns = frame.reshape(height, width * 3), width * 3, width // size
    total, slope, low, high = np.zeros((4, wide), np.int32)
    levels = np.zeros((columns, 16), np.int32)
    for y in range(height):
        here, last = flat[y], y % size == size - 1
        if y % size == 0:
            total[:], slope[:], low[:], high[:], levels[:] = 0, 0, 255, 0, 0
        below = here if last else flat[y + 1]
        for i in range(wide):
            value, down = np.int32(here[i]), np.int32(below[i]) - np.int32(here[i])
            total[i] += value
            low[i], high[i] = min(low[i], value), max(high[i], value)
            slope[i] += down * down
        for column in range(columns):
            for x in range(column * size, (column + 1) * size):
                levels[column, here[3 * x] >> 4] += 1
            for x in range(column * size, (column + 1) * size - 1):
                along = np.int32(here[3 * x + 3]) - np.int32(here[3 * x])
                slope[3 * x] += along * along
        if last:
            for column in range(columns):
                point = out[(y // size) * columns + column]
                _put_together(total, slope, low, high, levels[column], 3 * size * column, size, point)


@numba.njit(cache=True)
def _put_together(
    total: np.ndarray,
    slope: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    levels: np.ndarray,
    start: int,
    size: int,
    point: np.ndarray,
) -> None:
    area, entropy, steepness, widest = size * size, 0.0, 0, 0
    for count in levels:
        if count > 0:
            entropy -= count / area * np.log2(count / area)
    for channel in range(3):
        mean, least, most = 0, 255, 0
        for i in range(start + channel, start + 3 * size, 3):
            mean += total[i]
            least, most = min(least, low[i]), max(most, high[i])
            if channel == 0:
                steepness += slope[i]
        point[channel] = mean / area
        widest = max(widest, most - least)
    point[3], point[4], point[5] = np.log1p(steepness / area), entropy, widest
