"""appearance: which of two things, both absent at the start, appears first."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from entropy_vision.question import Answer

from .family import Ask, LayoutFamily, pick
from .layout import Layout, Wish
from .words import time_word


def _pose(family: LayoutFamily, layout: Layout, target: int, rng: np.random.Generator) -> Ask | None:
    count = layout.frame_count
    # one that appears under another is not seen to appear
    seen = [(k, s) for k, s in enumerate(layout.sprites) if s.onset > 0 and layout.clear(k)[s.onset]]
    late = [(k, time_word(s.onset, count)) for k, s in seen]
    # target 0: the thing named first is the earlier one
    pairs = [(i, j) for i, t in late for j, u in late if (t < u if target == 0 else u < t)]
    if not pairs:
        return None
    pair = pick(rng, pairs)
    return _ask(layout, pair, family.question(rng, layout.phrase(pair[0]), layout.phrase(pair[1])))


def _ask(layout: Layout, pair: tuple[int, int], question: str) -> Ask:
    first, second = sorted(pair, key=lambda k: layout.sprites[k].onset)
    steps = (f"{layout.names[k]} {time_word(layout.sprites[k].onset, layout.frame_count)}" for k in (first, second))
    return Ask(
        question=question,
        answer=Answer("choice", "AB"[pair.index(first)], options=tuple(layout.names[k] for k in pair)),
        rationale=" ; ".join(steps),
        needs=tuple((k, layout.sprites[k].onset) for k in pair),
    )


def _twin(layout: Layout, ask: Ask) -> tuple[Layout, Ask]:
    """The two things change colour and shape."""
    i, j = (need[0] for need in ask.needs)
    sprites = list(layout.sprites)
    for k, other in ((i, layout.sprites[j]), (j, layout.sprites[i])):
        sprites[k] = replace(sprites[k], color=other.color, shape=other.shape)
    twin = replace(layout, sprites=tuple(sprites))
    return twin, _ask(twin, (j, i), ask.question)


FAMILY = LayoutFamily(
    name="appearance",
    media="video",
    targets=(0, 1),
    templates=(
        "which appeared first, the {a} or the {b}?",
        "what came first, the {a} or the {b}?",
        "did the {a} or the {b} appear first?",
    ),
    held_out="the {a} or the {b}, which came first?",
    pose=_pose,
    twin=_twin,
    twice=False,  # two late things allow one pair
    wish=lambda target: Wish(late=2),
)
