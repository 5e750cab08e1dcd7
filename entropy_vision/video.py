"""Videos to pixels, by PyAV; by decord where it is asked for, with the same pixels.

A file that is not large is read once: the packets that told the probe are those that are decoded. PyAV brings a newer
FFmpeg than decord does, takes less time for the codecs and sizes that were measured, says which frames it had to patch
up, and goes on behind a damaged packet. decord is right when frames are read one after another; random access returned
other frames without an error on 3 of 23 files, so it is never used. It gives up at the first damaged packet, knows no
AV1, and reads ahead without bound unless width and height are given; what it is known to get wrong it is not given.
Both scale with FFmpeg's `scale` filter and its bilinear kernel, which widens with the reduction (so it does not alias);
tests hold both to the same pixels, and to 2 of 255 for MPEG-4 part 2, whose transform is not fixed to the bit.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import cache, cached_property
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from entropy_vision.errors import InputError, InputReason, UsageError
from entropy_vision.probe import (
    KEEP,
    Clock,
    Limits,
    Probe,
    Reading,
    best_stream,
    check_pixels,
    check_total,
    open_reading,
    open_video,
    packets_of,
    refuse_memory,
)
from entropy_vision.sampling import Sampling, Span, choose, pick, sample
from entropy_vision.scale import Scaler

_STDERR = threading.Lock()
_SOUGHT = ("mov", "matroska")  # containers with a table of their keyframes


@dataclass(frozen=True, kw_only=True)
class DecodeInfo:
    """What happened while a file was decoded.

    Attributes:
        decoder: "decord", "pyav" or "pillow".
        codec: name of the codec or image format, as the decoder gives it.
        rotation: degrees counter-clockwise by which the stored pixels were turned to stand upright.
        frames_expected: frames the packets promise, those missing in gaps of a constant rate added, or the container's
            own count (or length, where it is damaged) where that is larger and believable.
        frames_decoded: frames the decoder gave, before some of them were taken; only as many as it took to get these.
        packet_errors: packets that could not be read or decoded, and frames marked as concealed; or the places in which
            packets are missing, cut or corrupt, where those are more.
        salvaged: True where something is damaged and the rest was taken nevertheless.
        note: what is damaged; "" where nothing is.
    """

    decoder: str
    codec: str
    rotation: int = 0
    frames_expected: int = 1
    frames_decoded: int = 1
    packet_errors: int = 0
    salvaged: bool = False
    note: str = ""


Decoded = tuple[np.ndarray, np.ndarray, DecodeInfo]
Size = tuple[int, int]


def decode_video(
    path: Path,
    *,
    sampling: Sampling,
    size: Size | None,
    decoder: str,
    salvage: bool,
    limits: Limits,
    span: Span | None = None,
) -> Decoded:
    """Decode a file: (uint8 [F, H, W, 3], float64 [F] seconds, what happened). `frames.decode` says the rest."""
    quiet_ffmpeg()
    part = sampling.keyframes or span is not None  # for which the file is opened where it begins
    with open_reading(path, limits, 0 if part or decoder == "decord" else KEEP) as (probe, reading):
        stored = probe.layout.height, probe.layout.width
        if size is None:
            size = stored[::-1] if probe.rotation % 180 else stored
        job = _Job(path, probe, sampling, size, limits, span)
        if decoder == "decord":
            reading.close()
            return _with_decord(job)
        return _with_pyav(job, reading, salvage)


def _refusal_of_decord(path: Path, why: str) -> str:
    return f'{path}: decord cannot read this file exactly ({why}): take decoder="auto" or "pyav"'


def _beyond_decord(job: _Job) -> str:
    """Why decord must not read the file; "" where it may."""
    if job.probe.unsafe:
        return job.probe.unsafe
    if not has_decord():
        return "decord is not installed"
    if job.probe.deep and job.size == (job.probe.layout.height, job.probe.layout.width):
        # without scaling, its older FFmpeg turns deep YUV into RGB another way (1.5 of 255 apart on average)
        return "more than 8 bits a channel at the stored size"
    if job.sampling.keyframes and job.probe.numbered:
        return "its packets do not tell when a keyframe is shown"
    return ""


def quiet_ffmpeg() -> None:
    """Keep FFmpeg's own messages off stderr: what matters in them comes back as an error or in `DecodeInfo`."""
    import av

    if av.logging.get_level() is None:
        av.logging.set_libav_level(av.logging.PANIC)


