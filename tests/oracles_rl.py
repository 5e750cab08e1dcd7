"""Slow obvious truths for rl: plain Python loops over plain numbers, no tensor operation shared with the code."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import permutations


def advantages(rewards: Sequence[Sequence[float]], scale: str, baseline: str = "group") -> list[list[float]]:
    """r minus the mean of group or others, over the unbiased std of group or batch plus 1e-4; equal groups 0."""

    def unbiased_std(values: Sequence[float]) -> float:
        mean = sum(values) / len(values)
        return math.sqrt(sum((v - mean) ** 2 for v in values) / (len(values) - 1))

    everything = [r for row in rewards for r in row]
    out = []
    for row in map(list, rewards):
        means = [sum(row) / len(row) for _ in row]
        if baseline == "others":
            means = [sum(row[:i] + row[i + 1 :]) / (len(row) - 1) for i in range(len(row))]
        below = {"group": unbiased_std(row) + 1e-4, "batch": unbiased_std(everything) + 1e-4, "none": 1.0}[scale]
        out.append([0.0 if min(row) == max(row) else (r - mean) / below for r, mean in zip(row, means, strict=True)])
    return out


def policy_loss(
    logp: Sequence[Sequence[float]],
    old: Sequence[Sequence[float]],
    advantages: Sequence[float],
    mask: Sequence[Sequence[int]],
    ref: Sequence[Sequence[float]] | None,
    beta: float,
    eps_low: float,
    eps_high: float,
    loss: str,
    kl: str = "k3",
) -> tuple[float, float]:
    """The loss, and the fraction of live tokens at a bound that takes their gradient (or caps their weight)."""
    rows, bound, live_tokens = [], 0, 0
    for b, a in enumerate(advantages):
        live = [t for t, m in enumerate(mask[b]) if m]
        live_tokens += len(live)
        terms = []
        for t in live:
            log_ratio = logp[b][t] - old[b][t]
            if loss == "gspo":
                log_ratio = sum(logp[b][s] - old[b][s] for s in live) / len(live)
            ratio = math.exp(log_ratio)
            if loss == "cispo":
                term = -min(ratio, eps_high) * a * logp[b][t]
                bound += ratio > eps_high and a > 0
            else:
                term = -min(ratio * a, min(max(ratio, 1 - eps_low), 1 + eps_high) * a)
                bound += (ratio > 1 + eps_high and a > 0) or (ratio < 1 - eps_low and a < 0)
            if ref is not None:
                d = ref[b][t] - logp[b][t]
                k3 = math.exp(d) - d - 1
                term += beta * {"k1": -d, "k2": d * d / 2, "k3": k3, "k3+": k3, "k3r": k3 * ratio}[kl]
            terms.append(term)
        rows.append(terms)
    share = bound / max(live_tokens, 1)
    if loss in ("grpo", "gspo"):
        return sum(sum(r) / max(len(r), 1) for r in rows) / len(rows), share
    below = len(mask) * len(mask[0]) if loss == "dr_grpo" else max(live_tokens, 1)
    return sum(sum(r) for r in rows) / below, share


def box_iou(a: Sequence[float], b: Sequence[float]) -> float:
    """Continuous intersection over union of (x0, y0, x1, y1)."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    shared = max(0.0, width) * max(0.0, height)
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


def best_matching(gain: Sequence[Sequence[float]]) -> float:
    """The largest sum of a one-to-one matching, by trying every one."""
    if not gain or not gain[0]:
        return 0.0
    if len(gain) > len(gain[0]):
        gain = list(zip(*gain, strict=True))
    columns = range(len(gain[0]))
    return max(sum(gain[i][j] for i, j in enumerate(p)) for p in permutations(columns, len(gain)))


def set_credit(named: set[str], truth: set[str], options: Sequence[str]) -> float:
    """F1 from precision and recall; with options also Youden's J, option by option, and the smaller of the two."""
    if named == truth:
        return 1.0
    both = [item for item in named if item in truth]
    if not both:
        return 0.0
    precision, recall = len(both) / len(named), len(both) / len(truth)
    f1 = 2 * precision * recall / (precision + recall)
    if not options:
        return f1
    wrong = [option for option in options if option not in truth]
    false_rate = sum(option in named for option in wrong) / len(wrong) if wrong else 0.0
    return max(0.0, min(f1, recall - false_rate))
