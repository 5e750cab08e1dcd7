"""Line charts as inline SVG: small, sharp at any size, coloured by the page's own light and dark styles.

Hand-made because a chart is some 2 kB this way, follows the reader's colour scheme and needs no font.
"""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

WIDTH, HEIGHT = 480, 310
SMALL_WIDTH, SMALL_HEIGHT = 320, 230
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 12, 38, 44


@dataclass(frozen=True, kw_only=True)
class Mark:
    """A measured point: where, its interval (low, high), and the words shown when it is pointed at."""

    x: float
    y: float
    low: float | None = None
    high: float | None = None
    words: str = ""


@dataclass(frozen=True, kw_only=True)
class Line:
    """A named series. `style`: the number of its colour, 0 is the accent. `dots` draws the measured points."""

    name: str
    marks: Sequence[Mark]
    style: int = 0
    dots: bool = True
    faint: bool = False


@dataclass(frozen=True, kw_only=True)
class Level:
    """A line across the whole chart with its interval as a band."""

    name: str
    y: float
    low: float | None = None
    high: float | None = None


def ticks(low: float, high: float, count: int = 5, *, whole: bool = False) -> list[float]:
    """Round numbers from low to high, about `count` of them: steps of 1, 2 or 5 times a power of ten, or `whole`."""
    span = max(high - low, 1e-12)
    step = 10.0 ** math.floor(math.log10(span / count))
    step *= next(factor for factor in (1, 2, 5, 10) if span / (step * factor) <= count)
    step = max(step, 1.0) if whole else step
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 12) for i in range(first, math.floor(high / step + 1e-9) + 1)]


def number(value: float) -> str:
    """A number as a reader wants it: 1,234 · 12.3 k · 4.56 M · 0.123."""
    if value == 0:
        return "0"
    for limit, unit in ((1e15, " P"), (1e12, " T"), (1e9, " G"), (1e6, " M"), (1e4, " k")):
        if abs(value) >= limit:
            return f"{value / (1e3 if limit == 1e4 else limit):.3g}{unit}"
    if abs(value) >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.3g}"


def tick_texts(values: Sequence[float]) -> list[str]:
    """The numbers of an axis, with as many digits as it takes to tell neighbours apart."""
    texts = [number(value) for value in values]
    if len(set(texts)) == len(texts):
        return texts
    step = min(abs(b - a) for a, b in pairwise(values))
    return [f"{value:.{max(0, math.ceil(-math.log10(step)))}f}" for value in values]


class _Scale:
    """Data to chart coordinates, linear or by powers of two."""

    def __init__(self, low: float, high: float, start: float, end: float, log: bool = False) -> None:
        self.log = log
        self.low, self.high = (math.log2(low), math.log2(high)) if log else (low, high)
        if self.high <= self.low:
            self.low, self.high = self.low - 0.5, self.high + 0.5
        self.start, self.end = start, end

    def __call__(self, value: float) -> float:
        at = ((math.log2(value) if self.log else value) - self.low) / (self.high - self.low)
        return self.start + at * (self.end - self.start)


def line_chart(
    lines: Sequence[Line],
    *,
    x_label: str,
    y_label: str,
    levels: Sequence[Level] = (),
    y_range: tuple[float, float] | None = None,
    log_x: bool = False,
    percent: bool = False,
    small: bool = False,
    described: str = "",
) -> str:
    """A chart of some lines over one axis.

    Args:
        lines: series; with `log_x` every x must be above 0.
        x_label, y_label: with their units.
        levels: lines across.
        y_range: fixed ends of the y axis; from the data where None.
        log_x: a step of the x axis doubles; the ticks are the measured x themselves.
        percent: y is a share and is written in per cent.
        small: a drawing for a narrow panel: 320 units wide in place of 480.
        described: what the chart says, for those who cannot see it.

    Returns:
        an <svg> element; "" where there is no point to draw.
    """
    marks = [mark for line in lines for mark in line.marks]
    if not marks:
        return ""
    width, height = (SMALL_WIDTH, SMALL_HEIGHT) if small else (WIDTH, HEIGHT)
    xs = [mark.x for mark in marks]
    low, high = y_range or _range([*_ys(marks), *_ys(levels)], percent)
    to_x = _Scale(min(xs), max(xs), _LEFT + 14, width - _RIGHT - 14, log_x)
    to_y = _Scale(low, high, height - _BOTTOM, _TOP)
    parts = _grid(to_y, ticks(low, high, 4), width, percent)
    whole = all(x == int(x) for x in xs)
    parts += _footing(to_x, sorted(set(xs)) if log_x else ticks(min(xs), max(xs), whole=whole), width, height)
    parts.append(f'<text class="axis" x="0" y="12">{html.escape(y_label)}</text>')
    middle = (_LEFT + width - _RIGHT) / 2
    parts.append(f'<text class="axis" x="{middle}" y="{height - 6}" text-anchor="middle">{html.escape(x_label)}</text>')
    parts += [_level(level, to_y, width, i, percent) for i, level in enumerate(levels)]
    parts += [_line(line, to_x, to_y) for line in reversed(lines)]  # the first line lies on top
    label = html.escape(described or f"{y_label} against {x_label}")
    kind = "chart small" if small else "chart"
    return f'<svg class="{kind}" viewBox="0 0 {width} {height}" role="img" aria-label="{label}">{"".join(parts)}</svg>'


