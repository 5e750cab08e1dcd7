"""Reading videos: both decoders, times, rotation, sizes; writing them, and real files."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from media import as_frames, drifting, needs_decord, numbered, write
from PIL import Image

from entropy_vision.errors import UsageError
from entropy_vision.frames import Frames, decode, read_image, read_video
from entropy_vision.sampling import sample
from entropy_vision.video_write import write_video


def test_read_video_gives_every_frame_in_order(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", numbered(30), options={"bf": "3", "g": "12"})
    frames = read_video(path, size=None)
    assert frames.size == (64, 64)
    levels = frames.pixels.reshape(30, -1).mean(1)
    np.testing.assert_allclose(levels, 20 + 6 * np.arange(30), atol=2)
    np.testing.assert_allclose(frames.pts_seconds, np.arange(30) / 8, atol=1e-6)


@needs_decord
@pytest.mark.parametrize(
    ("name", "codec", "pixel_format"),
    [
        ("a.mp4", "libx264", "yuv420p"),
        ("a.mkv", "libx264", "yuv444p"),
        ("b.mkv", "libx264", "yuvj420p"),
        ("c.mp4", "libx264", "yuv420p10le"),
        ("a.avi", "mpeg4", "yuv420p"),
        ("a.webm", "libvpx-vp9", "yuv420p"),
        ("d.mkv", "mjpeg", "yuvj420p"),
    ],
)
@pytest.mark.parametrize("size", [None, 48, (40, 72), (50, 3), 96])
def test_decoders_give_equal_pixels_and_times(
    tmp_path: Path, name: str, codec: str, pixel_format: str, size: int | tuple[int, int] | None
) -> None:
    path = write(tmp_path / name, drifting(6), codec=codec, pixel_format=pixel_format)
    if size is None and pixel_format.endswith("10le"):
        with pytest.raises(UsageError, match="more than 8 bits"):
            read_video(path, size=size, decoder="decord")
        return
    one, info = decode(path, size=size, decoder="decord")
    other, _ = decode(path, size=size, decoder="pyav")
    assert info.decoder == "decord"
    np.testing.assert_array_equal(one.pixels, other.pixels)
    np.testing.assert_array_equal(one.pts_seconds, other.pts_seconds)


@needs_decord
def test_decoders_round_mpeg4_their_own_way(tmp_path: Path) -> None:
    """Its transform is not fixed to the bit, and decord's FFmpeg is older."""
    pixels = np.random.default_rng(0).integers(0, 256, (6, 64, 64, 3), np.uint8)
    path = write(tmp_path / "a.avi", pixels, codec="mpeg4", options={"qscale": "3"})
    one, other = (read_video(path, size=48, decoder=decoder).pixels.astype(int) for decoder in ("auto", "decord"))
    assert np.abs(one - other).max() <= 2


@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
def test_times_ascend_where_an_avi_has_frames_out_of_order(tmp_path: Path, codec: str) -> None:
    path = write(tmp_path / "a.avi", numbered(30), codec=codec, options={"bf": "2"})
    for decoder in ("auto", "pyav"):
        frames = read_video(path, decoder=decoder)
        np.testing.assert_allclose(np.diff(frames.pts_seconds), 1 / 8, atol=1e-6)
        assert (np.diff(frames.pixels.reshape(30, -1).mean(1)) >= 0).all()


def test_decord_is_needed_only_where_it_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.mp4", drifting(3))
    monkeypatch.setattr("entropy_vision.video.has_decord", lambda: False)
    assert decode(path)[1].decoder == "pyav"
    with pytest.raises(UsageError, match="not installed"):
        read_video(path, decoder="decord")


def test_decord_alone_refuses_what_it_gets_wrong(tmp_path: Path) -> None:
    path = write(tmp_path / "a.gif", drifting(3), codec="gif", pixel_format="rgb8")
    with pytest.raises(UsageError, match="container gif"):
        read_video(path, decoder="decord")
    assert decode(path)[1].decoder == "pyav"


