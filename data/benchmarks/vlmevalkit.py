"""Any question set in VLMEvalKit's TSV: index, image (base64), question, hint, options A to Z, answer, category.

The prompt of questions with options is that of VLMEvalKit's image_mcq.py; that of questions without is from memory of
its image_vqa.py.
"""

from __future__ import annotations

from collections.abc import Iterator

from .answers import choice, lettered, options_in_columns, word_or_number
from .benchmark import Question, Spec
from .folder import Folder
from .media import Named, Stills
from .rows import BadRow, Row, tsv_rows
from .scores import family, over_questions

_COLUMNS = ("index", "question", "answer")


def _rows(folder: Folder, split: str) -> Iterator[Row]:
    return tsv_rows((folder.file(split),), _COLUMNS)


def _ask(row: Row, folder: Folder, split: str) -> Question:
    question = row.text("question")
    options = options_in_columns(row)
    hint = row.values.get("hint") or ""
    text = f"Hint: {hint}\n" if hint else ""
    if options:
        listed = "".join(f"{option}\n" for option in lettered(options))
        text += f"Question: {question}\nOptions:\n{listed}Please select the correct answer from the options above. \n"
        answer = choice(row.text("answer"), options)
    else:
        text += f"{question}\nAnswer the question using a single word or phrase."
        answer = word_or_number(row.text("answer"))
    return Question(
        key=f"vlmevalkit-{split}-{row.name('index')}",
        text=text,
        answer=answer,
        family=str(row.values.get("category") or "question"),
        medium=_medium(row, folder),
        meta={"profile": "robust", "question": question},
    )


def _medium(row: Row, folder: Folder) -> Stills:
    if "image" in row.pictures:
        return Stills((row.pictures["image"],))
    path = row.values.get("image_path")
    if not isinstance(path, str) or not path:
        raise BadRow("neither image nor image_path is there")
    return Stills((Named(folder, (path, f"images/{path}")),))


SPEC = Spec(
    name="vlmevalkit",
    title="Any TSV in VLMEvalKit's form",
    media="images",
    files=("the TSV",),
    columns=(*_COLUMNS, "image or image_path", "A, B, … (choices)", "hint, category (optional)"),
    splits=(),
    prompt="Hint: … ↵ Question: … ↵ Options: ↵ A. … ↵ Please select the correct answer from the options above. ↵",
    metric="accuracy over questions; by category beside it",
    licence="that of the file",
    profile="robust",
    rows=_rows,
    ask=_ask,
    aggregate=over_questions(family),
)
