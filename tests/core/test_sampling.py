"""Which frames are taken of a video: the choice beside slow truths, and the pixels beside those of a full decode."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from statistics import median

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from media import drifting, needs_decord, numbered, reason_of, write

from entropy_vision.errors import InputReason, UsageError
from entropy_vision.frames import decode, read_image, read_media, read_video
from entropy_vision.probe import Limits, Probe, Reading, open_reading, open_video, probe_video
from entropy_vision.sampling import EVERY, Sampling, choose, pick, spread, spread_by_bytes

KINDS = {
    "closed.mp4": {"codec": "libx264", "options": {"g": "8", "bf": "2", "sc_threshold": "0"}},
    "open.mp4": {
        "codec": "libx264",
        "options": {"x264-params": "open-gop=1:keyint=8:min-keyint=8:bframes=2:scenecut=0"},
    },
    "refresh.mp4": {"codec": "libx264", "options": {"x264-params": "intra-refresh=1:keyint=8:bframes=0"}},
    "interlaced.mp4": {"codec": "libx264", "options": {"g": "8", "x264-params": "tff=1"}},
    "asp.avi": {"codec": "mpeg4", "options": {"g": "8", "bf": "2"}},
    "raw.h264": {
        "codec": "libx264",
        "options": {"x264-params": "open-gop=1:keyint=8:min-keyint=8:bframes=2:scenecut=0"},
    },
    "vp9.webm": {"codec": "libvpx-vp9", "options": {"g": "8"}},
    "each.mkv": {"codec": "mjpeg", "pixel_format": "yuvj420p"},
}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A video of 40 frames in every kind of group of pictures."""
    folder = tmp_path_factory.mktemp("sampling")
    return {name: write(folder / name, drifting(40), **how) for name, how in KINDS.items()}


def flagged(path: Path) -> list[float]:
    """Seconds of the packets that the container flags as keyframes."""
    with open_video(path) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size and packet.is_keyframe]
        return sorted(float(packet.pts * packet.time_base) for packet in packets)


