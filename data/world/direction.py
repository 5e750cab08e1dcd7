"""direction: which way a thing moves on the torus; no single frame tells."""

from __future__ import annotations

import numpy as np

from entropy_vision.question import Answer

from .family import Ask, Family, letter, pick
from .layout import DIRECTIONS, Layout, Wish
from .words import cell_word, time_word


def first_and_last(layout: Layout, k: int) -> str:
    """Where sprite k is when it is first and last seen: "red t1 r3c4 ; t8 r3c7"."""
    count, first = layout.frame_count, layout.sprites[k].onset
    start, end = (
        f"{time_word(frame, count)} {cell_word(*layout.tracks[k, frame].tolist())}" for frame in (first, count - 1)
    )
    return f"{layout.names[k]} {start} ; {end}"


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
