"""last_left: which of three things vanishes last."""

from __future__ import annotations

from itertools import permutations

import numpy as np

from entropy_vision.question import Answer

from .appear_order import ASKED, draw_comings
from .cast import listed, moving_layout, placed, scene_names
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
    layout = moving_layout([*(names[k] for k in target), *names[ASKED:]], sizes, tracks, setting)
    said = [target.index(k) for k in range(ASKED)]
    first_to_last = range(ASKED - 1, -1, -1)
    ask = Ask(
        question=family.worded(setting, rng, listed([f"the {layout.phrase(k)}" for k in said], "or")),
        answer=Answer("choice", "ABC"[target[0]], options=tuple(layout.names[k] for k in said)),
        rationale=" ; ".join(f"{layout.names[k]} {time_word(leaves[k] - 1, count)}" for k in first_to_last),
        needs=tuple((k, 0, leaves[k]) for k in range(ASKED)),
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
    words=(",",),
)
