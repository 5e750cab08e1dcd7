"""Shared motions: recovered where there are some, none where there are none."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from entropy_vision.motion import on_grid, seen_before, shared_motions
from entropy_vision.planes import Planes
from entropy_vision.rate import patch_bits
from entropy_vision.warp import warp


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
def test_a_cameras_motion_is_recovered_to_a_third_of_a_pixel(side: int, case: str) -> None:
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
    found = shared_motions(before, now)[0]
    corners = np.array([[0, 0, 1], [side - 1, 0, 1], [0, side - 1, 1], [side - 1, side - 1, 1]]).T
    assert abs((found - truth) @ corners).max() < 0.34


@pytest.mark.parametrize("wrong", [0.0, 0.7, 30.0])
def test_a_known_motion_helps_where_it_is_right_and_harms_nowhere(
    wrong: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    canvas, side = texture(np.random.default_rng(5), 272), 224
    before = seen(canvas, np.array([[1, 0, 24], [0, 1, 24]], float), side)
    truth = np.array([[1, 0.002, 5.4], [-0.002, 1, -3.3]])
    now = seen(canvas, truth + np.array([[0, 0, 24], [0, 0, 24]]), side)
    levels: list[int] = []
    track = cv2.calcOpticalFlowPyrLK

    def watched(*planes: np.ndarray, **settings: int) -> object:
        levels.append(settings["maxLevel"])
        return track(*planes, **settings)

    monkeypatch.setattr(cv2, "calcOpticalFlowPyrLK", watched)
    known = truth + np.array([[0, 0, wrong], [0, 0, -wrong]])
    corners = np.array([[0, 0, 1], [side - 1, 0, 1], [0, side - 1, 1], [side - 1, side - 1, 1]]).T
    assert abs((shared_motions(before, now, known)[0] - shared_motions(before, now)[0]) @ corners).max() < 0.02
    assert levels == ([0, 2] if wrong < 5 else [0, 2, 2])  # beside the known one alone, or from afar after all


def test_no_motion_is_shared_without_texture_or_between_strangers() -> None:
    flat = np.full((96, 96), 80, np.uint8)
    assert not shared_motions(flat, flat)
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (2, 96, 96), dtype=np.uint8)
    assert not shared_motions(noise[0], noise[1])
    assert not shared_motions(flat[:9, :9], flat[:9, :9])


def test_one_textured_object_on_a_plain_ground_is_no_camera() -> None:
    thing = seen(texture(np.random.default_rng(1), 40), np.eye(2, 3), 30)
    before, now = np.full((2, 128, 128), 90, np.uint8)
    before[40:70, 40:70], now[40:70, 44:74] = thing, thing
    assert not shared_motions(before, now)


def test_warp_shows_the_earlier_frame_where_the_later_one_is() -> None:
    rng = np.random.default_rng(2)
    planes = Planes(rng.integers(0, 256, (40, 48), np.uint8), rng.integers(0, 256, (2, 20, 24), np.uint8))
    warped = warp(planes, np.array([[1, 0, 4], [0, 1, -2]], float))
    np.testing.assert_array_equal(warped.luma[2:, :-4], planes.luma[:-2, 4:])
    np.testing.assert_array_equal(warped.luma[2:, -1], planes.luma[:-2, -1])  # outside: the border again
    np.testing.assert_array_equal(warped.chroma[:, 1:, :-2], planes.chroma[:, :-1, 2:])


def test_two_layers_have_two_motions() -> None:
    rng = np.random.default_rng(3)
    back, front = texture(rng, 160), texture(rng, 160)
    before, now = (
        seen(back, np.array([[1, 0, 10], [0, 1, 10]], float), 128),
        seen(back, np.array([[1, 0, 12], [0, 1, 10]], float), 128),
    )
    before[:, 40:80], now[:, 40:80] = front[:128, 50:90].round(), front[:128, 56:96].round()
    shifts = sorted(round(float(motion[0, 2])) for motion in shared_motions(before, now)[:2])
    assert shifts == [2, 6]


def test_seen_before_are_the_blocks_that_were_in_view() -> None:
    moved = np.array([[1, 0, 5], [0, 1, 0]], float)
    expected = np.ones((4, 6), bool)
    expected[:, 5] = False
    np.testing.assert_array_equal(seen_before(moved, 32, 48, 8), expected)
    assert seen_before(np.eye(2, 3), 32, 48, 8).all()


def test_on_grid_is_the_same_motion_in_larger_cells() -> None:
    moved = np.array([[1.1, 0.02, 4], [-0.02, 1.1, -8]])
    coarse = on_grid(moved, 1 / 8, 1 / 8)
    centre = np.array([3.0, 2.0, 1])
    at = moved @ np.array([8 * 3 + 3.5, 8 * 2 + 3.5, 1])
    np.testing.assert_allclose(coarse @ centre, (at - 3.5) / 8)


@pytest.mark.parametrize("top", [60, 97, 150])
@pytest.mark.parametrize("width", [4, 7, 10])
def test_corners_that_lie_on_one_line_fit_no_more_than_a_similarity(width: int, top: int) -> None:
    """A comb that pans: all its corners are on one row."""
    comb = np.full((336, 400, 3), 200, np.uint8)
    for x in range(0, 400, 2 * width):
        comb[top:, x : x + width] = 40
    frames = np.stack([comb[:, 2 * t : 2 * t + 336] for t in range(3)])
    assert np.isfinite(patch_bits(frames, 16)).all()


def test_two_rows_of_corners_say_nothing_of_the_rest() -> None:
    rng = np.random.default_rng(0)
    plane = np.full((240, 260), 200, np.uint8)
    for x in range(4, 256, 8):
        plane[118 + int(rng.integers(2)) :, x : x + 4] = 40
    for motion in shared_motions(plane[:, 0:240].copy(), plane[:, 1:241].copy()):
        np.testing.assert_allclose(motion[:, :2], np.eye(2), atol=0.01)
