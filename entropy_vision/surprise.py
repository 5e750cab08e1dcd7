"""How rare a patch is among the patches of its own picture, in bits.

    s(p) = -log2 (1/n) * sum over j of k(|f_p - f_j|^2 / (2 h^2)),   k(x) = max(0, 1 - x / 256)^256,
    h = 1.3 n^(-1 / (d + 4))

f: the d = 6 features of a patch (`picture.py`: mean of each channel, log of 1 + gradient energy of luma, entropy of 16
levels of luma, the largest range of a channel), each standardised over the picture. The kernel k is exp(-x) to within
x^2 / 512 of itself, by eight squarings, and nothing beyond x = 256. Self-information as a measure of saliency (N. D. B.
Bruce, J. K. Tsotsos, "Saliency Based on Information Maximization", NIPS 2005) under a Gaussian kernel density (E.
Parzen, 1962) with Scott's bandwidth (1992), a little wider. `selection/surprisal.py` is its plain form; the range makes
a stroke of ink stand out of texture of the same energy.

At most 128 kernels, evenly spread, so the time grows with the number of patches and no faster; a patch that has no
kernel adds its own. A patch like all others has 0 bits, one unlike any other log2 n.
"""

from __future__ import annotations

import numba
import numpy as np

from entropy_vision.picture import FEATURES

_KERNELS = 128
_WIDER = 1.3
_POWER = 256  # of the kernel


def rarity(points: np.ndarray) -> np.ndarray:
    """Bits of each point under the density of all: float32 [N, 6] -> float32 [N] in [0, log2(min(N, 128) + 1)]."""
    step = -(-len(points) // _KERNELS)
    width = _WIDER * (-(-len(points) // step)) ** (-1 / (FEATURES + 4))
    shrunk = _standardised(points, width * np.sqrt(2 * _POWER))
    bits: np.ndarray = _self_information(shrunk, np.ascontiguousarray(shrunk[:, ::step]), step)
    return bits


@numba.njit(cache=True)
def _standardised(points: np.ndarray, unit: float) -> np.ndarray:
    """Each feature's distance from its mean in `unit` standard deviations: [N, 6] -> [6, N]."""
    out, count = np.empty((FEATURES, len(points)), np.float32), len(points)
    mean, variance = np.zeros(FEATURES), np.zeros(FEATURES)
    for i in range(count):  # of all features at a time, for one waits for its last addition
        for k in range(FEATURES):
            mean[k] += points[i, k]
    mean /= count
    for i in range(count):
        for k in range(FEATURES):
            variance[k] += (points[i, k] - mean[k]) ** 2
    for k in range(FEATURES):
        deviation = np.sqrt(variance[k] / count)
        scale = 1 / (deviation * unit) if deviation > 1e-4 else 0.0  # the same everywhere: it says nothing
        for i in range(count):
            out[k, i] = (points[i, k] - mean[k]) * scale
    return out


@numba.njit(cache=True, fastmath=True)
def _self_information(points: np.ndarray, centres: np.ndarray, step: int) -> np.ndarray:
    """Bits [N] of points [6, N] under kernels at centres [6, n], the points 0, step, 2 step ..."""
    count = centres.shape[1]
    bits = np.empty(points.shape[1], np.float32)
    point = np.empty(FEATURES, np.float32)
    for i in range(len(bits)):
        point[:] = points[:, i]
        own = np.float32(0 if i % step == 0 else 1)
        density = own
        for j in range(count):
            near = np.float32(1)
            for k in range(FEATURES):
                apart = point[k] - centres[k, j]
                near -= apart * apart
            near = max(near, np.float32(0))
            for _ in range(8):
                near *= near
            density += near
        bits[i] = max(-np.log2(density / (np.float32(count) + own)), np.float32(0))
    return bits
