"""What a picture is judged by, read off its pixels in one pass: mean and variance of blocks, six features of patches.

The loop is compiled (numba) for one block side. Rows are taken in whole, channels interleaved, so that a processor's
vector units take them as they stand: a column of pixels is summed up first, columns of a block or patch last. A block
has at most 14 pixels a side (`grid.block_side`), so the 16 counters of luma levels of a column of a block fit 4 bits
each, in one word; those of a block fit 8 bits. `tests/oracles_selection.py` has the same in loops over patches.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import numba
import numpy as np

FEATURES = 6  # mean of each channel, log of 1 + gradient energy of luma, entropy of 16 levels of luma, widest range
_LEVELS = 16  # of luma
_EVERY_SECOND = np.uint64(0x0F0F0F0F0F0F0F0F)  # counters of 4 bits, with room to grow to 8


def read_picture(frame: np.ndarray, side: int, per: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Block statistics and patch features of a picture.

    Args:
        frame: uint8 [R per side, C per side, 3], YCrCb.
        side: of a block in pixels, at most 14.
        per: blocks along the side of a patch.

    Returns:
        mean and variance, float32 [R per, C per, 3], and features, float32 [R C, 6].
    """
    height, width, _ = frame.shape
    mean, variance = np.empty((2, height // side, width // side, 3), np.float32)
    points = np.empty((mean.shape[0] * mean.shape[1] // per**2, FEATURES), np.float32)
    _reader(side)(frame.reshape(height, -1), per, _logs((side * per) ** 2), mean, variance, points)
    return mean, variance, points


@functools.lru_cache(maxsize=8)
def _logs(most: int) -> np.ndarray:
    """n log2 n for n = 0 ... most, float64."""
    n = np.arange(most + 1)
    return n * np.log2(np.maximum(n, 1))


@functools.cache
def _reader(side: int) -> Callable[[np.ndarray, int, np.ndarray, np.ndarray, np.ndarray, np.ndarray], None]:
    """(pixels [H, 3 W], per, logs, mean, variance [R', C', 3], points [R C, 6]): fills the last three."""

    @numba.njit(cache=True)
    def read(
        pixels: np.ndarray, per: int, logs: np.ndarray, mean: np.ndarray, variance: np.ndarray, points: np.ndarray
    ) -> None:
        # compiled with what is around them: numba finds nothing in its cache that holds other compiled functions
        def put_blocks(
            total: np.ndarray, square: np.ndarray, per: int, mean: np.ndarray, variance: np.ndarray, sums: np.ndarray
        ) -> None:
            area = side * side
            for block in range(len(mean)):
                first, last = 3 * side * block, 3 * side * (block + 1)
                totals, squares = total[first:last], square[first:last]
                for k in range(3):
                    one, two = np.int64(0), np.int64(0)
                    for x in range(side):
                        one += totals[3 * x + k]
                        two += squares[3 * x + k]
                    mean[block, k] = one / area
                    variance[block, k] = (area * two - one * one) / (area * area)
                    sums[block // per, k] += one

        def put_levels(counters: np.ndarray, per: int, levels: np.ndarray) -> None:
            both = np.empty(2, np.uint64)
            counts = both.view(np.uint8)  # in which order does not matter
            for block in range(len(counters) // side):
                words = counters[side * block : side * (block + 1)]
                even, odd = np.uint64(0), np.uint64(0)
                for x in range(side):
                    even += words[x] & _EVERY_SECOND
                    odd += (words[x] >> np.uint64(4)) & _EVERY_SECOND
                both[0], both[1] = even, odd
                level = levels[block // per]
                for n in range(_LEVELS):
                    level[n] += counts[n]

        height, wide = pixels.shape
        width, size = wide // 3, side * per
        columns = width // size
        # of each column of a block: sums, and counters of levels; of each column of a patch: the rest
        total, square = np.empty(wide, np.uint16), np.empty(wide, np.int32)
        counters = np.empty(width, np.uint64)
        low, high = np.empty(wide, np.uint8), np.empty(wide, np.uint8)
        slope, lumas = np.empty(width, np.int32), np.empty((side + 1, width), np.uint8)  # and the row above
        inside = np.ones(width, np.int32)
        inside[size - 1 :: size] = 0  # no gradient from a patch to the next
        sums, levels = np.empty((columns, 3), np.int32), np.empty((columns, _LEVELS), np.int32)
        for row in range(height // side):
            total[:], square[:], counters[:] = 0, 0, 0
            if row % per == 0:
                low[:], high[:], slope[:], sums[:], levels[:] = 255, 0, 0, 0, 0
            _take_colour(pixels[row * side : (row + 1) * side], total, square, low, high)
            _take_luma(pixels[row * side : (row + 1) * side], row % per == 0, inside, lumas, slope, counters)
            put_blocks(total, square, per, mean[row], variance[row], sums)
            put_levels(counters, per, levels)
            if row % per == per - 1:
                _put_patches(sums, levels, slope, low, high, size, logs, points[row // per * columns :])

    return read


@numba.njit(cache=True)
def _take_colour(pixels: np.ndarray, total: np.ndarray, square: np.ndarray, low: np.ndarray, high: np.ndarray) -> None:
    """Rows of pixels into the sums and extremes of their columns."""
    for y in range(len(pixels)):
        here = pixels[y]
        for i in range(len(here)):
            total[i] += here[i]
        for i in range(len(here)):
            value = np.int32(here[i])
            square[i] += value * value
        for i in range(len(here)):
            low[i] = min(low[i], here[i])
        for i in range(len(here)):
            high[i] = max(high[i], here[i])


@numba.njit(cache=True)
def _take_luma(
    pixels: np.ndarray, first: bool, inside: np.ndarray, lumas: np.ndarray, slope: np.ndarray, counters: np.ndarray
) -> None:
    """Rows of pixels into the gradient energies and level counters of their columns; `lumas` has the row above last."""
    lumas[0] = lumas[len(pixels)]
    for y in range(len(pixels)):
        here, luma = pixels[y], lumas[y + 1]
        for x in range(len(luma)):
            luma[x] = here[3 * x]
        above = luma if first and y == 0 else lumas[y]
        for x in range(len(luma)):
            counters[x] += np.uint64(1) << np.uint64((luma[x] >> 2) & 60)  # 4 bits times the level
        for x in range(len(luma)):
            down = np.int32(luma[x]) - np.int32(above[x])
            slope[x] += down * down
        right = luma[1:]
        for x in range(len(right)):
            along = (np.int32(right[x]) - np.int32(luma[x])) * inside[x]
            slope[x] += along * along


@numba.njit(cache=True)
def _put_patches(
    sums: np.ndarray,
    levels: np.ndarray,
    slope: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    size: int,
    logs: np.ndarray,
    points: np.ndarray,
) -> None:
    """Features of a row of patches, [C, 6], from what is known of their columns."""
    area = size * size
    for place in range(len(sums)):
        point, widest = points[place], 0
        first, last = size * place, size * (place + 1)
        for k in range(3):
            least, most = np.uint8(255), np.uint8(0)
            for x in range(first, last):
                least, most = min(least, low[3 * x + k]), max(most, high[3 * x + k])
            widest = max(widest, int(most) - int(least))
            point[k] = sums[place, k] / area
        steepness, unequal = 0, 0.0
        for x in range(first, last):
            steepness += slope[x]
        for count in levels[place]:
            unequal += logs[count]
        point[3], point[4], point[5] = np.log1p(steepness / area), (logs[area] - unequal) / area, widest
