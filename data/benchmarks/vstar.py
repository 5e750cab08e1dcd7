"""V*Bench (arXiv:2312.14135): small things in large photographs.

Columns and prompt are those of lmms-eval's task vstar_bench, which takes the options out of the question's text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from .answers import choice, lettered
from .benchmark import Question, Spec
from .folder import Folder
from .media import Stills
from .rows import BadRow, Row, parquet_rows
from .scores import family, over_questions

_COLUMNS = ("text", "label", "category", "question_id")
_AFTER = "\nAnswer with the option's letter from the given choices directly."
_OPTION = re.compile(r"\([A-D]\)\s*([^()]+?)(?=\s*\([A-D]\)|$)")


def _rows(folder: Folder, split: str) -> Iterator[Row]:
    return parquet_rows(folder, ("test-*.parquet", "test.parquet", "test*.parquet"), _COLUMNS, ("image",))


def _ask(row: Row, folder: Folder, split: str) -> Question:
    told = row.text("text")
    options = [option.strip() for option in _OPTION.findall(told)][:4]
    if len(options) < 2:
        raise BadRow("the text lists no options (A), (B), …")
    question = told.split("(A)")[0].strip()
    # where the text ends in the instruction already, it stands in the last option, and twice in the official prompt
    bare = [option.removesuffix(_AFTER.strip()).strip() for option in options]
    return Question(
        key=f"vstar-{split}-{row.name('question_id')}-{row.number}",
        text="\n".join([question, *lettered(options)]) + _AFTER,
        answer=choice(row.text("label"), bare),
        family=row.text("category"),
        medium=Stills((row.pictures["image"],)),
        meta={"profile": "official:vstar", "question": question},
    )


SPEC = Spec(
    name="vstar",
    title="V*Bench (arXiv:2312.14135)",
    media="image",
    files=("test-*.parquet",),
    columns=(*_COLUMNS, "image"),
    splits=("test",),
    prompt=f"question ↵ A. … ↵ …{_AFTER.replace(chr(10), ' ↵ ')} (lmms-eval)",
    metric="accuracy over questions; direct_attributes and relative_position beside it",
    faults="any capital A to D will do: 'A dog' is A",
    licence="MIT (code); pictures of SA-1B under its research licence",
    profile="official:vstar",
    rows=_rows,
    ask=_ask,
    aggregate=over_questions(family),
)
