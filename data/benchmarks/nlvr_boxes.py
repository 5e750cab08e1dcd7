"""The drawn boxes of NLVR: three squares of 100 pixels beside each other, and where a thing is in the picture.

Sizes and colours are those of the corpus (README; measured on its pictures): a picture of 400 x 100, boxes at x = 0,
150 and 300; a thing covers exactly the square from (x_loc, y_loc) with its size as side, y pointing down.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import starmap
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from entropy_vision.errors import InputError, InputReason
from entropy_vision.frames import Frames
from entropy_vision.grid import grid_size

from .folder import Folder, Found
from .rows import BadRow

WIDTH, HEIGHT, SIDE = 400, 100, 100
LEFTS = (0, 150, 300)  # where a box begins
COLORS = {"Yellow": "yellow", "Black": "black", "#0099ff": "blue"}  # the corpus' names, and the words
SHAPES = ("square", "circle", "triangle")
_PATCH = 16

Rect = tuple[float, float, float, float]  # x0, y0, x1, y1 in pixels of the whole picture


@dataclass(frozen=True)
class Thing:
    """A drawn thing. x and y are of its top left corner, in its box."""

    shape: str
    color: str
    x: int
    y: int
    size: int


Scene = tuple[tuple[Thing, ...], ...]  # three boxes, left to right


def read_scene(structured: Any) -> Scene:
    """The boxes of a `structured_rep`.

    Raises:
        BadRow: it is not three boxes of known things that lie in them.
    """
    if not isinstance(structured, list) or len(structured) != 3 or not all(isinstance(box, list) for box in structured):
        raise BadRow("structured_rep is not three boxes")
    return tuple(tuple(map(_thing, box)) for box in structured)


def _thing(held: Any) -> Thing:
    try:
        thing = Thing(held["type"], COLORS[held["color"]], held["x_loc"], held["y_loc"], held["size"])
        inside = all(type(at) is int and 0 <= at <= SIDE - thing.size for at in (thing.x, thing.y))
    except (KeyError, TypeError):
        inside = False
    if not inside or thing.shape not in SHAPES or thing.size not in (10, 20, 30):
        raise BadRow(f"{held!r} is no thing of a box")
    return thing


def scene_key(scene: Scene) -> str:
    """16 hex digits that are the same for scenes which differ only in the order of their boxes or of what is in one."""
    boxes = (sorted((t.shape, t.color, t.x, t.y, t.size) for t in box) for box in scene)
    return hashlib.blake2b(repr(sorted(boxes)).encode(), digest_size=8).hexdigest()


def rect(box: int, thing: Thing) -> Rect:
    """What a thing covers, in a box by its place from the left."""
    left = LEFTS[box] + thing.x
    return left, thing.y, left + thing.size, thing.y + thing.size


def box_rect(box: int) -> Rect:
    """What a box covers."""
    return LEFTS[box], 0, LEFTS[box] + SIDE, SIDE


def scene_rects(scene: Scene) -> list[Rect]:
    """What everything drawn covers."""
    return list(starmap(rect, ((box, thing) for box, things in enumerate(scene) for thing in things)))


def patches_of(rects: Sequence[Rect], frames: Frames) -> np.ndarray:
    """bool [F, R, C]: the patches of 16 pixels that any of some rectangles reaches into, whatever the frames' size."""
    height, width = frames.size
    rows, columns = grid_size(height, width, _PATCH)
    mask = np.zeros((frames.count, rows, columns), bool)
    for x0, y0, x1, y1 in rects:
        left, right = x0 * width / WIDTH / _PATCH, x1 * width / WIDTH / _PATCH
        top, bottom = y0 * height / HEIGHT / _PATCH, y1 * height / HEIGHT / _PATCH
        mask[:, int(top) : int(np.ceil(bottom)), int(left) : int(np.ceil(right))] = True
    return mask


class Pictures:
    """A split's pictures by file name, listed once: not every release says in which folder each lies."""

    def __init__(self, folder: Folder, split: str) -> None:
        self.where = f"{folder.root}, {split}/images"
        self.named: Mapping[str, Found] = {}
        for pattern in (f"{split}/images/*/*.png", f"{split}/images/*.png", "images/*/*.png", "images/*.png"):
            held = folder.matches(pattern)
            if held:
                self.named = {PurePosixPath(one.member or one.path.as_posix()).name: one for one in reversed(held)}
                break

    def picture(self, file: str) -> _Picture:
        """The picture of that file name, there or not."""
        return _Picture(self, file)


@dataclass(frozen=True)
class _Picture:
    pictures: Pictures
    file: str

    @property
    def name(self) -> str:
        found = self.pictures.named.get(self.file)
        return found.name if found else f"{self.pictures.where}/{self.file}"

    @property
    def files(self) -> tuple[str, ...]:
        found = self.pictures.named.get(self.file)
        return (found.real if found else self.name,)

    def read(self) -> list[bytes]:
        if self.missing():
            raise InputError(self.name, InputReason.MISSING, "there is no picture of this file name")
        return [self.pictures.named[self.file].read()]

    def missing(self) -> bool:
        return self.file not in self.pictures.named
