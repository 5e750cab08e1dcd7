"""Scenes that are laid out first and named after: which name stands where decides the answer, and nothing else does.

Whether a draw fits never depends on the target, so no answer is thrown away more often than another, and the twin of a
scene (another target, the same stream) has the same places, background and noise.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from .layout import EXTENT, PATH_RANGE, Layout, Sprite, Tracked, draw_names, draw_sizes, meet, palette
from .stage import Setting

Name = tuple[str, str]  # colour and shape

_PLACINGS = 60  # how often starts are drawn anew before ways are


def few_or_many(rng: np.random.Generator, setting: Setting, easiest: int, hardest: int, more: int) -> int:
    """From `easiest` or one more to `hardest` or one less by difficulty; in the split "more" `more` or one more."""
    low = more if setting.split == "more" else round(easiest + (hardest - 1 - easiest) * setting.difficulty)
    return low + int(rng.integers(2))


def scene_names(rng: np.random.Generator, setting: Setting, n: int) -> list[Name]:
    """n different names that the split allows, in random order."""
    return draw_names(rng, setting.difficulty, n, 3, setting.split)


def middle(shape: str, size: float, at: tuple[float, float], sign: int = 1) -> tuple[float, float]:
    """The middle of the box of a thing whose centre is given (a triangle's lies higher); with sign -1 back again."""
    left, top, right, bottom = EXTENT[shape]
    return at[0] + sign * (right - left) * size / 4, at[1] + sign * (bottom - top) * size / 4


def thing_sizes(rng: np.random.Generator, setting: Setting, n: int, scale: float) -> list[float]:
    """Sizes as those of shared scenes, `scale` times, and up to a fifth smaller where it is hardest.

    The colours that come in last (cyan, white) stand out best; without this the hardest scenes were easier to see than
    those of difficulty 0.75.
    """
    shrink = 1 - 0.2 * setting.difficulty**3
    return draw_sizes(rng, setting.difficulty, n, scale * shrink)


def slots_of(order: Sequence[int], n: int) -> list[int]:
    """The slot of each of n names, where slot k is that of name `order[k]` and names after those keep their own."""
    slots = list(range(n))
    for slot, name in enumerate(order):
        slots[name] = slot
    return slots


def still_layout(
    names: Sequence[Name],
    slots: Sequence[int],
    sizes: Sequence[float],
    middles: Sequence[tuple[float, float]],
    setting: Setting,
) -> Layout:
    """An image in which the box of each named thing has the size and middle of its slot.

    Things stand in the order of names, so that neither their order nor their own tint says in which slot they are.
    """
    sprites = []
    for (color, shape), slot in zip(names, slots, strict=True):
        size = sizes[slot]
        x, y = middle(shape, size, middles[slot], sign=-1)
        sprites.append(Sprite(color, shape, size, x, y))
    return Layout("image", 1, tuple(sprites), palette(setting.difficulty))


def moving_layout(
    names: Sequence[Name], slots: Sequence[int], sizes: Sequence[float], tracks: np.ndarray, setting: Setting
) -> Tracked:
    """A video in which each named thing takes the size and the track [F, 2] of its slot."""
    sizes, tracks = [sizes[slot] for slot in slots], tracks[list(slots)]
    seen = [int(np.flatnonzero(~np.isnan(track[:, 0]))[0]) for track in tracks]
    sprites = tuple(
        Sprite(color, shape, size, float(track[f, 0]), float(track[f, 1]), onset=f)
        for (color, shape), size, track, f in zip(names, sizes, tracks, seen, strict=True)
    )
    return Tracked("video", tracks.shape[1], sprites, palette(setting.difficulty), tracks)


def extents(layout: Layout) -> list[list[float]]:
    """[width, height] of every thing's box where no edge cuts it."""
    found = []
    for sprite in layout.sprites:
        left, top, right, bottom = EXTENT[sprite.shape]
        found.append([(left + right) * sprite.size / 2, (top + bottom) * sprite.size / 2])
    return found


def placed(rng: np.random.Generator, ways: np.ndarray, sizes: Sequence[float], gap: float = 0.02) -> np.ndarray | None:
    """Tracks [n, F, 2] on the torus: ways [n, F, 2] (NaN where hidden) from uniform starts, so that none meet."""
    for _ in range(_PLACINGS):
        tracks = (rng.random((len(ways), 1, 2)) + ways) % 1.0
        if not meet(tracks, sizes, gap):
            return tracks
    return None


def drifting(rng: np.random.Generator, n: int, frame_count: int) -> np.ndarray:
    """float64 [n, F, 2]: straight even ways in any direction from (0, 0); two in five stand still."""
    paths = rng.uniform(*PATH_RANGE, n) * (rng.random(n) >= 0.4)
    return straight(rng, paths, np.zeros(n), np.full(n, frame_count - 1), frame_count)


def straight(
    rng: np.random.Generator, paths: np.ndarray, starts: np.ndarray, steps: np.ndarray, frame_count: int
) -> np.ndarray:
    """float64 [n, F, 2]: ways of length `paths`, in `steps` frame steps from frame `starts` on, in any direction."""
    angles = rng.uniform(0, 2 * math.pi, len(paths))
    shares = (np.arange(frame_count) - starts[:, None]) / steps[:, None]
    return shares[:, :, None] * (paths[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1))[:, None]


def listed(nouns: Sequence[str], joint: str) -> str:
    """Nouns in words: "a, b and c"."""
    return f"{', '.join(nouns[:-1])} {joint} {nouns[-1]}"
