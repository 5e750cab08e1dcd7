"""last_left: which of three things vanishes last."""

from __future__ import annotations

from itertools import permutations

import numpy as np

from entropy_vision.question import Answer

from .appear_order import ASKED, draw_comings
from .cast import listed, moving_layout, placed, scene_names, slots_of
from .family import Ask, StagedFamily
from .shared import LayoutStage
from .stage import Setting
from .words import time_word


def _stage(
    family: StagedFamily, target: tuple[int, ...], setting: Setting, rng: np.random.Generator
) -> LayoutStage | None:
    drawn = draw_comings(rng, setting)
    if drawn is None:
        return None
    # backwards in time: what came last leaves first, and all three are there until the middle and gone at the end
    times, ways, sizes, _ = drawn
    names = scene_names(rng, setting, len(ways))
    tracks = placed(rng, ways[:, ::-1], sizes)
    if tracks is None:
        return None
    count = tracks.shape[1]
    leaves = [count - t for t in times]  # the first frame without the thing in each of three slots
    layout = moving_layout(names, slots_of(target, len(names)), sizes, tracks, setting)
    left = list(zip(target, leaves, strict=True))
    ask = Ask(
        question=family.worded(setting, rng, listed([f"the {layout.phrase(k)}" for k in range(ASKED)], "or")),
        answer=Answer("choice", "ABC"[target[0]], options=layout.names[:ASKED]),
        rationale=" ; ".join(f"{layout.names[k]} {time_word(f - 1, count)}" for k, f in reversed(left)),
        needs=tuple((k, 0, f) for k, f in left),
    )
    return LayoutStage(layout, (ask,), setting.difficulty, setting.split)


FAMILY = StagedFamily(
    name="last_left",
    media="video",
    targets=tuple(permutations(range(ASKED))),
    templates=(
        "which leaves last, {a}?",
        "what is the last to vanish, {a}?",
        "which stays longest, {a}?",
    ),
    held_out="when two of these have gone, which is still there, {a}?",
    splits=("cogent_a", "cogent_b", "template", "more", "background"),
    stage=_stage,
    twin=lambda target: target[::-1],
    words=(",", "or"),
)
