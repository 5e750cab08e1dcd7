"""How long a job takes and how much memory: medians with quartiles, jobs in turns, stages lap by lap."""

from __future__ import annotations

import ctypes
import gc
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch

from entropy_vision.errors import UsageError

Name = TypeVar("Name")
Chain = Mapping[str, Callable[[Any], Any]]
"""Stages one behind the other: the first is given None, each later one what the one before it gave."""


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Seconds of a job that was run several times.

    Attributes:
        median: the middle one.
        low, high: first and third quartile.
        repeats: how often it ran.
    """

    median: float
    low: float
    high: float
    repeats: int

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Timing:
        """That of the runs' own seconds, at least one."""
        quarters = statistics.quantiles(seconds, n=4, method="inclusive") if len(seconds) > 1 else [*seconds] * 3
        return cls(median=quarters[1], low=quarters[0], high=quarters[2], repeats=len(seconds))

    @property
    def spread(self) -> float:
        """Interquartile range in seconds."""
        return self.high - self.low


def measure_seconds(run: Callable[[], object], repeats: int = 5, warmup: int = 1) -> Timing:
    """Wall time of `run()`, device work included, after `warmup` runs that do not count."""
    return measure_interleaved({"": run}, repeats, warmup)[""]


def measure_interleaved(
    jobs: Mapping[str, Callable[[], object]], repeats: int = 5, warmup: int = 1
) -> dict[str, Timing]:
    """Wall time of several jobs, one after the other in every round: a machine that slows down slows all of them.

    Raises:
        UsageError: less than one repeat.
    """

    def alone(run: Callable[[], object]) -> Chain:
        return {"": lambda _: run()}

    laps = measure_stages({name: alone(run) for name, run in jobs.items()}, repeats, warmup)
    return {name: Timing.of(lap[""]) for name, lap in laps.items()}


def measure_stages(
    jobs: Mapping[Name, Chain], repeats: int = 5, warmup: int = 1, on_job: Callable[[Name], None] = lambda job: None
) -> dict[Name, dict[str, list[float]]]:
    """Wall time of the stages of several jobs, the jobs one after the other in every round.

    A stage is timed as it happens inside its job, so the laps of a round add up to what the whole job took. `on_job`
    is told of every job that is through, outside the clock.

    Returns:
        job -> stage -> its seconds in every round, in the order of rounds.

    Raises:
        UsageError: less than one repeat.
    """
    if repeats < 1:
        raise UsageError(f"repeats must be at least 1, got {repeats}")
    laps: dict[Name, dict[str, list[float]]] = {job: {stage: [] for stage in chain} for job, chain in jobs.items()}
    for round_ in range(warmup + repeats):
        for job, chain in jobs.items():
            given = None
            for stage, run in chain.items():
                _synchronize()
                start = time.perf_counter()
                given = run(given)
                _synchronize()
                if round_ >= warmup:
                    laps[job][stage].append(time.perf_counter() - start)
            on_job(job)
    return laps


def _synchronize() -> None:
    """Wait for the accelerator: its calls return before the work is done."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def measure_peak_memory(run: Callable[[], object], device: torch.device | str | None = None) -> int | None:
    """Bytes at the highest point of `run()` above where it began: of the device that it works on (by default CUDA where
    there is one) or, on a CPU, of the process's resident memory. None where the system does not tell (no Linux)."""
    gc.collect()
    on_cuda = torch.cuda.is_available() if device is None else torch.device(device).type == "cuda"
    if on_cuda:
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        run()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    process = Path("/proc/self")
    try:
        _return_free_memory()
        (process / "clear_refs").write_text("5")  # the high-water mark starts from what is resident now
        before = _resident(process, "VmHWM")
    except OSError:
        return None
    run()
    return max(0, _resident(process, "VmHWM") - before)


def _return_free_memory() -> None:
    """Let glibc give back what earlier jobs freed; otherwise a later one would seem to need no memory of its own."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _resident(process: Path, field: str) -> int:
    """A line of /proc/self/status such as "VmHWM:  1234 kB", in bytes."""
    for line in (process / "status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"{process / 'status'} has no {field}")
