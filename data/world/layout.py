"""Where things are: the float truth of a scene, before a pixel is drawn and without knowledge of any question.

Positions are fractions of the frame. In videos the frame is a torus: what leaves at one edge comes back at the
opposite one, and every start is uniform over the whole frame, so that no single frame tells how a thing moves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Literal, cast

import numpy as np

from .splits import forms, is_cogent
from .words import COLORS, SHAPES

Media = Literal["image", "video"]
Motion = Literal["left", "right", "up", "down", "still"]

STEP: dict[str, tuple[int, int]] = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1), "still": (0, 0)}
DIRECTIONS: tuple[Motion, ...] = ("left", "right", "up", "down")

# A path stays under 2/6 of the frame: at most two cells of six, so the shorter way round is the way taken; and over
# 1/6, so that it always shows.
PATH_RANGE = (0.2, 0.33)

_MOST_THINGS = 8  # of an image of any split but "more"

# Half extents (left, top, right, bottom) of each shape around its centre, in units of half its size.
EXTENT: dict[str, tuple[float, float, float, float]] = {
    "circle": (1.0, 1.0, 1.0, 1.0),
    "square": (0.9, 0.9, 0.9, 0.9),
    "triangle": (1.0, 1.0, 1.0, 0.85),
    "cross": (1.0, 1.0, 1.0, 1.0),
    "diamond": (1.0, 1.0, 1.0, 1.0),
}


@dataclass(frozen=True)
class Wish:
    """What a question needs of a video, so that few are thrown away.

    Attributes:
        motions: that occur ("moving": any direction).
        late: how many things appear after the first frame, at least.
    """

    motions: tuple[Motion | Literal["moving"], ...] = ()
    late: int = 0

    def __add__(self, other: Wish) -> Wish:
        return Wish(self.motions + other.motions, max(self.late, other.late))


@dataclass(frozen=True)
class Sprite:
    """One thing.

    Attributes:
        color, shape: the words for it.
        size: width and height of its box, as a fraction of the frame (a square is a little smaller).
        x, y: its centre in its first visible frame.
        motion: which way it goes.
        path: how far it goes until the last frame, as a fraction of the frame; idle where it is still.
        onset: its first visible frame.
    """

    color: str
    shape: str
    size: float
    x: float
    y: float
    motion: Motion = "still"
    path: float = 0.0
    onset: int = 0


@dataclass(frozen=True)
class Layout:
    """All things of one scene, at most one of each (colour, shape), so that every one can be named."""

    media: Media
    frame_count: int
    sprites: tuple[Sprite, ...]
    palette: tuple[str, ...]

    @cached_property
    def tracks(self) -> np.ndarray:
        """float64 [n, F, 2]: centres of every sprite, NaN where it is not visible."""
        start = np.array([(s.x, s.y) for s in self.sprites])[:, None]
        # the way of one frame: `path` is covered between the onset and the last frame
        way = np.array(
            [[s.path * d / max(1, self.frame_count - 1 - s.onset) for d in STEP[s.motion]] for s in self.sprites]
        )
        steps = np.arange(self.frame_count) - np.array([s.onset for s in self.sprites])[:, None]
        centres = (start + steps[:, :, None] * way[:, None]) % 1.0
        centres[steps < 0] = np.nan
        return centres

    def hidden(self, k: int) -> np.ndarray:
        """float64 [n - k - 1, F]: the share of sprite k's box that the box of each sprite drawn after it lies over."""
        sizes = np.array([sprite.size for sprite in self.sprites])
        away = np.abs(self.tracks[k + 1 :] - self.tracks[k])
        shared = (sizes[k + 1 :] + sizes[k])[:, None, None] / 2 - np.minimum(away, 1.0 - away)
        most = np.minimum(sizes[k + 1 :], sizes[k])[:, None, None]
        return np.clip(np.nan_to_num(shared), 0.0, most).prod(axis=2) / sizes[k] ** 2

    def clear(self, k: int) -> np.ndarray:
        """bool [F]: frames in which sprite k is there and no other one hides more than half of its box."""
        return (self.hidden(k) <= 0.5).all(axis=0) & ~np.isnan(self.tracks[k, :, 0])

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The shortest words that name each sprite: its colour, or colour and shape where the colour is shared."""
        colors = [sprite.color for sprite in self.sprites]
        return tuple(s.color if colors.count(s.color) == 1 else f"{s.color} {s.shape}" for s in self.sprites)

    def phrase(self, k: int) -> str:
        """The name as a noun: "red object" or "red circle"."""
        name = self.names[k]
        return name if " " in name else f"{name} object"


@dataclass(frozen=True, eq=False)
class Tracked(Layout):
    """A layout whose things go ways of their own; their `motion`, `path` and `onset` are idle.

    Attributes:
        ways: float64 [n, F, 2], centres of every sprite modulo 1, NaN where it is not visible.
    """

    ways: np.ndarray

    @cached_property
    def tracks(self) -> np.ndarray:
        """float64 [n, F, 2]: the ways."""
        return self.ways


def palette(difficulty: float) -> tuple[str, ...]:
    """Colours in play: four until difficulty 0.6, six until 0.85, then all eight."""
    return COLORS[: 4 if difficulty < 0.6 else 6 if difficulty < 0.85 else 8]


def shapes(difficulty: float) -> tuple[str, ...]:
    """Shapes in play: three until difficulty 0.6, then all five."""
    return SHAPES[: 3 if difficulty < 0.6 else 5]


@lru_cache
def partitions(total: int, most: int, parts: int) -> tuple[tuple[int, ...], ...]:
    """Every way to write `total` as at most `parts` numbers of 1..most, largest first."""
    if total == 0:
        return ((),)
    if parts == 0:
        return ()
    return tuple(
        (first, *rest)
        for first in range(min(most, total), 0, -1)
        for rest in partitions(total - first, first, parts - 1)
    )


def thing_count(rng: np.random.Generator, media: Media, difficulty: float, split: str = "train") -> int:
    """How many things a scene has: 3..4 (easiest) to 5..8 (hardest) in an image, 2..3 to 3..4 in a video.

    9 in an image of the split "more" (its videos are longer instead).

    Drawn once a scene, apart from the layout: were it drawn anew for every layout that is thrown away, scenes with
    more things would fit more answers and the number of things would tell something about the answer.
    """
    if media == "image" and split == "more":
        low = high = _MOST_THINGS + 1  # ten would need every colour of four, and none could be counted as absent
    elif media == "image":
        low, high = 3 + round(2 * difficulty), 4 + round(4 * difficulty)
    else:
        low = 2 if difficulty < 0.34 else 3
        high = low + 1
    return int(rng.integers(low, high + 1))


def image_layout(rng: np.random.Generator, difficulty: float, n: int, split: str = "train") -> Layout | None:
    """n things that do not touch, one to three of a colour. None where they do not fit."""
    colors = palette(difficulty)
    names = draw_names(rng, difficulty, n, 3, split)
    sizes = draw_sizes(rng, difficulty, n, 1.0 if n <= _MOST_THINGS else 0.75)
    spots = spread(rng, sizes, margin=0.01, gap=0.02)
    if spots is None:
        return None
    things = zip(names, sizes, spots, strict=True)
    sprites = tuple(Sprite(color, shape, size, x, y) for (color, shape), size, (x, y) in things)
    return Layout("image", 1, sprites, colors)


def video_layout(
    rng: np.random.Generator, difficulty: float, n: int, wish: Wish, frame_count: int, split: str = "train"
) -> Layout:
    """n things on a torus (more where the wish needs more), still, moving, or late; the later drawn over the earlier.

    Every thing starts anywhere, edges and the places of others included, so that in each frame its place is uniform
    and independent of where it goes. Were layouts thrown away where two meet, one would seldom move towards a near
    neighbour, and a single frame would tell.
    """
    n = max(n, len(wish.motions), wish.late)
    colors = palette(difficulty)
    names = draw_names(rng, difficulty, n, 2, split)
    sizes = draw_sizes(rng, difficulty, n, 1.15)
    wished = list(wish.motions) + ["any"] * (n - len(wish.motions))
    draws = zip(wished, rng.random(n).tolist(), rng.integers(4, size=n).tolist(), strict=True)
    motions = [_motion(motion, chance, DIRECTIONS[way]) for motion, chance, way in draws]
    order = rng.permutation(n).tolist()
    late = rng.permutation(n).tolist()[: max(wish.late, int(rng.integers(min(3, n) + 1)))]
    # an early onset leaves at least half of the video to see the thing move
    onsets = rng.integers(1, frame_count // 2 + 1, n).tolist()
    paths = rng.uniform(*PATH_RANGE, n).tolist()
    places = rng.random((n, 2)).tolist()
    sprites = tuple(
        Sprite(color, shape, sizes[k], x, y, motions[order[k]], paths[k], onsets[k] if k in late else 0)
        for k, ((color, shape), (x, y)) in enumerate(zip(names, places, strict=True))
    )
    return Layout("video", frame_count, sprites, colors)


def mirrored(layout: Layout, upside_down: bool) -> Layout:
    """The same things with places and motions mirrored, left for right or upside down; each stays as it is drawn."""
    if upside_down:
        flips: dict[Motion, Motion] = {"up": "down", "down": "up"}
        sprites = (replace(s, y=(1 - s.y) % 1.0, motion=flips.get(s.motion, s.motion)) for s in layout.sprites)
    else:
        flips = {"left": "right", "right": "left"}
        sprites = (replace(s, x=(1 - s.x) % 1.0, motion=flips.get(s.motion, s.motion)) for s in layout.sprites)
    return replace(layout, sprites=tuple(sprites))


def draw_names(
    rng: np.random.Generator, difficulty: float, n: int, most: int, split: str = "train"
) -> list[tuple[str, str]]:
    """n different (colour, shape) pairs that the split allows, at most `most` of a colour, in random order."""
    colors = palette(difficulty)
    # half of the pairs: two shapes of a colour are sure to be there
    groups = partitions(n, min(most, 2) if is_cogent(split) else most, min(4, len(colors)))
    sizes = groups[int(rng.integers(len(groups)))]
    chosen = rng.permutation(len(colors)).tolist()
    names = []
    for group, color in zip(sizes, chosen, strict=False):
        allowed = forms(colors[color], split, shapes(difficulty))
        kinds = rng.permutation(len(allowed)).tolist()[:group]
        names += [(colors[color], allowed[kind]) for kind in kinds]
    return [names[k] for k in rng.permutation(len(names)).tolist()]


def _motion(wished: str, chance: float, way: Motion) -> Motion:
    """A wished motion; two in five of the others are still."""
    if wished == "any":
        return "still" if chance < 0.4 else way
    return way if wished == "moving" else cast(Motion, wished)


def draw_sizes(rng: np.random.Generator, difficulty: float, n: int, scale: float) -> list[float]:
    """Sizes as fractions of the frame: 0.19 for the easiest, 0.13 for the hardest, 12 % more or less."""
    return ((0.19 - 0.06 * difficulty) * scale * rng.uniform(0.88, 1.12, n)).tolist()


def spread(
    rng: np.random.Generator,
    sizes: Sequence[float],
    margin: float,
    gap: float,
    tries: int = 24,
    placed: Sequence[tuple[float, float]] = (),
) -> list[tuple[float, float]] | None:
    """Uniform centres inside the frame that keep `gap` between boxes, by rejection; None where one does not fit.

    The first ones may be `placed` already.
    """
    draws = iter(rng.random(((len(sizes) - len(placed)) * tries, 2)).tolist())
    spots = list(placed)
    for k, size in enumerate(sizes[len(placed) :], len(placed)):
        edge = size / 2 + margin
        for _ in range(tries):
            u, v = next(draws)
            x, y = edge + u * (1 - 2 * edge), edge + v * (1 - 2 * edge)
            if all(max(abs(x - a), abs(y - b)) >= (size + sizes[j]) / 2 + gap for j, (a, b) in enumerate(spots)):
                spots.append((x, y))
                break
        if len(spots) <= k:
            return None
    return spots


def meet(tracks: np.ndarray, extents: Sequence[float], gap: float) -> bool:
    """Whether boxes of these extents around tracks [n, F, 2] come closer than `gap` in any frame, around edges too."""
    away = np.abs(tracks[:, None] - tracks[None, :])
    away = np.minimum(away, 1.0 - away).max(axis=3)
    sizes = np.array(extents)
    near = away < ((sizes[:, None] + sizes[None, :]) / 2 + gap)[:, :, None]  # NaN compares false: not there, not near
    return bool(near.sum() > (~np.isnan(tracks[:, :, 0])).sum())  # each is near itself wherever it is visible
