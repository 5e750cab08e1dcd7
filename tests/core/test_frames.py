"""Reading videos and images: both decoders, times, rotation, sizes, damage, and every way a file can be no good."""

from __future__ import annotations

import io
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from media import as_frames, drifting, numbered, write, write_audio
from PIL import Image

from entropy_vision.errors import InputError, InputReason, UsageError
from entropy_vision.frames import Frames, decode, read_image, read_media, read_video
from entropy_vision.probe import Limits
from entropy_vision.video import has_decord, sample
from entropy_vision.video_write import write_video

needs_decord = pytest.mark.skipif(not has_decord(), reason="decord has no wheel here")


def reason_of(path: Path, **arguments: object) -> InputReason:
    with pytest.raises(InputError) as caught:
        decode(path, **arguments)
    assert "\n" not in caught.value.detail
    assert pickle.loads(pickle.dumps(caught.value)).reason == caught.value.reason
    return caught.value.reason


# --- videos


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
    one, info = decode(path, size=size)
    other, _ = decode(path, size=size, decoder="pyav")
    assert info.decoder == "decord" or info.note.startswith("more than 8 bits")
    np.testing.assert_array_equal(one.pixels, other.pixels)
    np.testing.assert_array_equal(one.pts_seconds, other.pts_seconds)


@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
def test_times_ascend_where_an_avi_has_frames_out_of_order(tmp_path: Path, codec: str) -> None:
    path = write(tmp_path / "a.avi", numbered(30), codec=codec, options={"bf": "2"})
    for decoder in ("auto", "pyav"):
        frames = read_video(path, decoder=decoder)
        np.testing.assert_allclose(np.diff(frames.pts_seconds), 1 / 8, atol=1e-6)
        assert (np.diff(frames.pixels.reshape(30, -1).mean(1)) >= 0).all()


def test_pyav_takes_over_where_decord_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.mp4", drifting(3))
    monkeypatch.setattr("entropy_vision.video.has_decord", lambda: False)
    assert decode(path)[1].decoder == "pyav"
    with pytest.raises(UsageError, match="not installed"):
        read_video(path, decoder="decord")


def test_decord_alone_refuses_what_it_gets_wrong(tmp_path: Path) -> None:
    path = write(tmp_path / "a.gif", drifting(3), codec="gif", pixel_format="rgb8")
    with pytest.raises(UsageError, match="container gif"):
        read_video(path, decoder="decord")
    assert decode(path)[1].note == "container gif"


