"""The closed loop: what is lost by going on showing what was last kept at a place, and the choice that follows from it.

    v(p, t) = R(p, t) + A (1 - exp(-C / B)) + w L(p, t) + d (sum of L(p, .) over the frames since p was last kept)
    L(p, t) = C max(exp(-max(C', C'') / S), g f(t))

R are the bits of news (`rate.py`), C the bits by which patch p of frame t differs from what was last kept there, C'
those by which it differs from the frame before, C'' those by which the camera will have changed it some frames on. The
second term is bounded: where all moves with the camera, what was kept is out of date everywhere and soon will be again,
and what moves by itself must not drown in it. L is not bounded, for it is a loss that nothing else explains: what rests
and is not what was kept stays wrong until it is sent, and while a picture turns into another without moving (f: a
dissolve, a fade) no motion brings it back. It adds up, so what is wrong a little is sent late and not never. What no
frame has shown yet has no C; it is for the floor of coverage.

What the camera does is read off how the change of a patch grows with its gradient energy G: a shift by a share x of a
cell (a quarter of a patch's side) leaves about x^2 G in steep patches and in flat ones, and after n frames n^2 x^2 G. A
dissolve leaves as much in either. So a flat patch rests whatever moves, and what an object uncovers there is sent.

Frames are walked in order, so each choice knows those before it, as a codec's encoder does. All patches with v of at
least lambda are kept. lambda is found by bisection; what is then missing to exactly K are the largest v that are left.
"""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np

from entropy_vision.blocks import flat_and_steep, ranked
from entropy_vision.colour import ycrcb
from entropy_vision.intra import gaussian_rate

_AREA = 256  # pixels of the patch for which the bits below are meant
_D0 = 9.0  # grey levels squared
_NOISE = 0.33  # of it
_BOUND, _SOON = 60.0, 400.0  # A, B: bits
_WEIGHT, _LATE, _STILL = 0.6, 0.05, 60.0  # w, d, and S in bits
_RESTS = 0.003  # cells squared of apparent shift up to which the camera rests
_AHEAD = 8  # n, frames
_SENSOR, _FADE = 8.0, 8.0  # grey levels squared that are noise in a flat patch, and as many more that are a dissolve
_FADES = 0.6  # g
_LIGHT = 1.5  # grey levels of common change from which on it is the light
_STEPS = 9  # of bisection
_LUMA, _BLUE, _LOOK = 16, 20, 24  # values: 4 x 4 of luma, then 2 x 2 of Cr and from the 20th on of Cb
_i32, _u = np.int32, np.uint64  # sums are cut to 32 bits, or they would be taken in 64; of `_u` see planes.py


@dataclass(frozen=True, eq=False)
class Looks:
    """What the patches of a video look like, coarsely; N = R C.

    Attributes:
        values: int16 [F, N, 24], grey levels, a common change of the light taken off.
        rests: float32 [F, N] in [0, 1]: exp(-max(C', C'') / S), how surely each is now what it was and will be.
        fading: float32 [F], f in [0, 1]: how much of the change is a dissolve.
    """

    values: np.ndarray
    rests: np.ndarray
    fading: np.ndarray


def looks_of(thumbnails: np.ndarray) -> Looks:
    """The looks of frames by red, green and blue, uint8 [F, 3, 4 R, 4 C]; see `planes.planes_and_thumbnail`."""
    return Looks(*_looks(thumbnails))


