"""quadrant: in which quarter of the picture a thing is."""

from __future__ import annotations

import numpy as np

from entropy_vision.question import Answer

from .family import Ask, LayoutFamily, letter, pick
from .layout import Layout, mirrored
from .words import cell_word

OPTIONS = ("top left", "top right", "bottom left", "bottom right")
MARGIN = 0.05  # how far the centre stays from both middle lines, as a fraction of the frame


def _quarter(x: float, y: float) -> str | None:
    if min(abs(x - 0.5), abs(y - 0.5)) < MARGIN:
        return None
    return f"{'top' if y < 0.5 else 'bottom'} {'left' if x < 0.5 else 'right'}"


def _pose(family: LayoutFamily, layout: Layout, target: str, rng: np.random.Generator) -> Ask | None:
    fitting = [k for k, s in enumerate(layout.sprites) if _quarter(s.x, s.y) == target]
    if not fitting:
        return None
    k = pick(rng, fitting)
    return _ask(layout, k, target, family.question(rng, layout.phrase(k)))


def _ask(layout: Layout, k: int, target: str, question: str) -> Ask:
    return Ask(
        question=question,
        answer=Answer("choice", letter(OPTIONS, target), options=OPTIONS),
        rationale=f"{layout.names[k]} {cell_word(layout.sprites[k].x, layout.sprites[k].y)}",
        needs=((k, 0),),
    )


def _twin(layout: Layout, ask: Ask) -> tuple[Layout, Ask]:
    """The mirror image: left for right."""
    twin = mirrored(layout, upside_down=False)
    return twin, _ask(twin, ask.needs[0][0], OPTIONS["ABCD".index(ask.answer.value) ^ 1], ask.question)


FAMILY = LayoutFamily(
    name="quadrant",
    media="image",
    targets=OPTIONS,
    templates=(
        "is the {a} at the top left, top right, bottom left or bottom right?",
        "where is the {a}, top left, top right, bottom left or bottom right?",
        "which corner is the {a} in, top left, top right, bottom left or bottom right?",
    ),
    held_out="which corner is the {a} at, bottom left, bottom right, top left or top right?",
    pose=_pose,
    twin=_twin,
)
