"""Pixels of a layout. The renderer sees positions and colours, never a question or an answer."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np

from .layout import EXTENT, Layout

RGB: dict[str, tuple[int, int, int]] = {
    "red": (214, 46, 42),
    "green": (48, 170, 70),
    "blue": (50, 92, 222),
    "yellow": (238, 206, 48),
    "purple": (150, 64, 190),
    "orange": (242, 134, 32),
    "cyan": (52, 200, 216),
    "white": (242, 242, 242),
}
BACKGROUNDS = ("flat", "gradient", "noise", "checker")
HELD_OUT = "stripes"  # only in the split "background"

_SHIFT = 4  # OpenCV draws with 4 fractional bits: a sixteenth of a pixel
_ONE = 1 << _SHIFT
_THIRD = 0.36
_CORNERS: dict[str, tuple[tuple[float, float], ...]] = {
    "square": ((-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)),
    "triangle": ((0.0, -1.0), (1.0, 0.85), (-1.0, 0.85)),
    "diamond": ((0.0, -1.0), (1.0, 0.0), (0.0, 1.0), (-1.0, 0.0)),
    "cross": (
        (-_THIRD, -1), (_THIRD, -1), (_THIRD, -_THIRD), (1, -_THIRD), (1, _THIRD), (_THIRD, _THIRD),
        (_THIRD, 1), (-_THIRD, 1), (-_THIRD, _THIRD), (-1, _THIRD), (-1, -_THIRD), (-_THIRD, -_THIRD),
    ),
}  # fmt: skip
_POLYGON = {shape: np.array(corners) for shape, corners in _CORNERS.items()}

# OpenCV's anti-aliased fills come out wider than asked: by this many pixels on each side (measured by their coverage)
_SWELL, _SWELL_CIRCLE = 0.69, 0.53


def _outward(corners: np.ndarray) -> np.ndarray:
    """For each corner (clockwise as seen) the vector by which it moves when every edge moves outward by 1."""
    edges = np.roll(corners, -1, axis=0) - corners
    after = np.stack([edges[:, 1], -edges[:, 0]], axis=1) / np.hypot(*edges.T)[:, None]
    before = np.roll(after, 1, axis=0)
    return (before + after) / (1 + (before * after).sum(axis=1, keepdims=True))


_OUTWARD = {shape: _outward(corners) for shape, corners in _POLYGON.items()}
_CLEAR = 70.0  # distance in RGB at which a small thing stands out from its ground
_LUMA = np.array([0.299, 0.587, 0.114])


def render(
    layout: Layout, size: int, difficulty: float, rng: np.random.Generator, kind: str | None = None
) -> np.ndarray:
    """Draw every frame of a layout: uint8 [F, size, size, 3], RGB. `kind` of background: any of `BACKGROUNDS` (None).

    Muted background (a quarter of them as light as one of the things), anti-aliased things with small jitter of
    colour, sensor noise of its own in every frame. Texture, noise and the loss of contrast grow with `difficulty`.
    """
    paints = [paint(sprite.color, difficulty, rng) for sprite in layout.sprites]
    ground = _background(size, difficulty, paints, rng, kind)
    frames = np.empty((layout.frame_count, size, size, 3), np.uint8)
    spots = (layout.tracks * size).transpose(1, 0, 2).tolist()
    noise = noise_bank(round(2 + 8 * difficulty))
    offsets = rng.integers(0, _BANK, (layout.frame_count, 2)).tolist()
    for frame, places, (top, left) in zip(frames, spots, offsets, strict=True):
        frame[:] = ground
        for sprite, own, (x, y) in zip(layout.sprites, paints, places, strict=True):
            if x == x:  # NaN: not there yet
                draw_sprite(frame, sprite.shape, sprite.size * size, x, y, own)
        add_noise(frame, noise, top, left)
    return frames


def draw_sprite(frame: np.ndarray, shape: str, size: float, x: float, y: float, paint: tuple[int, ...]) -> None:
    """Draw one shape of `size` pixels around (x, y), and again where it leaves over an edge and comes back."""
    side, half = frame.shape[0], size / 2 + 1
    xs = [x] + ([x + side] if x < half else []) + ([x - side] if x > side - half else [])
    ys = [y] + ([y + side] if y < half else []) + ([y - side] if y > side - half else [])
    for cx in xs:
        for cy in ys:
            # OpenCV puts the centre of pixel 0 at 0, fractions of the frame put its left edge there
            px, py = cx - 0.5, cy - 0.5
            if shape == "circle":
                centre = (round(px * _ONE), round(py * _ONE))
                cv2.circle(
                    frame, centre, round((size / 2 - _SWELL_CIRCLE) * _ONE), paint, cv2.FILLED, cv2.LINE_AA, _SHIFT
                )
            else:
                corners = _POLYGON[shape] * (size / 2) - _OUTWARD[shape] * _SWELL + (px, py)
                points = np.rint(corners * _ONE).astype(np.int32)
                cv2.fillPoly(frame, [points], paint, cv2.LINE_AA, _SHIFT)


def boxes(layout: Layout) -> np.ndarray:
    """float32 [n, F, 4]: (x0, y0, x1, y1) as fractions; NaN where not visible.

    Of a thing that an edge cuts in two the larger part is boxed.
    """
    extents = np.array([EXTENT[s.shape] for s in layout.sprites]) * [[s.size / 2] for s in layout.sprites]
    centres = layout.tracks
    parts = []
    for axis in (0, 1):
        low = centres[..., axis] - extents[:, None, axis]
        high = centres[..., axis] + extents[:, None, axis + 2]
        other_side = np.where(-low > high, 1.0, np.where(high - 1.0 > 1.0 - low, -1.0, 0.0))
        low, high = low + other_side, high + other_side
        parts.append((np.maximum(low, 0.0), np.minimum(high, 1.0)))
    (x0, x1), (y0, y1) = parts
    return np.stack([x0, y0, x1, y1], axis=-1).astype(np.float32)


def touched_patches(layout: Layout, k: int, size: int, patch: int = 16) -> np.ndarray:
    """bool [F, R, C]: the patches in which a pixel of sprite k is seen, frame by frame, on both sides of an edge.

    Drawn with nothing but what lies over it, because the corners of its box may hold nothing of it.
    """
    sprite, centres = layout.sprites[k], layout.tracks[k] * size
    over = layout.hidden(k) > 0
    count = -(-size // patch)
    touched = np.zeros((layout.frame_count, count, count), bool)
    last = None
    for f in np.flatnonzero(~np.isnan(centres[:, 0])).tolist():
        above = np.flatnonzero(over[:, f]).tolist()
        if last is not None and (centres[f] == centres[last]).all() and not above:
            touched[f] = touched[last]
            continue
        last = None if above else f
        mask = np.zeros((count * patch, count * patch), np.uint8)
        x, y = centres[f].tolist()
        draw_sprite(mask[:size, :size], sprite.shape, sprite.size * size, x, y, (255,))
        for other in above:
            thing, (u, v) = layout.sprites[k + 1 + other], (layout.tracks[k + 1 + other, f] * size).tolist()
            draw_sprite(mask[:size, :size], thing.shape, thing.size * size, u, v, (0,))
        # the rows and columns of the box, all of them where an edge cuts the thing in two
        reach = sprite.size * size / 2 + 2
        rows, columns = _span(y, reach, size, patch, count), _span(x, reach, size, patch, count)
        window = mask[rows.start * patch : rows.stop * patch, columns.start * patch : columns.stop * patch]
        blocks = window.reshape(rows.stop - rows.start, patch, columns.stop - columns.start, patch)
        touched[f, rows, columns] = blocks.max(axis=(1, 3)) > 0
    return touched


def _span(centre: float, reach: float, size: int, patch: int, count: int) -> slice:
    """Patches within `reach` of a centre along one axis; all of them where that crosses an edge."""
    low, high = centre - reach, centre + reach
    return slice(0, count) if low < 0 or high >= size else slice(int(low) // patch, int(high) // patch + 1)


def paint(color: str, difficulty: float, rng: np.random.Generator) -> tuple[int, ...]:
    """A thing's own colour: its name's, jittered, a little greyer where it is harder."""
    jitter = rng.uniform(-1, 1, 3) * (6 + 4 * difficulty)
    own = np.array(RGB[color]) + jitter
    own += 0.25 * difficulty * (128 - own)
    return tuple(np.clip(own, 0, 255).astype(int).tolist())


def _background(
    size: int, difficulty: float, paints: list[tuple[int, ...]], rng: np.random.Generator, kind: str | None
) -> np.ndarray:
    """uint8 [size, size, 3]: a grey field of one of four kinds, coloured by a ramp between two muted colours."""
    drawn = BACKGROUNDS[int(rng.integers(len(BACKGROUNDS)))]
    kind = kind or drawn
    tint = rng.uniform(-10, 10, 3)
    tint -= _LUMA @ tint
    slope = rng.uniform(0.6, 1.0) * (10 + 30 * difficulty) + rng.uniform(-6, 6, 3)
    colors = np.array(paints, float)
    lumas = rng.uniform(60, 150, 8)
    if rng.random() < 0.25:
        lumas[0] = np.clip(_LUMA @ colors[int(rng.integers(len(colors)))], 60, 160)
    luma = visible(lumas, tint, slope, colors)
    ramp = np.linspace(-1, 1, 256)[:, None] * slope + luma + tint
    table = np.clip(ramp, 0, 255).astype(np.uint8).reshape(256, 1, 3)
    if kind == "flat":
        return np.broadcast_to(table[128, 0], (size, size, 3))
    field = {"gradient": _gradient, "noise": _octaves, "checker": _checker, HELD_OUT: _stripes}[kind](size, rng)
    return cv2.LUT(cv2.merge([field, field, field]), table)


def visible(lumas: np.ndarray, tint: np.ndarray, slope: np.ndarray, colors: np.ndarray) -> float:
    """The first of several lightnesses on whose ramp every thing can be seen, or the best of them.

    Judged at the ends and the middle of the ramp, by distance in RGB. Equal lightness is welcome, equal colour is not.
    """
    grounds = lumas[:, None, None] + tint + np.array([-1.0, 0.0, 1.0])[:, None] * slope
    away = np.sqrt(((grounds[:, :, None, :] - colors) ** 2).sum(axis=3)).min(axis=(1, 2))
    good = away >= _CLEAR
    return float(lumas[int(good.argmax() if good.any() else away.argmax())])


def _gradient(size: int, rng: np.random.Generator) -> np.ndarray:
    """A plane of random slope: uint8 [size, size]."""
    angle = rng.uniform(0, 2 * np.pi)
    line = np.linspace(-1, 1, size, dtype=np.float32)
    scale = 127.0 / (abs(np.cos(angle)) + abs(np.sin(angle)))
    plane = (np.float32(np.sin(angle) * scale) * line)[:, None] + (np.float32(np.cos(angle) * scale) * line)[None, :]
    return (plane + 128).astype(np.uint8)


def _octaves(size: int, rng: np.random.Generator) -> np.ndarray:
    """Smooth noise of three scales, amplitude halved from one to the next: uint8 [size, size]."""
    field = np.zeros((size, size), np.float32)
    for cells, weight in ((4, 0.5), (9, 0.3), (20, 0.2)):
        coarse = rng.random((cells, cells), dtype=np.float32) * np.float32(255 * weight)
        field += cv2.resize(coarse, (size, size), interpolation=cv2.INTER_LINEAR)
    return field.astype(np.uint8)


def _checker(size: int, rng: np.random.Generator) -> np.ndarray:
    """Squares of 1/12 to 1/5 of the frame, at a random offset: uint8 [size, size]."""
    width = rng.uniform(1 / 12, 1 / 5) * size
    (dx, dy), line = rng.uniform(0, 2 * width, 2), np.arange(size)
    across, down = ((line + dx) // width).astype(int) % 2, ((line + dy) // width).astype(int) % 2
    return np.where(down[:, None] == across[None, :], np.uint8(40), np.uint8(215))


def _stripes(size: int, rng: np.random.Generator) -> np.ndarray:
    """Soft bands at a random angle, 1/10 to 1/4 of the frame from one to the next: uint8 [size, size]."""
    angle, phase, turns = rng.uniform(0, np.pi), rng.uniform(0, 2 * np.pi), 2 * np.pi / rng.uniform(0.1, 0.25)
    line = np.linspace(0, turns, size, dtype=np.float32)
    bands = np.sin((line * np.float32(np.sin(angle)))[:, None] + (line * np.float32(np.cos(angle)) + phase)[None, :])
    return (bands * 87 + 128).astype(np.uint8)


_BANK = 512


@lru_cache(maxsize=16)
def noise_bank(halves: int) -> tuple[np.ndarray, np.ndarray]:
    """Gaussian noise with a standard deviation of `halves` / 4 as what it adds and what it takes, both uint8.

    Frames take windows of one bank at random offsets: drawing millions of normal numbers a video would cost more than
    everything else. Two unsigned halves, because OpenCV adds bytes to bytes five times as fast as wider numbers.
    """
    rng = np.random.Generator(np.random.Philox(key=20_260_101))
    noise = np.rint(rng.standard_normal((2 * _BANK, 2 * _BANK, 3), dtype=np.float32) * (halves / 4))
    return np.clip(noise, 0, 255).astype(np.uint8), np.clip(-noise, 0, 255).astype(np.uint8)


def add_noise(frame: np.ndarray, bank: tuple[np.ndarray, np.ndarray], top: int, left: int) -> None:
    """Add a window of the bank to a frame in place, saturating."""
    size = frame.shape[0]
    rows, columns = slice(top, top + size), slice(left, left + size)
    for part, change in zip(bank, (cv2.add, cv2.subtract), strict=True):
        if size > _BANK:
            wrapped = np.ix_(np.arange(top, top + size) % (2 * _BANK), np.arange(left, left + size) % (2 * _BANK))
            change(frame, part[wrapped], dst=frame)
        else:
            change(frame, part[rows, columns], dst=frame)
