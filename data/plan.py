"""The frozen plan of a folder: which inputs it is about, in which order, and which of them are done together.

    out/plan/000000.parquet    the inputs of the first run, sorted, with checksums
    out/plan/000001.parquet    those a later run added or found changed; and so on

A plan only grows. It cuts its inputs into chunks; a chunk is what one process makes in one piece, wherever and whenever
that is. So the shards are the same, byte for byte, for any number of processes and any number of interruptions.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import os
from collections import defaultdict
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from entropy_vision.atomic import atomic_write
from entropy_vision.console import progress
from entropy_vision.errors import Terminated

from .ledger import Outcome
from .source import Source, digest

ADOPTED = -1
"""The chunk of an input whose content is in a shard already, under a name that is not given any more."""

_COLUMNS = {"chunk": "int64", "path": "binary", "member": "binary", "offset": "int64", "size": "int64"}
_COLUMNS |= {"stamp": "string", "digest": "string", "key": "string"}


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One input of a plan.

    Attributes:
        source: where it is, and how it was when it was planned.
        chunk: which one it belongs to, or ADOPTED.
        digest: `source.digest`; "" where it could not be read.
        key: of its sample; unique in the folder.
    """

    source: Source
    chunk: int
    digest: str
    key: str


@dataclass(frozen=True)
class Plan:
    """All entries of a folder, oldest first."""

    entries: tuple[Entry, ...] = ()
    files: int = 0  # that they are written in

    @cached_property
    def current(self) -> dict[str, Entry]:
        """{name: its last entry}"""
        return {entry.source.name: entry for entry in self.entries}

    @cached_property
    def chunks(self) -> dict[int, list[Entry]]:
        """{number: entries}, those that a later entry of the same name replaced left out."""
        out: dict[int, list[Entry]] = defaultdict(list)
        for entry in self.entries:
            if entry.chunk != ADOPTED and self.current[entry.source.name] is entry:
                out[entry.chunk].append(entry)
        return out


def read_plan(out: Path) -> Plan:
    """The plan of a folder; an empty one where there is none."""
    from pyarrow import parquet

    entries: list[Entry] = []
    files = sorted((out / "plan").glob("[0-9]*.parquet"))
    for path in files:
        rows = parquet.read_table(io.BytesIO(path.read_bytes())).to_pylist()
        for row in rows:
            place: dict[str, Any] = {name: os.fsdecode(row.pop(name)) for name in ("path", "member")}
            place |= {name: row.pop(name) for name in ("offset", "size", "stamp")}
            entries.append(Entry(source=Source(**place), **row))
    return Plan(tuple(entries), len(files))


def write_plan(out: Path, number: int, entries: Sequence[Entry]) -> None:
    """Add a file to the plan of a folder."""
    import pyarrow
    from pyarrow import parquet

    rows: list[dict[str, Any]] = [{**vars(entry), **vars(entry.source)} for entry in entries]
    for row in rows:
        row |= {name: os.fsencode(row[name]) for name in ("path", "member")}
    arrays = {name: pyarrow.array([row[name] for row in rows], kind) for name, kind in _COLUMNS.items()}
    buffer = io.BytesIO()
    parquet.write_table(pyarrow.table(arrays), buffer, compression="zstd")
    (out / "plan").mkdir(parents=True, exist_ok=True)
    atomic_write(out / "plan" / f"{number:06d}.parquet", buffer.getvalue())


