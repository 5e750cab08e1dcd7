"""Colours apart: a frame as planes of red, green and blue, its luma, and luma with the differences of colour.

Where the channels of a pixel lie side by side, a processor's vector units cannot take them as they stand; apart, all
that follows is cheap. Values are those of OpenCV's conversions to the last digit, and from YUV those of FFmpeg's.
"""

from __future__ import annotations

import numba
import numpy as np

_i32 = np.int32  # products are cut to 32 bits, or they would be taken in 64
_u = np.uint64  # of places: a signed one may count from the end, and asking keeps several from being taken at once


@numba.njit(cache=True)
def apart(frame: np.ndarray) -> np.ndarray:
    """[H, W, 3] -> [3, H, W]."""
    height, width, _ = frame.shape
    pixels, out = np.ascontiguousarray(frame).reshape(height, 3 * width), np.empty((3, height, width), frame.dtype)
    for y in range(height):
        row, one, two, three = pixels[y], out[0, y], out[1, y], out[2, y]
        for x in range(width):
            one[x], two[x], three[x] = row[3 * x], row[3 * x + 1], row[3 * x + 2]
    return out


@numba.njit(cache=True)
def together(colours: np.ndarray) -> np.ndarray:
    """[3, H, W] -> [H, W, 3]."""
    _, height, width = colours.shape
    out = np.empty((height, width, 3), colours.dtype)
    pixels = out.reshape(height, 3 * width)
    for y in range(height):
        row, one, two, three = pixels[y], colours[0, y], colours[1, y], colours[2, y]
        for x in range(width):
            row[3 * x], row[3 * x + 1], row[3 * x + 2] = one[x], two[x], three[x]
    return out


@numba.njit(cache=True)
def luma_of(colours: np.ndarray) -> np.ndarray:
    """Luma of uint8 [3, H, W], RGB: uint8 [H, W]."""
    out = np.empty_like(colours[0])
    weigh(colours[0].ravel(), colours[1].ravel(), colours[2].ravel(), out.ravel())
    return out


@numba.njit(cache=True, inline="always")
def weigh(red: np.ndarray, green: np.ndarray, blue: np.ndarray, luma: np.ndarray) -> None:
    """Luma of uint8 [N] of each colour, written."""
    for i in range(len(luma)):
        luma[i] = (_i32(red[i]) * _i32(9798) + _i32(green[i]) * _i32(19235) + _i32(blue[i]) * _i32(3735) + 16384) >> 15


@numba.njit(cache=True)
def ycrcb(colours: np.ndarray) -> np.ndarray:
    """Luma, Cr and Cb of uint8 [3, H, W], RGB: the same."""
    out = np.empty_like(colours)
    _differences(colours, out[0], out[1:])
    return out


@numba.njit(cache=True)
def chroma_of(colours: np.ndarray) -> np.ndarray:
    """Cr and Cb of uint8 [3, H, W], RGB: uint8 [2, H, W]."""
    out = np.empty((2, colours.shape[1], colours.shape[2]), np.uint8)
    _differences(colours, np.empty_like(colours[0]), out)
    return out


@numba.njit(cache=True)
def _differences(colours: np.ndarray, luma: np.ndarray, chroma: np.ndarray) -> None:
    """Luma [H, W], and Cr and Cb [2, H, W]: 128 and what red and blue are above luma, in 2^14ths of a weight."""
    red, green, blue, grey = colours[0].ravel(), colours[1].ravel(), colours[2].ravel(), luma.ravel()
    for i in range(len(grey)):
        grey[i] = (_i32(red[i]) * _i32(4899) + _i32(green[i]) * _i32(9617) + _i32(blue[i]) * _i32(1868) + 8192) >> 14
    _difference(red, grey, _i32(11682), chroma[0].ravel())
    _difference(blue, grey, _i32(9241), chroma[1].ravel())


@numba.njit(cache=True)
def _difference(colour: np.ndarray, luma: np.ndarray, weight: np.int32, out: np.ndarray) -> None:
    for i in range(len(out)):
        above = _i32(_i32(_i32(colour[i]) - _i32(luma[i])) * weight + _i32((128 << 14) + 8192))
        out[i] = min(max(_i32(above >> 14), _i32(0)), _i32(255))


@numba.njit(cache=True)
def to_rgb(y: np.ndarray, u: np.ndarray, v: np.ndarray, line: np.ndarray, out: np.ndarray) -> None:
    """Luma uint8 [H, W and more], chroma uint8 [H, W / 2 and more] to RGB, written: uint8 [H, 3 W]."""
    rv, r0, gu, gv, g0, bu, b0, gain, added = line
    shift, black, white = _i32(16), _i32(0), _i32(255)
    pairs = _u(out.shape[1] // 6)
    for row in range(_u(len(out))):
        ys, us, vs, rgb = y[row], u[row], v[row], out[row]
        for pair in range(pairs):
            cb, cr = _i32(us[pair]), _i32(vs[pair])
            red = _i32(_i32((_i32(rv * cr) >> shift) + r0) * gain + added)
            green = _i32(_i32((_i32(gu * cb) >> shift) + (_i32(gv * cr) >> shift) + g0) * gain + added)
            blue = _i32(_i32((_i32(bu * cb) >> shift) + b0) * gain + added)
            for odd in range(_u(2)):
                luma, at = _i32(_i32(ys[_u(2) * pair + odd]) * gain), _u(6) * pair + _u(3) * odd
                rgb[at] = min(max(_i32(luma + red) >> shift, black), white)
                rgb[at + _u(1)] = min(max(_i32(luma + green) >> shift, black), white)
                rgb[at + _u(2)] = min(max(_i32(luma + blue) >> shift, black), white)
