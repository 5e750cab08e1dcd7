"""The public selectors: each against a slow form of its formula, and what each is known to do."""

from __future__ import annotations

import math

import cv2
import numpy as np
import oracles_selectors as oracle
import pytest
from media import blank

from entropy_vision import Budget, EntropyTokenizer, Frames
from entropy_vision.budget import exact
from entropy_vision.selection import apt, block_motion, make_selector, onevision, pixelprune, rlt, surprisal
from entropy_vision.selection.gradient import gradient_energy
from entropy_vision.selection.measures import FIRST_FRAME, patch_mean

SIZES = [(1, 1), (3, 17), (21, 30), (32, 24)]


def choose(name: str, bits: np.ndarray, count: int) -> np.ndarray:
    """A selector's choice by given scores."""
    return make_selector(name).choose(bits, count, blank(bits.shape), 8)


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


@pytest.mark.parametrize("side", [1, 8])
@pytest.mark.parametrize("size", SIZES)
def test_gradient_is_the_mean_squared_slope(size: tuple[int, int], side: int) -> None:
    np.testing.assert_allclose(gradient_energy(noise(*size), side), oracle.gradient(noise(*size), side))


def test_gradient_ranks_edges_first_and_does_not_see_equal_luma() -> None:
    pixels = np.full((1, 64, 64, 3), 100, np.uint8)
    pixels[0, :, 20:] = 200
    pixels[0, 40:52, 4:12] = (100, 111, 43)  # luma 100
    score = make_selector("gradient").score(frames_of(pixels), 8)[0]
    assert (score[:, 2] > 0).all()
    assert score.sum() == score[:, 2].sum()


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
    mask = choose("dtd", bits, count)
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


@pytest.mark.parametrize("size", SIZES)
def test_surprisal_compares_patches_by_five_features(size: tuple[int, int]) -> None:
    frame = noise(*size, 3)
    np.testing.assert_allclose(surprisal.features(frame, 8), oracle.features(frame, 8), atol=1e-4)