def new_entries(
    plan: Plan,
    sources: Sequence[Source],
    tables: Mapping[int, Sequence[Outcome]],
    *,
    retry: bool,
    most: int,
    most_bytes: int,
    threads: int,
    stop: Callable[[], bool],
) -> list[Entry]:
    """Entries for the sources that the plan does not answer for.

    Args:
        tables: of the finished chunks.
        retry: plan what failed once more.
        most, most_bytes: a chunk holds no more inputs, and (but for its first) no more bytes of them.
        threads: how many files are read at a time, for their checksums.

    Raises:
        Terminated: `stop` said so.
    """
    settled = latest(tables)
    done = {outcome.key: outcome for outcome in settled.values() if outcome.status == "done"}
    fresh = [one for one in sources if _unplanned(plan, one, settled, tables, done)]
    fresh += [one for one in sources if _again(plan, one, settled, retry)]
    digests = _digests(fresh, threads, stop)
    now = {source.name for source in sources}
    changed = {source.name for source in fresh}
    free: dict[str, list[str]] = defaultdict(list)  # {digest: keys of samples whose input has gone}
    adopted = {entry.key for name, entry in plan.current.items() if entry.chunk == ADOPTED and name in now}
    for outcome in done.values():
        if outcome.source not in now and outcome.key not in adopted:
            free[outcome.digest].append(outcome.key)
    taken = {entry.key for name, entry in plan.current.items() if name not in changed} | set(done)
    chunk, held, held_bytes = 1 + max((entry.chunk for entry in plan.entries), default=-1), 0, 0
    out: list[Entry] = []
    for source, known in zip(fresh, digests, strict=True):
        if not known and not retry and _again(plan, source, settled, False):
            continue  # it still cannot be read
        if free[known]:
            out.append(Entry(source=source, chunk=ADOPTED, digest=known, key=free[known].pop(0)))
            continue
        stem = known or hashlib.sha256(source.name.encode()).hexdigest()  # what cannot be read needs a key as well
        key = next(key for key in _keys(stem) if key not in taken)
        taken.add(key)
        size = max(0, source.size)
        if held and (held >= most or held_bytes + size > most_bytes):
            chunk, held, held_bytes = chunk + 1, 0, 0
        held, held_bytes = held + 1, held_bytes + size
        out.append(Entry(source=source, chunk=chunk, digest=known, key=key))
    return out


def unplanned(plan: Plan, sources: Sequence[Source], tables: Mapping[int, Sequence[Outcome]]) -> bool:
    """Whether some source waits for an entry."""
    settled = latest(tables)
    done = {outcome.key for outcome in settled.values() if outcome.status == "done"}
    return any(_unplanned(plan, source, settled, tables, done) for source in sources)


def latest(tables: Mapping[int, Sequence[Outcome]]) -> dict[str, Outcome]:
    """{name: its last outcome}"""
    return {row.source: row for _, rows in sorted(tables.items()) for row in rows}


def _unplanned(
    plan: Plan, source: Source, settled: Mapping[str, Outcome], finished: Container[int], done: Container[str]
) -> bool:
    entry = plan.current.get(source.name)
    if entry is None or entry.source != source:
        return True
    if entry.chunk == ADOPTED:
        return entry.key not in done  # the shard it was in is gone
    outcome = settled.get(source.name)
    # of a finished chunk without it: by a run that was not given it
    return entry.chunk in finished and (outcome is None or outcome.chunk != entry.chunk)


def _again(plan: Plan, source: Source, settled: Mapping[str, Outcome], retry: bool) -> bool:
    """Whether a source failed for a reason that may be gone."""
    entry, outcome = plan.current.get(source.name), settled.get(source.name)
    if entry is None or outcome is None or outcome.status != "failed":
        return False
    return (entry.source, entry.chunk) == (source, outcome.chunk) and (retry or not entry.digest)


def _digests(sources: Sequence[Source], threads: int, stop: Callable[[], bool]) -> list[str]:
    out: list[str] = []
    with ThreadPoolExecutor(threads) as pool, progress("checksums", len(sources), shown=bool(sources)) as bar:
        for source, known in zip(sources, pool.map(digest, sources), strict=True):
            if stop():
                pool.shutdown(cancel_futures=True)
                raise Terminated("stopped while the plan was made; the same line goes on", {})
            out.append(known)
            bar.advance(note=source.name)
    return out


def _keys(digest: str) -> Iterator[str]:
    """Keys for samples of equal content, without end."""
    yield digest[:24]
    yield from (f"{digest[:24]}-{number}" for number in itertools.count(1))