@numba.njit(cache=True)
def _looks(thumbnails: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(values, rests, fading)."""
    frames, _, height, width = thumbnails.shape
    values = np.empty((frames, height // 4 * (width // 4), _LOOK), np.int16)
    for t in range(frames):
        _into_patches(thumbnails[t], width // 4, values[t])
    rests, fading = _changes(values)
    return values, rests, fading


@numba.njit(cache=True)
def _into_patches(colours: np.ndarray, columns: int, out: np.ndarray) -> None:
    """Looks int16 [N, 24] of red, green and blue, uint8 [3, 4 R, 4 C]."""
    picture = ycrcb(colours)
    for p in range(len(out)):
        y, x = 4 * (p // columns), 4 * (p % columns)
        for i in range(_LUMA):
            out[p, i] = picture[0, y + i // 4, x + i % 4]
        for i in range(4):
            v, u = y + 2 * (i // 2), x + 2 * (i % 2)
            for k in range(1, 3):
                total = (
                    np.int16(picture[k, v, u]) + picture[k, v, u + 1] + picture[k, v + 1, u] + picture[k, v + 1, u + 1]
                )
                out[p, 12 + 4 * k + i] = (total + 2) // 4


@numba.njit(cache=True)
def _changes(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(rests, fading); takes the light off `values` in place."""
    frames, places, _ = values.shape
    rests, fading = np.ones((frames, places), np.float32), np.zeros(frames, np.float32)
    light = np.zeros(3, np.float32)
    for t in range(1, frames):
        _take_light_off(values[t], values[t - 1], light)
        slope, shift, unexplained = _apparent(values[t], values[t - 1])
        fading[t] = min(max((unexplained - _SENSOR) / _FADE, 0.0), 1.0)
        for p in range(places):
            change = _differ(values[t, p], values[t - 1, p])
            if shift > _RESTS:
                ratio = np.float32(_AHEAD**2 / _D0) * np.float32(shift - _RESTS) * slope[p]
                change = max(change, np.float32(_AREA / 4) * np.log2(1 + ratio * ratio))
            if change > 0:
                rests[t, p] = np.exp(-change / np.float32(_STILL))
    return rests, fading


@numba.njit(cache=True)
def _take_light_off(now: np.ndarray, before: np.ndarray, light: np.ndarray) -> None:
    """In place off `now`; `before` has its own light off, which `light` float32 [3] is and then that of `now`."""
    apart = np.empty((3, len(now)), np.float32)
    for p in range(_u(len(now))):
        luma, red, blue = _i32(0), _i32(0), _i32(0)
        for i in range(_LUMA):
            luma = _i32(luma + _i32(now[p, i]) - _i32(before[p, i]))
        for i in range(_LUMA, _BLUE):
            red = _i32(red + _i32(now[p, i]) - _i32(before[p, i]))
        for i in range(_BLUE, _LOOK):
            blue = _i32(blue + _i32(now[p, i]) - _i32(before[p, i]))
        apart[0, p], apart[1, p], apart[2, p] = luma / np.float32(16), red / np.float32(4), blue / np.float32(4)
    for k, low, high in ((0, 0, _LUMA), (1, _LUMA, _BLUE), (2, _BLUE, _LOOK)):
        common = ranked(apart[k], 0.5) - light[k]
        if abs(common) >= _LIGHT:
            light[k] = min(max(light[k] + common, np.float32(-255)), np.float32(255))  # changes may never add up to 0
        off = np.int16(round(light[k]))
        if off:
            now[:, low:high] -= off


@numba.njit(cache=True)
def _apparent(now: np.ndarray, before: np.ndarray) -> tuple[np.ndarray, float, float]:
    """Gradient energies [N], the shift that steep patches show beside flat ones, and what flat ones change beyond any.

    The second in cells squared; the third in grey levels squared: beyond twice what there would be if all change of
    steep patches were a shift.
    """
    places = len(now)
    left, slope = np.empty(places, np.float32), np.empty(places, np.float32)
    for p in range(places):
        error, rise = np.int32(0), np.int32(0)
        for i in range(_LUMA):
            apart = np.int32(now[p, i]) - np.int32(before[p, i])
            error += apart * apart
            if i % 4 < 3:
                along = np.int32(now[p, i + 1]) - np.int32(now[p, i])
                rise += along * along
            if i < 12:
                down = np.int32(now[p, i + 4]) - np.int32(now[p, i])
                rise += down * down
        left[p], slope[p] = error / np.float32(16), rise / np.float32(12)
    gentle, steep, calm, wild = flat_and_steep(slope, left)
    shift = (wild - calm) / (steep - gentle + 1)
    return slope, float(shift), float(calm - 2 * wild / (steep + 1) * gentle)


@numba.njit(cache=True, inline="always")  # a call takes as long
def _differ(one: np.ndarray, other: np.ndarray) -> np.float32:
    """Bits by which two looks differ, as of a patch of 256 pixels: 256 / 4 log2 of the product of 1 + (V / D)^2.

    Nothing where V / D is below a third, over all channels: noise, and most patches of most frames.
    """
    luma, red, blue = _i32(0), _i32(0), _i32(0)
    for i in range(_LUMA):
        luma = _squared(one, other, i, luma)
    for i in range(_LUMA, _BLUE):
        red = _squared(one, other, i, red)
    for i in range(_BLUE, _LOOK):
        blue = _squared(one, other, i, blue)
    a, b, c = np.float32(luma) / (16 * _D0), np.float32(red) / (4 * _D0), np.float32(blue) / (4 * _D0)
    bits = np.float32(0)
    if a + b + c >= _NOISE:
        bits = np.float32(_AREA) * gaussian_rate(np.float32((1 + a * a) * (1 + b * b) * (1 + c * c)))
    return bits


@numba.njit(cache=True, inline="always")
def _squared(one: np.ndarray, other: np.ndarray, i: int, total: np.int32) -> np.int32:
    apart = _i32(one[i]) - _i32(other[i])
    return _i32(total + apart * apart)


@numba.njit(cache=True)
def walk(
    bits: np.ndarray,
    values: np.ndarray,
    rests: np.ndarray,
    fading: np.ndarray,
    least: float,
    most: int,
    whole: bool,
    worth: np.ndarray,
    losses: np.ndarray,
    beside: np.ndarray,
    mask: np.ndarray,
) -> int:
    """Keep, frame by frame, every patch worth `least` bits or more.

    Args:
        bits: float32 [F, N], news, as of 256 pixels like all bits here.
        values, rests, fading: of `Looks`.
        most: stop where more than this many are kept.
        whole: the first frame is kept as a whole.
        worth, losses: float32 [F, N], written: v and L.
        beside: int32 [F, N], the frame last kept at the place of which these have v and L already, written; -1 where
            nothing was kept, anything less where they are not known. So a further walk counts anew only what comes out
            otherwise.
        mask: bool [F, N], written.

    Returns:
        How many patches are kept; the arrays are complete only where it is at most `most`.
    """
    frames, places = bits.shape
    last, owed = np.full(places, -1, np.int32), np.zeros(places, np.float32)
    kept = 0
    for t in range(frames):
        for p in range(places):
            if beside[t, p] != last[p]:  # between the frame last kept and this one nothing was: v follows from the two
                value, loss = bits[t, p], np.float32(0)
                apart = _differ(values[t, p], values[last[p], p]) if last[p] >= 0 else np.float32(0)
                if apart > 0:
                    loss = apart * max(rests[t, p], np.float32(_FADES) * fading[t])
                    value += np.float32(_BOUND) * (1 - np.exp(-apart / np.float32(_SOON)))
                    value += np.float32(_WEIGHT) * loss + np.float32(_LATE) * owed[p]
                worth[t, p], losses[t, p], beside[t, p] = value, loss, last[p]
            owed[p] += losses[t, p]
            keeps = worth[t, p] >= least or (whole and t == 0)
            mask[t, p] = keeps
            if keeps:
                kept += 1
                last[p], owed[p] = t, 0
        if kept > most:
            return kept
    return kept


def closed_loop(
    bits: np.ndarray, looks: Looks, count: int, whole: bool, least: float, patch_size: int
) -> tuple[np.ndarray, np.ndarray]:
    """The patches worth most when each choice knows those before it, at most `count`, none below `least` bits.

    Args:
        bits: float32 [F, R, C].
        patch_size: P; what is lost counts as much a pixel as news do.

    Returns:
        (mask bool [F, R, C], v float32 [F, R, C]).
    """
    scale = np.float32(_AREA / patch_size**2)
    news = np.ascontiguousarray(bits.reshape(len(bits), -1) * scale, np.float32)
    worth, losses, mask = np.empty(news.shape, np.float32), np.empty(news.shape, np.float32), np.empty(news.shape, bool)
    given = news, looks.values, looks.rests, looks.fading
    out = worth, losses, np.full(news.shape, -2, np.int32), mask
    least *= float(scale)
    if walk(*given, least, count, whole, *out) > count:
        # v is R and what is lost, so as many have the K-th largest R; nothing loses more than `high`
        low = max(least, float(np.partition(news.ravel(), news.size - count)[news.size - count]))
        most_apart = _AREA / 4 * 3 * 2 * np.log2(510**2 / _D0)  # with the light taken off
        high = float(news.max()) + _BOUND + (_WEIGHT + _LATE * len(news)) * most_apart
        for _ in range(_STEPS):
            middle = _between(low, high)
            if walk(*given, middle, count, whole, *out) > count:
                low = middle
            else:
                high = middle
        walk(*given, high, count, whole, *out)
    return mask.reshape(bits.shape), worth.reshape(bits.shape) / scale


def _between(low: float, high: float) -> float:
    """Their geometric mean: what separates patches is small beside the largest."""
    return float(np.sqrt((low + 1) * (high + 1)) - 1)
