"""The public selectors: each against a slow form of its formula, and what each is known to do."""

from __future__ import annotations

import cv2
import numpy as np
import oracles_selectors as oracle
import pytest

from entropy_vision import Budget, EntropyTokenizer, Frames
from entropy_vision.budget import exact
from entropy_vision.selection import make_selector, rlt
from entropy_vision.selection.measures import FIRST_FRAME, patch_mean

SIZES = [(1, 1), (3, 17), (21, 30), (32, 24)]


def frames_of(pixels: np.ndarray) -> Frames:
    return Frames(pixels=pixels, pts_seconds=np.arange(len(pixels)) / 8)


def noise(*shape: int, seed: int = 1, top: int = 256) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, top, shape, dtype=np.uint8)


def moving(pan: int = 0, still: bool = False) -> tuple[Frames, np.ndarray]:
    """6 frames of 64 x 64: a square that moves over soft texture, the camera by `pan`; bool [F, 8, 8] where it is."""
    world = cv2.GaussianBlur(noise(96, 96, seed=3), (0, 0), 2)
    world = np.clip((world.astype(float) - 128) * 5 + 128, 0, 255).astype(np.uint8)
    pixels, there = np.zeros((6, 64, 64, 3), np.uint8), np.zeros((6, 64, 64), bool)
    for t in range(6):
        pixels[t] = world[:64, pan * t : pan * t + 64, None]
        top = 8 if still else 8 + 6 * t
        there[t, top : top + 12, 20:32] = True
        pixels[t][there[t]] = (140, 120, 100)
    return frames_of(pixels), there.reshape(6, 8, 8, 8, 8).any(axis=(2, 4))


@pytest.mark.parametrize("side", [1, 8, 14])
@pytest.mark.parametrize("size", SIZES)
def test_a_patch_mean_counts_real_pixels_only(size: tuple[int, int], side: int) -> None:
    plane = noise(*size)
    expected = oracle.on_grid({cell: patch.mean() for cell, patch in oracle.cut(plane, side).items()})
    np.testing.assert_array_equal(patch_mean(plane, side), expected)
    coloured = patch_mean(np.dstack([plane, plane // 2, 255 - plane]), side)
    np.testing.assert_array_equal(coloured[..., 0], expected)
    np.testing.assert_allclose(coloured[..., 2], 255 - expected)


UNITS = {"evs": [1.0] * 3, "dtd": [255.0] * 3, "rlt": [255 * 0.229, 255 * 0.224, 255 * 0.225]}


@pytest.mark.parametrize("name", UNITS)
@pytest.mark.parametrize("size", SIZES)
def test_differences_are_to_the_frame_before_and_the_first_is_above_all(name: str, size: tuple[int, int]) -> None:
    pixels = noise(4, *size, 3)
    pixels[1], pixels[2] = 0, 255  # the largest difference there is
    score = make_selector(name).score(frames_of(pixels), 8)
    expected = oracle.difference(pixels, 8, UNITS[name], 1)
    np.testing.assert_allclose(score[1:], expected[1:], rtol=1e-6)
    assert (score[0] == FIRST_FRAME).all() and score[1:].max() < FIRST_FRAME


@pytest.mark.parametrize("tubelet", [2, 3])
def test_a_tubelet_is_compared_from_its_end_to_the_start_of_the_one_before(tubelet: int) -> None:
    pixels = noise(7, 21, 16, 3)
    expected = oracle.difference(pixels, 8, UNITS["rlt"], tubelet)
    difference = rlt.tubelet_difference(pixels, 8, tubelet)
    np.testing.assert_allclose(difference[tubelet:], expected[tubelet:], rtol=1e-6)
    assert (difference[:tubelet] == FIRST_FRAME).all()


@pytest.mark.parametrize("name", UNITS)
def test_differences_find_what_moves_before_a_still_camera_and_nothing_special_under_a_pan(name: str) -> None:
    shares = {}
    for pan in (0, 3):
        frames, there = moving(pan)
        score = make_selector(name).score(frames, 8)[1:]
        best = exact(score, int(2 * there[1:].sum()))  # where it was before changed as well
        shares[pan] = best[there[1:]].mean()
    assert shares[0] == 1
    assert shares[3] < 0.15  # of all patches it takes that share


def test_rlt_keeps_what_stands_still_once_and_says_for_how_long() -> None:
    frames, there = moving(still=True)
    mask = EntropyTokenizer(8, budget=Budget(threshold=rlt.TAU), selector="rlt")(frames).mask
    assert mask[0].all()
    assert (mask[1:].sum(axis=(1, 2)) == 1).all()  # that which every frame keeps
    frames, there = moving()
    mask = EntropyTokenizer(8, budget=Budget(threshold=rlt.TAU), selector="rlt")(frames).mask
    lengths = rlt.run_lengths(mask)
    assert (lengths.sum(axis=0) == 6).all()
    assert lengths[0, 7, 7] == 6 > lengths[0][there[1]].max()


def test_run_lengths_reach_to_the_next_kept_patch_of_the_same_place() -> None:
    mask = np.random.default_rng(0).random((9, 3, 5)) < 0.3
    expected = [oracle.run_length(mask, *place) for place in np.ndindex(mask.shape)]
    assert rlt.run_lengths(mask).ravel().tolist() == expected


@pytest.mark.parametrize("count", [3, 5, 8, 24, 27, 28, 40, 76, 119])
def test_dtd_takes_equally_many_of_every_later_frame(count: int) -> None:
    bits = np.random.default_rng(1).random((5, 4, 6)).astype(np.float32)
    bits[0] = FIRST_FRAME
    bits[3] *= 10  # where the most happens
    mask = make_selector("dtd").choose(bits, count)
    shares = mask.sum(axis=(1, 2))
    assert shares.sum() == count
    if count < 5:
        assert shares[0] == count
        return
    assert shares[0] == min(24, count - 4)
    assert shares[1:].max() - shares[1:].min() <= 1 and (np.diff(shares[1:]) <= 0).all()
    for frame in range(1, 5):
        np.testing.assert_array_equal(mask[frame], exact(bits[frame][None], int(shares[frame]))[0])


def test_evs_gives_the_tokens_to_the_frame_in_which_something_happens_and_dtd_does_not() -> None:
    pixels = np.full((4, 32, 32, 3), 90, np.uint8)
    pixels[2:] = noise(32, 32, 3)
    frames = frames_of(pixels)
    evs, dtd = (EntropyTokenizer(8, budget=Budget(tokens=32), selector=name)(frames).mask for name in ("evs", "dtd"))
    assert evs.sum(axis=(1, 2)).tolist() == [16, 1, 14, 1]
    assert dtd.sum(axis=(1, 2)).tolist() == [16, 6, 5, 5]
