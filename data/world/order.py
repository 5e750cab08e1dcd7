"""order: some things from left to right."""

from __future__ import annotations

from itertools import permutations

import numpy as np

from entropy_vision.question import Answer

from .cast import listed, scene_names, slots_of, still_layout, thing_sizes
from .family import Ask, StagedFamily
from .shared import LayoutStage
from .stage import Setting
from .words import hundredths, number_words

_MOST = 5
_TRIES = 40


def _columns(rng: np.random.Generator, n: int, sizes: list[float], gap: float) -> list[tuple[float, float]] | None:
    """Spots from left to right, each at least `gap` to the right of the one before, boxes apart."""
    edge = max(sizes) / 2 + 0.01
    free = 1 - 2 * edge - gap * (n - 1)
    for _ in range(_TRIES):
        xs = edge + np.sort(rng.random(n)) * free + gap * np.arange(n)
        ys = rng.uniform(edge, 1 - edge, n)
        x, y, s = xs, ys, np.array(sizes)
        near = np.maximum(np.abs(x[:, None] - x), np.abs(y[:, None] - y)) < (s[:, None] + s) / 2 + 0.02
        if near.sum() == n:
            return list(zip(xs.tolist(), ys.tolist(), strict=True))
    return None


def ranks(target: tuple[int, ...], n: int) -> list[int]:
    """The first n of a permutation by their rank among themselves; where n is larger, the others come after."""
    kept = [k for k in target if k < n] + list(range(len(target), n))
    return kept


def _stage(
    family: StagedFamily, target: tuple[int, ...], setting: Setting, rng: np.random.Generator
) -> LayoutStage | None:
    d = setting.difficulty
    # 3 things to 5, in between a mixture; one more than ever in training for "more"
    n = _MOST + 1 if setting.split == "more" else 3 + int(2 * d) + int(rng.random() < 2 * d % 1.0)
    sizes = thing_sizes(rng, setting, n, 0.8)
    spots = _columns(rng, n, sizes, 0.19 - 0.13 * d if n <= _MOST else 0.06)
    names = scene_names(rng, setting, n)
    turn = rng.permutation(n)
    if spots is None:
        return None
    # `turn` puts the sixth thing anywhere; target and `turn` together are as uniform as the target alone
    order = [int(turn[k]) for k in ranks(target, n)] if n > _MOST else ranks(target, n)
    layout = still_layout(names, slots_of(order, n), sizes, spots, setting)
    ordered = [layout.names[k] for k in order]
    ask = Ask(
        question=family.worded(setting, rng, listed(layout.names, "and")),
        answer=Answer("ordering", ordered),
        rationale=" ; ".join(f"{name} {hundredths(x)}" for name, (x, _) in zip(ordered, spots, strict=True)),
        needs=tuple((k, 0) for k in range(n)),
    )
    return LayoutStage(layout, (ask,), setting.difficulty, setting.split)


FAMILY = StagedFamily(
    name="order",
    media="image",
    targets=tuple(permutations(range(_MOST))),
    templates=(
        "list from left to right: {a}.",
        "put in order from left to right: {a}.",
        "what is the order of {a}, seen from left to right?",
    ),
    held_out="starting at the left, name in turn {a}.",
    splits=("cogent_a", "cogent_b", "template", "more", "background"),
    stage=_stage,
    twin=lambda target: target[::-1],
    words=(*number_words(), "and", ","),
)
