"""clock: what time a clock with two hands shows, to five minutes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from entropy_vision.question import Answer, SceneObject

from .draw import draw_sprite, paint
from .family import Ask, StagedFamily, pick
from .ground import Ground, add_grain, draw_ground
from .layout import palette
from .signs import REGIMES, apart, ink_on, shown_through
from .stage import PATCH, Setting
from .words import cell_word

TIMES = tuple((hour, minute) for hour in range(1, 13) for minute in range(0, 60, 5))
_HANDS = ((0.5, 0.11), (0.86, 0.07))  # of hour and minute: length and half width, in radii
_ONE = 16


@dataclass(frozen=True)
class Clock:
    """A face: its time, colour, centre and radius (fractions)."""

    time: tuple[int, int]
    color: str
    x: float
    y: float
    radius: float

    @property
    def angles(self) -> tuple[float, float]:
        """Of the hour and the minute hand, clockwise from the top."""
        hour, minute = self.time
        return 2 * np.pi * (hour % 12 + minute / 60) / 12, 2 * np.pi * minute / 60


@dataclass(frozen=True)
class ClockStage:
    """Clocks, the first of which is asked for."""

    clocks: tuple[Clock, ...]
    paints: tuple[tuple[int, ...], ...]
    ground: Ground
    regime: str
    contrast: float
    difficulty: float
    ask: Ask

    @property
    def asks(self) -> tuple[Ask, ...]:
        """The one question."""
        return (self.ask,)

    @property
    def facts(self) -> dict[str, Any]:
        """Regime, ground, contrast of hands and face, and what each clock shows, in the order of the objects."""
        return {
            "regime": self.regime,
            "ground": self.ground.kind,
            "move": "still",
            "contrast": self.contrast,
            "times": [list(clock.time) for clock in self.clocks],
        }

    def render(self, size: int, rng: np.random.Generator) -> np.ndarray:
        """uint8 [1, size, size, 3]."""
        frames = self.ground.frames(size, 1, rng)
        if self.regime == "adversarial":
            add_grain(frames, 80, rng)
        frame = frames[0]
        for clock, color in zip(self.clocks, self.paints, strict=True):
            self._draw_face(frame, clock, color)
            ink = ink_on(color, self.contrast)
            for hour in range(12):  # a dot at every hour
                turn = np.pi * hour / 6
                x, y = clock.x + 0.9 * clock.radius * np.sin(turn), clock.y - 0.9 * clock.radius * np.cos(turn)
                draw_sprite(frame, "circle", max(0.09 * clock.radius * size, 1.5), x * size, y * size, ink)
            for angle, hand in zip(clock.angles, _HANDS, strict=True):
                _draw_hand(frame, clock, size, angle, hand, ink)
        add_grain(frames, 3 if self.regime == "adversarial" else round(2 + 8 * self.difficulty), rng)
        return frames

    def _draw_face(self, frame: np.ndarray, clock: Clock, color: tuple[int, ...]) -> None:
        """A disc; where the regime is "textured" the ground shows through."""
        size = frame.shape[0]
        x, y, radius = clock.x * size, clock.y * size, clock.radius * size
        rows, columns = (slice(max(0, int(at - radius) - 1), int(at + radius) + 2) for at in (y, x))
        under = frame[rows, columns].astype(float)
        draw_sprite(frame, "circle", 2 * radius, x, y, color)
        if self.regime == "textured":
            window = frame[rows, columns]
            inside = (window != under).any(axis=2, keepdims=True)
            swing = np.where(inside, under - np.array(self.ground.base), 0.0)
            window[:] = np.clip(window + swing * shown_through(self.ground, self.contrast), 0, 255)

    def objects(self) -> tuple[SceneObject, ...]:
        """Every clock by the box of its face."""
        return tuple(
            SceneObject(
                color=c.color,
                shape="clock",
                boxes=np.array([[c.x - c.radius, c.y - c.radius, c.x + c.radius, c.y + c.radius]], np.float32),
            )
            for c in self.clocks
        )

    def evidence(self, size: int) -> list[np.ndarray]:
        """bool [1, R, C]: wherever the hands of the clock could be."""
        clock, count = self.clocks[0], -(-size // PATCH)
        # pixels that the longest hand's tip can reach, its anti-aliased edge included
        reach = clock.radius * np.hypot(*_HANDS[1]) * size + 1.0
        low = np.arange(count) * PATCH
        x, y = clock.x * size, clock.y * size
        across = np.maximum(np.maximum(low - x, x - np.minimum(low + PATCH, size)), 0.0)
        down = np.maximum(np.maximum(low - y, y - np.minimum(low + PATCH, size)), 0.0)
        return [(np.hypot(down[:, None], across[None, :]) < reach)[None]]


def _draw_hand(
    frame: np.ndarray, clock: Clock, size: int, angle: float, hand: tuple[float, float], ink: tuple[int, ...]
) -> None:
    """A hand from the middle of the face, rectangular, at least a pixel and a half wide."""
    length, half = hand[0] * clock.radius * size, max(hand[1] * clock.radius * size, 0.75)
    along, across = np.array([np.sin(angle), -np.cos(angle)]), np.array([np.cos(angle), np.sin(angle)])
    # OpenCV's anti-aliased fills come out about 0.69 pixels wider on every side
    half, length = max(half - 0.69, 0.05), length - 0.69
    middle = np.array([clock.x, clock.y]) * size - 0.5
    corners = [middle - across * half, middle + across * half, middle + across * half + along * length,
               middle - across * half + along * length]  # fmt: skip
    cv2.fillPoly(frame, [np.rint(np.array(corners) * _ONE).astype(np.int32)], ink, cv2.LINE_AA, 4)


def _answer(time: tuple[int, int]) -> Answer:
    hour, minute = time
    padded = (f"{hour:02d}:{minute:02d}",) if hour < 10 else ()
    return Answer("exact", f"{hour}:{minute:02d}", aliases=padded)


def _stage(
    family: StagedFamily, target: tuple[int, int], setting: Setting, rng: np.random.Generator
) -> ClockStage | None:
    d = setting.difficulty
    n = 4 if setting.split == "more" else int(rng.integers(1, 3)) if d < 0.5 else int(rng.integers(2, 4))
    colors = palette(d)
    chosen = [colors[k] for k in rng.permutation(len(colors)).tolist()[:n]]
    question = family.worded(setting, rng, chosen[0])
    regime = pick(rng, REGIMES)
    radii = ((0.2 - 0.11 * d) * rng.uniform(0.92, 1.08, n)).tolist()
    spots = apart(rng, [(2 * r, 2 * r) for r in radii])
    others = [TIMES[k] for k in rng.permutation(len(TIMES)).tolist() if TIMES[k] != target]
    if spots is None:
        return None
    times = [target, *others[: n - 1]]
    clocks = tuple(Clock(t, c, x, y, r) for t, c, (x, y), r in zip(times, chosen, spots, radii, strict=True))
    paints = tuple(paint(color, d, rng) for color in chosen)
    contrast = (34 - 16 * d if regime == "adversarial" else 110 - 50 * d) * float(rng.uniform(0.9, 1.1))
    kinds = ("noise", "checker") if regime == "textured" else ("flat", "gradient")
    ground = draw_ground(
        rng, 0.0 if regime == "adversarial" else d, setting.split, paints, "still", kinds,
        strength=0.4 if regime == "clean" else 2.0 if regime == "textured" else 1.0,
    )  # fmt: skip
    hour, minute = target
    where = cell_word(clocks[0].x, clocks[0].y)
    return ClockStage(
        clocks=clocks,
        paints=paints,
        ground=ground,
        regime=regime,
        contrast=round(contrast, 1),
        difficulty=d,
        ask=Ask(question, _answer(target), f"{chosen[0]} {where} ; hour {hour} ; minute {minute:02d}", ()),
    )


FAMILY = StagedFamily(
    name="clock",
    media="image",
    targets=TIMES,
    templates=(
        "what time does the {a} clock show?",
        "what is the time on the {a} clock?",
        "read the time on the {a} clock.",
    ),
    held_out="the {a} clock shows what time?",
    words=(*map(str, range(1, 13)), *(f"{minute:02d}" for minute in range(0, 60, 5)), ":", "hour", "minute"),
    stage=_stage,
    # five hours and twenty-five minutes later
    twin=lambda target: ((target[0] + 4) % 12 + 1, (target[1] + 25) % 60),
)
