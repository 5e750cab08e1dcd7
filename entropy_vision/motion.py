"""Global motion between two frames: one affine map for the camera, or none.

Corners of the later frame (Shi and Tomasi 1994) are tracked into the earlier one (pyramidal Lucas-Kanade, Bouguet 2000)
at reduced size; RANSAC (Fischler and Bolles 1981) finds the similarity that most of them share, least squares turns it
into an affine map where enough agree. OpenCV's RANSAC starts from a fixed state, so the same frames give the same map.
"""

from __future__ import annotations

import cv2
import numpy as np

_LONG_SIDE = 160  # pixels at which corners are tracked
_CORNERS = 80
_ENOUGH = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 10, 0.03)  # in noise, tracking would never settle
_MIN_INLIERS = 8
_AFFINE_INLIERS = 24  # below that six free numbers follow the noise
_SPREAD = 0.2  # the inliers' hull must cover this share of the frame: a camera moves all of it, an object a part


def global_motion(before: np.ndarray, now: np.ndarray) -> np.ndarray | None:
    """Where the pixels of `now` were in `before`.

    Args:
        before, now: uint8 [H, W], luma.

    Returns:
        float64 [2, 3], A with before(A @ (x, y, 1)) ~ now(x, y); None where no motion is shared by most corners
        (no texture, a cut, nothing but objects that go their own ways).
    """
    height, width = now.shape
    scale = min(1.0, _LONG_SIDE / max(height, width))
    if scale < 1:
        size = max(1, round(width * scale)), max(1, round(height * scale))
        before, now = (cv2.resize(plane, size, interpolation=cv2.INTER_AREA) for plane in (before, now))
    if min(now.shape) < 16:
        return None
    gap = max(3, max(now.shape) // 24)
    corners = cv2.goodFeaturesToTrack(now, _CORNERS, 0.01, gap)
    if corners is None or len(corners) < _MIN_INLIERS:
        return None
    moved, found, _ = cv2.calcOpticalFlowPyrLK(
        now, before, corners, np.empty_like(corners), winSize=(13, 13), maxLevel=2, criteria=_ENOUGH
    )
    good = found.ravel() == 1
    points, targets = corners.reshape(-1, 2)[good], moved.reshape(-1, 2)[good]
    if len(points) < _MIN_INLIERS:
        return None
    similarity, agree = cv2.estimateAffinePartial2D(
        points, targets, method=cv2.RANSAC, ransacReprojThreshold=0.6, maxIters=100, confidence=0.99
    )
    if similarity is None:
        return None
    inliers = agree.ravel() == 1
    points, targets = points[inliers], targets[inliers]
    if len(points) < max(_MIN_INLIERS, 0.4 * len(inliers)):
        return None
    if cv2.contourArea(cv2.convexHull(points)) < _SPREAD * now.size:
        return None
    if len(points) >= _AFFINE_INLIERS:
        ones = np.ones((len(points), 1))
        similarity = np.linalg.lstsq(np.hstack([points, ones]), targets.astype(np.float64), rcond=None)[0].T
    return _at_full_size(similarity, now.shape, (height, width))


def _at_full_size(small: np.ndarray, small_size: tuple[int, ...], size: tuple[int, int]) -> np.ndarray:
    """The same map for pixel centres of the full-size frame."""
    sy, sx = small_size[0] / size[0], small_size[1] / size[1]
    down = np.array([[sx, 0, (sx - 1) / 2], [0, sy, (sy - 1) / 2], [0, 0, 1]])
    return (np.linalg.inv(down) @ np.vstack([small, [0, 0, 1]]) @ down)[:2]


def warp(planes: np.ndarray, motion: np.ndarray) -> np.ndarray:
    """`before` seen from where `now` is: uint8 [H, W, 3], cubic; what was outside repeats the border."""
    flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(planes, motion, planes.shape[1::-1], flags=flags, borderMode=cv2.BORDER_REPLICATE)
