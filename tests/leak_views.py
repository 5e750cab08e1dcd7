"""What is seen of an item of the World when something is missing: one frame alone, the ground alone, file sizes alone.

Nothing of the generator is used. An `Item` goes in once (`look`), and its pixels can be thrown away.
"""

from __future__ import annotations

import io
import math
import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from entropy_vision.question import Answer, Item, SceneObject

PATCH = 16
FINE, COARSE = 16, 8  # cells of the pixel views along each side: of one frame, of several
THINGS = 3  # whose places are seen, in the order of mention

# pairs of answers that only the order of the frames tells apart
OPPOSITES: dict[str, tuple[tuple[str, str], ...]] = {
    "direction": (("left", "right"), ("up", "down")),
    "egomotion": (("left", "right"), ("up", "down"), ("in", "out"), ("clockwise", "counterclockwise")),
}


@dataclass(frozen=True)
class Look:
    """What is left of an item: its words, its answer, where things are, and the features of every view of it."""

    question: str
    answer: Answer
    family: str
    objects: tuple[SceneObject, ...]
    views: Mapping[str, np.ndarray]


def look(item: Item, index: int, wanted: Collection[str] = ()) -> Look:
    """The views of an item that was dealt at a place of its deck: all, or those that are wanted."""
    idle = (TIMED if item.frames.count == 1 else set()) | ({"shuffled"} if item.family not in OPPOSITES else set())
    names = [name for name in VIEWS if name not in idle and (name in wanted or not wanted)]
    views = {name: VIEWS[name](item, index) for name in names}
    return Look(item.question, item.answer, item.family, tuple(item.objects), views)


