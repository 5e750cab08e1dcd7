"""The frozen plan of a folder: which inputs it is about, in which order, and which of them are done together.

    out/plan/000000.parquet    the inputs of the first run, sorted, with checksums
    out/plan/000001.parquet    those a later run added or found changed; and so on

A plan only grows. It cuts its inputs into chunks; a chunk is what one process makes in one piece, wherever and whenever
that is. So the shards are the same, byte for byte, for any number of processes and any number of interruptions.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from entropy_vision.console import Progress, progress
from entropy_vision.errors import Terminated

from .ledger import SUPERSEDED, Outcome
from .paths import listed
from .source import Source, digest
from .tables import read_rows, write_rows

ADOPTED = -1
"""The chunk of an input whose content is in a shard already, under a name that is not given any more."""

_PIECE = 4096  # inputs of one file of the plan: so many checksums are lost at most when the planner is killed
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


def plan_files(out: Path) -> int:
    """How many files the plan of a folder has."""
    return len(listed(out / "plan", "[0-9]*.parquet"))


def read_plan(out: Path) -> Plan:
    """The plan of a folder; an empty one where there is none."""
    entries: list[Entry] = []
    files = listed(out / "plan", "[0-9]*.parquet")
    for path in files:
        for row in read_rows(path):
            place: dict[str, Any] = {name: row.pop(name).decode(errors="surrogatepass") for name in ("path", "member")}
            place |= {name: row.pop(name) for name in ("offset", "size", "stamp")}
            entries.append(Entry(source=Source(**place), **row))
    return Plan(tuple(entries), len(files))


def write_plan(out: Path, number: int, entries: Sequence[Entry]) -> None:
    """Add a file to the plan of a folder."""
    rows: list[dict[str, Any]] = [{**vars(entry), **vars(entry.source)} for entry in entries]
    for row in rows:
        row |= {name: row[name].encode(errors="surrogatepass") for name in ("path", "member")}
    write_rows(out / "plan" / f"{number:06d}.parquet", _COLUMNS, rows)


@dataclass(frozen=True, kw_only=True)
class Cuts:
    """Where a chunk ends: it holds no more inputs, and (but for its first) no more bytes of them."""

    inputs: int
    bytes: int


def new_entries(
    plan: Plan,
    sources: Sequence[Source],
    tables: Mapping[int, Sequence[Outcome]],
    cuts: Cuts,
    *,
    retry: bool = False,
    again: bool = True,
    adopt: bool = True,
    threads: int = 1,
    stop: Callable[[], bool] = lambda: False,
) -> Iterator[list[Entry]]:
    """Entries for the sources that the plan does not answer for, some thousand at a time, each a file of the plan.

    Args:
        tables: of the finished chunks.
        retry: plan what failed once more.
        again: plan what could not be read once more. Not where other processes take part: they have no way to know.
        adopt: where the content of an input is in a shard under a name that is not given any more, take that sample.
        threads: how many files are read at a time, for their checksums.

    Raises:
        Terminated: `stop` said so.
    """
    settled = latest(tables)
    samples = samples_of(tables)
    fresh = [one for one in sources if _unplanned(plan, one, settled, tables, samples)]
    fresh += [one for one in sources if again and _again(plan, one, settled, retry)]
    now, changed = {source.name for source in sources}, {source.name for source in fresh}
    held = {name: entry for name, entry in plan.current.items() if name in now and name not in changed}
    adopted = {entry.key for entry in held.values() if entry.chunk == ADOPTED}
    free: dict[str, list[Outcome]] = defaultdict(list)  # {digest: samples that no input stands for}
    for row in samples.values():
        mine = held.get(row.source)
        if row.key not in adopted and (mine is None or mine.key != row.key):
            free[row.digest].append(row)
    taken = {entry.key for name, entry in plan.current.items() if name not in changed} | set(samples)
    copies: Counter[str] = Counter()
    chunk = 1 + max((entry.chunk for entry in plan.entries), default=-1)
    with progress("checksums", len(fresh), shown=bool(fresh)) as bar:
        for start in range(0, len(fresh), _PIECE):
            piece = fresh[start : start + _PIECE]
            out: list[Entry] = []
            count = size = 0
            for source, known in zip(piece, _digests(piece, threads, stop, bar), strict=True):
                if not known and not retry and _again(plan, source, settled, False):
                    continue  # it still cannot be read
                # of its own samples an input takes back any, of others' one whose input has gone
                left = [row for row in free[known] if row.source == source.name or (adopt and row.source not in now)]
                if left:
                    free[known].remove(left[0])
                    out.append(Entry(source=source, chunk=ADOPTED, digest=known, key=left[0].key))
                    continue
                if count and (count >= cuts.inputs or size + max(0, source.size) > cuts.bytes):
                    chunk, count, size = chunk + 1, 0, 0
                count, size = count + 1, size + max(0, source.size)
                out.append(Entry(source=source, chunk=chunk, digest=known, key=_key(source, known, copies, taken)))
            chunk += count > 0
            if out:
                yield out


def _key(source: Source, known: str, copies: Counter[str], taken: set[str]) -> str:
    """A key that nobody has: the beginning of its digest, and a number for all but the first of equal contents."""
    stem = (known or hashlib.sha256(source.name.encode()).hexdigest())[:24]  # what cannot be read needs one as well
    while True:
        number = copies[stem]
        copies[stem] += 1
        key = f"{stem}-{number}" if number else stem
        if key not in taken:
            taken.add(key)
            return key


def unplanned(plan: Plan, sources: Sequence[Source], tables: Mapping[int, Sequence[Outcome]]) -> bool:
    """Whether some source waits for an entry."""
    settled = latest(tables)
    samples = samples_of(tables)
    return any(_unplanned(plan, source, settled, tables, samples) for source in sources)


def latest(tables: Mapping[int, Sequence[Outcome]]) -> dict[str, Outcome]:
    """{name: its last outcome}"""
    return {row.source: row for _, rows in sorted(tables.items()) for row in rows if row.status != SUPERSEDED}


def samples_of(tables: Mapping[int, Sequence[Outcome]]) -> dict[str, Outcome]:
    """{key: the outcome that made it} of every sample in the shards, whether or not its input has changed since."""
    return {row.key: row for rows in tables.values() for row in rows if row.shard}


def settled_anew(plan: Plan, tables: Mapping[int, Sequence[Outcome]]) -> dict[int, list[Outcome]]:
    """{chunk: its rows} of the tables in which an input stands that was settled again in another chunk since.

    Its sample stays where it is, and its row says so (SUPERSEDED); of what failed nothing is left to tell. So every
    input has one row that is done or failed. Rows of inputs that the plan does not know stay as they are.
    """

    known = latest(tables)

    def now(row: Outcome) -> Outcome | None:
        entry = plan.current.get(row.source)
        if entry is None:
            return row
        mine = entry.chunk == row.chunk or (entry.chunk == ADOPTED and entry.key == row.key)
        waits = entry.chunk != ADOPTED and entry.chunk not in tables  # until then its last outcome stands
        if mine or (waits and (last := known.get(row.source)) is not None and last.chunk == row.chunk):
            return replace(row, status="done") if row.shard else row
        return replace(row, status=SUPERSEDED) if row.shard else None

    told = {chunk: [one for row in rows if (one := now(row))] for chunk, rows in tables.items()}
    return {chunk: rows for chunk, rows in told.items() if rows != tables[chunk]}


def _unplanned(
    plan: Plan, source: Source, settled: Mapping[str, Outcome], finished: Container[int], samples: Container[str]
) -> bool:
    entry = plan.current.get(source.name)
    if entry is None or entry.source != source:
        return True
    if entry.chunk == ADOPTED:
        return entry.key not in samples  # the shard it was in is gone
    outcome = settled.get(source.name)
    # of a finished chunk without it: by a run that was not given it
    return entry.chunk in finished and (outcome is None or outcome.chunk != entry.chunk)


def _again(plan: Plan, source: Source, settled: Mapping[str, Outcome], retry: bool) -> bool:
    """Whether a source failed for a reason that may be gone."""
    entry, outcome = plan.current.get(source.name), settled.get(source.name)
    if entry is None or outcome is None or outcome.status != "failed":
        return False
    return (entry.source, entry.chunk) == (source, outcome.chunk) and (retry or not entry.digest)


def _digests(sources: Sequence[Source], threads: int, stop: Callable[[], bool], bar: Progress) -> list[str]:
    out: list[str] = []
    with ThreadPoolExecutor(threads) as pool:
        for source, known in zip(sources, pool.map(digest, sources), strict=True):
            if stop():
                pool.shutdown(cancel_futures=True)
                raise Terminated("stopped while the plan was made; the same line goes on", {})
            out.append(known)
            bar.advance(note=source.name)
    return out
