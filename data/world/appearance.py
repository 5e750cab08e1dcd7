"""appearance: which of two things, both absent at the start, appears first."""

from __future__ import annotations

import numpy as np

from entropy_vision.question import Answer

from .family import Ask, LayoutFamily, pick
from .layout import Layout, Wish
from .words import time_word


def _pose(family: LayoutFamily, layout: Layout, target: int, rng: np.random.Generator) -> Ask | None:
    count = layout.frame_count
    late = [(k, time_word(s.onset, count)) for k, s in enumerate(layout.sprites) if s.onset > 0]
    # target 0: the thing named first is the earlier one
    pairs = [(i, j) for i, t in late for j, u in late if (t < u if target == 0 else u < t)]
    if not pairs:
        return None
    pair = pick(rng, pairs)
    earlier_first = sorted(pair, key=lambda k: layout.sprites[k].onset)
    steps = (f"{layout.names[k]} {time_word(layout.sprites[k].onset, count)}" for k in earlier_first)
    options = tuple(layout.names[k] for k in pair)
    return Ask(
        question=family.question(rng, layout.phrase(pair[0]), layout.phrase(pair[1])),
        answer=Answer("choice", "AB"[target], options=options),
        rationale=" ; ".join(steps),
        needs=tuple((k, layout.sprites[k].onset) for k in pair),
    )


FAMILY = LayoutFamily(
    name="appearance",
    media="video",
    targets=(0, 1),
    templates=(
        "which appeared first, the {a} or the {b}?",
        "what came first, the {a} or the {b}?",
        "did the {a} or the {b} appear first?",
    ),
    pose=_pose,
    twice=False,  # two late things allow one pair
    wish=lambda target: Wish(late=2),
)
