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
    shrunk = ((points - points.mean(axis=0)) / (scale * width * np.sqrt(2))).astype(np.float32)
    bits = np.empty(len(points), np.float32)
    _density_bits(shrunk, step, kernels, bits)
    return bits


@numba.njit(cache=True)
def _density_bits(points: np.ndarray, step: int, kernels: int, out: np.ndarray) -> None:
    for i in range(len(points)):
        own = 0 if i % step == 0 else 1
        density = np.float32(own)
        for j in range(0, len(points), step):
            distance = np.float32(0)
            for k in range(points.shape[1]):
                apart = points[i, k] - points[j, k]
                distance += apart * apart
            if distance < 20:  # beyond it exp is below 2e-9
                density += np.exp(-distance)
        out[i] = max(-np.log2(density / np.float32(kernels + own)), np.float32(0))


@numba.njit(cache=True)
def _describe(frame: np.ndarray, size: int, out: np.ndarray) -> None:
    rows, columns = frame.shape[0] // size, frame.shape[1] // size
    levels = np.zeros(16, np.int32)
    for row in range(rows):
        for column in range(columns):
            levels[:] = 0
            total, low, high = np.zeros(3, np.int32), np.full(3, 255, np.int32), np.zeros(3, np.int32)
            slope = np.int32(0)
            for y in range(row * size, (row + 1) * size):
                for x in range(column * size, (column + 1) * size):
                    for channel in range(3):
                        value = np.int32(frame[y, x, channel])
                        total[channel] += value
                        low[channel] = min(low[channel], value)
                        high[channel] = max(high[channel], value)
                    luma = np.int32(frame[y, x, 0])
                    levels[luma >> 4] += 1
                    if x + 1 < (column + 1) * size:
                        along = np.int32(frame[y, x + 1, 0]) - luma
                        slope += along * along
                    if y + 1 < (row + 1) * size:
                        down = np.int32(frame[y + 1, x, 0]) - luma
                        slope += down * down
            point, area = out[row * columns + column], size * size
            entropy, widest = 0.0, 0
            for count in levels:
                if count > 0:
                    entropy -= count / area * np.log2(count / area)
            for channel in range(3):
                point[channel] = total[channel] / area
                widest = max(widest, high[channel] - low[channel])
            point[3], point[4], point[5] = np.log1p(slope / area), entropy, widest
