"""Colours apart, luma and chroma, halved: the same values as OpenCV's, to the last digit."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from entropy_vision.colour import apart, chroma_of, luma_of, ycrcb
from entropy_vision.planes import planes_and_thumbnail, planes_of, smoothed, thumbnails


@pytest.mark.parametrize("side", [75, 74])
def test_halving_odd_sides_keeps_the_grid(side: int) -> None:
    """A patch of 75 pixels has a thumbnail of 4, by way of 37, 18 and 9."""
    frame = np.random.default_rng(0).integers(0, 256, (side, side, 3)).astype(np.uint8)
    expected = frame
    for size in (37, 18, 9, 4):
        expected = cv2.resize(expected, (size, size), interpolation=cv2.INTER_AREA)
    np.testing.assert_array_equal(planes_and_thumbnail(frame, side)[1], expected.transpose(2, 0, 1))


@pytest.mark.parametrize("patch", [8, 16, 32])
def test_a_thumbnail_is_the_means_of_pixels(patch: int) -> None:
    pixels = np.random.default_rng(3).integers(0, 256, (2, 3 * patch - 5, 2 * patch, 3)).astype(np.uint8)
    padded = np.pad(pixels, [(0, 0), (0, 5), (0, 0), (0, 0)], mode="edge")
    means = padded.reshape(2, 12, patch // 4, 8, patch // 4, 3).mean(axis=(2, 4)).transpose(0, 3, 1, 2)
    # every halving rounds, by half a grey level at the most
    assert np.abs(thumbnails(pixels, patch) - means).max() < 1.5


@pytest.mark.parametrize("size", [(64, 96), (67, 33)])
def test_planes_are_those_of_opencv(size: tuple[int, int]) -> None:
    frame = np.random.default_rng(1).integers(0, 256, (*size, 3)).astype(np.uint8)
    colours = apart(frame[:, ::-1])
    np.testing.assert_array_equal(colours, frame[:, ::-1].transpose(2, 0, 1))
    np.testing.assert_array_equal(luma_of(apart(frame)), cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY))
    np.testing.assert_array_equal(ycrcb(apart(frame)), cv2.cvtColor(frame, cv2.COLOR_RGB2YCrCb).transpose(2, 0, 1))
    np.testing.assert_array_equal(chroma_of(apart(frame)), ycrcb(apart(frame))[1:])
    np.testing.assert_array_equal(smoothed(apart(frame)), cv2.pyrDown(frame).transpose(2, 0, 1))


def test_colours_at_their_extremes_are_those_of_opencv() -> None:
    ends = np.array([0, 1, 127, 128, 254, 255], np.uint8)
    every = np.stack(np.meshgrid(ends, ends, ends), axis=-1).reshape(1, -1, 3)
    np.testing.assert_array_equal(ycrcb(apart(every)), cv2.cvtColor(every, cv2.COLOR_RGB2YCrCb).transpose(2, 0, 1))
    np.testing.assert_array_equal(luma_of(apart(every)), cv2.cvtColor(every, cv2.COLOR_RGB2GRAY))


@pytest.mark.parametrize("patch", [14, 20, 28])
def test_what_a_patch_cannot_show_is_not_aliased_into_it(patch: int) -> None:
    """Stripes of one pixel are grey at 8 samples a patch, wherever they begin."""
    stripes = np.zeros((4 * patch, 4 * patch, 3), np.uint8)
    stripes[:, ::2] = 200
    planes = [planes_of(np.roll(stripes, shift, 1), patch).luma.astype(int) for shift in (0, 1)]
    assert max(int(np.ptp(plane[2:-2, 2:-2])) for plane in planes) <= 60
    assert np.abs(planes[0] - planes[1])[2:-2, 2:-2].max() <= 60


def test_the_planes_of_a_frame_are_luma_and_halved_colour() -> None:
    frame = np.random.default_rng(2).integers(0, 256, (64, 96, 3)).astype(np.uint8)
    planes = planes_of(frame, 16)
    half = cv2.resize(frame, (48, 32), interpolation=cv2.INTER_AREA)
    np.testing.assert_array_equal(planes.luma, cv2.pyrDown(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)))
    colour = cv2.cvtColor(cv2.pyrDown(half), cv2.COLOR_RGB2YCrCb)
    np.testing.assert_array_equal(planes.chroma, colour.transpose(2, 0, 1)[1:])
