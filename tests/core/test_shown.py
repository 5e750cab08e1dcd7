"""The closed loop of choosing: equal to the slow form, and what it is for."""

from __future__ import annotations

import numpy as np
import oracles_selection as oracle
import pytest
from media import as_frames

from entropy_vision import Budget, EntropyTokenizer
from entropy_vision.shown import closed_loop, looks_of, walk


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
def test_looks_are_coarse_pictures_of_the_patches_and_changes_their_distance(seed: int, patch: int) -> None:
    pixels = video(seed)
    looks = looks_of(pixels, patch)
    slow = [oracle.look(frame, patch) for frame in pixels]
    np.testing.assert_array_equal(looks.values, [list(seen.values()) for seen in slow])
    expected = [oracle.lost_bits(slow[3][p], slow[2][p]) for p in slow[3]]
    np.testing.assert_allclose(looks.change[3], expected, rtol=1e-4)
    assert not looks.change[0].any()
    if patch == 8:
        assert (looks.still > 0.5).all()


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("least", [5.0, 60.0, 200.0])
def test_the_walk_equals_the_slow_form(least: float, whole: bool) -> None:
    pixels = video(4)
    bits = np.random.default_rng(0).gamma(0.3, 150, (8, 8, 8)).astype(np.float32)
    looks = looks_of(pixels, 8)
    worth, beside, mask = np.empty((8, 64), np.float32), np.full((8, 64), -2, np.int32), np.empty((8, 64), bool)
    news = bits.reshape(8, 64)
    kept = walk(news, looks.values, looks.change, looks.still, least, 10**9, whole, worth, beside, mask)
    expected = oracle.walk(bits, [oracle.look(frame, 8) for frame in pixels], least, whole)
    np.testing.assert_array_equal(mask.reshape(8, 8, 8), expected)
    assert kept == expected.sum()


@pytest.mark.parametrize("count", [20, 64, 130, 300])
def test_the_loop_keeps_nearly_as_many_as_it_may_and_never_more(count: int) -> None:
    bits = np.random.default_rng(1).gamma(0.3, 150, (8, 8, 8)).astype(np.float32)
    mask, worth = closed_loop(bits, looks_of(video(5), 8), count, False, 1.0, 16)
    assert 0.85 * count <= mask.sum() <= count
    assert worth[mask].min() >= np.partition(worth[~mask].ravel(), -1)[-1] - 1e-3  # a threshold parts them
    every, _ = closed_loop(bits, looks_of(video(5), 8), bits.size, False, 1.0, 16)
    assert every.sum() < bits.size  # what is worth less than a bit is left


def test_what_is_lost_counts_as_much_a_pixel_as_news_do() -> None:
    """A video of half the size with patches of half the size, a quarter of the pixels: the same choice."""
    bits = np.random.default_rng(2).gamma(0.3, 150, (8, 8, 8)).astype(np.float32)
    looks = looks_of(video(5), 8)
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
    assert looks_of(pixels, 8).change.max() < 16
