"""Two views of the same places, between which one thing may have changed. The scenes of `change` and `change_where`.

Everything shifts a little, the light changes, and each view has lids over some places, under which things may stand;
only places open in both views are anybody's business. So a plain difference of the views shows lids and light first,
and both views show equally many things, whatever happened.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from entropy_vision.question import SceneObject

from .draw import draw_sprite, paint
from .family import Ask, branch
from .ground import Ground, add_grain, draw_ground
from .layout import EXTENT, palette
from .masks import box_patches
from .stage import PATCH, Setting
from .words import SHAPES, cell_word

SIDE = 4  # places a row and a column
PLACES = SIDE * SIDE
Spot = tuple[float, float]
KINDS = ("added", "removed", "moved", "recoloured")
LID = (92, 92, 96)

_EDGE = 0.06  # of the frame, free of places on every side: what shifts stays inside
_PITCH = (1 - 2 * _EDGE) / SIDE


@dataclass(frozen=True)
class Thing:
    """One thing of one view or both.

    Attributes:
        color, shape: its look, which no other thing has.
        spots: its centre in each view (fractions), None where it is not shown.
    """

    color: str
    shape: str
    spots: tuple[Spot | None, Spot | None]


@dataclass(frozen=True)
class ViewsStage:
    """Two views of some places.

    Attributes:
        things: what is shown, in either view.
        changed: those of them that the change is about, the first view's first; none where nothing changed.
        lids: the centres of the lids of each view.
        shift: of everything in the second view.
        size: of a thing.
        paints: the colours of `things`.
        light: what all colours of the second view are multiplied by.
        watched: (view, centre of the thing's spot) of every place that one must see.
        asks: the questions.
    """

    things: tuple[Thing, ...]
    changed: tuple[Thing, ...]
    lids: tuple[tuple[Spot, ...], ...]
    shift: tuple[float, float]
    size: float
    paints: tuple[tuple[int, ...], ...]
    light: float
    ground: Ground
    difficulty: float
    watched: tuple[tuple[int, Spot], ...]
    asks: tuple[Ask, ...] = ()

    @property
    def facts(self) -> dict[str, Any]:
        """The shift of the second view, its light, the ground."""
        return {"shift": list(self.shift), "light": self.light, "ground": self.ground.kind, "move": "still"}

    def render(self, size: int, rng: np.random.Generator) -> np.ndarray:
        """uint8 [2, size, size, 3]."""
        frames = self.ground.frames(size, 2, rng, shifts=((0.0, 0.0), self.shift))
        for view, frame in enumerate(frames):
            for thing, own in zip(self.things, self.paints, strict=True):
                spot = thing.spots[view]
                if spot is not None:
                    draw_sprite(frame, thing.shape, self.size * size, spot[0] * size, spot[1] * size, own)
            for lid in self.lids[view]:
                x0, y0, x1, y1 = (round(edge * size) for edge in around(lid, 0.92 * _PITCH))
                cv2.rectangle(frame, (x0, y0), (x1 - 1, y1 - 1), LID, cv2.FILLED)
                cv2.rectangle(frame, (x0, y0), (x1 - 1, y1 - 1), (30, 30, 30), max(1, size // 112))
        cv2.convertScaleAbs(frames[1], frames[1], self.light)
        add_grain(frames, round(2 + 8 * self.difficulty), rng)
        return frames

    def objects(self) -> tuple[SceneObject, ...]:
        """Things first, then the lids of the first view and those of the second."""
        gone = (np.nan,) * 4
        found = []
        for thing in self.things:
            box = [gone if spot is None else thing_box(thing.shape, spot, self.size) for spot in thing.spots]
            found.append(SceneObject(color=thing.color, shape=thing.shape, boxes=np.array(box, np.float32)))
        for view, lids in enumerate(self.lids):
            for lid in lids:
                box = [around(lid, 0.92 * _PITCH) if k == view else gone for k in range(2)]
                found.append(SceneObject(color="grey", shape="lid", boxes=np.array(box, np.float32)))
        return tuple(found)

    def evidence(self, size: int) -> list[np.ndarray]:
        """bool [2, R, C]: the changed places in both views; every place that is open in both where nothing changed."""
        count = -(-size // PATCH)
        mask = np.zeros((2, count, count), bool)
        for view, spot in self.watched:
            mask[view] |= box_patches(around(spot, self.size + 2 / size), size)  # and its anti-aliased edge
        return [mask]


def around(centre: tuple[float, float], side: float) -> tuple[float, float, float, float]:
    """The square box of a side around a centre."""
    return centre[0] - side / 2, centre[1] - side / 2, centre[0] + side / 2, centre[1] + side / 2


def thing_box(shape: str, spot: tuple[float, float], size: float) -> tuple[float, float, float, float]:
    """The box of a shape: it ends where the shape does."""
    left, top, right, bottom = (extent * size / 2 for extent in EXTENT[shape])
    return spot[0] - left, spot[1] - top, spot[0] + right, spot[1] + bottom


def views(kind: str, place: int | None, setting: Setting, rng: np.random.Generator) -> ViewsStage:
    """Two views between which something happened (at this place, or anywhere); nothing is asked of them yet.

    One permutation of all places says which are open in both views, which in one. Each view shows n things, and they
    lie as evenly over its open places whatever happened, so that no single view tells anything.
    """
    d, more = setting.difficulty, setting.split == "more"
    lids = 2 if d < 0.5 else 3
    n = (int(rng.integers(4, 6)) + round(2 * d)) if not more else 9
    size = (0.15 - 0.05 * d) * float(rng.uniform(0.95, 1.05))
    shift = tuple((rng.choice([-1, 1], 2) * rng.uniform(0.005, 0.01 + 0.025 * d, 2)).tolist())
    light = 1 + float(rng.choice([-1, 1]) * rng.uniform(0.05, 0.1 + 0.15 * d))
    order = rng.permutation(PLACES).tolist()
    if place is not None:  # it changes roles with the one that would have changed
        other = order.index(place)
        order[0], order[other] = order[other], order[0]
    spots = _spots(size, rng)
    colors = palette(max(d, 0.6))
    own = {color: paint(color, d, rng) for color in colors}
    ground = draw_ground(rng, d, setting.split, list(own.values()))
    cast_rng = branch(rng)
    both, first, second = order[: -2 * lids], order[-2 * lids : -lids], order[-lids:]
    here, there = both[0], both[1]
    changed: list[tuple[int | None, int | None]] = {
        "added": [(None, here)],
        "removed": [(here, None)],
        "moved": [(there, here)],
        "recoloured": [(here, None), (None, here)],
    }.get(kind, [])  # type: ignore[assignment]
    gone, come = (sum(pair[view] is not None for pair in changed) for view in (0, 1))
    # things that stay; those of a view beyond these and the changed one stand where the other view has a lid. Both
    # views together show as many things whatever happened: one that moved is one, not two, so one less stays
    stay = n - int(cast_rng.integers(1, lids + 1)) - (kind == "moved")
    free = [at for at in both if all(at not in pair for pair in changed)]
    shown: list[tuple[int | None, int | None]] = [(at, at) for at in free[:stay]]
    shown += [(at, None) for at in first[: n - stay - gone]]
    shown += [(None, at) for at in second[: n - stay - come]]
    looks = _looks(len(changed), len(shown), colors, cast_rng)

    def seen(at: int, view: int) -> tuple[float, float]:
        return spots[at][0] + view * shift[0], spots[at][1] + view * shift[1]

    cast = [
        Thing(*look, (None if a is None else seen(a, 0), None if b is None else seen(b, 1)))
        for look, (a, b) in zip(looks, changed + shown, strict=True)
    ]
    things = tuple(cast[k] for k in cast_rng.permutation(len(cast)).tolist())
    watched = sorted({at for pair in changed for at in pair if at is not None}) or both
    return ViewsStage(
        things=things,
        changed=tuple(cast[: len(changed)]),
        lids=tuple(
            tuple((x + view * shift[0], y + view * shift[1]) for x, y in (_middle(at) for at in covered))
            for view, covered in enumerate((second, first))
        ),
        shift=(shift[0], shift[1]),
        size=size,
        paints=tuple(own[thing.color] for thing in things),
        light=round(light, 3),
        ground=ground,
        difficulty=d,
        watched=tuple((view, seen(at, view)) for at in watched for view in range(2)),
    )


def _looks(changed: int, shown: int, colors: tuple[str, ...], rng: np.random.Generator) -> list[tuple[str, str]]:
    """A look for everything, each once; where two are changed (recoloured), these are two colours of one shape.

    The colour after is one of those that are free, so that both views are as likely to hold any looks.
    """
    every = [(color, form) for color in colors for form in SHAPES]
    while True:
        order = [every[k] for k in rng.permutation(len(every)).tolist()]
        if changed < 2:
            return order[: changed + shown]
        before, *others = order[: 1 + shown]
        free = [look for look in order[1 + shown :] if look[1] == before[1]]
        if free:
            return [before, free[0], *others]


def _middle(at: int) -> tuple[float, float]:
    """The middle of a place in the first view."""
    return _EDGE + _PITCH * (at % SIDE + 0.5), _EDGE + _PITCH * (at // SIDE + 0.5)


def _spots(size: float, rng: np.random.Generator) -> list[tuple[float, float]]:
    """Where a thing would stand in each place: off the middle by as much as keeps it under a lid."""
    off = (rng.uniform(-1, 1, (PLACES, 2)) * (0.9 * _PITCH - size) / 2).tolist()
    return [(x + dx, y + dy) for (x, y), (dx, dy) in zip(map(_middle, range(PLACES)), off, strict=True)]


def told(stage: ViewsStage) -> str:
    """What became of the changed thing: "t1 red circle r2c3 ; t2 none"; "none" where nothing did."""
    steps = []
    for view in range(2):
        told = [(thing, thing.spots[view]) for thing in stage.changed]
        steps += [f"t{view + 1} {thing.color} {thing.shape} {cell_word(*spot)}" for thing, spot in told if spot]
        if not any(spot for _, spot in told):
            steps.append(f"t{view + 1} none")
    return " ; ".join(steps) if stage.changed else "none"