@pytest.mark.parametrize("name", KINDS)
def test_opened_in_haste_a_file_is_told_the_same(
    files: dict[str, Path], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of an MP4 nothing is decoded before it is asked for, so its pixels' format is not known yet."""
    with open_video(files[name]) as container:
        assert (container.streams.video[0].codec_context.pix_fmt is None) == name.endswith(".mp4")
    hasty = probe_video(files[name], Limits())
    monkeypatch.setattr("entropy_vision.probe._INDEXED", frozenset())
    assert hasty == probe_video(files[name], Limits())


@pytest.mark.parametrize("name", KINDS)
def test_a_file_is_read_once_or_twice_for_the_same_frames(
    files: dict[str, Path], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Path] = []

    def counting(path: Path) -> object:
        opened.append(path)
        return open_video(path)

    monkeypatch.setattr("entropy_vision.probe.open_video", counting)
    monkeypatch.setattr("entropy_vision.video.open_video", counting)
    one, told = decode(files[name], size=48, decoder="pyav")
    assert len(opened) == 1
    monkeypatch.setattr("entropy_vision.video.KEEP", 20_000)  # bytes, with a thousand beside each packet's
    other, again = decode(files[name], size=48, decoder="pyav")
    assert len(opened) == 3 and told == again
    np.testing.assert_array_equal(one.pixels, other.pixels)
    np.testing.assert_array_equal(one.pts_seconds, other.pts_seconds)


@pytest.mark.parametrize("name", [name for name in KINDS if name not in ("asp.avi", "raw.h264")])
@pytest.mark.parametrize("decoder", ["auto", "pyav", pytest.param("decord", marks=needs_decord)])
def test_keyframes_are_those_that_the_packets_flag(files: dict[str, Path], name: str, decoder: str) -> None:
    frames, info = decode(files[name], Sampling(keyframes=True), size=48, decoder=decoder)
    np.testing.assert_allclose(frames.pts_seconds, flagged(files[name]), atol=1e-6)
    every = read_video(files[name], size=48)
    taken = np.isin(every.pts_seconds, frames.pts_seconds)
    np.testing.assert_array_equal(frames.pixels, every.pixels[taken])
    # what others are needed for, or what may be, is decoded with them
    alone = info.decoder == "pyav" and name not in ("refresh.mp4", "interlaced.mp4")
    assert info.frames_decoded == (frames.count if alone else np.flatnonzero(taken)[-1] + 1)


@pytest.mark.parametrize("name", ["asp.avi", "raw.h264"])
def test_keyframes_of_frames_without_a_clock_are_told_by_decoding(files: dict[str, Path], name: str) -> None:
    """Packets are numbered and frames stand in another order: in open groups a keyframe is shown later than sent."""
    frames, info = decode(files[name], Sampling(keyframes=True), size=48)
    every = read_video(files[name], size=48)
    with open_video(files[name]) as container:
        key = [frame.key_frame for frame in container.decode(video=0)]
    np.testing.assert_array_equal(frames.pixels, every.pixels[key])
    np.testing.assert_array_equal(frames.pts_seconds, every.pts_seconds[key])
    assert info.decoder == "pyav" and frames.count > 3
    with pytest.raises(UsageError, match="do not tell" if name == "asp.avi" else "container h264"):
        decode(files[name], Sampling(keyframes=True), decoder="decord")


def test_a_video_without_a_flagged_keyframe_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.mp4", drifting(3))
    assert read_video(path, keyframes=True).count == 1

    @contextmanager
    def flagless(path: Path, limits: Limits, keep: int) -> Iterator[tuple[Probe, Reading]]:
        with open_reading(path, limits, keep) as (probe, reading):
            yield replace(probe, keyframes=()), reading

    monkeypatch.setattr("entropy_vision.video.open_reading", flagless)
    assert reason_of(path, sampling=Sampling(keyframes=True)) is InputReason.NO_FRAMES


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("count", [1, 5, 39, 40, 400])
def test_so_many_frames_are_those_of_a_full_decode(files: dict[str, Path], name: str, count: int) -> None:
    every = read_video(files[name], size=48)
    truth = middles(every.pts_seconds.tolist(), count)
    for decoder in ("auto", "pyav"):
        frames, info = decode(files[name], Sampling(frames=count), size=48, decoder=decoder)
        np.testing.assert_array_equal(frames.pixels, every.pixels[truth])
        np.testing.assert_array_equal(frames.pts_seconds, every.pts_seconds[truth])
        assert info.frames_decoded == truth[-1] + 1 and not info.salvaged  # the pass ends with the last one


def middles(times: list[float], count: int) -> list[int]:
    """The slow truth: for every part of the time, the frame on the screen in its middle; places exact, by fractions."""
    if count >= len(times):
        return list(range(len(times)))
    exact = [Fraction(one).limit_denominator(1_000_000) for one in times]
    span = (exact[-1] - exact[0]) * len(times) / (len(times) - 1)
    shown = [
        max(place for place, at in enumerate(exact) if at <= exact[0] + (2 * part + 1) * span / (2 * count))
        for part in range(count)
    ]
    return each_once(shown, len(times))


def each_once(shown: list[int], frames: int) -> list[int]:
    count = len(shown)
    # a frame that is taken already gives way to the next, but as many as are still to come must stay behind it
    for part in range(1, count):
        shown[part] = max(shown[part], shown[part - 1] + 1)
    for back in range(count):
        shown[count - 1 - back] = min(shown[count - 1 - back], frames - 1 - back)
    return shown


def middles_of_bytes(sizes: list[int], keyframes: list[int], count: int) -> list[int]:
    """The slow truth: the frame of the byte in the middle of each part, every half byte written down."""
    if count >= len(sizes):
        return list(range(len(sizes)))
    usual = median(size for place, size in enumerate(sizes) if place not in keyframes)
    told = [usual if place in keyframes else size for place, size in enumerate(sizes)]
    halves = [place for place, size in enumerate(told) for _ in range(int(2 * size))]
    shown = [halves[int(Fraction((2 * part + 1) * len(halves), 2 * count))] for part in range(count)]
    return each_once(shown, len(sizes))


@settings(deadline=None, max_examples=200)
@given(
    steps=st.lists(st.integers(0, 400), min_size=0, max_size=30), start=st.integers(0, 5000), count=st.integers(1, 32)
)
def test_spread_equals_the_slow_truth(steps: list[int], start: int, count: int) -> None:
    times = [round(value * 0.001, 3) for value in np.cumsum([start, *steps]).tolist()]
    got = spread(times, count)
    assert got == middles(times, count)
    assert len(got) == min(count, len(times)) == len(set(got))


@settings(deadline=None, max_examples=200)
@given(
    sizes=st.lists(st.integers(1, 90), min_size=2, max_size=30),
    keyframes=st.sets(st.integers(0, 29)),
    count=st.integers(1, 32),
)
def test_spread_by_bytes_equals_the_slow_truth(sizes: list[int], keyframes: set[int], count: int) -> None:
    keys = sorted(key for key in keyframes if key < len(sizes))
    times = [number / 8 for number in range(len(sizes))]
    got = spread_by_bytes(times, sizes, keys, count)
    assert got == (middles_of_bytes(sizes, keys, count) if len(keys) < len(sizes) else spread(times, count))
    assert len(got) == min(count, len(sizes)) == len(set(got))


@pytest.mark.parametrize("name", [name for name in KINDS if name not in ("asp.avi", "raw.h264")])
def test_the_bytes_of_a_frame_are_those_of_its_packet(files: dict[str, Path], name: str) -> None:
    with open_video(files[name]) as container:
        packets = [(packet.pts, packet.size) for packet in container.demux(video=0) if packet.size]
    assert probe_video(files[name], Limits()).sizes == tuple(size for _, size in sorted(packets))


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("count", [1, 5, 39, 400])
def test_frames_by_their_bytes_are_those_of_a_full_decode(files: dict[str, Path], name: str, count: int) -> None:
    every, probe = read_video(files[name], size=48), probe_video(files[name], Limits())
    truth = spread_by_bytes(probe.times, probe.sizes, probe.keyframes, count)
    frames, info = decode(files[name], Sampling(packets=count), size=48)
    np.testing.assert_array_equal(frames.pixels, every.pixels[truth])
    np.testing.assert_array_equal(frames.pts_seconds, every.pts_seconds[truth])
    assert info.frames_decoded == truth[-1] + 1


@pytest.mark.parametrize("options", [{"g": "250"}, {"g": "8", "sc_threshold": "0"}], ids=["one keyframe", "every 8"])
def test_frames_by_their_bytes_are_where_something_happens(tmp_path: Path, options: dict[str, str]) -> None:
    """A second of forty goes on; keyframes are the largest packets and tell nothing of it."""
    world = np.random.default_rng(0).integers(60, 200, (64, 100, 3), np.uint8)
    moving = np.stack([world[:, 4 * number : 4 * number + 64] for number in range(9)]).repeat(2, 1).repeat(2, 2)
    moving[1::2] = moving[1::2, ::-1]  # nothing that came before tells of it
    pixels = np.concatenate([moving[:1].repeat(160, axis=0), moving, moving[-1:].repeat(151, axis=0)])
    path = write(tmp_path / "a.mp4", pixels, options=options)
    probe = probe_video(path, Limits())
    assert max(probe.sizes) == max(probe.sizes[key] for key in probe.keyframes)
    begins, ends = 160 / 8, 170 / 8
    times = read_video(path, packets=8).pts_seconds
    assert ((begins <= times) & (times <= ends)).sum() >= 4
    evenly = read_video(path, frames=8).pts_seconds
    assert ((begins <= evenly) & (evenly <= ends)).sum() <= 1


def test_where_all_are_keyframes_their_bytes_tell_nothing(files: dict[str, Path]) -> None:
    by_bytes, by_time = (read_video(files["each.mkv"], size=48, **rule) for rule in ({"packets": 7}, {"frames": 7}))
    np.testing.assert_array_equal(by_bytes.pts_seconds, by_time.pts_seconds)


def test_frames_of_a_constant_rate_are_in_the_middles() -> None:
    assert spread([number / 25 for number in range(250)], 5) == [25, 75, 125, 175, 225]
    assert spread([0.0, 1.0, 2.0], 1) == [1]
    assert spread([0.0, 0.1, 0.2, 9.0], 3) == [1, 2, 3]  # the long one is on the screen at two middles


@settings(deadline=None, max_examples=150)
@given(
    steps=st.lists(st.integers(0, 3), min_size=0, max_size=20),
    chosen=st.sets(st.integers(0, 20), min_size=1),
    lost=st.sets(st.integers(0, 20)),
)
def test_pick_gives_each_target_its_frame_or_the_next_that_is_left(
    steps: list[int], chosen: set[int], lost: set[int]
) -> None:
    times = [float(value) for value in np.cumsum([5, *steps])]
    wanted = [place for place in sorted(chosen) if place < len(times)]
    targets = [times[place] for place in wanted]
    if not lost:
        source = iter([(one, place) for place, one in enumerate(times)])
        got = [one for one, _ in pick(source, targets)]
        assert got == targets
    left = [one for place, one in enumerate(times) if place not in lost]
    truth, free = [], list(left)
    for target in targets:
        if truth and target < truth[-1]:
            continue  # it is served by the one taken last
        later = [one for one in free if one >= target]
        if later:
            truth.append(later[0])
            free = free[len(free) - len(later) + 1 :]
        elif free:
            truth.append(free[-1])
            free = []
    assert [one for one, _ in pick(((one, None) for one in left), targets)] == truth


def test_lost_frames_give_way_to_their_neighbours(tmp_path: Path) -> None:
    path = write(tmp_path / "a.ts", numbered(40), options={"g": "8"})
    content = bytearray(path.read_bytes())
    content[len(content) // 3 : len(content) // 2] = bytes(len(content) // 2 - len(content) // 3)
    path.write_bytes(content)
    every = read_video(path, salvage=True)
    frames, info = decode(path, Sampling(frames=4), salvage=True)
    assert info.salvaged and 2 <= frames.count <= 4
    assert np.isin(frames.pts_seconds, every.pts_seconds).all()
    assert reason_of(path, sampling=Sampling(frames=4)) is InputReason.DAMAGED


def test_two_recordings_in_one_file_are_one_time(tmp_path: Path) -> None:
    one = write(tmp_path / "a.ts", numbered(10), options={"g": "5", "bf": "2"}).read_bytes()
    path = tmp_path / "joined.ts"
    path.write_bytes(one + one)
    every = read_video(path)
    np.testing.assert_array_equal(every.pts_seconds, probe_video(path, Limits()).times)
    np.testing.assert_array_equal(read_video(path, frames=4).pixels, every.pixels[[2, 7, 12, 17]])
    np.testing.assert_array_equal(read_video(path, keyframes=True).pixels, every.pixels[[0, 5, 10, 15]])


def test_each_way_of_reading_takes_each_rule(files: dict[str, Path], tmp_path: Path) -> None:
    path = files["closed.mp4"]
    assert read_media(path, frames=3).count == 3
    assert read_media(path, keyframes=True).count == 5
    assert read_media(path, scenes=1.0).count == read_video(path, fps=1.0).count  # it is one shot
    assert decode(path)[0].count == decode(path, EVERY)[0].count == 40
    picture = tmp_path / "a.png"
    read_image_of = write(picture, drifting(1), codec="png", pixel_format="rgb24", container="image2")
    for sampling in (Sampling(frames=3), Sampling(keyframes=True), Sampling(scenes=1.0)):
        np.testing.assert_array_equal(decode(read_image_of, sampling)[0].pixels, read_image(picture).pixels)


@pytest.mark.parametrize(
    ("sampling", "settings"),
    [
        (EVERY, {"fps": None}),
        (Sampling(fps=2), {"fps": 2.0}),
        (Sampling(frames=16), {"frames": 16}),
        (Sampling(packets=16), {"packets": 16}),
        (Sampling(keyframes=True), {"keyframes": True}),
        (Sampling(scenes=1), {"scenes": 1.0}),
    ],
)
def test_settings_are_one_entry_and_read_back(sampling: Sampling, settings: dict[str, object]) -> None:
    assert repr(sampling.settings()) == repr(settings)
    assert Sampling.read({**settings, "size": 224, "salvage": False}) == sampling


def test_two_rules_are_refused_by_their_names() -> None:
    with pytest.raises(UsageError, match="not fps and frames"):
        Sampling(fps=2, frames=3)


def test_what_is_chosen_needs_no_pixels_but_for_scenes() -> None:
    times = [0.0, 0.5, 1.0, 1.5]
    assert choose(EVERY, times, [0, 2]) == [0, 1, 2, 3]
    assert choose(Sampling(fps=1.0), times, [0, 2]) == [0, 2]
    assert choose(Sampling(keyframes=True), times, [0, 3]) == [0, 3]
    assert choose(Sampling(scenes=1.0), times, [0, 2]) is None


@pytest.mark.parametrize("name", [name for name in KINDS if name != "raw.h264"])
@pytest.mark.parametrize("span", [(0.0, 1.0), (2.3, 2.9), (4.0, 4.625), (3.9999999, 60.0)])
@pytest.mark.parametrize(
    "sampling", [EVERY, Sampling(frames=3), Sampling(fps=4), Sampling(packets=3)], ids=Sampling.words
)
def test_a_span_gives_the_frames_that_a_full_decode_has_there(
    files: dict[str, Path], name: str, span: tuple[float, float], sampling: Sampling
) -> None:
    every = read_video(files[name], size=48, decoder="pyav")
    times = every.pts_seconds - every.pts_seconds[0]
    inside = np.flatnonzero((times >= span[0] - 1e-6) & (times <= span[1] + 1e-6))
    probe = probe_video(files[name], Limits())
    keys = [place for place, at in enumerate(inside) if at in probe.keyframes]
    sizes = [probe.sizes[at] for at in inside]
    wanted = inside[choose(sampling, times[inside].tolist(), keys, sizes=sizes) or []]
    frames, info = decode(files[name], sampling, size=48, span=span)
    np.testing.assert_array_equal(frames.pts_seconds, every.pts_seconds[wanted])
    np.testing.assert_array_equal(frames.pixels, every.pixels[wanted])
    assert info.frames_decoded <= wanted[-1] + 4  # what is behind is not read, but for frames out of order


@pytest.mark.parametrize("name", ["closed.mp4", "vp9.webm", "each.mkv"])
def test_a_span_is_decoded_from_the_keyframe_before_it(files: dict[str, Path], name: str) -> None:
    _, info = decode(files[name], Sampling(frames=2), size=48, span=(4.25, 4.75))
    assert info.frames_decoded <= 8 + 3


def test_a_span_that_holds_no_frame_or_is_none_is_told(files: dict[str, Path]) -> None:
    assert reason_of(files["closed.mp4"], span=(7.0, 8.0)) == InputReason.NO_FRAMES
    assert reason_of(files["closed.mp4"], span=(0.01, 0.02)) == InputReason.NO_FRAMES
    for span, sampling in (((2.0, 1.0), EVERY), ((0.0, np.inf), EVERY), ((0.0, 1.0), Sampling(keyframes=True))):
        with pytest.raises(UsageError, match="span takes seconds"):
            decode(files["closed.mp4"], sampling, span=span)


def test_a_span_costs_the_memory_of_its_frames(files: dict[str, Path]) -> None:
    little = Limits(max_total_pixels=4 * 48 * 48)
    assert decode(files["closed.mp4"], size=48, span=(1.0, 1.375), limits=little)[0].count == 4
    assert reason_of(files["closed.mp4"], size=48, limits=little) == InputReason.TOO_LARGE
