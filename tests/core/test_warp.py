"""Planes along a motion: by runs of samples as one by one, whatever the motion; and as OpenCV has them."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from entropy_vision.motion import on_grid
from entropy_vision.planes import Planes
from entropy_vision.warp import warp
from tests.oracles_selection import interpolated

MOTIONS = {
    "none": [[1, 0, 0], [0, 1, 0]],
    "pan": [[1, 0, 2.37], [0, 1, -1.81]],
    "tilted": [[1.0004, 0.0002, -3.3], [-0.0003, 0.9998, 0.4]],
    "zoom": [[0.97, 0, 1.1], [0, 0.97, 0.9]],
    "away": [[1.05, 0, 0], [0, 1.05, 0]],
    "far away": [[1.2, 0.01, -11], [-0.01, 1.2, -11]],
    "rotation": [[0.995, -0.1, 2.5], [0.1, 0.995, -2.25]],
    "half": [[0.5, 0, 0.5], [0, 0.5, -0.25]],
    "mirrored": [[-1, 0, 30.5], [0, 1, 0]],
    "far": [[1, 0, 500], [0, 1, -300]],
}


def _planes(rows: int, columns: int, kind: type, seed: int) -> Planes:
    rng = np.random.default_rng(seed)
    luma = rng.integers(0, 256, (8 * rows, 8 * columns)).astype(kind)
    return Planes(luma, rng.integers(0, 256, (2, 4 * rows, 4 * columns)).astype(kind))


@pytest.mark.parametrize("kind", [np.uint8, np.float32])
@pytest.mark.parametrize("name", MOTIONS)
def test_runs_of_samples_are_what_one_by_one_gives(name: str, kind: type) -> None:
    motion = np.array(MOTIONS[name], float)
    for seed, (rows, columns) in enumerate([(1, 1), (2, 5), (6, 3), (5, 21)]):
        planes = _planes(rows, columns, kind, seed)
        seen, half = warp(planes, motion), on_grid(motion, 0.5, 0.5)
        truth = Planes(
            interpolated(planes.luma, motion), np.stack([interpolated(plane, half) for plane in planes.chroma])
        )
        for one, other in ((seen.luma, truth.luma), (seen.chroma, truth.chroma)):
            assert one.shape == other.shape and one.dtype == kind
            if kind is np.uint8:  # what lies within rounding of a half may go either way
                np.testing.assert_allclose(one, np.clip(other, 0, 255), atol=0.502, rtol=0)
            else:
                np.testing.assert_allclose(one, other, atol=2e-2, rtol=0)


def test_whatever_a_camera_does() -> None:
    """Three hundred motions of cameras, those that step back and look beyond the borders among them."""
    rng, planes = np.random.default_rng(7), _planes(4, 14, np.float32, 5)
    for _ in range(300):
        angle, scale = rng.uniform(-0.1, 0.1), rng.uniform(0.85, 1.2)
        turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        motion = np.hstack([turn, rng.uniform(-20, 20, (2, 1))])
        seen, chroma = warp(planes, motion), on_grid(motion, 0.5, 0.5)
        for y, x in rng.integers((0, 0), planes.luma.shape, (12, 2)):
            assert abs(seen.luma[y, x] - interpolated(planes.luma, motion, [(y, x)])[y, x]) < 5e-3
        for y, x in rng.integers((0, 0), planes.chroma.shape[1:], (6, 2)):
            slow = interpolated(planes.chroma[1], chroma, [(y, x)])
            assert abs(seen.chroma[1, y, x] - slow[y, x]) < 5e-3


def test_a_motion_without_a_number_is_refused() -> None:
    planes = _planes(2, 2, np.uint8, 0)
    for wrong in (np.nan, np.inf):
        with pytest.raises(ValueError, match="finite"):
            warp(planes, np.array([[1, 0, wrong], [0, 1, 0]], float))


@pytest.mark.parametrize("name", MOTIONS)
def test_opencv_gives_the_same(name: str) -> None:
    motion, planes = np.array(MOTIONS[name], float), _planes(9, 12, np.float32, 0)
    how = {"flags": cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP, "borderMode": cv2.BORDER_REPLICATE}
    theirs = cv2.warpAffine(planes.luma, motion, planes.luma.shape[1::-1], **how)
    # before version 5 it took places in 32nds of a sample
    most = 5e-3 if int(cv2.__version__.split(".")[0]) >= 5 else 40.0
    np.testing.assert_allclose(warp(planes, motion).luma, theirs, atol=most, rtol=0)


def test_it_is_the_same_in_every_run_and_leaves_what_it_was_given() -> None:
    planes, motion = _planes(7, 7, np.uint8, 3), np.array(MOTIONS["tilted"], float)
    before, one, other = planes.luma.copy(), warp(planes, motion), warp(planes, motion)
    assert (one.luma == other.luma).all() and (one.chroma == other.chroma).all()
    assert (planes.luma == before).all()
