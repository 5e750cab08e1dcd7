"""Slow, obvious forms of what the selectors compute: loops over patches, pixels and pairs."""

from __future__ import annotations

import math

import numpy as np

Cell = tuple[int, int]


def cut(plane: np.ndarray, side: int) -> dict[Cell, np.ndarray]:
    """The pixels of every patch by (row, column), without padding."""
    rows, columns = math.ceil(plane.shape[0] / side), math.ceil(plane.shape[1] / side)
    return {
        (r, c): plane[r * side : (r + 1) * side, c * side : (c + 1) * side] for r in range(rows) for c in range(columns)
    }


def on_grid(values: dict[Cell, float]) -> np.ndarray:
    rows, columns = (1 + max(cell[axis] for cell in values) for axis in (0, 1))
    return np.array([[values[r, c] for c in range(columns)] for r in range(rows)])


def difference(pixels: np.ndarray, side: int, unit: list[float], tubelet: int) -> np.ndarray:
    """Mean |last frame of a tubelet - first of the one before| / unit; infinite in the first."""
    out = []
    for frame in range(len(pixels)):
        number = frame // tubelet
        last = min((number + 1) * tubelet, len(pixels)) - 1
        change = abs(pixels[last].astype(float) - pixels[max(number - 1, 0) * tubelet].astype(float)) / unit
        out.append(on_grid({cell: float(patch.mean()) for cell, patch in cut(change, side).items()}))
        if number == 0:
            out[-1][:] = math.inf
    return np.array(out)


def run_length(mask: np.ndarray, frame: int, row: int, column: int) -> int:
    """Frames until the next kept patch at the same place."""
    if not mask[frame, row, column]:
        return 0
    length = 1
    while frame + length < len(mask) and not mask[frame + length, row, column]:
        length += 1
    return length
