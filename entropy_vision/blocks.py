"""Sums over blocks of a frame: what the rate reads off pixels, in one pass over them.

The loops are compiled (numba) and accumulate whole rows, so a processor's vector units take them as they stand; sums
run over the rows of a block first and over its columns last. Each is compiled for one block size, which makes it three
times as fast. Results are float32 [3, R', C'], channels first: Y, Cr, Cb.
`tests/oracles_selection.py` has the same in loops over blocks.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import numba
import numpy as np

from entropy_vision.planes import BLOCK

_i32, _u = np.int32, np.uint64  # sums are cut to 32 bits, or they would be taken in 64; of `_u` see planes.py


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
def _statistics(side: int) -> Callable[[np.ndarray, np.float32, np.ndarray], None]:
    """(plane [H, W], scale, out [3, R', C']): mean, variance and slope times `scale`."""

    @numba.njit(cache=True)
    def statistics(plane: np.ndarray, scale: np.float32, out: np.ndarray) -> None:
        height, width = plane.shape
        total, square, slope = np.empty((3, width), np.int32)
        share = np.float32(1 / (side * side))
        steep = scale * share / np.float32(4)  # central differences span two pixels
        for row in range(height // side):
            top, slope[:] = _u(row * side), 0
            for x in range(_u(width)):
                one, two = _i32(0), _i32(0)
                for y in range(_u(side)):
                    value = _i32(plane[top + y, x])
                    one, two = _i32(one + value), _i32(two + value * value)
                total[x], square[x] = one, two
            for y in range(row * side, (row + 1) * side):
                here = plane[y]
                above = plane[y - 1 if y > 0 else min(1, height - 1)]
                below = plane[y + 1 if y < height - 1 else max(y - 1, 0)]
                for x in range(1, width - 1):
                    down, along = _i32(below[x]) - _i32(above[x]), _i32(here[x + 1]) - _i32(here[x - 1])
                    slope[x] += down * down + along * along
                for x in (0, width - 1):
                    down = _i32(below[x]) - _i32(above[x])
                    slope[x] += down * down
            for block in range(_u(out.shape[2])):
                one, two, three = _i32(0), _i32(0), _i32(0)
                for i in range(_u(side)):
                    at = block * _u(side) + i
                    one, two, three = _i32(one + total[at]), _i32(two + square[at]), _i32(three + slope[at])
                mean = np.float32(one) * share
                out[0, row, block] = mean
                out[1, row, block] = max(np.float32(two) * share - mean * mean, np.float32(0))
                out[2, row, block] = np.float32(three) * steep

    return statistics


_of_luma, _of_chroma = _statistics(BLOCK), _statistics(BLOCK // 2)


@numba.njit(cache=True)
def measure(luma: np.ndarray, chroma: np.ndarray) -> np.ndarray:
    """Mean, variance and slope of the blocks of a frame's uint8 planes: float32 [3, 3, R', C'].

    The slope is the mean squared gradient, (grey levels a sample of luma) squared; central differences, edges mirrored.
    """
    out = np.empty((3, 3, luma.shape[0] // BLOCK, luma.shape[1] // BLOCK), np.float32)
    _of_luma(luma, np.float32(1), out[:, 0])
    for k in range(2):  # a sample of colour is two of luma wide
        _of_chroma(chroma[k], np.float32(0.25), out[:, 1 + k])
    return out


@functools.cache
def _differences(side: int) -> Callable[[np.ndarray, np.ndarray, np.float32, np.ndarray, np.ndarray], None]:
    """(now, other [H, W], light, mean, square [R', C']) of now - other - light."""

    @numba.njit(cache=True)
    def differences(
        now: np.ndarray, other: np.ndarray, light: np.float32, mean: np.ndarray, square: np.ndarray
    ) -> None:
        height, width = now.shape
        total, squares = np.empty((2, width), np.float32)
        share = np.float32(1 / (side * side))
        for row in range(_u(height // side)):
            for x in range(_u(width)):
                one, two = np.float32(0), np.float32(0)
                for y in range(row * _u(side), (row + _u(1)) * _u(side)):
                    apart = np.float32(now[y, x]) - np.float32(other[y, x]) - light
                    one += apart
                    two += apart * apart
                total[x], squares[x] = one, two
            for block in range(_u(mean.shape[1])):
                one, two = np.float32(0), np.float32(0)
                for i in range(_u(side)):
                    one += total[block * _u(side) + i]
                    two += squares[block * _u(side) + i]
                mean[row, block], square[row, block] = one * share, two * share

    return differences


_of_lumas, _of_chromas = _differences(BLOCK), _differences(BLOCK // 2)


@numba.njit(cache=True)
def compare(
    luma: np.ndarray, chroma: np.ndarray, other_luma: np.ndarray, other_chroma: np.ndarray, light: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and mean square [3, R', C'] of a frame's uint8 planes less others, uint8 or float32, and less a common
    change, float32 [3], in each block."""
    out = np.empty((2, 3, luma.shape[0] // BLOCK, luma.shape[1] // BLOCK), np.float32)
    _of_lumas(luma, other_luma, light[0], out[0, 0], out[1, 0])
    for k in range(2):
        _of_chromas(chroma[k], other_chroma[k], light[1 + k], out[0, 1 + k], out[1, 1 + k])
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


@functools.cache
def _blend(side: int) -> Callable[[np.ndarray, np.ndarray, np.float32, np.ndarray], None]:
    """(memory, now [H, W], light, share [R', C']): memory += share * (now - light - memory)."""

    @numba.njit(cache=True)
    def blend(memory: np.ndarray, now: np.ndarray, light: np.float32, share: np.ndarray) -> None:
        height, width = now.shape
        parts = np.empty(width, np.float32)
        for row in range(height // side):
            for block in range(share.shape[1]):
                for i in range(side):
                    parts[block * side + i] = share[row, block]
            for y in range(row * side, (row + 1) * side):
                into, given = memory[y], now[y]
                for x in range(width):
                    into[x] += parts[x] * (np.float32(given[x]) - light - into[x])

    return blend


_into_luma, _into_chroma = _blend(BLOCK), _blend(BLOCK // 2)


@numba.njit(cache=True)
def blend(
    luma: np.ndarray,
    chroma: np.ndarray,
    now_luma: np.ndarray,
    now_chroma: np.ndarray,
    light: np.ndarray,
    share: np.ndarray,
) -> None:
    """memory += share * (now - light - memory), in place: of planes float32, given planes uint8.

    Args:
        light: float32 [3], taken off what is given.
        share: float32 [R', C'] in [0, 1], for each block.
    """
    _into_luma(luma, now_luma, light[0], share)
    for k in range(2):
        _into_chroma(chroma[k], now_chroma[k], light[1 + k], share)
