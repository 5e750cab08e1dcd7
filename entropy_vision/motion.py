"""Motions shared by large parts of two frames: the camera's, and in parallax those of nearer and farther layers.

Corners of the later frame (Shi and Tomasi 1994) are tracked into the earlier one (pyramidal Lucas-Kanade, Bouguet
2000); RANSAC (Fischler and Bolles 1981) finds the similarity that most of them share, least squares turns it into an
affine map where enough agree; then the same again among the corners that disagreed. OpenCV's RANSAC starts from a fixed
state, so the same frames give the same maps.
"""

from __future__ import annotations

from typing import TypeAlias

import cv2
import numpy as np

from entropy_vision.planes import Planes

Motion: TypeAlias = np.ndarray
"""float64 [2, 3], A with before(A @ (x, y, 1)) ~ now(x, y)."""

_LONG_SIDE = 256  # pixels at which corners are tracked
_CORNERS = 200
_ENOUGH = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 8, 0.03)  # in noise, tracking would never settle
_AGREE = 0.3  # samples
_MOST = 5  # motions that are looked for
_MIN_INLIERS = 8
_SHARE = 0.03  # of the corners must share a motion
_AFFINE_INLIERS = 24  # below that six free numbers follow the noise
_REACH = 0.5  # of the frame's longer side: a layer is that wide or that high, an object is smaller


def shared_motions(before: np.ndarray, now: np.ndarray) -> list[np.ndarray]:
    """Where the pixels of `now` were in `before`, by the motions that many corners share.

    Args:
        before, now: uint8 [H, W], luma.

    Returns:
        Up to five float64 [2, 3], A with before(A @ (x, y, 1)) ~ now(x, y), those with more corners first; none where
        nothing is shared (no texture, a cut, nothing but objects that go their own ways).
    """
    height, width = now.shape
    scale = min(1.0, _LONG_SIDE / max(height, width))
    if scale < 1:
        size = max(1, round(width * scale)), max(1, round(height * scale))
        before, now = (cv2.resize(plane, size, interpolation=cv2.INTER_AREA) for plane in (before, now))
    tracks = _tracks(before, now)
    found: list[np.ndarray] = []
    if tracks is None:
        return found
    points, targets = tracks
    least = max(_MIN_INLIERS, _SHARE * len(points))
    for _ in range(_MOST):
        if len(points) < _MIN_INLIERS:
            break
        motion, agree = cv2.estimateAffinePartial2D(
            points, targets, method=cv2.RANSAC, ransacReprojThreshold=_AGREE, maxIters=200, confidence=0.99
        )
        inliers = agree.ravel() == 1
        if motion is None or inliers.sum() < least:
            break
        if np.ptp(points[inliers], axis=0).max() > _REACH * max(now.shape):
            if inliers.sum() >= _AFFINE_INLIERS:
                motion = _least_squares(points[inliers].astype(np.float64), targets[inliers].astype(np.float64))
            found.append(_at_full_size(motion, now.shape, (height, width)))
        points, targets = points[~inliers], targets[~inliers]
    return found


def _least_squares(points: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """The affine map [2, 3] that takes `points` nearest to `targets`, both [N, 2]; around their means, for accuracy."""
    middle, aim = points.mean(axis=0), targets.mean(axis=0)
    here, there = points - middle, targets - aim
    linear = np.linalg.solve(here.T @ here, here.T @ there).T
    return np.hstack([linear, (aim - linear @ middle)[:, None]])


def _tracks(before: np.ndarray, now: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Corners of `now`, float32 [N, 2], and where they were before; None where there are too few."""
    if min(now.shape) < 16:
        return None
    gap = max(3, max(now.shape) // 36)
    corners = cv2.goodFeaturesToTrack(now, _CORNERS, 0.005, gap)
    if corners is None or len(corners) < _MIN_INLIERS:
        return None
    moved, found, _ = cv2.calcOpticalFlowPyrLK(
        now, before, corners, np.empty_like(corners), winSize=(9, 9), maxLevel=2, criteria=_ENOUGH
    )
    good = found.ravel() == 1
    return corners.reshape(-1, 2)[good], moved.reshape(-1, 2)[good]


def _at_full_size(small: np.ndarray, small_size: tuple[int, ...], size: tuple[int, int]) -> np.ndarray:
    """The same map for pixel centres of the full-size frame."""
    sy, sx = small_size[0] / size[0], small_size[1] / size[1]
    return on_grid(small, 1 / sx, 1 / sy)


def on_grid(motion: np.ndarray, across: float, down: float) -> np.ndarray:
    """A motion of cells as one of pixels, where a cell is `across` by `down` pixels."""
    scale = np.array([across, down])
    off = (1 / scale - 1) / 2  # cell c is pixel c / scale + off at its centre
    linear = motion[:, :2] * (scale[:, None] / scale)
    moved = scale * (motion[:, :2] @ off + motion[:, 2] - off)
    return np.hstack([linear, moved[:, None]])


def warp(planes: Planes, motion: Motion) -> Planes:
    """Planes seen before, from where the camera is now; what was outside repeats the border."""
    flags, border = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP, cv2.BORDER_REPLICATE
    luma, chroma = planes.luma, planes.chroma
    half = on_grid(motion, 0.5, 0.5)
    return Planes(
        cv2.warpAffine(luma, motion, luma.shape[1::-1], flags=flags, borderMode=border),
        cv2.warpAffine(chroma, half, chroma.shape[1::-1], flags=flags, borderMode=border),
    )


def seen_before(motion: np.ndarray, height: int, width: int, side: int) -> np.ndarray:
    """bool [R', C']: the blocks of `side` pixels that lay inside the earlier frame as a whole."""
    y = np.arange(0, height + 1, side)[:, None] - 0.5
    x = np.arange(0, width + 1, side) - 0.5
    at_x = motion[0, 0] * x + (motion[0, 1] * y + motion[0, 2])
    at_y = motion[1, 0] * x + (motion[1, 1] * y + motion[1, 2])
    inside = (at_x >= -0.75) & (at_x <= width - 0.25) & (at_y >= -0.75) & (at_y <= height - 0.25)
    return inside[:-1, :-1] & inside[1:, :-1] & inside[:-1, 1:] & inside[1:, 1:]
