"""Slow, obvious forms of what the selectors compute: loops over patches, pixels and pairs."""

from __future__ import annotations

import math

import cv2
import numpy as np
from oracles_selection import entropy

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


def gradient(plane: np.ndarray, side: int) -> np.ndarray:
    """Mean of dx^2 + dy^2; no difference is taken across the border."""
    height, width = plane.shape
    energy = np.zeros((height, width))
    for y in range(height):
        for x in range(width):
            if 0 < x < width - 1:
                energy[y, x] += ((float(plane[y, x + 1]) - float(plane[y, x - 1])) / 2) ** 2
            if 0 < y < height - 1:
                energy[y, x] += ((float(plane[y + 1, x]) - float(plane[y - 1, x])) / 2) ** 2
    return on_grid({cell: float(patch.mean()) for cell, patch in cut(energy, side).items()})


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


def features(frame: np.ndarray, side: int) -> np.ndarray:
    """Mean colour, log gradient energy and entropy of 16 levels of every patch: [R, C, 5]."""
    colours = cv2.cvtColor(frame, cv2.COLOR_RGB2YCrCb)
    steep = gradient(colours[..., 0], side)
    out = np.zeros((*steep.shape, 5))
    for cell, patch in cut(colours, side).items():
        levels = [int(value) // 16 for value in patch[..., 0].ravel()]
        out[cell] = [*patch.reshape(-1, 3).mean(axis=0), math.log(1 + steep[cell]), entropy(levels)]
    return out


def surprisal(points: np.ndarray, kernels: int) -> np.ndarray:
    """-log2 of a kernel density whose kernels stand on every k-th point; a point without one adds its own."""
    count, size = points.shape
    z = np.zeros_like(points)
    for k in range(size):
        if np.ptp(points[:, k]) > 0:
            z[:, k] = (points[:, k] - points[:, k].mean()) / points[:, k].std()
    step = math.ceil(count / kernels)
    centres = list(range(0, count, step))
    h = len(centres) ** (-1 / (size + 4))
    out = np.zeros(count)
    for i in range(count):
        mine = centres if i in centres else [*centres, i]
        near = [math.exp(-sum((z[i, k] - z[j, k]) ** 2 for k in range(size)) / (2 * h * h)) for j in mine]
        out[i] = -math.log2(sum(near) / len(near))
    return out


def quadtree(plane: np.ndarray, side: int, thresholds: tuple[float, ...], offset: float) -> set[Cell]:
    """The patches that a quadtree keeps: one for a cell below its threshold, else what its four quarters keep."""
    patches = {cell: patch.ravel().tolist() for cell, patch in cut(plane, side).items()}
    fine = {cell: entropy(values) for cell, values in patches.items()}

    def kept(row: int, column: int, scale: int) -> set[Cell]:
        size = 2**scale
        inside = [p for p in patches if p[0] // size == row and p[1] // size == column]
        if not inside:
            return set()
        together = entropy([value for p in inside for value in patches[p]])
        if scale == 0 or together < thresholds[scale - 1] + offset:
            return {max(inside, key=lambda p: fine[p])}
        quarters = [(2 * row + y, 2 * column + x) for y in (0, 1) for x in (0, 1)]
        return set().union(*(kept(*quarter, scale - 1) for quarter in quarters))

    size = 2 ** len(thresholds)
    roots = {(r // size, c // size) for r, c in patches}
    return set().union(*(kept(*root, len(thresholds)) for root in roots))


def prediction_error(frame: np.ndarray, side: int, tau: float) -> np.ndarray:
    """max |x - pred| against what was kept of the neighbours; infinite for the first patch."""
    patches = {cell: patch.astype(int) for cell, patch in cut(frame, side).items()}
    shown: dict[Cell, np.ndarray] = {}
    error: dict[Cell, float] = {}

    def far(one: np.ndarray, two: np.ndarray) -> int:
        tall, wide = min(len(one), len(two)), min(one.shape[1], two.shape[1])
        return int(abs(one[:tall, :wide] - two[:tall, :wide]).max())

    for r, c in sorted(patches):
        x, left, up, corner = patches[r, c], shown.get((r, c - 1)), shown.get((r - 1, c)), shown.get((r - 1, c - 1))
        if left is None and up is None:
            error[r, c], shown[r, c] = math.inf, x
            continue
        if left is None or up is None or corner is None:
            guess = up if left is None else left
        else:
            guess = up if far(corner, left) <= tau and not far(corner, up) <= tau else left
        assert guess is not None
        error[r, c] = far(x, guess)
        shown[r, c] = guess[: len(x), : x.shape[1]] if error[r, c] <= tau else x
    return on_grid(error)


def search(before: np.ndarray, now: np.ndarray, start: np.ndarray, reach: int, side: int, price: float) -> np.ndarray:
    """For each block the vector of the least mean absolute difference plus price a pixel: none, or near `start`."""
    height, width = now.shape
    out = np.zeros_like(start)
    for row, column in np.ndindex(*start.shape[:2]):
        steps = [(y, x) for y in range(-reach, reach + 1) for x in range(-reach, reach + 1)]
        steps.sort(key=lambda step: abs(step[0]) + abs(step[1]))
        candidates = [(0, 0), *((int(start[row, column, 0]) + y, int(start[row, column, 1]) + x) for y, x in steps)]
        costs = []
        for down, right in candidates:
            apart = [
                abs(int(now[y, x]) - int(before[min(max(y + down, 0), height - 1), min(max(x + right, 0), width - 1)]))
                for y in range(row * side, (row + 1) * side)
                for x in range(column * side, (column + 1) * side)
            ]
            costs.append(sum(apart) / len(apart) + price * (abs(down) + abs(right)))
        out[row, column] = candidates[costs.index(min(costs))]
    return out


def onevision(before: np.ndarray, now: np.ndarray, vectors: np.ndarray, side: int, block: int) -> np.ndarray:
    """(m / p95 + e / p95) / 2, each at most 1, for given block vectors."""
    height, width = now.shape
    middle = [float(np.median(vectors[..., axis])) for axis in (0, 1)]
    own, residual = np.zeros((height, width)), np.zeros((height, width))
    for y in range(height):
        for x in range(width):
            down, right = (int(one) for one in vectors[y // block, x // block])
            own[y, x] = math.hypot(down - middle[0], right - middle[1])
            there = before[min(max(y + down, 0), height - 1), min(max(x + right, 0), width - 1)]
            residual[y, x] = abs(int(now[y, x]) - int(there))
    total = np.zeros(())
    for field in (own, residual):
        part = on_grid({cell: float(patch.mean()) for cell, patch in cut(field, side).items()})
        top = float(np.percentile(part, 95))
        total = total + (np.minimum(part / top, 1) if top > 0 else 1.0 * (part > 0)) / 2
    return total
