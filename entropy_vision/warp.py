"""Planes along a motion: what was seen before, from where the camera is now.

Bicubic interpolation (Keys, "Cubic convolution interpolation for digital image processing", 1981). Along a row of an
affine map the samples of the source lie side by side for as long as their whole parts go on in step, which for a camera
is most of a row. Such a run is taken at once, which a processor's vector units can do.
"""

from __future__ import annotations

import numba
import numpy as np

from entropy_vision.motion import Motion, on_grid
from entropy_vision.planes import Planes

_A = -0.75  # of Keys' kernel: sharper than the -0.5 of least error
_1, _2, _3 = np.uint64(1), np.uint64(2), np.uint64(3)
_RIM = 4  # samples that the border is repeated by: a sample outside lies at most two beyond it


def warp(planes: Planes, motion: Motion) -> Planes:
    """Planes seen before, from where the camera is now; what was outside repeats the border.

    Args:
        planes: uint8 or float32; so is what is given.
        motion: float64 [2, 3], A with before(A @ (x, y, 1)) ~ now(x, y), of luma's samples.
    """
    both = _rounded_both if planes.luma.dtype == np.uint8 else _both
    return Planes(*both(planes.luma, planes.chroma, motion))


@numba.njit(cache=True)
def _both(luma: np.ndarray, chroma: np.ndarray, motion: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """float32; one call for all planes."""
    height, width = luma.shape
    return _warped(luma.reshape(1, height, width), motion)[0], _warped(chroma, on_grid(motion, 0.5, 0.5))


@numba.njit(cache=True)
def _rounded_both(luma: np.ndarray, chroma: np.ndarray, motion: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    one, two = _both(luma, chroma, motion)
    return _rounded(one), _rounded(two)


@numba.njit(cache=True)
def _warped(source: np.ndarray, motion: np.ndarray) -> np.ndarray:
    """Planes [n, H, W], uint8 or float32, along a motion: float32 [n, H, W]."""
    if not np.isfinite(motion).all():
        raise ValueError("a motion is finite")
    count, height, width = source.shape
    wide, out = _rimmed(source), np.empty((count, height, width), np.float32)
    ramp = np.arange(width).astype(np.float32)
    at_x, at_y = np.empty_like(ramp), np.empty_like(ramp)
    for y in range(height):
        _place(ramp, motion[0, 0], motion[0, 1] * y + motion[0, 2], width, at_x)
        _place(ramp, motion[1, 0], motion[1, 1] * y + motion[1, 2], height, at_y)
        first, last = _inside(at_x)
        at_x -= ramp
        begin = 0
        while begin < width:
            end = _run_end(at_x, at_y, begin, last) if first <= begin < last else begin + 1
            _run(wide, at_x, at_y, out, y, begin, end)
            begin = end
    return out


@numba.njit(cache=True)
def _place(ramp: np.ndarray, step: float, start: float, side: int, at: np.ndarray) -> None:
    """Where the samples of a row lie along an axis of `side` samples, `step` apart; at most two beyond its ends."""
    apart, first = np.float32(step), np.float32(start)
    least, most = np.float32(-2), np.float32(side + 1)
    for x in range(len(at)):
        at[x] = min(max(apart * ramp[x] + first, least), most)


@numba.njit(cache=True)
def _inside(at: np.ndarray) -> tuple[int, int]:
    """From which sample of a row to which they lie within the axis, which has as many: others were put at its ends."""
    first, last = 0, len(at)
    while first < last and not 0 <= at[first] <= len(at) - 1:
        first += 1
    while first < last and not 0 <= at[last - 1] <= len(at) - 1:
        last -= 1
    return first, last


@numba.njit(cache=True)
def _run_end(off_x: np.ndarray, at_y: np.ndarray, begin: int, last: int) -> int:
    """Up to where samples lie in step with sample `begin`, of those before `last`: their whole parts are the same.

    All of these lie within the axis, so what they lie off only grows or only falls, and where they part they part for
    good: it is found by halving. Where rounding has them part and meet again, some sample is taken as lying a rounding
    error outside its cell.
    """
    across, down = np.floor(off_x[begin]), np.floor(at_y[begin])
    low, high, probe = begin, last, begin + 1
    while high - low > 1:
        if np.floor(off_x[probe]) == across and np.floor(at_y[probe]) == down:
            low = probe
        else:
            high = probe
        probe = last - 1 if low == begin + 1 and high == last else (low + high) // 2
    return high


@numba.njit(cache=True)
def _rimmed(source: np.ndarray) -> np.ndarray:
    """Planes [n, H, W] with their borders repeated: float32 [n, H + 2 rim, W + 2 rim]."""
    count, height, width = source.shape
    out = np.empty((count, height + 2 * _RIM, width + 2 * _RIM), np.float32)
    for k in range(count):
        for y in range(height):
            row = out[k, y + _RIM]
            for x in range(width):
                row[x + _RIM] = source[k, y, x]
            row[:_RIM] = row[_RIM]
            row[width + _RIM :] = row[width + _RIM - 1]
        out[k, :_RIM] = out[k, _RIM]
        out[k, height + _RIM :] = out[k, height + _RIM - 1]
    return out


@numba.njit(cache=True)
def _run(wide: np.ndarray, off_x: np.ndarray, at_y: np.ndarray, out: np.ndarray, y: int, begin: int, end: int) -> None:
    """Samples `begin` to `end` of row `y`, each from the 4 x 4 of `wide` around where it lies."""
    low_x, low_y = np.floor(off_x[begin]), np.floor(at_y[begin])
    # unsigned: a signed place may count from the end, and asking keeps the compiler from taking several at once
    left, top = np.uint64(int(low_x) + begin + _RIM - 1), np.uint64(int(low_y) + _RIM - 1)
    top1, top2, top3 = top + _1, top + _2, top + _3
    for k in range(len(out)):
        for n in range(np.uint64(end - begin)):
            i, x = np.uint64(begin) + n, left + n
            x1, x2, x3 = x + _1, x + _2, x + _3
            a, b, c, d = _weights(off_x[i] - low_x)
            e, f, g, h = _weights(at_y[i] - low_y)
            one = a * wide[k, top, x] + b * wide[k, top, x1] + c * wide[k, top, x2] + d * wide[k, top, x3]
            two = a * wide[k, top1, x] + b * wide[k, top1, x1] + c * wide[k, top1, x2] + d * wide[k, top1, x3]
            three = a * wide[k, top2, x] + b * wide[k, top2, x1] + c * wide[k, top2, x2] + d * wide[k, top2, x3]
            four = a * wide[k, top3, x] + b * wide[k, top3, x1] + c * wide[k, top3, x2] + d * wide[k, top3, x3]
            out[k, y, i] = e * one + f * two + g * three + h * four


@numba.njit(cache=True, inline="always")
def _weights(t: np.float32) -> tuple[np.float32, np.float32, np.float32, np.float32]:
    """Keys' kernel at the distances 1 + t, t, 1 - t and 2 - t."""
    a, one = np.float32(_A), np.float32(1)
    rest = one - t
    first, last = a * t * rest * rest, a * rest * t * t
    second = ((a + np.float32(2)) * t - (a + np.float32(3))) * t * t + one
    return first, second, one - first - second - last, last


@numba.njit(cache=True)
def _rounded(values: np.ndarray) -> np.ndarray:
    """float32 as uint8, cut to its range."""
    out = np.empty(values.shape, np.uint8)
    one, other = values.ravel(), out.ravel()
    for i in range(len(one)):
        other[i] = np.uint8(min(max(one[i] + np.float32(0.5), np.float32(0)), np.float32(255)))
    return out
