"""What a picture is judged by, read off its pixels in one pass: mean and variance of blocks, six features of patches.

The loop is compiled (numba) for one block side. Rows are taken in whole, one channel after the other, so that a
processor's vector units take them as they stand: a column of pixels is summed up first, columns of a block or patch
last. A block has at most 14 pixels a side (`grid.block_side`), so the 16 counters of luma levels of a column of a block
fit 4 bits each, in one word; those of a block fit 8 bits. `tests/oracles_selection.py` has the same in loops over
patches.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import numba
import numpy as np

FEATURES = 6  # mean of each channel, log of 1 + gradient energy of luma, entropy of 16 levels of luma, widest range
_LEVELS = 16  # of luma
_EVERY_SECOND = np.uint64(0x0F0F0F0F0F0F0F0F)  # counters of 4 bits, with room to grow to 8


def read_picture(planes: np.ndarray, side: int, per: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Block statistics and patch features of a picture.

    Args:
        planes: uint8 [3, R per side, C per side], YCrCb.
        side: of a block in pixels, at most 14.
        per: blocks along the side of a patch.

    Returns:
        mean and variance, float32 [3, R per, C per], and features, float32 [R C, 6].
    """
    _, height, width = planes.shape
    mean, variance = np.empty((2, 3, height // side, width // side), np.float32)
    points = np.empty((mean[0].size // per**2, FEATURES), np.float32)
    _reader(side)(planes, per, _logs((side * per) ** 2), mean, variance, points)
    return mean, variance, points


@functools.lru_cache(maxsize=8)
def _logs(most: int) -> np.ndarray:
    """n log2 n for n = 0 ... most, float64."""
    n = np.arange(most + 1)
    return n * np.log2(np.maximum(n, 1))


@functools.cache
def _reader(side: int) -> Callable[[np.ndarray, int, np.ndarray, np.ndarray, np.ndarray, np.ndarray], None]:
    """(planes [3, H, W], per, logs, mean, variance [3, R', C'], points [R C, 6]): fills the last three."""

    @numba.njit(cache=True)
    def read(
        planes: np.ndarray, per: int, logs: np.ndarray, mean: np.ndarray, variance: np.ndarray, points: np.ndarray
    ) -> None:
        # compiled with what is around them: numba finds nothing in its cache that holds other compiled functions
        def take_channel(
            plane: np.ndarray,
            first: np.uint64,
            total: np.ndarray,
            square: np.ndarray,
            low: np.ndarray,
            high: np.ndarray,
        ) -> None:
            """Rows from `first` on into the sums of their columns, which are new, and the extremes."""
            for x in range(np.uint64(len(total))):
                one, two = np.int32(0), np.int32(0)
                for y in range(np.uint64(side)):
                    value = np.int32(plane[first + y, x])
                    one, two = np.int32(one + value), np.int32(two + value * value)
                total[x], square[x] = one, two
            for x in range(np.uint64(len(total))):
                least, most = low[x], high[x]
                for y in range(np.uint64(side)):
                    least, most = min(least, plane[first + y, x]), max(most, plane[first + y, x])
                low[x], high[x] = least, most

        def take_luma(
            luma: np.ndarray,
            first: np.uint64,
            within: bool,
            inside: np.ndarray,
            slope: np.ndarray,
            counters: np.ndarray,
        ) -> None:
            """Rows from `first` on into the gradient energies of their columns, and into counters of their levels,
            which are new; `within` the patch lies the row above them."""
            for x in range(np.uint64(len(slope))):
                levels = np.uint64(0)
                for y in range(np.uint64(side)):  # 4 bits times the level
                    levels += np.uint64(1) << np.uint64((luma[first + y, x] >> 2) & 60)
                counters[x] = levels
            if within:
                for x in range(np.uint64(len(slope))):
                    down = np.int32(luma[first, x]) - np.int32(luma[first - np.uint64(1), x])
                    slope[x] += down * down
            for x in range(np.uint64(len(slope))):
                steep = np.int32(0)
                for y in range(np.uint64(1), np.uint64(side)):
                    down = np.int32(luma[first + y, x]) - np.int32(luma[first + y - np.uint64(1), x])
                    steep = np.int32(steep + down * down)
                slope[x] += steep
            for x in range(np.uint64(len(slope) - 1)):
                steep = np.int32(0)
                for y in range(np.uint64(side)):
                    along = np.int32(luma[first + y, x + np.uint64(1)]) - np.int32(luma[first + y, x])
                    steep = np.int32(steep + along * along)
                slope[x] += steep * inside[x]

        def put_blocks(
            total: np.ndarray, square: np.ndarray, per: int, mean: np.ndarray, variance: np.ndarray, sums: np.ndarray
        ) -> None:
            area = side * side
            for block in range(len(mean)):
                one, two, first = np.int64(0), np.int64(0), np.uint64(side * block)
                for x in range(np.uint64(side)):  # unsigned, for a signed place may count from the end
                    one += total[first + x]
                    two += square[first + x]
                mean[block] = one / area
                variance[block] = (area * two - one * one) / (area * area)
                sums[block // per] += one

        def put_levels(counters: np.ndarray, per: int, both: np.ndarray, levels: np.ndarray) -> None:
            for block in range(len(both)):
                even, odd, first = np.uint64(0), np.uint64(0), np.uint64(side * block)
                for x in range(np.uint64(side)):
                    even += counters[first + x] & _EVERY_SECOND
                    odd += (counters[first + x] >> np.uint64(4)) & _EVERY_SECOND
                both[block, 0], both[block, 1] = even, odd
            counts = both.view(np.uint8)  # in which order does not matter
            for block in range(np.uint64(len(counts))):
                for n in range(np.uint64(_LEVELS)):
                    levels[block // np.uint64(per), n] += counts[block, n]

        _, height, width = planes.shape
        size = side * per
        columns = width // size
        # of each column of a block: sums, and counters of levels; of each column of a patch: the rest
        total, square, counters = np.empty(width, np.uint16), np.empty(width, np.int32), np.empty(width, np.uint64)
        low, high = np.empty((3, width), np.uint8), np.empty((3, width), np.uint8)
        slope, inside = np.empty(width, np.int32), np.ones(width, np.int32)
        inside[size - 1 :: size] = 0  # no gradient from a patch to the next
        both = np.empty((width // side, 2), np.uint64)
        sums, levels = np.empty((3, columns), np.int32), np.empty((columns, _LEVELS), np.int32)
        for row in range(height // side):
            first = np.uint64(row * side)
            if row % per == 0:
                low[:], high[:], slope[:], sums[:], levels[:] = 255, 0, 0, 0, 0
            for k in range(3):
                take_channel(planes[k], first, total, square, low[k], high[k])
                put_blocks(total, square, per, mean[k, row], variance[k, row], sums[k])
            take_luma(planes[0], first, row % per > 0, inside, slope, counters)
            put_levels(counters, per, both, levels)
            if row % per == per - 1:
                _put_patches(sums, levels, slope, low, high, size, logs, points[row // per * columns :])

    return read


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
    for place in range(len(levels)):
        point, widest = points[place], 0
        first = np.uint64(size * place)
        for k in range(3):
            least, most = np.uint8(255), np.uint8(0)
            for x in range(np.uint64(size)):
                least, most = min(least, low[k, first + x]), max(most, high[k, first + x])
            widest = max(widest, int(most) - int(least))
            point[k] = sums[k, place] / area
        steepness, unequal = 0, 0.0
        for x in range(np.uint64(size)):
            steepness += slope[first + x]
        for count in levels[place]:
            unequal += logs[count]
        point[3], point[4], point[5] = np.log1p(steepness / area), (logs[area] - unequal) / area, widest
