"""Samples that finish in any order become the shards and the table of their chunk."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from entropy_vision.atomic import sweep

from .archive import marker_path, tars, write_shard
from .ledger import Ledger, Outcome, write_table
from .plan import Entry
from .source import bytes_digest


@dataclass
class _Chunk:
    """A chunk in the making: notes and outcomes by the place of their entry."""

    number: int
    entries: Sequence[Entry]
    notes: dict[int, dict[str, Any]] = field(default_factory=dict)
    failed: dict[int, Outcome] = field(default_factory=dict)

    @property
    def settled(self) -> bool:
        return len(self.notes) + len(self.failed) == len(self.entries)


class Assembly:
    """Collects the samples of chunks, and closes a chunk as soon as each of its inputs is settled.

    Args:
        out: where shards and tables go.
        staging: where samples wait for their chunk, in a folder for each.
        mark: of the settings; samples that wait and bear another are made again.
    """

    def __init__(
        self, out: Path, staging: Path, mark: str, ledger: Ledger, shard_samples: int, shard_bytes: int
    ) -> None:
        self.out, self.staging, self.mark, self.ledger = out, staging, mark, ledger
        self.shard_samples, self.shard_bytes = shard_samples, shard_bytes
        self.open: dict[int, _Chunk] = {}
        self.tasks: dict[int, tuple[_Chunk, int, dict[str, Any]]] = {}  # given out, no reply yet
        self.given = 0

    @property
    def waiting(self) -> int:
        """Finished samples that wait for their chunk."""
        return sum(len(chunk.notes) for chunk in self.open.values())

    def begin(self, number: int, entries: Sequence[Entry]) -> Iterator[dict[str, Any] | None]:
        """A task for every input of a chunk; None for one whose sample an earlier run has left whole."""
        folder = self.staging / f"{number:06d}"
        folder.mkdir(exist_ok=True)
        sweep(folder)
        chunk = self.open[number] = _Chunk(number, entries)
        for place, entry in enumerate(entries):
            index, self.given = self.given, self.given + 1
            task = {
                "index": index,
                "source": vars(entry.source),
                "name": entry.source.name,
                "key": entry.key,
                "digest": entry.digest,
                "part": str(folder / f"{entry.key}.part"),
                "note": str(folder / f"{entry.key}.note"),
            }
            note = _note(task, self.mark)
            if note is None:
                self.tasks[index] = chunk, place, task
                yield task
            else:
                chunk.notes[place] = note
                yield None
        self._close_if_settled(chunk)

    def reply(self, reply: dict[str, Any]) -> dict[str, Any] | None:
        """A worker is done with an input; what the marker will say of its sample, None where it failed."""
        chunk, place, task = self.tasks.pop(reply["index"])
        entry = chunk.entries[place]
        if "reason" in reply:
            chunk.failed[place] = _outcome(entry, status="failed", reason=reply["reason"], detail=reply["detail"])
        else:
            note = _note(task)
            if note is None:
                raise RuntimeError(f"a worker said that {entry.source.name} is done, but left no sample")
            chunk.notes[place] = note
        line: dict[str, Any] | None = chunk.notes[place]["line"] if place in chunk.notes else None
        self._close_if_settled(chunk)
        return line

    def _close_if_settled(self, chunk: _Chunk) -> None:
        if not chunk.settled or chunk.number not in self.open:
            return
        for old in tars(self.out, chunk.number):  # of a run that was stopped while it wrote them, or that were damaged
            marker_path(old).unlink(missing_ok=True)
            old.unlink(missing_ok=True)
        rows = dict(chunk.failed)
        for part, places in enumerate(self._cut(chunk)):
            notes = [chunk.notes[place] for place in places]
            lines = [note["line"] for note in notes]
            name = write_shard(self.out, chunk.number, _contents(notes), lines, part).shard
            rows |= {place: _done(chunk.entries[place], name, chunk.notes[place]) for place in places}
        ordered = [rows[place] for place in range(len(chunk.entries))]
        write_table(self.out, chunk.number, ordered)
        for row in ordered:
            self.ledger.put(row)
        del self.open[chunk.number]
        shutil.rmtree(self.staging / f"{chunk.number:06d}")

    def _cut(self, chunk: _Chunk) -> Iterator[list[int]]:
        """The places of the samples of each shard."""
        batch: list[int] = []
        filled = 0
        for place in sorted(chunk.notes):
            size = chunk.notes[place]["bytes"]
            if batch and (len(batch) >= self.shard_samples or filled + size > self.shard_bytes):
                yield batch
                batch, filled = [], 0
            batch.append(place)
            filled += size
        if batch:
            yield batch


def _outcome(entry: Entry, **more: Any) -> Outcome:
    about = {"source": entry.source.name, "key": entry.key, "chunk": entry.chunk, "digest": entry.digest}
    about["bytes"] = max(0, entry.source.size)
    return Outcome(**{"sha256": "" if "://" in entry.source.path else entry.digest, **about, **more})


def _done(entry: Entry, shard: str, note: dict[str, Any]) -> Outcome:
    line = note["line"]
    told = {name: line[name] for name in ("sha256", "frames", "tokens_total", "tokens_kept")}
    return _outcome(entry, status="done", shard=shard, **told)


def _note(task: dict[str, Any], mark: str = "") -> dict[str, Any] | None:
    """What the worker noted about its sample, and where that lies; None where there is none.

    Args:
        mark: given where an earlier run left it, maybe with other settings, cut, or of a file that has changed since.
    """
    try:
        note: dict[str, Any] = json.loads(Path(task["note"]).read_bytes())
        if mark:
            content = Path(task["part"]).read_bytes()
            if (len(content), bytes_digest(content)) != (note["bytes"], note["sha256"]):
                return None
            if (note["mark"], note["digest"], note["line"]["source"]) != (mark, task["digest"], task["name"]):
                return None
        return {**note, "part": task["part"]}
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def _contents(notes: list[dict[str, Any]]) -> Iterator[bytes]:
    for note in notes:
        yield Path(note["part"]).read_bytes()
