"""A Report as one HTML page: sections, escaping, the content policy."""

from __future__ import annotations

import base64
import hashlib
import html
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import TYPE_CHECKING, Literal

from entropy_vision.charts import Level, Line, Mark, legend, line_chart, number
from entropy_vision.storyboard import story_section

if TYPE_CHECKING:
    from entropy_vision.report import AccuracyRow, CurvePoint, Headline, Picture, Report, Sample

STORY_BYTES = 2_300_000  # of all stories together; the page stays below 3 MB whatever it shows
_UNITS = {
    "reward": "reward, mean a completion",
    "kl": "KL to the reference, nats",
    "entropy": "policy entropy, nats",
    "length": "completion length, tokens",
    "loss": "loss",
    "accuracy": "accuracy",
    "format": "well-formed completions",
}
_SHARES = ("accuracy", "format", "fraction", "share", "truncated")


def render(report: Report) -> str:
    """The page as one string of HTML."""
    style, script = _asset("report.css"), _asset("report.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    # only the page's own script may run: text that slipped through escaping could still do nothing
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    body = "".join(
        [
            f"<h1>{escape(report.title)}</h1>",
            f'<p class="lead">{escape(report.lead)}</p>' if report.lead else "",
            _headlines(report.headlines),
            _stories(report),
            _accuracy(report.accuracy, report.accuracy_note),
            _curves(report.curve, report.curve_note),
            _samples(report.samples, report.samples_note),
            *(_picture(one) for one in report.pictures),
            *(_section(one.title, one.note, _table(one.head, one.rows)) for one in report.tables if one.rows),
            _settings(report.settings, report.command),
        ]
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(report.title)}</title><style>{style}</style></head><body><main>{body}"
        "<footer>Made by entropy-vision. The page holds everything it shows and asks no network for anything.</footer>"
        f"</main><script>{script}</script></body></html>\n"
    )


def escape(text: object) -> str:
    """Text that came from anywhere, safe between tags and inside quotes."""
    return html.escape(str(text), quote=True)


def _asset(name: str) -> str:
    return (files("entropy_vision") / "assets" / name).read_text(encoding="utf-8")


def _section(title: str, note: str, inner: str) -> str:
    about = f'<p class="note">{escape(note)}</p>' if note else ""
    return f"<section><h2>{escape(title)}</h2>{about}{inner}</section>"


