"""Merging: every pixel once, exactly K tokens, and no quadtree that hides much less."""

from __future__ import annotations

from typing import Any

import numpy as np
import oracles_merge as oracle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from entropy_vision import Budget, EntropyTokenizer, Frames, PatchSet, UsageError, selectors
from entropy_vision.merge import hidden_bits, roots, search, shrink
from entropy_vision.tower import find_tower


def _pixels(shape: tuple[int, int, int], seed: int) -> np.ndarray:
    """Noise of a strength that differs from place to place, on a smooth ground."""
    rng = np.random.default_rng(seed)
    frames, height, width = shape
    strong = rng.choice([0, 2, 60], (frames, -(-height // 5), -(-width // 5), 1)).repeat(5, axis=1).repeat(5, axis=2)
    ground = np.linspace(60, 180, width)[None, None, :, None]
    noise = rng.normal(0, 1, (*shape, 3)) * strong[:, :height, :width]
    return np.clip(ground + noise, 0, 255).astype(np.uint8)


def _frames(*shape: int, seed: int = 0) -> Frames:
    pixels = _pixels((shape[0], shape[1], shape[2]), seed)
    return Frames(pixels=pixels, pts_seconds=np.arange(len(pixels)) / 8)


def _levels(grid: tuple[int, int, int], side: int, seed: int) -> list[np.ndarray]:
    """Hidden bits of every cell, few values so that there are many ties; some cells hide less than their parts."""
    rng = np.random.default_rng(seed)
    frames, rows, columns = grid
    steps = [2**power for power in range(side.bit_length())]
    shapes = [(frames, -(-rows // step), -(-columns // step)) for step in steps]
    return [np.zeros(grid), *(rng.integers(0, 4, shape).astype(float) for shape in shapes[1:])]


def _covered(leaves: np.ndarray, grid: tuple[int, int, int]) -> np.ndarray:
    times = np.zeros(grid, int)
    for frame, row, column, height, width in leaves.tolist():
        times[frame, row : row + height, column : column + width] += 1
    return times


_GRIDS = st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 9))

# --- the cover


@settings(max_examples=150, deadline=None)
@given(grid=_GRIDS, side=st.sampled_from([2, 4, 8]), seed=st.integers(0, 999), share=st.floats(0, 1))
def test_a_cover_has_exactly_the_count_and_every_patch_once(
    grid: tuple[int, int, int], side: int, seed: int, share: float
) -> None:
    levels = _levels(grid, side, seed)
    least, most = roots(levels), int(np.prod(grid))
    count = round(least + share * (most - least))
    leaves = search(levels, count)
    assert leaves.shape == (count, 5) and leaves.dtype == np.int32
    assert (_covered(leaves, grid) == 1).all()
    assert (leaves[:, 3:] <= side).all()
    assert sorted(leaves.tolist()) == leaves.tolist()
    # cells are square but where the border cuts them, and but for the halves of at most two
    uncut = (leaves[:, 1] + leaves[:, 3] < grid[1]) & (leaves[:, 2] + leaves[:, 4] < grid[2])
    assert (leaves[uncut, 3] != leaves[uncut, 4]).sum() <= 4
    np.testing.assert_array_equal(search(levels, count), leaves)


@pytest.mark.parametrize("grid", [(1, 4, 4), (2, 4, 4), (1, 4, 7), (1, 5, 6)], ids=str)
@pytest.mark.parametrize("seed", range(3))
def test_no_quadtree_hides_less_where_the_count_is_on_the_hull_nor_much_less_elsewhere(
    grid: tuple[int, int, int], seed: int
) -> None:
    side = 4  # a pixel of a token of 2 or 4 patches is a mean within one patch: splits never hide more
    pixels = _pixels((grid[0], grid[1] * side, grid[2] * side), seed)
    bits = np.random.default_rng(seed).gamma(0.4, 30, grid).astype(np.float32)
    levels = hidden_bits(pixels, bits, side, 4)
    price: dict[oracle.Leaf, float] = {}

    def total(leaves: Any) -> float:
        for leaf in leaves:
            price.setdefault(leaf, oracle.hidden(pixels, bits, side, leaf))
        return sum(price[leaf] for leaf in leaves)

    every = oracle.covers(grid, 4)
    for cover in every:
        total(cover)
    best = oracle.least(every, price)
    corners = oracle.hull(best)
    assert len(corners) > 2
    for count in range(roots(levels), int(np.prod(grid)) + 1):
        mine = total([tuple(leaf) for leaf in search(levels, count).tolist()])
        below = max(corner for corner in corners if corner <= count)
        if count == below:
            assert mine == pytest.approx(best[count], rel=1e-4, abs=1e-4)
        elif grid[1] % 4 != 3 and grid[2] % 4 != 3:  # a cell of three is not split into thirds
            assert mine <= best[below] + 1e-4
        least = min(value for number, value in best.items() if number <= count)
        above = min((corner for corner in corners if corner > count), default=None)
        if above is None:
            continue
        line = best[below] + (best[above] - best[below]) * (count - below) / (above - below)
        assert mine - least <= best[below] - line + 1e-4


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (1, [[0, 0, 4, 4]]),
        (4, [[0, 0, 2, 2], [0, 2, 2, 2], [2, 0, 2, 2], [2, 2, 2, 2]]),
        (5, [[0, 0, 2, 2], [0, 2, 1, 2], [1, 2, 1, 2], [2, 0, 2, 2], [2, 2, 2, 2]]),
        (6, [[0, 0, 2, 2], [0, 2, 1, 2], [1, 2, 1, 2], [2, 0, 1, 2], [2, 2, 2, 2], [3, 0, 1, 2]]),
        (7, [[0, 0, 2, 2], [0, 2, 1, 1], [0, 3, 1, 1], [1, 2, 1, 1], [1, 3, 1, 1], [2, 0, 2, 2], [2, 2, 2, 2]]),
    ],
)
def test_between_corners_of_the_hull_the_best_splits_fill_up(count: int, expected: list[list[int]]) -> None:
    # 1 leaf hides 10, 4 hide 9.5, 7 hide 6.5, 10 hide 3.5, 13 hide 1.5, 16 none: 4 and 7 lie above the line 1 to 10
    levels = [np.zeros((1, 4, 4)), np.array([[[1.5, 3.0], [3.0, 2.0]]]), np.array([[[10.0]]])]
    assert search(levels, count)[:, 1:].tolist() == expected


@pytest.mark.parametrize(
    ("grid", "halves"),
    [
        ((1, 4, 4), [[0, 0, 2, 4], [2, 0, 2, 4]]),
        ((1, 3, 3), [[0, 0, 2, 3], [2, 0, 1, 3]]),
        ((1, 3, 4), [[0, 0, 3, 2], [0, 2, 3, 2]]),
        ((1, 4, 3), [[0, 0, 2, 3], [2, 0, 2, 3]]),
    ],
    ids=str,
)
def test_a_leaf_is_halved_across_its_longer_side(grid: tuple[int, int, int], halves: list[list[int]]) -> None:
    assert search(_levels(grid, 4, 0), 2)[:, 1:].tolist() == halves


@pytest.mark.parametrize("shape", [(2, 12, 16), (1, 20, 23), (2, 5, 29), (1, 3, 3)], ids=str)
@pytest.mark.parametrize("patch", [3, 4])
def test_hidden_bits_and_tokens_equal_a_loop_over_pixels(shape: tuple[int, int, int], patch: int) -> None:
    pixels = _pixels(shape, 1)
    grid = (shape[0], -(-shape[1] // patch), -(-shape[2] // patch))
    bits = np.random.default_rng(0).random(grid).astype(np.float32)
    levels = hidden_bits(pixels, bits, patch, 4)
    assert [level.shape[1:] for level in levels] == [(-(-grid[1] // s), -(-grid[2] // s)) for s in (1, 2, 4)]
    cells = []
    for power, level in enumerate(levels):
        for frame, row, column in np.ndindex(level.shape):
            top, left = row << power, column << power
            leaf = (frame, top, left, min(1 << power, grid[1] - top), min(1 << power, grid[2] - left))
            assert level[frame, row, column] == pytest.approx(oracle.hidden(pixels, bits, patch, leaf), rel=1e-4)
            cells.append(leaf)
    tokens = shrink(pixels, np.array(cells, np.int32), patch)
    for leaf, token in zip(cells, tokens, strict=True):
        assert np.abs(oracle.merged(pixels, patch, leaf)[1] - token).max() <= 0.5 + 1e-9


def test_a_quiet_region_is_merged_and_a_busy_one_is_not() -> None:
    pixels = np.full((1, 64, 64, 3), 90, np.uint8)
    pixels[0, :32, :32] = np.random.default_rng(0).integers(0, 256, (32, 32, 3))
    frames = Frames(pixels=pixels, pts_seconds=np.zeros(1))
    tok = EntropyTokenizer(8, merge=4, budget=Budget(tokens=19), selector="histogram")
    kept = tok(frames)
    assert kept.spans is not None
    spans = dict(zip(map(tuple, kept.positions.tolist()), kept.spans.tolist(), strict=True))
    assert {tuple(span) for (_, row, column), span in spans.items() if row < 4 and column < 4} == {(1, 1)}
    assert [spans[0, 0, 4], spans[0, 4, 0], spans[0, 4, 4]] == [[4, 4]] * 3


# --- the tokenizer


@pytest.mark.parametrize("selector", selectors())
@pytest.mark.parametrize("size", [(40, 56), (33, 50)])
def test_every_place_is_shown_by_exactly_k_tokens(selector: str, size: tuple[int, int]) -> None:
    frames = _frames(2, *size)
    kept = EntropyTokenizer(8, keep=0.4, selector=selector, merge=4)(frames)
    assert len(kept) == round(0.4 * kept.bits.size) == kept.mask.sum()
    assert kept.spans is not None and kept.shown.all()
    assert kept.spans.prod(axis=1).sum() == kept.bits.size
    for pixels, position, span in zip(kept.pixels, kept.positions.tolist(), kept.spans.tolist(), strict=True):
        leaf = (*position, *span)
        assert np.abs(oracle.merged(frames.pixels, 8, leaf)[1] - pixels).max() <= 0.5 + 1e-9  # type: ignore[arg-type]


def test_with_every_patch_kept_nothing_is_merged() -> None:
    frames = _frames(2, 40, 56)
    plain, merged = EntropyTokenizer(8, keep=1.0)(frames), EntropyTokenizer(8, keep=1.0, merge=4)(frames)
    assert merged.spans is None
    np.testing.assert_array_equal(plain.pixels, merged.pixels)
    np.testing.assert_array_equal(plain.positions, merged.positions)


def test_merging_meets_a_budget_in_flops() -> None:
    tower, frames = find_tower("ev-tiny-96"), _frames(3, 64, 64)
    tok = EntropyTokenizer(8, merge=4)
    bits, least = tok.score(frames), tower.flops([4] * 3)
    counts = []
    for limit in (least, 1.5 * least, 3 * least, tower.flops([64] * 3)):
        kept = tok.select(frames, bits, Budget(flops=limit, tower="ev-tiny-96"))
        price = tower.flops(kept.mask.sum(axis=(1, 2)).tolist())
        assert price <= limit < price + tower.flops([10])
        counts.append(len(kept))
    assert counts == sorted(counts) and counts[0] == 12 and counts[-1] == 192
    with pytest.raises(UsageError, match=f"too few for these frames: 12 merged patches take {least}"):
        tok.select(frames, bits, Budget(flops=least - 1, tower="ev-tiny-96"))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"merge": True}, "power of two, such as 4"),
        ({"merge": 3}, "power of two"),
        ({"merge": 0}, "power of two"),
        ({"merge": 2.0}, "power of two"),
        ({"merge": 4, "budget": Budget(bits=9)}, "tokens, keep or flops"),
        ({"merge": 4, "budget": Budget(threshold=9)}, "tokens, keep or flops"),
    ],
)
def test_tokenizer_refuses_what_cannot_be_merged(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        EntropyTokenizer(8, **given)


def test_fewer_tokens_than_the_largest_cells_are_refused() -> None:
    frames = _frames(2, 64, 64)
    assert len(EntropyTokenizer(8, budget=Budget(tokens=8), merge=4)(frames)) == 8
    with pytest.raises(
        UsageError, match="7 tokens cannot cover 128 patches: merged as far as allowed, they take 8 to 128"
    ):
        EntropyTokenizer(8, budget=Budget(tokens=7), merge=4)(frames)
    with pytest.raises(UsageError, match="tokens, keep or flops"):
        tok = EntropyTokenizer(8, merge=4)
        tok.select(frames, tok.score(frames), Budget(bits=9))


def test_fingerprint_and_repr_tell_the_merge() -> None:
    prints = {EntropyTokenizer(8, merge=side).fingerprint() for side in (1, 2, 4)}
    assert len(prints) == 3
    assert "merge=4" in repr(EntropyTokenizer(8, merge=4)) and "merge" not in repr(EntropyTokenizer(8))


@pytest.mark.parametrize(
    ("spans", "message"),
    [
        (np.ones((2, 2)), "int32"),
        (np.ones((3, 2), np.int32), "int32"),
        (np.array([[0, 1], [1, 1]], np.int32), "at least 1"),
        (np.array([[1, 1], [3, 1]], np.int32), "inside the grid"),
        (np.array([[2, 2], [1, 1]], np.int32), "overlap"),
    ],
    ids=str,
)
def test_a_patch_set_refuses_spans_that_cannot_be(spans: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PatchSet(
            pixels=np.zeros((2, 4, 4, 3), np.uint8),
            positions=np.array([[0, 0, 0], [0, 1, 1]], np.int32),
            bits=np.zeros((1, 3, 3), np.float32),
            spans=spans,
        )
