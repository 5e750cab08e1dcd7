"""appear_order: in which of four orders three things first appear."""

from __future__ import annotations

import numpy as np

from entropy_vision.question import Answer

from .cast import drifting, few_or_many, moving_layout, placed, scene_names, slots_of, thing_sizes
from .family import Ask, StagedFamily
from .shared import LayoutStage, longer
from .stage import Setting
from .words import time_word

ASKED = 3


def draw_times(rng: np.random.Generator, setting: Setting, frame_count: int) -> list[int] | None:
    """Three frames of the first half after frame 0 in growing order, in different eighths; closer where it is harder.

    In a video of under eight frames the half is too short: any frames after 0. None where two are in one eighth.
    """
    last = (frame_count - 1) // 2 if frame_count >= 8 else frame_count - 1
    gap = int((3 - 2 * setting.difficulty) * setting.frame_count / 16 + rng.random())
    gap = max(1, min(gap, (last - 1) // 2))
    free = rng.permutation(last - 2 * (gap - 1))[:ASKED]
    times = [1 + int(t) + k * (gap - 1) for k, t in enumerate(np.sort(free))]
    return times if len({time_word(t, frame_count) for t in times}) == ASKED else None


def draw_comings(
    rng: np.random.Generator, setting: Setting
) -> tuple[list[int], np.ndarray, list[float], list[int]] | None:
    """Ways [n, F, 2] (NaN before a thing appears), sizes, and the frames in which the first three slots appear.

    The others are there from the start or appear at any time of the first half.
    """
    frame_count = longer(setting)
    times = draw_times(rng, setting, frame_count)
    n = ASKED + few_or_many(rng, setting, easiest=0, hardest=2, more=1)
    sizes = thing_sizes(rng, setting, n, 1.05)
    ways = drifting(rng, n, frame_count)
    others = rng.integers(0, (frame_count + 1) // 2, n - ASKED).tolist()
    if times is None:
        return None
    onsets = [*times, *others]
    for way, onset in zip(ways, onsets, strict=True):
        way[:onset] = np.nan
    return times, ways, sizes, onsets


def orders(rng: np.random.Generator) -> list[tuple[int, ...]]:
    """Four of the six orders of three things: two and the reverse of each, each reverse two places after.

    The even and the odd permutations are the two cosets of the cyclic group of order 3; an order and its reverse lie in
    different ones, so leaving out one pair takes one of each. Of the four, every one has the same distances to the
    other three (one swap of neighbours, two, three), and for every place one thing stands there twice, two once, with
    equal sums: none is most like the others.
    """
    first, second, third = rng.permutation(ASKED).tolist()
    p, q = (first, second, third), (second, first, third)
    return [p, q, p[::-1], q[::-1]]


def _stage(family: StagedFamily, target: int, setting: Setting, rng: np.random.Generator) -> LayoutStage | None:
    choices = orders(rng)
    drawn = draw_comings(rng, setting)
    if drawn is None:
        return None
    times, ways, sizes, _ = drawn
    names = scene_names(rng, setting, len(ways))
    tracks = placed(rng, ways, sizes)
    if tracks is None:
        return None
    order = choices[target]
    layout = moving_layout(names, slots_of(order, len(names)), sizes, tracks, setting)
    options = tuple(", ".join(layout.names[k] for k in choice) for choice in choices)
    count = layout.frame_count
    ask = Ask(
        question=family.worded(setting, rng, f"{'; '.join(options[:-1])}; or {options[-1]}"),
        answer=Answer("choice", "ABCD"[target], options=options),
        rationale=" ; ".join(f"{layout.names[k]} {time_word(t, count)}" for k, t in zip(order, times, strict=True)),
        needs=tuple(zip(order, times, strict=True)),
    )
    return LayoutStage(layout, (ask,), setting.difficulty, setting.split)


FAMILY = StagedFamily(
    name="appear_order",
    media="video",
    targets=(0, 1, 2, 3),
    templates=(
        "in which order do these first appear: {a}?",
        "which order did they appear in: {a}?",
        "things appear one after another, in which order: {a}?",
    ),
    held_out="what is the order of appearing: {a}?",
    splits=("cogent_a", "cogent_b", "template", "more", "background"),
    stage=_stage,
    twin=lambda target: (target + 2) % 4,
    words=(",", ";", "or"),
)
