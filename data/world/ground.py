"""Grounds of scenes that are drawn frame by frame: a texture larger than the frame, still, shifted or in motion.

A moving ground is a temporal trap: much changes from frame to frame where nothing is asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from .draw import add_noise, noise_bank, visible
from .family import pick

KINDS = ("flat", "gradient", "noise", "checker")
TEXTURES = ("noise", "checker")  # what can be seen to move
HELD_OUT = "stripes"  # only in the split "background"
MOVES = ("flicker", "panning", "water")

_TILE = 64
_LUMA = np.array([0.299, 0.587, 0.114])


@dataclass(frozen=True)
class Ground:
    """A muted texture.

    Attributes:
        kind: one of `KINDS`, or `HELD_OUT`.
        move: "still" or one of `MOVES`.
        base, slope: RGB in the middle of the texture's range, and from there to its end.
        way: (dx, dy) by which it pans in one frame, as fractions of the frame; of water, that of its first layer.
    """

    kind: str
    move: str
    base: tuple[float, float, float]
    slope: tuple[float, float, float]
    way: tuple[float, float] = (0.0, 0.0)

    def frames(
        self, size: int, count: int, rng: np.random.Generator, shifts: Sequence[tuple[float, float]] | None = None
    ) -> np.ndarray:
        """uint8 [count, size, size, 3]; `shifts` move it by (dx, dy) fractions of the frame, frame by frame."""
        steps = np.arange(count)[:, None] * np.array(self.way) if self.move != "flicker" else np.zeros((count, 2))
        moved = np.rint((steps + np.array(shifts if shifts is not None else [(0.0, 0.0)])) * size).astype(int)
        own = _windows(texture(self.kind, size, int(np.abs(moved).max()), rng), size, moved)
        out = np.empty((count, size, size, 3), np.uint8)
        if self.move in ("flicker", "water"):
            over = moved[:, ::-1] * (1, -1) if self.move == "water" else rng.integers(-size // 2, size // 2, (count, 2))
            layer = texture("noise", size, int(np.abs(over).max()), rng)
            blend = 0.5 if self.move == "water" else 0.7
            own = [
                cv2.addWeighted(a, blend, b, 1 - blend, 0)
                for a, b in zip(own, _windows(layer, size, over), strict=True)
            ]
        elif not moved.any():
            out[:] = colored(own[0], self.base, self.slope)
            return out
        for frame, field in zip(out, own, strict=True):
            frame[:] = colored(field, self.base, self.slope)
        return out


def draw_ground(
    rng: np.random.Generator,
    difficulty: float,
    split: str,
    paints: Sequence[tuple[int, ...]],
    move: str = "still",
    kinds: Sequence[str] = KINDS,
    strength: float = 1.0,
) -> Ground:
    """A ground on which all paints can be seen; its slope grows with difficulty. Draws equally much in every split."""
    kind = pick(rng, TEXTURES if move != "still" else kinds)
    tint = rng.uniform(-10, 10, 3)
    tint -= _LUMA @ tint
    slope = strength * rng.uniform(0.6, 1.0) * (10 + 30 * difficulty) + rng.uniform(-6, 6, 3)
    luma = visible(rng.uniform(60, 150, 8), tint, slope, np.array(paints, float))
    angle, speed = rng.uniform(0, 2 * np.pi), rng.uniform(0.01, 0.03)
    return Ground(
        kind=HELD_OUT if split == "background" else kind,
        move=move,
        base=tuple((luma + tint).tolist()),
        slope=tuple(slope.tolist()),
        way=(0.0, 0.0) if move == "still" else (float(np.cos(angle) * speed), float(np.sin(angle) * speed)),
    )


def draw_move(rng: np.random.Generator, difficulty: float) -> str:
    """How a ground moves: not at all in three of four scenes (easiest) to one of four (hardest)."""
    move = pick(rng, MOVES)
    return move if rng.random() < 0.25 + 0.5 * difficulty else "still"


def texture(kind: str, size: int, reach: int, rng: np.random.Generator) -> np.ndarray:
    """uint8 [size + 2 reach, size + 2 reach] around a frame of `size`: features are fractions of the frame."""
    side = size + 2 * reach
    angle = rng.uniform(0, 2 * np.pi)
    cells = rng.uniform(6, 12)
    if kind == "flat":
        return np.full((side, side), 128, np.uint8)
    if kind == "gradient":
        ends = np.array([[0, 1], [1, 2]]) * 127.0 if angle < np.pi else np.array([[1, 2], [0, 1]]) * 127.0
        ends = ends[:, ::-1] if int(angle * 100) % 2 else ends
        return cv2.resize(ends.astype(np.float32), (side, side), interpolation=cv2.INTER_LINEAR).astype(np.uint8)
    if kind == "noise":
        tiles = [tiled(rng.integers(0, 256, (_TILE, _TILE), dtype=np.uint8)) for _ in range(2)]
        coarse, fine = (
            warp(tile, side, texels * side / size)
            for tile, texels in zip(tiles, (cells * 0.6, cells * 2.2), strict=True)
        )
        return cv2.addWeighted(coarse, 0.6, fine, 0.4, 0)
    across = np.arange(side) * (cells / size)
    odd = (across + angle).astype(int) % 2
    if kind == "stripes":  # along one of the two axes
        return np.ascontiguousarray(np.broadcast_to(np.where(odd, 215, 40).astype(np.uint8), (side, side)))
    other = (across + 2.3 * angle).astype(int) % 2
    return np.where(odd[:, None] == other[None, :], np.uint8(40), np.uint8(215))


def tiled(tile: np.ndarray) -> np.ndarray:
    """A tile with 64 texels more on every side, as if it were laid without end: `warp` never looks over its edge."""
    return cv2.copyMakeBorder(tile, _TILE, _TILE, _TILE, _TILE, cv2.BORDER_WRAP)


def warp(
    tiles: np.ndarray, size: int, texels: float, angle: float = 0.0, at: tuple[float, float] = (0.0, 0.0)
) -> np.ndarray:
    """uint8 [size, size]: `texels` texels of an endless tiling across the frame, turned by `angle`, around texel `at`.

    `tiles` as `tiled` gives them; `texels` up to 90 at any angle.
    """
    scale = texels / size
    c, s = float(np.cos(angle)) * scale, float(np.sin(angle)) * scale
    centre = (size - 1) / 2
    x, y = (value % (tiles.shape[0] - 2 * _TILE) + _TILE for value in at)
    matrix = np.array([[c, -s, x - c * centre + s * centre], [s, c, y - s * centre - c * centre]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(tiles, matrix, (size, size), flags=flags, borderMode=cv2.BORDER_REPLICATE)


def colored(field: np.ndarray, base: Sequence[float], slope: Sequence[float]) -> np.ndarray:
    """uint8 [H, W, 3]: base - slope where the field is 0, base + slope where it is 255."""
    ends = zip(base, slope, strict=True)
    return cv2.merge([cv2.convertScaleAbs(field, None, s / 127.5, max(b - s, 0.0)) for b, s in ends])


def add_grain(frames: np.ndarray, halves: int, rng: np.random.Generator) -> None:
    """Sensor noise with a standard deviation of `halves` / 4 on every frame, in place."""
    bank = noise_bank(halves)
    for frame, (top, left) in zip(frames, rng.integers(0, 512, (len(frames), 2)).tolist(), strict=True):
        add_noise(frame, bank, top, left)


def _windows(plane: np.ndarray, size: int, moved: np.ndarray) -> list[np.ndarray]:
    """The frame's view of a plane that moved by (dx, dy) pixels, for every row of `moved`."""
    reach = (plane.shape[0] - size) // 2
    return [plane[reach - dy : reach - dy + size, reach - dx : reach - dx + size] for dx, dy in moved.tolist()]
