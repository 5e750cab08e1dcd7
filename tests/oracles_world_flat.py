"""Slow obvious truths about the families on flat things: question, boxes and `meta` give the answer's text.

Nothing of the generator is used, and hidden frames (NaN) are nowhere needed: evidence alone is enough to read.
"""

from __future__ import annotations

import json
import re

import numpy as np
from oracles_world import COLORS, SHAPES, answer_from_objects, centres

from entropy_vision.question import Item, SceneObject

_NAME = re.compile(rf"\b({'|'.join(COLORS)})\b(?: ({'|'.join(SHAPES)}))?")
_SIDES = re.compile(r"\b(left|right|above|below)\b")
_BEND = 1e-4  # of a step between frames, in sides of the frame: far above rounding, far below any collision


def answer_text(item: Item) -> str:
    """What an observer who sees everything would write between the answer tags."""
    if item.family in READ:
        return READ[item.family](item)
    told = answer_from_objects(item)
    if item.answer.kind == "choice":
        return "ABCD"[item.answer.options.index(str(told))]
    return {True: "yes", False: "no"}[told] if isinstance(told, bool) else str(told)


def named_in(item: Item, text: str) -> list[SceneObject]:
    """The things a text names, in the order of mention; each name must fit exactly one."""
    found = []
    for color, shape in _NAME.findall(text):
        fits = [thing for thing in item.objects if thing.color == color and shape in ("", thing.shape)]
        assert len(fits) == 1, f"{item.key}: {color} {shape} names {len(fits)} things"
        found.append(fits[0])
    return found


def called(item: Item, thing: SceneObject) -> str:
    """The shortest name that fits this thing alone."""
    alone = sum(other.color == thing.color for other in item.objects) == 1
    return thing.color if alone else f"{thing.color} {thing.shape}"


def seen(thing: SceneObject) -> np.ndarray:
    """Frames in which a thing can be seen."""
    return np.flatnonzero(~np.isnan(thing.boxes[:, 0]))


def true_centres(item: Item, thing: SceneObject) -> np.ndarray:
    """[F, 2] middles as they would be if no edge cut the boxes: the side that is cut lies a full extent away."""
    (k,) = [k for k, other in enumerate(item.objects) if other is thing]
    full = np.array(item.meta["extents"][k])
    low, high = thing.boxes[:, :2].astype(float), thing.boxes[:, 2:].astype(float)
    return np.where(low <= 0, high - full / 2, np.where(high >= 1, low + full / 2, (low + high) / 2))


def steps(item: Item, thing: SceneObject) -> np.ndarray:
    """[F - 1, 2] from frame to frame, the shorter way round the torus; NaN where it is hidden in one of them."""
    way = np.diff(true_centres(item, thing), axis=0)
    return way - np.rint(way)


def triple(item: Item) -> tuple[SceneObject, SceneObject, SceneObject]:
    """What is measured from, what is mentioned first of the two others, and the second."""
    things = named_in(item, item.question)
    text = item.question
    distinct = list({id(thing): thing for thing in things}.values())
    assert len(distinct) == 3
    if re.search(r"^(which is closer|what lies|seen from|how many times|divide)", text):
        if text.startswith(("which is closer", "what lies")):
            return distinct[0], distinct[1], distinct[2]
        return distinct[0], distinct[1], distinct[2]
    if re.search(r"^(is the|of the)", text):
        return distinct[2], distinct[0], distinct[1]
    if text.startswith("what is the distance"):
        return distinct[1], distinct[0], distinct[2]
    assert text.startswith("with the")
    return distinct[1], distinct[2], distinct[0]


def _lengths(item: Item) -> tuple[float, float]:
    origin, first, second = (centres(thing)[0].astype(float) for thing in triple(item))
    return float(np.hypot(*(first - origin))), float(np.hypot(*(second - origin)))


def _distance(item: Item) -> str:
    first, second = _lengths(item)
    return "A" if first < second else "B"


def _distance_ratio(item: Item) -> str:
    first, second = _lengths(item)
    return f"{first / second:.4f}"


