"""The log of a run: one JSON object a step."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

from entropy_vision.atomic import atomic_write

from .trackers import Tracker, TrackerName, open_tracker

METRICS = "metrics.jsonl"
"""Its name in the folder of the run."""


def read_metrics(run: str | Path) -> list[dict[str, float]]:
    """The run's metrics, one record a step."""
    by_step: dict[float, dict[str, float]] = {}
    path = Path(run) / METRICS
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            record = json.loads(line)
        except json.JSONDecodeError:  # a line torn by a kill; the step is done again on resume
            continue
        if isinstance(record, dict) and "step" in record:
            by_step[record["step"]] = record
    return [by_step[s] for s in sorted(by_step)]


def forget_after(run: Path, step: int) -> None:
    """Records behind the step that a run goes on from are those of steps that are lost, or of an abandoned run."""
    path = run / METRICS
    if path.exists():
        held = [record for record in read_metrics(run) if record["step"] <= step]
        atomic_write(path, "".join(f"{json.dumps(record)}\n" for record in held))


class Log:
    """Where a run's metrics go: its metrics.jsonl and, while the log is entered, its trackers."""

    def __init__(self, run: Path, trackers: Sequence[TrackerName], settings: Mapping[str, Any], step: int) -> None:
        """
        Args:
            settings: the recipe, as nested mappings.
            step: steps done.
        """
        self._run, self._names, self._settings, self._step = run, trackers, settings, step
        self._open: list[Tracker] = []
        self._closing = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as opened:  # where one does not open, those before it are closed
            for name in self._names:
                tracker = open_tracker(name, self._run, self._settings, self._step)
                opened.callback(tracker.close)
                self._open.append(tracker)
            self._closing = opened.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._open = []
        self._closing.close()

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """One record."""
        rounded = {name: round(value, 6) for name, value in metrics.items()}
        with (self._run / METRICS).open("a") as lines:
            lines.write(json.dumps({"step": step, **rounded}) + "\n")
        for tracker in self._open:
            tracker.log(step, rounded)
