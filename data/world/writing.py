"""Letters and digits in cells of equal width: what is written never shows in how much room it takes.

OpenCV's stroke fonts (after A. V. Hershey, 1967) are drawn once, large; a smaller copy is their exact area average.
"""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np

FONTS = (cv2.FONT_HERSHEY_SIMPLEX, cv2.FONT_HERSHEY_DUPLEX, cv2.FONT_HERSHEY_COMPLEX)
CELL = 0.85  # width of a cell, in heights of a capital letter

_MASTER = 96
_UNITS = 21.0  # height of a capital letter at scale 1
_STROKE = {cv2.FONT_HERSHEY_SIMPLEX: 13, cv2.FONT_HERSHEY_DUPLEX: 10, cv2.FONT_HERSHEY_COMPLEX: 9}
_WIDEST = 0.75


def field(text: str, x: float, y: float, height: float) -> tuple[float, float, float, float]:
    """Box (x0, y0, x1, y1) of the cells of a text around (x, y), in the units of `height`."""
    half = len(text) * CELL * height / 2
    return x - half, y - height / 2, x + half, y + height / 2


def write(
    frame: np.ndarray, text: str, font: int, box: tuple[float, float, float, float], ink: tuple[int, ...]
) -> None:
    """Write into a box of pixels, in place. No pixel outside the pixels that the box shares is touched.

    Args:
        frame: uint8 [H, W, 3] or [H, W].
        text: capitals and digits.
        box: (x0, y0, x1, y1) as `field` gives it; what lies outside the frame is not drawn.
    """
    summed = _summed(text, font)
    (x0, y0, x1, y1), (height, width) = box, frame.shape[:2]
    left, right = max(0, int(np.floor(x0))), min(width, int(np.ceil(x1)))
    top, bottom = max(0, int(np.floor(y0))), min(height, int(np.ceil(y1)))
    if right <= left or bottom <= top:
        return
    for start, end, low, high in ((y0, y1, top, bottom), (x0, x1, left, right)):
        # what lies before each edge of a pixel, linear between the texels' edges; differences are what lies in a pixel
        edges = np.clip((np.arange(low, high + 1) - start) / (end - start), 0, 1) * (len(summed) - 1)
        whole = np.minimum(edges.astype(int), len(summed) - 2)
        before = summed[whole] + (edges - whole)[:, None] * (summed[whole + 1] - summed[whole])
        summed = (np.diff(before, axis=0) * ((end - start) / (len(summed) - 1))).T
    window = frame[top:bottom, left:right]
    cover = summed[:, :, None] if frame.ndim == 3 else summed
    window[:] = np.rint(window + cover * (np.array(ink, float) - window))


@lru_cache(maxsize=512)
def _summed(text: str, font: int) -> np.ndarray:
    """float64 [97, len * cell + 1]: how much ink there is above and to the left of every corner of a texel."""
    ink = np.concatenate([_glyph(char, font) for char in text], axis=1)
    return np.pad(ink.cumsum(axis=0).cumsum(axis=1), ((1, 0), (1, 0)))


@lru_cache(maxsize=256)
def _glyph(char: str, font: int) -> np.ndarray:
    """One character as high as a capital letter in the middle of its cell, squeezed where it is too wide."""
    canvas = np.zeros((3 * _MASTER, 3 * _MASTER), np.uint8)
    cv2.putText(canvas, char, (_MASTER, 2 * _MASTER), font, _MASTER / _UNITS, 255, _STROKE[font], cv2.LINE_AA)
    rows, columns = np.flatnonzero(canvas.any(axis=1)), np.flatnonzero(canvas.any(axis=0))
    ink = canvas[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    wide = min(round(ink.shape[1] * _MASTER / ink.shape[0]), round(_WIDEST * _MASTER))
    cell = np.zeros((_MASTER, round(CELL * _MASTER)))
    left = (cell.shape[1] - wide) // 2
    cell[:, left : left + wide] = cv2.resize(ink, (wide, _MASTER), interpolation=cv2.INTER_AREA) / 255.0
    return cell
