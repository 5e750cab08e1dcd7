"""A file is read once: what is decoded of the packets that told the probe is what is decoded of the file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from media import drifting, reason_of, write, write_audio

from entropy_vision.errors import InputError, InputReason
from entropy_vision.frames import Frames, decode
from entropy_vision.probe import (
    KEEP,
    DecodedPacket,
    Limits,
    Probe,
    Reading,
    open_reading,
    open_video,
    packets_of,
)
from entropy_vision.video import DecodeInfo


@pytest.fixture
def readings(monkeypatch: pytest.MonkeyPatch) -> list[Reading]:
    """Every reading that is opened, in order."""
    seen: list[Reading] = []

    @contextmanager
    def watched(path: Path, limits: Limits, keep: int) -> Iterator[tuple[Probe, Reading]]:
        with open_reading(path, limits, keep) as (probe, reading):
            seen.append(reading)
            yield probe, reading

    monkeypatch.setattr("entropy_vision.video.open_reading", watched)
    return seen


def spoilt(path: Path, out: Path, places: range) -> Path:
    """A copy with these bytes turned over, none of the last sixteen."""
    content = bytearray(path.read_bytes())
    for place in places:
        content[place] ^= 0xFF
    out.write_bytes(content)
    return out


def once_and_twice(path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[tuple[Frames, DecodeInfo], ...]:
    """What is decoded of the packets as they were kept, and of the file opened again."""
    kept = decode(path, size=48, salvage=True)
    with monkeypatch.context() as patch:
        patch.setattr("entropy_vision.video.KEEP", 0)
        again = decode(path, size=48, salvage=True)
    return kept, again


def test_a_reading_hands_its_packets_out_once(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", drifting(12))
    with open_reading(path, Limits(), KEEP) as (probe, reading):
        packets = reading.take()
        assert packets is not None and isinstance(packets[0], DecodedPacket) and reading.take() is None
        times = [frame.time for packet in packets for frame in packet.decode()]
    np.testing.assert_allclose(times, probe.times, atol=1e-6)


def test_packets_are_kept_while_there_is_room_for_them_and_what_lies_beside_them(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", drifting(12), options={"crf": "40"})
    with open_reading(path, Limits(), KEEP) as (probe, _):
        data = sum(probe.sizes)
    assert data < 12_000
    for keep, kept in ((data, False), (data + 12_000, False), (data + 14_000, True), (0, False)):
        with open_reading(path, Limits(), keep) as (again, reading):
            assert (reading.packets is not None) == kept and again == probe


@pytest.mark.parametrize(
    ("name", "count", "how"),
    [
        ("two.mp4", 2, {"options": {"bf": "3"}}),  # the first packet gives nothing, the last three give two frames
        ("one.mkv", 1, {}),
        ("late.mkv", 9, {"options": {"bf": "3", "x264-params": "b-pyramid=normal"}}),
        ("a.avi", 9, {"codec": "mpeg4", "options": {"bf": "2"}}),
        ("a.ts", 9, {"codec": "mpeg2video"}),
        ("a.webm", 9, {"codec": "libvpx-vp9"}),
    ],
)
def test_what_is_kept_decodes_as_the_file_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, count: int, how: dict[str, object]
) -> None:
    path = write(tmp_path / name, drifting(count), **how)
    (one, told), (other, again) = once_and_twice(path, monkeypatch)
    assert one.count == count and told == again
    np.testing.assert_array_equal(one.pixels, other.pixels)
    np.testing.assert_array_equal(one.pts_seconds, other.pts_seconds)


@pytest.mark.parametrize("name", ["a.mkv", "a.avi", "a.ts"])
def test_what_is_kept_of_a_damaged_file_decodes_as_the_file_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """The first packet among what is broken, and files whose reading stops."""
    codec = "mpeg4" if name == "a.avi" else "libx264"
    path = write(tmp_path / name, drifting(12), codec=codec, options={"g": "4"})
    size, rng, different = path.stat().st_size, np.random.default_rng(3), 0
    for number in range(40):
        start = int(rng.integers(size // 8, size - 64)) if number % 2 else int(rng.integers(300, size // 3))
        out = spoilt(path, tmp_path / f"{number}{path.suffix}", range(start, start + int(rng.integers(2, 48))))
        if number % 5 == 4:
            out.write_bytes(out.read_bytes()[: int(rng.integers(size // 4, size))])
        try:
            (one, told), (other, again) = once_and_twice(out, monkeypatch)
        except InputError:
            continue
        different += told.salvaged
        assert told == again
        np.testing.assert_array_equal(one.pixels, other.pixels)
        np.testing.assert_array_equal(one.pts_seconds, other.pts_seconds)
    assert different >= 8


def test_a_first_packet_that_cannot_be_decoded_is_told_and_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = write(tmp_path / "whole.mp4", drifting(12), options={"g": "4"})
    start = whole.read_bytes().index(b"mdat") + 4  # the length of what follows
    path = spoilt(whole, tmp_path / "a.mp4", range(start, start + 4))
    with open_reading(path, Limits(), KEEP) as (probe, reading):
        error = next(iter(reading.packets or ())).error
        assert error is not None and error.__traceback__ is None  # or it would keep all packets alive
        assert probe.damage.startswith("a packet cannot be decoded")
        with pytest.raises(type(error)) as raised:
            next(iter(reading.packets or ())).decode()
        assert raised.value is not error  # whose traceback would lead to the packet it came from, and back
    (one, told), (other, again) = once_and_twice(path, monkeypatch)
    assert told == again and told.salvaged and told.packet_errors >= 1 and one.count < 12
    np.testing.assert_array_equal(one.pixels, other.pixels)


@pytest.mark.parametrize(
    ("change", "reason"),
    [(lambda content: content, None), (lambda content: content[: len(content) * 7 // 10], InputReason.DAMAGED)],
)
def test_a_file_is_closed_and_its_packets_are_given_back(
    tmp_path: Path, readings: list[Reading], change: Callable[[bytes], bytes], reason: InputReason | None
) -> None:
    path = write(tmp_path / "a.mkv", drifting(12))
    path.write_bytes(change(path.read_bytes()))
    if reason is None:
        decode(path, size=48)
    else:
        assert reason_of(path, size=48) is reason
    assert reason_of(path, size=48, limits=replace(Limits(), max_total_pixels=48 * 48)) is InputReason.TOO_LARGE
    assert len(readings) == 2 and all(reading.packets is None for reading in readings)
    for reading in readings:
        with pytest.raises(AssertionError, match="not open"):
            list(reading.container.demux())


def test_a_file_whose_reading_stops_gives_what_came_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.mkv", drifting(12), options={"bf": "0"})

    def stopping(*given: Any) -> Iterator[Any]:
        yield from islice(packets_of(*given), 6)
        raise av.error.InvalidDataError(1, "stops")

    monkeypatch.setattr("entropy_vision.probe.packets_of", stopping)
    monkeypatch.setattr("entropy_vision.video.packets_of", stopping)
    (one, told), (other, again) = once_and_twice(path, monkeypatch)
    assert told == again and told.packet_errors == 1 and one.count == other.count == 6
    np.testing.assert_array_equal(one.pixels, other.pixels)


def test_a_file_without_a_video_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Any] = []
    monkeypatch.setattr("entropy_vision.probe.open_video", lambda path: opened.append(open_video(path)) or opened[-1])
    assert reason_of(write_audio(tmp_path / "a.m4a")) is InputReason.NO_VIDEO_STREAM
    with pytest.raises(AssertionError, match="not open"):
        list(opened[0].demux())
