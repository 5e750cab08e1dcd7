"""Intervals against their defining equations, brute force and simulation."""

from __future__ import annotations

import math
import random
from itertools import combinations

import numpy as np
import pytest

from entropy_vision.errors import UsageError
from entropy_vision.stats import mean_interval, paired_difference, pass_at_k, wilson_interval


def _wilson_by_bisection(correct: int, n: int, z: float, side: int) -> float:
    """The p on one side of the observed share that lies exactly z of its own standard errors from it."""
    share = correct / n
    near, far = share, 0.0 if side < 0 else 1.0
    for _ in range(200):
        middle = (near + far) / 2
        inside = abs(share - middle) <= z * math.sqrt(middle * (1 - middle) / n)
        near, far = (middle, far) if inside else (near, middle)
    return near


@pytest.mark.parametrize(("correct", "n"), [(0, 7), (7, 7), (1, 2), (50, 100), (3, 1000), (999, 1000), (1, 1)])
@pytest.mark.parametrize("z", [1.0, 1.96, 2.576])
def test_wilson_interval_solves_its_defining_equation(correct: int, n: int, z: float) -> None:
    low, high = wilson_interval(correct, n, z)
    assert low == pytest.approx(_wilson_by_bisection(correct, n, z, -1), abs=1e-9)
    assert high == pytest.approx(_wilson_by_bisection(correct, n, z, +1), abs=1e-9)
    assert 0.0 <= low <= correct / n <= high <= 1.0


def test_wilson_interval_knows_nothing_without_questions_and_is_exact_at_the_ends() -> None:
    assert wilson_interval(0, 0) == (0.0, 1.0)
    assert wilson_interval(0, 9)[0] == 0.0 and wilson_interval(9, 9)[1] == 1.0
    assert wilson_interval(10, 100) == pytest.approx((0.0552, 0.1744), abs=1e-4)


@pytest.mark.parametrize(("correct", "n"), [(-1, 5), (6, 5), (0, -1)])
def test_wilson_interval_refuses_impossible_counts(correct: int, n: int) -> None:
    with pytest.raises(UsageError):
        wilson_interval(correct, n)


def _slow_interval(values: list[float], groups: list[int], resamples: int) -> tuple[float, float]:
    rng = random.Random(1)
    names = sorted(set(groups))
    of = {g: [v for v, h in zip(values, groups, strict=True) if h == g] for g in names}
    means = []
    for _ in range(resamples):
        drawn = [v for _ in names for v in of[rng.choice(names)]]
        means.append(sum(drawn) / len(drawn))
    means.sort()
    return means[int(0.025 * resamples)], means[int(0.975 * resamples)]


@pytest.mark.parametrize("grouped", [False, True])
def test_mean_interval_agrees_with_a_plain_bootstrap(grouped: bool) -> None:
    rng = np.random.default_rng(3)
    uneven = np.repeat(np.arange(20), [1, 5] * 10)
    groups = (uneven if grouped else np.arange(60)).tolist()
    # large groups sit higher: a mean of group means would be another number
    values = (rng.normal(size=60)[groups] + 0.3 * rng.normal(size=60) + 2.0 * (uneven % 2)).tolist()
    mean, low, high = mean_interval(values, groups=groups if grouped else None)
    slow_low, slow_high = _slow_interval(values, groups, 3000)
    assert mean == pytest.approx(sum(values) / 60)
    assert (low, high) == pytest.approx((slow_low, slow_high), abs=0.05)


def test_mean_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(300):
        _, low, high = mean_interval(rng.normal(0.3, 1.0, size=40), resamples=400)
        covered += low <= 0.3 <= high
    assert 0.90 <= covered / 300 <= 0.98


def test_groups_of_copies_give_the_interval_of_the_originals() -> None:
    values = np.random.default_rng(1).normal(size=30)
    copies, names = np.repeat(values, 5), np.repeat(np.arange(30), 5)
    alone = mean_interval(values)
    assert mean_interval(copies, groups=names) == pytest.approx(alone)
    assert mean_interval(copies, groups=[f"scene {i}" for i in names]) == pytest.approx(alone)
    naive = mean_interval(copies)
    assert (naive[2] - naive[1]) < 0.6 * (alone[2] - alone[1])


def test_paired_difference_finds_what_separate_intervals_hide() -> None:
    rng = np.random.default_rng(2)
    before = rng.random(200)
    after = before + 0.02 + 0.02 * rng.normal(size=200)
    mean, low, high = paired_difference(before, after)
    assert low > 0 and mean == pytest.approx((after - before).mean()) and low < mean < high
    assert mean_interval(before)[2] > mean_interval(after)[1]


def test_paired_difference_is_zero_for_the_same_scores_and_turns_with_the_order() -> None:
    rng = np.random.default_rng(4)
    a, b = rng.random(50), rng.random(50)
    assert paired_difference(a, a) == (0.0, 0.0, 0.0)
    forth, back = paired_difference(a, b), paired_difference(b, a)
    assert forth == pytest.approx((-back[0], -back[2], -back[1]))
    assert paired_difference(a, b) == forth


def test_intervals_refuse_what_they_cannot_be_sure_of() -> None:
    for values in ([], [1.0], [1.0, math.nan], [[1.0, 2.0]]):
        with pytest.raises(UsageError):
            mean_interval(values)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="at least 2"):
        mean_interval([1.0, 2.0, 3.0], groups=["a", "a", "a"])
    with pytest.raises(UsageError, match="each of the 3"):
        mean_interval([1.0, 2.0, 3.0], groups=["a", "b"])
    with pytest.raises(UsageError, match="same questions"):
        paired_difference([1.0, 2.0], [1.0])
    with pytest.raises(UsageError, match="confidence"):
        mean_interval([1.0, 2.0], confidence=95)


def test_mean_interval_of_many_values_is_drawn_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(5).normal(size=50)
    whole = mean_interval(values, resamples=300)
    monkeypatch.setattr("entropy_vision.stats._CHUNK", 70 * 50)
    assert mean_interval(values, resamples=300) == whole


@pytest.mark.parametrize(("n", "c"), [(1, 0), (1, 1), (5, 0), (5, 2), (6, 5), (6, 6)])
def test_pass_at_k_equals_the_share_of_all_choices(n: int, c: int) -> None:
    right = [True] * c + [False] * (n - c)
    for k in range(1, n + 1):
        choices = list(combinations(right, k))
        assert pass_at_k(n, c, k) == pytest.approx(sum(any(s) for s in choices) / len(choices))


def test_pass_at_k_stays_exact_for_large_counts() -> None:
    assert pass_at_k(2000, 1, 1000) == pytest.approx(0.5)
    assert pass_at_k(2000, 1001, 1000) == 1.0


@pytest.mark.parametrize(("n", "c", "k"), [(3, 1, 0), (3, 1, 4), (3, 4, 1), (3, -1, 1)])
def test_pass_at_k_refuses_impossible_counts(n: int, c: int, k: int) -> None:
    with pytest.raises(UsageError, match="pass_at_k"):
        pass_at_k(n, c, k)
