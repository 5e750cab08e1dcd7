"""Several processes, one step: each takes its share of the scenes, sums and gradients are added over all.

Under `torchrun` the processes are its own; `in_team` starts some on this machine. What a step computes does not depend
on how its scenes are shared out, but for the order of floating-point sums and the sampler's streams.
"""

from __future__ import annotations

import os
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn

from entropy_vision.errors import EntropyVisionError, Terminated, refused_by_machine

T = TypeVar("T")
_SAME_REQUEST = 5.0  # seconds
TIMEOUT = 1800
"""Seconds that a process waits for the others where nothing else is said."""


class TeamLost(RuntimeError):
    """The other processes do not answer: one has ended, or hangs. The same line goes on."""


@dataclass(frozen=True)
class Team:
    """This process among all that share each step."""

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process writes what is written once: checkpoints, logs, progress."""
        return self.rank == 0

    def total(self, *numbers: float) -> list[float]:
        """The sums of some numbers over all processes, the same everywhere."""
        values = torch.tensor(numbers, dtype=torch.float64)
        if self.size > 1:
            with self.waiting("add numbers up"):
                dist.all_reduce(values)
        return [float(v) for v in values]

    def add_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace every gradient by its sum over all processes; a parameter that none of them used keeps none."""
        if self.size == 1:
            return
        held = list(parameters)
        used = torch.tensor([p.grad is not None for p in held], dtype=torch.float32)
        with self.waiting("say which gradients there are"):
            dist.all_reduce(used)
        held = [p for p, count in zip(held, used.tolist(), strict=True) if count]
        flat = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in held])
        with self.waiting("add gradients up"):
            dist.all_reduce(flat)
        for p, summed in zip(held, flat.split([p.numel() for p in held]), strict=True):
            p.grad = summed.view_as(p).clone()

    def gather(self, mine: T) -> list[T]:
        """What every process holds, in the order of ranks."""
        if self.size == 1:
            return [mine]
        everyone: list[Any] = [None] * self.size
        with self.waiting("exchange what each holds"):
            dist.all_gather_object(everyone, mine)
        return everyone

    @contextmanager
    def waiting(self, what: str) -> Iterator[None]:
        """A part in which this process waits for the others: if they do not come, it says who waited for what.

        Raises:
            TeamLost: the time is over, or the connection is.
        """
        began = time.monotonic()
        try:
            yield
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            waited = time.monotonic() - began
            said = str(error).strip().splitlines() or [type(error).__name__]
            raise TeamLost(
                f"process {self.rank} of {self.size} waited {waited:.0f} s for the others to {what}: "
                f"one of them has ended or hangs (`timeout` in the recipe is how long it waits); {said[0]}"
            ) from error

    def share(self, things: list[T]) -> list[T]:
        """This process's part of a list that all hold."""
        return things[self.rank :: self.size]


