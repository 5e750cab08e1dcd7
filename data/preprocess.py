"""Files to shards: every input is decoded, reduced to its kept patches and packed, or its failure is written down.

    out/
      settings.json           what the patches were chosen with; the same line again resumes, another is refused
      plan/000000.parquet     the inputs, frozen, with checksums, cut into chunks (`plan.py`)
      shard-000000.tar        the samples of a chunk in the order of its inputs; where they are too many for one shard,
      shard-000000_001.tar    in several
      shard-000000.json       the marker of a shard: without one it is not whole
      inputs/000000.parquet   a row for every input of a chunk: its shard and key, or why it failed; the chunk is done
      errors.jsonl            the failures among all inputs
      stats.json              sums over all inputs, and a line for every shard
      .staging/               samples whose chunk is not done yet; gone when the run ends

Samples wait in `.staging` until every input of their chunk is settled. So the tree is the same, byte for byte, for any
number of workers and processes, in whatever order they finish, and however often they are killed.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import math
import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from entropy_vision.atomic import atomic_write, sweep
from entropy_vision.budget import Budget
from entropy_vision.console import Progress, progress, say
from entropy_vision.errors import Terminated, TooManyBad, UsageError
from entropy_vision.options import PreprocessOptions, VerifyOptions
from entropy_vision.sampling import EVERY, Sampling
from entropy_vision.tokenizer import EntropyTokenizer

from .archive import VERSION, canonical, marker_path, markers, read_marker, tars
from .assembly import Assembly
from .estimate import estimate
from .files import find_inputs
from .ledger import Ledger, Outcome, read_tables, table_path, write_errors, write_table
from .paths import as_path, is_remote
from .plan import (
    ADOPTED,
    Cuts,
    Entry,
    Plan,
    latest,
    new_entries,
    plan_files,
    read_plan,
    samples_of,
    settled_anew,
    unplanned,
    write_plan,
)
from .pool import Pool
from .ranks import share
from .sample import QUALITY, STORES
from .shards import SHARD_BYTES, SHARD_SAMPLES
from .source import Source, bytes_digest
from .stats import write_stats
from .verify import verify

_WORKER = "entropy_vision.data.worker"
_LAYOUT = 2  # of the folder; 1 had no plan
_PATIENCE = 3600.0  # seconds that other ranks wait for the next part of rank 0's plan
_TICK = 0.5
_SOURCE_BYTES = 16  # a chunk is of so many times the bytes of a shard: patches kept are fewer than the file, mostly


def preprocess(
    sources: Sequence[str | Path],
    out: str | Path,
    *,
    patch_size: int = 16,
    keep: float | None = None,
    budget: Budget | None = None,
    selector: str = "rate",
    merge: int = 1,
    size: int | tuple[int, int] | None = 224,
    fps: float | None = None,
    frames: int | None = None,
    packets: int | None = None,
    keyframes: bool = False,
    scenes: float | None = None,
    store: str = "mosaic",
    workers: int = 1,
    rank: int | None = None,
    world: int | None = None,
    deadline: float = 300.0,
    max_bad: float = 0.05,
    overwrite: bool = False,
    salvage: bool = False,
    retry: bool = False,
    dry_run: bool = False,
    shard_samples: int = SHARD_SAMPLES,
    shard_bytes: int = SHARD_BYTES,
) -> dict[str, Any]:
    """Turn videos and images into shards of kept patches. The same call again goes on where the last one stopped.

    An input is known by its content, so a renamed file is not done twice; equal files are samples of their own.
    What failed is not tried again until the file has changed, or `retry` says so.

    On several machines each process makes the same call with its own rank (torchrun and SLURM say it themselves) and a
    folder all of them see; rank 0 makes the plan, the others wait for it. Any number of processes goes on with what any
    other number began.

    Args:
        sources: files, folders (searched recursively for media, hidden files left out), glob patterns, tars of media,
            and lists of them: .txt, or .csv, .tsv, .jsonl, .parquet with a column path, video, image, file or source.
            Addresses such as s3://bucket/folder may stand wherever paths do, for `out` too.
        out: the folder.
        patch_size, keep, budget, selector, merge: see `EntropyTokenizer`; a quarter of the patches where neither keep
            nor budget is given.
        size, fps, frames, packets, keyframes, scenes: see `read_video`.
        store: "mosaic" (JPEG), "raw" (exact) or "index" (positions; the pixels are decoded again when read).
        workers: processes of one thread each; 1 is a process of its own as well, because decoders hang and die.
        rank, world: which of how many processes this is; see `ranks.share` for where it is told from.
        deadline: seconds one input may take before its worker is killed.
        max_bad: how many inputs may fail: a count from 1 on, a share of the inputs below 1. A share always allows one
            (5 % of three files would allow none), but never that all fail; 0 allows none.
        overwrite: remove what the folder holds and start afresh.
        salvage: take what decodes of damaged videos, and say so in the sample; they fail without.
        retry: try the inputs that failed once more.
        dry_run: write nothing, and return what `estimate.estimate` says instead.
        shard_samples, shard_bytes: a shard is closed before it holds more than either.

    Returns:
        {"inputs", "written", "resumed", "failed", "tokens_total", "tokens_kept", "shards", "seconds", "reasons",
        "out"}, of this rank's share; inputs = written + resumed + failed; tokens are those of all its inputs that are
        in the shards; shards are those of the folder.

    Raises:
        UsageError: no inputs, a wrong option, a budget too small for an input's merged patches, or a folder made with
            other settings.
        TooManyBad: more failed than max_bad allows; the shards are complete nevertheless.
        OSError: the disk is full, or refuses to be written to; the same call goes on from what was finished.
        Terminated: SIGTERM came; the same call goes on from what was finished.
    """
    began = time.monotonic()
    tokenizer = EntropyTokenizer(patch_size=patch_size, keep=keep, budget=budget, selector=selector, merge=merge)
    sampling = Sampling(fps=fps, frames=frames, packets=packets, keyframes=keyframes, scenes=scenes)
    settings = _settings(tokenizer, size, sampling, store, salvage)
    if workers < 1 or not deadline > 0 or max_bad < 0 or shard_samples < 1 or shard_bytes < 1:
        raise UsageError("workers, deadline, shard_samples and shard_bytes must be above 0, max_bad not below")
    rank, world = share(rank, world, slurm=True)
    if world > 1 and (overwrite or retry):
        raise UsageError("--overwrite and --retry are for one process: the others would not know when it is done")
    out = as_path(out)
    if store == "index":  # whoever reads the shards decodes these files again, from wherever they stand
        sources = [one if is_remote(one) else Path(one).absolute() for one in sources]
    with _stop_signal() as stop:
        inputs = find_inputs(sources, exclude=out)
        _refuse_own_source(out, sources, inputs)
        if not inputs:
            raise UsageError(f"no videos or images in {', '.join(map(str, sources)) or 'nothing'}: name another source")
        if dry_run:
            if not overwrite:
                _refuse_others(out, settings)
            return estimate(inputs, out, settings)
        with _locked(out, rank, world) as staging:
            _prepare(out, staging, settings, overwrite, rank, world)
            tables = {number: rows for number, rows in read_tables(out).items() if _all_there(out, rows)}
            _clean(staging, tables, rank, world)
            if rank:
                plan = _awaited(out, inputs, tables, stop.is_set)
                _refuse_others(out, settings, planned=True)
            else:
                cuts = Cuts(inputs=shard_samples, bytes=_SOURCE_BYTES * shard_bytes)
                how = {"retry": retry, "again": world == 1, "adopt": store != "index", "threads": workers}
                plan = _extended(out, inputs, tables, cuts, stop=stop.is_set, **how)
            names = {source.name for source in inputs}
            mine = _share(plan, names, rank, world)
            adopted = [] if rank else _adopted(plan, tables, names)
            ledger = Ledger([row.source for row in adopted])
            ledger.names |= {entry.source.name for entries in mine.values() for entry in entries}
            for row in adopted:
                ledger.put(row, resumed=True)
            mark = bytes_digest(canonical(settings).encode())
            assembly = Assembly(out, staging, mark, ledger, shard_samples, shard_bytes)
            with _scratch(staging, rank, world) as scratch:
                greeting = {**settings, "mark": mark, "scratch": str(scratch), "parent": os.getpid()}
                with Pool(_WORKER, greeting, count=workers, deadline=deadline) as pool:
                    _work(mine, tables, pool, ledger, assembly, stop.is_set)
            result: dict[str, Any] = {
                **(ledger.counts() if stop.is_set() else ledger.close()),
                "shards": len(markers(out)),
                "seconds": round(time.monotonic() - began, 3),
                "reasons": ledger.reasons(),
                "out": str(out),
            }
            if stop.is_set():
                raise Terminated("stopped; the same line goes on from here", {**result, "waiting": assembly.waiting})
            _summarize(out, names)
    judge(result, max_bad, out)
    return result


def _extended(out: Path, inputs: Sequence[Source], tables: dict[int, list[Outcome]], cuts: Cuts, **how: Any) -> Plan:
    """The plan of the folder, grown by what it does not cover; `how` as `new_entries` takes it."""
    plan = read_plan(out)
    for number, entries in enumerate(new_entries(plan, inputs, tables, cuts, **how), plan.files):
        write_plan(out, number, entries)
    return read_plan(out)


def _share(plan: Plan, names: set[str], rank: int, world: int) -> dict[int, list[Entry]]:
    """{chunk: entries} of a rank, of the inputs that this run was given."""
    return {
        number: [entry for entry in entries if entry.source.name in names]
        for number, entries in sorted(plan.chunks.items())
        if number % world == rank
    }


def _awaited(out: Path, inputs: Sequence[Source], tables: dict[int, list[Outcome]], stop: Callable[[], bool]) -> Plan:
    """The plan that covers the inputs, as soon as rank 0 has made it."""
    plan = read_plan(out)
    until = time.monotonic() + _PATIENCE
    while unplanned(plan, inputs, tables):
        while plan_files(out) == plan.files:
            if stop():
                raise Terminated("stopped while waiting for rank 0 to plan; the same line goes on", {})
            if time.monotonic() > until:
                raise UsageError(f"rank 0 has planned nothing for an hour: start it with --out {out}")
            time.sleep(_TICK)
        plan, until = read_plan(out), time.monotonic() + _PATIENCE
    return plan


def _adopted(plan: Plan, tables: dict[int, list[Outcome]], names: set[str]) -> list[Outcome]:
    """Outcomes of the inputs whose content was in a shard when they were planned, under their own names."""
    samples = samples_of(tables)
    entries = [plan.current[name] for name in sorted(names) if plan.current[name].chunk == ADOPTED]
    found = [(entry.source.name, samples[entry.key]) for entry in entries if entry.key in samples]
    return [replace(row, source=name, status="done") for name, row in found]


@contextmanager
def _scratch(staging: Path, rank: int, world: int) -> Iterator[Path]:
    """A folder for copies of inputs that lie elsewhere; empty before and after, whoever was killed meanwhile."""
    folder = staging / f"copies-{rank}-of-{world}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def _work(
    mine: dict[int, list[Entry]],
    tables: dict[int, list[Outcome]],
    pool: Pool,
    ledger: Ledger,
    assembly: Assembly,
    stop: Callable[[], bool],
) -> None:
    """Settle the inputs of these chunks, or as many as come before `stop` says so."""
    with progress("preprocess", len(ledger.names)) as bar:
        bar.advance(len(ledger.rows))
        pace = _Pace(bar)
        for reply in pool.run(_tasks(mine, tables, ledger, assembly, bar), stop):
            if "errno" in reply:
                raise OSError(reply["errno"], os.strerror(reply["errno"]), str(assembly.staging))
            if "usage" in reply:
                raise UsageError(reply["usage"])
            pace.step(assembly.reply(reply))


def _tasks(
    mine: dict[int, list[Entry]],
    tables: dict[int, list[Outcome]],
    ledger: Ledger,
    assembly: Assembly,
    bar: Progress,
) -> Iterator[dict[str, Any]]:
    """A task for every input that has to be decoded; what is in finished chunks is entered on the way."""
    for number, entries in mine.items():
        if number in tables:
            rows = {row.source: row for row in tables[number]}
            for entry in entries:
                ledger.put(rows[entry.source.name], resumed=True)
            bar.advance(len(entries))
        elif entries:
            for task in assembly.begin(number, entries):
                if task is None:
                    bar.advance()
                else:
                    yield task


class _Pace:
    """How fast it goes, and what came of it, behind the bar."""

    def __init__(self, bar: Progress) -> None:
        self.bar, self.began = bar, time.monotonic()
        self.inputs = self.frames = self.total = self.kept = self.failed = 0

    def step(self, line: Mapping[str, Any] | None) -> None:
        """One more input: what its marker will say of it, None where it failed."""
        self.inputs += 1
        if line is None:
            self.failed += 1
        else:
            self.frames += line["frames"]
            self.total += line["tokens_total"]
            self.kept += line["tokens_kept"]
        seconds = time.monotonic() - self.began
        told = f"{self.inputs / seconds:.3g} inputs/s, {self.frames / seconds:.3g} frames/s"
        if self.total:
            told += f", {self.kept / self.total:.1%} of the tokens kept"
        self.bar.advance(note=told + (f", {self.failed} failed" if self.failed else ""))


def run_preprocess(options: PreprocessOptions) -> dict[str, Any]:
    """The verb `preprocess`."""
    limits = ("keep", "tokens", "bits", "threshold", "flops", "tower")
    apart = ("sources", "out", "json", "ray", "rank", "world", *limits)
    given: dict[str, Any] = {name: value for name, value in vars(options).items() if name not in apart}
    given["budget"] = options.budget()
    if options.ray is None:
        return preprocess(options.sources, options.out, rank=options.rank, world=options.world, **given)
    from .ray import preprocess_on_ray

    return preprocess_on_ray(options.sources, options.out, address=options.ray, world=options.world, **given)


def run_verify(options: VerifyOptions) -> dict[str, Any]:
    """The verb `verify`."""
    return verify(options.shards)


def _settings(
    tokenizer: EntropyTokenizer,
    size: int | tuple[int, int] | None,
    sampling: Sampling,
    store: str,
    salvage: bool,
) -> dict[str, Any]:
    """Everything that the bytes of a sample depend on, beside its input."""
    if store not in STORES:
        raise UsageError(f"store must be one of {', '.join(STORES)}, got {store!r}")
    return {
        "version": VERSION,
        "layout": _LAYOUT,
        "fingerprint": tokenizer.fingerprint(),
        "patch_size": tokenizer.patch_size,
        "budget": tokenizer.budget.settings(),
        "selector": tokenizer.selector.name,
        "selector_version": tokenizer.selector.version,
        "merge": tokenizer.merge,
        "size": list(size) if isinstance(size, tuple) else size,
        "sampling": sampling.settings(),
        "store": store,
        "quality": QUALITY,
        "salvage": salvage,
    }


@contextmanager
def _locked(out: Path, rank: int, world: int) -> Iterator[Path]:
    """The staging folder, while nobody else does this rank's share, and nobody shares the work in another way."""
    if is_remote(out):
        name = hashlib.sha256(str(out).encode()).hexdigest()[:16]
        staging = Path(tempfile.gettempdir()) / f"entropy-vision-{os.getuid()}-{name}"
    else:
        staging = out / ".staging"
    with ExitStack() as held:
        try:
            staging.mkdir(parents=True, exist_ok=True)
            mine = staging / f"rank-{rank}-of-{world}.lock"
            lock = held.enter_context(mine.open("wb"))
        except OSError as error:
            raise UsageError(f"{staging.parent} cannot be written to ({error.strerror}): name another --out") from None
        busy = UsageError(f"another run is writing to {out}: wait for it, or name another --out")
        if not _lock(lock):
            raise busy
        for path in staging.glob("*.lock"):
            if path.name.endswith(f"-of-{world}.lock"):
                continue
            with suppress(FileNotFoundError), path.open("r+b") as other:
                if not _lock(other):
                    raise busy
                path.unlink()
        try:
            yield staging
        finally:
            mine.unlink(missing_ok=True)
            with suppress(OSError):  # samples wait, or other ranks are still at work
                staging.rmdir()