def _ys(things: Sequence[Mark] | Sequence[Level]) -> list[float]:
    return [one for thing in things for one in (thing.y, thing.low, thing.high) if one is not None]


def _range(values: Sequence[float], percent: bool) -> tuple[float, float]:
    low, high = min(values), max(values)
    pad = 0.06 * (high - low) or max(abs(high) * 0.1, 0.05)
    low, high = low - pad, high + pad
    if percent:
        return max(0.0, math.floor(low * 10) / 10), min(1.0, math.ceil(high * 10) / 10)
    return (max(0.0, low) if min(values) >= 0 else low), high


def _grid(to_y: _Scale, values: Sequence[float], width: int, percent: bool) -> list[str]:
    parts = []
    texts = [f"{100 * value:.0f} %" for value in values] if percent else tick_texts(values)
    for value, text in zip(values, texts, strict=True):
        y = to_y(value)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{width - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{text}</text>')
    return parts


def _footing(to_x: _Scale, values: Sequence[float], width: int, height: int) -> list[str]:
    parts, taken = [], -math.inf
    for value, text in zip(values, tick_texts(values), strict=True):
        x = to_x(value)
        if x - taken >= 44:  # labels must not touch
            parts.append(f'<text x="{x:.1f}" y="{height - 26}" text-anchor="middle">{text}</text>')
            taken = x
    return parts


def _level(level: Level, to_y: _Scale, width: int, index: int, percent: bool) -> str:
    y, band = to_y(level.y), ""
    if level.low is not None and level.high is not None:
        top, bottom = to_y(level.high), to_y(level.low)
        band = (
            f'<rect class="band" x="{_LEFT}" width="{width - _RIGHT - _LEFT}" '
            f'y="{top:.1f}" height="{max(bottom - top, 0):.1f}"/>'
        )
    value = f"{100 * level.y:.0f} %" if percent else number(level.y)
    # in the middle, where points are fewest: they stand at both ends of an axis
    anchor, x = ("middle", (_LEFT + width - _RIGHT) / 2) if index % 2 == 0 else ("start", _LEFT + 4)
    return (
        f'{band}<line class="level" x1="{_LEFT}" x2="{width - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        f'<text class="name" x="{x}" y="{y - 5:.1f}" text-anchor="{anchor}">{html.escape(level.name)} {value}</text>'
    )


def _line(line: Line, to_x: _Scale, to_y: _Scale) -> str:
    kind = f"s{line.style % 6}" + (" faint" if line.faint else "")
    points = " ".join(f"{to_x(mark.x):.1f},{to_y(mark.y):.1f}" for mark in line.marks)
    parts = [f'<polyline points="{points}"/>'] if len(line.marks) > 1 else []
    for mark in line.marks if line.dots else ():
        x, y = to_x(mark.x), to_y(mark.y)
        if mark.low is not None and mark.high is not None:
            low, high = to_y(mark.low), to_y(mark.high)
            drawn = f"M{x:.1f} {low:.1f}V{high:.1f}M{x - 4:.1f} {low:.1f}h8M{x - 4:.1f} {high:.1f}h8"
            parts.append(f'<path class="bar" d="{drawn}"/>')
        words = f"<title>{html.escape(mark.words)}</title>" if mark.words else ""
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4">{words}</circle>')
    return f'<g class="{kind}">{"".join(parts)}</g>'


def legend(lines: Sequence[Line]) -> str:
    """The names of the lines behind their colours."""
    items = "".join(f'<li class="s{line.style % 6}">{html.escape(line.name)}</li>' for line in lines)
    return f'<ul class="legend">{items}</ul>'


def bars(counts: Sequence[int], label: str) -> str:
    """Kept patches of every frame as small bars, one group a frame so that the page can mark the current one."""
    top, step = max([*counts, 1]), 100.0 / max(len(counts), 1)
    width = step * (0.78 if len(counts) < 120 else 1.0)
    rects = "".join(
        f'<rect x="{i * step + (step - width) / 2:.3f}" width="{width:.3f}" '
        f'y="{30 - 30 * count / top:.2f}" height="{30 * count / top:.2f}"/>'
        for i, count in enumerate(counts)
    )
    return (
        f'<svg class="spark" viewBox="0 0 100 30" preserveAspectRatio="none" role="img" '
        f'aria-label="{html.escape(label)}">{rects}</svg>'
    )