def test_times_are_those_of_the_container_where_the_rate_varies(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mkv", numbered(5), times=[100, 140, 150, 700, 720])
    for decoder in ("auto", "pyav"):
        np.testing.assert_allclose(read_video(path, decoder=decoder).pts_seconds, [0.1, 0.14, 0.15, 0.7, 0.72])


def test_a_clock_that_is_set_back_goes_on_after_the_last_frame(tmp_path: Path) -> None:
    one = write(tmp_path / "a.ts", numbered(10)).read_bytes()
    path = tmp_path / "joined.ts"
    path.write_bytes(one + one)
    frames = read_video(path)
    assert frames.count == 20
    assert (np.diff(frames.pts_seconds) > 0).all()


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


# --- damage


def test_a_truncated_video_is_refused_unless_it_is_to_be_salvaged(tmp_path: Path) -> None:
    whole = write(tmp_path / "a.mp4", drifting(40), options={"g": "8"}, container_options={"movflags": "faststart"})
    path = tmp_path / "cut.mp4"
    path.write_bytes(whole.read_bytes()[: whole.stat().st_size * 7 // 10])
    assert reason_of(path) is InputReason.DAMAGED
    frames, info = decode(path, salvage=True)
    assert 0 < frames.count < 40
    assert info.salvaged and info.frames_expected == 40 and info.frames_decoded == frames.count
    assert info.decoder == "pyav" and info.note
    np.testing.assert_array_equal(frames.pixels, read_video(whole).pixels[: frames.count])


def test_a_truncated_matroska_is_told_by_its_missing_end(tmp_path: Path) -> None:
    whole = write(tmp_path / "a.mkv", drifting(40), options={"g": "8"})
    path = tmp_path / "cut.mkv"
    path.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    assert reason_of(path) is InputReason.DAMAGED
    assert decode(path, salvage=True)[1].salvaged


def test_a_video_cut_before_its_index_gives_one_line(tmp_path: Path) -> None:
    whole = write(tmp_path / "a.mp4", drifting(16))
    path = tmp_path / "cut.mp4"
    path.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    assert reason_of(path) is InputReason.DAMAGED
    assert reason_of(path, salvage=True) is InputReason.DAMAGED


@needs_decord
def test_a_damaged_packet_costs_its_own_frames_only(tmp_path: Path) -> None:
    whole = write(tmp_path / "a.avi", drifting(40), codec="mpeg4", options={"g": "4"})
    content = bytearray(whole.read_bytes())
    third = content.index(b"movi") + len(content) // 3
    content[third : third + 600] = bytes(600)
    path = tmp_path / "hole.avi"
    path.write_bytes(content)
    frames, info = decode(path, salvage=True)
    assert 20 < frames.count <= 40
    assert info.decoder == "pyav" or info.frames_decoded == frames.count


@needs_decord
def test_frames_that_decord_repeats_for_damaged_ones_are_not_taken(tmp_path: Path) -> None:
    whole = write(tmp_path / "a.ts", numbered(40), options={"g": "8"})
    content = whole.read_bytes()
    (tmp_path / "hole.ts").write_bytes(content[: 188 * 60] + content[188 * 66 :])
    for path in (whole, tmp_path / "hole.ts"):
        one = decode(path, salvage=True)[0]
        other = decode(path, salvage=True, decoder="pyav")[0]
        np.testing.assert_array_equal(one.pixels, other.pixels)


def test_frames_lost_inside_a_file_of_constant_rate_are_told(tmp_path: Path) -> None:
    times = [number * 125 for number in range(20) if number not in (7, 8, 12)]
    info = decode(write(tmp_path / "gaps.mkv", numbered(17), times=times))[1]
    assert (info.frames_expected, info.frames_decoded) == (20, 17)
    info = decode(write(tmp_path / "varies.mkv", numbered(5), times=[0, 40, 50, 700, 720]))[1]
    assert info.frames_expected == 5


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.avi", "a.ts", "a.gif", "a.png", "a.jpg", "a.tif", "a.webp"])
def test_whatever_the_bytes_are_the_answer_is_frames_or_an_input_error(tmp_path: Path, name: str) -> None:
    rng = np.random.default_rng(5)
    pixels = drifting(6, 48, 48)
    path = tmp_path / name
    if path.suffix in (".png", ".jpg", ".tif", ".webp"):
        Image.fromarray(pixels[0]).save(path)
    else:
        codec, layout = {".avi": ("mpeg4", "yuv420p"), ".gif": ("gif", "rgb8")}.get(path.suffix, ("libx264", "yuv420p"))
        write(path, pixels, codec=codec, pixel_format=layout)
    whole = np.frombuffer(path.read_bytes(), np.uint8)
    for number in range(25):
        broken = whole[: rng.integers(1, len(whole))] if number % 3 == 0 else whole.copy()
        if number % 3:
            span = len(whole) if number % 3 == 1 else min(len(whole), 1000)
            at = rng.integers(0, span, rng.choice([1, 5, 50]))
            broken[at] = rng.integers(0, 256, len(at))
        path.write_bytes(broken.tobytes())
        try:
            assert decode(path, size=32, salvage=bool(number % 2))[0].count >= 1
        except InputError as error:
            assert error.detail


# --- images


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16"])
def test_images_of_every_mode_become_rgb(tmp_path: Path, mode: str) -> None:
    ramp = np.broadcast_to(np.linspace(0, 255, 32).astype(np.uint8), (24, 32))
    if mode == "I;16":
        image = Image.fromarray(ramp.astype(np.uint16) * 257)
    else:
        image = Image.fromarray(ramp).convert("RGB")
        image = image.quantize(64) if mode == "P" else image.convert(mode)
    path = tmp_path / ("a.jpg" if mode == "CMYK" else "a.png")
    image.save(path)
    frames = read_image(path, size=None)
    assert frames.pixels.shape == (1, 24, 32, 3) and frames.pts_seconds.tolist() == [0.0]
    if mode != "1":
        assert np.abs(frames.pixels[0].astype(int) - ramp[..., None]).max() <= 6


def test_exif_rotation_is_applied(tmp_path: Path) -> None:
    image = Image.fromarray(drifting(1, 32, 48)[0])
    exif = Image.Exif()
    exif[0x0112] = 6  # the stored picture is to be turned clockwise
    image.save(tmp_path / "a.png", exif=exif)
    frames, info = decode(tmp_path / "a.png", size=None)
    assert info.rotation == 270
    np.testing.assert_array_equal(frames.pixels[0], np.rot90(np.asarray(image), -1))


def test_half_transparent_pixels_mix_with_white(tmp_path: Path) -> None:
    Image.new("RGBA", (8, 8), (0, 0, 100, 128)).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png", size=None).pixels[0, 0, 0].tolist() == [127, 127, 177]


def test_images_and_videos_are_scaled_alike(tmp_path: Path) -> None:
    pixels = drifting(1, 120, 160)
    Image.fromarray(pixels[0]).save(tmp_path / "a.png")
    write(tmp_path / "a.mkv", pixels, codec="ffv1", pixel_format="bgr0")
    still = read_image(tmp_path / "a.png", size=64).pixels.astype(int)
    video = read_video(tmp_path / "a.mkv", size=64).pixels
    assert np.abs(still - video).mean() < 1


def test_read_media_goes_by_content_and_not_by_name(tmp_path: Path) -> None:
    Image.fromarray(drifting(1)[0]).save(tmp_path / "image.png")
    (tmp_path / "image.png").rename(tmp_path / "image.mp4")
    write(tmp_path / "video.mp4", drifting(4)).rename(tmp_path / "video.jpg")
    assert read_media(tmp_path / "image.mp4").count == 1
    assert read_media(tmp_path / "video.jpg").count == 4
    assert reason_of(tmp_path / "image.mp4", kind="video") is InputReason.NO_VIDEO_STREAM
    assert reason_of(tmp_path / "video.jpg", kind="image") is InputReason.NOT_MEDIA


# --- files that are no good


def bomb() -> bytes:
    buffer = io.BytesIO()
    Image.new("1", (9000, 9000)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("empty.mp4", b"", InputReason.EMPTY),
        ("text.mp4", b"hello world\n" * 50, InputReason.NOT_MEDIA),
        ("text.txt", b"hello world\n" * 50, InputReason.NOT_MEDIA),
        ("one.mp4", b"x", InputReason.NOT_MEDIA),
        ("page.jpg", b"<html></html>", InputReason.NOT_MEDIA),
        ("list.mp4", b"ffconcat version 1.0\nfile '/etc/passwd'\n", InputReason.NOT_MEDIA),
        ("list.m3u8", b"#EXTM3U\n#EXTINF:1,\n/etc/passwd\n", InputReason.NOT_MEDIA),
        ("cut.jpg", b"\xff\xd8\xff\xe0abc", InputReason.DAMAGED),
        ("cut.png", b"\x89PNG\r\n\x1a\nabc", InputReason.DAMAGED),
        ("bomb.png", bomb(), InputReason.TOO_LARGE),
    ],
)
def test_a_file_that_is_no_media_gives_its_reason(
    tmp_path: Path, name: str, content: bytes, reason: InputReason
) -> None:
    (tmp_path / name).write_bytes(content)
    assert reason_of(tmp_path / name) is reason


def test_a_path_that_is_no_file_gives_its_reason(tmp_path: Path) -> None:
    assert reason_of(tmp_path / "gone.mp4") is InputReason.MISSING
    assert reason_of(tmp_path) is InputReason.NOT_A_FILE
    os.mkfifo(tmp_path / "pipe.mp4")
    assert reason_of(tmp_path / "pipe.mp4") is InputReason.NOT_A_FILE
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    assert reason_of(tmp_path / "loop") in (InputReason.UNREADABLE, InputReason.MISSING)
    assert reason_of(Path("a\0b")) is InputReason.UNREADABLE


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_without_permission_is_unreadable(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", drifting(2))
    path.chmod(0)
    assert reason_of(path) is InputReason.UNREADABLE


def test_sound_without_a_picture_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="only audio") as caught:
        read_video(write_audio(tmp_path / "a.mp4"))
    assert caught.value.reason is InputReason.NO_VIDEO_STREAM


def test_sound_beside_the_picture_does_not_matter(tmp_path: Path) -> None:
    assert read_video(write(tmp_path / "a.mp4", drifting(8), audio=True)).count == 8


@pytest.mark.parametrize("name", ["a:b c.mp4", "%03d.mp4", "-x.mp4", 'ü"\n.mp4', os.fsdecode(b"\xff\xfe.mp4")])
def test_names_are_never_patterns_or_protocols(tmp_path: Path, name: str) -> None:
    write(tmp_path / "plain.mp4", drifting(3)).rename(tmp_path / name)
    assert read_video(tmp_path / name).count == 3


def test_limits_hold_before_pixels_are_decoded(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", drifting(8))
    assert reason_of(path, limits=Limits(max_pixels=64 * 64 - 1)) is InputReason.TOO_LARGE
    assert reason_of(path, limits=Limits(max_total_pixels=8 * 224 * 224 - 1)) is InputReason.TOO_LARGE
    assert read_video(path, fps=4, limits=Limits(max_total_pixels=4 * 224 * 224)).count == 4


@pytest.mark.parametrize(
    "arguments",
    [
        {"fps": 0},
        {"fps": -1.0},
        {"fps": float("nan")},
        {"fps": "2"},
        {"size": 0},
        {"size": True},
        {"size": (10, 0)},
        {"size": (1, 2, 3)},
        {"size": 3.5},
        {"decoder": "ffmpeg"},
    ],
)
def test_wrong_arguments_are_usage_errors(tmp_path: Path, arguments: dict[str, object]) -> None:
    path = write(tmp_path / "a.mp4", drifting(2))
    with pytest.raises(UsageError):
        decode(path, **arguments)


def test_nothing_of_the_decoders_reaches_stderr(tmp_path: Path) -> None:
    whole = write(tmp_path / "a.ts", drifting(40), options={"g": "8"})
    content = bytearray(whole.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 3000] = os.urandom(3000)
    (tmp_path / "hole.ts").write_bytes(content)
    code = (
        "import sys\nfrom entropy_vision.frames import read_video\n"
        "for name in sys.argv[1:]:\n    read_video(name, salvage=True)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(whole), str(tmp_path / "hole.ts")], capture_output=True, timeout=60
    )
    assert done.returncode == 0 and done.stderr == b"" and done.stdout == b""


# --- writing, and real files


def test_write_video_gives_equal_bytes_and_close_pixels(tmp_path: Path) -> None:
    frames = as_frames(drifting(6))
    write_video(tmp_path / "a.mp4", frames, fps=8)
    write_video(tmp_path / "b.mp4", frames, fps=8)
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()
    again = read_video(tmp_path / "a.mp4", size=None)
    assert np.abs(again.pixels.astype(int) - frames.pixels).mean() < 6
    np.testing.assert_allclose(again.pts_seconds, frames.pts_seconds, atol=1e-6)
    assert {path.name for path in tmp_path.iterdir()} == {"a.mp4", "b.mp4"}


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


def test_real_videos_decode_to_equal_pixels_by_both_decoders(shared_data: Path) -> None:
    import json

    listed = json.loads((shared_data / "manifest.json").read_text())["files"]
    counts = {Path(entry["file"]).name: entry["frames"] for entry in listed if entry["file"].startswith("videos/")}
    paths = sorted((shared_data / "videos").iterdir())
    assert len(paths) == 21
    for path in paths:
        one, info = decode(path, size=64)
        assert not info.salvaged and info.packet_errors == 0
        if info.decoder == "decord" and path.stat().st_size < 600_000 and one.count < 500:
            other, _ = decode(path, size=64, decoder="pyav")
            np.testing.assert_array_equal(one.pixels, other.pixels, err_msg=path.name)
            np.testing.assert_array_equal(one.pts_seconds, other.pts_seconds)
        if path.name != "nasa_two_streams.mp4":  # the manifest describes its first stream, not its best
            assert one.count == counts[path.name], path.name


def test_real_images_decode(shared_data: Path) -> None:
    paths = sorted((shared_data / "images").iterdir())
    assert len(paths) == 25
    for path in paths:
        assert read_image(path).pixels.shape == (1, 224, 224, 3)
