"""The closed loop: what is lost by going on showing what was last kept at a place, and the choice that follows from it.

    v(p, t) = R(p, t) + A (1 - exp(-C / B)) + w s(t) C exp(-C' / S)

R are the bits of news (`rate.py`), C the bits by which patch p of frame t differs from what was last kept there, C'
those by which it differs from the frame before, s(t) how still most of frame t is. The second term is bounded: where
all moves with the camera, what was kept is out of date everywhere and soon will be again, and what moves by itself must
not drown in it. The third is not: before a camera at rest, what stands still now and is not what was kept stays wrong
until it is sent. What no frame has shown yet has no C; it is for the floor of coverage.

Frames are walked in order, so each choice knows those before it, as a codec's encoder does. All patches with v of at
least lambda are kept. lambda is found by bisection; what is then missing to exactly K are the largest v that are left.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numba
import numpy as np

from entropy_vision.blocks import ranked
from entropy_vision.grid import grid_size, pad
from entropy_vision.planes import reduced

_AREA = 256  # pixels of the patch for which the bits below are meant
_D0 = 9.0  # grey levels squared
_NOISE = 0.33  # of it
_BOUND, _SOON = 60.0, 400.0  # A, B: bits
_WEIGHT, _STILL = 0.6, 60.0  # w, and S in bits
_MOST = 0.7  # of a frame's patches stand still, or the camera moves; at 0.9 it surely rests
_LIGHT = 1.5  # grey levels of common change from which on it is the light
_STEPS = 8  # of bisection
_LUMA, _LOOK = 16, 24  # values: 4 x 4 of luma, then 2 x 2 of Cr and of Cb


@dataclass(frozen=True, eq=False)
class Looks:
    """What the patches of a video look like, coarsely; N = R C.

    Attributes:
        values: int16 [F, N, 24], grey levels, a common change of the light taken off.
        change: float32 [F, N], bits by which each differs from the frame before, as of 256 pixels; 0 in the first.
        still: float32 [F], in [0, 1].
    """

    values: np.ndarray
    change: np.ndarray
    still: np.ndarray


def looks_of(pixels: np.ndarray, patch_size: int) -> Looks:
    """The looks of uint8 [F, H, W, 3]."""
    _, height, width, _ = pixels.shape
    rows, columns = grid_size(height, width, patch_size)
    values = np.empty((len(pixels), rows * columns, _LOOK), np.int16)
    for frame, into in zip(pad(pixels, patch_size), values, strict=True):
        picture = cv2.cvtColor(reduced(frame, 4 * columns, 4 * rows), cv2.COLOR_RGB2YCrCb)
        _into_patches(picture, columns, into)
    return Looks(values, *_changes(values))


@numba.njit(cache=True)
def _into_patches(picture: np.ndarray, columns: int, out: np.ndarray) -> None:
    for p in range(len(out)):
        y, x = 4 * (p // columns), 4 * (p % columns)
        for i in range(_LUMA):
            out[p, i] = picture[y + i // 4, x + i % 4, 0]
        for i in range(4):
            v, u = y + 2 * (i // 2), x + 2 * (i % 2)
            for k in range(1, 3):
                total = (
                    np.int16(picture[v, u, k]) + picture[v, u + 1, k] + picture[v + 1, u, k] + picture[v + 1, u + 1, k]
                )
                out[p, 12 + 4 * k + i] = (total + 2) // 4


@numba.njit(cache=True)
def _changes(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(change, still); takes the light off `values` in place."""
    frames, places, _ = values.shape
    change, still = np.zeros((frames, places), np.float32), np.ones(frames, np.float32)
    apart, light = np.empty(places, np.float32), np.zeros(3, np.float32)
    for t in range(1, frames):
        for k in range(3):
            low, high = (0, _LUMA) if k == 0 else (12 + 4 * k, 16 + 4 * k)
            for p in range(places):
                total = 0
                for i in range(low, high):  # the frame before has its own light off
                    total += values[t, p, i] - values[t - 1, p, i]
                apart[p] = total / (high - low)
            common = ranked(apart, 0.5) - light[k]
            if abs(common) >= _LIGHT:
                light[k] += common
            off = np.int16(round(light[k]))
            for p in range(places):
                for i in range(low, high):
                    values[t, p, i] -= off
        calm = np.float32(0)
        for p in range(places):
            change[t, p] = _differ(values[t, p], values[t - 1, p])
            calm += np.exp(-change[t, p] / np.float32(_STILL))
        still[t] = min(max((calm / places - np.float32(_MOST)) / np.float32(0.9 - _MOST), np.float32(0)), np.float32(1))
    return change, still