def _lock(file: Any) -> bool:
    """Whether the file is ours now, until it is closed."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a network file system without locks: whoever uses one must not start a rank twice
        return True
    return True


def _prepare(out: Path, staging: Path, settings: dict[str, Any], overwrite: bool, rank: int, world: int) -> None:
    """Make sure that what the folder holds was made with these settings, and is what its tables say."""
    path = out / "settings.json"
    if overwrite:
        for old in (*markers(out), *tars(out), *(out / "inputs").glob("*"), *(out / "plan").glob("*"), path):
            old.unlink(missing_ok=True)
        for folder in staging.glob("[0-9]*"):
            shutil.rmtree(folder)
    _refuse_others(out, settings)
    if rank:
        return
    if not is_remote(out):
        for folder in (out, out / "plan", out / "inputs"):
            sweep(folder, older=3600.0 if world > 1 else 0.0)
    _drop_lost(out)
    atomic_write(path, json.dumps(settings, indent=1, sort_keys=True) + "\n")


def _clean(staging: Path, tables: dict[int, list[Outcome]], rank: int, world: int) -> None:
    """Remove what waited for our finished chunks, of a run that was killed between a chunk's table and its cleaning."""
    for folder in staging.glob("[0-9]*"):
        if int(folder.name) in tables and int(folder.name) % world == rank:
            shutil.rmtree(folder)


