"""direction: which way a thing moves on the torus; no single frame tells."""

from __future__ import annotations

import numpy as np

from entropy_vision.question import Answer

from .family import Ask, LayoutFamily, letter, pick
from .layout import DIRECTIONS, Layout, Wish, mirrored
from .words import cell_word, line_word, time_word


def first_and_last(layout: Layout, k: int) -> str:
    """Where sprite k is when it is first and last seen: "red t1 r3c4 ; t8 r3c7"."""
    count, first = layout.frame_count, layout.sprites[k].onset
    start, end = (
        f"{time_word(frame, count)} {cell_word(*layout.tracks[k, frame].tolist())}" for frame in (first, count - 1)
    )
    return f"{layout.names[k]} {start} ; {end}"


def can_be_followed(layout: Layout, k: int) -> bool:
    """Whether sprite k is clear in most of the frames in which it is there. One that only passes under others is."""
    clear, there = layout.clear(k).sum(), layout.frame_count - layout.sprites[k].onset
    return bool(2 * clear > there)


def way(layout: Layout, k: int) -> str:
    """The line in which sprite k starts and ends, of the axis along which it moves, or "c4 c4" where it is still.

    Two of six words tell a direction, and whether it moved at all; from two of all places a small policy hardly ever
    learned either (a thing may leave at one edge and come back at the other: it is no matter of larger or smaller).
    """
    vertical = layout.sprites[k].motion in ("up", "down")
    ends = layout.tracks[k, [layout.sprites[k].onset, layout.frame_count - 1], int(vertical)]
    return " ".join(line_word("r" if vertical else "c", float(at)) for at in ends)


def _pose(family: LayoutFamily, layout: Layout, target: str, rng: np.random.Generator) -> Ask | None:
    fitting = [k for k, s in enumerate(layout.sprites) if s.motion == target and can_be_followed(layout, k)]
    if not fitting:
        return None
    k = pick(rng, fitting)
    return _ask(layout, k, family.question(rng, layout.phrase(k)))


def _ask(layout: Layout, k: int, question: str) -> Ask:
    return Ask(
        question=question,
        answer=Answer("choice", letter(DIRECTIONS, layout.sprites[k].motion), options=DIRECTIONS),
        rationale=f"{first_and_last(layout, k)} ; {way(layout, k)}",
        needs=((k, layout.sprites[k].onset),),
    )


def _twin(layout: Layout, ask: Ask) -> tuple[Layout, Ask]:
    """The mirror image: left for right, or upside down."""
    k = ask.needs[0][0]
    twin = mirrored(layout, upside_down=layout.sprites[k].motion in ("up", "down"))
    return twin, _ask(twin, k, ask.question)


FAMILY = LayoutFamily(
    name="direction",
    media="video",
    targets=DIRECTIONS,
    templates=(
        "does the {a} move left, right, up or down?",
        "is the {a} moving left, right, up or down?",
        "which way does the {a} go, left, right, up or down?",
    ),
    held_out="left, right, up or down, which way is the {a} moving?",
    pose=_pose,
    twin=_twin,
    wish=lambda target: Wish(motions=(target,)),
)
