"""identity: which of several equal things was ringed at the start, told by the number it carries at the end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from entropy_vision.question import Answer, SceneObject

from .draw import draw_sprite, paint
from .family import Ask, StagedFamily, letter, pick
from .ground import Ground, add_grain, draw_ground, draw_move
from .layout import EXTENT, palette
from .masks import patches
from .signs import ink_on
from .stage import Setting
from .words import cell_word
from .writing import FONTS, field, write

FORMS = ("circle", "square", "diamond")  # with room for a digit in the middle
_RING = 0.75  # radius in sizes of the thing
_DIGIT = 0.5  # height in sizes of the thing


@dataclass(frozen=True)
class CrowdStage:
    """Equal things that change places.

    Attributes:
        tracks: float64 [n, F, 2]: centres; the first thing is the ringed one.
        digits: what each carries at the end.
        marked: frames at the start with the ring; `named`: frames at the end with the digits.
    """

    tracks: np.ndarray
    digits: tuple[int, ...]
    order: tuple[int, ...]
    color: str
    shape: str
    size: float
    marked: int
    named: int
    own: tuple[int, ...]
    contrast: float
    font: int
    ground: Ground
    difficulty: float
    asks: tuple[Ask, ...]

    @property
    def facts(self) -> dict[str, Any]:
        """The ring's centre and its last frame, the digits by their places in the last frame, the ground."""
        last = self.tracks[:, -1].round(4).tolist()
        return {
            "ring": self.tracks[0, 0].round(4).tolist(),
            "marked": self.marked,
            "digits": [[self.digits[k], *last[k]] for k in self.order],
            "contrast": self.contrast,
            "ground": self.ground.kind,
            "move": self.ground.move,
        }

    def render(self, size: int, rng: np.random.Generator) -> np.ndarray:
        """uint8 [F, size, size, 3]."""
        count = self.tracks.shape[1]
        frames = self.ground.frames(size, count, rng)
        ink = ink_on(self.own, self.contrast)
        for f, frame in enumerate(frames):
            for k in self.order:
                self._draw(frame, k, f, self.own, ink)
        add_grain(frames, round(2 + 8 * self.difficulty), rng)
        return frames

    def _draw(self, frame: np.ndarray, k: int, f: int, own: tuple[int, ...], ink: tuple[int, ...]) -> None:
        """Thing k in frame f, with its ring or its digit."""
        size = frame.shape[0]
        x, y = (self.tracks[k, f] * size).tolist()
        draw_sprite(frame, self.shape, self.size * size, x, y, own)
        if k == 0 and f < self.marked:
            middle = (round((x - 0.5) * 16), round((y - 0.5) * 16))
            white = (255,) * len(own)
            cv2.circle(frame, middle, round(_RING * self.size * size * 16), white, max(1, size // 75), cv2.LINE_AA, 4)
        if f >= self.tracks.shape[1] - self.named:
            write(frame, str(self.digits[k]), self.font, field("0", x, y, _DIGIT * self.size * size), ink)

    def objects(self) -> tuple[SceneObject, ...]:
        """All things, in an order that tells nothing."""
        low, high = np.split(np.array(EXTENT[self.shape]) * self.size / 2, 2)
        boxes = np.concatenate([self.tracks - low, self.tracks + high], axis=2).astype(np.float32)
        return tuple(SceneObject(color=self.color, shape=self.shape, boxes=boxes[k]) for k in self.order)

    def evidence(self, size: int) -> list[np.ndarray]:
        """bool [F, R, C]: the ringed thing in every frame, with its ring and its digit."""
        masks = []
        for f in range(self.tracks.shape[1]):
            mask = np.zeros((size, size), np.uint8)
            self._draw(mask, 0, f, (255,), (255,))
            masks.append(patches(mask))
        return [np.stack(masks)]


def draw_tracks(rng: np.random.Generator, n: int, frame_count: int, difficulty: float) -> np.ndarray:
    """Ways of n things that change places around an uneven ring: float64 [n, F, 2], anywhere.

    Thing k goes to the place of thing k + s, with every s as likely, so that nobody's end says where it started; on
    the way it keeps its neighbours, and harder scenes turn further. Whoever looks in the next frame for the thing
    nearest to where one was never loses it.
    """
    s = int(rng.integers(n))
    # 2 |turn| / (F - 1) is the step of an even ring in halves of the way to the next place
    most = (0.3 + 0.4 * difficulty) * (frame_count - 1) / 2
    turns = [turn for turn in range(s - 3 * n, s + 3 * n, n) if abs(turn) <= most]
    turn = pick(rng, turns) if turns else min(s, s - n, key=abs)
    radius, tilt, lean = rng.uniform(0.2, 0.27), rng.uniform(0, 2 * np.pi), rng.uniform(0, np.pi)
    drift = rng.uniform(-0.08, 0.08, 2) * np.linspace(0, 1, frame_count)[:, None]
    angles, radii = rng.uniform(-1, 1, n), rng.uniform(-1, 1, n)
    share = np.linspace(0, 1, frame_count)
    places = np.arange(n)
    for uneven in (1.0, 0.75, 0.5, 0.25, 0.0):
        around = 2 * np.pi * (places + 0.3 * uneven * angles) / n
        away = radius * (1 + 0.15 * uneven * radii)
        ends = (places + turn) % n
        # interpolated in angle: things keep their order, so none meets another
        to = around[ends] + 2 * np.pi * ((places + turn) // n)
        angle = around[:, None] + (to - around)[:, None] * share + tilt
        reach = away[:, None] + (away[ends] - away)[:, None] * share
        ring = np.stack([reach * np.cos(angle), reach * np.sin(angle) * (1 - 0.15 * uneven)], axis=2)
        c, sn = np.cos(lean), np.sin(lean)
        tracks: np.ndarray = ring @ np.array([[c, sn], [-sn, c]]) + uneven * drift
        if _followed(tracks):
            return tracks
    raise RuntimeError(f"{n} things turn too fast to be followed over {frame_count} frames")


def _followed(tracks: np.ndarray) -> bool:
    """Whether each thing's next place is clearly nearer to it than any other thing's next place."""
    away = np.hypot(*(tracks[:, None, :-1] - tracks[None, :, 1:]).transpose(3, 0, 1, 2))
    own = np.einsum("kkf->kf", away).copy()
    others = np.where(np.eye(len(tracks), dtype=bool)[:, :, None], np.inf, away).min(axis=1)
    return bool((own < 0.9 * others).all())


def _scale(difficulty: float, more: bool, frame_count: int) -> int:
    """How many things: few enough for the frames there are to turn them by half a turn and not lose them."""
    wanted = 6 if more else 3 + (difficulty >= 0.34) + (difficulty >= 0.67)
    return min(wanted, 3 if frame_count < 6 else 5 if frame_count < 8 else 6)


def _stage(family: StagedFamily, target: int, setting: Setting, rng: np.random.Generator) -> CrowdStage:
    d, count = setting.difficulty, setting.frame_count
    n = _scale(d, setting.split == "more", count)
    options = tuple(str(digit) for digit in range(1, n + 1))
    form, color = pick(rng, FORMS), pick(rng, palette(d))
    question = family.worded(setting, rng, color, f"{', '.join(options[:-1])} or {options[-1]}")
    size = (0.13 - 0.03 * d) * float(rng.uniform(0.95, 1.05))
    tracks = draw_tracks(rng, n, count, d)
    low, high = tracks.min(axis=(0, 1)) - 0.8 * size, tracks.max(axis=(0, 1)) + 0.8 * size
    tracks = tracks - low + rng.random(2) * (1 - (high - low))
    digit = target % n + 1
    others = (digit + rng.permutation(n - 1) % n) % n + 1  # all but the ringed thing's own
    paints = [paint(color, d, rng)]
    contrast = (110 - 50 * d) * float(rng.uniform(0.9, 1.1))
    end = cell_word(*tracks[0, -1].tolist())
    return CrowdStage(
        tracks=tracks,
        digits=(digit, *others.tolist()),
        order=tuple(rng.permutation(n).tolist()),
        color=color,
        shape=form,
        size=size,
        marked=1 if count < 8 else 2,
        named=1 if count < 8 else 2,
        own=paints[0],
        contrast=round(contrast, 1),
        font=pick(rng, FONTS),
        ground=draw_ground(rng, d, setting.split, paints, draw_move(rng, d)),
        difficulty=d,
        asks=(
            Ask(
                question,
                Answer("choice", letter(options, str(digit)), options=options),
                f"t1 {cell_word(*tracks[0, 0].tolist())} ; t8 {end} ; {digit}",
                (),
            ),
        ),
    )


FAMILY = StagedFamily(
    name="identity",
    media="video",
    targets=tuple(range(60)),  # taken modulo the number of things, which divides 60
    templates=(
        "which number does the ringed {a} thing carry at the end, {b}?",
        "the {a} thing ringed at first ends with which number, {b}?",
        "what number is on the ringed {a} thing in the end, {b}?",
    ),
    held_out="follow the ringed {a} thing: what number does it get, {b}?",
    words=(*map(str, range(1, 7)), *"EF", ",", "or"),
    stage=_stage,
    twin=lambda target: (target + 1) % 60,
)
