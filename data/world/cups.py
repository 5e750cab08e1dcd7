"""cups: under which of several equal cups a ball is after they were swapped."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import cv2
import numpy as np

from entropy_vision.question import Answer, SceneObject

from .draw import draw_sprite, paint
from .family import Ask, StagedFamily, branch, letter
from .ground import Ground, add_grain, draw_ground, draw_move
from .layout import palette
from .masks import patches
from .stage import Setting

PLACES = ("first", "second", "third", "fourth", "fifth", "sixth")

_RAISED = 1.15  # how far a cup is lifted to show what is under it, in heights of a cup
_ARC = 1.2  # how far a cup leaves the row while it is swapped, in heights of a cup
_FOOT, _HEAD = 0.5, 0.32  # half widths of a cup, in widths


@dataclass(frozen=True)
class CupsStage:
    """A row of equal cups, balls under some of them, and swaps.

    Attributes:
        count: of cups.
        swaps: pairs of places that change cups, one after another.
        balls: (colour, place at the start); the first is asked for.
        xs: the middle of every place; `y` that of the row; width and height of a cup (fractions).
        shown: frames at the start in which the cups are raised.
    """

    count: int
    swaps: tuple[tuple[int, int], ...]
    balls: tuple[tuple[str, int], ...]
    xs: tuple[float, ...]
    y: float
    width: float
    height: float
    shown: int
    frame_count: int
    color: str
    paints: tuple[tuple[int, ...], ...]
    ground: Ground
    difficulty: float
    asks: tuple[Ask, ...]

    @property
    def facts(self) -> dict[str, Any]:
        """The swaps, what shows when, and how the ground moves."""
        return {
            "cups": self.count,
            "swaps": [list(pair) for pair in self.swaps],
            "shown": self.shown,
            "ground": self.ground.kind,
            "move": self.ground.move,
        }

    @cached_property
    def tracks(self) -> np.ndarray:
        """float64 [cups, F, 2]: the middle of every cup, named by its place at the start."""
        places = np.arange(self.count)  # of every cup
        tracks = np.empty((self.count, self.frame_count, 2))
        xs = np.array(self.xs)
        moving = self.frame_count - self.shown
        done = 0
        for f in range(self.frame_count):
            passed = max(0, f - self.shown + 1) * len(self.swaps) / moving
            while done < int(passed + 1e-9):
                places = swapped(places, self.swaps[done])
                done += 1
            tracks[:, f, 0] = xs[places]
            tracks[:, f, 1] = self.y
            if done < len(self.swaps):
                share = passed - done
                for a, b in (self.swaps[done], self.swaps[done][::-1]):
                    cup = int(np.flatnonzero(places == a)[0])
                    # to the left behind the row, to the right before it
                    side = -1 if xs[b] < xs[a] else 1
                    tracks[cup, f, 0] = xs[a] + (xs[b] - xs[a]) * (1 - np.cos(np.pi * share)) / 2
                    tracks[cup, f, 1] = self.y + side * _ARC * self.height * np.sin(np.pi * share)
        tracks[:, : self.shown, 1] -= _RAISED * self.height
        return tracks

    @property
    def ball_size(self) -> float:
        """Width of a ball."""
        return 0.55 * self.width

    def ball_spot(self, place: int) -> tuple[float, float]:
        """Where a ball lies: on the foot of its cup."""
        return self.xs[place], self.y + self.height / 2 - self.ball_size / 2

    def render(self, size: int, rng: np.random.Generator) -> np.ndarray:
        """uint8 [F, size, size, 3]."""
        frames = self.ground.frames(size, self.frame_count, rng)
        for f, frame in enumerate(frames):
            for (_, place), own in zip(self.balls if f < self.shown else (), self.paints[1:], strict=False):
                x, y = self.ball_spot(place)
                draw_sprite(frame, "circle", self.ball_size * size, x * size, y * size, own)
            for cup in self._behind_to_front(f):
                self._draw_cup(frame, cup, f, self.paints[0])
        add_grain(frames, round(2 + 8 * self.difficulty), rng)
        return frames

    def _behind_to_front(self, f: int) -> list[int]:
        order: list[int] = np.argsort(self.tracks[:, f, 1], kind="stable").tolist()
        return order

    def _draw_cup(self, frame: np.ndarray, cup: int, f: int, own: tuple[int, ...]) -> None:
        """A cup upside down with a dark rim, so that cups before each other can be told apart."""
        size = frame.shape[0]
        x, y = (self.tracks[cup, f] * size - 0.5).tolist()
        foot, head, half = _FOOT * self.width * size, _HEAD * self.width * size, self.height * size / 2
        corners = np.array([[x - head, y - half], [x + head, y - half], [x + foot, y + half], [x - foot, y + half]])
        points = np.rint(corners * 16).astype(np.int32)
        cv2.fillPoly(frame, [points], own, cv2.LINE_8, 4)
        rim = own if len(own) == 1 else tuple(value // 3 for value in own)
        cv2.polylines(frame, [points], True, rim, 1, cv2.LINE_8, 4)

    def objects(self) -> tuple[SceneObject, ...]:
        """The cups by their place at the start, then the balls while they show."""
        half = np.array([self.width / 2, self.height / 2])
        boxes = np.concatenate([self.tracks - half, self.tracks + half], axis=2).astype(np.float32)
        found = [SceneObject(color=self.color, shape="cup", boxes=box) for box in boxes]
        for color, place in self.balls:
            x, y = self.ball_spot(place)
            radius = self.ball_size / 2
            box = np.full((self.frame_count, 4), np.nan, np.float32)
            box[: self.shown] = (x - radius, y - radius, x + radius, y + radius)
            found.append(SceneObject(color=color, shape="ball", boxes=box))
        return tuple(found)

    def evidence(self, size: int) -> list[np.ndarray]:
        """bool [F, R, C]: the ball while it shows, and every cup: each of the others tells where the asked one is not.

        A cup that is followed is known; so is one that is left when all others were followed.
        """
        own, masks = self.balls[0][1], []
        for f in range(self.frame_count):
            mask = np.zeros((size, size), np.uint8)
            if f < self.shown:
                x, y = self.ball_spot(own)
                draw_sprite(mask, "circle", self.ball_size * size, x * size, y * size, (255,))
            for cup in range(self.count):
                self._draw_cup(mask, cup, f, (255,))
            masks.append(patches(mask))
        return [np.stack(masks)]


def swapped(places: np.ndarray, pair: tuple[int, int]) -> np.ndarray:
    """The place of every cup after two places changed cups."""
    a, b = pair
    return np.where(places == a, b, np.where(places == b, a, places))


def draw_swaps(count: int, swaps: int, rng: np.random.Generator) -> tuple[tuple[int, int], ...]:
    """Random swaps after which a cup of any place stands in each place equally often.

    So it is where one cup on average is back in its own place, since every other place is as likely as any other. An
    even number of swaps of three cups leaves none or three there, an odd number of swaps of four none or two; those
    are mixed to one on average. All else is drawn until it is one.
    """
    several = {(3, 0): 3, (4, 1): 2}.get((count, swaps % 2))
    wanted = 1 if several is None else several if rng.random() < 1 / several else 0
    for _ in range(5000):
        pairs = []
        places = np.arange(count)
        for a in rng.integers(count, size=swaps).tolist():
            b = (a + int(rng.integers(1, count))) % count
            pairs.append((a, b))
            places = swapped(places, (a, b))
        if int((places == np.arange(count)).sum()) == wanted:
            return tuple(pairs)
    raise RuntimeError(f"no {swaps} swaps of {count} cups leave {wanted} in place")


def _swaps_from(place: int, end: int, count: int, number: int, rng: np.random.Generator) -> tuple[tuple[int, int], ...]:
    """Of such swaps the first that lead from one place to another; one draw of `count` does."""
    for _ in range(2000):
        swaps, at = draw_swaps(count, number, rng), np.array([place])
        for pair in swaps:
            at = swapped(at, pair)
        if at[0] == end:
            return swaps
    raise RuntimeError(f"no {number} swaps of {count} cups lead from {place} to {end}")


def _scale(difficulty: float, more: bool, frame_count: int) -> tuple[int, int, int]:
    """How many frames the cups are raised, how many cups there are, and how many swaps there may be.

    Every swap has a frame in its middle: it lasts one and a half frames at least.
    """
    shown = 1 if frame_count < 10 else 2
    most = int((frame_count - shown) / 1.5)
    count = 3 if difficulty < 0.35 else 4 if difficulty < 0.7 else 5
    return shown, 6 if more and most >= 3 else count, most


def _stage(family: StagedFamily, target: int, setting: Setting, rng: np.random.Generator) -> CupsStage:
    d, more = setting.difficulty, setting.split == "more"
    shown, count, most = _scale(d, more, setting.frame_count)
    colors = palette(d)
    chosen = [colors[k] for k in rng.permutation(len(colors)).tolist()]
    options = PLACES[:count]
    question = family.worded(setting, rng, chosen[0], f"{', '.join(options[:-1])} or {options[-1]}")
    place, end = int(rng.integers(count)), target % count
    number = min(most, (5 if more else 2) + round(3 * d) + int(rng.integers(2)))
    swaps = _swaps_from(place, end, count, number, branch(rng))
    balls = [(chosen[0], place)]
    if d >= 0.5:  # another ball, under another cup
        balls.append((chosen[1], (place + int(rng.integers(1, count))) % count))
    pitch = 0.86 / count
    left = (1 - 0.86) / 2 + float(rng.uniform(-0.03, 0.03))
    width = min(0.15, 0.66 * pitch)
    paints = tuple(paint(color, d, rng) for color in (chosen[2], *(color for color, _ in balls)))
    steps, at = [f"{chosen[0]} {PLACES[place]}"], place
    for pair in swaps:
        after = int(swapped(np.array([at]), pair)[0])
        if after != at:
            steps.append(PLACES[after])
        at = after
    return CupsStage(
        count=count,
        swaps=swaps,
        balls=tuple(balls),
        xs=tuple(left + pitch * (k + 0.5) for k in range(count)),
        y=float(rng.uniform(0.42, 0.58)),
        width=width,
        height=1.15 * width,
        shown=shown,
        frame_count=setting.frame_count,
        color=chosen[2],
        paints=paints,
        ground=draw_ground(rng, d, setting.split, paints, draw_move(rng, d)),
        difficulty=d,
        asks=(Ask(question, Answer("choice", letter(options, PLACES[end]), options=options), " ; ".join(steps), ()),),
    )


FAMILY = StagedFamily(
    name="cups",
    media="video",
    targets=tuple(range(60)),  # taken modulo the number of cups, which divides 60
    templates=(
        "which cup from the left hides the {a} ball at the end, {b}?",
        "under which cup from the left is the {a} ball now, {b}?",
        "at the end the {a} ball is under which cup, {b}?",
    ),
    held_out="find the {a} ball: which cup is it under after the swaps, {b}?",
    words=(*PLACES, *"EF", ",", "or"),
    stage=_stage,
    twin=lambda target: (target + 1) % 60,
)
