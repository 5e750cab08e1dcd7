"""What a picture is judged by, read off its pixels: mean and variance of blocks, six features of patches.

The loops are compiled (numba) for one block side. A row of patches at a time, small enough for the processor's nearest
memory, has its colours taken apart; then rows of pixels are taken in whole, so that vector units take them as they
stand: a column of pixels is summed up first, columns of a block or patch last. A block has at most 14 pixels a side
(`grid.block_side`), so the 16 counters of luma levels of a column of a block fit 4 bits each, in one word; those of a
block fit 8 bits. `tests/oracles_selection.py` has the same in loops over patches.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import numba
import numpy as np

from entropy_vision.colour import put_ycrcb, take_apart

FEATURES = 6  # mean of each channel, log of 1 + gradient energy of luma, entropy of 16 levels of luma, widest range
_LEVELS = 16  # of luma
_EVERY_SECOND = np.uint64(0x0F0F0F0F0F0F0F0F)  # counters of 4 bits, with room to grow to 8


def read_picture(frame: np.ndarray, side: int, per: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Block statistics and patch features of a picture, of luma, Cr and Cb.

    Args:
        frame: uint8 [R per side, C per side, 3], RGB.
        side: of a block in pixels, at most 14.
        per: blocks along the side of a patch.

    Returns:
        mean and variance, float32 [R per, C per, 3], and features, float32 [6, R C].
    """
    height, width, _ = frame.shape
    mean, variance = np.empty((2, height // side, width // side, 3), np.float32)
    points = np.zeros((FEATURES, height * width // (side * per) ** 2), np.float32)
    pixels = np.ascontiguousarray(frame).reshape(height, 3 * width)
    _reader(side)(pixels, per, _logs((side * per) ** 2), mean, variance, points)
    return mean, variance, points


@functools.lru_cache(maxsize=8)
def _logs(most: int) -> np.ndarray:
    """n log2 n for n = 0 ... most, float64."""
    n = np.arange(most + 1)
    return n * np.log2(np.maximum(n, 1))


@functools.cache
def _reader(side: int) -> Callable[[np.ndarray, int, np.ndarray, np.ndarray, np.ndarray, np.ndarray], None]:
    """(pixels [H, 3 W], RGB, per, logs, mean, variance [R', C', 3], points [6, R C]): fills the last three."""

    @numba.njit(cache=True)
    def read(
        pixels: np.ndarray, per: int, logs: np.ndarray, mean: np.ndarray, variance: np.ndarray, points: np.ndarray
    ) -> None:
        # compiled with what is around them: numba finds nothing in its cache that holds other compiled functions
        def put_blocks(
            total: np.ndarray, square: np.ndarray, per: int, mean: np.ndarray, variance: np.ndarray, sums: np.ndarray
        ) -> None:
            share = 1 / (side * side)  # a quotient of such numbers is never so near a tie that this rounds otherwise
            for place in range(len(sums)):
                for block in range(place * per, (place + 1) * per):
                    one, two, first = np.int32(0), np.int32(0), block * side
                    for x in range(side):
                        one += total[first + x]
                        two += square[first + x]
                    mean[block] = one * share
                    variance[block] = (np.int64(side * side) * two - np.int64(one) * one) * (share * share)
                    sums[place] += one

        def put_ranges(low: np.ndarray, high: np.ndarray, per: int, widest: np.ndarray) -> None:
            for place in range(len(widest)):
                least, most = np.uint8(255), np.uint8(0)
                for block in range(place * per, (place + 1) * per):
                    for x in range(side):
                        least, most = min(least, low[block * side + x]), max(most, high[block * side + x])
                widest[place] = max(widest[place], np.float32(most) - np.float32(least))

        def put_levels(counters: np.ndarray, words: np.ndarray) -> None:
            for block in range(len(words)):
                even, odd, first = np.uint64(0), np.uint64(0), block * side
                for x in range(side):
                    even += counters[first + x] & _EVERY_SECOND
                    odd += (counters[first + x] >> np.uint64(4)) & _EVERY_SECOND
                words[block, 0], words[block, 1] = even, odd

        width, size = pixels.shape[1] // 3, side * per
        columns, area = width // size, size * size
        taken, colours = np.empty((3, size, width), np.uint8), np.empty((3, size, width), np.uint8)
        # of each column of a block: sums, and counters of levels; of each column of a patch: the rest
        total, square, counters = np.empty(width, np.uint16), np.empty(width, np.int32), np.empty(width, np.uint64)
        low, high, slope = np.empty(width, np.uint8), np.empty(width, np.uint8), np.empty(width, np.int32)
        sums, levels = np.empty(columns, np.int64), np.empty((columns, _LEVELS), np.int32)
        words = np.empty((width // side, 2), np.uint64)
        counts = words.view(np.uint8)  # in which order does not matter
        inside = np.ones(width, np.int32)
        inside[size - 1 :: size] = 0  # no gradient from a patch to the next
        for line in range(len(pixels) // size):
            take_apart(pixels[line * size : (line + 1) * size], taken)
            put_ycrcb(taken, colours)
            here = slice(line * columns, (line + 1) * columns)
            for k in range(3):
                low[:], high[:], sums[:] = 255, 0, 0
                for row in range(per):
                    total[:], square[:] = 0, 0
                    _take_colour(colours[k, row * side : (row + 1) * side], total, square, low, high)
                    at = line * per + row
                    put_blocks(total, square, per, mean[at, :, k], variance[at, :, k], sums)
                put_ranges(low, high, per, points[5, here])
                points[k, here] = sums / area
            slope[:], levels[:] = 0, 0
            for row in range(per):
                counters[:] = 0
                _take_luma(colours[0], row * side, side, inside, slope, counters)
                put_levels(counters, words)
                for place in range(columns):
                    for block in range(place * per, (place + 1) * per):
                        for n in range(_LEVELS):
                            levels[place, n] += counts[block, n]
            _put_luma(slope, levels, size, logs, points[3, here], points[4, here])

    return read


@numba.njit(cache=True)
def _take_colour(plane: np.ndarray, total: np.ndarray, square: np.ndarray, low: np.ndarray, high: np.ndarray) -> None:
    """Rows of a plane into the sums and extremes of their columns."""
    for y in range(len(plane)):
        here = plane[y]
        for x in range(len(here)):
            total[x] += here[x]
        for x in range(len(here)):
            value = np.int32(here[x])
            square[x] += value * value
        for x in range(len(here)):
            low[x] = min(low[x], here[x])
        for x in range(len(here)):
            high[x] = max(high[x], here[x])


@numba.njit(cache=True)
def _take_luma(
    luma: np.ndarray, top: int, count: int, inside: np.ndarray, slope: np.ndarray, counters: np.ndarray
) -> None:
    """`count` rows from `top` on of a row of patches into the gradient energies and level counters of their columns."""
    for y in range(top, top + count):
        here, above = luma[y], luma[max(y - 1, 0)]
        for x in range(len(here)):
            counters[x] += np.uint64(1) << np.uint64((here[x] >> 2) & 60)  # 4 bits times the level
        for x in range(len(here)):
            down = np.int32(here[x]) - np.int32(above[x])
            slope[x] += down * down
        right = here[1:]
        for x in range(len(right)):
            along = (np.int32(right[x]) - np.int32(here[x])) * inside[x]
            slope[x] += along * along


@numba.njit(cache=True)
def _put_luma(
    slope: np.ndarray, levels: np.ndarray, size: int, logs: np.ndarray, steepness: np.ndarray, entropy: np.ndarray
) -> None:
    """A row of patches, [C]: log of 1 + gradient energy, and entropy of their levels [C, 16]."""
    area, unequal, total = size * size, np.zeros(len(entropy)), np.zeros(len(entropy), np.int64)
    for place in range(len(entropy)):
        for x in range(size * place, size * (place + 1)):
            total[place] += slope[x]
    for n in range(_LEVELS):  # of several patches at a time, for one waits for its last addition
        for place in range(len(entropy)):
            unequal[place] += logs[levels[place, n]]
    for place in range(len(entropy)):
        steepness[place] = np.log1p(total[place] / area)
        entropy[place] = (logs[area] - unequal[place]) / area
