"""What a media file is, before its pixels are decoded: path checks, header limits, packets, damage."""

from __future__ import annotations

import stat
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from entropy_vision.errors import InputError, InputReason
from entropy_vision.matroska import unknown_part
from entropy_vision.scale import Layout

# What decord's own FFmpeg (4.1) opens and decodes as PyAV does when read in order, MPEG-4 to 2 of 255.
_DECORD_CODECS = frozenset({"h264", "hevc", "vp8", "vp9", "mpeg4", "mpeg1video", "mpeg2video", "mjpeg"})
_DECORD_CONTAINERS = frozenset({"mov", "matroska", "avi", "mpegts", "mpeg", "flv"})

# Demuxers that may look at a file. Left out on purpose: `tty` (draws any text file as video) and `concat`, `hls`,
# `dash`, `image2`, which open other files that the given one names. Audio is in, so that the error can name it.
_DEMUXERS = (
    "mov,matroska,webm,avi,mpegts,mpeg,mpegvideo,m4v,h264,hevc,obu,ivf,flv,gif,apng,asf,ogg,mxf,nut,dv,yuv4mpegpipe,"
    "mjpeg,rm,mp3,wav,flac,aac"
)
_HOW: dict[str, Any] = {
    "options": {"format_whitelist": _DEMUXERS, "protocol_whitelist": "file"},
    "metadata_errors": "replace",
}
# where data is lost, these go on with the next frame that is whole
_GAPPED = frozenset({"matroska", "avi", "mpegts"})
_INDEXED = frozenset({b"ftyp", b"moov", b"mdat"})  # MP4 and QuickTime
KEEP = 1 << 24  # bytes that the packets of a file may take; those of a larger one are read twice
_BESIDE = 1 << 10  # of them beside a packet's data, at most: FFmpeg's and PyAV's own
_HASTE: Any = [{"skip_frame": "all"}] * 64  # for each stream of such a file
_VIDEO_MAGIC = (
    (4, b"ftyp"),
    (4, b"moov"),
    (4, b"mdat"),
    (0, b"\x1a\x45\xdf\xa3"),
    (8, b"AVI "),
    (0, b"GIF8"),
    (0, b"FLV"),
)


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How much one file may ask for. Checked against the header before pixels are decoded, and while decoding.

    Attributes:
        max_pixels: pixels of one stored frame; 50 MP is 8K video with room to spare.
        max_total_pixels: frames x height x width of the result; 1e9 are 3 GB of RGB.
    """

    max_pixels: int = 50_000_000
    max_total_pixels: int = 1_000_000_000


@dataclass(frozen=True, kw_only=True)
class Probe:
    """What the packets and the first frame of a video say.

    Attributes:
        codec, container: FFmpeg's names.
        layout: of the first frame as stored, before rotation.
        alpha: True where the pixels carry transparency.
        deep: True for more than 8 bits a channel.
        rotation: degrees counter-clockwise that stand the stored pixels upright: 0, 90, 180 or 270.
        times: seconds of every frame to be shown, ascending.
        sizes: bytes of every frame's packet, in that order; where frames have no clock, in that of the file.
        keyframes: which of these the container flags as decodable by themselves, ascending.
        numbered: True where frames have no clock of their own (AVI, raw streams) and take `times` by their number.
        interval: seconds a frame lasts, nominally.
        expected: frames the packets promise, or the container where its count is larger and believable.
        errors: places in which packets are missing, cut or corrupt; at least 1 where there is damage.
        unsafe: why decord must not read this file; "" where it may.
        damage: what is broken or missing; "" where nothing is.
    """

    codec: str
    container: str
    layout: Layout
    alpha: bool
    deep: bool
    rotation: int
    times: tuple[float, ...]
    sizes: tuple[int, ...]
    keyframes: tuple[int, ...]
    numbered: bool
    interval: float
    expected: int
    errors: int
    unsafe: str
    damage: str


def check_path(path: str | Path) -> Path:
    """The path, if it names a regular, readable file that is not empty.

    Raises:
        InputError: MISSING, NOT_A_FILE, UNREADABLE or EMPTY.
    """
    path = Path(path)
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            what = "a folder" if stat.S_ISDIR(status.st_mode) else "neither a file nor a folder"
            raise InputError(path, InputReason.NOT_A_FILE, f"this is {what}: name a video or image file")
        if status.st_size == 0:
            raise InputError(path, InputReason.EMPTY, "the file is empty (0 bytes)")
        with path.open("rb"):
            return path
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(path, InputReason.MISSING, "there is no such file") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL byte in the name; InputError is one too
        if isinstance(error, InputError):
            raise
        raise InputError(path, InputReason.UNREADABLE, f"the file cannot be opened ({error})") from None


def check_pixels(path: Path, width: int, height: int, limits: Limits) -> None:
    """Refuse a frame larger than the limit, as its header announces it."""
    if width * height > limits.max_pixels:
        detail = f"one frame has {width} x {height} pixels, more than the limit of {limits.max_pixels}"
        raise InputError(path, InputReason.TOO_LARGE, detail)


def check_total(path: Path, frames: int, size: tuple[int, int], limits: Limits) -> None:
    """Refuse a result larger than the limit."""
    if frames * size[0] * size[1] > limits.max_total_pixels:
        detail = (
            f"{frames} frames of {size[1]} x {size[0]} are more than {limits.max_total_pixels} pixels: "
            "take fewer (fps, frames) or a smaller size"
        )
        raise InputError(path, InputReason.TOO_LARGE, detail)


def open_video(path: Path) -> Any:
    """Open a file with PyAV, as an input container.

    Raises:
        InputError: NOT_MEDIA where nothing knows the format, DAMAGED where the format is known but cannot be opened.
    """
    import av

    try:
        path.name.encode()
        # an absolute path behind "file:": a name such as "a:b.mp4" is no protocol then
        name: str | None = f"file:{path.absolute()}"
    except UnicodeEncodeError:  # a name that is not UTF-8: FFmpeg gets the bytes, not the name
        name = None
    try:
        if name and _magic(path) in _INDEXED:
            # To learn what a header may leave out, FFmpeg decodes the first frame: at 1080p as long as eight others
            # take. An index leaves nothing out that is asked here; in other containers times are guessed from frames.
            with suppress(ValueError):  # no stream in the header
                return av.open(name, stream_options=_HASTE, **_HOW)
        return av.open(name or path.open("rb"), **_HOW)
    except (av.FFmpegError, ValueError) as error:
        if looks_like_video(path):
            what = getattr(error, "strerror", None) or type(error).__name__
            detail = f"a video file that cannot be opened, perhaps cut off before its index ({what})"
            raise InputError(path, InputReason.DAMAGED, detail) from None
        raise InputError(path, InputReason.NOT_MEDIA, "not a video or image in any known format") from None


def best_stream(path: Path, container: Any) -> Any:
    """FFmpeg's best video stream, which may not be the first.

    Raises:
        InputError: NO_VIDEO_STREAM (a cover picture in an audio file is no video), or NO_FRAMES for an unknown codec.
    """
    stream = container.streams.best("video")
    if stream is None or is_cover(stream):
        kinds = ", ".join(sorted({one.type for one in container.streams if one is not stream})) or "no streams at all"
        raise InputError(path, InputReason.NO_VIDEO_STREAM, f"no video in it, only {kinds}")
    if stream.codec_context is None:
        raise InputError(path, InputReason.NO_FRAMES, "nothing here decodes the codec of its video stream")
    stream.codec_context.thread_count = 1
    return stream


def is_cover(stream: Any) -> bool:
    """True for the picture of a cover, which stands in a file as a video stream of one frame."""
    from av.stream import Disposition

    return bool(stream.disposition & Disposition.attached_pic)


class DecodedPacket(NamedTuple):
    """A packet that was decoded when it was read: what came out of it, or the error."""

    frames: list[Any]
    error: Exception | None

    def decode(self) -> list[Any]:
        """As a packet's own."""
        if self.error is not None:
            raise type(self.error)(*self.error.args)  # another one: its traceback would lead back here
        return self.frames