@cache
def has_decord() -> bool:
    """True where decord is installed (its wheels are for Linux on x86-64)."""
    return find_spec("decord") is not None


@dataclass(frozen=True)
class _Job:
    """A video to decode, and what to take of it."""

    path: Path
    probe: Probe
    sampling: Sampling
    size: Size
    limits: Limits
    span: Span | None = None

    def __post_init__(self) -> None:
        if self.span is not None and not self.chosen:
            told = f"{self.span[0]:g} to {self.span[1]:g}"
            raise InputError(self.path, InputReason.NO_FRAMES, f"no frame of the video lies in the seconds {told}")
        if self.sampling.keyframes and not self.chosen:
            raise InputError(self.path, InputReason.NO_FRAMES, "none of its packets is flagged as a keyframe")
        check_total(self.path, self.wanted, self.size, self.limits)

    @cached_property
    def chosen(self) -> list[int] | None:
        """Places of the frames to take, as far as the packets tell."""
        probe = self.probe
        return choose(self.sampling, probe.times, probe.keyframes, self.span, probe.sizes)

    @property
    def partial(self) -> bool:
        """Whether not every frame has to be decoded."""
        return self.sampling.partial or self.span is not None

    @property
    def wanted(self) -> int:
        """How many frames are taken, or at least: every cut may add one."""
        if self.chosen is not None:
            return len(self.chosen)
        return len(choose(Sampling(fps=self.sampling.scenes), self.probe.times, ()) or ())

    def take(self, frames: Iterator[tuple[float, Any]], scaled: Callable[[Any], np.ndarray]) -> _Result:
        """Of decoded frames those to take, scaled."""
        result = _Result(self)
        if self.sampling.scenes is not None:
            from entropy_vision.shots import sample_shots  # which loads numba

            for time, pixels in sample_shots(((time, scaled(frame)) for time, frame in frames), self.sampling.scenes):
                result.add(time, pixels)
            return result
        if self.sampling.keyframes and self.probe.numbered:
            frames = ((time, frame) for time, frame in frames if frame.key_frame)
        elif self.partial:
            frames = pick(frames, [self.probe.times[place] for place in self.chosen or ()])
        else:
            frames = sample(frames, self.sampling.fps)
        for time, frame in frames:
            result.add(time, scaled(frame))
        return result


def _with_decord(job: _Job) -> Decoded:
    """Decode with decord, in order from the first frame."""
    if why := _beyond_decord(job):
        raise UsageError(_refusal_of_decord(job.path, why))
    # decord repeats the nearest frame for a damaged one and tells stderr only: fault_tol makes that an error
    os.environ.setdefault("DECORD_DUPLICATE_WARNING_THRESHOLD", "1.0")
    import decord
    from decord._ffi.base import DECORDLimitReachedError

    decord.logging.set_level(decord.logging.QUIET)
    probe, (height, width) = job.probe, job.size
    count = 0

    def frames() -> Iterator[tuple[float, np.ndarray]]:
        nonlocal count
        for time in probe.times:
            picture = reader.next()
            count += 1
            pixels = picture.asnumpy() if hasattr(picture, "asnumpy") else np.asarray(picture)
            # rows are padded to whole vectors; at some widths (24, 48, 72 ...) the padding comes as more channels
            yield time, np.ascontiguousarray(pixels.reshape(height, -1)[:, : 3 * width]).reshape(height, width, 3)

    try:
        with _stderr_closed():
            name = str(job.path.absolute())
            reader = decord.VideoReader(name, width=width, height=height, num_threads=1, fault_tol=1e-9)
        result = job.take(frames(), np.asarray) if len(reader) == len(probe.times) else None
        why = f"it counts {len(reader)} frames, its packets are {len(probe.times)}"
    except (decord.DECORDError, DECORDLimitReachedError, RuntimeError, UnicodeEncodeError) as error:
        # RuntimeError also holds the StopIteration of a reader that ends early, raised inside a generator
        result, why = None, f"decord stops at frame {count} ({type(error).__name__})"
    if result is None:
        raise UsageError(_refusal_of_decord(job.path, why))
    info = DecodeInfo(decoder="decord", codec=probe.codec, frames_expected=probe.expected, frames_decoded=count)
    return *result.arrays(), info