def _order(item: Item) -> str:
    things = sorted(named_in(item, item.question), key=lambda thing: float(centres(thing)[0, 0]))
    return json.dumps([called(item, thing) for thing in things])


def _appear_order(item: Item) -> str:
    things = named_in(item, item.answer.options[0])
    told = ", ".join(called(item, thing) for thing in sorted(things, key=lambda thing: int(seen(thing)[0])))
    assert all(option in item.question for option in item.answer.options)
    return "ABCD"[item.answer.options.index(told)]


def _last_left(item: Item) -> str:
    last = max(named_in(item, item.question), key=lambda thing: int(seen(thing)[-1]))
    return "ABC"[item.answer.options.index(called(item, last))]


def _speeds(item: Item) -> tuple[float, float]:
    """Sides of the frame a frame step, of the two things in the order in which the answer speaks of them."""
    things = named_in(item, item.question)
    if item.question.startswith(("how many times as fast", "if the", "with the")):
        things.reverse()
    ways = [steps(item, thing) for thing in things]
    counts = [int((~np.isnan(way[:, 0])).sum()) for way in ways]
    assert min(counts) > 0, f"{item.key}: seen in one frame only"
    first, second = (float(np.hypot(*np.nansum(way, axis=0))) / n for way, n in zip(ways, counts, strict=True))
    return first, second


def _speed(item: Item) -> str:
    first, second = _speeds(item)
    return "A" if first > second else "B"


def _speed_ratio(item: Item) -> str:
    first, second = _speeds(item)
    return f"{first / second:.4f}"


def _collisions(item: Item) -> str:
    """Every collision bends two ways, and nothing else bends one."""
    bent = 0
    for thing in item.objects:
        bends = np.hypot(*np.diff(steps(item, thing), axis=0).T)
        bent += bool((np.nan_to_num(bends) > _BEND).any())
    assert bent % 2 == 0
    return str(bent // 2)


def _chain(item: Item) -> str:
    at = named_in(item, item.question)[-1]
    for side in reversed(_SIDES.findall(item.question)):
        on_side = []
        for thing in item.objects:
            dx, dy = (centres(thing)[0] - centres(at)[0]).tolist()
            along, beside = {"left": (-dx, dy), "right": (dx, dy), "above": (-dy, dx), "below": (dy, dx)}[side]
            if thing is not at and along > abs(beside):
                on_side.append(thing)
        assert len(on_side) == 1, f"{item.key}: {len(on_side)} things {side}"
        (at,) = on_side
    return at.color


READ = {
    "distance": _distance,
    "distance_ratio": _distance_ratio,
    "order": _order,
    "appear_order": _appear_order,
    "last_left": _last_left,
    "speed": _speed,
    "speed_ratio": _speed_ratio,
    "collisions": _collisions,
    "chain": _chain,
}


def text_from_rationale(item: Item) -> str:
    """The answer by reading the question and the rationale only: the chain must be enough to go on."""
    parts = item.rationale.split(" ; ")
    if item.family == "collisions":
        return "0" if parts == ["none"] else str(len(parts))
    if item.family == "chain":
        return parts[-1]
    if item.family == "order":
        rows = [part.rsplit(" ", 1) for part in parts]
        return json.dumps([name for name, _ in sorted(rows, key=lambda row: int(row[1]))])
    if item.family in ("appear_order", "last_left"):
        names = [name for name, _ in sorted((p.rsplit(" ", 1) for p in parts), key=lambda row: int(row[1][1:]))]
        told = ", ".join(names) if item.family == "appear_order" else names[-1]
        return "ABCD"[item.answer.options.index(told)]
    if item.family in ("speed", "speed_ratio"):
        (a, m), (b, n) = (map(int, re.search(r"(\d+) in (\d+)$", part).groups()) for part in parts)  # type: ignore[union-attr]
        ratio = (a / m) / (b / n)
        return f"{ratio:.3f}" if item.family == "speed_ratio" else "AB"[ratio < 1]
    first, second = (int(part.rsplit(" ", 1)[1]) for part in parts[1:])
    return f"{first / second:.3f}" if item.family == "distance_ratio" else "AB"[first > second]
