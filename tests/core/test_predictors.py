"""What explained each patch best, where it is known."""

from __future__ import annotations

import cv2
import numpy as np

from entropy_vision.predictors import PREDICTORS, predictors_of, shares

ITSELF, IN_PLACE, CAMERA, LAYER, MEMORY, NEW = range(len(PREDICTORS))


def world(seed: int, side: int = 320) -> np.ndarray:
    """float32 [side, side, 3]: texture with detail of 8 and of 32 pixels."""
    rng = np.random.default_rng(seed)
    fields = [rng.normal(0, 18, (side // cell, side // cell, 3)).astype(np.float32) for cell in (8, 32)]
    return 110 + sum(cv2.resize(field, (side, side), interpolation=cv2.INTER_CUBIC) for field in fields)


def pixels_of(frames: list[np.ndarray]) -> np.ndarray:
    return np.clip(np.stack(frames), 0, 255).round().astype(np.uint8)


def test_what_an_object_uncovers_is_remembered_and_the_rest_is_in_place() -> None:
    ground, frames = world(0)[:128, :128], []
    for t in range(8):
        picture = ground.copy()
        picture[48:80, 16 * t : 16 * t + 32] = (200, 60, 40)  # in its second frame it has left a column of patches
        frames.append(picture)
    best = predictors_of(pixels_of([ground, *frames]), 16)
    assert (best[0] == ITSELF).all()
    assert (best[5, 3:5, 3] == MEMORY).all()  # covered in frame 4, free in frame 5
    assert (best[5, 0] == IN_PLACE).all() and (best[5, 7] == IN_PLACE).all()


def test_a_pan_is_explained_by_the_camera_and_its_strip_by_nothing() -> None:
    big = world(1)
    best = predictors_of(pixels_of([big[:160, 6 * t : 6 * t + 160] for t in range(5)]), 16)
    assert (best[2:, :, :9] == CAMERA).mean() > 0.95
    assert (best[2:, :, 9] == NEW).mean() > 0.5


def test_after_a_cut_a_picture_stands_for_itself() -> None:
    one, two = world(2)[:96, :96], 255 - world(3)[:96, :96]
    best = predictors_of(pixels_of([one, one, two, two]), 16)
    assert (best[[0, 2]] == ITSELF).all() and (best[[1, 3]] == IN_PLACE).all()


def test_shares_are_of_all_patches() -> None:
    told = shares(np.array([[[0, 0], [1, 5]]], np.uint8))
    assert told == dict(zip(PREDICTORS, (0.5, 0.25, 0, 0, 0, 0.25), strict=True))
