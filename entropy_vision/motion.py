"""Motions shared by large parts of two frames: the camera's, and in parallax those of nearer and farther layers.

Corners of the later frame (Shi and Tomasi 1994) are tracked into the earlier one (pyramidal Lucas-Kanade, Bouguet
2000); RANSAC (Fischler and Bolles 1981) finds the similarity that most of them share, least squares turns it into an
affine map where enough agree; then the same again among the corners that disagreed. OpenCV's RANSAC starts from a fixed
state, so the same frames give the same maps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import cv2
import numba
import numpy as np

Motion: TypeAlias = np.ndarray
"""float64 [2, 3], A with before(A @ (x, y, 1)) ~ now(x, y)."""
Shared: TypeAlias = tuple[Motion, np.ndarray]
"""A motion, and which of the points it was looked for among share it, bool [N]."""

_LONG_SIDE = 256  # pixels at which corners are tracked
_CORNERS = 200
_ENOUGH = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 8, 0.03)  # in noise, tracking would never settle
_AGREE = 0.3  # samples
_MOST = 5  # motions that are looked for
_MIN_INLIERS = 8
_REFINE = 10  # steps of fitting a similarity
_SHARE = 0.03  # of the corners must share a motion
_AFFINE_INLIERS = 24  # below that six free numbers follow the noise
_LINE = 0.01  # of the frame's longer side: corners within that of one line say nothing of what lies beside it
_AS_BEFORE = 0.8  # of the corners must share one motion for a search beside the known one to be all that is needed
_SOME = 100  # corners that are tracked first where the camera is known
_NEARLY_ALL = 0.95  # of these must go on as known: then the others tell nothing new
_CARRIED = 4  # frames after which corners are looked for anew
_STILL_THERE = 0.85  # of the corners must be in view for them to be carried on
_REACH = 0.5  # of the frame's longer side: a layer is that wide or that high, an object is smaller


@dataclass(frozen=True, eq=False)
class Corners:
    """Where a frame has texture that can be tracked, at the size at which frames are tracked.

    Attributes:
        points: float32 [N, 2].
        before: float32 [N, 2], where each was in the frame before; itself where that is not known.
        age: for how many frames they have been carried along instead of looked for; -1 where the camera did not go on
            as was known, or nothing was: then some are lost, those of a layer before all.
    """

    points: np.ndarray
    before: np.ndarray
    age: int = 0


def shared_motions(before: np.ndarray, now: np.ndarray, known: Motion | None = None) -> list[Motion]:
    """Where the pixels of `now` were in `before`, by the motions that many corners share.

    Args:
        before, now: uint8 [H, W], luma.
        known: float64 [2, 3], how the camera moved last: corners are looked for near where that puts them, and
            everywhere where not nearly all of them go on like that.

    Returns:
        Up to five float64 [2, 3], A with before(A @ (x, y, 1)) ~ now(x, y), those with more corners first; none where
        nothing is shared (no texture, a cut, nothing but objects that go their own ways).
    """
    return tracked(before, now, known)[0]


def tracked(
    before: np.ndarray, now: np.ndarray, known: Motion | None = None, held: Corners | None = None
) -> tuple[list[Motion], Corners | None]:
    """`shared_motions`, and the corners of `now`.

    Args:
        held: those of `before`. Where the camera goes on as is known they are carried along for some frames, each by
            its own motion: any texture can be tracked, and to look for the best takes as long as to track it.
    """
    height, width = now.shape
    scale = min(1.0, _LONG_SIDE / max(height, width))
    if scale < 1:
        size = max(1, round(width * scale)), max(1, round(height * scale))
        before, now = (cv2.resize(plane, size, interpolation=cv2.INTER_AREA) for plane in (before, now))
    tracks, corners = None, None
    if known is not None:
        small = on_grid(known, now.shape[1] / width, now.shape[0] / height)
        corners = (held and _carried(held, now.shape)) or _corners(now)
        tracks = corners and _as_before(before, now, corners.points, small)
    if tracks is None and (corners is None or corners.age):
        corners = _corners(now)
    found: list[Motion] = []
    if corners is None:
        return found, None
    points, targets, first = tracks or (*_tracks(before, now, corners.points), None)
    corners = Corners(points, targets, corners.age if tracks else -1)
    least = max(_MIN_INLIERS, _SHARE * len(points))
    for _ in range(_MOST if len(points) >= _MIN_INLIERS else 0):
        motion, inliers = first or _similarity(points, targets, 0)
        first, agree = None, int(inliers.sum())
        if agree < least:
            break
        if _extent(points, inliers) > _REACH * max(now.shape):
            many = agree >= _AFFINE_INLIERS and _width(points, inliers) > _LINE * max(now.shape)
            motion = _least_squares(points, targets, inliers) if many else _similarity(points, targets, _REFINE)[0]
            found.append(_at_full_size(motion, now.shape, (height, width)))
        if len(points) - agree < _MIN_INLIERS:
            break
        points, targets = points[~inliers], targets[~inliers]
    return found, corners


def _similarity(points: np.ndarray, targets: np.ndarray, refine: int) -> Shared:
    """The similarity that most points share, fitted to them in `refine` steps.

    Fitting takes ten times as long as finding, and does not change which points agree.
    """
    motion, agree = cv2.estimateAffinePartial2D(
        points, targets, method=cv2.RANSAC, ransacReprojThreshold=_AGREE, maxIters=200, confidence=0.99,
        refineIters=refine,
    )  # fmt: skip
    return motion, agree.ravel() == 1


@numba.njit(cache=True)
def _extent(points: np.ndarray, chosen: np.ndarray) -> float:
    """The longer side of the box around the chosen ones of points [N, 2]."""
    longer = np.float32(0)
    for axis in range(2):
        low, high = np.float32(np.inf), np.float32(-np.inf)
        for i in range(len(points)):
            if chosen[i]:
                low, high = min(low, points[i, axis]), max(high, points[i, axis])
        longer = max(longer, high - low)
    return float(longer)


@numba.njit(cache=True)
def _width(points: np.ndarray, chosen: np.ndarray) -> float:
    """Standard deviation of the chosen ones of points [N, 2] across the line that they lie along."""
    count, x, y, xx, xy, yy = 0, 0.0, 0.0, 0.0, 0.0, 0.0
    for i in range(len(points)):
        if chosen[i]:
            u, v = float(points[i, 0]), float(points[i, 1])
            count, x, y, xx, xy, yy = count + 1, x + u, y + v, xx + u * u, xy + u * v, yy + v * v
    if not count:
        return 0.0
    xx, xy, yy = xx / count - (x / count) ** 2, xy / count - x * y / count**2, yy / count - (y / count) ** 2
    least = (xx + yy) / 2 - np.sqrt(((xx - yy) / 2) ** 2 + xy * xy)
    return float(np.sqrt(max(least, 0.0)))


@numba.njit(cache=True)
def _least_squares(points: np.ndarray, targets: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """The affine map [2, 3] that takes the chosen ones of `points` nearest to `targets`, both [N, 2].

    Around their means, for accuracy.
    """
    middle, aim, count = np.zeros(2), np.zeros(2), 0
    for i in range(len(points)):
        if chosen[i]:
            count += 1
            for k in range(2):
                middle[k] += points[i, k]
                aim[k] += targets[i, k]
    middle, aim = middle / count, aim / count
    xx, xy, yy, to = 0.0, 0.0, 0.0, np.zeros((2, 2))
    for i in range(len(points)):
        if chosen[i]:
            x, y = points[i, 0] - middle[0], points[i, 1] - middle[1]
            xx, xy, yy = xx + x * x, xy + x * y, yy + y * y
            for k in range(2):
                off = targets[i, k] - aim[k]
                to[k, 0] += off * x
                to[k, 1] += off * y
    out, span = np.empty((2, 3)), xx * yy - xy * xy
    for k in range(2):
        out[k, 0] = (yy * to[k, 0] - xy * to[k, 1]) / span
        out[k, 1] = (xx * to[k, 1] - xy * to[k, 0]) / span
        out[k, 2] = aim[k] - out[k, 0] * middle[0] - out[k, 1] * middle[1]
    return out


def _corners(now: np.ndarray) -> Corners | None:
    """None where there are too few."""
    if min(now.shape) < 16:
        return None
    points = cv2.goodFeaturesToTrack(now, _CORNERS, 0.005, max(3, max(now.shape) // 36))
    return None if points is None or len(points) < _MIN_INLIERS else Corners(points[:, 0], points[:, 0])


def _carried(held: Corners, shape: tuple[int, ...]) -> Corners | None:
    """Corners of the frame before where they are now if each goes on; None where it is time to look for new ones."""
    if not 0 <= held.age < _CARRIED - 1:
        return None
    height, width = shape
    points, before, count = _gone_on(held.points, held.before, np.float32(width), np.float32(height))
    if count < max(_STILL_THERE * len(held.points), _MIN_INLIERS):
        return None
    return Corners(points[:count], before[:count], held.age + 1)


@numba.njit(cache=True)
def _gone_on(
    points: np.ndarray, before: np.ndarray, width: np.float32, height: np.float32
) -> tuple[np.ndarray, np.ndarray, int]:
    """Where points [N, 2] are if each goes on as from `before`, where they are now, and how many stay within the frame:
    those stand first."""
    after, now, count = np.empty_like(points), np.empty_like(points), 0
    for i in range(len(points)):
        x, y = np.float32(2) * points[i, 0] - before[i, 0], np.float32(2) * points[i, 1] - before[i, 1]
        if 0 <= x < width and 0 <= y < height:
            after[count, 0], after[count, 1] = x, y
            now[count] = points[i]
            count += 1
    return after, now, count


def _tracks(
    before: np.ndarray, now: np.ndarray, corners: np.ndarray, known: Motion | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Those of the corners, float32 [N, 2], that were found in `before`, and where they were.

    Beside a known motion, or from afar.
    """
    corners = corners[:, None]
    if known is None:
        start, levels, flags = np.empty_like(corners), 2, 0
    else:
        start, levels, flags = cv2.transform(corners, known), 0, cv2.OPTFLOW_USE_INITIAL_FLOW
    moved, seen, _ = cv2.calcOpticalFlowPyrLK(
        now, before, corners, start, winSize=(9, 9), maxLevel=levels, criteria=_ENOUGH, flags=flags
    )
    good, corners, moved = seen.ravel() == 1, corners.reshape(-1, 2), moved.reshape(-1, 2)
    return (corners, moved) if good.all() else (corners[good], moved[good])


