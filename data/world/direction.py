"""direction: which way a thing moves on the torus; no single frame tells."""

from __future__ import annotations

import numpy as np

from entropy_vision.question import Answer

from .family import Ask, Family, letter, pick
from .layout import DIRECTIONS, Layout, Wish
from .words import cell_words, time_word


def first_and_last(layout: Layout, k: int) -> str:
    """ "red t1 r3 c4 ; t8 r3 c7": where sprite k is when it is first and last seen."""
    first, last = layout.sprites[k].onset, layout.frame_count - 1
    start, end = layout.tracks[k, first], layout.tracks[k, last]
    count = layout.frame_count
    return f"{layout.names[k]} {time_word(first, count)} {cell_words(*start)} ; {time_word(last, count)} {cell_words(*end)}"


def _pose(family: Family, layout: Layout, target: str, rng: np.random.Generator) -> Ask | None:
    fitting = [k for k, s in enumerate(layout.sprites) if s.motion == target]
    if not fitting:
        return None
    k = pick(rng, fitting)
    return Ask(
        question=family.question(rng, layout.phrase(k)),
        answer=Answer("choice", letter(DIRECTIONS, target), options=DIRECTIONS),
        rationale=first_and_last(layout, k),
        needs=((k, layout.sprites[k].onset),),
    )


FAMILY = Family(
    name="direction",
    media="video",
    targets=DIRECTIONS,
    templates=(
        "does the {a} move left, right, up or down?",
        "is the {a} moving left, right, up or down?",
        "which way does the {a} go, left, right, up or down?",
    ),
    pose=_pose,
    wish=lambda target: Wish(motions=(target,)),
)
