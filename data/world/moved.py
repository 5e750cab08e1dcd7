"""moved: whether a thing moves at all."""

from __future__ import annotations

import numpy as np

from entropy_vision.question import Answer

from .direction import can_be_followed, first_and_last, way
from .family import Ask, LayoutFamily, pick
from .layout import Layout, Wish


def _pose(family: LayoutFamily, layout: Layout, target: bool, rng: np.random.Generator) -> Ask | None:
    moving = [k for k, s in enumerate(layout.sprites) if (s.motion != "still") == target]
    fitting = [k for k in moving if can_be_followed(layout, k)]
    if not fitting:
        return None
    k = pick(rng, fitting)
    return Ask(
        question=family.question(rng, layout.phrase(k)),
        answer=Answer("yesno", target),
        rationale=f"{first_and_last(layout, k)} ; {way(layout, k)}",
        needs=((k, layout.sprites[k].onset),),
    )


FAMILY = LayoutFamily(
    name="moved",
    media="video",
    targets=(True, False),
    templates=("did the {a} move?", "does the {a} move?", "does the {a} change its place?"),
    held_out="does the place of the {a} change?",
    pose=_pose,
    wish=lambda target: Wish(motions=("moving" if target else "still",)),
    words=("yes", "no"),
)
