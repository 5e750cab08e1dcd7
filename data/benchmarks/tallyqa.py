"""TallyQA (arXiv:1810.12440): how many, in photographs.

Fields are those of the dataset's README. It has no text prompt of its own: the one put here is this project's.
"""

from __future__ import annotations

from collections.abc import Iterator

from .answers import integer
from .benchmark import Question, Spec
from .folder import Folder
from .media import Named, Stills
from .rows import BadRow, Row, json_rows, read_records
from .scores import family, over_questions

_FIELDS = ("question", "answer", "image", "issimple", "question_id")
_AFTER = "\nAnswer with a single number."


def _rows(folder: Folder, split: str) -> Iterator[Row]:
    file = folder.find((f"{split}.json", f"tallyqa_{split}.json"), "questions")[0]
    return json_rows(read_records(file), file.name, _FIELDS)


def _ask(row: Row, folder: Folder, split: str) -> Question:
    question, image, simple = row.text("question"), row.text("image"), row.values.get("issimple")
    if type(simple) is not bool:
        raise BadRow("issimple is neither true nor false")
    return Question(
        key=f"tallyqa-{split}-{row.name('question_id')}",
        text=question + _AFTER,
        answer=integer(row.values.get("answer")),
        family="simple" if simple else "complex",
        medium=Stills((Named(folder, (image, f"images/{image}")),)),
        meta={"profile": "official:tallyqa", "question": question, "source": row.values.get("data_source")},
    )


SPEC = Spec(
    name="tallyqa",
    title="TallyQA (arXiv:1810.12440)",
    media="image",
    files=(
        "test.json (or train.json)",
        "VG_100K/, VG_100K_2/, train2014/, val2014/: Visual Genome's and COCO's images",
    ),
    columns=_FIELDS,
    splits=("test", "train"),
    prompt="question ↵ Answer with a single number. (this project's)",
    metric="accuracy, simple and complex questions apart; the published RMSE needs the numbers given, not scores",
    faults="none known of the metric",
    licence="questions: none stated in the repository; pictures of COCO and Visual Genome under their own terms",
    profile="official:tallyqa",
    rows=_rows,
    ask=_ask,
    aggregate=over_questions(family),
)