@pytest.mark.parametrize("count", [1, 2, 40, 512, 513, 800])
def test_surprisal_is_the_self_information_under_a_kernel_density(count: int) -> None:
    points = np.random.default_rng(2).normal(size=(count, 5)) * [1, 10, 100, 1e-3, 0]
    points[count // 2 :] = np.round(points[count // 2 :], 1)
    information = surprisal.self_information(points)
    np.testing.assert_allclose(information, oracle.surprisal(points, 512), atol=2e-4)
    assert (information >= 0).all() and information.max() <= math.log2(count + 1)


def test_surprisal_is_over_the_patches_of_all_frames() -> None:
    frames = frames_of(noise(3, 24, 24, 3))
    points = np.concatenate([oracle.features(frame, 8).reshape(-1, 5) for frame in frames.pixels])
    score = make_selector("surprisal").score(frames, 8)
    np.testing.assert_allclose(score.ravel(), oracle.surprisal(points, 512), atol=2e-3)


def test_surprisal_finds_a_flat_object_that_fills_its_patches_and_no_more_in_noise() -> None:
    pixels = np.full((1, 96, 96, 3), 100, np.uint8)
    pixels[0, :, :48] = noise(96, 48, 3)
    pixels[0, 40:56, 64:80] = (100, 111, 43)  # the ground's luma
    score = make_selector("surprisal").score(frames_of(pixels), 8)[0]
    assert score[5:7, 8:10].min() > 3 * score[0, 11]
    assert score[5:7, 8:10].min() > np.median(score[:, :6])


def _busy(height: int, width: int) -> np.ndarray:
    """Noise whose range grows from nothing to everything, so that entropies differ everywhere."""
    ramp = np.linspace(0, 1, width) * np.linspace(0.5, 1, height)[:, None]
    return (np.random.default_rng(4).random((height, width)) * 256 * ramp**2).astype(np.uint8)


@pytest.mark.parametrize("size", [(8, 8), (64, 64), (72, 61), (40, 150)])
@pytest.mark.parametrize("thresholds", [(6.0, 4.0), (5.5,), (4.0, 6.0)])
def test_apt_scores_are_the_offsets_up_to_which_a_quadtree_keeps_a_patch(
    size: tuple[int, int], thresholds: tuple[float, ...]
) -> None:
    plane = _busy(*size)
    score = apt.quadtree(plane, 8, thresholds)
    assert score.min() >= 0
    for offset in np.linspace(-max(thresholds), 8, 23):
        kept = {tuple(cell) for cell in np.argwhere(score >= offset + max(thresholds)).tolist()}
        assert kept == oracle.quadtree(plane, 8, thresholds, offset)


def test_apt_keeps_what_a_bisection_on_the_offset_keeps() -> None:
    plane = _busy(96, 96)
    frames = frames_of(np.repeat(plane[None, :, :, None], 3, axis=-1))
    bits = EntropyTokenizer(8, selector="apt").score(frames)
    for tokens in (20, 50, 100, 130):
        low, high = -8.0, 8.0
        for _ in range(40):
            middle = (low + high) / 2
            low, high = (middle, high) if len(oracle.quadtree(plane, 8, (6, 4), middle)) >= tokens else (low, middle)
        found = oracle.quadtree(plane, 8, (6, 4), low)
        mask = choose("apt", bits, len(found))[0]
        assert {tuple(cell) for cell in np.argwhere(mask).tolist()} == found


def test_apt_keeps_all_of_a_busy_half_and_one_patch_a_cell_of_a_quiet_one() -> None:
    pixels = np.full((1, 128, 128, 3), 60, np.uint8)
    pixels[0, :, 64:] = noise(128, 64, 1)
    pixels[0, 3, 3] = 255  # the one thing in the first cell
    pixels[0, 20, 44] = 255
    mask = EntropyTokenizer(8, budget=Budget(threshold=max(apt.THRESHOLDS)), selector="apt")(frames_of(pixels)).mask[0]
    assert mask[:, 8:].all()
    assert mask[:, :8].reshape(4, 4, 2, 4).sum(axis=(1, 3)).tolist() == [[1, 1]] * 4
    assert mask[0, 0] and mask[2, 5]


def _screen(height: int, width: int) -> np.ndarray:
    """Few colours in boxes, so that most patches are copies; some letters."""
    frame = np.full((height, width, 3), 240, np.uint8)
    rng = np.random.default_rng(6)
    for _ in range(6):
        y, x = rng.integers(0, height), rng.integers(0, width)
        frame[y : y + 19, x : x + 31] = rng.integers(0, 2, 3) * 7 + 200
    return frame


@pytest.mark.parametrize("size", [*SIZES, (60, 90)])
@pytest.mark.parametrize("side", [1, 4, 8])
def test_pixelprune_predicts_from_the_neighbours(size: tuple[int, int], side: int) -> None:
    for frame in (_screen(*size), noise(*size, 3), noise(*size, 3, top=2)):
        expected = oracle.prediction_error(frame, side, 0)
        error = pixelprune.prediction_error(frame, side)
        assert error[0, 0] == FIRST_FRAME
        np.testing.assert_array_equal(error.ravel()[1:], expected.ravel()[1:])
        np.testing.assert_array_equal(pixelprune.anchored_error(frame, side, 0), error)


@pytest.mark.parametrize("size", [*SIZES, (60, 90)])
@pytest.mark.parametrize("tau", [1, 8])
def test_pixelprune_above_zero_predicts_from_what_was_kept(size: tuple[int, int], tau: int) -> None:
    ramp = np.repeat(np.linspace(0, 60, size[1]).astype(np.uint8)[None, :, None], size[0], axis=0).repeat(3, axis=2)
    for frame in (_screen(*size), noise(*size, 3, top=12), ramp):
        error = pixelprune.anchored_error(frame, 4, tau)
        np.testing.assert_array_equal(error.ravel()[1:], oracle.prediction_error(frame, 4, tau).ravel()[1:])


def test_pixelprune_drops_exact_copies_and_keeps_the_corners_of_boxes() -> None:
    pixels = np.full((1, 64, 64, 3), 250, np.uint8)
    pixels[0, 16:40, 24:48] = 30
    kept = EntropyTokenizer(8, budget=Budget(threshold=1), selector="pixelprune")(frames_of(pixels))
    # the box where it begins, and the ground to its right and below; each is continued from there
    assert kept.positions.tolist() == [[0, 0, 0], [0, 2, 3], [0, 2, 6], [0, 5, 3]]
    one = pixels.copy()
    one[0, 60, 60, 1] -= 1  # one level in one pixel
    assert EntropyTokenizer(8, budget=Budget(threshold=1), selector="pixelprune")(frames_of(one)).mask[0, 7, 7]


@pytest.mark.parametrize(("reach", "side"), [(1, 16), (4, 4)])
def test_block_motion_takes_the_cheapest_vector(reach: int, side: int) -> None:
    before, now = noise(4 * side, 4 * side, top=3), noise(4 * side, 4 * side, top=3, seed=2)  # where lengths decide
    now[: 2 * side] = np.roll(before, (1, -1), axis=(0, 1))[: 2 * side]
    before[side : 2 * side, :side], now[side : 2 * side, :side] = 90, 90  # everything is as good
    stripes = np.arange(3 * side) % 2 * 100
    before[2 * side :, side:], now[2 * side :, side:] = stripes, 100 - stripes  # left is as good as right
    start = np.random.default_rng(5).integers(-2, 3, (4, 4, 2))
    start[2:, 2:] = 0
    found = block_motion.search(before, now, start, reach, side)
    np.testing.assert_array_equal(found, oracle.search(before, now, start, reach, side, 0.03 * 16 / side))
    assert found[1, 0].tolist() == [0, 0]
    assert found[3, 2].tolist() == [0, -1]


def test_block_motion_finds_a_pan_of_the_camera() -> None:
    frames, _ = moving(pan=3)
    before, now = (cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in (frames.pixels[0], frames.pixels[1]))
    vectors = block_motion.motion(before, now)
    assert np.median(vectors, axis=(0, 1)).tolist() == [0, 3]
    far = np.roll(noise(96, 96, seed=8), 17, axis=0), noise(96, 96, seed=8)
    smooth = [cv2.GaussianBlur(plane, (0, 0), 3) for plane in far]
    assert (block_motion.motion(*smooth)[1:-2, 1:-1] == [17, 0]).all(axis=-1).mean() > 0.8


@pytest.mark.parametrize("size", [(1, 1), (20, 35), (64, 48)])
def test_onevision_adds_motion_of_its_own_and_residual(size: tuple[int, int]) -> None:
    smooth = [cv2.GaussianBlur(noise(*size, 3, seed=seed), (0, 0), 2) for seed in (1, 2)]
    pixels = np.stack([smooth[0], np.roll(smooth[0], 2, axis=1), smooth[1]])
    score = make_selector("onevision").score(frames_of(pixels), 8)
    planes = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in pixels]
    for t in (1, 2):
        vectors = block_motion.motion(planes[t - 1], planes[t])
        expected = oracle.onevision(planes[t - 1], planes[t], vectors, 8, 16)
        np.testing.assert_allclose(score[t], expected, atol=1e-6)


