"""NLVR2 (arXiv:1811.00491): is a sentence true of two photographs?

Fields, names of pictures and both numbers are those of the corpus' README and eval/metrics.py. It has no text prompt
of its own: the one put here is this project's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from .answers import yesno
from .benchmark import Asked, Question, Spec
from .folder import Folder
from .media import Named, Stills
from .rows import BadRow, Row, json_rows, read_json_lines
from .scores import all_right, mean

_FIELDS = ("identifier", "sentence", "label")
_FILES = {"dev": "dev", "test1": "test1", "test2": "test2", "train": "train"}
_FILES |= {"balanced_dev": "balanced/balanced_dev", "balanced_test1": "balanced/balanced_test1"}
_AFTER = "\nIs this sentence true of the two images, the left one first? Answer true or false."


def _rows(folder: Folder, split: str) -> Iterator[Row]:
    name = _FILES[split]
    file = folder.find((f"data/{name}.json", f"{name}.json", f"{name.split('/')[-1]}.json"), "sentences")[0]
    return json_rows(read_json_lines(file), file.name, _FIELDS)


def _ask(row: Row, folder: Folder, split: str) -> Question:
    identifier, sentence = row.text("identifier"), row.text("sentence")
    parts, label = identifier.split("-"), row.values.get("label")
    if len(parts) != 4:
        raise BadRow(f"the identifier {identifier!r} is not split-set-pair-sentence")
    pair, home = "-".join(parts[:3]), row.values.get("directory")
    pictures = []
    for side in (0, 1):
        image = f"{pair}-img{side}.png"
        folders = (parts[0], f"images/{parts[0]}", *((f"images/train/{home}",) if home is not None else ()), "images")
        pictures.append(Named(folder, (*(f"{one}/{image}" for one in folders), image)))
    return Question(
        key=f"nlvr2-{split}-{identifier}",
        text=sentence + _AFTER,
        answer=yesno(str(label) if isinstance(label, bool) else row.name("label")),
        family="nlvr2",
        medium=Stills(tuple(pictures)),
        meta={
            "profile": "official:nlvr2",
            "question": sentence,
            "sentence": f"{parts[0]}-{parts[1]}-{parts[3]}",  # the pairs that one sentence was asked of
        },
    )


def _aggregate(scores: Sequence[float], items: Sequence[Asked]) -> dict[str, float]:
    """Accuracy, and the share of sentences that are right for every pair they were asked of."""
    consistency = all_right(scores, items, lambda item: item.meta["sentence"])
    return {"overall": mean(scores), "consistency": consistency}


SPEC = Spec(
    name="nlvr2",
    title="NLVR2 (arXiv:1811.00491)",
    media="images",
    files=("data/dev.json (or test1, test2, train, balanced/…)", "dev/dev-0-0-img0.png and -img1.png"),
    columns=_FIELDS,
    splits=tuple(_FILES),
    prompt=f"sentence{_AFTER.replace(chr(10), ' ↵ ')} (this project's)",
    metric="accuracy (overall) and consistency: sentences right for all their pairs",
    faults="none known of the metric; files are called .png whatever they hold",
    licence="sentences CC BY 4.0; the photographs are not licensed by the corpus",
    profile="official:nlvr2",
    rows=_rows,
    ask=_ask,
    aggregate=_aggregate,
)
