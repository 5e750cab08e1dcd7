"""Which frames of a video are taken: every one, so many a second, so many in all, the keyframes, or by its shots.

All but the last follow from what the packets say, so they are chosen before anything is decoded.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from statistics import median
from typing import Any

from entropy_vision.errors import UsageError

_TIE = 1e-7  # seconds; containers count in ticks of a microsecond or more
_END = 1e-6  # seconds, of a span that was written in decimals


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """Which frames to take, by one rule; every frame where none is given.

    Attributes:
        fps: those nearest to the times first + i / fps, in (0, 1000].
        frames: so many, spread evenly over the time; all where the video has fewer.
        packets: so many, spread evenly over the bytes of the packets: many where much happens; all where there are
            fewer.
        keyframes: those that the container flags as decodable by themselves.
        scenes: the first of every shot, and from there so many a second up to the next cut, in (0, 1000].

    Raises:
        UsageError: a number out of range, or more than one rule.
    """

    fps: float | None = None
    frames: int | None = None
    packets: int | None = None
    keyframes: bool = False
    scenes: float | None = None

    def __post_init__(self) -> None:
        for name in ("fps", "scenes"):
            rate = getattr(self, name)
            if rate is not None and not (isinstance(rate, int | float) and math.isfinite(rate) and 0 < rate <= 1000):
                raise UsageError(f"{name} must be a number in (0, 1000], or None, got {rate!r}")
        for name in ("frames", "packets"):
            count = getattr(self, name)
            if count is not None and (type(count) is not int or count < 1):
                raise UsageError(f"{name} must be a whole number above 0, or None for every frame, got {count!r}")
        if type(self.keyframes) is not bool:
            raise UsageError(f"keyframes must be True or False, got {self.keyframes!r}")
        given = list(self._given())
        if len(given) > 1:
            raise UsageError(f"give one of fps, frames, packets, keyframes and scenes, not {' and '.join(given)}")

    def _given(self) -> dict[str, Any]:
        rules = {name: getattr(self, name) for name in ("fps", "frames", "packets", "keyframes", "scenes")}
        return {name: value for name, value in rules.items() if value not in (None, False)}

    @property
    def partial(self) -> bool:
        """Whether not every frame has to be decoded."""
        return self.frames is not None or self.packets is not None or self.keyframes

    def settings(self) -> dict[str, Any]:
        """The rule as one entry that fits into JSON; {"fps": None} takes every frame."""
        given = self._given() or {"fps": None}
        return {name: float(value) if name in ("fps", "scenes") and value else value for name, value in given.items()}

    @staticmethod
    def read(settings: Mapping[str, Any]) -> Sampling:
        """From `settings()`, among whatever else the mapping holds."""
        return Sampling(**{name: settings[name] for name in Sampling.__dataclass_fields__ if name in settings})

    def words(self) -> str:
        """For people."""
        if self.frames is not None:
            return f"{self.frames} in all"
        if self.packets is not None:
            return f"{self.packets} in all, by bytes"
        if self.scenes is not None:
            return f"{self.scenes:g} a second of every shot"
        if self.keyframes:
            return "keyframes"
        return "every frame" if self.fps is None else f"{self.fps:g} a second"


EVERY = Sampling()


Span = tuple[float, float]
"""Seconds from the first frame of a video, both ends taken."""


def choose(
    sampling: Sampling,
    times: Sequence[float],
    keyframes: Sequence[int],
    span: Span | None = None,
    sizes: Sequence[int] = (),
) -> list[int] | None:
    """Places of the frames to take; None where only the pixels tell.

    Args:
        times: seconds of every frame, ascending.
        keyframes: places of those flagged as such, ascending.
        span: apply the rule, fps, frames or packets, to the frames between these times as if they were the video.
        sizes: bytes of every frame's packet, for the rule that asks for them.
    """
    if span is not None:
        first = bisect_left(times, times[0] + span[0] - _END)
        last = bisect_right(times, times[0] + span[1] + _END)
        keys = [key - first for key in keyframes if first <= key < last]
        inside = choose(sampling, times[first:last], keys, sizes=sizes[first:last])
        return None if inside is None else [first + place for place in inside]
    if sampling.scenes is not None:
        return None
    if sampling.keyframes:
        return list(keyframes)
    if sampling.frames is not None:
        return spread(times, sampling.frames)
    if sampling.packets is not None:
        return spread_by_bytes(times, sizes, keyframes, sampling.packets)
    return [place for _, place in sample(((time, place) for place, time in enumerate(times)), sampling.fps)]


def spread(times: Sequence[float], count: int) -> list[int]:
    """Places of the frames that are on the screen in the middle of `count` equal parts of the time.

    It is how segment networks are tested (Wang et al., "Temporal Segment Networks", 2016), and unlike a line from the
    first frame to the last it does not spend two of few frames on a title and on black. Where frames are so rare that
    one would be taken twice, its neighbours are taken as well: always `count`, or all.
    """
    if count >= len(times):
        return list(range(len(times)))
    # the last frame is shown for as long as the others are on average
    return _in_the_middles(times, (times[-1] - times[0]) * len(times) / (len(times) - 1), count)


def spread_by_bytes(times: Sequence[float], sizes: Sequence[int], keyframes: Sequence[int], count: int) -> list[int]:
    """Places of the frames in which the middle of `count` equal parts of a video's bytes falls; always `count`, or all.

    An encoder spends bytes on what the frames before do not tell, so where much happens there are many frames, and the
    demuxer knows them without decoding. A keyframe's tell what the picture holds and not what has changed: it counts as
    the median of the others. Where there are no others time decides, as in `spread`.

    Args:
        times, sizes: seconds and bytes of every frame, in the order of showing.
        keyframes: places of those flagged as such.
    """
    keys = set(keyframes)
    others = [size for place, size in enumerate(sizes) if place not in keys]
    if count >= len(times) or not any(others):
        return spread(times, count)
    usual = median(others)
    told = [usual if place in keys else size for place, size in enumerate(sizes)]
    *before, total = accumulate(told, initial=0)
    return _in_the_middles(before, total, count)


def _in_the_middles(starts: Sequence[float], span: float, count: int) -> list[int]:
    """Of parts that begin at `starts`, ascending, those at the middles of `count` equal shares of `span`, each once."""
    chosen: list[int] = []
    for share in range(count):
        place = bisect_right(starts, starts[0] + (share + 0.5) * span / count + _TIE) - 1
        least, most = chosen[-1] + 1 if chosen else 0, len(starts) - count + share
        chosen.append(min(max(place, least), most))
    return chosen


def pick(frames: Iterator[tuple[float, Any]], targets: Sequence[float]) -> Iterator[tuple[float, Any]]:
    """Of (seconds, frame) in ascending order, for each target the first that is not before it; no more are asked for.

    Where the frame itself was lost, the next gives its place, behind the end the last one.
    """
    if not targets:
        return
    place = 0
    left: tuple[float, Any] | None = None
    for now in frames:
        left = now
        if now[0] >= targets[place] - _TIE:
            yield now
            left = None
            place += 1  # frames may share a time, so only those before this one are passed over
            while place < len(targets) and targets[place] < now[0] - _TIE:
                place += 1
            if place == len(targets):
                return
    if left is not None:
        yield left


def sample(frames: Iterator[tuple[float, Any]], fps: float | None) -> Iterator[tuple[float, Any]]:
    """Of (seconds, frame) in ascending order, those nearest to the times start + i / fps, in one pass.

    A frame is given once at most, so a video with fewer frames a second gives all of them. Of two equally near, the
    earlier is taken. `fps=None` gives every frame.
    """
    if fps is None:
        yield from frames
        return
    before: tuple[float, Any] | None = None
    start, number = 0.0, 0  # the next time to serve is start + number / fps
    given = True  # whether `before` has been given
    for now in frames:
        time = now[0]
        start = time if before is None else start
        middle = (before[0] + time) / 2 if before is not None else -math.inf
        if before is not None and start + number / fps <= middle + _TIE:
            if not given:
                yield before
            number = math.floor((middle + _TIE - start) * fps) + 1
        before, given = now, False
        if start + number / fps <= time + _TIE:
            yield now
            given = True
            number = math.floor((time + _TIE - start) * fps) + 1
