"""Public benchmarks as sources of questions. `load(name, folder)` is the door; docs/benchmarks.md lists them all."""

from __future__ import annotations

from .benchmark import Benchmark, Question, Skipped, Spec
from .catalogue import BENCHMARKS, load

__all__ = ["BENCHMARKS", "Benchmark", "Question", "Skipped", "Spec", "load"]