@contextmanager
def _stderr_closed() -> Iterator[None]:
    """Send file descriptor 2 nowhere, for the milliseconds in which decord opens a file.

    It writes there what it also raises, below Python and without asking. Other threads lose what they write to stderr
    meanwhile; one thread at a time, so that the descriptor is always put back.
    """
    with _STDERR:
        try:
            kept = os.dup(2)
        except OSError:  # there is no stderr to keep clean
            yield
            return
        nowhere = os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(nowhere, 2)
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            os.close(nowhere)


def _with_pyav(job: _Job, reading: Reading, salvage: bool) -> Decoded:
    """Decode with PyAV packet by packet, so that one damaged packet costs its own frames only."""
    probe = job.probe
    turned = (job.size[1], job.size[0]) if probe.rotation % 180 else job.size
    scale = Scaler(turned, probe.alpha)

    def scaled(frame: Any) -> np.ndarray:
        return np.rot90(scale(frame), probe.rotation // 90)

    tally = _Tally()
    alone = job.sampling.keyframes and not probe.damage and not probe.numbered
    result = _keyframes_alone(job, tally, scaled) if alone else _from_keyframe(job, tally, scaled)
    if result is None:
        tally = _Tally()
        result = job.take(_pyav_frames(job.path, probe, job.limits, tally, packets=reading.take()), scaled)
    if not result.times:
        raise InputError(job.path, InputReason.NO_FRAMES, "not one frame of its video stream can be decoded")
    damage = probe.damage or (f"{tally.errors} packets cannot be decoded" if tally.errors else "")
    if not damage and not job.partial and tally.frames < len(probe.times):
        damage = "some packets give no frame"
    if damage and not salvage:
        whole = "" if job.partial else f"; {tally.frames} of {probe.expected} frames decode"
        detail = f"damaged: {damage}{whole} (preprocess --salvage takes those, and read_video(..., salvage=True))"
        raise InputError(job.path, InputReason.DAMAGED, detail)
    info = DecodeInfo(
        decoder="pyav",
        codec=probe.codec,
        rotation=probe.rotation,
        frames_expected=probe.expected,
        frames_decoded=tally.frames,
        packet_errors=max(tally.errors, probe.errors),
        salvaged=bool(damage),
        note=damage,
    )
    return *result.arrays(), info


def _keyframes_alone(job: _Job, tally: _Tally, scaled: Callable[[Any], np.ndarray]) -> _Result | None:
    """The keyframes, nothing else being decoded; None where that does not give exactly those that are flagged.

    Containers also flag pictures that need others before them (intra refresh), and of two fields the second may.
    """
    from av.video.frame import PictureType

    times = tuple(job.probe.times[place] for place in job.probe.keyframes)
    result = _Result(job)
    frames = _pyav_frames(job.path, replace(job.probe, times=times), job.limits, tally, keyframes=True)
    for time, frame in frames:
        if frame.pict_type != PictureType.I or frame.interlaced_frame:
            return None
        result.add(time, scaled(frame))
    return result if tuple(result.times) == times and not tally.errors else None


def _from_keyframe(job: _Job, tally: _Tally, scaled: Callable[[Any], np.ndarray]) -> _Result | None:
    """The frames of a span, decoded from the last keyframe before them; None where that is not known to be exact.

    What is sought may be elsewhere (a clock that is set back), and what is flagged may need others before it.
    """
    from av.video.frame import PictureType

    probe, places = job.probe, job.chosen or [0]
    start = max((key for key in probe.keyframes if key <= places[0]), default=0)
    if job.span is None or not start or probe.damage or probe.numbered or probe.container not in _SOUGHT:
        return None
    frames = _pyav_frames(job.path, probe, job.limits, tally, start=probe.times[start])
    first = next(frames, None)
    if first is None or first[0] != probe.times[start] or first[1].pict_type != PictureType.I:
        return None
    result = job.take(chain([first], frames), scaled)
    exact = result.times == [probe.times[place] for place in places]
    return result if exact and not tally.errors and not first[1].interlaced_frame else None


@dataclass
class _Tally:
    frames: int = 0
    errors: int = 0


def _pyav_frames(
    path: Path,
    probe: Probe,
    limits: Limits,
    tally: _Tally,
    *,
    keyframes: bool = False,
    start: float | None = None,
    packets: deque[Any] | None = None,
) -> Iterator[tuple[float, Any]]:
    """(seconds, av.VideoFrame) in the order of showing; what cannot be decoded is counted and passed over.

    Args:
        keyframes: these alone.
        start: of the keyframe to begin at.
        packets: of the whole file, of a `Reading` that is open; without them the file is opened again.
    """
    import av

    clock = Clock(probe.interval)
    with ExitStack() as stack:
        if packets is None:
            container = stack.enter_context(open_video(path))
            stream = best_stream(path, container)
            if keyframes:
                stream.codec_context.skip_frame = "NONKEY"
            if start is not None:
                container.seek(round(start / stream.time_base), stream=stream)
            coming = packets_of(container, stream)
        else:
            coming = _taken(packets)
        while True:
            packet = None
            try:
                packet = next(coming, None)
                if keyframes and packet is not None and packet.size and not packet.is_keyframe:
                    continue  # VP9's decoder does not know of skipping
                frames = packet.decode() if packet is not None else ()
            except av.FFmpegError as error:
                if packet is not None:
                    refuse_memory(path, error)
                tally.errors += 1
                # a demuxer that keeps failing where it stands would never end
                if tally.errors > 2 * probe.expected + 100:
                    return
                continue
            if packet is None:
                return
            for frame in frames:
                check_pixels(path, frame.width, frame.height, limits)
                if probe.numbered or frame.pts is None:
                    time = probe.times[min(tally.frames, len(probe.times) - 1)]
                else:
                    time = frame.pts * float(frame.time_base)
                tally.frames += 1
                tally.errors += bool(frame.is_corrupt)
                yield clock(time), frame


def _taken(packets: deque[Any]) -> Iterator[Any]:
    """Each packet, which is then no longer held."""
    while packets:
        yield packets.popleft()


class _Result:
    """Frames as they come, in one array: a list that is stacked at the end would need the memory twice."""

    def __init__(self, job: _Job) -> None:
        self.job = job
        self.pixels = np.empty((job.wanted, *job.size, 3), np.uint8)
        self.times: list[float] = []

    def add(self, time: float, pixels: np.ndarray) -> None:
        if len(self.times) == len(self.pixels):  # the packets promised fewer
            self.pixels = np.concatenate([self.pixels, np.empty_like(self.pixels[: 1 + len(self.times) // 4])])
        self.pixels[len(self.times)] = pixels
        self.times.append(time)
        check_total(self.job.path, len(self.times), self.job.size, self.job.limits)

    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        count = len(self.times)
        pixels = self.pixels if count == len(self.pixels) else self.pixels[:count].copy()
        return pixels, np.array(self.times, np.float64)
