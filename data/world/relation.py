"""relation: on which side of one thing another one is, where one axis clearly dominates."""

from __future__ import annotations

import numpy as np

from entropy_vision.question import Answer

from .family import Ask, LayoutFamily, letter, pick
from .layout import Layout, mirrored
from .words import CELLS, cell_word

OPTIONS = ("left", "right", "above", "below")


def side(ax: float, ay: float, bx: float, by: float) -> str | None:
    """Side of b on which a lies; None unless one axis dominates by a tenth of the frame and on the coarse grid."""
    dx, dy = ax - bx, ay - by
    columns = abs(int(ax * CELLS) - int(bx * CELLS))
    rows = abs(int(ay * CELLS) - int(by * CELLS))
    if abs(dx) >= max(0.2, abs(dy) + 0.1) and columns > rows:
        return "left" if dx < 0 else "right"
    if abs(dy) >= max(0.2, abs(dx) + 0.1) and rows > columns:
        return "above" if dy < 0 else "below"
    return None


def _pose(family: LayoutFamily, layout: Layout, target: str, rng: np.random.Generator) -> Ask | None:
    things = list(enumerate(layout.sprites))
    pairs = [(i, j) for i, a in things for j, b in things if i != j and side(a.x, a.y, b.x, b.y) == target]
    if not pairs:
        return None
    i, j = pick(rng, pairs)
    return _ask(layout, (i, j), target, family.question(rng, layout.phrase(i), layout.phrase(j)))


def _ask(layout: Layout, pair: tuple[int, int], target: str, question: str) -> Ask:
    steps = (f"{layout.names[k]} {cell_word(layout.sprites[k].x, layout.sprites[k].y)}" for k in pair)
    return Ask(
        question=question,
        answer=Answer("choice", letter(OPTIONS, target), options=OPTIONS),
        rationale=" ; ".join(steps),
        needs=tuple((k, 0) for k in pair),
    )


def _twin(layout: Layout, ask: Ask) -> tuple[Layout, Ask]:
    """The mirror image: left for right, or upside down."""
    i, j = (need[0] for need in ask.needs)
    position = "ABCD".index(ask.answer.value)
    twin = mirrored(layout, upside_down=position > 1)
    return twin, _ask(twin, (i, j), OPTIONS[position ^ 1], ask.question)


FAMILY = LayoutFamily(
    name="relation",
    media="image",
    targets=OPTIONS,
    templates=(
        "is the {a} left of, right of, above or below the {b}?",
        "where is the {a}, left of, right of, above or below the {b}?",
        "seen from the {b}, is the {a} left, right, above or below?",
    ),
    held_out="seen from the {b}, where is the {a}, left, right, above or below?",
    pose=_pose,
    twin=_twin,
)
