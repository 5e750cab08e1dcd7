"""collisions: how many times discs collide, 0 to 3."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from entropy_vision.question import Answer

from .cast import moving_layout, thing_sizes
from .discs import Run, run
from .family import Ask, StagedFamily
from .layout import palette
from .shared import LayoutStage, longer
from .stage import Setting
from .words import time_word

MEETINGS = 3  # in every scene, of two discs each: those that do not collide pass each other closely
_CANDIDATES = 24  # places at which one meeting is tried, times `_ROUNDS`
_ROUNDS = 3
_MOMENTS = 33  # at which the ways of different meetings are compared


@dataclass(frozen=True, eq=False)
class Meetings:
    """Pairs of discs that come together once each; drawn before it is known which of them collide.

    Seen from a pair's middle the two come from opposite sides and pass at an offset: under 1 diameter they collide,
    above it they do not. Time, course, drift and place of a meeting are the same either way.

    Attributes:
        times: of the contact, or of the least distance, in frame steps.
        courses, across: [m, 2] unit vectors: along the way of the first of a pair, and beside it.
        speeds: of the one seen from the other, a frame step; `drifts` [m, 2] of their middle.
        hit_offsets, miss_offsets: in diameters.
        order: the meetings that collide are the first ones of this.
    """

    diameter: float
    times: np.ndarray
    courses: np.ndarray
    across: np.ndarray
    speeds: np.ndarray
    drifts: np.ndarray
    hit_offsets: np.ndarray
    miss_offsets: np.ndarray
    order: np.ndarray
    frame_count: int

    def starts(self, middles: np.ndarray, collide: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Places and velocities [2m, 2] in frame 0 of discs whose meetings have these middles."""
        offset = np.where(collide, self.hit_offsets, self.miss_offsets) * self.diameter
        # where they touch, or are closest: behind each other along the course, beside each other across it
        behind = np.sqrt(np.maximum(self.diameter**2 - offset**2, 0.0))
        half = (offset[:, None] * self.across - behind[:, None] * self.courses) / 2
        course = self.speeds[:, None] * self.courses / 2
        velocities = np.stack([self.drifts + course, self.drifts - course], axis=1)
        places = np.stack([middles + half, middles - half], axis=1) - velocities * self.times[:, None, None]
        return places.reshape(-1, 2), velocities.reshape(-1, 2)

    @property
    def ways(self) -> np.ndarray:
        """float64 [m, 4, T, 2] around the middle: of both discs where they collide, and where they do not."""
        last, count = self.frame_count - 1, len(self.times)
        moments = np.linspace(0, last, _MOMENTS)[None, :, None]
        found = []
        for collide in (True, False):
            places, velocities = self.starts(np.zeros((count, 2)), np.full(count, collide))
            ways = places[:, None] + velocities[:, None] * moments
            if collide:
                times = np.repeat(self.times, 2)[:, None, None]
                touch = (places + velocities * times[:, 0]).reshape(count, 2, 2)
                normal = (touch[:, 0] - touch[:, 1]) / self.diameter
                pace = velocities.reshape(count, 2, 2)
                passed = ((pace[:, 0] - pace[:, 1]) * normal).sum(axis=1, keepdims=True) * normal
                change = np.stack([-passed, passed], axis=1).reshape(-1, 1, 2)
                ways = ways + change * np.maximum(moments - times, 0)
            found.append(ways.reshape(count, 2, _MOMENTS, 2))
        return np.concatenate(found, axis=1)

    def middles(self, rng: np.random.Generator) -> np.ndarray | None:
        """Uniform places [m, 2] at which discs of different meetings stay apart, whichever meetings collide.

        So places tell nothing of the number of collisions. None where one meeting does not fit.
        """
        # between two moments a distance shrinks by no more than half a step of both
        pace = (self.speeds / 2 + np.hypot(*self.drifts.T)).max() * 2 * (self.frame_count - 1) / (_MOMENTS - 1)
        least = self.miss_offsets.min() * self.diameter + pace / 2
        ways = self.ways
        chosen = [rng.random(2)]
        for k in range(1, len(ways)):
            others = np.concatenate([ways[j] + chosen[j] for j in range(k)])
            for spots in rng.random((_ROUNDS, _CANDIDATES, 2)):
                away = (ways[k][None] + spots[:, None, None])[:, :, None] - others
                away -= np.rint(away)
                good = (away**2).sum(axis=4).min(axis=(1, 2, 3)) > least**2
                if good.any():
                    chosen.append(spots[int(good.argmax())])
                    break
            else:
                return None
        return np.array(chosen)


