"""Damaged files, and every way a file can be no good."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from media import drifting, needs_decord, numbered, reason_of, write, write_audio
from PIL import Image

from entropy_vision.errors import InputError, InputReason, UsageError
from entropy_vision.frames import decode, read_video
from entropy_vision.probe import Limits, _missing_end, _Seen

needs_ffmpeg = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="the ffmpeg command is not installed")


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


@needs_ffmpeg
def test_frames_that_an_avi_leaves_out_are_no_damage(tmp_path: Path) -> None:
    """Its header counts them, and each has an empty chunk; at the end of a file that was cut they are missing."""
    whole, path = write(tmp_path / "whole.mp4", numbered(20)), tmp_path / "a.avi"
    line = ["ffmpeg", "-v", "error", "-i", str(whole), "-vf", "select='not(between(n,7,8)+eq(n,12))'"]
    subprocess.run([*line, "-fps_mode", "vfr", "-c:v", "mpeg4", str(path)], check=True)
    frames, info = decode(path)
    assert (frames.count, info.frames_expected, info.salvaged) == (17, 20, False)
    times = [number / 8 for number in range(20) if number not in (7, 8, 12)]
    np.testing.assert_allclose(np.diff(frames.pts_seconds), np.diff(times), atol=1e-3)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    assert reason_of(path) is InputReason.DAMAGED


@needs_ffmpeg
@pytest.mark.parametrize("start", [0.3, 0.32, 0.35, 0.4, 0.7])
def test_a_clip_that_begins_inside_a_frame_is_whole(tmp_path: Path, start: float) -> None:
    """Cut without decoding: a list of edits hides what lies before, and promises the end to the millisecond."""
    whole = write(tmp_path / "whole.mp4", numbered(48), fps=24, options={"bf": "0", "g": "48"})
    path, line = tmp_path / "a.mp4", ["ffmpeg", "-v", "error", "-ss", str(start), "-i", str(whole), "-t", "1"]
    subprocess.run([*line, "-c", "copy", str(path)], check=True)
    frames, info = decode(path)
    assert not info.salvaged and 24 <= frames.count == info.frames_expected <= 26


@pytest.mark.parametrize(
    ("end", "told"), [(2.0, ""), (2.0 - 0.9 / 24, ""), (2.0 - 1 / 24, "the packets end at 1.96 s")]
)
def test_one_frame_less_than_a_list_of_edits_promises_is_told(end: float, told: str) -> None:
    found = _missing_end(2.0, _Seen(stamps=[], end=end, hidden=3), 1 / 24)
    assert told in found and bool(told) == bool(found)
    assert _missing_end(2.0, _Seen(stamps=[], end=end), 1 / 24) == ""


@needs_ffmpeg
def test_a_clip_whose_last_frames_were_left_out_is_told(tmp_path: Path) -> None:
    """Such a cut ends with the packets before a time, though frames before it come out of later packets."""
    whole = write(tmp_path / "whole.mp4", drifting(60), fps=24, options={"bf": "3", "g": "60", "b_strategy": "0"})
    short = 0
    for packets in (24, 25, 26, 27):
        path = tmp_path / f"{packets}.mp4"
        line = ["ffmpeg", "-v", "error", "-ss", "0.31", "-i", str(whole), "-frames:v", str(packets), "-c", "copy"]
        subprocess.run([*line, str(path)], check=True)
        frames, info = decode(path, salvage=True)
        short += info.salvaged
        assert info.salvaged == (info.frames_decoded < info.frames_expected)
        assert (reason_of(path) is InputReason.DAMAGED) if info.salvaged else (decode(path)[0].count == frames.count)
    assert short == 3  # the other ends where a frame is that no later packet precedes


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


def bomb() -> bytes:
    buffer = io.BytesIO()
    Image.new("1", (9000, 9000)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
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
        {"frames": 0},
        {"frames": 2.0},
        {"frames": True},
        {"packets": 0},
        {"packets": 2.5},
        {"packets": 3, "frames": 3},
        {"keyframes": 1},
        {"scenes": 0},
        {"scenes": float("inf")},
        {"fps": 2, "frames": 3},
        {"keyframes": True, "scenes": 1.0},
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
        read_video(path, **arguments)


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
