"""Sums over blocks of a frame: what the rate reads off pixels, in one pass over them.

The loops are compiled (numba) and accumulate whole rows, so a processor's vector units take them as they stand; sums
run over the `side` rows of a block first and over its columns last. `tests/oracles_selection.py` has the same in loops
over blocks. Frames are uint8 [H, W, 3] whose sides are multiples of `side`; results are float32 [3, R', C'].
"""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np


@dataclass(frozen=True, eq=False)
class Blocks:
    """What the rate needs to know about one frame; all float32 [3, R', C'], channels first, over blocks.

    Attributes:
        mean, square: mean and mean square of the block's values.
        slope: mean squared gradient, (grey levels a pixel) squared; central differences, edges mirrored.
    """

    mean: np.ndarray
    square: np.ndarray
    slope: np.ndarray

    @property
    def variance(self) -> np.ndarray:
        """Energy around the block's own mean."""
        return np.maximum(self.square - self.mean * self.mean, 0)

    def energy(self, colour: np.ndarray) -> np.ndarray:
        """Mean squared distance of the block's values from `colour`."""
        return np.maximum(self.square + colour * (colour - 2 * self.mean), 0)


def measure(frame: np.ndarray, side: int) -> Blocks:
    """Block statistics of uint8 [H, W, 3]."""
    height, width, _ = frame.shape
    sums = np.empty((3, 3, height // side, width // side), np.float32)
    _frame_sums(frame.reshape(height, -1), side, sums)
    return Blocks(mean=sums[0], square=sums[1], slope=sums[2])


def compare(now: np.ndarray, other: np.ndarray, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean and mean square of now - other in each block; `other` uint8 or float32 [H, W, 3]."""
    height, width, _ = now.shape
    sums = np.empty((2, 3, height // side, width // side), np.float32)
    _difference_sums(now.reshape(height, -1), other.reshape(height, -1), side, sums)
    return sums[0], sums[1]


@numba.njit(cache=True)
def _frame_sums(frame: np.ndarray, side: int, out: np.ndarray) -> None:
    height, wide = frame.shape
    total, square, slope = np.zeros((3, wide), np.int32)
    for y in range(height):
        here, above, below = frame[y], frame[max(y - 1, 0)], frame[min(y + 1, height - 1)]
        if y == 0:
            above = below
        if y == height - 1:
            below = above
        for i in range(wide):
            value, down = np.int32(here[i]), np.int32(below[i]) - np.int32(above[i])
            total[i] += value
            square[i] += value * value
            slope[i] += down * down
        for i in range(3, wide - 3):
            along = np.int32(here[i + 3]) - np.int32(here[i - 3])
            slope[i] += along * along
        if y % side == side - 1:
            _into_blocks(total, y // side, side, 1.0, out[0])
            _into_blocks(square, y // side, side, 1.0, out[1])
            _into_blocks(slope, y // side, side, 0.25, out[2])  # central differences span two pixels


@numba.njit(cache=True)
def _difference_sums(now: np.ndarray, other: np.ndarray, side: int, out: np.ndarray) -> None:
    height, wide = now.shape
    total, square = np.zeros((2, wide), np.float32)
    for y in range(height):
        here, there = now[y], other[y]
        for i in range(wide):
            apart = np.float32(here[i]) - np.float32(there[i])
            total[i] += apart
            square[i] += apart * apart
        if y % side == side - 1:
            _into_blocks(total, y // side, side, 1.0, out[0])
            _into_blocks(square, y // side, side, 1.0, out[1])


@numba.njit(cache=True)
def _into_blocks(columns: np.ndarray, row: int, side: int, scale: float, out: np.ndarray) -> None:
    """Sums of columns (three channels interleaved) into means of blocks; the columns start again at nothing."""
    share = np.float32(scale / (side * side))
    for block in range(out.shape[2]):
        for channel in range(3):
            total = np.float32(0)
            for x in range(side):
                i = (block * side + x) * 3 + channel
                total += np.float32(columns[i])
            out[channel, row, block] = total * share
    columns[:] = 0


def quantile(blocks: np.ndarray, share: float) -> np.ndarray:
    """The value of that rank in each channel: float32 [3, R', C'] -> [3, 1, 1]."""
    flat = np.ascontiguousarray(blocks, np.float32).reshape(len(blocks), -1)
    return _ranked(flat, int(share * (flat.shape[1] - 1)))[:, None, None]


@numba.njit(cache=True)
def _ranked(rows: np.ndarray, rank: int) -> np.ndarray:
    """The value of a rank in each row, by selection (Hoare 1961) with the median of three as pivot."""
    out = np.empty(len(rows), rows.dtype)
    for k in range(len(rows)):
        values = rows[k].copy()
        low, high = 0, len(values) - 1
        while low < high:
            first, middle, last = values[low], values[(low + high) // 2], values[high]
            pivot = max(min(first, middle), min(max(first, middle), last))
            i, j = low, high
            while i <= j:
                while values[i] < pivot:
                    i += 1
                while values[j] > pivot:
                    j -= 1
                if i <= j:
                    values[i], values[j] = values[j], values[i]
                    i += 1
                    j -= 1
            if rank <= j:
                high = j
            elif rank >= i:
                low = i
            else:
                break
        out[k] = values[rank]
    return out


@numba.njit(cache=True)
def blend(memory: np.ndarray, now: np.ndarray, light: np.ndarray, share: np.ndarray, side: int) -> None:
    """memory += share * (now - light - memory), in place.

    Args:
        memory: float32 [H, W, 3].
        now: uint8 [H, W, 3].
        light: float32 [3], taken off `now`.
        share: float32 [R', C'] in [0, 1], for each block.
    """
    height, width, _ = now.shape
    held, here = memory.reshape(height, width * 3), now.reshape(height, width * 3)
    parts, off = np.empty(width * 3, np.float32), np.empty(width * 3, np.float32)
    for i in range(width * 3):
        off[i] = light[i % 3]
    for y in range(height):
        if y % side == 0:
            for i in range(width * 3):
                parts[i] = share[y // side, i // (3 * side)]
        into, given = held[y], here[y]
        for i in range(width * 3):
            into[i] += parts[i] * (np.float32(given[i]) - off[i] - into[i])
