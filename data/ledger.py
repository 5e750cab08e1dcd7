"""Every input is accounted for: done or failed with a reason, a row each.

out/inputs/000000.parquet   the inputs of chunk 0, written when all of them are settled, and last of all it makes
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from entropy_vision.atomic import atomic_write

from .archive import canonical
from .paths import listed
from .tables import read_rows, write_rows

SUPERSEDED = "superseded"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one input; the columns of the tables.

    Attributes:
        source: its name, `Source.name`.
        status: "done" or "failed"; or SUPERSEDED, where the file holds something else now and this is its old sample.
        key: of its sample.
        shard: the file its sample is in; "" where it failed.
        chunk: which one it belongs to.
        digest: what its content was known by when it was planned.
        sha256: of its content; "" where it could not be read.
        bytes: its size; 0 where there was no such file.
        frames, tokens_total, tokens_kept: frames taken, patches of its grid and those kept; 0 where it failed.
        reason, detail: why it failed; "" where it did not.
    """

    source: str
    status: str
    key: str
    shard: str = ""
    chunk: int
    digest: str
    sha256: str = ""
    bytes: int = 0
    frames: int = 0
    tokens_total: int = 0
    tokens_kept: int = 0
    reason: str = ""
    detail: str = ""


class Ledger:
    """Outcomes by the name of their input: each has exactly one."""

    def __init__(self, names: Iterable[str]) -> None:
        self.names = set(names)
        self.rows: dict[str, Outcome] = {}
        self.resumed = 0  # done before this run

    def put(self, outcome: Outcome, *, resumed: bool = False) -> None:
        """Enter an outcome."""
        if outcome.source in self.rows or outcome.source not in self.names:
            raise RuntimeError(f"{outcome.source} is entered twice or was never announced")
        self.rows[outcome.source] = outcome
        self.resumed += resumed and outcome.status == "done"

    def counts(self) -> dict[str, int]:
        """{"inputs", "written", "resumed", "failed", "tokens_total", "tokens_kept"} so far."""
        status = Counter(row.status for row in self.rows.values())
        return {
            "inputs": len(self.names),
            "written": status["done"] - self.resumed,
            "resumed": self.resumed,
            "failed": status["failed"],
            "tokens_total": sum(row.tokens_total for row in self.rows.values()),
            "tokens_kept": sum(row.tokens_kept for row in self.rows.values()),
        }

    def reasons(self) -> dict[str, int]:
        """{reason: number of failed inputs}, the most frequent first."""
        return dict(Counter(row.reason for row in self.rows.values() if row.reason).most_common())

    def close(self) -> dict[str, int]:
        """The counts of a finished run: every input must have its outcome."""
        counts = self.counts()
        if counts["inputs"] != counts["written"] + counts["resumed"] + counts["failed"]:
            raise RuntimeError(f"inputs are unaccounted for: {counts}")
        return counts


def table_path(out: Path, chunk: int) -> Path:
    """The table of a chunk."""
    return out / "inputs" / f"{chunk:06d}.parquet"


def write_table(out: Path, chunk: int, rows: Sequence[Outcome]) -> None:
    """Write the table of a chunk; it is finished then."""
    write_rows(table_path(out, chunk), _KINDS, [vars(row) for row in rows])


def read_tables(out: Path) -> dict[int, list[Outcome]]:
    """{chunk: its rows} of every finished chunk, in order.

    A table that another rank takes away meanwhile, because a shard of its chunk is lost, is none.
    """
    tables = {}
    for number, path in sorted((int(path.stem), path) for path in listed(out / "inputs", "[0-9]*.parquet")):
        with suppress(FileNotFoundError):
            tables[number] = [Outcome(**row) for row in read_rows(path)]
    return tables


def write_errors(path: Path, rows: Iterable[Outcome]) -> None:
    """Write the failures among the rows, a JSON object a line."""
    told: list[dict[str, Any]] = [
        {"source": row.source, "sha256": row.sha256, "reason": row.reason, "detail": row.detail}
        for row in rows
        if row.status == "failed"
    ]
    atomic_write(path, "".join(canonical(row) + "\n" for row in told))


_KINDS = {one.name: {"int": "int64", "str": "string"}[str(one.type)] for one in fields(Outcome)}
