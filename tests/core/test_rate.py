"""Bits per patch: equal to the slow form, and what must cost much or nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import oracles_selection as oracle
import pytest

from entropy_vision.grid import block_side
from entropy_vision.intra import gaussian_rate
from entropy_vision.rate import Bits, patch_bits


def smooth_noise(rng: np.random.Generator, height: int, width: int, cell: int, strength: float) -> np.ndarray:
    """float32 [H, W, 3]: colour noise with detail of `cell` pixels, of that standard deviation or less."""
    coarse = rng.normal(0, strength, (height // cell + 2, width // cell + 2, 3)).astype(np.float32)
    return cv2.resize(coarse, None, fx=cell, fy=cell, interpolation=cv2.INTER_LINEAR)[:height, :width]


def to_pixels(picture: np.ndarray) -> np.ndarray:
    return np.clip(picture, 0, 255).round().astype(np.uint8)


def textured(seed: int, side: int = 96) -> np.ndarray:
    """float32 [side, side, 3] around grey 110."""
    return 110 + smooth_noise(np.random.default_rng(seed), side, side, 4, 14)


def with_square(picture: np.ndarray, y: int, x: int, color: tuple[int, int, int], side: int = 16) -> np.ndarray:
    painted = picture.copy()
    painted[y : y + side, x : x + side] = color
    return painted


def ranks(bits: np.ndarray, cells: np.ndarray) -> np.ndarray:
    """How many patches outside `cells` (bool mask of the same shape) have more bits than each inside."""
    return (bits[~cells][None] > bits[cells][:, None]).sum(axis=1)


def block_of(y: int, x: int, grid: int = 12, cells: int = 2) -> np.ndarray:
    mask = np.zeros((grid, grid), bool)
    mask[y : y + cells, x : x + cells] = True
    return mask


def test_gaussian_rate_is_half_a_bit_for_each_doubling_far_above_the_floor() -> None:
    ratios = np.array([[0.0, 0, 0], [2**10, 0, 0], [2**10, 2**10, 2**10]])
    rates = [gaussian_rate(odds) for odds in (1 + ratios**2).prod(axis=1)]
    np.testing.assert_allclose(rates, [0, 5, 15], atol=1e-4)


@pytest.mark.parametrize("patch", [8, 10, 14, 16, 20, 32])
@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (1, 4), (3, 2), (5, 6), (12, 9)])
def test_bits_of_an_image_equal_the_slow_form(patch: int, rows: int, columns: int) -> None:
    height, width = rows * patch, columns * patch
    rng = np.random.default_rng(height * width)
    rough = 110 + smooth_noise(rng, height, width, 4, 14)
    walls = 60 + smooth_noise(rng, height, width, 4, 1)
    walls[:, : width // 3] += 130
    walls[height // 2 :, width // 3 :] += (30, 60, 90)
    for ground in (rough, walls, cv2.blur(walls, (7, 7))):  # the last with soft edges
        pixels = to_pixels(with_square(ground, height // 3, width // 2, tuple(rng.integers(0, 256, 3))))
        bits = patch_bits(pixels[None], patch)[0]
        expected = patch * patch * oracle.picture_bits(pixels, block_side(patch), patch)
        np.testing.assert_allclose(bits, expected, rtol=1e-4, atol=1e-5 * patch**2)


@pytest.mark.parametrize("seed", range(4))
def test_bits_of_a_still_camera_equal_the_slow_form(seed: int) -> None:
    rng = np.random.default_rng(seed)
    ground, color = textured(seed, 64), tuple(rng.integers(0, 256, 3))
    frames = []
    for t in range(12):  # an object that moves, then stands until it is the ground; a corner that grows lighter
        picture = with_square(ground + rng.normal(0, 1, ground.shape), 8 + 3 * min(t, 3), 24, color)
        picture[40:, 40:] += 1.5 * t
        frames.append(to_pixels(picture))
    for patch in (8, 16):
        bits = patch_bits(np.stack(frames), patch)
        for t, expected in enumerate(oracle.still_camera_bits(frames, patch), start=1):
            np.testing.assert_allclose(bits[t], expected, rtol=1e-4, atol=1e-5 * patch**2)


@pytest.mark.parametrize("size", [(96, 96), (90, 70)])
@pytest.mark.parametrize("patch", [8, 14, 16])
def test_frames_at_once_have_the_bits_they_have_one_by_one(size: tuple[int, int], patch: int) -> None:
    """A camera that rests, a flash, a pan, rest, a cut and rest: frames are taken together where it rests."""
    rng, wide = np.random.default_rng(4), textured(5, 160)
    shifts = [0] * 6 + [3, 6, 9, 12] + [12] * 5
    frames = [wide[8 : 8 + size[0], 8 + x : 8 + x + size[1]] for x in shifts]
    frames = [with_square(picture, 20, 4 * t, (200, 60, 40)) for t, picture in enumerate(frames)]
    frames[3] = frames[3] + 90
    frames += [textured(6, 160)[: size[0], : size[1]]] * 4
    pixels = np.stack([to_pixels(picture + rng.normal(0, 0.6, picture.shape)) for picture in frames])
    alone, together, taken = Bits(patch), Bits(patch), [0]
    rest = together.memory.rest

    def counted(*given: Any) -> int:
        taken.append(rest(*given))
        return taken[-1]

    together.memory.rest = counted  # type: ignore[method-assign]
    bits, thumbnails = together.read_all(pixels)
    for t, frame in enumerate(pixels):
        expected, thumbnail = alone.read(frame)
        np.testing.assert_array_equal(bits[t], expected)
        np.testing.assert_array_equal(thumbnails[t], thumbnail)
    one, two = alone.memory.evidence, together.memory.evidence
    assert one is not None and two is not None and one.past.stands == two.past.stands
    assert alone.memory._aside is None and together.memory._aside is None
    np.testing.assert_array_equal(one.recent, two.recent)
    np.testing.assert_array_equal(one.known, two.known)
    np.testing.assert_array_equal(one.past.energy, two.past.energy)
    whole = patch in (8, 16) and size == (96, 96)
    assert (sum(taken) > 2) is whole


def test_padding_has_no_bits() -> None:
    ground = textured(0, 96)
    pixels = np.stack([to_pixels(ground), to_pixels(with_square(ground, 30, 40, (200, 60, 40)))])
    cut = pixels[:, :90, :89]
    repeated = np.pad(cut, ((0, 0), (0, 6), (0, 7), (0, 0)), mode="edge")
    real = np.full((12, 12), 64)
    real[:, 11], real[11] = 8 * 1, 2 * 8
    real[11, 11] = 2 * 1
    np.testing.assert_allclose(patch_bits(cut, 8), patch_bits(repeated, 8) * real / 64, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("side", [8, 14, 16, 32])
def test_nothing_costs_nothing(side: int) -> None:
    for value in (0, 90, 255):
        assert patch_bits(np.full((3, 50, 70, 3), value, np.uint8), side).max() < 1e-3


def test_a_flat_object_that_fills_its_patches_stands_out_on_a_flat_ground() -> None:
    pixels = to_pixels(with_square(np.full((96, 96, 3), 110.0), 32, 48, (200, 60, 40)))
    assert (ranks(patch_bits(pixels[None], 8)[0], block_of(4, 6)) == 0).all()


@pytest.mark.parametrize("seed", range(3))
def test_an_object_of_the_grounds_own_luma_stands_out(seed: int) -> None:
    grey = np.repeat(textured(seed)[..., :1], 3, axis=-1)
    color = np.array([180.0, 80, 0])
    color += grey.mean() - color @ [0.299, 0.587, 0.114]
    pixels = to_pixels(with_square(grey, 32, 48, tuple(color)))
    assert (ranks(patch_bits(pixels[None], 8)[0], block_of(4, 6)) == 0).all()


@pytest.mark.parametrize("seed", range(3))
def test_a_flat_object_beats_a_field_of_white_noise(seed: int) -> None:
    picture = np.full((96, 96, 3), 110.0)
    picture[:, 48:] += np.random.default_rng(seed).normal(0, 40, (96, 48, 3))
    pixels = to_pixels(with_square(picture, 32, 16, (200, 60, 40)))
    assert (ranks(patch_bits(pixels[None], 8)[0], block_of(4, 2)) <= 3).all()


def test_letters_stand_out_on_a_textured_ground() -> None:
    picture = textured(3)
    ink = np.zeros((96, 96), np.uint8)
    cv2.putText(ink, "TEXT", (24, 54), cv2.FONT_HERSHEY_SIMPLEX, 0.4, 255, 1)
    pixels = to_pixels(np.where(ink[..., None] > 127, 240, picture))
    written = cv2.resize(ink.astype(np.float32), (12, 12), interpolation=cv2.INTER_AREA) > 30
    assert written.sum() >= 3
    assert (ranks(patch_bits(pixels[None], 8)[0], written) <= 6).all()


def test_letters_of_the_colour_of_a_bar_stand_out_below_it() -> None:
    # as in a terminal: ink and ground are the two colours of the picture, and yet the letters are no edge
    picture = np.zeros((96, 96, 3))
    picture[:36] = 240
    ink = np.zeros((96, 96), np.uint8)
    cv2.putText(ink, "TEXT", (24, 62), cv2.FONT_HERSHEY_SIMPLEX, 0.4, 255, 1)
    bits = patch_bits(to_pixels(np.where(ink[..., None] > 127, 240, picture))[None], 8)[0]
    written = cv2.resize(ink.astype(np.float32), (12, 12), interpolation=cv2.INTER_AREA) > 30
    assert bits[written].min() > 1.5 * bits[4].max()
    assert bits[written].min() > 20


def test_the_edge_of_a_black_bar_costs_less_than_a_small_object() -> None:
    picture = textured(1)
    picture[:20] = 0
    picture[80:] = 0
    pixels = to_pixels(with_square(picture, 40, 40, (150, 150, 60)))
    bits = patch_bits(pixels[None], 8)[0]
    assert bits[5:7, 5:7].min() > 2 * bits[2].max()


def test_a_static_video_pays_once() -> None:
    picture = with_square(textured(4), 32, 48, (200, 60, 40))
    rng = np.random.default_rng(0)
    pixels = np.stack([to_pixels(picture + rng.normal(0, 2, picture.shape)) for _ in range(4)])
    bits = patch_bits(pixels, 8)
    assert bits[1:, 4:6, 6:8].max() < 0.1 * bits[0, 4:6, 6:8].min()


def test_what_appears_pays_when_it_appears_then_less_then_nothing() -> None:
    ground = textured(5)
    pixels = np.stack([to_pixels(ground if t < 2 else with_square(ground, 32, 48, (200, 60, 40))) for t in range(14)])
    bits = patch_bits(pixels, 8)
    assert (ranks(bits[2], block_of(4, 6)) == 0).all()
    assert bits[3].max() < 0.5 * bits[2, 4:6, 6:8].min()
    assert bits[12:].max() < 0.05 * bits[2, 4:6, 6:8].min()


@pytest.mark.parametrize("ground", ["flat", "textured"])
def test_what_moves_pays_again_and_again(ground: str) -> None:
    # on the flat ground its own motion is the only one: no camera must be seen in it
    under = textured(6) if ground == "textured" else np.full((96, 96, 3), 110.0)
    thing = textured(7, 32) * [1.2, 0.6, 0.4]
    pixels = []
    for t in range(4):
        picture = under.copy()
        picture[32:64, 16 + 8 * t : 48 + 8 * t] = thing
        pixels.append(to_pixels(picture))
    bits = patch_bits(np.stack(pixels), 8)
    for t in range(1, 4):
        here = np.zeros((12, 12), bool)
        here[4:8, 2 + t : 6 + t] = True
        assert bits[t][here].mean() > 5 * bits[t][~here].mean()


def test_flicker_is_not_news_but_another_picture_is() -> None:
    ground = textured(8)
    flicker = patch_bits(np.stack([to_pixels(ground), to_pixels(ground + 15)]), 8)
    assert flicker[1].max() < 16  # a quarter of a bit a pixel
    earlier = 110 + smooth_noise(np.random.default_rng(9), 96, 96, 24, 60)  # no noise in it, and nothing to keep
    later = with_square(np.full((96, 96, 3), 110.0), 32, 48, (140, 100, 80))
    cut = np.stack([to_pixels(earlier), to_pixels(later)])
    alone = patch_bits(cut[1:], 8)[0]
    assert (patch_bits(cut, 8)[1][block_of(4, 6)] > 0.5 * alone[block_of(4, 6)]).all()


def test_a_moving_camera_pays_for_what_moves_by_itself() -> None:
    rng = np.random.default_rng(10)
    canvas = 110 + smooth_noise(rng, 200, 200, 6, 35)
    pixels = []
    for t in range(4):
        picture = canvas[40 : 40 + 128, 40 + 3 * t : 40 + 3 * t + 128]
        pixels.append(to_pixels(with_square(picture, 48, 32 + 8 * t, (220, 60, 40))))
    bits = patch_bits(np.stack(pixels), 8)
    for t in range(1, 4):
        here = np.zeros((16, 16), bool)
        here[6:8, 4 + t : 6 + t] = True  # the whole of it, for memory knows the ground below
        assert (ranks(bits[t], here) <= 4).all()
        assert np.median(bits[t][~here]) < 0.1 * bits[t][here].mean()


def test_a_moving_camera_does_not_pay_again_for_what_stands() -> None:
    rng = np.random.default_rng(11)
    canvas = 110 + smooth_noise(rng, 240, 240, 5, 25)
    for y, x in ((70, 70), (110, 130), (140, 80)):
        canvas = with_square(canvas, y, x, (220, 60, 40))
    pixels = np.stack([to_pixels(canvas[40 + 2 * t : 168 + 2 * t, 40 + 5 * t : 168 + 5 * t]) for t in range(3)])
    bits = patch_bits(pixels, 8)
    inside = np.s_[1:-1, 1:-1]  # the border shows new ground
    assert bits[2][inside].max() < 0.4 * bits[0].max()


def test_the_ground_behind_an_object_is_known_once_it_was_seen() -> None:
    ground, thing = textured(13), (200, 60, 40)
    places = [None, 16, 32, 48, 64]
    pixels = [to_pixels(ground if x is None else with_square(ground, 32, x, thing)) for x in places]
    bits = patch_bits(np.stack(pixels), 8)
    assert bits[3, 4:6, 4].max() < 0.1 * bits[3, 4:6, 6].min()  # where it was, and where it is


def test_slow_change_adds_up_until_it_counts() -> None:
    ground = textured(14)
    soft = np.zeros((96, 96, 1), np.float32)
    soft[32:64, 32:64] = 1
    bits = patch_bits(np.stack([to_pixels(ground + t * soft) for t in range(24)]), 8)
    inside = bits[:, 5:7, 5:7].reshape(24, -1)
    assert inside[1:4].max() < 20  # a third of a bit a pixel
    gaps = np.diff(np.flatnonzero(inside.max(axis=1) > 40))
    assert len(gaps) >= 2 and gaps.max() <= 9


def test_light_that_sinks_is_news_in_the_end_and_flicker_never() -> None:
    ground = textured(15)
    sinking = patch_bits(np.stack([to_pixels(ground - 1.5 * t) for t in range(24)]), 8)
    assert (np.median(sinking[1:], axis=(1, 2)) > 40).any()
    rng = np.random.default_rng(0)
    flicker = patch_bits(np.stack([to_pixels(ground + rng.uniform(-12, 12)) for _ in range(24)]), 8)
    assert (np.median(flicker[1:], axis=(1, 2)) < 20).all()


def test_light_that_has_drifted_far_is_no_news_for_good() -> None:
    """Each twelve grey levels of steady change are sent once; afterwards the picture is known at its new light."""
    rng = np.random.default_rng(5)
    ground = 0.6 * textured(5)
    light = np.minimum(np.arange(60), 30) * 2.0
    light[31:] += rng.uniform(-8, 8, 29)  # flicker, where it has come to rest
    bits = patch_bits(np.stack([to_pixels(ground + step) for step in light]), 8)
    usual = np.median(bits[1:], axis=(1, 2))
    assert 3 <= (usual > 16).sum() <= 6 and (usual[33:] < 8).all()


@pytest.mark.parametrize("flash", ["white", "black", "bright", "dim"])
def test_what_a_flash_hid_is_known_behind_it(flash: str) -> None:
    ground, rng = textured(7), np.random.default_rng(7)
    lit = {"white": 0 * ground + 255, "black": 0 * ground, "bright": ground + 60, "dim": 0.3 * ground}[flash]
    shown = [ground] * 8 + [lit] + [ground] * 6
    bits = patch_bits(np.stack([to_pixels(one + rng.normal(0, 1, one.shape)) for one in shown]), 8)
    assert np.median(bits[9:], axis=(1, 2)).max() < 3
    other = patch_bits(np.stack([to_pixels(one) for one in [ground] * 8 + [textured(8)] + [textured(9)] * 2]), 8)
    assert np.median(other[8]) > 10 < np.median(other[9])  # two cuts are two pictures


def test_noise_of_a_camera_on_a_still_scene_is_hardly_news() -> None:
    """Up to six grey levels; beyond that the floor no longer holds all of it (docs/selection.md, Limits)."""
    rng, ground = np.random.default_rng(6), textured(6)
    for strength, share in ((2, 0.1), (4, 0.25), (6, 0.5)):
        bits = patch_bits(np.stack([to_pixels(ground + rng.normal(0, strength, ground.shape)) for _ in range(12)]), 16)
        assert np.median(bits[2:]) < share * np.median(bits[0])


def test_nearer_things_that_pass_with_the_camera_are_a_layer_and_no_news() -> None:
    rng = np.random.default_rng(16)
    back, front = 110 + smooth_noise(rng, 128, 200, 6, 35), 110 + smooth_noise(rng, 128, 200, 6, 35)
    pixels = []
    for t in range(4):
        picture = back[:, 20 + 2 * t : 148 + 2 * t].copy()
        picture[:, 48:88] = front[:, 40 + 5 * t : 80 + 5 * t]
        pixels.append(to_pixels(picture))
    bits = patch_bits(np.stack(pixels), 8)
    assert np.median(bits[3][:, 7:10]) < 16


def test_small_text_in_noise_stands_out_on_its_quiet_plate() -> None:
    rng = np.random.default_rng(17)
    picture = 120 + rng.normal(0, 35, (128, 128, 3))
    picture[40:64, 24:88] = 120 + rng.normal(0, 2, (24, 64, 3))
    ink = np.zeros((128, 128), np.uint8)
    cv2.putText(ink, "PLATE", (28, 57), cv2.FONT_HERSHEY_SIMPLEX, 0.45, 255, 1)
    bits = patch_bits(to_pixels(picture + 30 * (ink[..., None] / 255))[None], 8)[0]
    written = cv2.resize(ink.astype(np.float32), (16, 16), interpolation=cv2.INTER_AREA) > 40
    assert (ranks(bits, written) <= 32).all()


def test_what_reads_a_picture_is_compiled_once_for_all_processes(tmp_path: Path) -> None:
    script = (
        "import numpy as np; from entropy_vision.picture import _reader, read_picture\n"
        "read_picture(np.zeros((3, 16, 16), np.uint8), 8, 2); print(sum(_reader(8).stats.cache_hits.values()))"
    )
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    found = [subprocess.check_output([sys.executable, "-c", script], env=environment, text=True) for _ in range(2)]
    assert [int(count) for count in found] == [0, 1]