def at(which: int) -> Callable[[Item, int], np.ndarray]:
    """Cells of the first, middle or last frame."""

    def see(item: Item, index: int) -> np.ndarray:
        count = item.frames.count
        return cells(item.frames.pixels[(0, count // 2, count - 1)[which]], FINE)

    return see


def where(which: int) -> Callable[[Item, int], np.ndarray]:
    """Places of things in the first, middle or last frame that shows the thing named first."""

    def see(item: Item, index: int) -> np.ndarray:
        frame = moments(item.question, item.objects, item.frames.count)[which]
        return places(item.question, item.objects, frame)

    return see


def cells(frame: np.ndarray, count: int) -> np.ndarray:
    """float32 [count * count * 3]: mean colours of the cells of a frame."""
    return cv2.resize(frame, (count, count), interpolation=cv2.INTER_AREA).astype(np.float32).ravel()


def mentioned(question: str, objects: Sequence[SceneObject]) -> list[SceneObject]:
    """The things that a question names by their colour, or colour and shape, in the order of mention."""
    shapes = {thing.shape for thing in objects}
    found = []
    for thing in objects:
        for match in re.finditer(rf"\b{re.escape(thing.color)}\b(?: (\w+))?", question):
            if match[1] not in shapes or match[1] == thing.shape:
                found.append((match.start(), thing))
                break
    return [thing for _, thing in sorted(found, key=lambda pair: pair[0])]


def centres(thing: SceneObject) -> np.ndarray:
    """[F, 2] middle of the boxes, NaN where not visible."""
    return (thing.boxes[:, :2] + thing.boxes[:, 2:]) / 2


def moments(question: str, objects: Sequence[SceneObject], count: int) -> tuple[int, int, int]:
    """The first, middle and last frame in which the thing named first can be seen; of the video where none is."""
    named = mentioned(question, objects)
    seen = np.flatnonzero(~np.isnan(named[0].boxes[:, 0])) if named else np.arange(count)
    return (int(seen[0]), int(seen[len(seen) // 2]), int(seen[-1])) if len(seen) else (0, count // 2, count - 1)


def places(question: str, objects: Sequence[SceneObject], frame: int) -> np.ndarray:
    """float32 [29]: places and sizes of some things in a frame, what is next to the first, how many are seen, the time.

    The things named come first, in the order of mention; the others from left to right, because their order in the
    item is not to be seen in the picture.
    """
    rows = np.zeros((THINGS, 8), np.float32)
    if not objects:
        return np.append(rows, np.zeros(5, np.float32))
    named = mentioned(question, objects)
    others = [thing for thing in objects if not any(thing is other for other in named)]
    others.sort(key=lambda thing: (bool(thing.boxes[frame, 0] != thing.boxes[frame, 0]), float(thing.boxes[frame, 0])))
    boxes = np.stack([thing.boxes[frame] for thing in (*named, *others)])
    rows[: len(boxes)] = place(boxes[:THINGS])
    seen = (~np.isnan(boxes[:, 0])).sum()
    return np.array([*rows.ravel(), *neighbour(boxes), seen / 4, len(objects) / 4, frame / 8], np.float32)


def neighbour(boxes: np.ndarray) -> np.ndarray:
    """[2] the way from the first box to the nearest of the others, round the torus; the shorter it is, the longer told.

    Things that must not meet seldom move towards a near one: it may tell where they go.
    """
    spots = (boxes[:, :2] + boxes[:, 2:]) / 2
    ways = spots[1:][~np.isnan(spots[1:, 0])] - spots[0]
    if not len(ways) or np.isnan(spots[0, 0]):
        return np.zeros(2)
    ways -= np.rint(ways)
    reach = np.abs(ways).max(axis=1)
    nearest = int(reach.argmin())
    return ways[nearest] / max(float(reach[nearest]), 1e-3) * math.exp(-((float(reach[nearest]) / 0.3) ** 2))


def place(boxes: np.ndarray) -> np.ndarray:
    """float32 [..., 8] of boxes [..., 4]: 1, the middle, the middle as angles round the torus, size; else zeros."""
    x, y = (boxes[..., 0] + boxes[..., 2]) / 2, (boxes[..., 1] + boxes[..., 3]) / 2
    u, v = 2 * np.pi * x, 2 * np.pi * y
    size = boxes[..., 2] - boxes[..., 0] + boxes[..., 3] - boxes[..., 1]
    rows = np.stack([np.ones_like(x), x, y, np.cos(u), np.sin(u), np.cos(v), np.sin(v), size], axis=-1)
    return np.where(np.isnan(x)[..., None], 0, rows).astype(np.float32)


def background(item: Item) -> np.ndarray:
    """float32: cells of the first and last frame without the pixels of things; the mean where nothing is left."""
    rows = []
    for f in {0: 0, item.frames.count - 1: 0}:
        pixels, free = item.frames.pixels[f], ground(item, f).astype(np.uint8)
        mean, spread = (values.ravel().astype(np.float32) for values in cv2.meanStdDev(pixels, mask=free))
        # nothing of the things is left in the colours, nor, with the mean in their place, of where they are
        filled = np.where(free[..., None] > 0, pixels, mean).astype(np.float32)
        rows += [cv2.resize(filled, (COARSE, COARSE), interpolation=cv2.INTER_AREA).ravel(), mean, spread]
    return np.concatenate(rows)


def ground(item: Item, frame: int) -> np.ndarray:
    """bool [H, W]: pixels outside the boxes of all things; where an edge cuts one, outside its other part too."""
    height, width = item.frames.pixels.shape[1:3]
    free = np.ones((height, width), bool)
    for thing in item.objects:
        if np.isnan(thing.boxes[frame, 0]):
            continue
        x0, y0, x1, y1 = thing.boxes[frame].tolist()
        full = np.nanmax(thing.boxes[:, 2:] - thing.boxes[:, :2], axis=0).tolist()
        columns, rows = _stretch(x0, x1, full[0], width), _stretch(y0, y1, full[1], height)
        free[np.ix_(rows, columns)] = False
    return free


def _stretch(low: float, high: float, full: float, side: int) -> np.ndarray:
    """bool [side]: the pixels of an interval and two more; beyond an edge at the opposite one."""
    if low <= 0:
        low = min(low, high - full)
    elif high >= 1:
        high = max(high, low + full)
    at = np.zeros(side, bool)
    at[np.arange(math.floor(low * side) - 2, math.ceil(high * side) + 2) % side] = True
    return at


def metadata(item: Item, index: int) -> np.ndarray:
    """float32: bytes of frames as JPEG and of the video as npy, frames, seconds, place in the deck, digits of names."""
    count, pixels = item.frames.count, item.frames.pixels
    stored = io.BytesIO()
    np.save(stored, pixels[:1])
    sizes = [len(cv2.imencode(".jpg", pixels[f])[1]) / 100 for f in (0, count // 2, count - 1)]
    digits = [int(d) for d in re.sub(r"\D", "", item.key)[-3:].rjust(3, "0")]
    turns = [float(index % n == k) for n in (2, 3, 4, 5) for k in range(n)]
    seconds = float(item.frames.pts_seconds[-1] - item.frames.pts_seconds[0])
    bits = len(item.key) / 10, len(item.scene) / 10, stored.tell() * count / 1e4
    return np.array([*sizes, *bits, count, seconds, index / 1000, *digits, *turns], np.float32)


def things(item: Item) -> np.ndarray:
    """float32: how many things there are, and how many of the commonest shape."""
    commonest = max(Counter(thing.shape for thing in item.objects).values(), default=0)
    return np.array([len(item.objects), len(item.objects) ** 2 / 4, commonest], np.float32)


def covered(item: Item) -> np.ndarray:
    """bool [F, H, W]: pixels of the evidence."""
    height, width = item.frames.pixels.shape[1:3]
    return item.evidence.repeat(PATCH, axis=1).repeat(PATCH, axis=2)[:, :height, :width]


def greyed(item: Item) -> np.ndarray:
    """float32: cells of the first, middle and last frame, NaN where evidence is.

    A cell greyed out is told as missing, never as grey: where evidence lies is an answer by itself (`quadrant`).
    """
    count, hidden = item.frames.count, covered(item)
    rows = []
    for f in sorted({0, count // 2, count - 1}):
        row = cells(item.frames.pixels[f], COARSE).reshape(COARSE, COARSE, 3)
        touched = cv2.resize(hidden[f].astype(np.float32), (COARSE, COARSE), interpolation=cv2.INTER_AREA) > 0
        rows.append(np.where(touched[..., None], np.nan, row).ravel())
    return np.concatenate(rows).astype(np.float32)


def in_evidence(item: Item, thing: SceneObject) -> np.ndarray:
    """bool [F]: frames in which the middle of a thing lies in a patch of evidence."""
    height, width = item.frames.pixels.shape[1:3]
    at = np.nan_to_num(centres(thing)) * (width, height)
    columns, rows = (np.clip(at // PATCH, 0, np.array(item.evidence.shape[:0:-1]) - 1)).astype(int).T
    return item.evidence[np.arange(len(at)), rows, columns] & ~np.isnan(thing.boxes[:, 0])


def outside(item: Item) -> np.ndarray:
    """float32: where the two things named first are outside evidence, first and last, how they went, and when."""
    rows = []
    for thing in mentioned(item.question, item.objects)[:2]:
        seen = np.flatnonzero(~np.isnan(thing.boxes[:, 0]) & ~in_evidence(item, thing))
        if not len(seen):
            rows.append(np.zeros(20))
            continue
        first, last = seen[0], seen[-1]
        way = np.sin(2 * np.pi * (centres(thing)[last] - centres(thing)[first]))
        ends = [*place(thing.boxes[first]), *place(thing.boxes[last])]
        rows.append(np.array([*ends, *way, first / item.frames.count, last / item.frames.count]))
    rows += [np.zeros(20)] * (2 - len(rows))
    return np.concatenate(rows).astype(np.float32)


def evidence_alone(item: Item) -> Item:
    """The item as evidence shows it: things have no box in frames in which their middle is outside.

    Their names stay: whether "red" is enough to name one depends on things that are not needed for the answer.
    """
    shown = [
        replace(thing, boxes=np.where(in_evidence(item, thing)[:, None], thing.boxes, np.float32(np.nan)))
        for thing in item.objects
    ]
    return replace(item, objects=tuple(shown))


def all_named_in_evidence(item: Item) -> bool:
    """Whether evidence covers the middle of everything that the question names, at least once."""
    return all(in_evidence(item, thing).any() for thing in mentioned(item.question, item.objects))


def unordered(item: Item) -> np.ndarray:
    """float32: the least, mean and greatest colour of each cell over all frames; where things are, on average.

    The same for every order of the frames.
    """
    rows = np.stack([cells(frame, COARSE) for frame in item.frames.pixels])
    # without the time
    spots = np.stack([places(item.question, item.objects, f)[:-1] for f in range(item.frames.count)])
    return np.concatenate(
        [rows.min(axis=0), rows.mean(axis=0), rows.max(axis=0), spots.mean(axis=0), spots.std(axis=0)]
    )


def ends(item: Item) -> np.ndarray:
    """float32: cells of the first and the last frame."""
    return np.concatenate([cells(item.frames.pixels[f], COARSE) for f in (0, item.frames.count - 1)])


ORDER = ("first", "middle", "last")
VIEWS: dict[str, Callable[[Item, int], np.ndarray]] = {
    **{f"{name} pixels": at(k) for k, name in enumerate(ORDER)},
    **{f"{name} places": where(k) for k, name in enumerate(ORDER)},
    "shuffled": lambda item, index: unordered(item),
    "ends": lambda item, index: ends(item),
    "background": lambda item, index: background(item),
    "metadata": metadata,
    "things": lambda item, index: things(item),
    "grey pixels": lambda item, index: greyed(item),
    "grey places": lambda item, index: outside(item),
}
# views that hide time: of an image they hide nothing
TIMED = {f"{name} {what}" for name in ORDER for what in ("pixels", "places")}
