"""The selectors: exact counts everywhere, and each one's own formula."""

from __future__ import annotations

import subprocess
import sys

import cv2
import numpy as np
import oracles_selection as oracle
import pytest
from media import blank

from entropy_vision import Budget, EntropyTokenizer, Frames, UsageError, selectors
from entropy_vision.selection import Selector, make_selector
from entropy_vision.selection.histogram import histogram_entropy


def choose(name: str, bits: np.ndarray, count: int) -> np.ndarray:
    """A selector's choice by given scores."""
    return make_selector(name).choose(bits, count, blank(bits.shape), 8)


def frames_of(pixels: np.ndarray) -> Frames:
    return Frames(pixels=pixels, pts_seconds=np.arange(len(pixels)) / 8)


def _noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)


def test_rate_is_the_first_name_and_each_name_makes_its_selector() -> None:
    assert selectors()[0] == "rate"
    assert set(selectors()) >= {"rate", "random", "uniform", "histogram"}
    for name in selectors():
        selector = make_selector(name)
        assert isinstance(selector, Selector)
        assert selector.name == name


@pytest.mark.parametrize("name", selectors())
@pytest.mark.parametrize("side", [1, 8, 14])
@pytest.mark.parametrize("size", [(1, 1), (8, 8), (17, 33), (30, 3)])
@pytest.mark.parametrize("count", [1, 2, 5])
def test_every_selector_keeps_the_exact_count_on_every_shape(
    name: str, side: int, size: tuple[int, int], count: int
) -> None:
    for pixels in (_noise(count, *size, 3), np.full((count, *size, 3), 90, np.uint8)):
        frames, tok = frames_of(pixels), EntropyTokenizer(patch_size=side, selector=name)
        bits = tok.score(frames)
        assert bits.dtype == np.float32
        assert np.isfinite(bits).all() and (bits >= 0).all()
        for budget in (Budget(keep=0.25), Budget(keep=1.0), Budget(tokens=1), Budget(tokens=count)):
            kept = tok.select(frames, bits, budget)
            assert len(kept) == budget.size(bits.size)
            if len(kept) >= count:
                assert kept.mask.any(axis=(1, 2)).all()


def test_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(UsageError, match="did you mean 'histogram'"):
        make_selector("histogramm")


def test_histogram_of_an_image_is_the_entropy_of_its_grey_values() -> None:
    grey = _noise(20, 27) // 16 * 16
    np.testing.assert_allclose(histogram_entropy(grey, 8), oracle.histogram_entropy(grey, 8), atol=1e-5)
    pixels = _noise(1, 24, 24, 3)
    score = make_selector("histogram").score(frames_of(pixels), 8)
    expected = oracle.histogram_entropy(cv2.cvtColor(pixels[0], cv2.COLOR_RGB2GRAY), 8)
    np.testing.assert_allclose(score[0], expected, atol=1e-5)


def test_histogram_of_a_video_is_the_entropy_of_the_absolute_difference() -> None:
    pixels = _noise(3, 16, 16, 3)
    grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY).astype(int) for frame in pixels]
    score = make_selector("histogram").score(frames_of(pixels), 8)
    np.testing.assert_allclose(score[2], oracle.histogram_entropy(abs(grey[2] - grey[1]), 8), atol=1e-5)


def test_histogram_gives_a_flat_patch_nothing_however_much_it_stands_out() -> None:
    pixels = np.full((1, 24, 24, 3), 40, np.uint8)
    pixels[0, 8:16, 8:16] = 200
    assert make_selector("histogram").score(frames_of(pixels), 8).max() == 0


def test_random_draws_by_seed_and_input_and_always_the_same() -> None:
    noise, flat = frames_of(_noise(2, 32, 32, 3)), frames_of(np.zeros((2, 32, 32, 3), np.uint8))
    one, two = make_selector("random", 1), make_selector("random", 2)
    np.testing.assert_array_equal(one.score(noise, 8), make_selector("random", 1).score(noise, 8))
    assert (one.score(noise, 8) != one.score(flat, 8)).any()
    assert (one.score(noise, 8) != two.score(noise, 8)).any()


