"""Global motion: recovered where there is one, refused where there is none."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from entropy_vision.motion import global_motion, warp


def texture(rng: np.random.Generator, side: int) -> np.ndarray:
    """Smooth noise with detail of 4 pixels and more, float32 [side, side] in about 30..220."""
    coarse = [cv2.resize(rng.standard_normal((side // w, side // w)), (side, side)) for w in (4, 8, 16)]
    return np.clip(125 + 30 * sum(coarse), 0, 255).astype(np.float32)


def seen(canvas: np.ndarray, view: np.ndarray, side: int) -> np.ndarray:
    """uint8 [side, side]: the canvas through the affine map `view`."""
    flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    return np.clip(cv2.warpAffine(canvas, view, (side, side), flags=flags), 0, 255).round().astype(np.uint8)


@pytest.mark.parametrize("side", [64, 96, 224, 400])
@pytest.mark.parametrize("case", ["pan", "zoom", "turn", "all"])
def test_global_motion_is_recovered_to_a_third_of_a_pixel(side: int, case: str) -> None:
    rng = np.random.default_rng(side)
    shift = rng.uniform(-5, 5, 2) if case in ("pan", "all") else np.zeros(2)
    scale = 1.02 if case in ("zoom", "all") else 1.0
    angle = 0.02 if case in ("turn", "all") else 0.0
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    truth = np.hstack([turn, shift[:, None]])
    margin = 24
    canvas = texture(rng, side + 2 * margin)
    before = seen(canvas, np.array([[1, 0, margin], [0, 1, margin]], float), side)
    now = seen(canvas, truth + np.array([[0, 0, margin], [0, 0, margin]]), side)
    found = global_motion(before, now)
    assert found is not None
    corners = np.array([[0, 0, 1], [side - 1, 0, 1], [0, side - 1, 1], [side - 1, side - 1, 1]]).T
    assert abs((found - truth) @ corners).max() < 0.34


def test_there_is_no_global_motion_without_texture_or_between_strangers() -> None:
    flat = np.full((96, 96), 80, np.uint8)
    assert global_motion(flat, flat) is None
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (2, 96, 96), dtype=np.uint8)
    assert global_motion(noise[0], noise[1]) is None
    assert global_motion(flat[:9, :9], flat[:9, :9]) is None


def test_one_textured_object_on_a_plain_ground_is_no_camera() -> None:
    thing = seen(texture(np.random.default_rng(1), 40), np.eye(2, 3), 30)
    before, now = np.full((2, 128, 128), 90, np.uint8)
    before[40:70, 40:70], now[40:70, 44:74] = thing, thing
    assert global_motion(before, now) is None


def test_warp_shows_the_earlier_frame_where_the_later_one_is() -> None:
    planes = np.random.default_rng(2).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    warped = warp(planes, np.array([[1, 0, 3], [0, 1, -2]], float))
    np.testing.assert_array_equal(warped[2:, :-3], planes[:-2, 3:])
    np.testing.assert_array_equal(warped[2:, -1], planes[:-2, -1])  # outside: the border again