@dataclass(eq=False)
class Reading:
    """A file that is open, and what was read of it: what follows needs neither to read nor to begin decoding again.

    Attributes:
        container: of PyAV.
        packets: all of its video stream, in order, the first ones as `DecodedPacket`; None where they were not kept.
    """

    container: Any
    packets: deque[Any] | None

    def take(self) -> deque[Any] | None:
        """The packets, once."""
        packets, self.packets = self.packets, None
        return packets

    def close(self) -> None:
        """Give back what it holds."""
        self.packets = None
        self.container.close()


def probe_video(path: Path, limits: Limits) -> Probe:
    """Read every packet and decode the first frame: 0.01 to 0.07 ms a packet.

    Raises:
        InputError: NOT_MEDIA, DAMAGED, NO_VIDEO_STREAM, NO_FRAMES or TOO_LARGE.
    """
    with open_reading(path, limits, keep=0) as (probe, _):
        return probe


@contextmanager
def open_reading(path: Path, limits: Limits, keep: int) -> Iterator[tuple[Probe, Reading]]:
    """The probe of a file and the reading that told it, closed behind. Errors as `probe_video`.

    Args:
        keep: bytes that the packets may take in memory; where they take more, none is kept.
    """
    with ExitStack() as stack:
        with _listening() as said:
            container = stack.enter_context(open_video(path))
            stream = best_stream(path, container)
            check_pixels(path, stream.codec_context.width, stream.codec_context.height, limits)
            reading = Reading(container, deque() if keep else None)
            stack.callback(reading.close)
            seen = _read_packets(path, reading, stream, said, keep)
            probe = _probe(path, container, stream, seen, limits)
        del seen
        yield probe, reading


