"""Every input is accounted for: written, there already, or failed with a reason."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Mapping
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
        key: of its sample; "" where it has none.
        status: "written", "resumed" (it was in a shard before this run) or "failed".
        sha256: of its content; "" where it could not be read.
        tokens_total, tokens_kept: patches of its grid, and those kept; 0 where it failed.
        reason, detail: why it failed.
    """

    source: str
    status: str
    key: str = ""
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

    def write_table(self, path: Path, shards: Mapping[str, str]) -> None:
        """Write a row for every input, in their order, as Parquet.

        Columns: source, status ("done" or "failed"), key, shard, sha256, tokens_total, tokens_kept, reason, detail. A
        run that was stopped and resumed writes what one in a single piece does.

        Args:
            shards: {key: the shard its sample is in}.
        """
        import pyarrow
        from pyarrow import parquet

        rows = [row for _, row in sorted(self.rows.items())]
        text = {
            "source": [row.source for row in rows],
            "status": ["failed" if row.status == "failed" else "done" for row in rows],
            "key": [row.key for row in rows],
            "shard": [shards.get(row.key, "") for row in rows],
            "sha256": [row.sha256 for row in rows],
        }
        tokens = {name: [getattr(row, name) for row in rows] for name in ("tokens_total", "tokens_kept")}
        why = {"reason": [str(row.reason or "") for row in rows], "detail": [row.detail for row in rows]}
        table = pyarrow.table(
            {name: pyarrow.array(values, pyarrow.string()) for name, values in text.items()}
            | {name: pyarrow.array(values, pyarrow.int64()) for name, values in tokens.items()}
            | {name: pyarrow.array(values, pyarrow.string()) for name, values in why.items()}
        )
        buffer = io.BytesIO()
        parquet.write_table(table, buffer, compression="zstd")
        atomic_write(path, buffer.getvalue())

    def write_errors(self, path: Path) -> None:
        """Write the failures, a JSON object a line, in the order of the inputs."""
        rows: list[dict[str, Any]] = [
            {"source": row.source, "sha256": row.sha256, "reason": str(row.reason), "detail": row.detail}
            for _, row in sorted(self.rows.items())
            if row.status == "failed"
        ]
        atomic_write(path, "".join(canonical(row) + "\n" for row in rows))
