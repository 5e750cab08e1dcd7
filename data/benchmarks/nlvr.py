"""NLVR (Suhr et al., ACL 2017): is a sentence true of three boxes of drawn things? Every example in six orders.

Fields, names of pictures, accuracy and consistency are those of the corpus' README and metrics_images.py. Pictures are
found by file name, since not every release has the field `directory` (hidden.json has neither it nor `evals`). The
corpus has no text prompt: the one put here is this project's.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial

from .answers import yesno
from .benchmark import Asked, Question, Spec
from .folder import Folder
from .media import Stills
from .nlvr_boxes import Pictures, patches_of, read_scene, scene_key, scene_rects
from .rows import BadRow, Row, json_rows, read_json_lines
from .scores import all_right, mean

ORDERS = tuple(itertools.permutations(range(3)))  # of the boxes, by the number at the end of a picture's name
_FIELDS = ("identifier", "sentence", "label", "structured_rep")
_AFTER = "\nIs this sentence true of the image? Answer true or false."


def _rows(folder: Folder, split: str) -> Iterator[Row]:
    file = folder.find((f"{split}/{split}.json", f"{split}.json"), "sentences")[0]
    pictures = Pictures(folder, split)
    for row in json_rows(read_json_lines(file), file.name, _FIELDS):
        for order in range(len(ORDERS)):
            picture = pictures.picture(f"{split}-{row.values.get('identifier')}-{order}.png")
            where = f"{row.where} order {order}"
            yield replace(row, where=where, values={**row.values, "order": order}, pictures={"image": picture})


def _ask(row: Row, folder: Folder, split: str) -> Question:
    """The label holds for every order. `evidence` is all that is drawn, as a sentence may be about any of it."""
    identifier, sentence, order = row.text("identifier"), row.text("sentence"), row.whole("order")
    presentation, dash, _ = identifier.partition("-")
    if not dash:
        raise BadRow(f"the identifier {identifier!r} is not presentation-place")
    scene = read_scene(row.values.get("structured_rep"))
    shown = tuple(scene[box] for box in ORDERS[order])
    return Question(
        key=f"nlvr-{split}-{identifier}-{order}",
        text=sentence + _AFTER,
        answer=yesno(row.text("label")),
        family="towers" if _is_tower(scene) else "scatter",
        medium=Stills((row.pictures["image"],)),
        meta={
            "profile": "official:nlvr",
            "question": sentence,
            "presentation": presentation,
            "example": identifier,
            "scene_key": scene_key(scene),
        },
        mask=partial(patches_of, scene_rects(shown)),
    )


def _is_tower(scene: tuple[tuple[object, ...], ...]) -> bool:
    things = [thing for box in scene for thing in box]
    return all((t.shape, t.size, t.x) == ("square", 20, 40) for t in things)  # type: ignore[attr-defined]


def _aggregate(scores: Sequence[float], items: Sequence[Asked]) -> dict[str, float]:
    """Accuracy over pictures, and the share of presentations with every picture of theirs right."""
    return {
        "overall": mean(scores),
        "consistency": all_right(scores, items, lambda item: item.meta["presentation"]),
        "examples": all_right(scores, items, lambda item: item.meta["example"]),
    }


SPEC = Spec(
    name="nlvr",
    title="NLVR (Suhr et al., ACL 2017)",
    media="image",
    files=("dev/dev.json (or test, train, hidden)", "dev/images/*/dev-1-0-0.png, …-5.png; or the zip of these"),
    columns=_FIELDS,
    splits=("dev", "test", "hidden", "train"),
    prompt=f"sentence{_AFTER.replace(chr(10), ' ↵ ')} (this project's)",
    metric="accuracy over pictures (overall), consistency: presentations with all their pictures right; beside them "
    "examples right in all six orders",
    faults="none known of the metric; the test splits are public, so tune on none of them",
    licence="CC BY 4.0",
    profile="official:nlvr",
    rows=_rows,
    ask=_ask,
    aggregate=_aggregate,
)
