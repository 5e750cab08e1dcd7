"""Where one shot of a video ends and the next begins, told while its frames pass by.

A cut is a frame that the one before does not predict: for more than half of its blocks the residual, along the motions
that the two frames share and without the light they do not, is more than what the block holds around its own mean. It
is the test by which encoders put a keyframe at a cut (cost of inter against cost of intra prediction; Meng, Juan and
Chang, "Scene change detection in an MPEG-compressed video sequence", 1995), and the one at which `rate` starts anew
(`inter.py`). A pan, a fade or noise is predicted; a flash is told by the frame behind it, which is as before.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby
from operator import itemgetter

import cv2
import numpy as np

from entropy_vision.past import is_cut, look_back
from entropy_vision.planes import SAMPLES, Planes, planes_of
from entropy_vision.sampling import sample

_LONG_SIDE = 7 * SAMPLES  # at which frames are compared: in means of so many pixels noise is faint, and a pan is short
_MOST_GAIN = 2.0  # of contrast from one frame to the next


def sample_shots(frames: Iterable[tuple[float, np.ndarray]], fps: float) -> Iterator[tuple[float, np.ndarray]]:
    """Of (seconds, uint8 [H, W, 3]) in order, the first of every shot and from there `fps` a second to its end."""
    for _, shot in groupby(shots(frames), key=itemgetter(0)):
        yield from sample(((time, pixels) for _, time, pixels in shot), fps)


def shots(frames: Iterable[tuple[float, np.ndarray]]) -> Iterator[tuple[int, float, np.ndarray]]:
    """(number of its shot, seconds, pixels) of (seconds, uint8 [H, W, 3]) in order; one frame at most is held back.

    A frame that differs from those on both sides of it, which are alike, is a flash and no shot.
    """
    shot = 0
    last: Planes | None = None
    doubtful: tuple[float, np.ndarray, Planes] | None = None  # a frame unlike `last`, the one before it
    for time, pixels in frames:
        view = _view(pixels)
        other = last is not None and _differs(last, view)
        if doubtful is not None:
            shot += other
            yield shot, doubtful[0], doubtful[1]
            other = other and _differs(doubtful[2], view)
            last, doubtful = doubtful[2], None
        if other:
            doubtful = time, pixels, view
        else:
            yield shot, time, pixels
            last = view
    if doubtful is not None:
        yield shot + 1, doubtful[0], doubtful[1]


def _view(pixels: np.ndarray) -> Planes:
    """A frame as it is compared."""
    height, width = pixels.shape[:2]
    scale = min(1.0, _LONG_SIDE / max(height, width))
    size = [SAMPLES * max(1, round(scale * side / SAMPLES)) for side in (width, height)]
    return planes_of(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), SAMPLES)


def _differs(before: Planes, now: Planes) -> bool:
    """Whether the later frame is another picture, in whatever light."""
    return is_cut(look_back(now, before)) and is_cut(look_back(now, _relit(before, now)))


def _relit(before: Planes, now: Planes) -> Planes:
    """The earlier frame with the brightness and contrast of the later one: a quick fade changes both."""
    gain = min(max(float(now.luma.std()) / max(float(before.luma.std()), 1.0), 1 / _MOST_GAIN), _MOST_GAIN)
    luma = (before.luma - before.luma.mean()) * gain + now.luma.mean()
    chroma = (before.chroma - 128.0) * gain + 128.0
    return Planes(*(np.clip(np.rint(plane), 0, 255).astype(np.uint8) for plane in (luma, chroma)))
