"""The `watch` verb: a run in progress on one screen, read from its folder alone. Nothing here loads torch."""

from __future__ import annotations

import json
import math
import statistics
import sys
import time
import tomllib
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from entropy_vision.console import as_table
from entropy_vision.errors import InputError, InputReason, UsageError

from .metrics import METRICS, read_metrics

if TYPE_CHECKING:
    from entropy_vision.options import WatchOptions

_RECENT = 20  # steps
_BARS = "▁▂▃▄▅▆▇█"
_WIDTH = 24  # of a curve, in characters
_LINES = 14  # of a frame beside its metrics


def run_watch(options: WatchOptions) -> dict[str, Any]:
    """Show a run until it is done; gives its last frame, or with `json` the metrics of its last step.

    Raises:
        UsageError: there is no run.
        InputError: its config.toml is damaged.
    """
    if options.json:
        _settings(options.run)
        return dict(next(reversed(read_metrics(options.run)), {"step": 0}))
    frame = frame_of(options.run)
    if not options.once and sys.stderr.isatty():
        frame = _live(options, frame)
    return frame


def frame_of(run: Path) -> dict[str, Any]:
    """What there is to see of a run: a row a metric, where its seconds go, how far it is. Errors as `run_watch`."""
    settings, rows = _settings(run), read_metrics(run)
    steps = settings["steps"]
    seconds = [row["seconds"] for row in rows[-_RECENT:] if "seconds" in row]
    last = rows[-1] if rows else {"step": 0}
    done = bool(rows) and _graded(run, int(last["step"]))
    pace = statistics.median(seconds) if seconds else None
    return {
        "metrics": [_row(name, rows) for name in _names(last)],
        "seconds go to": _shares(rows[-_RECENT:], beside=bool(settings.get("data", {}).get("workers"))),
        "run": f"{run} ({settings.get('stage', '?')})",
        "step": f"{int(last['step'])} of {steps}{', done' if done else ''}",
        "seconds a step": pace,
        "GFLOP a second": last["flops"] / 1e9 / last["seconds"] if {"flops", "seconds"} <= last.keys() else None,
        "seconds left": None if pace is None or done else pace * (steps - last["step"]),
        "seconds since the last step": time.time() - (run / METRICS).stat().st_mtime if rows else None,
    }


def curve(values: Sequence[float], width: int = _WIDTH) -> str:
    """Finite values as bars between their least and greatest; more than `width` are averaged in `width` parts."""
    size = min(width, len(values))
    edges = [len(values) * i // size for i in range(size + 1)] if size else []
    means = [statistics.fmean(values[a:b]) for a, b in pairwise(edges)]
    low, high = (min(means), max(means)) if means else (0.0, 0.0)
    span = (high - low) or 1.0
    return "".join(_BARS[round((mean - low) / span * (len(_BARS) - 1))] for mean in means)


def _names(last: Mapping[str, float]) -> list[str]:
    """What rows there are, the headline first; time and place in the run are told elsewhere."""
    named = [n for n in last if n not in ("step", "cpu_seconds") and not n.startswith("seconds")]
    return sorted(named, key=lambda n: ("reward", "loss").index(n) if n in ("reward", "loss") else 2)


def _row(name: str, rows: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    values = [float(row[name]) for row in rows if name in row]
    finite = [value for value in values if math.isfinite(value)]
    return {
        "metric": name,
        "last": values[-1],
        f"mean of {_RECENT}": statistics.fmean(values[-_RECENT:]),
        "least": min(finite, default=math.nan),
        "greatest": max(finite, default=math.nan),
        "since the start": curve(finite),
    }


def _shares(rows: Sequence[Mapping[str, float]], beside: bool) -> str:
    """Parts of a step by their share of its seconds, the largest first; `beside` workers choose patches meanwhile."""
    parts: dict[str, float] = {}
    for row in rows:
        for name, value in row.items():
            if name.startswith("seconds_") and not (beside and name == "seconds_select"):
                parts[name.removeprefix("seconds_")] = parts.get(name.removeprefix("seconds_"), 0.0) + value
    whole = sum(parts.values()) or 1.0
    largest = sorted(parts.items(), key=lambda part: -part[1])
    return ", ".join(f"{name} {value / whole:.0%}" for name, value in largest if value / whole >= 0.005)


def _settings(run: Path) -> dict[str, Any]:
    path = run / "config.toml"
    if not path.is_file():
        raise UsageError(f"{run} holds no run (no config.toml): name the folder that a recipe calls out")
    try:
        settings = tomllib.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(path, InputReason.UNREADABLE, f"not TOML: {error}") from error
    if not isinstance(settings.get("steps"), int):
        raise InputError(path, InputReason.UNREADABLE, "it does not say how many steps the run has")
    return settings


def _graded(run: Path, step: int) -> bool:
    """Whether a run has measured its result at a step: the last thing it does, early where its gate ended it."""
    try:
        state = json.loads((run / f"step-{step:06d}" / "state.json").read_text())
    except FileNotFoundError:  # not saved yet, or no longer kept
        return False
    return bool(state.get("graded") == step)


def _live(options: WatchOptions, frame: dict[str, Any]) -> dict[str, Any]:
    from rich.console import Console, Group
    from rich.live import Live
    from rich.progress_bar import ProgressBar
    from rich.text import Text

    console = Console(stderr=True)

    def drawn(frame: dict[str, Any]) -> Group:
        done, _, steps = frame["step"].split(",")[0].partition(" of ")
        shown = frame | {"metrics": frame["metrics"][: max(1, console.height - _LINES)]}
        return Group(ProgressBar(total=float(steps), completed=float(done)), Text(as_table(shown), no_wrap=True))

    with Live(drawn(frame), console=console, screen=True, auto_refresh=False) as live:
        while not frame["step"].endswith("done"):
            time.sleep(options.every)
            frame = frame_of(options.run)
            live.update(drawn(frame), refresh=True)
    return frame
