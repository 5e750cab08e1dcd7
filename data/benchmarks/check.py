"""The `benchmarks` verb: which there are, and what a folder holds of one."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from entropy_vision.errors import CheckFailed

from .benchmark import Benchmark, Question
from .catalogue import BENCHMARKS, load, spec_of

if TYPE_CHECKING:
    from entropy_vision.options import BenchmarksOptions

_SAMPLES = 3
_LISTED = 20  # skipped rows and missing files that the result names; all are counted


def run_benchmarks(options: BenchmarksOptions) -> dict[str, Any]:
    """List the benchmarks, say what one wants, or check the folder of one.

    Raises:
        UsageError: no such benchmark, folder, file or column.
        CheckFailed: rows that give no question, or files that questions need and that are not there.
    """
    if options.name is None:
        rows = listing()
        if options.json:
            return {"benchmarks": rows}
        # one table of everything would be wider than a screen
        parts = {"benchmarks": ("media", "files"), "metrics": ("metric",), "licences": ("licence",)}
        return {
            part: [{name: row[name] for name in ("benchmark", *names)} for row in rows] for part, names in parts.items()
        }
    if options.folder is None and ":" not in options.name:
        return next(row for row in listing() if row["benchmark"] == spec_of(options.name).name)
    result = report(load(options.name, options.folder, options.split))
    faults = [f"{result[name]} {what}" for name, what in (("skipped", "rows"), ("missing", "files")) if result[name]]
    if faults:
        raise CheckFailed(f"{options.name}: {' and '.join(faults)} cannot be used", result)
    return result


def listing() -> list[dict[str, Any]]:
    """A row a benchmark: its name and what its `Spec` says of it in words."""
    return [
        {
            "benchmark": spec.name,
            "media": spec.media,
            "files": "; ".join(spec.files),
            "metric": spec.metric,
            "licence": spec.licence,
            "profile": spec.profile,
            "title": spec.title,
            "splits": list(spec.splits),
            "columns": list(spec.columns),
            "prompt": spec.prompt,
            "faults": spec.faults,
        }
        for spec in BENCHMARKS.values()
    ]


def report(benchmark: Benchmark) -> dict[str, Any]:
    """What loads: counts, kinds of questions, three samples, and what does not with its reasons."""
    missing = benchmark.missing()
    return {
        "benchmark": benchmark.spec.name,
        "split": benchmark.split,
        "rows": benchmark.rows,
        "questions": len(benchmark),
        "scenes": len(benchmark.scenes),
        "skipped": len(benchmark.skipped),
        "missing": len(missing),
        "profile": benchmark.spec.profile,
        "families": dict(Counter(question.family for question in benchmark.questions)),
        "answers": dict(Counter(question.answer.kind for question in benchmark.questions)),
        "samples": [_sample(question) for question in _spread(benchmark.questions)],
        "reasons": [{"where": one.where, "reason": one.reason} for one in benchmark.skipped[:_LISTED]],
        "missing_files": missing[:_LISTED],
    }


def _spread(questions: list[Question]) -> list[Question]:
    """The first, the middle and the last."""
    places = sorted({0, len(questions) // 2, len(questions) - 1}) if questions else []
    return [questions[place] for place in places[:_SAMPLES]]


def _sample(question: Question) -> dict[str, Any]:
    value = question.answer.value
    return {
        "key": question.key,
        "question": question.text,
        "answer": sorted(value) if isinstance(value, set) else value,
        "kind": question.answer.kind,
        "about": question.scene,
    }
