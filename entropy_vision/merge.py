"""Merging: quiet regions become one token of many patches, so that nothing is dropped.

A quadtree over every frame. A leaf of h x w patches is averaged down to the pixels of one patch and stands at its
centre; together the leaves cover every patch exactly once. For a count K of leaves

    minimise  sum over leaves of hidden(leaf) + lambda * leaves
    hidden(leaf) = sum over its patches p of  bits(p) * V_p / (V_p + D)

where V_p is the mean squared difference between patch p and what the leaf shows of it: a patch's bits are hidden as far
as its picture is. For a lambda the best tree is found from the finest cells up (P. A. Chou, T. Lookabaugh, R. M. Gray,
"Optimal pruning with applications to tree-structured source coding and modeling", IEEE Trans. Inf. Theory 35, 1989),
and lambda by bisection (Y. Shoham, A. Gersho, "Efficient bit allocation for an arbitrary set of quantizers", IEEE
Trans. ASSP 36, 1988). That gives the trees on the lower convex hull of hidden bits over leaves, shared by all frames.

Between two of them K is filled up by the splits that show most a leaf. A split makes two or four leaves of one, so one
or two leaves may be missing in the end; then the leaves that hide most are halved. These are the only cells, besides
those that the border cuts, that are not square.

Tokens of several sizes in one tower: R. Choudhury et al., arXiv 2510.18091; there thresholds on entropy choose the
sizes and no count is met.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence

import numpy as np

from entropy_vision.errors import UsageError
from entropy_vision.grid import gather, pad, patchify

_FLOOR = 9.0  # D: a difference of three grey levels is half hidden; less is not worth describing
_ROUNDS = 64  # of bisection: as many as lambda has bits

Cell = tuple[int, int, int, int]  # level, frame, row, column; the row and column count cells of that level


def hidden_bits(pixels: np.ndarray, bits: np.ndarray, patch_size: int, side: int) -> list[np.ndarray]:
    """What every cell of the quadtree would hide as one token, level by level.

    Args:
        pixels: uint8 [F, H, W, 3].
        bits: float [F, R, C], what every patch is worth.
        patch_size: side P of a patch in pixels.
        side: of the largest cell in patches, a power of two.

    Returns:
        float64 [F, ceil(R / s), ceil(C / s)] for s = 1, 2, 4 ... side; in [0, the bits of the cell's patches], and 0
        for s = 1. Cells that the border cuts have the patches that they have.
    """
    count, rows, columns = bits.shape
    levels = [np.zeros(bits.shape)]
    padded = pad(pixels, patch_size)
    while (step := 2 ** len(levels)) <= side:
        level = np.zeros((count, -(-rows // step), -(-columns // step)))
        for top, height in _strips(rows, step):
            for left, width in _strips(columns, step):
                down, along = max(1, (rows - top) // step), max(1, (columns - left) // step)
                bottom, right = top + down * height, left + along * width
                inside = padded[:, top * patch_size : bottom * patch_size, left * patch_size : right * patch_size]
                lost = np.stack([_lost(frame, patch_size, height, width) for frame in inside])
                hidden = (bits[:, top:bottom, left:right].reshape(lost.shape) * lost).sum(axis=(2, 4), dtype=np.float64)
                level[:, top // step :, left // step :][:, :down, :along] = hidden
        levels.append(level)
    return levels


def _strips(length: int, step: int) -> list[tuple[int, int]]:
    """(first, extent) of the cells along an axis: the whole ones, and the one that the border cuts."""
    cut = length % step
    return [(0, step)] * (length >= step) + [(length - cut, cut)] * (cut > 0)


def _lost(pixels: np.ndarray, patch_size: int, height: int, width: int) -> np.ndarray:
    """V / (V + D) of every patch of a frame cut into cells of height x width patches.

    Returns:
        float32 [cells down, height, cells along, width], in [0, 1).
    """
    values = pixels.astype(np.float32)
    # a pixel of the token is the mean of height x width pixels; slices add up faster than short axes
    boxes = [values[y::height, x::width] for y in range(height) for x in range(width)]
    token = sum(boxes[1:], boxes[0]) / (height * width)
    apart = values - token.repeat(height, axis=0).repeat(width, axis=1)
    lines = apart.reshape(len(apart) // patch_size, patch_size, -1, patch_size * 3)
    energy = np.einsum("rycx,rycx->rc", lines, lines) / (3 * patch_size**2)
    rows, columns = energy.shape
    return (energy / (energy + _FLOOR)).reshape(rows // height, height, columns // width, width)


def roots(levels: Sequence[np.ndarray]) -> int:
    """The least number of leaves: cells of the largest size."""
    return levels[-1].size


def search(levels: Sequence[np.ndarray], count: int) -> np.ndarray:
    """The cover of exactly `count` leaves.

    Deterministic; ties go to the smaller (frame, row, column).

    Args:
        levels: what `hidden_bits` gives.
        count: roots(levels) <= count <= number of patches.

    Returns:
        int32 [count, 5]: frame, row and column of the leaf's first patch, patch rows and columns it spans; ascending.

    Raises:
        UsageError: a count outside that range.
    """
    least, most = roots(levels), levels[0].size
    if not least <= count <= most:
        raise UsageError(
            f"{count} tokens cannot cover {most} patches: merged as far as allowed, they take {least} to {most}"
        )
    low, high = 0.0, 1.0 + max(float(level.max()) for level in levels)  # at `high` no cell is worth a second leaf
    for _ in range(_ROUNDS):
        middle = (low + high) / 2
        found = _prune(levels, middle)[1]
        low, high = (low, middle) if found <= count else (middle, high)
        if found == count:
            break
    leaves = _fill(levels, _leaves(_prune(levels, high)[0]), count)
    return _halve(levels, leaves, count)


def _prune(levels: Sequence[np.ndarray], price: float) -> tuple[list[np.ndarray], int]:
    """The best trees where every leaf costs `price`: for each level the cells that stay whole, and how many leaves."""
    cost, leaves = levels[0] + price, np.ones(levels[0].shape, np.int64)
    whole = [np.ones(levels[0].shape, bool)]
    for hidden in levels[1:]:
        apart, parts = _pool(cost), _pool(leaves)
        stays = hidden + price <= apart
        cost, leaves = np.where(stays, hidden + price, apart), np.where(stays, 1, parts)
        whole.append(stays)
    return whole, int(leaves.sum())


def _pool(values: np.ndarray) -> np.ndarray:
    """Sums over 2 x 2 cells, [F, ceil(R / 2), ceil(C / 2)]; what lies beyond the border is 0."""
    frames, rows, columns = values.shape
    even = np.pad(values, ((0, 0), (0, rows % 2), (0, columns % 2)))
    return even.reshape(frames, (rows + 1) // 2, 2, (columns + 1) // 2, 2).sum(axis=(2, 4))


def _leaves(whole: Sequence[np.ndarray]) -> set[Cell]:
    """The cells that stay whole and lie in none that does."""
    found: set[Cell] = set()
    reached = np.ones(whole[-1].shape, bool)
    for level in reversed(range(len(whole))):
        stays = reached & whole[level]
        found |= {(level, frame, row, column) for frame, row, column in np.argwhere(stays).tolist()}
        if level:
            _, rows, columns = whole[level - 1].shape
            reached = (reached & ~stays).repeat(2, axis=1).repeat(2, axis=2)[:, :rows, :columns]
    return found


def _fill(levels: Sequence[np.ndarray], leaves: set[Cell], count: int) -> set[Cell]:
    """Split the leaves that gain most a leaf, while whole splits fit into `count`."""

    def offer(cell: Cell) -> tuple[float, int, int, int, Cell, list[Cell]] | None:
        parts = _parts(levels, cell)
        if len(parts) < 2:
            return None
        level, frame, row, column = cell
        gain = levels[level][cell[1:]] - sum(levels[part[0]][part[1:]] for part in parts)
        return -float(gain) / (len(parts) - 1), frame, row << level, column << level, cell, parts

    leaves, heap = set(leaves), [one for one in map(offer, leaves) if one]
    heapq.heapify(heap)
    while heap and len(leaves) < count:
        *_, cell, parts = heapq.heappop(heap)
        if len(leaves) + len(parts) - 1 > count:
            continue  # nor will it fit later
        leaves.remove(cell)
        leaves.update(parts)
        for one in filter(None, map(offer, parts)):
            heapq.heappush(heap, one)
    return leaves


def _parts(levels: Sequence[np.ndarray], cell: Cell) -> list[Cell]:
    """The two or four cells that a split makes of one; none of a single patch.

    Where the border cuts a cell so that only one of its quarters has patches, that quarter is the same cell.
    """
    parts = [cell]
    while len(parts) == 1:
        level, frame, row, column = parts[0]
        if not level:
            return []
        _, rows, columns = levels[level - 1].shape
        parts = [
            (level - 1, frame, down, along)
            for down in range(2 * row, min(2 * row + 2, rows))
            for along in range(2 * column, min(2 * column + 2, columns))
        ]
    return parts


def _halve(levels: Sequence[np.ndarray], leaves: set[Cell], count: int) -> np.ndarray:
    """The leaves as (frame, row, column, rows, columns), those that hide most halved until there are `count`."""
    _, rows, columns = levels[0].shape
    covers = []
    for level, frame, row, column in leaves:
        top, left, step = row << level, column << level, 1 << level
        span = min(step, rows - top), min(step, columns - left)
        covers.append((-float(levels[level][frame, row, column]), frame, top, left, *span))
    covers.sort()
    for _ in range(count - len(covers)):
        most = min(one for one in covers if one[4] * one[5] > 1)
        covers.remove(most)
        hidden, frame, top, left, height, width = most
        if height >= width:  # across the longer side, and the first half is the larger one
            upper = (height + 1) // 2
            halves = (top, left, upper, width), (top + upper, left, height - upper, width)
        else:
            first = (width + 1) // 2
            halves = (top, left, height, first), (top, left + first, height, width - first)
        covers += [(hidden / 2, frame, *half) for half in halves]
    return np.array(sorted(one[1:] for one in covers), np.int32)


def shrink(pixels: np.ndarray, leaves: np.ndarray, patch_size: int) -> np.ndarray:
    """Every leaf as a patch: the mean of h x w pixels for each of its own.

    Args:
        pixels: uint8 [F, H, W, 3].
        leaves: int [K, 5], what `search` gives.

    Returns:
        uint8 [K, P, P, 3]; a leaf of one patch has exactly that patch's pixels.
    """
    if (leaves[:, 3:] == 1).all():
        return gather(pixels, leaves[:, :3], patch_size)
    patches = patchify(pixels, patch_size)
    out = np.empty((len(leaves), patch_size, patch_size, 3), np.uint8)
    for height, width in np.unique(leaves[:, 3:], axis=0).tolist():
        mine = (leaves[:, 3] == height) & (leaves[:, 4] == width)
        frame, top, left = (leaves[mine, axis].reshape(-1, 1, 1) for axis in range(3))
        blocks = patches[frame, top + np.arange(height)[:, None], left + np.arange(width)]  # [n, h, w, P, P, 3]
        boxes = blocks.swapaxes(2, 3).reshape(-1, patch_size, height, patch_size, width, 3)
        out[mine] = np.rint(boxes.mean(axis=(2, 4), dtype=np.float64))
    return out