def _as_before(
    before: np.ndarray, now: np.ndarray, corners: np.ndarray, known: Motion
) -> tuple[np.ndarray, np.ndarray, Shared] | None:
    """`_tracks` beside a known motion, at a third of the work, and what most share; None where not nearly all corners
    share one motion there. Where nearly all of some do, the others are not looked at; what goes its own way, such as
    another layer, is looked for among all."""
    some = np.zeros(len(corners), bool)
    some[:: max(1, round(len(corners) / _SOME))] = True
    points, targets = _tracks(before, now, corners[some], known)
    if len(points) < _MIN_INLIERS:
        return None
    shared = _similarity(points, targets, 0)
    agree = shared[1].sum() / some.sum()
    if agree < _NEARLY_ALL and agree >= _AS_BEFORE and not some.all():
        more = _tracks(before, now, corners[~some], known)
        points, targets = np.concatenate([points, more[0]]), np.concatenate([targets, more[1]])
        shared = _similarity(points, targets, 0)
        agree = shared[1].sum() / len(corners)
    return (points, targets, shared) if agree >= _AS_BEFORE else None


def _at_full_size(small: np.ndarray, small_size: tuple[int, ...], size: tuple[int, int]) -> np.ndarray:
    """The same map for pixel centres of the full-size frame."""
    sy, sx = small_size[0] / size[0], small_size[1] / size[1]
    return on_grid(small, 1 / sx, 1 / sy)


