"""change_where: the box, in the second view, of what was added, removed or recoloured."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from entropy_vision.question import Answer

from .family import Ask, StagedFamily, pick
from .stage import Setting
from .views import PLACES, ViewsStage, thing_box, told, views

KINDS = ("added", "removed", "recoloured")


def _stage(family: StagedFamily, target: int, setting: Setting, rng: np.random.Generator) -> ViewsStage:
    question = family.worded(setting, rng)
    stage = views(pick(rng, KINDS), target, setting, rng)
    thing = stage.changed[-1]
    first, second = thing.spots
    if second is None:  # removed: where it would stand now
        assert first is not None
        second = first[0] + stage.shift[0], first[1] + stage.shift[1]
    box = tuple(round(edge, 3) for edge in thing_box(thing.shape, second, stage.size))
    return replace(stage, asks=(Ask(question, Answer("box", box), told(stage), ()),))


FAMILY = StagedFamily(
    name="change_where",
    media="video",
    targets=tuple(range(PLACES)),
    templates=(
        "where both views are open, which box of the second view changed, as fractions?",
        "give the box, as fractions of the second view, of what changed where both are open.",
        "what changed where both views are open? its box in the second, as fractions.",
    ),
    held_out="as fractions of the second view, box what is different where both are open.",
    words=("none",),
    stage=_stage,
    twin=lambda target: (target + PLACES // 2 + 1) % PLACES,
)
