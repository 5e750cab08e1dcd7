"""Slow obvious truths about the World: answers read off the question's words and the objects' boxes alone.

Nothing of the generator is used: nouns are parsed from the question, motion is the sum of the shorter ways round the
torus between the centres of successive boxes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from entropy_vision.question import Item, SceneObject

COLORS = ("red", "green", "blue", "yellow", "purple", "orange", "cyan", "white")
SHAPES = ("circle", "square", "triangle", "cross", "diamond")
_NOUN = re.compile(rf"the ({'|'.join(COLORS)}) (object|{'|'.join(SHAPES)})\b")


def named(item: Item) -> list[SceneObject]:
    """The objects that the question names, in the order of mention; each noun must fit exactly one."""
    found = []
    for color, noun in _NOUN.findall(item.question):
        fits = [o for o in item.objects if o.color == color and noun in ("object", o.shape)]
        assert len(fits) == 1, f"{item.key}: {color} {noun} names {len(fits)} objects"
        found.append(fits[0])
    return found


def centres(thing: SceneObject) -> np.ndarray:
    """[F, 2] middle of the boxes, NaN where not visible."""
    return (thing.boxes[:, :2] + thing.boxes[:, 2:]) / 2


def displacement(thing: SceneObject) -> np.ndarray:
    """[2] sum of the ways between successive visible frames, each the shorter one round the torus."""
    seen = centres(thing)[~np.isnan(thing.boxes[:, 0])]
    steps = np.diff(seen, axis=0)
    return (steps - np.rint(steps)).sum(axis=0)


def answer_from_objects(item: Item) -> object:
    """The answer in words (or a number, or a bool) by looking at the objects only."""
    question, things = item.question, named(item)
    if item.family == "count":
        (color,) = [word for word in re.findall(r"[a-z]+", question) if word in COLORS]
        return sum(thing.color == color for thing in item.objects)
    if item.family == "relation":
        first, second = reversed(things) if question.startswith("seen from") else things
        return _side(*(centres(first)[0] - centres(second)[0]), "above", "below")
    if item.family == "quadrant":
        x, y = centres(things[0])[0]
        return f"{'top' if y < 0.5 else 'bottom'} {'left' if x < 0.5 else 'right'}"
    if item.family == "direction":
        return _side(*displacement(things[0]), "up", "down")
    if item.family == "moved":
        return bool(np.abs(displacement(things[0])).max() > 0.1)
    if item.family == "appearance":
        starts = [int(np.argmin(np.isnan(thing.boxes[:, 0]))) for thing in things]
        assert min(starts) > 0 and starts[0] != starts[1]
        return item.answer.options[int(starts[1] < starts[0])]
    raise AssertionError(f"no oracle for {item.family}")


def answer_from_rationale(item: Item) -> object:
    """The answer by reading the question and the rationale only: the chain must be enough to go on."""
    steps = item.rationale.split(" ; ")
    if item.family == "count":
        return 0 if steps == ["none"] else len(steps)
    if item.family == "appearance":
        return min(steps, key=lambda step: int(step[-1])).rsplit(" ", 1)[0]
    lines = steps.pop().split() if item.family in ("direction", "moved") else []
    cells = [tuple(int(n) for n in re.search(r"r(\d)c(\d)", step).groups()) for step in steps]  # type: ignore[union-attr]
    if item.family == "quadrant":
        ((row, column),) = cells
        return f"{'top' if row <= 3 else 'bottom'} {'left' if column <= 3 else 'right'}"
    (row, column), (other_row, other_column) = cells
    if item.family == "relation":
        return _side(column - other_column, row - other_row, "above", "below")
    down, right = (other_row - row + 3) % 6 - 3, (other_column - column + 3) % 6 - 3
    (axis, start), (other_axis, end) = lines
    assert axis == other_axis and lines == [
        f"{axis}{cell['rc'.index(axis)]}" for cell in ((row, column), (other_row, other_column))
    ]
    if item.family == "direction":
        way = (int(end) - int(start) + 3) % 6 - 3
        told = ("left" if way < 0 else "right") if axis == "c" else ("up" if way < 0 else "down")
        assert told == _side(right, down, "up", "down")
        return told
    assert item.family == "moved"
    assert (start != end) == ((down, right) != (0, 0))
    return start != end


def gold(item: Item) -> object:
    """The item's answer in the oracle's terms."""
    if item.answer.kind == "choice":
        return item.answer.options["ABCD".index(item.answer.value)]
    return item.answer.value


def _side(dx: float, dy: float, up: str, down: str) -> str:
    assert abs(dx) != abs(dy), "neither axis dominates"
    if abs(dx) > abs(dy):
        return "left" if dx < 0 else "right"
    return up if dy < 0 else down


def centroid_probe(features: np.ndarray, labels: Sequence[object], held: np.ndarray, truth: Sequence[object]) -> float:
    """Accuracy of a ridge classifier (one-hot targets, squared terms) trained on one set and tested on another."""
    names = sorted({str(label) for label in labels})

    def lift(x: np.ndarray) -> np.ndarray:
        pairs = [x[:, [i]] * x[:, [j]] for i in range(x.shape[1]) for j in range(i, x.shape[1])]
        return np.concatenate([np.ones((len(x), 1)), x, *pairs], axis=1)

    a = lift(features)
    targets = np.array([[str(label) == name for name in names] for label in labels], float)
    weights = np.linalg.solve(a.T @ a + 1e-2 * np.eye(a.shape[1]), a.T @ targets)
    guesses = (lift(held) @ weights).argmax(axis=1)
    return float(np.mean([names[guess] == str(label) for guess, label in zip(guesses, truth, strict=True)]))