def test_onevision_scores_the_first_frame_by_what_dc_prediction_leaves() -> None:
    plane = noise(40, 33)
    motion, residual = onevision.motion_and_residual(None, plane, 8)
    left = np.zeros(plane.shape)
    for (r, c), block in oracle.cut(plane, 16).items():
        left[r * 16 : r * 16 + 16, c * 16 : c * 16 + 16] = abs(block - block.mean())
    expected = oracle.on_grid({cell: patch.mean() for cell, patch in oracle.cut(left, 8).items()})
    assert (motion == 0).all()
    np.testing.assert_allclose(residual, expected, rtol=1e-5)
    frames = frames_of(np.repeat(plane[None, :, :, None], 3, axis=-1))
    score = make_selector("onevision").score(frames, 8)[0]
    np.testing.assert_allclose(score, np.minimum(expected / np.percentile(expected, 95), 1) / 2, rtol=1e-5)


def test_onevision_finds_what_moves_under_a_pan_where_differences_do_not() -> None:
    frames, there = moving(pan=3)
    recall = {}
    for name in ("onevision", "evs"):
        best = exact(make_selector(name).score(frames, 8)[1:], int(2 * there[1:].sum()))
        recall[name] = best[there[1:]].mean()
    assert recall["onevision"] > 0.6 > 0.5 > recall["evs"]


def test_a_percentile_of_nothing_leaves_only_what_is_something() -> None:
    field = np.zeros((10, 10))
    assert (onevision.by_percentile(field) == 0).all()
    field[3, 4] = 0.01
    assert onevision.by_percentile(field)[3, 4] == 1 and onevision.by_percentile(field).sum() == 1


@pytest.mark.parametrize(
    ("count", "shares"),
    [
        (3, [1, 0, 1, 0, 1]),
        (5, [1, 1, 1, 1, 1]),
        (12, [8, 1, 1, 1, 1]),
        (13, [9, 1, 1, 1, 1]),  # one whole frame and the one patch of each other
        (14, [10, 1, 1, 1, 1]),
        (16, [12, 1, 1, 1, 1]),
        (18, [12, 2, 1, 2, 1]),
        (24, [12, 1, 1, 1, 9]),
        (30, [12, 2, 2, 2, 12]),
        (36, [12, 1, 12, 1, 10]),
        (59, [12, 12, 11, 12, 12]),
        (60, [12, 12, 12, 12, 12]),
    ],
)
def test_uniform_frames_keeps_whole_frames_at_even_distances(count: int, shares: list[int]) -> None:
    mask = choose("uniform_frames", np.ones((5, 3, 4), np.float32), count)
    assert mask.sum() == count
    assert mask.sum(axis=(1, 2)).tolist() == shares


def test_uniform_frames_spreads_what_is_not_a_whole_frame() -> None:
    mask = choose("uniform_frames", np.ones((2, 12, 12), np.float32), 144 + 36)
    assert mask[0].all()
    quarters = [mask[1, r : r + 6, c : c + 6].sum() for r in (0, 6) for c in (0, 6)]
    assert max(quarters) - min(quarters) <= 2
