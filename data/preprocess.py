"""Files to shards: every input is decoded, reduced to its kept patches and packed, or its failure is written down.

    out/
      settings.json           what the patches were chosen with; the same line again resumes, another is refused
      shard-000000.tar        samples in the order of the sorted inputs
      shard-000000.json       its marker: a shard without one is not done
      errors.jsonl            one line for every input that failed in the last run
      inputs.parquet          a row for every input: its shard and key, or why it failed; written when a run ends
      .staging/               samples not yet in a shard; gone when the run ends

Samples wait in `.staging` until the shard they belong to is full, so the shards do not depend on how many workers
there were, in what order they finished, or how often the run was stopped: the tree is the same, byte for byte.
"""

from __future__ import annotations

import fcntl
import json
import math
import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from entropy_vision.atomic import atomic_write, sweep
from entropy_vision.budget import Budget
from entropy_vision.console import Progress, progress, say
from entropy_vision.errors import InputError, InputReason, Terminated, TooManyBad, UsageError
from entropy_vision.options import PreprocessOptions, VerifyOptions
from entropy_vision.probe import check_path
from entropy_vision.sampling import Sampling
from entropy_vision.tokenizer import EntropyTokenizer

from .archive import VERSION, marker_path, markers, read_marker, tars
from .assembly import Assembly
from .files import find_inputs, sha256_of
from .ledger import Ledger, Outcome, failed
from .plan import plan
from .pool import Pool
from .sample import QUALITY, STORES
from .shards import SHARD_BYTES, SHARD_SAMPLES
from .verify import verify

_WORKER = "entropy_vision.data.worker"
_TABLE, _STAGING = "inputs.parquet", ".staging"


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
    keyframes: bool = False,
    scenes: float | None = None,
    store: str = "mosaic",
    workers: int = 1,
    deadline: float = 300.0,
    max_bad: float = 0.05,
    overwrite: bool = False,
    salvage: bool = False,
    dry_run: bool = False,
    shard_samples: int = SHARD_SAMPLES,
    shard_bytes: int = SHARD_BYTES,
) -> dict[str, Any]:
    """Turn videos and images into shards of kept patches. The same call again goes on where the last one stopped.

    An input is known by its content, so a renamed file is not done twice; equal files are samples of their own.
    Inputs that failed are tried again by every run.

    Args:
        sources: files, folders (searched recursively for media, hidden files left out), glob patterns, and lists of
            paths: .txt, or .csv, .tsv, .jsonl, .parquet with a column path, video, image, file or source.
        out: the folder, for one run at a time.
        patch_size, keep, budget, selector, merge: see `EntropyTokenizer`; a quarter of the patches where neither keep
            nor budget is given.
        size, fps, frames, keyframes, scenes: see `read_video`.
        store: "mosaic" (JPEG), "raw" (exact) or "index" (positions; the pixels are decoded again when read).
        workers: processes of one thread each; 1 is a process of its own as well, because decoders hang and die.
        deadline: seconds one input may take before its worker is killed.
        max_bad: how many inputs may fail: a count from 1 on, a share of the inputs below 1. A share always allows one
            (5 % of three files would allow none), but never that all fail; 0 allows none.
        overwrite: remove what the folder holds and start afresh.
        salvage: take what decodes of damaged videos, and say so in the sample; they fail without.
        dry_run: write nothing, and return what `plan.plan` says instead.
        shard_samples, shard_bytes: a shard is closed before it holds more than either.

    Returns:
        {"inputs", "written", "resumed", "failed", "tokens_total", "tokens_kept", "shards", "seconds", "reasons",
        "out"}; inputs = written + resumed + failed; tokens are those of all inputs that are in the shards.

    Raises:
        UsageError: no inputs, a wrong option, a budget too small for an input's merged patches, or a folder made with
            other settings.
        TooManyBad: more failed than max_bad allows; the shards are complete nevertheless.
        OSError: the disk is full, or refuses to be written to; the same call goes on from what was finished.
        Terminated: SIGTERM came; the same call goes on from what was finished.
    """
    began = time.monotonic()
    tokenizer = EntropyTokenizer(patch_size=patch_size, keep=keep, budget=budget, selector=selector, merge=merge)
    sampling = Sampling(fps=fps, frames=frames, keyframes=keyframes, scenes=scenes)
    settings = _settings(tokenizer, size, sampling, store, salvage)
    if workers < 1 or not deadline > 0 or max_bad < 0 or shard_samples < 1 or shard_bytes < 1:
        raise UsageError("workers, deadline, shard_samples and shard_bytes must be above 0, max_bad not below")
    out = Path(out)
    inputs = find_inputs(sources, exclude=out)
    if not inputs:
        raise UsageError(f"no videos or images in {', '.join(map(str, sources)) or 'nothing'}: name another source")
    if store == "index":  # whoever reads the shards decodes these files again, from wherever they stand
        inputs = [path.absolute() for path in inputs]
    if dry_run:
        if not overwrite:
            _refuse_others(out, out / _STAGING, settings)
        return plan(inputs, out, settings)
    with _locked(out) as staging:
        _prepare(out, staging, settings, overwrite)
        ledger = Ledger(len(inputs))
        done = _finished(out)
        assembly = Assembly(out, staging, ledger, shard_samples, shard_bytes)
        with Pool(_WORKER, settings, count=workers, deadline=deadline) as pool:
            stopped = _work(inputs, done, pool, ledger, assembly)
        if not stopped:
            assembly.close()
            ledger.write_table(out / _TABLE, {line["key"]: name for name, line in _lines(out)})
        ledger.write_errors(out / "errors.jsonl")
        result: dict[str, Any] = {
            **(ledger.counts() if stopped else ledger.close()),
            "shards": len(markers(out)),
            "seconds": round(time.monotonic() - began, 3),
            "reasons": ledger.reasons(),
            "out": str(out),
        }
        if stopped:
            raise Terminated("stopped; the same line goes on from here", {**result, "waiting": assembly.waiting})
        shutil.rmtree(staging)
    _judge(result, max_bad, out)
    return result


