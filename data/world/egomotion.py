"""egomotion: how the camera moves over a large textured ground: to a side, in or out, or turning.

No single frame tells, exactly: the ground repeats in place, turns to any angle alike, and repeats in scale too. Going
in, coarser octaves fade out and finer ones in (as the tones of R. Shepard, 1964), so a picture at any scale looks like
one at any other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from entropy_vision.question import Answer, SceneObject

from .draw import boxes, draw_sprite, paint
from .family import Ask, StagedFamily, letter, pick
from .ground import add_grain, colored, tiled, warp
from .layout import DIRECTIONS, Layout, Sprite, palette, shapes
from .masks import patches
from .stage import Setting

# in opposite pairs
MOTIONS = (("left", "right"), ("up", "down"), ("in", "out"), ("clockwise", "counterclockwise"))
TARGETS = tuple(
    (motion, other) for axis, pair in enumerate(MOTIONS) for motion in pair for other in range(4) if other != axis
)
LOOKS = ("smooth", "bands")  # the second only in the split "background"
_APPARENT = {
    "left": "right", "right": "left", "up": "down", "down": "up", "in": "larger", "out": "smaller",
    "clockwise": "counterclockwise", "counterclockwise": "clockwise",
}  # fmt: skip
_COARSEST = 9  # grains across the frame in the coarsest octave that can be seen
_TILE = 64


@dataclass(frozen=True)
class FlightStage:
    """A camera over a ground, and things that move before it on their own.

    Attributes:
        camera: float64 [F, 4]: x and y of the middle of the frame, in frames of scale 0; scale in octaves (larger:
            nearer); angle in radians (larger: turned clockwise).
        movers: things on the frame's torus.
    """

    camera: np.ndarray
    movers: Layout
    paints: tuple[tuple[int, ...], ...]
    base: tuple[float, float, float]
    slope: tuple[float, float, float]
    look: str
    difficulty: float
    asks: tuple[Ask, ...]

    @property
    def facts(self) -> dict[str, Any]:
        """Where the camera is in every frame: x, y, scale, angle; and the ground."""
        return {"camera": np.round(self.camera, 6).tolist(), "ground": self.look, "move": "camera"}

    def render(self, size: int, rng: np.random.Generator) -> np.ndarray:
        """uint8 [F, size, size, 3]."""
        low = int(np.floor(self.camera[:, 2].min())) + 1
        high = int(np.floor(self.camera[:, 2].max())) + 2
        # one tile an octave, the same in every frame; twice as wide, as the coarser and as the finer of two octaves
        tiles = {j: rng.integers(0, 256, (_TILE, _TILE), dtype=np.uint8) for j in range(low, high + 1)}
        coarse, fine = (
            {j: draw(tile) for j, tile in tiles.items()} for draw in (_doubled, lambda t: np.tile(t, (2, 2)))
        )
        frames = np.empty((len(self.camera), size, size, 3), np.uint8)
        for frame, (x, y, scale, angle) in zip(frames, self.camera.tolist(), strict=True):
            j = int(np.floor(scale)) + 1
            # a window over two octaves that sums to 1: an octave comes and goes where it weighs nothing
            share = float(np.sin(np.pi * (j - scale) / 2) ** 2)
            ground = tiled(cv2.addWeighted(coarse[j], share, fine[j + 1], 1 - share, 0))
            grains = _COARSEST * 2.0 ** (j + 1)
            field = warp(ground, size, grains * 2.0**-scale, angle, (x * grains, y * grains))
            frame[:] = colored(cv2.LUT(field, _CONTOURS) if self.look == "bands" else field, self.base, self.slope)
        spots = (self.movers.tracks * size).transpose(1, 0, 2).tolist()
        for frame, places in zip(frames, spots, strict=True):
            for sprite, own, (x, y) in zip(self.movers.sprites, self.paints, places, strict=True):
                draw_sprite(frame, sprite.shape, sprite.size * size, x, y, own)
        add_grain(frames, round(2 + 8 * self.difficulty), rng)
        return frames

    def objects(self) -> tuple[SceneObject, ...]:
        """The things that move on their own: none of them is asked for."""
        found = zip(self.movers.sprites, boxes(self.movers), strict=True)
        return tuple(SceneObject(color=sprite.color, shape=sprite.shape, boxes=box) for sprite, box in found)

    def evidence(self, size: int) -> list[np.ndarray]:
        """bool [F, R, C]: every patch in which the ground can be seen."""
        masks = []
        for places in (self.movers.tracks * size).transpose(1, 0, 2).tolist():
            mask = np.full((size, size), 255, np.uint8)
            for sprite, (x, y) in zip(self.movers.sprites, places, strict=True):
                draw_sprite(mask, sprite.shape, sprite.size * size, x, y, (0,))
            masks.append(patches(mask))
        return [np.stack(masks)]


_CONTOURS = np.rint(127.5 + 127.5 * np.sin(np.arange(256) / 255 * 10 * np.pi)).astype(np.uint8)


def _doubled(tile: np.ndarray) -> np.ndarray:
    """uint8 [128, 128]: a tile at half its pace, in which texel 2 i is texel i and others lie between."""
    out = np.empty((2 * _TILE, 2 * _TILE), np.uint8)
    out[::2, ::2] = tile
    out[1::2, ::2] = cv2.addWeighted(tile, 0.5, np.roll(tile, -1, axis=0), 0.5, 0)
    out[:, 1::2] = cv2.addWeighted(out[:, ::2], 0.5, np.roll(out[:, ::2], -1, axis=1), 0.5, 0)
    return out


def path(motion: str, amount: float, frame_count: int, start: np.ndarray) -> np.ndarray:
    """float64 [F, 4]: even motion from a start (x, y, scale, angle).

    `amount` 1 is a quarter of the frame to a side, 0.6 octaves, or 30 degrees.
    """
    share = np.linspace(0.0, amount, frame_count)[:, None]
    way = np.zeros(4)
    scale, angle = start[2:].tolist()
    if motion in DIRECTIONS:
        dx, dy = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}[motion]
        c, s = np.cos(angle), np.sin(angle)
        # the camera's own axes lie turned on the ground; a frame covers 2 ** -scale of it
        way[:2] = 0.25 * 2.0**-scale * np.array([c * dx - s * dy, s * dx + c * dy])
    elif motion in ("in", "out"):
        way[2] = 0.6 if motion == "in" else -0.6
    else:
        way[3] = np.deg2rad(30) * (1 if motion == "clockwise" else -1)
    return start + share * way


def _stage(family: StagedFamily, target: tuple[str, int], setting: Setting, rng: np.random.Generator) -> FlightStage:
    motion, other = target
    d, more = setting.difficulty, setting.split == "more"
    axis = next(k for k, pair in enumerate(MOTIONS) if motion in pair)
    options = tuple(word for k in sorted((axis, other)) for word in MOTIONS[k])
    question = family.worded(setting, rng, f"{', '.join(options[:-1])} or {options[-1]}")
    # uniform over everything after which the ground repeats
    start = rng.random(4) * (_TILE / _COARSEST, _TILE / _COARSEST, 1.0, 2 * np.pi)
    amount = float(rng.uniform(0.85, 1.15)) * (1.3 - 1.0 * d)
    colors, forms = palette(d), shapes(d)
    n = 7 if more else 1 + round(4 * d)
    movers = []
    for _ in range(n):
        (x, y), size, way = rng.random(2).tolist(), float(rng.uniform(0.1, 0.16)), pick(rng, DIRECTIONS)
        movers.append(Sprite(pick(rng, colors), pick(rng, forms), size, x, y, way, float(rng.uniform(0.15, 0.35))))
    tint = rng.uniform(-14, 14, 3)
    slope = (90 - 45 * d) + rng.uniform(-8, 8, 3)
    return FlightStage(
        camera=path(motion, amount, setting.frame_count, start),
        movers=Layout("video", setting.frame_count, tuple(movers), colors),
        paints=tuple(paint(sprite.color, d, rng) for sprite in movers),
        base=tuple((rng.uniform(95, 150) + tint).tolist()),
        slope=tuple(slope.tolist()),
        look=LOOKS[setting.split == "background"],
        difficulty=d,
        asks=(
            Ask(
                question,
                Answer("choice", letter(options, motion), options=options),
                f"ground {_APPARENT[motion]} ; camera {motion}",
                (),
            ),
        ),
    )


def _twin(target: tuple[str, int]) -> tuple[str, int]:
    """The opposite motion, among the same options."""
    motion, other = target
    a, b = next(pair for pair in MOTIONS if motion in pair)
    return (b if motion == a else a), other


FAMILY = StagedFamily(
    name="egomotion",
    media="video",
    targets=TARGETS,
    templates=(
        "how does the camera move, {a}?",
        "which way does the camera go, {a}?",
        "the camera moves in which way, {a}?",
    ),
    held_out="what is the motion of the camera, {a}?",
    words=(*(word for pair in MOTIONS for word in pair), "ground", "camera", "larger", "smaller", ",", "or"),
    stage=_stage,
    twin=_twin,
)
