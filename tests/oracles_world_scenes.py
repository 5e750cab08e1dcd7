"""Slow obvious truths about the families with scenes of their own: question, objects and `meta` give the answer's text.

Nothing of the generator is used. Where the truth is a matter of seeing (what a plate says, where the camera is) it is
read from `meta`; where it is a matter of following (balls under cups, equal things) it is followed, box by box.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace

import numpy as np

from entropy_vision.question import Item, SceneObject

COLORS = ("red", "green", "blue", "yellow", "purple", "orange", "cyan", "white")
PLACES = ("first", "second", "third", "fourth", "fifth", "sixth")
OPTION_WORDS = ("added", "removed", "moved", "recoloured", "nothing")


def asked_color(item: Item) -> str:
    """The one colour that the question names."""
    (color,) = [word for word in re.findall(r"[a-z]+", item.question) if word in COLORS]
    return color


def asked(item: Item) -> int:
    """The place among the objects of the one that can be seen and has the colour that the question names."""
    color = asked_color(item)
    (at,) = [k for k, thing in enumerate(item.objects) if thing.color == color and not np.isnan(thing.boxes).all()]
    return at


def middle(box: np.ndarray) -> np.ndarray:
    """(x, y) of boxes [..., 4]."""
    return (box[..., :2] + box[..., 2:]) / 2


def answer_text(item: Item) -> str:
    """What an observer who sees everything would write between the answer tags."""
    return READ[item.family](item)


def _sign(item: Item) -> str:
    return str(item.meta["texts"][asked(item)])


def _clock(item: Item) -> str:
    hour, minute = item.meta["times"][asked(item)]
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
    over = int(np.nanargmin(np.abs(middle(cups[:, 0])[:, 0] - middle(ball.boxes[0])[0])))
    # the row fills the frame: a place is known without the other cups
    count = len(item.answer.options)
    return PLACES[int((middle(cups[over, -1])[0] - 0.07) / 0.86 * count)]


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
        at = int(np.nanargmin(np.hypot(*(spots[:, f] - spots[at, f - 1]).T)))
    return at


def _identity(item: Item) -> str:
    spots = np.stack([middle(thing.boxes) for thing in item.objects])
    rng = np.random.default_rng(0)
    # the order of the boxes within a frame must not help
    mixed = np.stack([spots[rng.permutation(len(spots)), f] for f in range(spots.shape[1])], axis=1)
    start = int(np.nanargmin(np.hypot(*(mixed[:, 0] - np.array(item.meta["ring"])).T)))
    end = mixed[follow(mixed, start), -1]
    digits = item.meta["digits"]
    return str(min(digits, key=lambda d: np.hypot(d[1] - end[0], d[2] - end[1]))[0])


def evidence_alone(item: Item) -> Item:
    """The item without the boxes whose middle lies outside evidence."""
    height, width = item.frames.pixels.shape[1:3]
    shown = []
    for thing in item.objects:
        boxes = thing.boxes.copy()
        for f, (x, y) in enumerate(middle(boxes)):
            inside = 0 <= x < 1 and 0 <= y < 1
            if not inside or not item.evidence[f, int(y * height) // 16, int(x * width) // 16]:
                boxes[f] = np.nan
        shown.append(SceneObject(color=thing.color, shape=thing.shape, boxes=boxes))
    return replace(item, objects=tuple(shown))


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


PIXELS = 224  # the size at which an observer's noise is stated


def noisy_text(item: Item, rng: np.random.Generator) -> str:
    """What an observer with a fixed noise would answer: the same noise in pixels and colours at every difficulty."""
    return NOISY.get(item.family, _noisy_sign)(item, rng)


def _noisy_sign(item: Item, rng: np.random.Generator) -> str:
    """Reads what is large and clear: an octave of noise against height and contrast; else says what may be anything."""
    at = asked(item)
    box = item.objects[at].boxes[0]
    # a clock's hands are about a sixth of its face apart
    height = float(box[3] - box[1]) * PIXELS * (0.3 if item.family == "clock" else 1.0)
    clear = np.log2(height / 9) + np.log2(item.meta["contrast"] / 25) + rng.normal(0, 1)
    return answer_text(item) if clear > 0 else "10:55" if item.family == "clock" else "10"


def _noisy_change(item: Item, rng: np.random.Generator) -> str:
    """Misses things: the smaller the more often; of several changes seen takes one."""
    kept = []
    for thing in item.objects:
        boxes = thing.boxes.copy()
        for view, box in enumerate(boxes):
            if thing.shape != "lid" and rng.normal(0, 8) > (box[2] - box[0]) * PIXELS - 12:
                boxes[view] = np.nan
        kept.append(SceneObject(color=thing.color, shape=thing.shape, boxes=boxes))
    kinds, spots, halves = [], [], []
    for thing in kept:
        if np.isnan(thing.boxes[:, 0]).all() or thing.shape == "lid":
            continue
        alone = [thing, *(o for o in kept if o.shape == "lid")]
        kind, spot = seen_change(replace(item, objects=tuple(alone)))
        if spot is not None:
            kinds.append(kind)
            spots.append(spot)
            halves.append(np.nanmax(thing.boxes[:, 2:] - thing.boxes[:, :2], axis=0) / 2)
    if item.family == "change_where":
        if not spots:
            return "[0.45, 0.45, 0.55, 0.55]"
        at = int(rng.integers(len(spots)))
        return json.dumps([round(float(edge), 3) for edge in (*(spots[at] - halves[at]), *(spots[at] + halves[at]))])
    if sorted(kinds) == ["added", "removed"] and np.abs(spots[0] - spots[1]).max() < 0.03:
        return "recoloured"
    return kinds[int(rng.integers(len(kinds)))] if kinds else "nothing"


def _noisy_cups(item: Item, rng: np.random.Generator) -> str:
    """Sees where a cup lands after each swap with a noise of 15 pixels, and takes the cup nearest to that."""
    cups = np.stack([o.boxes for o in item.objects if o.shape == "cup"])
    (ball,) = [o for o in item.objects if o.shape == "ball" and o.color == asked_color(item)]
    row = np.sort(middle(cups[:, 0])[:, 0])
    at = int(np.abs(row - middle(ball.boxes[0])[0]).argmin())
    for a, b in item.meta["swaps"]:
        if at in (a, b):
            at = b if at == a else a
            at = int(np.abs(row - (row[at] + rng.normal(0, 15) / PIXELS)).argmin())
    return PLACES[at]


def _noisy_egomotion(item: Item, rng: np.random.Generator) -> str:
    """Feels every motion of the options with a noise of 10 pixels at the edge of the frame, takes the strongest."""
    start, end = np.array(item.meta["camera"])[[0, -1]]
    c, s = np.cos(start[3]), np.sin(start[3])
    x, y = (end - start)[:2] * 2.0 ** start[2] * PIXELS
    turned, nearer = (end[3] - start[3]) * PIXELS / 2, np.log(2.0) * (end[2] - start[2]) * PIXELS / 2
    right, down = c * x + s * y, c * y - s * x
    felt = {"right": right, "left": -right, "down": down, "up": -down, "in": nearer, "out": -nearer,
            "clockwise": turned, "counterclockwise": -turned}  # fmt: skip
    return max(item.answer.options, key=lambda option: felt[option] + rng.normal(0, 10))


def _noisy_identity(item: Item, rng: np.random.Generator) -> str:
    """Follows the nearest thing where all places are seen with a noise of 12 pixels."""
    spots = np.stack([middle(thing.boxes) for thing in item.objects])
    seen = spots + rng.normal(0, 12 / PIXELS, spots.shape)
    start = int(np.hypot(*(seen[:, 0] - np.array(item.meta["ring"])).T).argmin())
    end = spots[follow(seen, start), -1]
    return str(min(item.meta["digits"], key=lambda d: np.hypot(d[1] - end[0], d[2] - end[1]))[0])


NOISY = {
    "change": _noisy_change,
    "change_where": _noisy_change,
    "cups": _noisy_cups,
    "egomotion": _noisy_egomotion,
    "identity": _noisy_identity,
}