def _work(
    inputs: Sequence[Path], done: dict[str, dict[str, Any]], pool: Pool, ledger: Ledger, assembly: Assembly
) -> bool:
    """Settle the inputs; True where SIGTERM came before all were."""
    with _stop_signal() as stop, progress("preprocess", len(inputs)) as bar:
        for reply in pool.run(_tasks(inputs, done, ledger, assembly, bar), stop.is_set):
            if "errno" in reply:
                raise OSError(reply["errno"], os.strerror(reply["errno"]), str(assembly.out))
            if "usage" in reply:
                raise UsageError(reply["usage"])
            assembly.reply(reply)
            bar.advance(note=inputs[reply["index"]].name)
        return stop.is_set()


def run_preprocess(options: PreprocessOptions) -> dict[str, Any]:
    """The verb `preprocess`."""
    limits = ("keep", "tokens", "bits", "threshold", "flops", "tower")
    given = {name: value for name, value in vars(options).items() if name not in ("sources", "out", "json", *limits)}
    return preprocess(options.sources, options.out, budget=options.budget(), **given)


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
def _locked(out: Path) -> Iterator[Path]:
    """The staging folder, while nobody else writes to `out`."""
    staging = out / _STAGING
    try:
        staging.mkdir(parents=True, exist_ok=True)
        lock = (staging / "lock").open("wb")
    except OSError as error:
        raise UsageError(f"{out} cannot be written to ({error.strerror}): name another --out") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(f"another run is writing to {out}: wait for it, or name another --out") from None
        yield staging


def _prepare(out: Path, staging: Path, settings: dict[str, Any], overwrite: bool) -> None:
    """Make sure that what the folder holds was made with these settings; leave no shard without its marker."""
    path = out / "settings.json"
    if overwrite:
        for old in (*markers(out), *tars(out), *staging.glob("*.part"), *staging.glob("*.note"), path):
            old.unlink(missing_ok=True)
    (out / _TABLE).unlink(missing_ok=True)  # it is of a run that ended
    sweep(out)
    sweep(staging)
    _refuse_others(out, staging, settings)
    atomic_write(path, json.dumps(settings, indent=1, sort_keys=True) + "\n")
    for tar in tars(out):
        if not marker_path(tar).exists():
            tar.unlink()