def _refuse_own_source(out: Path, sources: Sequence[str | Path], inputs: Sequence[Source]) -> None:
    """Shards do not lie among the files they are made of: they would be inputs of the next run."""
    if is_remote(out):
        return
    folders = {os.path.dirname(one.path) for one in inputs if not is_remote(one.path)}
    folders |= {str(one) for one in sources if not is_remote(one)}
    if os.path.realpath(out) in map(_real, folders):
        raise UsageError(f"--out {out} is the folder that is read: name another, {out / 'shards'} if you like")


def _real(folder: str) -> str:
    """Where a folder is, links followed; empty for a name that no folder can have."""
    try:
        return os.path.realpath(folder)
    except ValueError:  # a NUL, or what is no UTF-8
        return ""


def _refuse_others(out: Path, settings: dict[str, Any], planned: bool = False) -> None:
    """Raise UsageError where the folder is about other settings, and something was made by them, or is `planned`."""
    path = out / "settings.json"
    made = (*markers(out), *(out / "inputs").glob("*.parquet"), *(out / ".staging").glob("*/*.note"))
    if not made and not planned:
        return
    if not path.exists():
        raise UsageError(f"{out} holds shards without settings.json: give --overwrite or another --out")
    try:
        before = json.loads(path.read_bytes())
    except ValueError:
        before = {}
    if before and before.get("layout") != _LAYOUT:
        raise UsageError(f"{out} is read, but not continued by this version: give --overwrite or another --out")
    changed = [name for name in settings if before.get(name) != settings[name]]
    # a fingerprint says that something changed, the others say what
    changed = [name for name in changed if name != "fingerprint"] or changed
    if changed:
        told = ", ".join(
            f"{name} was {_told(name, before.get(name))}, is {_told(name, settings[name])}" for name in changed
        )
        raise UsageError(f"{out} was made with other settings ({told}): give --overwrite or another --out")


