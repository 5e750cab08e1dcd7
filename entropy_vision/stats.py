"""How sure a measurement is: intervals for accuracies, means and paired differences; pass@k."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from entropy_vision.errors import UsageError

_CHUNK = 1 << 21  # elements of one block of bootstrap weights: 16 MiB


def wilson_interval(correct: float, n: int, z: float = 1.96) -> tuple[float, float]:
    """Interval of a proportion; z = 1.96 gives 95 %. Stays inside [0, 1] and is honest at 0 and n right.

    Args:
        correct: how many were right, 0..n.
        n: how many were asked; 0 gives (0, 1): nothing is known.

    Source: Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22 (1927).
    """
    if n < 0 or not 0 <= correct <= n:
        raise UsageError(f"wilson_interval: needs 0 <= correct <= n, got {correct} of {n}")
    if n == 0:
        return 0.0, 1.0
    p = correct / n
    center = p + z * z / (2 * n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    # at the ends the two terms are equal but for rounding
    low = 0.0 if correct == 0 else max(0.0, (center - half) / scale)
    high = 1.0 if correct == n else min(1.0, (center + half) / scale)
    return low, high


def mean_interval(
    values: Sequence[float] | np.ndarray,
    *,
    groups: Sequence[object] | np.ndarray | None = None,
    confidence: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> tuple[float, float, float]:
    """Mean with a percentile bootstrap interval: (mean, low, high). The same input gives the same figures.

    Args:
        values: [n], finite, n >= 2.
        groups: [n] names of what belongs together (questions about one scene, completions of one question). Whole
            groups are drawn then: values of one group are not independent, and taking them so makes an interval too
            narrow by up to the square root of the group's size.
        confidence: fraction of resampled means inside, in (0, 1).
        resamples: how many times the sample is drawn again.
        seed: of the draws.

    Below about 20 values or groups such an interval is somewhat too narrow.

    Source: Efron and Tibshirani, "An Introduction to the Bootstrap" (1993), chapter 13.
    """
    x = np.asarray(values, dtype=np.float64)
    if x.ndim != 1 or not np.isfinite(x).all():
        raise UsageError(f"values must be [n] and finite, got shape {list(x.shape)}")
    if not 0.0 < confidence < 1.0 or resamples < 1:
        raise UsageError(f"needs 0 < confidence < 1 and resamples >= 1, got {confidence} and {resamples}")
    sums, counts = _group_sums(x, groups)
    if len(sums) < 2:
        raise UsageError(f"an interval needs at least 2 independent values or groups, got {len(sums)}")
    means = _bootstrap_means(sums, counts, resamples, np.random.default_rng(seed))
    tail = (1.0 - confidence) / 2.0
    low, high = np.quantile(means, [tail, 1.0 - tail])
    return float(x.mean()), float(low), float(high)


def paired_difference(
    before: Sequence[float] | np.ndarray,
    after: Sequence[float] | np.ndarray,
    *,
    groups: Sequence[object] | np.ndarray | None = None,
    confidence: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> tuple[float, float, float]:
    """Mean of after - before over the same questions, with its interval: (mean, low, high).

    The questions' own difficulty cancels, so this finds differences that two separate intervals hide. An interval
    that leaves out 0 is a difference at that confidence. The keywords are those of `mean_interval`.

    Args:
        before: [n], the score of each question.
        after: [n], of the same questions in the same order.
    """
    a, b = np.asarray(before, dtype=np.float64), np.asarray(after, dtype=np.float64)
    if a.shape != b.shape or a.ndim != 1:
        raise UsageError(f"before and after must be [n] of the same questions, got {list(a.shape)} and {list(b.shape)}")
    return mean_interval(b - a, groups=groups, confidence=confidence, resamples=resamples, seed=seed)


def pass_at_k(n: int, c: int, k: int) -> float:
    """Chance that at least one of k completions is right, from n completions of which c are: 1 - C(n-c, k) / C(n, k).

    Unbiased, where 1 - (1 - c/n)^k is not.

    Source: Chen et al., "Evaluating Large Language Models Trained on Code", arXiv:2107.03374, section 2.1.
    """
    if not (1 <= k <= n and 0 <= c <= n):
        raise UsageError(f"pass_at_k: needs 1 <= k <= n and 0 <= c <= n, got n={n}, c={c}, k={k}")
    return 1.0 - math.comb(n - c, k) / math.comb(n, k)


def _group_sums(x: np.ndarray, groups: Sequence[object] | np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    if groups is None:
        return x, np.ones(len(x))
    if len(groups) != len(x):
        raise UsageError(f"groups must name the group of each of the {len(x)} values, got {len(groups)}")
    number: dict[object, int] = {}
    index = np.array([number.setdefault(g, len(number)) for g in groups], dtype=np.int64)
    return np.bincount(index, weights=x, minlength=len(number)), np.bincount(index, minlength=len(number)).astype(float)


def _bootstrap_means(sums: np.ndarray, counts: np.ndarray, resamples: int, rng: np.random.Generator) -> np.ndarray:
    n = len(sums)
    step = max(1, _CHUNK // n)
    means = np.empty(resamples)
    for start in range(0, resamples, step):
        stop = min(resamples, start + step)
        drawn = rng.integers(0, n, size=(stop - start, n))
        means[start:stop] = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    return means
