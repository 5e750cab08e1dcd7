"""Samples that finish in any order become shards in the order of their inputs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from entropy_vision.errors import InputReason

from .archive import markers, write_shard
from .files import bytes_digest
from .ledger import Ledger, Outcome


class Assembly:
    """Collects finished samples and closes a shard as soon as all of its samples are there.

    Every input is announced once, in order, by `fail`, `skip` or `expect`.
    """

    def __init__(self, out: Path, staging: Path, ledger: Ledger, shard_samples: int, shard_bytes: int) -> None:
        self.out, self.staging, self.ledger = out, staging, ledger
        self.shard_samples, self.shard_bytes = shard_samples, shard_bytes
        self.number = 1 + max((int(path.stem.rpartition("-")[2]) for path in markers(out)), default=-1)
        self.tasks: dict[int, dict[str, Any]] = {}  # announced, no reply yet
        self.notes: dict[int, dict[str, Any] | None] = {}  # settled, not yet in a shard; None has no sample
        self.front = 0  # every input before this one is settled
        self.batch: list[int] = []  # in order, the samples of the shard that is being filled
        self.filled = 0  # their bytes

    @property
    def waiting(self) -> int:
        """Finished samples that wait for their shard."""
        return sum(note is not None for note in self.notes.values())

    def skip(self, index: int) -> None:
        """The input is in a shard already."""
        self.notes[index] = None
        self._advance()

    def fail(self, index: int, outcome: Outcome) -> None:
        """The input has no sample."""
        self.ledger.put(index, outcome)
        self.skip(index)

    def expect(self, index: int, path: Path, key: str, sha256: str) -> dict[str, Any] | None:
        """The task that makes the input's sample; None where a run that was stopped has left it whole."""
        task = {
            "index": index,
            "path": str(path),
            "key": key,
            "sha256": sha256,
            "part": str(self.staging / f"{key}.part"),
            "note": str(self.staging / f"{key}.note"),
        }
        self.tasks[index] = task
        if self._note(task, trusted=False) is None:
            return task
        self.reply({"index": index})
        return None

    def reply(self, reply: dict[str, Any]) -> None:
        """A worker is done with an input, for better or worse."""
        index = reply["index"]
        task = self.tasks.pop(index)
        if "reason" in reply:
            outcome = Outcome(
                source=task["path"],
                status="failed",
                sha256=task["sha256"],
                reason=InputReason(reply["reason"]),
                detail=reply["detail"],
            )
            self.fail(index, outcome)
            return
        note = self._note(task, trusted=True)
        if note is None:
            raise RuntimeError(f"a worker said that {task['path']} is done, but left no sample")
        self.notes[index] = {**note, "part": task["part"], "note": task["note"]}
        self._advance()

    def close(self) -> None:
        """Write the last shard, however full it is."""
        self._close_shard()

    def _advance(self) -> None:
        while self.front in self.notes:
            note = self.notes[self.front]
            if note is None:
                del self.notes[self.front]
            else:
                full = len(self.batch) >= self.shard_samples or self.filled + note["bytes"] > self.shard_bytes
                if self.batch and full:
                    self._close_shard()
                self.batch.append(self.front)
                self.filled += note["bytes"]
            self.front += 1

    def _close_shard(self) -> None:
        if not self.batch:
            return
        notes = [note for index in self.batch if (note := self.notes.pop(index)) is not None]
        write_shard(self.out, self.number, _contents(notes), (note["line"] for note in notes))
        for index, note in zip(self.batch, notes, strict=True):
            line = note["line"]
            outcome = Outcome(
                source=line["source"],
                status="written",
                key=line["key"],
                sha256=line["sha256"],
                tokens_total=line["tokens_total"],
                tokens_kept=line["tokens_kept"],
            )
            self.ledger.put(index, outcome)
            Path(note["note"]).unlink()
            Path(note["part"]).unlink()
        self.number += 1
        self.batch, self.filled = [], 0

    def _note(self, task: dict[str, Any], *, trusted: bool) -> dict[str, Any] | None:
        """What the worker noted about its sample; None where there is none, or (not trusted) its bytes do not fit."""
        try:
            note: dict[str, Any] = json.loads(Path(task["note"]).read_bytes())
            if not trusted:
                content = Path(task["part"]).read_bytes()
                if (len(content), bytes_digest(content)) != (note["bytes"], note["sha256"]):
                    return None
                # the content was left by an earlier run; the file may have another name today
                if note["line"]["source"] != task["path"] or note["line"]["sha256"] != task["sha256"]:
                    return None
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None
        return note


def _contents(notes: list[dict[str, Any]]) -> Iterator[bytes]:
    for note in notes:
        yield Path(note["part"]).read_bytes()
