"""count: how many things have this colour, 0 to 3."""

from __future__ import annotations

import numpy as np

from entropy_vision.question import Answer

from .family import Ask, LayoutFamily, pick
from .layout import Layout
from .words import cell_word


def _pose(family: LayoutFamily, layout: Layout, target: int, rng: np.random.Generator) -> Ask | None:
    groups = {color: [k for k, s in enumerate(layout.sprites) if s.color == color] for color in layout.palette}
    fitting = [color for color, members in groups.items() if len(members) == target]
    if not fitting:
        return None
    color = pick(rng, fitting)
    cells = sorted(cell_word(layout.sprites[k].x, layout.sprites[k].y) for k in groups[color])
    return Ask(
        question=family.question(rng, color),
        answer=Answer("integer", target),
        rationale=" ; ".join(cells) or "none",
        # that there are no more is known only of what was seen: every thing is evidence, whatever the answer
        needs=tuple((k, 0) for k in range(len(layout.sprites))),
    )


FAMILY = LayoutFamily(
    name="count",
    media="image",
    targets=(0, 1, 2, 3),
    templates=(
        "how many {a} objects are there?",
        "count the {a} objects.",
        "what is the number of {a} objects?",
        "how many things here are {a}?",
    ),
    held_out="what number of things here are {a}?",
    splits=("template", "more", "background"),  # half of the pairs lack three shapes of a colour
    pose=_pose,
    twice=False,  # few things cannot have two colours with two counts of one's choice
    words=("0", "1", "2", "3", "none"),
)