def draw_meetings(rng: np.random.Generator, setting: Setting) -> Meetings:
    """Meetings that pass each other the more closely the harder it is."""
    frame_count = longer(setting)
    last, n = frame_count - 1, MEETINGS + (setting.split == "more")
    angles = rng.uniform(0, 2 * math.pi, n)
    courses = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    margin = 0.75 - 0.5 * setting.difficulty
    return Meetings(
        diameter=thing_sizes(rng, setting, 1, 0.5)[0],
        times=rng.uniform(max(1.0, 0.25 * last), min(last - 1.0, 0.75 * last), n),  # with a frame on either side
        courses=courses,
        across=courses[:, ::-1] * (-1, 1) * rng.choice((-1.0, 1.0), (n, 1)),
        speeds=rng.uniform(0.45, 0.6, n) / last,
        drifts=rng.uniform(-0.08, 0.08, (n, 2)) / last,
        hit_offsets=rng.uniform(0.1, 0.55, n),
        miss_offsets=1 + rng.uniform(margin, margin + 0.15, n),
        order=rng.permutation(n),
        frame_count=frame_count,
    )


def _facts(meetings: Meetings, found: Run) -> dict[str, Any]:
    """Collisions [time, i, j], meetings [time, i, j, gap at the closest], and boxes before an edge cuts them."""
    met = [
        [float(meetings.times[k]), 2 * k, 2 * k + 1, float(found.closest[2 * k, 2 * k + 1]) - meetings.diameter]
        for k in range(len(meetings.times))
    ]
    sides = [[meetings.diameter, meetings.diameter]] * len(found.tracks)
    return {"contacts": [[time, i, j] for time, i, j in found.contacts], "meetings": met, "extents": sides}


def _stage(family: StagedFamily, target: int, setting: Setting, rng: np.random.Generator) -> LayoutStage | None:
    question = family.worded(setting, rng)
    meetings = draw_meetings(rng, setting)
    frame_count = meetings.frame_count
    middles = meetings.middles(rng)
    if middles is None:
        return None
    starts = meetings.starts(middles, np.isin(np.arange(len(middles)), meetings.order[:target]))
    found = run(*starts, meetings.diameter, frame_count)
    colors = palette(setting.difficulty)
    names = [(colors[k], "circle") for k in rng.integers(len(colors), size=2 * len(middles)).tolist()]
    if found is None or len(found.contacts) != target:
        raise RuntimeError(f"{target} collisions were drawn, others came about: {found and found.contacts}")
    layout = moving_layout(names, range(len(names)), [meetings.diameter] * len(names), found.tracks, setting)
    times = sorted(time for time, _, _ in found.contacts)
    needs = tuple(
        (k, max(0, math.floor(time) - 1), min(frame_count, math.ceil(time) + 2))
        for pair, time in enumerate(meetings.times.tolist())
        for k in (2 * pair, 2 * pair + 1)
    )
    ask = Ask(
        question=question,
        answer=Answer("integer", target),
        rationale=" ; ".join(time_word(int(time), frame_count) for time in times) or "none",
        needs=needs,
    )
    return LayoutStage(layout, (ask,), setting.difficulty, setting.split, _facts(meetings, found))


FAMILY = StagedFamily(
    name="collisions",
    media="video",
    targets=(0, 1, 2, 3),
    templates=(
        "how many times do two things collide?",
        "how many collisions are there?",
        "count the collisions.",
        "how often does one thing hit another?",
    ),
    held_out="what is the number of collisions?",
    splits=("template", "more", "background"),
    stage=_stage,
    twin=lambda target: target ^ 1,
    words=("0", "1", "2", "3", "none"),
)