def current_team(timeout: float = TIMEOUT) -> Team:
    """The team this process belongs to: `torchrun`'s, `in_team`'s, or itself alone.

    Args:
        timeout: seconds to wait for the others, where this is the call that joins them.
    """
    if not dist.is_initialized() and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        dist.init_process_group(_backend(), timeout=timedelta(seconds=timeout))
    return Team(dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else Team()


def _backend() -> str:
    """Counts and objects go by Gloo, gradients by NCCL where they lie on an accelerator."""
    return "cpu:gloo,cuda:nccl" if torch.cuda.is_available() and dist.is_nccl_available() else "gloo"


@contextmanager
def stop_signals_go_to(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """SIGTERM and Ctrl-C reach `handler` while the block runs; outside the main thread the host program owns them."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler_before in before.items():
            signal.signal(number, handler_before)


@contextmanager
def requests_to_stop() -> Iterator[Callable[[], bool]]:
    """Remember a SIGTERM or Ctrl-C instead of dying in the middle of a step; one that is repeated acts at once.

    A scheduler that signals a whole group reaches a process twice, directly and through its parent: what follows
    within some seconds is the same request.
    """
    asked = 0.0

    def remember(signum: int, frame: FrameType | None) -> None:
        nonlocal asked
        if not asked:
            asked = time.monotonic()
        elif time.monotonic() - asked > _SAME_REQUEST:
            signal.signal(signum, signal.SIG_DFL)
            os.kill(os.getpid(), signum)

    with stop_signals_go_to(remember):
        yield lambda: asked > 0


def leave_signals_to_the_trainer(worker: int) -> None:
    """A worker that a signal to the whole group killed would take the trainer's last step with it."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)


def end_workers(loader: object) -> None:
    """End the worker processes of a DataLoader's iterator, those that hang in a decoder too."""
    shut_down = getattr(loader, "_shutdown_workers", None)  # torch has no other way; without workers there is none
    if shut_down is not None:
        shut_down()
        for process in loader._workers:  # type: ignore[attr-defined]
            if process.is_alive():
                process.kill()


def in_team(processes: int, work: Callable[..., T], *arguments: Any, timeout: float = TIMEOUT) -> T:
    """Call `work` in `processes` processes on this machine and give what the first one returned.

    Within a team already, or with one process, the call is made here. SIGTERM and Ctrl-C are passed on to all of them.

    Raises:
        EntropyVisionError, OSError: what one of the processes raised, whichever it was.
        Terminated: SIGTERM or Ctrl-C came when there was nothing to save.
    """
    if processes <= 1 or current_team(timeout).size > 1:
        return work(*arguments)
    results: Any = mp.get_context("fork").SimpleQueue()
    with tempfile.TemporaryDirectory() as folder:
        meeting = Path(folder) / "meeting"
        # fork: the children share what is imported; no operator has started threads of its own in this process
        team = mp.start_processes(
            _member,
            (processes, str(meeting), timeout, results, work, arguments),
            processes,
            join=False,
            start_method="fork",
        )
        assert team is not None

        asked = False

        def pass_on(signum: int, frame: FrameType | None) -> None:
            nonlocal asked
            asked = True
            for process in team.processes:
                if process.is_alive():
                    process.terminate()

        said: dict[int, Any] = {}
        died: Exception | None = None
        with stop_signals_go_to(pass_on):
            try:
                while not team.join(timeout=0.1):
                    # a large result waits in its pipe until it is taken, and its process with it
                    while not results.empty():
                        said.update([results.get()])
            except (mp.ProcessRaisedException, mp.ProcessExitedException) as error:
                died = error
    said.update(results.get() for _ in iter(results.empty, True))
    # the others lose the one that gave up; its own word is the one that counts
    errors = [said[rank] for rank in sorted(said) if _is_told(said[rank])]
    if errors:
        raise errors[0]
    if asked:
        raise Terminated("stopped; the same line goes on from what was saved", {})
    if died:
        raise died
    return said[0]  # type: ignore[no-any-return]


def _is_told(outcome: object) -> bool:
    """Whether what a process ended with is an error that the user can mend; any other is a crash of its own."""
    return isinstance(outcome, EntropyVisionError) or (isinstance(outcome, OSError) and refused_by_machine(outcome))


def _member(
    rank: int,
    size: int,
    meeting: str,
    timeout: float,
    results: Any,
    work: Callable[..., Any],
    arguments: tuple[Any, ...],
) -> None:
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    limit = timedelta(seconds=timeout)
    os.environ["LOCAL_RANK"] = str(rank)  # which accelerator is its own
    where = f"file://{meeting}"
    dist.init_process_group(_backend(), init_method=where, rank=rank, world_size=size, timeout=limit)
    try:
        outcome = work(*arguments)
    except (EntropyVisionError, OSError) as error:
        if not _is_told(error):
            raise
        outcome = error
    if rank == 0 or _is_told(outcome):
        results.put((rank, outcome))
    dist.destroy_process_group()
