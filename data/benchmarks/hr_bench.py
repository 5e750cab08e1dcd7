"""HR-Bench (arXiv:2408.15556): questions about pictures of 4K and 8K, each asked with its options in several orders.

Columns and prompt are those of lmms-eval's task hrbench and of the table's card; the images are base64 text.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from .answers import choice, lettered, options_in_columns
from .benchmark import Asked, Question, Spec
from .folder import Folder
from .media import Stills
from .rows import Row, parquet_rows, tsv_rows
from .scores import mean, means, meta

_COLUMNS = ("index", "question", "answer", "category", "A", "B", "C", "D", "cycle_category")


def _rows(folder: Folder, split: str) -> Iterator[Row]:
    tables = (f"hr_bench_{split}.parquet", f"hrbench_{split}-*.parquet")
    text = f"hr_bench_{split}.tsv"
    if not any(map(folder.matches, tables)) and folder.matches(text):
        return tsv_rows(folder.matches(text), (*_COLUMNS, "image"))
    return parquet_rows(folder, tables, _COLUMNS, ("image",))


def _ask(row: Row, folder: Folder, split: str) -> Question:
    question = row.text("question").strip()
    options = options_in_columns(row)
    listed = "".join(f"{option}\n" for option in lettered(options))
    return Question(
        key=f"hr-bench-{split}-{row.name('index')}",
        text=f"{question}\n{listed}Answer the option letter directly.",
        answer=choice(row.text("answer"), options),
        family=row.text("category"),
        medium=Stills((row.pictures["image"],)),
        meta={"profile": "official:hr-bench", "question": question, "cycle": row.name("cycle_category")},
    )


def _aggregate(scores: Sequence[float], items: Sequence[Asked]) -> dict[str, float]:
    """Of every category, and of all, the mean over the orders of the options of their means."""
    pairs = list(zip(scores, items, strict=True))
    result = {"overall": mean(list(means(scores, items, meta("cycle")).values()))}
    for category in dict.fromkeys(item.family for item in items):
        mine = [(score, item) for score, item in pairs if item.family == category]
        result[category] = mean(list(means([s for s, _ in mine], [i for _, i in mine], meta("cycle")).values()))
    return result


SPEC = Spec(
    name="hr-bench",
    title="HR-Bench 4K and 8K (arXiv:2408.15556)",
    media="image",
    files=("hr_bench_4k.parquet or .tsv (or 8k)",),
    columns=(*_COLUMNS, "image"),
    splits=("4k", "8k"),
    prompt="question ↵ A. … ↵ Answer the option letter directly. (lmms-eval)",
    metric="accuracy, means over the orders of the options; single, cross and overall",
    faults="what its rules cannot read a model judges in the original: here it is 0",
    licence="other, see the dataset's page; pictures of DIV8K and of the web",
    profile="official:hr-bench",
    rows=_rows,
    ask=_ask,
    aggregate=_aggregate,
)