def test_random_lots_of_different_inputs_are_unrelated() -> None:
    pictures = [frames_of(np.full((1, 32, 32, 3), grey, np.uint8)) for grey in range(200)]
    lots = np.stack([make_selector("random").score(picture, 8).ravel() for picture in pictures])
    often = (lots > 0.75).mean(axis=0)
    assert abs(often - 0.25).max() < 5 * np.sqrt(0.25 * 0.75 / len(pictures))


def test_random_keeps_every_patch_equally_often() -> None:
    frames = frames_of(np.zeros((1, 32, 32, 3), np.uint8))
    masks = [EntropyTokenizer(8, keep=0.25, selector="random", seed=s)(frames).mask for s in range(400)]
    often = np.mean(masks, axis=0)
    assert abs(often - 0.25).max() < 5 * np.sqrt(0.25 * 0.75 / 400)


def test_uniform_keeps_the_same_share_in_every_quarter() -> None:
    frames = frames_of(_noise(1, 96, 96, 3))
    mask = EntropyTokenizer(8, keep=0.25, selector="uniform")(frames).mask[0]
    quarters = [mask[r : r + 6, c : c + 6].sum() for r in (0, 6) for c in (0, 6)]
    assert max(quarters) - min(quarters) <= 2


def test_rate_spreads_what_is_left_when_little_says_anything() -> None:
    pixels = np.full((1, 96, 96, 3), 90, np.uint8)
    pixels[0, 40:56, 40:56] = (200, 60, 60)
    mask = EntropyTokenizer(8, keep=0.25)(frames_of(pixels)).mask[0]
    assert mask[5:7, 5:7].all()
    quarters = [mask[r : r + 6, c : c + 6].sum() for r in (0, 6) for c in (0, 6)]
    assert min(quarters) >= 6  # of 9, were all 36 spread evenly


def test_rate_covers_all_of_a_frame_when_one_corner_takes_the_bits() -> None:
    pixels = np.full((1, 112, 112, 3), 90, np.uint8)
    pixels[0, :40, :40] = np.random.default_rng(0).integers(0, 256, (40, 40, 3))
    bits = np.zeros((1, 14, 14), np.float32)
    bits[0, :7, :7] = 100 + np.arange(49).reshape(7, 7)
    mask = choose("rate", bits, 40)[0]
    assert mask.sum() == 40
    assert mask[7:].any() and mask[:, 7:].any()


_SCORE = """
import hashlib, numpy as np
from entropy_vision import EntropyTokenizer, Frames, selectors
rng = np.random.default_rng(5)
base = rng.integers(0, 256, (40, 40, 3), dtype=np.uint8).repeat(4, 0).repeat(4, 1)
pixels = np.stack([base[t : t + 96, 2 * t : 2 * t + 96] for t in range(4)])
frames = Frames(pixels=pixels, pts_seconds=np.arange(4) / 8)
out = [EntropyTokenizer(8, selector=name)(frames) for name in selectors()]
print(hashlib.sha256(b"".join(k.bits.tobytes() + k.positions.tobytes() for k in out)).hexdigest())
"""


def test_every_selector_is_the_same_in_every_process() -> None:
    def run() -> str:
        return subprocess.run([sys.executable, "-c", _SCORE], capture_output=True, text=True, check=True).stdout

    first = run()
    assert len(first.strip()) == 64
    assert run() == first


def test_rate_shows_every_place_once_where_a_third_of_the_budget_is_enough() -> None:
    bits = np.zeros((60, 4, 4), np.float32)
    bits[:, 0, 0] = 50  # always news
    bits[1:, 0, 1] = 40
    mask = choose("rate", bits, 96)
    assert mask.sum() == 96
    assert mask.any(axis=0).all()
    assert mask[0].sum() >= 14  # from the start, so that there is a picture to hold
    bits += 10  # now everything says something, and more of it than may be kept
    mask = choose("rate", bits, 96)
    assert mask.sum() == 96
    assert mask.any(axis=0).all()
    assert mask[:, 0, 0].mean() > 0.9