def _told(name: str, value: object) -> str:
    if value == EVERY.settings() and name == "sampling":
        return EVERY.words()
    return " ".join(f"{name} {one}" for name, one in value.items()) if isinstance(value, dict) else str(value)


def _drop_lost(out: Path) -> None:
    """Where a shard of a chunk is gone or cut, the chunk is not finished any more."""
    for number, rows in read_tables(out).items():
        if not _all_there(out, rows):
            table_path(out, number).unlink()


def _all_there(out: Path, rows: Sequence[Outcome]) -> bool:
    """Whether the shards of a chunk are; every rank looks for itself, for it may begin before rank 0 has."""
    return all(_whole(out / name) for name in {row.shard for row in rows if row.shard})


def _whole(shard: Path) -> bool:
    """Whether a shard is there, and as long as its marker says."""
    try:
        return shard.stat().st_size == read_marker(marker_path(shard)).bytes
    except FileNotFoundError:
        return False


def _summarize(out: Path, names: set[str]) -> None:
    """Write what is to be said of all inputs; where other ranks are at work, whoever is last says all of it."""
    told = -1
    while (tables := read_tables(out)) and len(tables) != told:  # again, where a chunk was finished meanwhile
        told = len(tables)
        plan = read_plan(out)  # rank 0 of a later call may have added to it
        for number, rows in settled_anew(plan, tables).items():
            write_table(out, number, rows)
        known = {**latest(tables), **{row.source: row for row in _adopted(plan, tables, names)}}
        rows = [known[name] for name in sorted(names) if name in known]
        write_errors(out / "errors.jsonl", rows)
        write_stats(out, rows)


