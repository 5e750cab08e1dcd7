"""Signs to read: small writing on coloured plates, one of them asked for.

The scenes of `number`, `word` and `static_answer`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from entropy_vision.question import Answer, SceneObject

from .draw import paint
from .family import Ask, StagedFamily, pick
from .ground import MOVES, Ground, add_grain, draw_ground
from .layout import palette
from .masks import box_patches
from .stage import Setting
from .words import cell_word
from .writing import FONTS, field, write

# what makes reading hard: nothing, texture under the writing, or faint writing on a plain plate amid strong noise
REGIMES = ("clean", "textured", "adversarial")
Box = tuple[float, float, float, float]

_PAD = 0.3  # plate around the writing, in heights of a letter
_TRIES = 400


@dataclass(frozen=True)
class Sign:
    """One plate: what is written on it, its colour, the middle and the height of its writing (fractions)."""

    text: str
    color: str
    x: float
    y: float
    height: float

    @property
    def writing(self) -> Box:
        """Box of the cells of the writing."""
        return field(self.text, self.x, self.y, self.height)

    @property
    def plate(self) -> Box:
        """Box of the whole sign."""
        x0, y0, x1, y1 = self.writing
        pad = _PAD * self.height
        return x0 - pad, y0 - pad, x1 + pad, y1 + pad


@dataclass(frozen=True)
class SignStage:
    """Signs, the first of which is asked for. A sign takes the same room whatever is written on it."""

    signs: tuple[Sign, ...]
    paints: tuple[tuple[int, ...], ...]
    inks: tuple[tuple[int, ...], ...]
    font: int
    ground: Ground
    regime: str
    contrast: float
    difficulty: float
    frame_count: int
    ask: Ask

    @property
    def asks(self) -> tuple[Ask, ...]:
        """The one question."""
        return (self.ask,)

    @property
    def facts(self) -> dict[str, Any]:
        """Regime, ground, contrast of ink and plate, and what each sign says, in the order of the objects."""
        return {
            "regime": self.regime,
            "ground": self.ground.kind,
            "move": self.ground.move,
            "contrast": self.contrast,
            "texts": [sign.text.lower() for sign in self.signs],
        }

    def render(self, size: int, rng: np.random.Generator) -> np.ndarray:
        """uint8 [F, size, size, 3]."""
        frames = self.ground.frames(size, self.frame_count, rng)
        if self.regime == "adversarial":
            add_grain(frames, 80, rng)
        if self.regime != "static":  # there the noise stays off the plates, so that they are the same in every frame
            self._put_up(frames, size)
        add_grain(frames, 3 if self.regime == "adversarial" else round(2 + 8 * self.difficulty), rng)
        if self.regime == "static":
            self._put_up(frames, size)
        return frames

    def _put_up(self, frames: np.ndarray, size: int) -> None:
        for sign, color, ink in zip(self.signs, self.paints, self.inks, strict=True):
            x0, y0, x1, y1 = (round(edge * size) for edge in sign.plate)
            rows, columns = slice(max(0, y0), y1), slice(max(0, x0), x1)
            if self.regime == "textured":  # the ground shows through the plate
                swing = frames[:, rows, columns] - np.array(self.ground.base)
                frames[:, rows, columns] = np.clip(swing * shown_through(self.ground, self.contrast) + color, 0, 255)
            else:
                frames[:, rows, columns] = color
            box = field(sign.text, sign.x * size, sign.y * size, sign.height * size)
            for frame in frames if self.regime == "textured" else frames[:1]:
                write(frame, sign.text, self.font, box, ink)
            if self.regime != "textured":
                frames[1:, rows, columns] = frames[0, rows, columns]

    def objects(self) -> tuple[SceneObject, ...]:
        """Every sign by the box of its writing."""
        return tuple(
            SceneObject(
                color=sign.color,
                shape="plate",
                boxes=np.repeat(np.array([sign.writing], np.float32), self.frame_count, axis=0),
            )
            for sign in self.signs
        )

    def evidence(self, size: int) -> list[np.ndarray]:
        """bool [F, R, C]: the cells of the writing, in every frame."""
        return [np.repeat(box_patches(self.signs[0].writing, size)[None], self.frame_count, axis=0)]


@dataclass(frozen=True)
class Reading:
    """What a family of signs puts on them.

    Attributes:
        texts: everything that may be written, all as long.
        answer: the truth where a text is written on the sign asked for.
        easy, hard: height of the writing (fraction of the frame) at difficulty 0 and 1.
        most: how many signs there are at most, at difficulty 0 and 1.
    """

    texts: tuple[str, ...]
    answer: Callable[[str], Answer]
    easy: float
    hard: float
    most: tuple[int, int]
    regimes: tuple[str, ...] = REGIMES


def sign_stage(
    reading: Reading, family: StagedFamily, target: str, setting: Setting, rng: np.random.Generator
) -> SignStage | None:
    """Signs with the target on the first; the others carry other texts of the same list. None where they do not fit."""
    d = setting.difficulty
    more = setting.split == "more"
    colors = palette(1.0 if more else d)
    low, high = reading.most
    most = round(low + (high - low) * d)
    n = most + 1 if more else int(rng.integers(most - 1, most + 1))
    chosen = [colors[k] for k in rng.permutation(len(colors)).tolist()[:n]]
    question = family.worded(setting, rng, chosen[0])
    regime = pick(rng, reading.regimes)
    base = reading.easy + (reading.hard - reading.easy) * d
    heights = (base * rng.uniform(0.9, 1.1, n)).tolist()
    spots = apart(rng, [(len(target) * 0.85 * h + 2 * _PAD * h, h + 2 * _PAD * h) for h in heights])
    others = [reading.texts[k] for k in rng.permutation(len(reading.texts)).tolist() if reading.texts[k] != target]
    if spots is None:
        return None
    texts = [target, *others[: n - 1]]
    signs = tuple(Sign(*parts) for parts in zip(texts, chosen, *zip(*spots, strict=True), heights, strict=True))
    paints = tuple(paint(color, d, rng) for color in chosen)
    easy, harder = {"adversarial": (34, 16), "static": (70, 45)}.get(regime, (110, 50))
    contrast = (easy - harder * d) * float(rng.uniform(0.9, 1.1))
    static = regime == "static"
    kinds = {"clean": ("flat", "gradient"), "adversarial": ("flat", "gradient")}.get(regime, ("noise", "checker"))
    ground = draw_ground(
        rng, 0.0 if regime == "adversarial" else d, setting.split, paints, pick(rng, MOVES) if static else "still",
        kinds, strength=0.4 if regime == "clean" else 1.0 + (regime in ("textured", "static")),
    )  # fmt: skip
    return SignStage(
        signs=signs,
        paints=paints,
        inks=tuple(ink_on(color, contrast) for color in paints),
        font=pick(rng, FONTS),
        ground=ground,
        regime=regime,
        contrast=round(contrast, 1),
        difficulty=d,
        frame_count=setting.frame_count,
        ask=Ask(
            question=question,
            answer=reading.answer(target),
            rationale=f"{chosen[0]} {cell_word(signs[0].x, signs[0].y)} ; {target.lower()}",
            needs=(),
        ),
    )


def ink_on(color: Sequence[int], contrast: float) -> tuple[int, ...]:
    """A colour darker than a light one, lighter than a dark one, by `contrast` steps of luma."""
    luma = 0.299 * color[0] + 0.587 * color[1] + 0.114 * color[2]
    away = -1 if luma > 110 else 1
    # towards black or white: one channel alone may have no room left
    end = 0 if away < 0 else 255
    share = min(1.0, contrast / abs(end - luma))
    return tuple(round(value + share * (end - value)) for value in color)


def shown_through(ground: Ground, contrast: float) -> float:
    """How much of a ground's texture may show on a plate: less than half of what the ink stands out by."""
    return min(1.0, 0.45 * contrast / max(ground.slope))


def apart(rng: np.random.Generator, sizes: Sequence[tuple[float, float]]) -> list[tuple[float, float]] | None:
    """Centres of boxes of (width, height) inside the frame that do not touch; None where one finds no place."""
    spots: list[tuple[float, float]] = []
    draws = iter(rng.random((_TRIES, 2)).tolist())
    for k, (width, height) in enumerate(sizes):
        for u, v in draws:
            x = width / 2 + 0.01 + u * (0.98 - width)
            y = height / 2 + 0.01 + v * (0.98 - height)
            if all(
                abs(x - a) > (width + sizes[j][0]) / 2 + 0.01 or abs(y - b) > (height + sizes[j][1]) / 2 + 0.01
                for j, (a, b) in enumerate(spots)
            ):
                spots.append((x, y))
                break
        if len(spots) <= k:
            return None
    return spots
