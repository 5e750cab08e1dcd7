"""distance_ratio: how many times as far from one thing a second is as a third."""

from __future__ import annotations

import math

import numpy as np

from entropy_vision.question import Answer

from .distance import apart, lengths, named_layout
from .family import Ask, StagedFamily
from .shared import LayoutStage
from .stage import Setting
from .words import decimal_words

BINS = 5  # on each side of 1, equally wide in the logarithm
MOST = 2.4


def draw_ratio(rng: np.random.Generator, target: int, most: float) -> tuple[float, bool]:
    """A ratio of 1..most, and whether the answer is its inverse: targets are 2 x 5 equal steps of its logarithm."""
    step = target - BINS if target >= BINS else BINS - 1 - target
    return math.exp((step + float(rng.uniform(0.1, 1.0))) * math.log(most) / BINS), target < BINS


def _stage(family: StagedFamily, target: int, setting: Setting, rng: np.random.Generator) -> LayoutStage | None:
    ratio, inverse = draw_ratio(rng, target, MOST)
    layout = named_layout(rng, setting, ratio, first_is_near=inverse)
    if layout is None:
        return None
    ask = Ask(
        question=family.worded(setting, rng, layout.phrase(0), layout.phrase(1), layout.phrase(2)),
        answer=Answer("number", round(apart(layout, 1) / apart(layout, 2), 2), mra=True),
        rationale=lengths(layout),
        needs=((0, 0), (1, 0), (2, 0)),
    )
    return LayoutStage(layout, (ask,), setting.difficulty, setting.split)


FAMILY = StagedFamily(
    name="distance_ratio",
    media="image",
    targets=tuple(range(2 * BINS)),
    templates=(
        "how many times as far from the {a} is the {b} as the {c}?",
        "divide the distance from the {a} to the {b} by the distance from the {a} to the {c}.",
        "what is the distance of the {b} to the {a}, if the {c} is at distance 1?",
    ),
    held_out="with the {c} at distance 1 from the {a}, at what distance is the {b}?",
    splits=("cogent_a", "cogent_b", "template", "more", "background"),
    stage=_stage,
    twin=lambda target: 2 * BINS - 1 - target,
    words=decimal_words(),
)