@numba.njit(cache=True)
def on_grid(motion: np.ndarray, across: float, down: float) -> np.ndarray:
    """A motion of cells as one of pixels, where a cell is `across` by `down` pixels."""
    x, y = (1 / across - 1) / 2, (1 / down - 1) / 2  # cell c is pixel c / scale + off at its centre
    out = motion.copy()
    out[0, 1] *= across / down
    out[1, 0] *= down / across
    out[0, 2] = across * (motion[0, 0] * x + motion[0, 1] * y + motion[0, 2] - x)
    out[1, 2] = down * (motion[1, 0] * x + motion[1, 1] * y + motion[1, 2] - y)
    return out


@numba.njit(cache=True)
def seen_before(motion: np.ndarray, height: int, width: int, side: int) -> np.ndarray:
    """bool [R', C']: the blocks of `side` pixels that lay inside the earlier frame as a whole."""
    out = np.ones((height // side, width // side), np.bool_)
    for row in range(height // side + 1):
        for column in range(width // side + 1):
            y, x = row * side - 0.5, column * side - 0.5
            at_x = motion[0, 0] * x + (motion[0, 1] * y + motion[0, 2])
            at_y = motion[1, 0] * x + (motion[1, 1] * y + motion[1, 2])
            if not (-0.75 <= at_x <= width - 0.25 and -0.75 <= at_y <= height - 0.25):
                out[max(row - 1, 0) : row + 1, max(column - 1, 0) : column + 1] = False
    return out