def _probe(path: Path, container: Any, stream: Any, seen: _Seen, limits: Limits) -> Probe:
    """What was seen, in the terms of `Probe`."""
    context, stamps, first = stream.codec_context, seen.stamps, seen.first
    if first is None:
        raise InputError(path, InputReason.NO_FRAMES, "not one frame of its video stream can be decoded")
    check_pixels(path, first.width, first.height, limits)
    name = container.format.name.split(",")[0]
    rate = stream.average_rate or stream.guessed_rate
    interval = float(1 / rate) if rate else 0.04
    order, times = _times(stamps, float(stream.time_base), interval)
    gaps = _gaps(times, interval) if name in _GAPPED or seen.hidden else 0
    seconds = (container.duration or 0) / 1e6
    broken = _lost_step(path) if name == "mpegts" else unknown_part(path) if name == "matroska" else ""
    damage = (
        seen.damage
        or _missing_frames(name, stream.frames, gaps, seen)
        or _missing_end(seconds, seen, interval)
        or broken
    )
    promised = max(stream.frames - seen.hidden, round(seconds / interval) if damage else 0)
    believable = promised <= 10 * len(stamps) + 100  # a broken header may say anything
    return Probe(
        codec=context.name,
        container=name,
        layout=Layout.of(first),
        alpha=any(part.is_alpha for part in first.format.components) or first.format.name == "pal8",
        deep=any(part.bits > 8 for part in first.format.components),
        rotation=round(first.rotation / 90) % 4 * 90,
        times=times,
        sizes=tuple(stamps[index].size for index in order),
        keyframes=tuple(place for place, index in enumerate(order) if stamps[index].key),
        numbered=name == "avi" or any(stamp.pts is None for stamp in stamps),
        interval=interval,
        expected=max(promised if believable else 0, len(stamps) + gaps),
        errors=max(seen.errors + bool(broken), bool(damage)),
        unsafe=damage or seen.odd or _beyond_decord(name, context, first, stamps),
        damage=damage,
    )


class Stamp(NamedTuple):
    """What a packet says of its frame."""

    pts: int | None
    dts: int | None
    key: bool
    size: int


class Clock:
    """Seconds as they go on: where a clock is set back (two recordings joined), one frame after the last."""

    def __init__(self, interval: float) -> None:
        self.interval, self.shift = interval, 0.0
        self.last: float | None = None

    def __call__(self, time: float) -> float:
        """The next frame's time."""
        if self.last is not None and time + self.shift < self.last:
            self.shift = self.last + self.interval - time
        self.last = time + self.shift
        return self.last


@dataclass(kw_only=True)
class _Seen:
    """What the packets of a file say.

    Attributes:
        stamps: what every packet of the video stream says that is to be shown.
        first: its first frame, decoded.
        end: the last second of any stream.
        hidden, empty: packets of the video stream that are not to be shown, and that hold nothing (a dropped frame).
        errors, odd, damage: as in `Probe`, odd being a part of `unsafe`.
    """

    stamps: list[Stamp]
    first: Any = None
    end: float = 0.0
    hidden: int = 0
    empty: int = 0
    errors: int = 0
    odd: str = ""
    damage: str = ""


