"""Geometry3K (Inter-GPS, arXiv:2105.04165): school geometry with a diagram, four choices.

Columns and prompt are those of lmms-eval's task geometry3k and of the table's card.
"""

from __future__ import annotations

from collections.abc import Iterator

from .answers import choice, lettered
from .benchmark import Question, Spec
from .folder import Folder
from .media import Stills
from .rows import Row, parquet_rows
from .scores import over_questions

_COLUMNS = ("problem", "choices", "ground_truth")
_AFTER = "\nAnswer with the option's letter from the given choices directly."


def _rows(folder: Folder, split: str) -> Iterator[Row]:
    return parquet_rows(folder, (f"{split}-*.parquet", f"{split}.parquet"), _COLUMNS, ("images",))


def _ask(row: Row, folder: Folder, split: str) -> Question:
    # the diagram comes before the text, so the mark of its place would stand for nothing
    problem = row.text("problem").replace("<image>", "").strip()
    options = row.texts("choices")
    return Question(
        key=f"geometry3k-{split}-{row.number}",
        text="\n".join([problem, *lettered(options[:4])]) + _AFTER,
        answer=choice(row.text("ground_truth"), options[:4]),
        family="geometry3k",
        medium=Stills((row.pictures["images"],)),
        meta={"profile": "official:geometry3k", "question": problem},
    )


SPEC = Spec(
    name="geometry3k",
    title="Geometry3K, Inter-GPS (arXiv:2105.04165)",
    media="image",
    files=("test-*.parquet (or train, validation)",),
    columns=(*_COLUMNS, "images"),
    splits=("test", "validation", "train"),
    prompt=f"problem ↵ A. … ↵ … ↵ D. …{_AFTER.replace(chr(10), ' ↵ ')} (lmms-eval)",
    metric="accuracy over questions",
    faults="the last letter that stands alone counts, an article 'a' too",
    licence="MIT (the table's card)",
    profile="official:geometry3k",
    rows=_rows,
    ask=_ask,
    aggregate=over_questions(),
)