def test_times_are_those_of_the_container_where_the_rate_varies(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mkv", numbered(5), times=[100, 140, 150, 700, 720])
    for decoder in ("auto", "pyav"):
        np.testing.assert_allclose(read_video(path, decoder=decoder).pts_seconds, [0.1, 0.14, 0.15, 0.7, 0.72])


@pytest.mark.parametrize("turn", [90, 180, 270])
def test_rotation_in_the_header_stands_the_frames_upright(tmp_path: Path, turn: int) -> None:
    pixels = drifting(3, height=48, width=80)
    stored = read_video(write(tmp_path / "plain.mp4", pixels), size=None).pixels
    path = write(tmp_path / "turned.mp4", pixels, rotation=turn)
    frames, info = decode(path, size=None)
    assert info.rotation == turn
    np.testing.assert_array_equal(frames.pixels, np.rot90(stored, turn // 90, axes=(1, 2)))
    scaled = read_video(path, size=(40, 24))
    assert scaled.size == (40, 24)
    assert np.abs(scaled.pixels.mean((1, 2)) - frames.pixels.mean((1, 2))).max() < 3


def test_fps_takes_the_nearest_frames_of_a_video(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", numbered(24), fps=12)
    every = read_video(path)
    for decoder in ("auto", "pyav"):
        frames = read_video(path, fps=3, decoder=decoder)
        np.testing.assert_array_equal(frames.pixels, every.pixels[::4])
        np.testing.assert_allclose(frames.pts_seconds, np.arange(6) / 3, atol=1e-6)
    assert read_video(path, fps=0.01).count == 1
    assert read_video(path, fps=500).count == 24


def nearest_frames(times: list[float], fps: float) -> list[int]:
    """The slow truth: for every i / fps up to the last frame, the nearest frame, the earlier of two, once each."""
    chosen, number = [], 0
    while times[0] + number / fps <= times[-1] + 1e-9:
        target = times[0] + number / fps
        distances = np.round(np.abs(np.array(times) - target), 7)
        chosen.append(int(np.argmin(distances)))
        number += 1
    return sorted(set(chosen))


@settings(deadline=None, max_examples=150)
@given(
    steps=st.lists(st.integers(1, 400), min_size=0, max_size=30),
    start=st.integers(0, 5000),
    fps=st.sampled_from([0.5, 1.0, 2.0, 3.0, 7.5, 10.0, 29.97, 60.0]),
)
def test_sample_equals_the_slow_truth(steps: list[int], start: int, fps: float) -> None:
    times = [round(value * 0.001, 3) for value in np.cumsum([start, *steps])]
    got = [index for _, index in sample(((time, index) for index, time in enumerate(times)), fps)]
    assert got == nearest_frames(times, fps)


def test_of_two_equally_near_frames_the_earlier_is_taken() -> None:
    times = [0.0, 0.4, 0.6, 1.0]
    assert [time for time, _ in sample(((time, None) for time in times), 2.0)] == [0.0, 0.4, 1.0]


def test_a_rate_too_small_to_matter_costs_no_loop() -> None:
    assert len(list(sample(iter([(0.0, 0), (1e7, 1)]), 1000.0))) == 2


def test_transparent_pixels_are_laid_over_white(tmp_path: Path) -> None:
    pictures = [Image.new("RGBA", (32, 32), (200, 0, 0, 0 if number else 255)) for number in range(2)]
    path = tmp_path / "a.apng"
    pictures[0].save(path, "PNG", save_all=True, append_images=pictures[1:], duration=100)
    assert read_image(path, size=None).pixels[0, 0, 0].tolist() == [200, 0, 0]
    gif = tmp_path / "a.gif"
    pictures[1].save(gif, "GIF", save_all=True, append_images=[pictures[0]], duration=100)
    assert read_video(gif, size=None).pixels[0, 0, 0].tolist() == [255, 255, 255]


def test_write_video_gives_equal_bytes_and_close_pixels(tmp_path: Path) -> None:
    frames = as_frames(drifting(6))
    write_video(tmp_path / "a.mp4", frames, fps=8)
    write_video(tmp_path / "b.mp4", frames, fps=8)
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()
    again = read_video(tmp_path / "a.mp4", size=None)
    assert np.abs(again.pixels.astype(int) - frames.pixels).mean() < 6
    np.testing.assert_allclose(again.pts_seconds, frames.pts_seconds, atol=1e-6)
    assert {path.name for path in tmp_path.iterdir()} == {"a.mp4", "b.mp4"}


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be told what to fill memory with")
def test_write_video_does_not_depend_on_what_memory_held_before(tmp_path: Path) -> None:
    """glibc fills what it hands out with the byte named, so that a read of what nobody wrote shows."""
    program = (
        "import pathlib, sys\n"
        "from entropy_vision.data import World\n"
        "from entropy_vision.video_write import write_video\n"
        "world = World('video', split='train', difficulty=0.2, size=64, frame_count=8)\n"
        "for i in range(10):\n"
        "    for codec in ('libx264', 'h264'):\n"
        "        path = pathlib.Path(sys.argv[1]) / f'{i}-{codec}.mp4'\n"
        "        write_video(path, world.scene(i)[0].frames, fps=8, codec=codec)\n"
    )
    written = []
    for byte in ("0", "85"):
        folder = tmp_path / byte
        folder.mkdir()
        environment = {**os.environ, "MALLOC_PERTURB_": byte}
        subprocess.run([sys.executable, "-c", program, str(folder)], check=True, env=environment)
        written.append([path.read_bytes() for path in sorted(folder.iterdir())])
    assert len(written[0]) == 20 and written[0] == written[1]


def test_write_video_takes_odd_sides_and_names_what_is_wrong(tmp_path: Path) -> None:
    frames = as_frames(drifting(2, 33, 47))
    write_video(tmp_path / "a.mkv", frames, fps=29.97)
    assert read_video(tmp_path / "a.mkv", size=None).size == (33, 47)
    for bad in ({"fps": 0}, {"fps": 8, "codec": "nonsense"}):
        with pytest.raises(UsageError):
            write_video(tmp_path / "b.mp4", frames, **bad)
    with pytest.raises(UsageError):
        write_video(tmp_path / "b.nonsense", frames, fps=8)


def test_frames_refuse_what_is_not_frames() -> None:
    with pytest.raises(TypeError):
        Frames(pixels=np.zeros((1, 4, 4, 3)), pts_seconds=np.zeros(1))
    with pytest.raises(ValueError):
        Frames(pixels=np.zeros((2, 4, 4, 3), np.uint8), pts_seconds=np.array([1.0, 0.5]))
    with pytest.raises(ValueError):
        Frames(pixels=np.zeros((0, 4, 4, 3), np.uint8), pts_seconds=np.zeros(0))


def test_importing_frames_loads_no_torch() -> None:
    code = "import sys, entropy_vision.frames; assert not {'torch', 'av', 'decord'} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


@needs_decord
def test_real_videos_decode_to_equal_pixels_by_both_decoders(shared_data: Path) -> None:
    import json

    listed = json.loads((shared_data / "manifest.json").read_text())["files"]
    counts = {Path(entry["file"]).name: entry["frames"] for entry in listed if entry["file"].startswith("videos/")}
    paths = sorted((shared_data / "videos").iterdir())
    assert len(paths) == 21
    compared = 0
    for path in paths:
        one, info = decode(path, size=64)
        assert not info.salvaged and info.packet_errors == 0
        if path.name != "nasa_two_streams.mp4":  # the manifest describes its first stream, not its best
            assert one.count == counts[path.name], path.name
        if path.stat().st_size < 600_000 and one.count < 500:
            try:
                other, _ = decode(path, size=64, decoder="decord")
            except UsageError:
                continue
            compared += 1
            np.testing.assert_array_equal(one.pixels, other.pixels, err_msg=path.name)
            np.testing.assert_array_equal(one.pts_seconds, other.pts_seconds)
    assert compared == 14


def test_real_images_decode(shared_data: Path) -> None:
    paths = sorted((shared_data / "images").iterdir())
    assert len(paths) == 25
    for path in paths:
        assert read_image(path).pixels.shape == (1, 224, 224, 3)
