"""From scores of questions to the numbers that are published: means, means of means, and groups all right."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

from .benchmark import Asked

Label = Callable[[Asked], str]
Group = Callable[[Asked], Hashable]


def mean(scores: Sequence[float]) -> float:
    """The mean; of nothing it is not a number, so that an empty part cannot pass for a zero."""
    return sum(scores) / len(scores) if scores else float("nan")


def family(item: Asked) -> str:
    """The benchmark's own kind of question."""
    return item.family


def meta(name: str) -> Label:
    """A label that questions carry in `meta`."""
    return lambda item: str(item.meta[name])


def means(scores: Sequence[float], items: Sequence[Asked], label: Label) -> dict[str, float]:
    """{label: mean}, in order of appearance."""
    parts: dict[str, list[float]] = {}
    for score, item in zip(scores, items, strict=True):
        parts.setdefault(label(item), []).append(score)
    return {name: mean(part) for name, part in parts.items()}


def all_right(scores: Sequence[float], items: Sequence[Asked], group: Group) -> float:
    """The share of groups with every score 1."""
    right: dict[Hashable, bool] = {}
    for score, item in zip(scores, items, strict=True):
        right[group(item)] = right.get(group(item), True) and score == 1.0
    return mean([float(one) for one in right.values()])


def over_questions(*labels: Label) -> Callable[[Sequence[float], Sequence[Asked]], dict[str, float]]:
    """`overall` is the mean over questions; beside it the means of every label."""

    def aggregate(scores: Sequence[float], items: Sequence[Asked]) -> dict[str, float]:
        parts = [means(scores, items, label) for label in labels]
        return {"overall": mean(scores), **{name: value for part in parts for name, value in part.items()}}

    return aggregate


def over_parts(label: Label) -> Callable[[Sequence[float], Sequence[Asked]], dict[str, float]]:
    """`overall` is the unweighted mean of the means of a label; `questions` the mean over questions."""

    def aggregate(scores: Sequence[float], items: Sequence[Asked]) -> dict[str, float]:
        parts = means(scores, items, label)
        return {"overall": mean(list(parts.values())), "questions": mean(scores), **parts}

    return aggregate
