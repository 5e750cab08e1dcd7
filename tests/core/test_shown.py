"""The closed loop of choosing: equal to the slow form, and what it is for."""

from __future__ import annotations

import cv2
import numpy as np
import oracles_selection as oracle
import pytest
from media import as_frames

from entropy_vision import Budget, EntropyTokenizer
from entropy_vision.planes import thumbnails
from entropy_vision.shown import Looks, closed_loop, looks_of, walk


def looked(pixels: np.ndarray, patch: int) -> Looks:
    return looks_of(thumbnails(pixels, patch))


def soft(seed: int, height: int, width: int, strength: float = 30) -> np.ndarray:
    """float32 [H, W, 3], smooth colours around 110."""
    rng = np.random.default_rng(seed)
    coarse = rng.normal(110, strength, (height // 8, width // 8, 3))
    return coarse.repeat(8, 0).repeat(8, 1).astype(np.float32)


def video(seed: int, count: int = 8, side: int = 64) -> np.ndarray:
    """uint8 [F, side, side, 3]: a square passes over a ground that stands, in noise; one corner grows lighter."""
    rng, ground, frames = np.random.default_rng(seed), soft(seed, side, side), []
    for t in range(count):
        picture = ground.copy()
        picture[16:40, 6 * t : 6 * t + 20] = (200, 60, 40)
        picture[48:, 48:] += 2 * t
        frames.append(np.clip(picture + rng.normal(0, 2, picture.shape), 0, 255).round().astype(np.uint8))
    return np.stack(frames)


@pytest.mark.parametrize("patch", [8, 16])
@pytest.mark.parametrize("seed", range(3))
def test_looks_are_coarse_pictures_of_the_patches_and_tell_what_rests(seed: int, patch: int) -> None:
    pixels = video(seed)
    looks = looked(pixels, patch)
    slow = [oracle.look(frame, patch) for frame in pixels]
    np.testing.assert_array_equal(looks.values, [list(seen.values()) for seen in slow])
    for t, seen in enumerate(slow):
        rests, fading = oracle.rests_and_fading(seen, slow[t - 1] if t else None)
        np.testing.assert_allclose(looks.rests[t], list(rests.values()), rtol=1e-3, atol=1e-5)
        assert looks.fading[t] == pytest.approx(fading, abs=1e-4)


def mosaic(seed: int) -> np.ndarray:
    """float [64, 64, 3]: flat colours with edges between them."""
    return np.random.default_rng(seed).normal(110, 45, (4, 4, 3)).repeat(20, 0).repeat(20, 1)[:64, :64]


def turning(one: np.ndarray, two: np.ndarray) -> np.ndarray:
    """uint8 [12, 64, 64, 3]: a picture stands, turns into another within two frames, and that stands."""
    shares = [0, 0, 0, 0, 0.5, 1, 1, 1, 1, 1, 1, 1]
    return np.stack([np.clip((1 - a) * one + a * two, 0, 255).round().astype(np.uint8) for a in shares])


def smooth(seed: int, size: int = 64) -> np.ndarray:
    """float32 [size, size, 3]: soft slopes, steep at some places and flat at others."""
    rng = np.random.default_rng(seed)
    coarse = rng.normal(110, 45, (size // 16 + 1, size // 16 + 1, 3)).astype(np.float32)
    return cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC)


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("least", [5.0, 60.0, 200.0])
def test_the_walk_equals_the_slow_form(least: float, whole: bool) -> None:
    pixels = turning(mosaic(4), mosaic(4)[:, ::-1])  # of the same light
    bits = np.random.default_rng(0).gamma(0.3, 150, (12, 8, 8)).astype(np.float32)
    looks = looked(pixels, 8)
    assert looks.fading.max() > 0.5 and looks.rests[7:].min() > 0.5
    news = bits.reshape(12, 64)
    given = news, looks.values, looks.rests, looks.fading
    worth, losses, mask = np.empty(news.shape, np.float32), np.empty(news.shape, np.float32), np.empty(news.shape, bool)
    out = worth, losses, np.full(news.shape, -2, np.int32), mask
    walk(*given, 90.0, 10**9, not whole, *out)  # what an earlier walk has counted changes nothing
    kept = walk(*given, least, 10**9, whole, *out)
    expected, _ = oracle.walk(bits, [oracle.look(frame, 8) for frame in pixels], least, whole)
    np.testing.assert_array_equal(mask.reshape(bits.shape), expected)
    assert kept == expected.sum()


@pytest.mark.parametrize("count", [20, 64, 130, 300])
def test_the_loop_keeps_nearly_as_many_as_it_may_and_never_more(count: int) -> None:
    bits = np.random.default_rng(1).gamma(0.3, 150, (8, 8, 8)).astype(np.float32)
    mask, worth = closed_loop(bits, looked(video(5), 8), count, False, 1.0, 16)
    assert 0.85 * count <= mask.sum() <= count
    assert worth[mask].min() >= np.partition(worth[~mask].ravel(), -1)[-1] - 1e-3  # a threshold parts them
    every, _ = closed_loop(bits, looked(video(5), 8), bits.size, False, 1.0, 16)
    assert every.sum() < bits.size  # what is worth less than a bit is left


def test_what_is_lost_counts_as_much_a_pixel_as_news_do() -> None:
    """A video of half the size with patches of half the size, a quarter of the pixels: the same choice."""
    bits = np.random.default_rng(2).gamma(0.3, 150, (8, 8, 8)).astype(np.float32)
    looks = looked(video(5), 8)
    large, _ = closed_loop(bits, looks, 90, False, 4.0, 16)
    small, _ = closed_loop(bits / 4, looks, 90, False, 1.0, 8)
    np.testing.assert_array_equal(large, small)


def rebuilt_error(pixels: np.ndarray, mask: np.ndarray, patch: int) -> float:
    """Mean squared error when every place shows what was last kept there, from the first frame that did."""
    last, total, seen = np.zeros(pixels.shape[1:], np.float32), 0.0, np.zeros(pixels.shape[1:3], bool)
    for frame, kept in zip(pixels.astype(np.float32), mask, strict=True):
        here = kept.repeat(patch, 0).repeat(patch, 1)
        last[here], seen = frame[here], seen | here
        total += float(((frame - last)[seen] ** 2).mean())
    return total / len(pixels)


def test_what_was_covered_is_shown_again_when_it_is_free() -> None:
    pixels = video(6, count=16)
    pixels[10:] = pixels[9] * 0 + np.clip(soft(6, 64, 64), 0, 255).astype(np.uint8)  # the square is gone at once
    frames, tok = as_frames(pixels), EntropyTokenizer(8, budget=Budget(tokens=230))
    bits = tok.score(frames)
    closed = tok.select(frames, bits).mask
    open_loop = np.zeros(bits.size, bool)
    open_loop[np.argsort(-bits.ravel(), kind="stable")[:230]] = True
    open_error = rebuilt_error(pixels, open_loop.reshape(bits.shape), 8)
    assert rebuilt_error(pixels, closed, 8) < 0.5 * open_error


def test_the_light_is_no_reason_to_send_everything_again() -> None:
    ground, rng = soft(7, 64, 64), np.random.default_rng(0)
    pixels = np.stack([np.clip(ground + rng.uniform(-12, 12), 0, 255).round().astype(np.uint8) for _ in range(8)])
    assert looked(pixels, 8).rests.min() > 0.75


@pytest.mark.parametrize("seed", range(4))
def test_a_camera_that_rests_is_told_from_one_that_moves_and_from_a_dissolve(seed: int) -> None:
    world, rng = smooth(seed, 192), np.random.default_rng(seed)
    world += cv2.resize(rng.normal(0, 25, (48, 48, 3)).astype(np.float32), (192, 192), interpolation=cv2.INTER_CUBIC)

    def seen(x: int, noise: float) -> np.ndarray:
        view = world[32:160, 32 + x : 160 + x] + rng.normal(0, noise, (128, 128, 3))
        return np.clip(view, 0, 255).round().astype(np.uint8)

    resting = looked(np.stack([seen(0, 2) for _ in range(4)]), 16)
    assert np.median(resting.rests) > 0.9 and not resting.fading.any()
    panning = looked(np.stack([seen(2 * t, 1) for t in range(4)]), 16)
    assert np.median(panning.rests[1:]) < 0.1 and panning.fading.max() < 0.5
    turned = looked(turning(mosaic(seed), mosaic(seed + 10)), 8)
    assert turned.fading[4:6].max() > 0.5 and not turned.fading[8:].any() and turned.rests[8:].min() == 1


def test_a_flat_ground_rests_whatever_moves_before_it() -> None:
    """All that is steep moves, so the camera may; where nothing is to be seen it changes nothing."""
    pixels = np.full((6, 96, 96, 3), 110, np.uint8)
    for t, picture in enumerate(pixels):
        picture[16:48, 6 * t : 6 * t + 32] = (200, 60, 40)
        picture[56:80, 60 - 6 * t : 84 - 6 * t] = (30, 90, 220)
    looks = looked(pixels, 8)
    assert (looks.rests[4].reshape(12, 12)[:2] == 1).all()  # beside
    assert (looks.rests[4].reshape(12, 12)[2:6, 0] == 1).all()  # uncovered some frames ago
    assert looks.rests[4].min() < 0.1


def test_light_that_seems_to_fall_for_ever_stays_within_what_grey_levels_there_are() -> None:
    """Three kinds of patches in turn go up by 30 twice and down by 60: the median change is +30 in every frame."""
    phase = (np.arange(36).reshape(6, 6) % 3).repeat(8, 0).repeat(8, 1)
    pixels = np.stack([np.repeat((90 + 30 * ((phase + t) % 3))[..., None], 3, axis=2) for t in range(60)])
    values = looked(pixels.astype(np.uint8), 8).values
    assert np.abs(values).max() <= 255 + 255


def test_what_is_a_little_wrong_is_sent_late_and_not_never() -> None:
    """A patch that changed by little once, beside one that pays in every frame."""
    pixels = np.full((40, 32, 32, 3), 110, np.uint8)
    pixels[20:, :16, :16] = 119
    pixels[38:, :16, :16] = 128
    news = np.zeros((40, 4), np.float32)
    news[:, 3] = 600
    looks = looked(pixels, 16)
    worth, losses, mask = np.empty(news.shape, np.float32), np.empty(news.shape, np.float32), np.empty(news.shape, bool)
    given = news, looks.values, looks.rests, looks.fading
    walk(*given, 500.0, 1000, True, worth, losses, np.full(news.shape, -2, np.int32), mask)
    (late,) = np.flatnonzero(mask[1:, 0]) + 1
    assert 28 <= late <= 36
    assert worth[late, 0] > worth[22, 0] > 250 and not worth[late + 1 : 38, 0].any()
    np.testing.assert_allclose(worth[39, 0], worth[21, 0], rtol=0.02)  # what was owed is paid


def test_the_one_patch_of_every_frame_is_not_taken_from_the_first_view_of_a_place() -> None:
    frames, tok = as_frames(np.full((30, 64, 64, 3), 90, np.uint8)), EntropyTokenizer(8, budget=Budget(tokens=230))
    bits = np.full((30, 8, 8), 5, np.float32)
    bits[0] = 0
    bits[1:10, :3] = np.random.default_rng(0).uniform(500, 2000, (9, 3, 8))  # more than all of the budget
    mask = tok.select(frames, bits).mask
    assert mask[0].all() and (mask.sum(axis=(1, 2)) >= 1).all() and mask.sum() == 230
