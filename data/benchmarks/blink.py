"""BLINK (arXiv:2404.12390): fourteen tasks of perception, one to four pictures a question.

Columns and prompt are those that lmms-eval's task blink reads; the split with public answers is `val`.
"""

from __future__ import annotations

from collections.abc import Iterator

from .answers import LETTERS, choice
from .benchmark import Question, Spec
from .folder import Folder
from .media import Stills
from .rows import Row, parquet_rows
from .scores import family, over_parts

_COLUMNS = ("idx", "question", "sub_task", "choices", "answer", "prompt")
_PICTURES = ("image_1", "image_2", "image_3", "image_4")


def _rows(folder: Folder, split: str) -> Iterator[Row]:
    patterns = (f"*/{split}-*.parquet", f"*/{split}.parquet", f"{split}-*.parquet", f"{split}.parquet")
    return parquet_rows(folder, patterns, _COLUMNS, _PICTURES)


def _ask(row: Row, folder: Folder, split: str) -> Question:
    options = row.texts("choices")
    letters = ", ".join(LETTERS[: len(options)])
    note = f"Note: You only need to respond with {letters} without providing any additional information.\n"
    return Question(
        key=f"blink-{split}-{row.text('idx')}",
        text=note + row.text("prompt"),
        answer=choice(row.text("answer"), options),
        family=row.text("sub_task"),
        medium=Stills(tuple(row.pictures[name] for name in _PICTURES)),
        meta={"profile": "official:blink", "question": row.text("question")},
    )


SPEC = Spec(
    name="blink",
    title="BLINK (arXiv:2404.12390)",
    media="images",
    files=("SUBTASK/val-*.parquet, of as many of the 14 subtasks as are wanted",),
    columns=(*_COLUMNS, *_PICTURES),
    splits=("val",),
    prompt="Note: You only need to respond with A, B, … without providing any additional information. ↵ prompt "
    "(lmms-eval)",
    metric="accuracy; overall = mean of the subtasks",
    faults="lmms-eval's parser takes the first letter of any word: 'Answer: C' is A",
    licence="Apache-2.0; pictures under the terms of their sources",
    profile="official:blink",
    rows=_rows,
    ask=_ask,
    aggregate=over_parts(family),
)
