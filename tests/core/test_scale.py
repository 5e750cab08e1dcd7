"""Scaled planes turned into RGB by us, beside FFmpeg that does both."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.filter import Graph
from media import drifting, needs_decord, write

from entropy_vision.frames import read_video
from entropy_vision.scale import Layout, Scaler

LAYOUTS = {"yuv420p": 1, "yuv422p": 1, "yuvj420p": 2, "yuvj422p": 2}
MATRICES = (1, 2, 4, 5, 6, 7, 9)


def by_ffmpeg(frame: Any, size: tuple[int, int]) -> np.ndarray:
    """FFmpeg's own RGB: `scale=W:H:flags=bilinear,format=rgb24`."""
    graph = Graph()
    source = graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base)
    scale = graph.add("scale", f"{size[1]}:{size[0]}:flags=bilinear")
    graph.link_nodes(source, scale, graph.add("format", "rgb24"), graph.add("buffersink")).configure()
    graph.push(frame)
    return graph.pull().to_ndarray()


def drawn(rng: np.random.Generator, name: str, height: int, width: int, matrix: int, span: int) -> Any:
    """Noise, ramps, or both ends of the range, plane by plane."""
    frame = av.VideoFrame(width, height, name)
    for plane in frame.planes:
        shape = plane.height, plane.line_size
        ramp = np.broadcast_to(np.linspace(0, 255, shape[1]).astype(np.uint8), shape)
        ends = rng.choice(np.array([0, 16, 235, 240, 255], np.uint8), shape)
        plane.update((rng.integers(0, 256, shape, np.uint8), ramp, ends)[rng.integers(3)].tobytes())
    frame.colorspace, frame.color_range = matrix, span
    frame.pts, frame.time_base = 0, Fraction(1, 25)
    return frame


@pytest.mark.parametrize("name", LAYOUTS)
def test_planes_give_the_rgb_of_ffmpeg_to_the_last_digit(name: str) -> None:
    rng, own = np.random.default_rng(len(name)), 0
    for number in range(400):
        most = int(rng.choice([60, 300, 1200]))
        height, width = (int(side) for side in rng.integers(8, most, 2))
        size = int(rng.integers(8, max(9, height))), 2 * int(rng.integers(4, 150))
        frame = drawn(rng, name, height, width, MATRICES[number % len(MATRICES)], LAYOUTS[name])
        scaler = Scaler(size, alpha=False)
        np.testing.assert_array_equal(scaler(frame), by_ffmpeg(frame, size), err_msg=f"{frame} {size}")
        own += scaler.line is not None
    assert own > 250  # the others went FFmpeg's way


@pytest.mark.parametrize("lower", [1.0, 1.003, 1.01, 1.02, 1.05])
def test_a_picture_that_is_hardly_lower_is_that_of_ffmpeg(lower: float) -> None:
    """A kernel of two rows, which FFmpeg does not round between."""
    rng = np.random.default_rng(5)
    for height in (96, 180, 333):
        frame = drawn(rng, "yuv420p", round(lower * height), 200, 2, 1)
        np.testing.assert_array_equal(Scaler((height, 100), alpha=False)(frame), by_ffmpeg(frame, (height, 100)))


@pytest.mark.parametrize(
    ("changed", "own"),
    [
        ({}, True),
        ({"name": "yuv444p"}, False),
        ({"name": "yuv420p10le"}, False),
        ({"color_range": 2}, False),  # FFmpeg would ask the frame
        ({"name": "yuvj420p"}, False),
        ({"matrix": 8}, False),
        ({"height": 228}, False),
        ({"height": 229}, True),
        ({"height": 224 * 33}, False),
        ({"width": 224 * 33}, False),
    ],
)
def test_which_layouts_are_scaled_as_planes(changed: dict[str, Any], own: bool) -> None:
    layout = Layout(width=640, height=360, name="yuv420p", matrix=2, color_range=1)
    assert (layout._replace(**changed).rgb_line((224, 224)) is not None) == own
    assert layout.rgb_line((224, 223)) is None and layout.rgb_line((15, 224)) is None


@needs_decord
@pytest.mark.parametrize("matrix", ["bt2020c", "ycgco", "smpte2085", "bt709", "bt470bg", "fcc"])
@pytest.mark.parametrize("size", [(48, 64), (48, 65), (120, 80)])
def test_a_matrix_of_any_name_is_read_as_decord_reads_it(tmp_path: Path, matrix: str, size: tuple[int, int]) -> None:
    """FFmpeg's scaler refuses some today."""
    path = write(tmp_path / "a.mp4", drifting(3), options={"x264-params": f"colormatrix={matrix}"})
    one, other = (read_video(path, size=size, decoder=decoder).pixels for decoder in ("decord", "pyav"))
    np.testing.assert_array_equal(one, other)


def test_a_scaler_follows_a_layout_that_changes() -> None:
    rng, scaler = np.random.default_rng(6), Scaler((48, 64), alpha=False)
    changes = [("yuv420p", 90, 2, 1), ("yuv420p", 90, 1, 1), ("yuv444p", 90, 1, 1)]
    changes += [("yuvj420p", 120, 1, 2), ("yuv420p", 120, 1, 1), ("yuv420p", 40, 1, 1)]
    for name, height, matrix, span in changes:
        frame = drawn(rng, name, height, 100, matrix, span)
        np.testing.assert_array_equal(scaler(frame), by_ffmpeg(frame, (48, 64)))


def test_a_frame_that_is_kept_is_not_drawn_over() -> None:
    rng, scaler = np.random.default_rng(7), Scaler((48, 64), alpha=False)
    one = scaler(drawn(rng, "yuv420p", 90, 100, 2, 1))
    before = one.copy()
    scaler(drawn(rng, "yuv420p", 90, 100, 2, 1))
    np.testing.assert_array_equal(one, before)