def _refuse_others(out: Path, staging: Path, settings: dict[str, Any]) -> None:
    """Raise UsageError where the folder holds samples made with other settings."""
    path = out / "settings.json"
    if not markers(out) and next(staging.glob("*.note"), None) is None:
        return  # nothing was made
    if path.exists():
        try:
            before = json.loads(path.read_bytes())
        except ValueError:
            before = {}
        if "keep" in before:  # as it was written when no other budget could be given
            before |= {"budget": {"keep": before["keep"]}, "merge": 1}
        if "fps" in before:  # as it was written when frames could be taken by no other rule
            before["sampling"] = {"fps": before["fps"]}
        changed = [name for name in settings if before.get(name) != settings[name]]
        # a fingerprint says that something changed, the others say what
        changed = [name for name in changed if name != "fingerprint"] or changed
        if changed:
            told = ", ".join(f"{name} was {_told(before.get(name))}, is {_told(settings[name])}" for name in changed)
            raise UsageError(f"{out} was made with other settings ({told}): give --overwrite or another --out")
    elif markers(out):
        raise UsageError(f"{out} holds shards without settings.json: give --overwrite or another --out")


def _told(value: object) -> str:
    return " ".join(f"{name} {one}" for name, one in value.items()) if isinstance(value, dict) else str(value)


def _lines(out: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """(shard, what its marker says of a sample) of every sample that is in a shard."""
    for path in markers(out):
        marker = read_marker(path)
        for line in marker.samples:
            yield marker.shard, line


def _finished(out: Path) -> dict[str, dict[str, Any]]:
    """{key: line of the marker} of the samples that are in shards; a shard that is gone or cut is done again."""
    done: dict[str, dict[str, Any]] = {}
    for path in markers(out):
        marker = read_marker(path)
        shard = out / marker.shard
        if shard.exists() and shard.stat().st_size == marker.bytes:
            done.update({entry["key"]: entry for entry in marker.samples})
        else:
            path.unlink()
            shard.unlink(missing_ok=True)
    return done


def _tasks(
    inputs: Sequence[Path],
    done: dict[str, dict[str, Any]],
    ledger: Ledger,
    assembly: Assembly,
    bar: Progress,
) -> Iterator[dict[str, Any]]:
    """A task for every input that has to be decoded; what needs no worker is settled on the way."""
    copies: dict[str, int] = {}
    for index, path in enumerate(inputs):
        try:
            sha256 = sha256_of(check_path(path))
        except InputError as error:
            assembly.fail(index, failed(path, error))
            bar.advance(note=path.name)
            continue
        except OSError as error:
            told = InputError(path, InputReason.UNREADABLE, f"the file cannot be read ({error.strerror})")
            assembly.fail(index, failed(path, told))
            bar.advance(note=path.name)
            continue
        copy = copies[sha256] = copies.get(sha256, -1) + 1
        key = f"{sha256[:24]}-{copy}" if copy else sha256[:24]
        entry = done.get(key)
        if entry is not None:
            totals = {name: entry[name] for name in ("tokens_total", "tokens_kept")}
            ledger.put(index, Outcome(source=str(path), status="resumed", key=key, sha256=sha256, **totals))
            assembly.skip(index)
            bar.advance(note=path.name)
            continue
        task = assembly.expect(index, path, key, sha256)
        if task is None:
            bar.advance(note=path.name)
        else:
            yield task


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


def _judge(result: dict[str, Any], max_bad: float, out: Path) -> None:
    if not result["failed"]:
        return
    allowed = allowed_failures(max_bad, result["inputs"])
    why = ", ".join(f"{number} {reason}" for reason, number in result["reasons"].items())
    counted = f"{result['failed']} of {result['inputs']} inputs failed ({why})"
    names = f"{out / 'errors.jsonl'} names each"
    if result["failed"] > allowed:
        raise TooManyBad(f"{counted}, --max-bad {max_bad:g} allows {allowed}: {names}", result)
    say(f"{counted}: {names}")