def _headlines(headlines: Sequence[Headline]) -> str:
    if not headlines:
        return ""
    cells = "".join(
        f'<div><dt>{escape(one.label)}</dt><dd class="value">{escape(one.value)}</dd>'
        f'<dd class="about">{escape(one.note)}</dd></div>'
        for one in headlines
    )
    columns = len(headlines) if len(headlines) <= 5 else -(-len(headlines) // 2)
    return f'<dl class="headlines" style="--columns:{columns}">{cells}</dl>'


def _stories(report: Report) -> str:
    if not report.stories:
        return ""
    share = STORY_BYTES // len(report.stories)
    note = (
        "The score of a patch is the number of bits it takes to describe it, given what was already shown. "
        "Bright costs many bits; dark can be predicted from what was seen before. A small part of the budget "
        "goes to evenly spread places that would never be shown."
    )
    return _section("What is kept, and why", note, "".join(story_section(story, share) for story in report.stories))


def _accuracy(rows: Sequence[AccuracyRow], note: str) -> str:
    if not rows:
        return ""
    measured = [row for row in rows if row.accuracy is not None]
    charts = _accuracy_chart(measured, "tokens") + _accuracy_chart(measured, "seconds")
    title = "Accuracy against tokens and time" if charts else "What each selection costs"
    return _section(title, note, (f'<div class="charts">{charts}</div>' if charts else "") + _accuracy_table(rows))


def _accuracy_chart(rows: Sequence[AccuracyRow], over: Literal["tokens", "seconds"]) -> str:
    across = {"blind", "dense"}

    def across_of(row: AccuracyRow) -> float:
        return row.tokens if over == "tokens" else 1000 * row.seconds

    names = list(dict.fromkeys(row.selector for row in rows if row.selector not in across))
    lines = [
        Line(
            name=name,
            style=style,
            marks=[
                Mark(x=across_of(row), y=row.accuracy or 0.0, low=row.low, high=row.high, words=_words(row))
                for row in sorted(rows, key=across_of)
                if row.selector == name and across_of(row) > 0
            ],
        )
        for style, name in enumerate(names)
    ]
    if not any(line.marks for line in lines):
        return ""
    levels = [
        Level(name=row.selector, y=row.accuracy or 0.0, low=row.low, high=row.high)
        for row in sorted(rows, key=lambda row: row.selector)
        if row.selector in across
    ]
    dense = [row for row in rows if row.keep == 1.0]
    if dense and not any(row.selector == "dense" for row in rows):
        levels.append(Level(name="dense", y=dense[0].accuracy or 0.0))
    counts = sorted({row.n for row in rows})
    asked = f"n = {counts[0]:,}" if len(counts) == 1 else f"n = {counts[0]:,} to {counts[-1]:,}"
    chart = line_chart(
        lines,
        x_label="visual tokens a question" if over == "tokens" else "milliseconds a question, selection included",
        y_label=f"accuracy, 95 % interval, {asked}",
        levels=levels,
        log_x=True,
        percent=True,
        described=f"accuracy of each selector against {over}; the numbers stand in the table below",
    )
    return f'<div class="panel">{legend(lines)}{chart}</div>'


def _words(row: AccuracyRow) -> str:
    interval = f" ({100 * row.low:.0f} to {100 * row.high:.0f})" if row.low is not None and row.high is not None else ""
    return (
        f"{row.selector}, keep {row.keep:g}: {100 * (row.accuracy or 0):.1f} %{interval}, "
        f"{number(row.tokens)} tokens, n = {row.n:,}"
    )


def _accuracy_table(rows: Sequence[AccuracyRow]) -> str:
    dense = next((row for row in rows if row.selector == "dense"), None)
    dense = dense or next((row for row in rows if row.keep == 1.0), None)
    measured = any(row.accuracy is not None for row in rows)
    head = ["selector", "keep", "tokens", *(["accuracy", "95 % interval", "n"] if measured else []), "FLOPs", "seconds"]
    head += ["FLOPs saved", "time saved"] if dense else []
    lines = []
    for row in rows:
        cells = [row.selector, f"{row.keep:g}" if row.keep else "", number(row.tokens)]
        if measured:
            cells.append("" if row.accuracy is None else f"{100 * row.accuracy:.1f} %")
            interval = row.low is not None and row.high is not None
            cells.append(f"{100 * (row.low or 0):.1f} to {100 * (row.high or 0):.1f}" if interval else "")
            cells.append(f"{row.n:,}" if row.n else "")
        cells += [number(row.flops) if row.flops else "", f"{row.seconds:.3g}" if row.seconds else ""]
        if dense and row.keep:
            cells += [_times(dense.flops, row.flops), _times(dense.seconds, row.seconds)]
        lines.append(cells + [""] * (len(head) - len(cells)))
    return _table(head, lines)


def _times(dense: float, kept: float) -> str:
    return f"{dense / kept:.2g}x" if dense and kept else ""


def _table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    def row(cells: Sequence[str], tag: str) -> str:
        inner = "".join(f"<{tag}{' class=n' if i else ''}>{escape(cell)}</{tag}>" for i, cell in enumerate(cells))
        return f"<tr>{inner}</tr>"

    body = "".join(row(line, "td") for line in lines)
    return f'<div class="wide"><table><thead>{row(head, "th")}</thead><tbody>{body}</tbody></table></div>'


def _curves(curve: Sequence[CurvePoint], note: str) -> str:
    names = list(dict.fromkeys(name for point in curve for name in point.values))
    if not names:
        return ""
    first_two = ("reward", "accuracy")
    names.sort(
        key=lambda name: first_two.index(name) if name in first_two else 2
    )  # stable: the others keep their order
    panels = []
    for index, name in enumerate(names):
        marks = [Mark(x=point.step, y=point.values[name]) for point in curve if name in point.values]
        chart = _curve_chart(name, marks, index < 2)
        panels.append(f'<div class="panel"><h3>{escape(name.replace("_", " "))}</h3>{chart}</div>')
    first, rest = "".join(panels[:2]), "".join(panels[2:])
    charts = f'<div class="charts">{first}</div>' + (f'<div class="charts small">{rest}</div>' if rest else "")
    return _section("What was learned", note, charts)


def _curve_chart(name: str, marks: Sequence[Mark], large: bool) -> str:
    smooth = len(marks) >= 24
    lines = [Line(name=name, marks=marks, dots=not smooth, faint=smooth)]
    if smooth:
        lines.insert(0, Line(name="running mean", marks=running_mean(marks), dots=False))
    unit = next((unit for key, unit in _UNITS.items() if name.startswith(key)), name.replace("_", " "))
    return line_chart(
        lines,
        x_label="training step" + (f" (bold: mean of {_window(len(marks))} steps)" if smooth and large else ""),
        y_label=unit,
        percent=name.startswith(_SHARES),
        small=not large,
        described=f"{unit} against training steps, from {number(marks[0].y)} to {number(marks[-1].y)}",
    )


def _window(count: int) -> int:
    return max(3, count // 12) | 1


def running_mean(marks: Sequence[Mark]) -> list[Mark]:
    """The mean over a centred window of about a twelfth of the points, shorter at both ends."""
    half = _window(len(marks)) // 2
    ends = range(len(marks))
    windows = [marks[max(0, i - half) : i + half + 1] for i in ends]
    return [Mark(x=marks[i].x, y=sum(mark.y for mark in windows[i]) / len(windows[i])) for i in ends]


def _samples(samples: Sequence[Sample], note: str) -> str:
    if not samples:
        return ""
    cards = "".join(
        f'<div class="sample"><p class="asks">{escape(one.question)}</p><p class="gold">truth: {escape(one.answer)}</p>'
        f'<div class="pair"><div><small>before{_verdict(one.right_before)}</small><pre>{escape(one.before)}</pre></div>'
        f"<div><small>after{_verdict(one.right_after)}</small><pre>{escape(one.after)}</pre></div></div></div>"
        for one in samples
    )
    return _section("In its own words", escape(note), f'<div class="samples">{cards}</div>')


def _verdict(right: bool | None) -> str:
    if right is None:
        return ""
    return ' · <span class="right">right</span>' if right else ' · <span class="wrong">wrong</span>'


def _picture(picture: Picture) -> str:
    data = base64.b64encode(picture.png).decode()
    drawn = f'<img class="drawn" alt="{escape(picture.described)}" src="data:image/png;base64,{data}">'
    return _section(picture.title, picture.note, drawn)


def _settings(settings: Mapping[str, object], command: str) -> str:
    if not settings and not command:
        return ""
    rows = "".join(
        f"<tr><td>{escape(name)}</td><td><code>{escape(value)}</code></td></tr>" for name, value in _flat(settings)
    )
    table = f'<div class="wide"><table><tbody>{rows}</tbody></table></div>' if rows else ""
    line = f'<pre class="command">$ {escape(command)}</pre>' if command else ""
    return _section("How it was made", "", line + table)


def _flat(settings: Mapping[str, object], path: str = "") -> list[tuple[str, object]]:
    rows: list[tuple[str, object]] = []
    for name, value in settings.items():
        rows += _flat(value, f"{path}{name}.") if isinstance(value, Mapping) else [(f"{path}{name}", value)]
    return rows
