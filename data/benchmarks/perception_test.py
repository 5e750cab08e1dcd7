"""Perception Test (arXiv:2305.13786), multiple choice, validation split.

Columns and prompt are those of lmms-eval's task perceptiontest (val).
"""

from __future__ import annotations

from collections.abc import Iterator

from .answers import choice_at, lettered
from .benchmark import Question, Spec
from .folder import Folder
from .media import Clip, Named
from .rows import Row, parquet_rows
from .scores import family, meta, over_questions

_COLUMNS = ("video_name", "question", "question_id", "options", "answer_id", "area", "reasoning")
_AFTER = "\nAnswer with the option's letter from the given choices directly."


def _rows(folder: Folder, split: str) -> Iterator[Row]:
    patterns = ("mc_question_val/validation-*.parquet", "validation-*.parquet", "validation.parquet")
    return parquet_rows(folder, patterns, _COLUMNS)


def _ask(row: Row, folder: Folder, split: str) -> Question:
    question, options, video = row.text("question"), row.texts("options"), row.text("video_name")
    names = [f"{place}{video}.{suffix}" for suffix in ("mp4", "MP4") for place in ("videos/", "")]
    return Question(
        key=f"perception-test-{split}-{video}-{row.name('question_id')}",
        text="\n".join([question, *lettered(options)]) + _AFTER,
        answer=choice_at(row.whole("answer_id"), options),
        family=row.text("area"),
        medium=Clip(Named(folder, tuple(names))),
        meta={"profile": "official:perception-test", "question": question, "reasoning": row.text("reasoning")},
    )


SPEC = Spec(
    name="perception-test",
    title="Perception Test, multiple choice (arXiv:2305.13786)",
    media="video",
    files=("mc_question_val/validation-*.parquet", "videos/NAME.mp4, or the zips of these"),
    columns=_COLUMNS,
    splits=("validation",),
    prompt=f"question ↵ A. … ↵ B. … ↵ C. …{_AFTER.replace(chr(10), ' ↵ ')} (lmms-eval)",
    metric="accuracy over questions; by area and reasoning beside it",
    faults="the first capital A to D that stands alone counts: 'A man opens it, so C' is A",
    licence="CC BY 4.0 (annotations and videos), code Apache-2.0",
    profile="official:perception-test",
    rows=_rows,
    ask=_ask,
    aggregate=over_questions(family, meta("reasoning")),
)
