"""The robustness matrix: every kind of file that decoders disagree about, and what becomes of it here.

A row is a file made on the spot and its outcome. `Whole`: every frame, in order, exact, at the promised times, by both
decoders where decord may read it. `Refused`: a typed reason, and how many frames `salvage=True` takes of it.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from media import drifting, reason_of, write, write_audio
from PIL import Image

from entropy_vision.errors import InputError, InputReason, UsageError
from entropy_vision.frames import decode
from entropy_vision.video import has_decord

COUNT = 24
Maker = Callable[[Path], Path]


@dataclass(frozen=True, kw_only=True)
class Whole:
    """`frames` frames, the first at `start` seconds; `decord` where it reads them too, else `why` it must not."""

    frames: int = COUNT
    start: float | None = 0.0
    why: str = ""


@dataclass(frozen=True)
class Refused:
    """`reason` without salvage; with it, at least `least` frames of `promised`, or the same reason where that is 0."""

    reason: InputReason
    least: int = 0
    promised: int = COUNT


def striped(count: int = COUNT, height: int = 64, width: int = 64) -> np.ndarray:
    """uint8 [F, H, W, 3]: each frame shows its own number as eight black and white stripes, whatever a codec does."""
    bits = (np.arange(count)[:, None] >> np.arange(8)) & 1
    columns = np.repeat(bits, math.ceil(width / 8), axis=1)[:, :width] * 220 + 20
    return np.broadcast_to(columns[:, None, :, None], (count, height, width, 3)).astype(np.uint8)


def numbers(pixels: np.ndarray) -> list[int]:
    """The numbers that frames of `striped` show."""
    width = pixels.shape[2]
    centres = (np.arange(8) * 2 + 1) * width // 16
    return [int(((row > 128) << np.arange(8)).sum()) for row in pixels[:, :, centres].mean((1, 3))]


def video(name: str, *, turned: int = 0, **settings: object) -> Maker:
    """A file of striped frames."""
    return lambda folder: write(folder / name, np.rot90(striped(), turned, axes=(1, 2)), **settings)


def content(name: str, data: bytes) -> Maker:
    def make(folder: Path) -> Path:
        (folder / name).write_bytes(data)
        return folder / name

    return make


def spoilt(name: str, spoil: Callable[[bytes], bytes], *, noise: int = 0, **settings: object) -> Maker:
    """A file of moving pictures, its bytes changed by `spoil`; `noise` makes it large."""

    def make(folder: Path) -> Path:
        pixels = drifting(COUNT, 96, 96)
        if noise:
            pixels = np.random.default_rng(0).integers(0, 256, (COUNT, noise, noise, 3)).astype(np.uint8)
        whole = write(folder / f"whole{Path(name).suffix}", pixels, **{"options": {"g": "8"}, **settings})
        (folder / name).write_bytes(spoil(whole.read_bytes()))
        return folder / name

    return make


FASTSTART = {"movflags": "faststart"}


def cut(share: float) -> Callable[[bytes], bytes]:
    return lambda data: data[: int(len(data) * share)]


def flipped(data: bytes) -> bytes:
    """300 bytes of the second half overwritten."""
    spoilt = np.frombuffer(data, np.uint8).copy()
    rng = np.random.default_rng(0)
    spoilt[rng.integers(len(data) // 2, len(data), 300)] = rng.integers(0, 256, 300)
    return spoilt.tobytes()


def hole(data: bytes) -> bytes:
    """200 kB of zeros in the middle."""
    middle = len(data) // 2
    assert len(data) > 500_000
    return data[: middle - 100_000] + bytes(200_000) + data[middle + 100_000 :]


def billions_in_moov(data: bytes) -> bytes:
    """The table of times of an MP4 file says that its first run of samples has 2 billion."""
    at = data.index(b"stts") + 12
    return data[:at] + (2_000_000_000).to_bytes(4, "big") + data[at + 4 :]


def billions_in_avi(data: bytes) -> bytes:
    """The stream header of an AVI file says that it has 2 billion frames."""
    at = data.index(b"strh") + 8 + 32
    return data[:at] + (2_000_000_000).to_bytes(4, "little") + data[at + 4 :]


def without_keyframe(data: bytes) -> bytes:
    """A transport stream from the middle of its only group of pictures on."""
    packets = len(data) // 188
    return data[188 * (packets // 2) :]


def with_cover(folder: Path) -> Path:
    """The cover picture is the first stream."""
    path = folder / "cover.mp4"
    with av.open(str(path), "w") as output:
        cover = output.add_stream("mjpeg", rate=1)
        cover.width = cover.height = 200
        cover.pix_fmt = "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        stream = _stream(output, 64)
        picture = av.VideoFrame.from_ndarray(np.full((200, 200, 3), 99, np.uint8), format="rgb24")
        output.mux(cover.encode(picture))
        output.mux(cover.encode(None))
        _fill(output, stream, striped())
    return path


def two_streams(folder: Path) -> Path:
    """The one to take is the second, which is marked as the default."""
    path = folder / "two.mp4"
    with av.open(str(path), "w") as output:
        small, large = _stream(output, 32), _stream(output, 64)
        large.disposition = av.stream.Disposition.default
        _fill(output, small, striped(COUNT, 32, 32)[::-1])
        _fill(output, large, striped())
    return path


def changing_size(folder: Path) -> Path:
    """The second half is twice as large: two encoders, one stream, one clock."""
    path, half = folder / "change.ts", COUNT // 2
    with av.open(str(path), "w") as output:
        stream = _stream(output, 64)
        for part, side in enumerate((64, 128)):
            encoder = av.CodecContext.create("libx264", "w")
            encoder.width = encoder.height = side
            encoder.pix_fmt, encoder.time_base, encoder.framerate = "yuv420p", Fraction(1, 8), Fraction(8)
            encoder.options, encoder.thread_count = {"bf": "0"}, 1
            pictures = striped(COUNT, side, side)[part * half : (part + 1) * half]
            for number, packet in enumerate(_packets(encoder, pictures)):
                packet.stream, packet.time_base = stream, Fraction(1, 8)
                packet.pts = packet.dts = part * half + number
                output.mux(packet)
    return path


def joined(folder: Path) -> Path:
    """Two transport streams, one behind the other: the clock is set back in the middle."""
    parts = [write(folder / f"{part}.ts", striped()[12 * part :][:12]).read_bytes() for part in (0, 1)]
    return content("joined.ts", b"".join(parts))(folder)


def late_sound(folder: Path) -> Path:
    """Sound that begins in the middle: a stream that the head of the file does not name."""
    first = write(folder / "mute.ts", striped()[:12])
    with av.open(str(folder / "loud.ts"), "w") as output:
        stream, sound = _stream(output, 64), output.add_stream("mp2", rate=16000)
        _fill(output, stream, striped()[12:])
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 1152), np.int16), format="s16p", layout="mono")
        silence.sample_rate = 16000
        output.mux(sound.encode(silence))
        output.mux(sound.encode(None))
    return content("late.ts", first.read_bytes() + (folder / "loud.ts").read_bytes())(folder)


def _stream(output: av.container.OutputContainer, side: int) -> av.VideoStream:
    stream = output.add_stream("libx264", rate=8)
    stream.width = stream.height = side
    stream.pix_fmt, stream.codec_context.thread_count = "yuv420p", 1
    return stream


def _packets(encoder: av.VideoCodecContext | av.VideoStream, pixels: np.ndarray) -> Iterator[av.Packet]:
    for number, picture in enumerate(pixels):
        frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
        frame.pts = number
        yield from encoder.encode(frame)
    yield from encoder.encode(None)


def _fill(output: av.container.OutputContainer, stream: av.VideoStream, pixels: np.ndarray) -> None:
    for picture in pixels:
        output.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
    output.mux(stream.encode(None))


def odd_sides(folder: Path) -> Path:
    return write(
        folder / "odd.webm",
        striped(COUNT, 361, 641),
        codec="libvpx-vp9",
        options={"cpu-used": "8", "deadline": "realtime"},
    )


def animation(folder: Path) -> Path:
    pictures = [Image.fromarray(picture) for picture in striped()]
    pictures[0].save(folder / "a.gif", save_all=True, append_images=pictures[1:], duration=100)
    return folder / "a.gif"


def still(name: str) -> Maker:
    def make(folder: Path) -> Path:
        Image.fromarray(striped(1)[0]).save(folder / name)
        return folder / name

    return make


def sound_only(folder: Path) -> Path:
    with av.open(str(folder / "a.mp3"), "w") as output:
        stream = output.add_stream("libmp3lame", rate=16000)
        for _ in range(20):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1152), np.int16), format="s16p", layout="mono")
            frame.sample_rate = 16000
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return folder / "a.mp3"


def negative(folder: Path) -> Path:
    """Half a second taken off the time of every block, so that four have none that counts: they are numbered."""
    path = write(folder / "a.mkv", striped(), options={"bf": "0"})
    data = path.read_bytes()
    at = data.index(bytes.fromhex("1f43b675"))
    for number in range(COUNT):
        at = data.index(b"\x81" + (125 * number).to_bytes(2, "big"), at) + 1
        data = data[:at] + (125 * number - 500).to_bytes(2, "big", signed=True) + data[at + 2 :]
    # the length as well, which counts from zero
    at = data.index(bytes.fromhex("448988")) + 3
    path.write_bytes(data[:at] + struct.pack(">d", 2500) + data[at + 8 :])
    return path


def edited(folder: Path) -> Path:
    """An edit list that begins with the fifth frame: the four before are there to decode from, not to be shown."""
    times = [125 * number for number in range(-4, COUNT)]
    pixels = np.concatenate([striped(4), striped()])
    return write(folder / "edited.mp4", pixels, times=times, container_options={"avoid_negative_ts": "disabled"})


SVT = {"codec": "libsvtav1", "options": {"preset": "12"}}
VPX = {"cpu-used": "8", "deadline": "realtime"}
RANDOM = np.random.default_rng(0).bytes(20_000)
R = InputReason

# name: (how it is made, what becomes of it)
MATRIX: dict[str, tuple[Maker, Whole | Refused]] = {
    # no media
    "0 bytes": (content("a.mp4", b""), Refused(R.EMPTY)),
    "text": (content("a.mp4", b"hello world\n" * 50), Refused(R.NOT_MEDIA)),
    "random bytes": (content("a.mp4", RANDOM), Refused(R.NOT_MEDIA)),
    "audio only mp4": (lambda folder: write_audio(folder / "a.mp4"), Refused(R.NO_VIDEO_STREAM)),
    "audio only mp3": (sound_only, Refused(R.NO_VIDEO_STREAM)),
    # codecs and pixels
    "AV1 mp4": (video("a.mp4", **SVT), Whole(why="codec libdav1d")),
    "AV1 mkv": (video("a.mkv", **SVT), Whole(why="codec libdav1d")),
    "HEVC": (video("a.mp4", codec="libx265", options={"x265-params": "log-level=none:pools=none"}), Whole()),
    "VP8 with hidden frames": (
        video("a.webm", codec="libvpx", options={"auto-alt-ref": "1", "lag-in-frames": "8", **VPX}),
        Whole(),
    ),
    "VP9": (video("a.webm", codec="libvpx-vp9", options={"lag-in-frames": "8", **VPX}), Whole()),
    "ProRes": (video("a.mov", codec="prores_ks", pixel_format="yuv422p10le"), Whole(why="codec prores")),
    "FFV1": (video("a.mkv", codec="ffv1"), Whole(why="codec ffv1")),
    "MJPEG": (video("a.mkv", codec="mjpeg", pixel_format="yuvj420p"), Whole()),
    "10-bit": (video("a.mp4", pixel_format="yuv420p10le"), Whole()),
    "yuv444": (video("a.mp4", pixel_format="yuv444p"), Whole()),
    "full range": (video("a.mp4", pixel_format="yuvj420p"), Whole()),
    "odd 641x361": (odd_sides, Whole()),
    "interlaced": (video("a.mp4", options={"x264-params": "tff=1"}), Whole()),
    "rotation 90": (video("a.mp4", turned=-1, rotation=90), Whole(why="it is stored rotated")),
    "resolution change": (changing_size, Whole(start=None)),
    "gif": (animation, Whole(why="container gif")),
    "png": (still("a.png"), Whole(frames=1, why="it is an image")),
    "jpg": (still("a.jpg"), Whole(frames=1, why="it is an image")),
    # containers and clocks
    "fragmented": (video("a.mp4", container_options={"movflags": "frag_keyframe+empty_moov"}), Whole(start=0.25)),
    "live mkv, sizes unknown": (video("a.mkv", container_options={"live": "1"}), Whole(why="decord stops")),
    "moov at the end": (video("a.mp4"), Whole()),
    "negative timestamps": (negative, Whole(why="decord stops")),
    "edit list": (edited, Whole(why="packets that are not to be shown")),
    "start at 100 s": (video("a.mkv", times=[100_000 + 125 * number for number in range(COUNT)]), Whole(start=100.0)),
    "VFR": (video("a.mkv", times=[number * number * 9 for number in range(COUNT)]), Whole()),
    "cover art first": (with_cover, Whole()),
    "audio first": (video("a.mp4", audio=True), Whole()),
    "audio late": (late_sound, Whole(start=None, why="its clock is set back")),
    "two video streams": (two_streams, Whole(why="more than one video stream")),
    "two ts concatenated": (joined, Whole(start=None, why="its clock is set back")),
    # random access by decord gives other frames here
    "MPEG-4 ASP with B-frames": (video("a.avi", codec="mpeg4", options={"bf": "2", "g": "12"}), Whole(start=None)),
    "MPEG-4 ASP in a transport stream": (
        video("a.ts", codec="mpeg4", options={"bf": "2", "g": "12"}),
        Whole(start=None, why="MPEG-4 in a transport stream"),
    ),
    "x264 intra-refresh": (video("a.mp4", options={"x264-params": "intra-refresh=1:keyint=12"}), Whole()),
    "open GOP": (video("a.mp4", options={"x264-params": "open-gop=1:keyint=8:bframes=3"}), Whole()),
    # damage
    "mp4 cut before moov": (spoilt("a.mp4", cut(0.5)), Refused(R.DAMAGED)),
    "truncated mp4, faststart": (spoilt("a.mp4", cut(0.7), container_options=FASTSTART), Refused(R.DAMAGED, 8)),
    "truncated mkv": (spoilt("a.mkv", cut(0.7)), Refused(R.DAMAGED, 8)),
    "truncated ts": (spoilt("a.ts", cut(0.7)), Refused(R.DAMAGED, 8, promised=0)),
    "ts without its keyframe": (spoilt("a.ts", without_keyframe, options={"g": "250"}), Refused(R.NO_FRAMES)),
    "300 flipped bytes": (spoilt("a.mp4", flipped, container_options=FASTSTART), Refused(R.DAMAGED, 12)),
    "a 200 kB hole": (spoilt("a.mp4", hole, container_options=FASTSTART, noise=256), Refused(R.DAMAGED, 12)),
    "moov claims billions of frames": (spoilt("a.mp4", billions_in_moov), Refused(R.DAMAGED, COUNT)),
    "avi claims billions of frames": (spoilt("a.avi", billions_in_avi, codec="mpeg4"), Refused(R.DAMAGED, COUNT)),
}


@pytest.mark.parametrize("name", MATRIX)
def test_every_row_of_the_matrix_has_its_outcome(tmp_path: Path, name: str) -> None:
    make, outcome = MATRIX[name]
    path = make(tmp_path)
    if isinstance(outcome, Whole):
        _check_whole(path, outcome)
    else:
        _check_refused(path, outcome)


def _check_whole(path: Path, outcome: Whole) -> None:
    frames, info = decode(path, size=48)
    assert (frames.count, info.frames_decoded, info.frames_expected) == (outcome.frames,) * 3, info
    assert not info.salvaged and info.packet_errors == 0
    assert numbers(frames.pixels) == list(range(frames.count))
    assert (np.diff(frames.pts_seconds) > 0).all()
    if outcome.start is not None:
        assert frames.pts_seconds[0] == pytest.approx(outcome.start, abs=1e-3)
    if outcome.why:
        assert info.decoder != "decord"
        if info.decoder == "pyav":
            with pytest.raises((UsageError, InputError), match=outcome.why):
                decode(path, size=48, decoder="decord")
    elif has_decord():
        other, info = decode(path, size=48, decoder="decord")
        assert info.decoder == "decord"
        np.testing.assert_array_equal(frames.pixels, other.pixels)
        np.testing.assert_array_equal(frames.pts_seconds, other.pts_seconds)


def _check_refused(path: Path, outcome: Refused) -> None:
    for decoder in ("auto", "pyav"):
        assert reason_of(path, decoder=decoder) is outcome.reason
    if not outcome.least:
        assert reason_of(path, salvage=True) is outcome.reason
        return
    frames, info = decode(path, size=None, salvage=True)
    assert outcome.least <= frames.count <= COUNT and frames.count == info.frames_decoded
    assert info.salvaged and info.note
    assert info.frames_decoded < info.frames_expected or info.packet_errors > 0, info
    if outcome.promised:
        assert info.frames_expected == outcome.promised
    whole, _ = decode(path.parent / f"whole{path.suffix}", size=None)
    np.testing.assert_array_equal(frames.pixels[0], whole.pixels[0])