def _read_packets(path: Path, reading: Reading, stream: Any, said: list[tuple[int, str, str]], room: int) -> _Seen:
    """Read a file from its first packet to its last, and keep them in the reading while there is room."""
    import av

    seen, corrupt, container = _Seen(stamps=[]), 0, reading.container
    try:
        for packet in packets_of(container):
            stamp = packet.dts if packet.pts is None else packet.pts
            if packet.size and stamp is not None and not packet.is_discard:
                seen.end = max(seen.end, float((stamp + (packet.duration or 0)) * packet.time_base))
            complaint = _complaint(container, said)
            if packet.is_corrupt or complaint == _CORRUPT:
                corrupt += 1
            elif complaint:
                seen.errors += 1
                seen.damage = seen.damage or f"its container is damaged ({complaint})"
            if packet.stream.index != stream.index:  # packet.stream_index is 0 in the packet that ends a stream
                continue
            if packet.is_discard:
                seen.hidden += 1
            elif packet.size:
                seen.stamps.append(Stamp(packet.pts, packet.dts, packet.is_keyframe, packet.size))
            elif stamp is not None:
                seen.empty += 1
            kept: Any = packet
            if seen.first is None:
                try:
                    kept = DecodedPacket(packet.decode(), None)
                    seen.first = next(iter(kept.frames), None)
                except av.FFmpegError as error:
                    refuse_memory(path, error)
                    seen.errors += 1
                    seen.damage = f"a packet cannot be decoded ({error.strerror})"
                    kept = DecodedPacket([], error.with_traceback(None))  # which would keep all that is here alive
            room -= packet.size + _BESIDE
            if room < 0:
                reading.packets = None
            if reading.packets is not None:
                reading.packets.append(kept)
    except av.FFmpegError as error:
        seen.errors += 1
        seen.damage = f"reading stops before the end ({error.strerror})"
    if seen.hidden:
        seen.odd = "it has packets that are not to be shown"
    elif len([one for one in container.streams.video if not is_cover(one)]) > 1:
        seen.odd = "it has more than one video stream"  # of which decord's FFmpeg may think another the best
    if corrupt and runs_backwards(seen.stamps):
        seen.odd = "its clock is set back"  # two recordings in one: the seam counts as corrupt, but nothing is missing
    elif corrupt:
        seen.errors += corrupt
        seen.damage = seen.damage or f"{corrupt} packets are marked as corrupt"
    return seen


def packets_of(container: Any, *streams: Any) -> Iterator[Any]:
    """The packets of some streams, or of all that the header names.

    PyAV stumbles over a stream that appears later, when it is through with the file: all packets have come by then.
    """
    with suppress(IndexError):
        yield from container.demux(*streams)


def refuse_memory(path: Path, error: Exception) -> None:
    """Frames for which a decoder finds no memory are too large, not damaged."""
    if isinstance(error, MemoryError):
        raise InputError(path, InputReason.TOO_LARGE, "decoding it takes more memory than there is") from None


_LISTENERS = threading.Lock()
_listeners = 0
_CORRUPT = "Packet corrupt"


@contextmanager
def _listening() -> Iterator[list[tuple[int, str, str]]]:
    """(level, who, message) of what FFmpeg says meanwhile in this thread, warnings and errors.

    A demuxer that finds a broken part jumps over it and raises nothing: it only says so.
    """
    global _listeners
    import av

    with _LISTENERS:
        _listeners += 1
        if av.logging.get_level() is None or _listeners > 1:
            av.logging.set_level(av.logging.WARNING)
        av.logging.set_skip_repeated(False)
    try:
        with av.logging.Capture() as said:
            yield said
    finally:
        with _LISTENERS:
            _listeners -= 1
            if _listeners == 0:
                av.logging.set_level(None)
                av.logging.set_skip_repeated(True)


def _complaint(container: Any, said: list[tuple[int, str, str]]) -> str:
    """The first line in which the demuxer names damage; what was said is forgotten, for it may be said a million times.

    What decoders say of the first frame is left out: they complain about whole files too.
    """
    import av

    lines = [(level, text.strip()) for level, who, text in said if who == container.format.name]
    said.clear()
    for level, text in lines:
        if text.startswith(_CORRUPT):
            return _CORRUPT
        if level <= av.logging.ERROR:
            return text[:100]
    return ""


