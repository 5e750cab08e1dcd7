"""Worker processes with a deadline for every task: one that is late is killed, one that dies is replaced."""

from __future__ import annotations

import json
import math
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from entropy_vision.errors import InputReason

_TICK = 0.2  # seconds between two looks at deadlines and at `stop`
_START = 600.0  # seconds a worker may take to load its libraries, and for the first time to compile the scores
_SAID = 4000  # bytes of what a worker writes to stderr that are kept, of its end; decoders may write without end


@dataclass
class _Worker:
    process: subprocess.Popen[bytes]
    buffer: bytes = b""
    said: bytes = b""
    ready: bool = False
    task: dict[str, Any] | None = None
    due: float = 0.0


class Pool:
    """`count` processes of `python -m MODULE`, each on one thread; see `worker` for what they speak.

    Args:
        module: the program.
        greeting: its first line of input.
        deadline: seconds a task may take.
    """

    def __init__(self, module: str, greeting: dict[str, Any], *, count: int, deadline: float) -> None:
        self.module, self.greeting, self.count, self.deadline = module, greeting, count, deadline
        self.workers: list[_Worker] = []
        self.again: list[dict[str, Any]] = []  # tasks whose worker died once
        self.selector = selectors.DefaultSelector()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for worker in list(self.workers):
            self._end(worker)
        self.selector.close()

    def run(self, tasks: Iterable[dict[str, Any]], stop: Callable[[], bool]) -> Iterator[dict[str, Any]]:
        """Replies in the order in which they come: {"index"}, with {"reason", "detail"} where the input failed, or
        {"errno"} where its sample could not be written.

        Tasks are drawn one at a time, when a worker is free. Where `stop` says so, no reply follows any more.

        Raises:
            RuntimeError: a worker does not even start.
        """
        queue = iter(tasks)

        def draw() -> dict[str, Any] | None:
            return self.again.pop(0) if self.again else next(queue, None)

        waiting = draw()
        while not stop():
            while waiting is not None and len(self.workers) < self.count and all(w.task for w in self.workers):
                self._start()
                self._give(self.workers[-1], waiting)
                waiting = draw()
            for worker in self.workers:
                if waiting is not None and worker.task is None:
                    self._give(worker, waiting)
                    waiting = draw()
            if waiting is None and all(worker.task is None for worker in self.workers):
                return
            due = min((worker.due for worker in self.workers if worker.task is not None), default=math.inf)
            for key, _ in self.selector.select(max(0.0, min(_TICK, due - time.monotonic()))):
                worker, answer = key.data
                if worker in self.workers:  # else it died a moment ago
                    yield from answer(worker)
            yield from self._late()
            waiting = waiting or draw()

    def _start(self) -> None:
        path = os.pathsep.join(entry for entry in sys.path if entry)
        single = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", self.module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            env={**os.environ, **single, "PYTHONPATH": path},
            start_new_session=True,  # ctrl-C on the terminal reaches the parent alone
        )
        worker = _Worker(process)
        self.workers.append(worker)
        self.selector.register(_pipe(process.stdout), selectors.EVENT_READ, (worker, self._read))
        self.selector.register(_pipe(process.stderr), selectors.EVENT_READ, (worker, self._hear))
        _send(worker, self.greeting)

    def _give(self, worker: _Worker, task: dict[str, Any]) -> None:
        worker.task = task
        worker.due = time.monotonic() + (self.deadline if worker.ready else _START)
        _send(worker, task)

    def _read(self, worker: _Worker) -> Iterator[dict[str, Any]]:
        chunk = os.read(_pipe(worker.process.stdout).fileno(), 1 << 16)
        if not chunk:
            yield from self._died(worker)
            return
        *lines, worker.buffer = (worker.buffer + chunk).split(b"\n")
        for text in lines:
            reply = json.loads(text)
            if reply.get("ready"):
                worker.ready, worker.due = True, time.monotonic() + self.deadline
            else:
                worker.task = None
                yield reply

    def _hear(self, worker: _Worker) -> Iterator[dict[str, Any]]:
        chunk = os.read(_pipe(worker.process.stderr).fileno(), 1 << 16)
        worker.said = (worker.said + chunk)[-_SAID:]
        if not chunk:  # it is closed, and would be ready for ever
            self.selector.unregister(_pipe(worker.process.stderr))
        yield from ()

    def _late(self) -> Iterator[dict[str, Any]]:
        now = time.monotonic()
        for worker in [one for one in self.workers if one.task is not None and one.due < now]:
            task = worker.task
            self._end(worker)
            if not worker.ready:
                raise RuntimeError(f"a worker did not start within {_START:.0f} s")
            if task is not None:
                detail = f"not done after {self.deadline:g} s, its worker was stopped"
                yield {"index": task["index"], "reason": InputReason.TIMEOUT.value, "detail": detail}

    def _died(self, worker: _Worker) -> Iterator[dict[str, Any]]:
        code, task = worker.process.wait(), worker.task
        rest = os.read(_pipe(worker.process.stderr).fileno(), 1 << 16)
        said = (worker.said + rest)[-_SAID:].decode(errors="replace").strip()
        self._end(worker)
        if not worker.ready:
            raise RuntimeError(f"a worker ended with code {code} before its first task:\n{said}")
        if task is not None and not task.pop("died", False):
            self.again.append({**task, "died": True})  # it may have been the machine's fault: once more
        elif task is not None:
            how = signal.Signals(-code).name if code < 0 else f"code {code}"
            last = said.splitlines()[-1][:300] if said else "without a word"
            detail = f"its worker ended twice with {how}: {last}"
            yield {"index": task["index"], "reason": InputReason.KILLED.value, "detail": detail}

    def _end(self, worker: _Worker) -> None:
        self.workers.remove(worker)
        worker.process.kill()
        worker.process.wait()
        for pipe in map(_pipe, (worker.process.stdin, worker.process.stdout, worker.process.stderr)):
            if pipe in self.selector.get_map():
                self.selector.unregister(pipe)
            pipe.close()


def _pipe(pipe: Any) -> Any:
    if pipe is None:
        raise RuntimeError("a worker has no pipe")
    return pipe


def _send(worker: _Worker, message: dict[str, Any]) -> None:
    try:
        _pipe(worker.process.stdin).write(json.dumps(message).encode() + b"\n")
    except BrokenPipeError:
        return  # it died; the end of its stdout says so, and `_died` answers for the task