@contextmanager
def _stop_signal() -> Iterator[threading.Event]:
    """An event that SIGTERM sets, while the block runs in the main thread; a second SIGTERM ends at once."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def handle(number: int, frame: object) -> None:
        stop.set()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

    before = signal.signal(signal.SIGTERM, handle)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGTERM, before)


def allowed_failures(max_bad: float, inputs: int) -> int:
    """How many of so many inputs may fail; see `preprocess` for the rule."""
    if max_bad >= 1 or max_bad == 0:
        return math.floor(max_bad)
    return min(max(1, math.floor(max_bad * inputs)), inputs - 1)


def judge(result: dict[str, Any], max_bad: float, out: str | Path) -> None:
    """Say how many inputs failed. Raises TooManyBad where that is more than max_bad allows."""
    if not result["failed"]:
        return
    allowed = allowed_failures(max_bad, result["inputs"])
    why = ", ".join(f"{number} {reason}" for reason, number in result["reasons"].items())
    counted = f"{result['failed']} of {result['inputs']} inputs failed ({why})"
    names = f"{as_path(out) / 'errors.jsonl'} names each"
    if result["failed"] > allowed:
        raise TooManyBad(f"{counted}, --max-bad {max_bad:g} allows {allowed}: {names}", result)
    say(f"{counted}: {names}")
