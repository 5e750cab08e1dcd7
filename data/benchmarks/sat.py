"""SAT, Spatial Aptitude Training (arXiv:2412.07755): what moved, and how, between one or two pictures.

The prompt is that of lmms-eval's task sat. The dataset gives the answer as text (`correct_answer`), the copy that
lmms-eval reads as a place (`correct_answer_idx`): either will do.
"""

from __future__ import annotations

from collections.abc import Iterator

from .answers import choice_at, choice_of, lettered
from .benchmark import Question, Spec
from .folder import Folder
from .media import Stills
from .rows import BadRow, Row, parquet_rows
from .scores import family, over_questions

_COLUMNS = ("question", "answers", "question_type")
_HINT = (
    "When multiple images are provided, You want to realize that when camera moves left, the objects in the image move "
    "right, and vice versa. And when you are asked about the movement of the same object captured in different images, "
    "you can compare the position of the object relative to other objects in the image to answer the question.\n"
)
_AFTER = "Only output the letter of the correct option and nothing else."


def _rows(folder: Folder, split: str) -> Iterator[Row]:
    patterns = (f"SAT_{split}.parquet", f"{split}-*.parquet", f"{split}.parquet")
    return parquet_rows(folder, patterns, _COLUMNS, ("image_bytes",))


def _ask(row: Row, folder: Folder, split: str) -> Question:
    question, options = row.text("question").strip(), [option.strip() for option in row.texts("answers")]
    if row.values.get("correct_answer_idx") is not None:
        answer = choice_at(row.whole("correct_answer_idx"), options)
    elif row.values.get("correct_answer") is not None:
        answer = choice_of(row.text("correct_answer").strip(), options)
    else:
        raise BadRow("neither correct_answer nor correct_answer_idx is there")
    listed = "".join(f"{option}\n" for option in lettered(options))
    return Question(
        key=f"sat-{split}-{row.number}",
        text=f"{question}\n{_HINT}\n{listed}\n{_AFTER}",
        answer=answer,
        family=row.text("question_type"),
        medium=Stills((row.pictures["image_bytes"],)),
        meta={"profile": "official:sat", "question": question},
    )


SPEC = Spec(
    name="sat",
    title="SAT, Spatial Aptitude Training (arXiv:2412.07755)",
    media="images",
    files=("SAT_test.parquet (or _val, _train, _static)",),
    columns=(*_COLUMNS, "image_bytes", "correct_answer or correct_answer_idx"),
    splits=("test", "val", "train", "static"),
    prompt=f"question ↵ a hint about camera motion ↵↵ A. … ↵↵ {_AFTER} (lmms-eval)",
    metric="accuracy over questions; by question_type beside it",
    faults="the options stand in the file's order; its card asks to shuffle them or to score every order of them",
    licence="MIT; real pictures of the test split under the terms of their sources",
    profile="official:sat",
    rows=_rows,
    ask=_ask,
    aggregate=over_questions(family),
)
