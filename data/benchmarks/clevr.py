"""CLEVR (arXiv:1612.06890), its CoGenT splits, and Super-CLEVR (arXiv:2212.00259): rendered scenes, exact questions.

Fields are those of clevr-dataset-gen's question files and of superCLEVR_questions_30k.json. Neither has a text prompt
of its own: the one put here is this project's.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import PurePosixPath
from typing import Any

from entropy_vision.errors import UsageError

from .answers import word_or_number
from .benchmark import Question, Spec
from .folder import Folder
from .media import Named, Stills
from .rows import BadRow, Row, json_rows, read_json
from .scores import family, over_questions

_FIELDS = ("question", "answer", "image_filename")
_AFTER = "\nAnswer the question using a single word or phrase."
_SUPER_SPLITS = {"train": range(20_000), "val": range(20_000, 25_000), "test": range(25_000, 30_000)}


def _records(folder: Folder, patterns: tuple[str, ...]) -> Iterator[Row]:
    file = folder.find(patterns, "questions")[0]
    held = read_json(file)
    if not isinstance(held, dict) or not isinstance(held.get("questions"), list):
        raise UsageError(f"{file.name} has no field questions that is a list")
    return json_rows(held["questions"], file.name, _FIELDS)


def _rows(folder: Folder, split: str) -> Iterator[Row]:
    return _records(folder, (f"questions/CLEVR_{split}_questions.json", f"CLEVR_{split}_questions.json"))


def _super_rows(folder: Folder, split: str) -> Iterator[Row]:
    for row in _records(folder, ("superCLEVR_questions_30k.json", "superCLEVR_questions*.json")):
        place = _place(row)
        if split == "all" or place is None or place in _SUPER_SPLITS[split]:
            yield row


def _place(row: Row) -> int | None:
    """The number of a Super-CLEVR image: the first 20,000 train, the next 5,000 val, the last test (its README)."""
    if type(row.values.get("image_index")) is int:
        return int(row.values["image_index"])
    digits = "".join(c for c in PurePosixPath(str(row.values.get("image_filename", ""))).stem if c.isdecimal())
    return int(digits) if digits else None


def _ask(row: Row, folder: Folder, split: str, name: str) -> Question:
    question, image = row.text("question"), row.text("image_filename")
    if row.values.get("answer") is None:
        raise BadRow("answer is missing")
    answer = word_or_number(row.values["answer"])
    # the rule that is published for Super-CLEVR reads counts only; its other answers are words like CLEVR's
    rule = name if answer.kind == "integer" else "clevr"
    return Question(
        key=f"{name}-{split}-{row.number}",
        text=question + _AFTER,
        answer=answer,
        family=_last_function(row.values.get("program")),
        medium=Stills((Named(folder, (f"images/{split}/{image}", f"images/{image}", image)),)),
        meta={"profile": f"official:{rule}", "question": question},
    )


def _last_function(program: Any) -> str:
    """What a program ends with says the kind of question; older files call it function, newer ones type."""
    last = program[-1] if isinstance(program, list) and program else {}
    named = (last.get("function") or last.get("type")) if isinstance(last, dict) else None
    return str(named or "question")


SPEC = Spec(
    name="clevr",
    title="CLEVR and CLEVR-CoGenT (arXiv:1612.06890)",
    media="image",
    files=("questions/CLEVR_SPLIT_questions.json", "images/SPLIT/CLEVR_SPLIT_000000.png"),
    columns=_FIELDS,
    splits=("val", "train", "valA", "valB", "trainA"),
    prompt=f"question{_AFTER.replace(chr(10), ' ↵ ')} (this project's)",
    metric="exact match over questions; by the program's last function beside it",
    faults="none known of the metric; answers of the test splits are not public",
    licence="CC BY 4.0",
    profile="official:clevr",
    rows=_rows,
    ask=partial(_ask, name="clevr"),
    aggregate=over_questions(family),
)

SUPER = Spec(
    name="super-clevr",
    title="Super-CLEVR (arXiv:2212.00259)",
    media="image",
    files=("superCLEVR_questions_30k.json", "images/superCLEVR_new_000000.png, or images.zip"),
    columns=(*_FIELDS, "image_index (optional)"),
    splits=("test", "val", "train", "all"),
    prompt=f"question{_AFTER.replace(chr(10), ' ↵ ')} (this project's)",
    metric="exact match over questions; by the program's last function beside it",
    faults="none known of the metric; public reward sets use 200 counting questions of it, which is another number",
    licence="MIT",
    profile="official:super-clevr",
    rows=_super_rows,
    ask=partial(_ask, name="super-clevr"),
    aggregate=over_questions(family),
)
