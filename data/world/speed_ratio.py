"""speed_ratio: how many times as fast as one thing another is."""

from __future__ import annotations

import math

import numpy as np

from entropy_vision.question import Answer

from .distance_ratio import BINS, draw_ratio
from .family import Ask, StagedFamily
from .shared import LayoutStage
from .speed import draw_race
from .stage import Setting
from .words import decimal_words

MOST = 1.9


def _stage(
    family: StagedFamily, target: tuple[int, bool], setting: Setting, rng: np.random.Generator
) -> LayoutStage | None:
    step, long_is_faster = target
    ratio, inverse = draw_ratio(rng, step, MOST)
    race = draw_race(rng, setting, math.log(ratio), math.log(MOST), not inverse, long_is_faster)
    if race is None:
        return None
    layout, (first, second) = race.layout, race.speeds
    ask = Ask(
        question=family.worded(setting, rng, *(layout.phrase(k) for k in (0, 1))),
        answer=Answer("number", round(first / second, 2), mra=True),
        rationale=race.steps_told,
        needs=race.needs,
    )
    return LayoutStage(layout, (ask,), setting.difficulty, setting.split, race.facts)


FAMILY = StagedFamily(
    name="speed_ratio",
    media="video",
    targets=tuple((step, long) for step in range(2 * BINS) for long in (True, False)),
    templates=(
        "how many times as fast as the {b} is the {a}?",
        "divide the speed of the {a} by the speed of the {b}.",
        "if the {b} has speed 1, what is the speed of the {a}?",
    ),
    held_out="with the {b} at speed 1, how fast is the {a}?",
    splits=("cogent_a", "cogent_b", "template", "more", "background"),
    stage=_stage,
    twin=lambda target: (2 * BINS - 1 - target[0], target[1]),
    words=(*decimal_words(), "in"),
)
