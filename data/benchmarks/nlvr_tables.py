"""NLVR scenes as arrays, and every template question answered on all of them at once.

A program is a tuple of words, (family, …); `solve` gives its answer on S scenes as int [S], an index into the family's
answers (for counts the number itself), -1 where the question does not arise. The tests answer the same programs scene
by scene from the raw JSON.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations, product

import numpy as np

from .nlvr_boxes import SHAPES, SIDE, Scene

Program = tuple[str, ...]

COLORS = ("yellow", "black", "blue")
PLACES = ("left", "middle", "right")
ANY, ALL = "any", "all"
_APART = 5  # pixels between two middles, less is neither left nor right


@dataclass(frozen=True)
class Tables:
    """S scenes.

    Attributes:
        count, touching: int [S, box, color, shape], of all things and of those at a wall of their box.
        x2, y2: int [S, box, color, shape], twice the middle of the only thing of a kind; 0 where there is not one.
        tower: bool [S], only squares of 20 on top of each other.
        top, bottom: int [S, box], the colour of a tower's ends; -1 for an empty box.
    """

    count: np.ndarray
    touching: np.ndarray
    x2: np.ndarray
    y2: np.ndarray
    tower: np.ndarray
    top: np.ndarray
    bottom: np.ndarray

    @classmethod
    def of(cls, scenes: Sequence[Scene]) -> Tables:
        """The arrays of some scenes."""
        count = np.zeros((len(scenes), 3, 3, 3), np.int64)
        touching, x2, y2 = np.zeros_like(count), np.zeros_like(count), np.zeros_like(count)
        tower = np.ones(len(scenes), bool)
        top, bottom = np.full((len(scenes), 3), -1), np.full((len(scenes), 3), -1)
        for s, scene in enumerate(scenes):
            for b, things in enumerate(scene):
                for t in things:
                    at = s, b, COLORS.index(t.color), SHAPES.index(t.shape)
                    count[at] += 1
                    touching[at] += 0 in (t.x, t.y) or SIDE in (t.x + t.size, t.y + t.size)
                    x2[at], y2[at] = 2 * t.x + t.size, 2 * t.y + t.size
                    tower[s] &= (t.shape, t.size, t.x) == ("square", 20, 40)
                if things:
                    ends = sorted(things, key=lambda t: t.y)
                    top[s, b], bottom[s, b] = COLORS.index(ends[0].color), COLORS.index(ends[-1].color)
        once = count == 1
        return cls(count, touching, x2 * once, y2 * once, tower, top, bottom)


def programs() -> Iterator[Program]:
    """Every question there is."""
    for color, shape, place in product((*COLORS, ANY), (*SHAPES, ANY), (*PLACES, ALL)):
        yield "count", color, shape, place
        yield "touching", color, shape, place
    for color, shape, place in product(COLORS, SHAPES, (*PLACES, ALL)):
        yield "exists", color, shape, place
    for place in PLACES:
        yield "height", place
        yield from (("end", end, place) for end in ("top", "bottom"))
        yield from (("color", shape, place) for shape in SHAPES)
        yield from (("shape", color, place) for color in COLORS)
    yield from (("where", color, shape) for color, shape in product(COLORS, (*SHAPES, ANY)))
    yield from (("most", color) for color in (*COLORS, ANY))
    yield from (("more", a, b) for a, b in permutations(COLORS, 2))
    kinds = list(product(COLORS, SHAPES))
    for (a, b), place, relation in product(permutations(kinds, 2), PLACES, ("left", "above")):
        yield "relation", *a, *b, place, relation


def solve(program: Program, tables: Tables) -> np.ndarray:
    """int [S]: the answer on every scene."""
    family, *words = program
    answers: np.ndarray = _SOLVERS[family](tables, *words)
    return answers


def _chosen(counts: np.ndarray, color: str, shape: str, place: str) -> np.ndarray:
    """int [S]: how many things of a kind there are at a place."""
    boxes = slice(None) if place == ALL else [PLACES.index(place)]
    colors = slice(None) if color == ANY else [COLORS.index(color)]
    shapes = slice(None) if shape == ANY else [SHAPES.index(shape)]
    summed: np.ndarray = counts[:, boxes][:, :, colors][:, :, :, shapes].sum(axis=(1, 2, 3))
    return summed


def _count(tables: Tables, color: str, shape: str, place: str) -> np.ndarray:
    return _chosen(tables.count, color, shape, place)


def _touching(tables: Tables, color: str, shape: str, place: str) -> np.ndarray:
    # of a tower only the lowest block touches: another question than it seems
    return np.where(tables.tower, -1, _chosen(tables.touching, color, shape, place))


def _exists(tables: Tables, color: str, shape: str, place: str) -> np.ndarray:
    return (_chosen(tables.count, color, shape, place) > 0).astype(np.int64)


def _height(tables: Tables, place: str) -> np.ndarray:
    return np.where(tables.tower, _chosen(tables.count, ANY, ANY, place), -1)


def _end(tables: Tables, end: str, place: str) -> np.ndarray:
    ends = tables.top if end == "top" else tables.bottom
    high = _chosen(tables.count, ANY, ANY, place) > 1
    return np.where(tables.tower & high, ends[:, PLACES.index(place)], -1)


def _color(tables: Tables, shape: str, place: str) -> np.ndarray:
    kinds = tables.count[:, PLACES.index(place), :, SHAPES.index(shape)]
    return np.where(kinds.sum(axis=1) == 1, kinds.argmax(axis=1), -1)


def _shape(tables: Tables, color: str, place: str) -> np.ndarray:
    kinds = tables.count[:, PLACES.index(place), COLORS.index(color)]
    return np.where(~tables.tower & (kinds.sum(axis=1) == 1), kinds.argmax(axis=1), -1)


def _where(tables: Tables, color: str, shape: str) -> np.ndarray:
    boxes = np.stack([_chosen(tables.count, color, shape, place) for place in PLACES], axis=1)
    return np.where(boxes.sum(axis=1) == 1, boxes.argmax(axis=1), -1)


def _most(tables: Tables, color: str) -> np.ndarray:
    boxes = np.stack([_chosen(tables.count, color, ANY, place) for place in PLACES], axis=1)
    alone = (boxes == boxes.max(axis=1, keepdims=True)).sum(axis=1) == 1
    return np.where(alone, boxes.argmax(axis=1), -1)


def _more(tables: Tables, a: str, b: str) -> np.ndarray:
    return (_chosen(tables.count, a, ANY, ALL) > _chosen(tables.count, b, ANY, ALL)).astype(np.int64)


def _relation(tables: Tables, color: str, shape: str, other: str, its: str, place: str, relation: str) -> np.ndarray:
    box = PLACES.index(place)
    first = (slice(None), box, COLORS.index(color), SHAPES.index(shape))
    second = (slice(None), box, COLORS.index(other), SHAPES.index(its))
    middles = tables.x2 if relation == "left" else tables.y2
    gap = middles[second] - middles[first]
    asked = (tables.count[first] == 1) & (tables.count[second] == 1) & (np.abs(gap) >= 2 * _APART)
    return np.where(asked, (gap > 0).astype(np.int64), -1)


_SOLVERS: Mapping[str, Callable[..., np.ndarray]] = {
    "count": _count,
    "touching": _touching,
    "exists": _exists,
    "height": _height,
    "end": _end,
    "color": _color,
    "shape": _shape,
    "where": _where,
    "most": _most,
    "more": _more,
    "relation": _relation,
}
