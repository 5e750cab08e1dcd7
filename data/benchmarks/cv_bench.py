"""CV-Bench (Cambrian-1, arXiv:2406.16860): counting, relation, depth and distance in photographs.

Columns and prompt are those that lmms-eval's task cv_bench reads; the formula is the one its aggregation calls
original, and the dataset card's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from .answers import LETTERS, choice
from .benchmark import Asked, Question, Spec
from .folder import Folder
from .media import Stills
from .rows import Row, parquet_rows
from .scores import mean, means, meta

_COLUMNS = ("idx", "type", "task", "question", "choices", "answer", "prompt", "source")


def _rows(folder: Folder, split: str) -> Iterator[Row]:
    return parquet_rows(folder, ("test.parquet", "test-*.parquet", "test*.parquet"), _COLUMNS, ("image",))


def _ask(row: Row, folder: Folder, split: str) -> Question:
    options = row.texts("choices")
    letters = ", ".join(LETTERS[: len(options)])
    note = f"Note: You only need to respond with {letters} without providing any additional information.\n\n"
    return Question(
        key=f"cv-bench-{split}-{row.name('idx')}",
        text=note + row.text("prompt"),
        answer=choice(row.text("answer"), options),
        family=row.text("task"),
        medium=Stills((row.pictures["image"],)),
        meta={
            "profile": "official:cv-bench",
            "question": row.text("question"),
            "source": row.text("source"),
            "type": row.text("type"),
        },
    )


def _aggregate(scores: Sequence[float], items: Sequence[Asked]) -> dict[str, float]:
    """1/2 ((ADE20K + COCO) / 2 + Omni3D); not a number where a source was not asked."""
    parts = means(scores, items, meta("source"))
    source = {name: parts.get(name, float("nan")) for name in ("ADE20K", "COCO", "Omni3D")}
    overall = ((source["ADE20K"] + source["COCO"]) / 2 + source["Omni3D"]) / 2
    return {"overall": overall, "questions": mean(scores), **parts, **means(scores, items, meta("type"))}


SPEC = Spec(
    name="cv-bench",
    title="CV-Bench, Cambrian-1 (arXiv:2406.16860)",
    media="image",
    files=("test.parquet, or test_2d.parquet and test_3d.parquet",),
    columns=(*_COLUMNS, "image"),
    splits=("test",),
    prompt="Note: You only need to respond with A, B, … without providing any additional information. ↵↵ prompt "
    "(lmms-eval)",
    metric="accuracy; overall = 1/2 ((ADE20K + COCO) / 2 + Omni3D)",
    faults="lmms-eval's task reports the plain mean over questions; its parser takes 'Answer: C' for A",
    licence="Apache-2.0; pictures of ADE20K, COCO and Omni3D under their own terms",
    profile="official:cv-bench",
    rows=_rows,
    ask=_ask,
    aggregate=_aggregate,
)
