"""GQA (arXiv:1902.09506): compositional questions about photographs.

Read as lmms-eval reads it (instructions and images in two tables that are joined by imageId), or as published:
testdev_balanced_questions.json, an object of questions by their id, and images/. The fields of the latter are from
memory of the dataset's page.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from entropy_vision.errors import UsageError

from .answers import exact, yesno
from .benchmark import Question, Spec
from .folder import Folder
from .media import Named, Stills
from .rows import Row, json_rows, parquet_rows, read_json
from .scores import meta, over_questions

_COLUMNS = ("id", "imageId", "question", "answer")
_AFTER = "\nAnswer the question using a single word or phrase."


def _rows(folder: Folder, split: str) -> Iterator[Row]:
    tables = f"{split}_instructions/*.parquet"
    if folder.matches(tables):
        pictures = {
            str(row.values.get("id")): row.pictures["image"]
            for row in parquet_rows(folder, (f"{split}_images/*.parquet",), ("id",), ("image",))
        }
        for row in parquet_rows(folder, (tables,), _COLUMNS):
            own = pictures.get(str(row.values.get("imageId")))
            yield replace(row, pictures={"image": own} if own is not None else {})
        return
    file = folder.find((f"{split}_questions.json", tables), "questions")[0]
    held = read_json(file)
    if not isinstance(held, dict):
        raise UsageError(f"{file.name} is no object of questions by their id")
    records = [{**one, "id": key} if isinstance(one, dict) else one for key, one in held.items()]
    yield from json_rows(records, file.name, _COLUMNS)


def _ask(row: Row, folder: Folder, split: str) -> Question:
    question, image, truth = row.text("question"), row.name("imageId"), row.text("answer")
    held = row.pictures.get("image") or Named(folder, (f"images/{image}.jpg", f"{image}.jpg"))
    types = row.values.get("types")
    return Question(
        key=f"gqa-{split}-{row.name('id')}",
        text=question + _AFTER,
        answer=yesno(truth) if truth.lower() in ("yes", "no") else exact(truth),
        family="gqa",
        medium=Stills((held,)),
        meta={
            "profile": "official:gqa",
            "question": question,
            "structural": str((types or {}).get("structural", "all")) if isinstance(types, dict) else "all",
        },
    )


SPEC = Spec(
    name="gqa",
    title="GQA (arXiv:1902.09506)",
    media="image",
    files=(
        "testdev_balanced_instructions/*.parquet and testdev_balanced_images/*.parquet",
        "or testdev_balanced_questions.json and images/ID.jpg",
    ),
    columns=(*_COLUMNS, "image (of the images' table)"),
    splits=("testdev_balanced", "val_balanced", "train_balanced"),
    prompt=f"question{_AFTER.replace(chr(10), ' ↵ ')} (lmms-eval)",
    metric="exact match over questions, without case and punctuation; by structural type beside it",
    faults="a synonym, or the answer with an article, is wrong",
    licence="questions CC BY 4.0; pictures of Visual Genome under their own terms",
    profile="official:gqa",
    rows=_rows,
    ask=_ask,
    aggregate=over_questions(meta("structural")),
)
