"""The patch grid."""

from __future__ import annotations

import numpy as np
import oracles_selection as oracle
import pytest

from entropy_vision import UsageError
from entropy_vision.grid import block_side, gather, grid_size, pad, patchify, real_pixels, unpatchify


def _noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize(("height", "width", "side"), [(16, 16, 8), (17, 23, 8), (1, 1, 4), (7, 30, 14), (5, 5, 1)])
def test_patchify_equals_cutting_patch_by_patch(height: int, width: int, side: int) -> None:
    pixels = _noise(2, height, width, 3)
    patches = patchify(pixels, side)
    expected = oracle.patches(pixels, side)
    assert patches.shape == (2, *grid_size(height, width, side), side, side, 3)
    assert patches.shape[0] * patches.shape[1] * patches.shape[2] == len(expected)
    for position, patch in expected.items():
        np.testing.assert_array_equal(patches[position], patch)


def test_unpatchify_gives_the_frames_back_when_the_size_is_given() -> None:
    pixels = _noise(3, 21, 34, 3)
    np.testing.assert_array_equal(unpatchify(patchify(pixels, 8), (21, 34)), pixels)


def test_patchify_is_a_view_where_nothing_is_padded() -> None:
    pixels = _noise(1, 32, 16, 3)
    assert np.shares_memory(patchify(pixels, 16), pixels)
    assert pad(pixels, 16) is pixels


def test_gather_takes_the_patches_in_the_order_of_the_positions() -> None:
    pixels = _noise(2, 20, 20, 3)
    positions = np.array([[1, 2, 2], [0, 0, 1]], np.int32)
    taken = gather(pixels, positions, 8)
    assert taken.flags.c_contiguous
    for patch, position in zip(taken, positions, strict=True):
        np.testing.assert_array_equal(patch, oracle.patches(pixels, 8)[tuple(position)])


def test_block_side_is_the_divisor_nearest_to_eight() -> None:
    given = {8: 8, 14: 7, 16: 8, 32: 8, 12: 6, 10: 10, 1: 1, 7: 7, 24: 8, 28: 7}
    assert {patch: block_side(patch) for patch in given} == given


def test_real_pixels_counts_what_lies_inside_the_frame() -> None:
    inside = np.pad(np.ones((13, 18)), ((0, 3), (0, 6)))
    counted = [[inside[r : r + 8, c : c + 8].sum() for c in (0, 8, 16)] for r in (0, 8)]
    np.testing.assert_array_equal(real_pixels(13, 18, 8), counted)


def test_grid_refuses_a_patch_size_of_zero() -> None:
    with pytest.raises(UsageError, match="patch_size must be at least 1"):
        grid_size(8, 8, 0)
