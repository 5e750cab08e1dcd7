"""distance: which of two things is closer to a third."""

from __future__ import annotations

import math

import numpy as np

from entropy_vision.question import Answer

from .cast import few_or_many, scene_names, slots_of, still_layout, thing_sizes
from .draw import boxes
from .family import Ask, StagedFamily
from .layout import Layout, spread
from .shared import LayoutStage
from .stage import Setting
from .words import cell_word, hundredths, number_words

_TRIES = 60
_MARGIN, _GAP = 0.01, 0.02


def near_and_far(
    rng: np.random.Generator, setting: Setting, ratio: float
) -> tuple[list[float], list[tuple[float, float]]] | None:
    """Sizes and middles of a thing, one near it, one `ratio` times as far away, and others; None where they do not fit.

    The near and the far thing are of one size, so that either name can stand at either place.
    """
    d = setting.difficulty
    n = 3 + few_or_many(rng, setting, easiest=0, hardest=4, more=6)
    sizes = thing_sizes(rng, setting, n, 1.0 if n <= 8 else 0.75)
    sizes[2] = sizes[1]
    near = float(rng.uniform(0.27, 0.33)) - 0.09 * d
    low, high = np.array(sizes[:3]) / 2 + _MARGIN, 1 - np.array(sizes[:3]) / 2 - _MARGIN
    away = [((sizes[i] + sizes[j]) / 2 + _GAP) for i, j in ((0, 1), (0, 2), (1, 2))]
    for x, y, a, b in rng.random((_TRIES, 4)).tolist():
        steps = ((0.0, 0.0), *((r * math.cos(t), r * math.sin(t)) for r, t in ((near, math.tau * a),
                                                                          (near * ratio, math.tau * b))))  # fmt: skip
        spots = [(x + dx, y + dy) for dx, dy in steps]
        inside = all(low[k] <= min(spot) and max(spot) <= high[k] for k, spot in enumerate(spots))
        pairs = zip(((0, 1), (0, 2), (1, 2)), away, strict=True)
        if inside and all(
            max(abs(spots[i][0] - spots[j][0]), abs(spots[i][1] - spots[j][1])) >= apart for (i, j), apart in pairs
        ):
            full = spread(rng, sizes, _MARGIN, _GAP, placed=spots)
            return None if full is None else (sizes, full)
    return None


def named_layout(rng: np.random.Generator, setting: Setting, ratio: float, first_is_near: bool) -> Layout | None:
    """A layout whose thing 0 is the one measured from, 1 the one mentioned first of the other two, 2 the second."""
    found = near_and_far(rng, setting, ratio)
    if found is None:
        return None
    sizes, middles = found
    names = scene_names(rng, setting, len(sizes))
    slots = slots_of((0, 1, 2) if first_is_near else (0, 2, 1), len(names))
    return still_layout(names, slots, sizes, middles, setting)


def lengths(layout: Layout) -> str:
    """Where thing 0 is, and how far from it the next two are: "red r2c3 ; blue 23 ; green 41"."""
    origin = layout.sprites[0]
    steps = [f"{layout.names[0]} {cell_word(origin.x, origin.y)}"]
    steps += [f"{layout.names[k]} {hundredths(apart(layout, k))}" for k in (1, 2)]
    return " ; ".join(steps)


def apart(layout: Layout, k: int) -> float:
    """From the middle of the box of thing 0 to that of thing k, in sides of the frame."""
    corners = boxes(layout)[[0, k], 0].astype(float)
    x, y = (corners[1, :2] + corners[1, 2:] - corners[0, :2] - corners[0, 2:]) / 2
    return float(math.hypot(x, y))


def _stage(family: StagedFamily, target: int, setting: Setting, rng: np.random.Generator) -> LayoutStage | None:
    ratio = 1.55 - 0.4 * setting.difficulty + float(rng.uniform(0, 0.3))
    # target 0: the thing mentioned first is the closer one
    layout = named_layout(rng, setting, ratio, first_is_near=target == 0)
    if layout is None:
        return None
    ask = Ask(
        question=family.worded(setting, rng, layout.phrase(0), layout.phrase(1), layout.phrase(2)),
        answer=Answer("choice", "AB"[target], options=layout.names[1:3]),
        rationale=lengths(layout),
        needs=((0, 0), (1, 0), (2, 0)),
    )
    return LayoutStage(layout, (ask,), setting.difficulty, setting.split)


FAMILY = StagedFamily(
    name="distance",
    media="image",
    targets=(0, 1),
    templates=(
        "which is closer to the {a}, the {b} or the {c}?",
        "is the {b} or the {c} closer to the {a}?",
        "what lies nearer to the {a}, the {b} or the {c}?",
        "seen from the {a}, which is nearer, the {b} or the {c}?",
    ),
    held_out="of the {b} and the {c}, which is the nearer one to the {a}?",
    splits=("cogent_a", "cogent_b", "template", "more", "background"),
    stage=_stage,
    twin=lambda target: 1 - target,
    words=number_words(),
)
