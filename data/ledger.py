"""Every input is accounted for: written, there already, or failed with a reason."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from entropy_vision.atomic import atomic_write
from entropy_vision.errors import InputError, InputReason

from .archive import canonical


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one input.

    Attributes:
        source: its path.
        status: "written", "resumed" (it was in a shard before this run) or "failed".
        sha256: of its content; "" where it could not be read.
        tokens_total, tokens_kept: patches of its grid, and those kept; 0 where it failed.
        reason, detail: why it failed.
    """

    source: str
    status: str
    sha256: str = ""
    tokens_total: int = 0
    tokens_kept: int = 0
    reason: InputReason | None = None
    detail: str = ""


def failed(source: Path, error: InputError, sha256: str = "") -> Outcome:
    """The outcome of an input that cannot be used."""
    return Outcome(source=str(source), status="failed", sha256=sha256, reason=error.reason, detail=error.detail)


class Ledger:
    """Outcomes by the number of their input."""

    def __init__(self, inputs: int) -> None:
        self.inputs = inputs
        self.rows: dict[int, Outcome] = {}

    def put(self, index: int, outcome: Outcome) -> None:
        """Enter an outcome; each input has exactly one."""
        if index in self.rows or not 0 <= index < self.inputs:
            raise RuntimeError(f"input {index} of {self.inputs} is entered twice or does not exist")
        self.rows[index] = outcome

    def counts(self) -> dict[str, int]:
        """{"inputs", "written", "resumed", "failed", "tokens_total", "tokens_kept"} so far."""
        status = Counter(row.status for row in self.rows.values())
        return {
            "inputs": self.inputs,
            "written": status["written"],
            "resumed": status["resumed"],
            "failed": status["failed"],
            "tokens_total": sum(row.tokens_total for row in self.rows.values()),
            "tokens_kept": sum(row.tokens_kept for row in self.rows.values()),
        }

    def reasons(self) -> dict[str, int]:
        """{reason: number of failed inputs}, the most frequent first."""
        return dict(Counter(str(row.reason) for row in self.rows.values() if row.reason).most_common())

    def close(self) -> dict[str, int]:
        """The counts of a finished run: every input must have its outcome."""
        counts = self.counts()
        if counts["inputs"] != counts["written"] + counts["resumed"] + counts["failed"]:
            raise RuntimeError(f"inputs are unaccounted for: {counts}")
        return counts

    def write_errors(self, path: Path) -> None:
        """Write the failures, a JSON object a line, in the order of the inputs."""
        rows: list[dict[str, Any]] = [
            {"source": row.source, "sha256": row.sha256, "reason": str(row.reason), "detail": row.detail}
            for _, row in sorted(self.rows.items())
            if row.status == "failed"
        ]
        atomic_write(path, "".join(canonical(row) + "\n" for row in rows))