def _missing_frames(container: str, counted: int, gaps: int, seen: _Seen) -> str:
    """Frames that are promised and not there. Gaps alone are damage where no camera leaves them, see `_gaps`."""
    packets = len(seen.stamps) + seen.hidden + seen.empty
    if counted > packets + (gaps if container == "avi" else 0):  # whose header counts a dropped frame as well
        return f"its header counts {counted} frames, there are {packets}"
    if gaps and not runs_backwards(seen.stamps) and (seen.hidden or container == "mpegts"):
        return f"{gaps} frames are missing between the others"
    return ""


def _gaps(times: tuple[float, ...], interval: float) -> int:
    """Frames that are missing inside a video of constant rate: where data is lost, these containers just go on.

    A camera that drops frames leaves the same gaps in Matroska and AVI, so there they are told (`frames_expected`) and
    not called damage.
    """
    steps = sorted(later - earlier for earlier, later in pairwise(times))
    if not steps or abs(steps[len(steps) // 2] - interval) > 0.1 * interval:
        return 0
    return sum(round(step / interval) - 1 for step in steps if step > 1.5 * interval)


def runs_backwards(stamps: list[Stamp]) -> bool:
    """True where decoding times, in the order of the file, do not ascend."""
    ticks = [stamp.dts for stamp in stamps if stamp.dts is not None]
    return any(later < earlier for earlier, later in pairwise(ticks))


def _missing_end(promised: float, seen: _Seen, interval: float) -> str:
    """Truncated files often decode without one error, only shorter than the header says (seconds)."""
    # a list of edits says exactly when to stop, but may begin inside a frame; other headers are round
    slack = 0.95 * interval if seen.hidden else max(0.1 * promised, 3 * interval)
    if promised - seen.end > slack:
        return f"the header promises {promised:.2f} s, the packets end at {seen.end:.2f} s"
    return ""


def _lost_step(path: Path) -> str:
    """Transport packets have one size and begin with a G: a demuxer that finds none goes on and says nothing."""
    with path.open("rb") as file:
        head = file.read(1024)
        for start, length in ((0, 188), (4, 192), (0, 204)):
            if head[start::length].count(b"G") >= 4:  # one may be damaged
                break
        else:
            return ""
        file.seek(0)
        while block := file.read(length * 4096):
            if len(block) % length:
                return "it ends inside a packet"
            if block[start::length].count(b"G") < len(block) // length:
                return "a packet does not begin where it must"
    return ""


def _times(stamps: list[Stamp], time_base: float, interval: float) -> tuple[list[int], tuple[float, ...]]:
    """The packets in the order of showing, and their seconds: by pts, by dts where there is no pts, else by number."""
    for name in ("pts", "dts"):
        ticks = [getattr(stamp, name) for stamp in stamps]
        if None not in ticks:
            order = [index for part in _recordings(stamps) for index in sorted(part, key=ticks.__getitem__)]
            clock = Clock(interval)
            return order, tuple(clock(ticks[index] * time_base) for index in order)
    return list(range(len(stamps))), tuple(number * interval for number in range(len(stamps)))


def _recordings(stamps: list[Stamp]) -> list[list[int]]:
    """Runs of packets between which the clock is set back."""
    parts: list[list[int]] = [[]]
    last: int | None = None
    for index, stamp in enumerate(stamps):
        if last is not None and stamp.dts is not None and stamp.dts < last:
            parts.append([])
        last = stamp.dts if stamp.dts is not None else last
        parts[-1].append(index)
    return parts


def _beyond_decord(container: str, context: Any, first: Any, stamps: list[Stamp]) -> str:
    """Why decord would give other frames than PyAV, or none; "" where it may read the file."""
    if container not in _DECORD_CONTAINERS:
        return f"container {container}"
    if context.name not in _DECORD_CODECS:
        return f"codec {context.name}"
    if (container, context.name) == ("mpegts", "mpeg4"):
        return "MPEG-4 in a transport stream"  # with B-frames it gives other pictures
    if first.rotation % 360:
        return "it is stored rotated"
    if any(part.is_alpha for part in first.format.components):
        return "it has transparency"
    if runs_backwards(stamps):
        return "its clock is set back"
    return ""


def looks_like_video(path: Path) -> bool:
    """True where the first bytes are those of a common video container, whatever the file is called."""
    return _magic(path) != b""


def _magic(path: Path) -> bytes:
    """Which of `_VIDEO_MAGIC` a file begins with; empty where it is none."""
    with path.open("rb") as file:
        head = file.read(16)
    return next((magic for at, magic in _VIDEO_MAGIC if head[at : at + len(magic)] == magic), b"")
