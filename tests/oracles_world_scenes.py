"""Slow obvious truths about the families with scenes of their own: question, objects and `meta` give the answer's text.

Nothing of the generator is used. Where the truth is a matter of seeing (what a plate says, where the camera is) it is
read from `meta`; where it is a matter of following (balls under cups, equal things) it is followed, box by box.
"""

from __future__ import annotations

import json
import re

import numpy as np

from entropy_vision.question import Item, SceneObject

COLORS = ("red", "green", "blue", "yellow", "purple", "orange", "cyan", "white")
PLACES = ("first", "second", "third", "fourth", "fifth", "sixth")
OPTION_WORDS = ("added", "removed", "moved", "recoloured", "nothing")


def asked_color(item: Item) -> str:
    """The one colour that the question names."""
    (color,) = [word for word in re.findall(r"[a-z]+", item.question) if word in COLORS]
    return color


def middle(box: np.ndarray) -> np.ndarray:
    """(x, y) of boxes [..., 4]."""
    return (box[..., :2] + box[..., 2:]) / 2


def answer_text(item: Item) -> str:
    """What an observer who sees everything would write between the answer tags."""
    return READ[item.family](item)


def _sign(item: Item) -> str:
    (at,) = [k for k, thing in enumerate(item.objects) if thing.color == asked_color(item)]
    return str(item.meta["texts"][at])


def _clock(item: Item) -> str:
    (at,) = [k for k, thing in enumerate(item.objects) if thing.color == asked_color(item)]
    hour, minute = item.meta["times"][at]
    return f"{hour}:{minute:02d}"


def seen_change(item: Item) -> tuple[str, np.ndarray | None]:
    """What happened where both views are open, and the place of it in the second view."""
    shift = np.array(item.meta["shift"])
    lids = [[o.boxes[view] for o in item.objects if o.shape == "lid" and o.boxes[view, 0] > -9] for view in range(2)]
    things = [o for o in item.objects if o.shape != "lid"]

    def covered(spot: np.ndarray, view: int) -> bool:
        return any((lid[:2] <= spot).all() and (spot <= lid[2:]).all() for lid in lids[view])

    events: list[tuple[str, SceneObject, np.ndarray]] = []
    for thing in things:
        first, second = middle(thing.boxes)
        if np.isnan(first[0]):
            if not covered(second - shift, 0):
                events.append(("added", thing, second))
        elif np.isnan(second[0]):
            if not covered(first + shift, 1):
                events.append(("removed", thing, first + shift))
        elif np.abs(second - first - shift).max() > 0.02:
            assert not covered(second - shift, 0) and not covered(first + shift, 1)
            events.append(("moved", thing, second))
    if len(events) == 2:
        (_, before, there), (_, after, here) = sorted(events, key=lambda event: event[0] == "added")
        assert np.abs(here - there).max() < 0.02 and before.shape == after.shape and before.color != after.color
        return "recoloured", here
    assert len(events) <= 1, item.key
    return (events[0][0], events[0][2]) if events else ("nothing", None)


def _change(item: Item) -> str:
    return seen_change(item)[0]


def _change_where(item: Item) -> str:
    _, spot = seen_change(item)
    assert spot is not None
    shift = np.array(item.meta["shift"])
    for thing in item.objects:
        for view, box in enumerate(thing.boxes):
            at = box + np.tile(shift, 2) * (1 - view)
            if thing.shape != "lid" and not np.isnan(box[0]) and np.abs(middle(at) - spot).max() < 1e-5:
                found = at
    return json.dumps([round(float(edge), 3) for edge in found])


def _cups(item: Item) -> str:
    cups = np.stack([o.boxes for o in item.objects if o.shape == "cup"])
    (ball,) = [o for o in item.objects if o.shape == "ball" and o.color == asked_color(item)]
    over = int(np.abs(middle(cups[:, 0])[:, 0] - middle(ball.boxes[0])[0]).argmin())
    ends = middle(cups[:, -1])[:, 0]
    return PLACES[int((ends < ends[over] - 1e-6).sum())]


def _egomotion(item: Item) -> str:
    start, end = np.array(item.meta["camera"])[[0, -1]]
    (x, y), scale, angle = (end - start)[:2] * 2.0 ** start[2], end[2] - start[2], end[3] - start[3]
    if abs(scale) > 0.05:
        return "in" if scale > 0 else "out"
    if abs(angle) > 0.05:
        return "clockwise" if angle > 0 else "counterclockwise"
    c, s = np.cos(start[3]), np.sin(start[3])
    right, down = c * x + s * y, c * y - s * x
    if abs(right) > abs(down):
        return "right" if right > 0 else "left"
    return "down" if down > 0 else "up"


def follow(spots: np.ndarray, at: int) -> int:
    """From frame to frame to whatever is nearest: spots [n, F, 2] in which no row need be the same thing all along."""
    for f in range(1, spots.shape[1]):
        at = int(np.hypot(*(spots[:, f] - spots[at, f - 1]).T).argmin())
    return at


def _identity(item: Item) -> str:
    spots = np.stack([middle(thing.boxes) for thing in item.objects])
    rng = np.random.default_rng(0)
    # the order of the boxes within a frame must not help
    mixed = np.stack([spots[rng.permutation(len(spots)), f] for f in range(spots.shape[1])], axis=1)
    start = int(np.hypot(*(mixed[:, 0] - np.array(item.meta["ring"])).T).argmin())
    end = mixed[follow(mixed, start), -1]
    digits = item.meta["digits"]
    return str(min(digits, key=lambda d: np.hypot(d[1] - end[0], d[2] - end[1]))[0])


READ = {
    "number": _sign,
    "word": _sign,
    "static_answer": _sign,
    "clock": _clock,
    "change": _change,
    "change_where": _change_where,
    "cups": _cups,
    "egomotion": _egomotion,
    "identity": _identity,
}


def answer_from_rationale(item: Item) -> str:
    """The answer by reading question and rationale only; of a box, the cell in which it lies."""
    steps = item.rationale.split(" ; ")
    if item.family == "clock":
        return f"{steps[1].split()[1]}:{steps[2].split()[1]}"
    if item.family not in ("change", "change_where"):
        return steps[-1].split()[-1]
    if steps == ["none"]:
        return "nothing"
    first, second = (step.split()[1:] for step in steps)
    if item.family == "change_where":
        return second[-1] if second != ["none"] else first[-1]
    if first == ["none"]:
        return "added"
    if second == ["none"]:
        return "removed"
    return "moved" if first[:2] == second[:2] else "recoloured"
