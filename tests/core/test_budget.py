"""Budgets and the exact choice."""

from __future__ import annotations

from typing import Any

import numpy as np
import oracles_selection as oracle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from entropy_vision import Budget, UsageError
from entropy_vision.budget import at_least, exact, spread


def _bits(shape: tuple[int, int, int], seed: int, levels: int = 5) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, levels, shape).astype(np.float32)  # few levels: many ties


_GRIDS = st.tuples(st.integers(1, 4), st.integers(1, 5), st.integers(1, 5))


@settings(max_examples=60, deadline=None)
@given(grid=_GRIDS, seed=st.integers(0, 999), share=st.floats(0, 1), wanted=st.floats(0, 0.5))
def test_exact_equals_sorting_all_positions(grid: tuple[int, int, int], seed: int, share: float, wanted: float) -> None:
    bits = _bits(grid, seed)
    first = np.random.default_rng(seed).random(grid) < wanted
    count = max(1, round(share * bits.size))
    chosen = exact(bits, count, first)
    assert {tuple(p) for p in np.argwhere(chosen).tolist()} == oracle.exact(bits, count, first)


@settings(max_examples=60, deadline=None)
@given(grid=_GRIDS, share=st.floats(0, 1))
def test_spread_gives_the_count_and_equal_shares_to_the_frames(grid: tuple[int, int, int], share: float) -> None:
    count = round(share * np.prod(grid))
    mask = spread(grid, count)
    shares = mask.sum(axis=(1, 2))
    assert mask.sum() == count
    assert shares.max() - shares.min() <= 1


def test_spread_leaves_no_large_hole_in_a_frame() -> None:
    mask = spread((1, 14, 14), 49)[0]  # one in four
    for row in range(12):
        for column in range(12):
            assert mask[row : row + 3, column : column + 3].any(), (row, column)


def test_spread_puts_a_single_patch_in_the_middle_of_time() -> None:
    assert np.argwhere(spread((5, 3, 3), 1))[0, 0] == 2


def test_spread_moves_from_frame_to_frame() -> None:
    mask = spread((8, 8, 8), 128)
    assert mask.any(axis=0).mean() > 0.6  # a lattice that stood still would see a quarter


@pytest.mark.parametrize("patches", [1, 2, 3, 5, 10, 144, 196, 512])
@pytest.mark.parametrize("keep", [0.001, 0.125, 0.25, 0.5, 0.9, 1.0])
def test_keep_gives_the_rounded_count_and_at_least_one(patches: int, keep: float) -> None:
    assert Budget(keep=keep).size(patches) == max(1, round(keep * patches))


def test_tokens_are_met_or_all_patches_kept() -> None:
    assert Budget(tokens=7).size(100) == 7
    assert Budget(tokens=700).size(100) == 100


@pytest.mark.parametrize("total", [0, 0.5, 3, 8, 12, 24.9, 1e9])
def test_bits_takes_as_many_of_the_best_as_fit(total: float) -> None:
    bits = _bits((2, 4, 4), 3)
    fit, spent = 0, 0.0
    for value in sorted(bits.ravel().tolist(), reverse=True):
        spent += value
        if spent > total:
            break
        fit += 1
    assert Budget(bits=total).size(bits.size) is None
    assert Budget(bits=total).count(bits) == max(1, fit)


def test_at_least_takes_all_above_and_the_best_of_frames_that_have_none() -> None:
    bits = np.zeros((3, 2, 2), np.float32)
    bits[0] = [[5, 4], [3, 1]]
    bits[2, 1, 0] = 2
    mask = at_least(bits, 3)
    assert np.argwhere(mask).tolist() == [[0, 0, 0], [0, 0, 1], [0, 1, 0], [1, 0, 0], [2, 1, 0]]
    assert np.argwhere(at_least(bits, 9)).tolist() == [[0, 0, 0], [1, 0, 0], [2, 1, 0]]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "exactly one"),
        ({"keep": 0.5, "tokens": 3}, "exactly one"),
        ({"keep": 0}, r"in \(0, 1\]"),
        ({"keep": 1.5}, r"in \(0, 1\]"),
        ({"keep": float("nan")}, "finite"),
        ({"keep": "0.5"}, "number"),
        ({"tokens": 0}, "at least 1"),
        ({"tokens": 2.5}, "whole number"),
        ({"tokens": True}, "number"),
        ({"bits": -1}, "negative"),
        ({"threshold": float("inf")}, "finite"),
    ],
)
def test_budget_refuses_what_it_cannot_mean(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Budget(**given)


def test_budget_holds_plain_numbers_when_given_numpy_ones() -> None:
    assert type(Budget(tokens=np.int64(4)).tokens) is int
    assert type(Budget(keep=np.float32(0.5)).keep) is float


def test_exact_refuses_more_than_there_is() -> None:
    with pytest.raises(UsageError, match="cannot keep 5 of 4"):
        exact(np.zeros((1, 2, 2)), 5)
