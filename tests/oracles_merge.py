"""Slow, obvious forms of merging: loops over pixels, and every quadtree there is."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

Leaf = tuple[int, int, int, int, int]  # frame, row, column, rows, columns


def merged(pixels: np.ndarray, side: int, leaf: Leaf) -> tuple[np.ndarray, np.ndarray]:
    """The leaf's pixels, [h P, w P, 3], and the token's, float [P, P, 3]: each the mean of h x w pixels."""
    frame, row, column, height, width = leaf
    down = [min(y, pixels.shape[1] - 1) for y in range(row * side, (row + height) * side)]
    along = [min(x, pixels.shape[2] - 1) for x in range(column * side, (column + width) * side)]
    picture = pixels[frame][down][:, along].astype(float)  # a pixel outside the frame is the nearest inside
    token = np.zeros((side, side, 3))
    for y in range(side):
        for x in range(side):
            token[y, x] = picture[y * height : (y + 1) * height, x * width : (x + 1) * width].mean(axis=(0, 1))
    return picture, token


def hidden(pixels: np.ndarray, bits: np.ndarray, side: int, leaf: Leaf) -> float:
    """Bits that the leaf hides: of each of its patches the share V / (V + 9)."""
    frame, row, column, height, width = leaf
    picture, token = merged(pixels, side, leaf)
    total = 0.0
    for down in range(height):
        for along in range(width):
            apart = 0.0
            for y in range(down * side, (down + 1) * side):
                for x in range(along * side, (along + 1) * side):
                    apart += float(((picture[y, x] - token[y // height, x // width]) ** 2).sum())
            energy = apart / (3 * side * side)
            total += float(bits[frame, row + down, column + along]) * energy / (energy + 9)
    return total


def trees(leaf: Leaf, size: int) -> list[tuple[Leaf, ...]]:
    """Every quadtree of a cell whose sides would be `size` if no border cut it."""
    frame, row, column, height, width = leaf
    if height * width == 1:
        return [(leaf,)]
    half = size // 2
    parts = [
        (frame, row + down, column + along, min(half, height - down), min(half, width - along))
        for down in range(0, height, half)
        for along in range(0, width, half)
    ]
    below = itertools.product(*(trees(part, half) for part in parts))
    return [(leaf,), *(tuple(itertools.chain(*chosen)) for chosen in below if chosen != ((leaf,),))]


def covers(grid: tuple[int, int, int], size: int) -> list[tuple[Leaf, ...]]:
    """Every cover of a grid by one quadtree for each cell of `size`."""
    frames, rows, columns = grid
    cells = [
        (frame, row, column, min(size, rows - row), min(size, columns - column))
        for frame in range(frames)
        for row in range(0, rows, size)
        for column in range(0, columns, size)
    ]
    return [tuple(itertools.chain(*chosen)) for chosen in itertools.product(*(trees(cell, size) for cell in cells))]


def hull(best: dict[int, float]) -> list[int]:
    """The counts at the corners of the lower convex hull of (count, hidden bits), ascending."""
    corners: list[int] = []
    for count in sorted(best):
        while len(corners) > 1 and _above(corners[-2], corners[-1], count, best):
            corners.pop()
        corners.append(count)
    while len(corners) > 1 and best[corners[-1]] >= best[corners[-2]]:  # more leaves for nothing
        corners.pop()
    return corners


def _above(left: int, middle: int, right: int, best: dict[int, float]) -> bool:
    share = (middle - left) / (right - left)
    return best[middle] >= (1 - share) * best[left] + share * best[right]


def least(found: Sequence[tuple[Leaf, ...]], price: dict[Leaf, float]) -> dict[int, float]:
    """Count of leaves -> fewest bits that a cover of that many hides."""
    best: dict[int, float] = {}
    for cover in found:
        total = sum(price[leaf] for leaf in cover)
        best[len(cover)] = min(total, best.get(len(cover), total))
    return best
