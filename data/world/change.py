"""change: what became of one thing between two views: added, removed, moved, recoloured, or nothing in a quarter."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from entropy_vision.question import Answer

from .family import Ask, StagedFamily, letter
from .stage import Setting
from .views import KINDS, ViewsStage, told, views

# what happened, and the kind that is no option: nothing against three of four kinds, so that every option of every
# question is the answer as often as any other
TARGETS = (
    *(("nothing", left_out) for left_out in KINDS),
    *((kind, left_out) for kind in KINDS for left_out in KINDS if left_out != kind),
)


def _stage(family: StagedFamily, target: tuple[str, str], setting: Setting, rng: np.random.Generator) -> ViewsStage:
    kind, left_out = target
    named = _options(left_out)
    options = tuple(named[k] for k in rng.permutation(len(named)).tolist())
    question = family.worded(setting, rng, f"{', '.join(options[:-1])} or {options[-1]}")
    stage = views(kind, None, setting, rng)
    answer = Answer("choice", letter(options, kind), options=options)
    return replace(stage, asks=(Ask(question, answer, told(stage), ()),))


def _options(left_out: str) -> tuple[str, ...]:
    return (*(kind for kind in KINDS if kind != left_out), "nothing")


def _twin(target: tuple[str, str]) -> tuple[str, str]:
    """The next of the question's options."""
    kind, left_out = target
    named = _options(left_out)
    return named[(named.index(kind) + 1) % len(named)], left_out


FAMILY = StagedFamily(
    name="change",
    media="video",
    targets=TARGETS,
    templates=(
        "what changed where both views are open, {a}?",
        "between the two views, what happened where both are open, {a}?",
        "places open in both views, what is different, {a}?",
    ),
    held_out="comparing places open in both views, what was done, {a}?",
    words=(*KINDS, "nothing", "none", ",", "or"),
    stage=_stage,
    twin=_twin,
)
