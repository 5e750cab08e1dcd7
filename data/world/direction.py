"""direction: which way a thing moves on the torus; no single frame tells."""

from __future__ import annotations

import numpy as np

from entropy_vision.question import Answer

from .family import Ask, LayoutFamily, letter, pick
from .layout import DIRECTIONS, Layout, Wish
from .words import cell_word, line_word, time_word


def first_and_last(layout: Layout, k: int) -> str:
    """Where sprite k is when it is first and last seen: "red t1 r3c4 ; t8 r3c7"."""
    count, first = layout.frame_count, layout.sprites[k].onset
    start, end = (
        f"{time_word(frame, count)} {cell_word(*layout.tracks[k, frame].tolist())}" for frame in (first, count - 1)
    )
    return f"{layout.names[k]} {start} ; {end}"


def way(layout: Layout, k: int) -> str:
    """The line in which sprite k starts and ends, of the axis along which it moves, or "c4 c4" where it is still.

    Two of six words tell a direction, and whether it moved at all; from two of all places a small policy hardly ever
    learned either (a thing may leave at one edge and come back at the other: it is no matter of larger or smaller).
    """
    vertical = layout.sprites[k].motion in ("up", "down")
    ends = layout.tracks[k, [layout.sprites[k].onset, layout.frame_count - 1], int(vertical)]
    return " ".join(line_word("r" if vertical else "c", float(at)) for at in ends)


def _pose(family: LayoutFamily, layout: Layout, target: str, rng: np.random.Generator) -> Ask | None:
    fitting = [k for k, s in enumerate(layout.sprites) if s.motion == target]
    if not fitting:
        return None
    k = pick(rng, fitting)
    return Ask(
        question=family.question(rng, layout.phrase(k)),
        answer=Answer("choice", letter(DIRECTIONS, target), options=DIRECTIONS),
        rationale=f"{first_and_last(layout, k)} ; {way(layout, k)}",
        needs=((k, layout.sprites[k].onset),),
    )


FAMILY = LayoutFamily(
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
