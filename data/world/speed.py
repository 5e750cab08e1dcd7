"""speed: which of two things moves faster."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from entropy_vision.question import Answer

from .cast import extents, few_or_many, moving_layout, placed, scene_names, slots_of, straight, thing_sizes
from .family import Ask, StagedFamily
from .layout import PATH_RANGE, Tracked
from .shared import LayoutStage, longer
from .stage import Setting
from .words import hundredths, number_words

_FARTHEST = 0.46  # of a path, as a fraction of the frame


@dataclass(frozen=True)
class Race:
    """Two things on their way, and others.

    Attributes:
        layout: thing 0 is mentioned first, thing 1 second.
        paths, steps: of both: how far, in how many frame steps.
    """

    layout: Tracked
    paths: tuple[float, ...]
    steps: tuple[int, ...]

    @property
    def speeds(self) -> tuple[float, float]:
        """Of the thing mentioned first and second, in sides of the frame a frame step."""
        first, second = (path / count for path, count in zip(self.paths, self.steps, strict=True))
        return first, second

    @property
    def steps_told(self) -> str:
        """How far each went and in how many frames: "red 24 in 9 ; blue 11 in 3"."""
        return " ; ".join(f"{self.layout.names[k]} {hundredths(self.paths[k])} in {self.steps[k]}" for k in (0, 1))

    @property
    def facts(self) -> dict[str, list[list[float]]]:
        """[width, height] of every box before an edge cuts it: what the boxes alone do not always tell."""
        return {"extents": extents(self.layout)}

    @property
    def needs(self) -> tuple[tuple[int, int, int], ...]:
        """Both, as long as they are seen."""
        starts = [sprite.onset for sprite in self.layout.sprites[:2]]
        return tuple((k, start, start + self.steps[k] + 1) for k, start in enumerate(starts))


@lru_cache
def _stretches(frame_count: int) -> tuple[tuple[float, int, int], ...]:
    """Pairs of frame steps (long, short), with the logarithm of their ratio in front."""
    shortest = 1 + frame_count // 8
    pairs = ((a, b) for a in range(2, frame_count) for b in range(min(shortest, a - 1), a))
    return tuple((math.log(a / b), a, b) for a, b in pairs)


def durations(rng: np.random.Generator, frame_count: int, least: float, most: float) -> tuple[float, int, int]:
    """A pair of frame steps whose ratio's logarithm lies in least..most, or else is next above or the largest."""
    pairs = _stretches(frame_count)
    good = [pair for pair in pairs if least <= pair[0] <= most]
    if not good:
        good = [min((pair for pair in pairs if pair[0] >= least), default=max(pairs))]
    return good[int(rng.integers(len(good)))]


def draw_race(
    rng: np.random.Generator, setting: Setting, gap: float, widest: float, first_is_faster: bool, long_is_faster: bool
) -> Race | None:
    """Two speeds whose logarithms differ by `gap`, one of those up to `widest`; None where the things would meet.

    One thing is seen longer and also goes farther, and is the faster one where `long_is_faster`: drawn by a fair coin,
    neither the time nor the way alone tells anything. Both times are drawn without knowing the gap.
    """
    frame_count = longer(setting)
    d = setting.difficulty
    stretch, long, short = durations(rng, frame_count, widest + 0.05, widest + 0.25 + 0.3 * d)
    path = (0.16 - 0.08 * d) * float(rng.uniform(0.85, 1.0))
    path = min(path, _FARTHEST / math.exp(stretch + widest))
    n = 2 + few_or_many(rng, setting, easiest=0, hardest=2, more=1)
    others = rng.uniform(*PATH_RANGE, n - 2)
    times = rng.integers(frame_count // 2, frame_count, n - 2)
    steps = np.array([long, short, *times.tolist()])
    paths = np.array([path * math.exp(stretch + (gap if long_is_faster else -gap)), path, *others.tolist()])
    starts = (rng.random(n) * (frame_count - steps)).astype(int)
    ways = straight(rng, paths, starts, steps, frame_count)
    for way, start, count in zip(ways, starts.tolist(), steps.tolist(), strict=True):
        way[:start] = np.nan
        way[start + count + 1 :] = np.nan
    sizes = thing_sizes(rng, setting, n, 0.9)
    sizes[1] = sizes[0]
    names = scene_names(rng, setting, n)
    tracks = placed(rng, ways, sizes)
    if tracks is None:
        return None
    # slot 0 is that of the thing that is seen longer
    first, second = (0, 1) if first_is_faster == long_is_faster else (1, 0)
    layout = moving_layout(names, slots_of((first, second), n), sizes, tracks, setting)
    own = [first, second]
    return Race(layout, tuple(paths[own].tolist()), tuple(steps[own].tolist()))


def _stage(
    family: StagedFamily, target: tuple[int, bool], setting: Setting, rng: np.random.Generator
) -> LayoutStage | None:
    position, long_is_faster = target
    gap = 0.55 - 0.4 * setting.difficulty + float(rng.uniform(0, 0.1))
    race = draw_race(rng, setting, gap, gap, position == 0, long_is_faster)
    if race is None:
        return None
    layout = race.layout
    ask = Ask(
        question=family.worded(setting, rng, *(layout.phrase(k) for k in (0, 1))),
        answer=Answer("choice", "AB"[position], options=layout.names[:2]),
        rationale=race.steps_told,
        needs=race.needs,
    )
    return LayoutStage(layout, (ask,), setting.difficulty, setting.split, race.facts)


FAMILY = StagedFamily(
    name="speed",
    media="video",
    targets=tuple((position, long) for position in (0, 1) for long in (True, False)),
    templates=(
        "which moves faster, the {a} or the {b}?",
        "is the {a} or the {b} faster?",
        "what is faster while it is seen, the {a} or the {b}?",
    ),
    held_out="of the {a} and the {b}, which one has the higher speed?",
    splits=("cogent_a", "cogent_b", "template", "more", "background"),
    stage=_stage,
    twin=lambda target: (1 - target[0], target[1]),
    words=(*number_words(), "in"),
)
