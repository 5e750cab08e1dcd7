"""Where the seconds of a step go."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

PARTS = ("data", "select", "encode", "generate", "verify", "score", "backward", "optimiser", "sync")
"""data: waiting for a batch · select: choosing its patches, in whatever process · encode: reading pictures and
questions, of policy and reference · generate: sampling · verify: rewards · score: log-probabilities of completions and
the loss · backward · optimiser · sync: sums and gradients of all processes, waiting for the slowest included."""


class Clock:
    """Adds up the seconds of named parts, as `timer` tells them. On an accelerator a part ends when its work has."""

    def __init__(self, timer: Callable[[], float] = time.perf_counter) -> None:
        self._timer = timer
        self._seconds: dict[str, float] = defaultdict(float)

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        began = self._timer()
        yield
        if torch.cuda.is_available() and torch.cuda.is_initialized():
            torch.cuda.synchronize()
        self.add(part, self._timer() - began)

    def add(self, part: str, seconds: float) -> None:
        """Count seconds that were measured elsewhere."""
        self._seconds[part] += seconds

    def take(self) -> dict[str, float]:
        """The parts that took any time since the last call, as metrics: {"seconds_PART": seconds}."""
        taken = {f"seconds_{part}": self._seconds[part] for part in PARTS if part in self._seconds}
        self._seconds.clear()
        return taken
