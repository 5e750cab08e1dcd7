"""Sums over blocks of a frame: what the rate reads off pixels, in one pass over them.

The loops are compiled (numba) and accumulate whole rows, so a processor's vector units take them as they stand; sums
run over the rows of a block first and over its columns last. Each is compiled for one block size and one number of
interleaved channels, which makes it three times as fast. Results are float32 [3, R', C'], channels first: Y, Cr, Cb.
`tests/oracles_selection.py` has the same in loops over blocks.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numba
import numpy as np

from entropy_vision.planes import BLOCK, Planes


@dataclass(frozen=True, eq=False)
class Blocks:
    """What the rate needs to know about one frame; all float32 [3, R', C'].

    Attributes:
        mean, variance: of the block's values.
        slope: mean squared gradient, (grey levels a sample of luma) squared; central differences, edges mirrored.
    """

    mean: np.ndarray
    variance: np.ndarray
    slope: np.ndarray


def measure(planes: Planes) -> Blocks:
    """Block statistics of a frame of uint8 planes."""
    return Blocks(*_measure(planes.luma, planes.chroma))


@functools.cache
def every(rows: int, columns: int) -> int:
    """Step at which blocks are looked at where a rank among them is wanted: some 160, of all columns alike."""
    step = max(1, rows * columns // 160)
    while math.gcd(step, columns) > 1:
        step += 1
    return step


def quantile(blocks: np.ndarray, share: float) -> np.ndarray:
    """About the value of that rank in each channel: float32 [3, R', C'] -> [3]. Every so many blocks are looked at."""
    out: np.ndarray = quantiles(blocks, share, every(*blocks.shape[1:]))
    return out


@functools.cache
def _statistics(channels: int, side: int) -> Callable[[np.ndarray, np.float32, np.ndarray], None]:
    """(plane [H, W channels], scale, out [3, channels, R', C']): mean, variance and slope times `scale`."""

    @numba.njit(cache=True)
    def statistics(plane: np.ndarray, scale: np.float32, out: np.ndarray) -> None:
        height, wide = plane.shape
        total, square, slope = np.empty((3, wide), np.int32)
        share = np.float32(1 / (side * side))
        steep = scale * share / np.float32(4)  # central differences span two pixels
        for row in range(height // side):
            total[:], square[:], slope[:] = 0, 0, 0
            for y in range(row * side, (row + 1) * side):
                here = plane[y]
                above = plane[y - 1 if y > 0 else min(1, height - 1)]
                below = plane[y + 1 if y < height - 1 else max(y - 1, 0)]
                for i in range(wide):
                    value, down = np.int32(here[i]), np.int32(below[i]) - np.int32(above[i])
                    total[i] += value
                    square[i] += value * value
                    slope[i] += down * down
                for i in range(channels, wide - channels):
                    along = np.int32(here[i + channels]) - np.int32(here[i - channels])
                    slope[i] += along * along
            for block in range(out.shape[3]):
                for k in range(channels):
                    one, two, three = np.int32(0), np.int32(0), np.int32(0)
                    for x in range(side):
                        i = (block * side + x) * channels + k
                        one += total[i]
                        two += square[i]
                        three += slope[i]
                    mean = one * share
                    out[0, k, row, block] = mean
                    out[1, k, row, block] = max(two * share - mean * mean, np.float32(0))
                    out[2, k, row, block] = three * steep

    return statistics


_of_luma, _of_chroma = _statistics(1, BLOCK), _statistics(2, BLOCK // 2)


@numba.njit(cache=True)
def _measure(luma: np.ndarray, chroma: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(mean, variance, slope), one call for both planes: calls from Python cost as much as the sums."""
    height, width = luma.shape
    out = np.empty((3, 3, height // BLOCK, width // BLOCK), np.float32)
    _of_luma(luma, np.float32(1), out[:, :1])
    # a sample of colour is two of luma wide
    _of_chroma(chroma.reshape(len(chroma), width), np.float32(0.25), out[:, 1:])
    return out[0], out[1], out[2]


@functools.cache
def _differences(
    channels: int, side: int
) -> Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray], None]:
    """(now, other [H, W channels], light [channels], mean, square [channels, R', C']) of now - other - light."""

    @numba.njit(cache=True)
    def differences(
        now: np.ndarray, other: np.ndarray, light: np.ndarray, mean: np.ndarray, square: np.ndarray
    ) -> None:
        height, wide = now.shape
        total, squares, off = np.empty((3, wide), np.float32)
        for x in range(wide // channels):
            for k in range(channels):
                off[x * channels + k] = light[k]
        share = np.float32(1 / (side * side))
        for row in range(height // side):
            total[:], squares[:] = 0, 0
            for y in range(row * side, (row + 1) * side):
                here, there = now[y], other[y]
                for i in range(wide):
                    apart = np.float32(here[i]) - np.float32(there[i]) - off[i]
                    total[i] += apart
                    squares[i] += apart * apart
            for block in range(mean.shape[2]):
                for k in range(channels):
                    one, two = np.float32(0), np.float32(0)
                    for x in range(side):
                        i = (block * side + x) * channels + k
                        one += total[i]
                        two += squares[i]
                    mean[k, row, block] = one * share
                    square[k, row, block] = two * share

    return differences


_of_lumas, _of_chromas = _differences(1, BLOCK), _differences(2, BLOCK // 2)


@numba.njit(cache=True)
def compare(
    luma: np.ndarray, chroma: np.ndarray, other_luma: np.ndarray, other_chroma: np.ndarray, light: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and mean square [3, R', C'] of a frame's uint8 planes less others, uint8 or float32, and less a common
    change, float32 [3], in each block."""
    height, width = luma.shape
    out = np.empty((2, 3, height // BLOCK, width // BLOCK), np.float32)
    _of_lumas(luma, other_luma, light[:1], out[0, :1], out[1, :1])
    lines = len(chroma)
    one, other = chroma.reshape(lines, width), other_chroma.reshape(lines, width)
    _of_chromas(one, other, light[1:], out[0, 1:], out[1, 1:])
    return out[0], out[1]


@numba.njit(cache=True)
def quantiles(blocks: np.ndarray, share: float, step: int) -> np.ndarray:
    out = np.empty(len(blocks), np.float32)
    for k in range(len(blocks)):
        out[k] = ranked(blocks[k].ravel()[::step], share)
    return out


@numba.njit(cache=True)
def ranked(given: np.ndarray, share: float) -> np.float32:
    """The value of that rank in float32 [N], found bit by bit: how many values are less than it is known at each.

    At most 32 passes without a branch: among so few values selection (Hoare 1961) mostly waits for branches guessed
    wrongly. Where one value alone is left that can be it, one more pass finds it.
    """
    keys = given.copy().view(np.int32)
    for i in range(len(keys)):
        keys[i] ^= (keys[i] >> 31) & 0x7FFFFFFF  # in the order of the values, negative ones as well
    rank, found = int(share * (len(keys) - 1)), np.full(1, -(2**31), np.int32)
    below, upto, most = np.int32(0), np.int32(len(keys)), np.int32(2**31 - 1)
    for bit in range(31, -1, -1):
        above = np.int32(found[0] + (1 << bit))
        less = np.int32(0)
        for key in keys:
            less = np.int32(less + (key < above))
        if less <= rank:
            found[0], below = above, less
        else:
            upto = less
        if upto - below == 1:
            least = most
            for key in keys:
                least = min(least, key if key >= found[0] else most)
            found[0] = least
            break
    found[0] ^= (found[0] >> 31) & 0x7FFFFFFF
    return found.view(np.float32)[0]


@numba.njit(cache=True)
def flat_and_steep(slopes: np.ndarray, errors: np.ndarray) -> tuple[np.float32, np.float32, np.float32, np.float32]:
    """Medians of the flattest quarter of places and of the steepest: their slopes, then their errors.

    A shift leaves errors that grow with the slope, noise and a dissolve leave as much in either.

    Args:
        slopes, errors: float32 [N].
    """
    flat, steep = slopes <= ranked(slopes, 0.25), slopes >= ranked(slopes, 0.75)
    return ranked(slopes[flat], 0.5), ranked(slopes[steep], 0.5), ranked(errors[flat], 0.5), ranked(errors[steep], 0.5)


def blend(memory: Planes, now: Planes, light: np.ndarray, share: np.ndarray) -> None:
    """memory += share * (now - light - memory), in place.

    Args:
        memory: float32.
        now: uint8.
        light: float32 [3], taken off `now`.
        share: float32 [R', C'] in [0, 1], for each block.
    """
    _both(memory.luma, memory.chroma, now.luma, now.chroma, light, share)


@functools.cache
def _blend(channels: int, side: int) -> Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray], None]:
    """(memory, now [H, W channels], light [channels], share [R', C']): memory += share * (now - light - memory)."""

    @numba.njit(cache=True)
    def blend(memory: np.ndarray, now: np.ndarray, light: np.ndarray, share: np.ndarray) -> None:
        height, wide = now.shape
        parts, off = np.empty(wide, np.float32), np.empty(wide, np.float32)
        for x in range(wide // channels):
            for k in range(channels):
                off[x * channels + k] = light[k]
        for row in range(height // side):
            for block in range(share.shape[1]):
                for i in range(side * channels):
                    parts[block * side * channels + i] = share[row, block]
            for y in range(row * side, (row + 1) * side):
                into, given = memory[y], now[y]
                for i in range(wide):
                    into[i] += parts[i] * (np.float32(given[i]) - off[i] - into[i])

    return blend


_into_luma, _into_chroma = _blend(1, BLOCK), _blend(2, BLOCK // 2)


@numba.njit(cache=True)
def _both(
    luma: np.ndarray,
    chroma: np.ndarray,
    now_luma: np.ndarray,
    now_chroma: np.ndarray,
    light: np.ndarray,
    share: np.ndarray,
) -> None:
    lines, width = len(chroma), luma.shape[1]
    _into_luma(luma, now_luma, light[:1], share)
    _into_chroma(chroma.reshape(lines, width), now_chroma.reshape(lines, width), light[1:], share)