@numba.njit(cache=True)
def _differ(one: np.ndarray, other: np.ndarray) -> np.float32:
    """Bits by which two looks differ, as of a patch of 256 pixels: 256 / 4 log2 of the product of 1 + (V / D)^2.

    Nothing where V / D is below a third, over all channels: noise, and most patches of most frames.
    """
    luma, red, blue = np.int32(0), np.int32(0), np.int32(0)
    for i in range(_LUMA):  # every sum is cut to 32 bits, or they would be taken in 64
        apart = np.int32(one[i]) - np.int32(other[i])
        luma = np.int32(luma + apart * apart)
    for i in range(_LUMA, _LUMA + 4):
        apart = np.int32(one[i]) - np.int32(other[i])
        red = np.int32(red + apart * apart)
    for i in range(_LUMA + 4, _LOOK):
        apart = np.int32(one[i]) - np.int32(other[i])
        blue = np.int32(blue + apart * apart)
    a, b, c = np.float32(luma) / (16 * _D0), np.float32(red) / (4 * _D0), np.float32(blue) / (4 * _D0)
    if a + b + c < _NOISE:
        return np.float32(0)
    return np.float32(_AREA / 4) * np.log2(np.float32((1 + a * a) * (1 + b * b) * (1 + c * c)))


@numba.njit(cache=True)
def walk(
    bits: np.ndarray,
    values: np.ndarray,
    change: np.ndarray,
    still: np.ndarray,
    least: float,
    most: int,
    whole: bool,
    worth: np.ndarray,
    beside: np.ndarray,
    mask: np.ndarray,
) -> int:
    """Keep, frame by frame, every patch worth `least` bits or more.

    Args:
        bits: float32 [F, N], news, as of 256 pixels like all bits here.
        values, change, still: of `Looks`.
        most: stop where more than this many are kept.
        whole: the first frame is kept as a whole.
        worth: float32 [F, N], written: v.
        beside: int32 [F, N], the frame last kept at the place of which `worth` has v already, written; -1 where nothing
            was kept, anything less where v is not known. So a further walk counts anew only what comes out otherwise.
        mask: bool [F, N], written.

    Returns:
        How many patches are kept; the arrays are complete only where it is at most `most`.
    """
    frames, places = bits.shape
    last = np.full(places, -1, np.int32)
    kept = 0
    for t in range(frames):
        for p in range(places):
            if beside[t, p] != last[p]:
                lost = _differ(values[t, p], values[last[p], p]) if last[p] >= 0 else np.float32(0)
                value = bits[t, p]
                if lost > 0:
                    value += np.float32(_BOUND) * (1 - np.exp(-lost / np.float32(_SOON)))
                    if still[t] > 0:
                        value += np.float32(_WEIGHT) * still[t] * lost * np.exp(-change[t, p] / np.float32(_STILL))
                worth[t, p], beside[t, p] = value, last[p]
            keeps = worth[t, p] >= least or (whole and t == 0)
            mask[t, p] = keeps
            if keeps:
                kept += 1
                last[p] = t
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
    worth, mask = np.empty(news.shape, np.float32), np.empty(news.shape, bool)
    beside = np.full(news.shape, -2, np.int32)
    given, out = (news, looks.values, looks.change, looks.still), (worth, beside, mask)
    least *= float(scale)
    if walk(*given, least, count, whole, *out) > count:
        # v is R and what is lost, so as many have the K-th largest R; nothing loses more than `high`
        low = max(least, float(np.partition(news.ravel(), news.size - count)[news.size - count]))
        high = float(news.max()) + _BOUND + _AREA / 4 * 3 * 2 * np.log2(255**2 / _D0)
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
