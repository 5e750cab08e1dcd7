"""The log of a run: one JSON object a step."""

from __future__ import annotations

import json
from pathlib import Path

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
