"""Public benchmarks as sources of questions. `load(name, folder)` is the door; docs/benchmarks.md lists them all.

The names load lazily: the command line looks this package up whenever it tells its verbs.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_HOME = {
    "BENCHMARKS": "catalogue",
    "Benchmark": "benchmark",
    "Question": "benchmark",
    "Skipped": "benchmark",
    "Spec": "benchmark",
    "load": "catalogue",
}

__all__ = sorted(_HOME)

if TYPE_CHECKING:
    from .benchmark import Benchmark as Benchmark
    from .benchmark import Question as Question
    from .benchmark import Skipped as Skipped
    from .benchmark import Spec as Spec
    from .catalogue import BENCHMARKS as BENCHMARKS
    from .catalogue import load as load


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
