"""Layers of a parallax: exact motions, borders that nobody can predict, a memory of each layer where it is."""

from __future__ import annotations

import cv2
import numpy as np

from entropy_vision.layers import Layers, layers_of, refine
from entropy_vision.planes import Planes
from entropy_vision.rate import patch_bits
from entropy_vision.warp import warp

SIDE = 96
GROUND, POLES = (np.array([[1.0, 0, by], [0, 1, 0]]) for by in (1.0, 3.0))  # where samples were in the frame before


def texture(seed: int, height: int, width: int) -> np.ndarray:
    """float32 [height, width, 3]: colour noise with detail of four pixels."""
    coarse = np.random.default_rng(seed).normal(0, 35, (height // 4 + 2, width // 4 + 2, 3)).astype(np.float32)
    return 120 + cv2.resize(coarse, None, fx=4, fy=4, interpolation=cv2.INTER_CUBIC)[:height, :width]


def planes(picture: np.ndarray) -> Planes:
    """Luma and half of its size as both colours."""
    luma = np.clip(picture[..., 0], 0, 255).round().astype(np.uint8)
    return Planes(luma, np.repeat(luma[None, ::2, ::2], 2, axis=0))


def passing(t: int, side: int, pace: int = 1) -> np.ndarray:
    """Frame t: ground that moves 1 pixel to the left, two poles of 12 that move 3, both times `pace`."""
    back, front = texture(0, side, 3 * side), texture(1, side, 3 * side)
    picture = back[:, pace * t : pace * t + side].copy()
    for left in (side // 2, side):
        low = left - 3 * pace * t
        first, last = max(low, 0), min(max(low + 12, 0), side)
        picture[:, first:last] = front[:, left + first - low : left + last - low]
    return picture


def test_a_motion_is_made_exact_on_its_own_samples_alone() -> None:
    now, before = planes(passing(4, SIDE)), planes(passing(3, SIDE))
    mine = np.zeros((SIDE, SIDE), bool)
    mine[:, 37:47] = True  # a pole stands on columns 36 to 47
    motion = POLES - [[0, 0, 0.4], [0, 0, -0.3]]
    for _ in range(3):
        motion = refine(motion, warp(before, motion), now, mine)
    at = np.array([42, SIDE / 2, 1])
    np.testing.assert_allclose((motion - POLES) @ at, 0, atol=0.03)


def test_each_sample_follows_its_layer_and_only_borders_are_in_doubt() -> None:
    scene = passing(4, SIDE)
    scene[30:50, 10:24] = 230  # goes its own way
    now, before = planes(scene), planes(passing(3, SIDE))
    layers = layers_of(now, [(motion, warp(before, motion)) for motion in (GROUND, POLES)])
    assert (layers.owner[:, 40:44] == 1).mean() > 0.95
    assert (layers.owner[:, 56:76] == 0).mean() > 0.95
    assert (layers.owner[:, 48:50] == 2).mean() > 0.9  # what the pole uncovered
    assert (layers.owner[32:48, 12:22] != 2).all()
    seen = layers.compose([warp(before, motion) for motion in (GROUND, POLES)], now)
    off = np.abs(seen.luma.astype(int) - now.luma)
    assert off[:, 30:76].mean() < 1 < off[32:48, 12:22].mean()


def test_memory_keeps_each_layer_where_it_is() -> None:
    before, now = (planes(passing(t, SIDE)).astype(np.float32) for t in (3, 4))
    owner = np.zeros((SIDE, SIDE), np.uint8)
    owner[:, 36:48] = 1
    owner[:, 48:50] = 2
    moved = Layers([GROUND, POLES], owner).follow(before, planes(passing(4, SIDE)))
    np.testing.assert_allclose(moved.luma[:, 4:80], now.luma[:, 4:80], atol=1e-3)


def test_what_poles_uncover_costs_less_than_the_whole_of_a_thing_that_moves() -> None:
    side, frames = 192, []
    for t in range(12):
        picture = passing(t, side, 2)
        picture[128:176, 16 + 3 * t : 48 + 3 * t] = (180, 90, 150)  # flat: inside, nothing changes
        frames.append(np.clip(picture, 0, 255).round().astype(np.uint8))
    bits = patch_bits(np.stack(frames), 16)
    for t in (9, 10, 11):
        low = (16 + 3 * t) // 16 + 1
        inside = bits[t, 8:11, low]  # patches that the thing fills
        elsewhere = bits[t, :7, 1:-1]
        assert (elsewhere < np.median(inside)).mean() > 0.97


def test_poles_and_the_ground_behind_them_are_not_paid_for_again_and_again() -> None:
    frames = [np.clip(passing(t, 192, 2), 0, 255).round().astype(np.uint8) for t in range(12)]
    bits = patch_bits(np.stack(frames), 16)
    assert bits[4:, :, 1:-1].mean() < 270  # with one memory, moved with the ground alone, 350
