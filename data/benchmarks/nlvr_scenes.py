"""Questions with exact answers about the training pictures of NLVR, from their scene graphs.

The answer comes first: of every question, in each of its wordings, each answer is asked equally often, about scenes
that are drawn from those that have it. So nobody who reads only the text can do better than one over the number of its
answers. Answers that few scenes have are left out of a question, as many as cost the fewest questions.

Needed is `train_recovered_scenes.jsonl` beside the pictures: {identifier, directory, structured_rep} of every scene, as
the corpus' own files hold them. A scene, whatever the order of its boxes, is in one split only: every tenth by the hash
of its key in `val`. Scenes that occur again are asked about once.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from itertools import product
from typing import Any

import numpy as np

from entropy_vision.frames import Frames
from entropy_vision.question import Answer

from .benchmark import Question, Spec
from .folder import Folder
from .media import Stills
from .nlvr_boxes import SHAPES, Pictures, Rect, Scene, Thing, box_rect, patches_of, read_scene, rect, scene_key
from .nlvr_tables import ALL, ANY, COLORS, PLACES, Program, Tables, programs, solve
from .rows import BadRow, Row, json_rows, read_json_lines
from .scores import family, over_parts

_FIELDS = ("identifier", "structured_rep")
_PER_FAMILY = 4000  # questions at most, over all of a family's programs and wordings


@dataclass(frozen=True)
class _Family:
    """How a kind of question is worded and answered.

    Attributes:
        wordings: with the program's words in {}; all name the possible answers of a choice.
        answer: from the index that `solve` gives.
    """

    wordings: tuple[str, ...]
    answer: Callable[[int], Answer]


def _integer(value: int) -> Answer:
    return Answer("integer", value)


def _yesno(value: int) -> Answer:
    return Answer("yesno", bool(value))


def _place(value: int) -> Answer:
    return Answer("choice", "ABC"[value], options=PLACES)


FAMILIES: Mapping[str, _Family] = {
    "count": _Family(
        (
            "How many {kinds} are there in {where}?",
            "Count the {kinds} in {where}.",
            "In {where}, how many {kinds} are there?",
        ),
        _integer,
    ),
    "touching": _Family(
        (
            "How many {kinds} in {where} touch a wall of their box?",
            "Count the {kinds} in {where} that touch an edge of their box.",
            "In {where}, how many {kinds} are in contact with a side of the box they are in?",
        ),
        _integer,
    ),
    "exists": _Family(
        ("Is there a {kind} in {where}?", "Does {where} contain a {kind}?", "In {where}, is there any {kind}?"), _yesno
    ),
    "height": _Family(
        (
            "How many blocks has the tower in {where}?",
            "How tall is the tower in {where}, counted in blocks?",
            "Count the blocks of the tower in {where}.",
        ),
        _integer,
    ),
    "end": _Family(
        (
            "Which color is the {end} block in {where}: yellow, black or blue?",
            "The {end} block of the tower in {where} is yellow, black or blue?",
            "Is the block at the {end} of the tower in {where} yellow, black or blue?",
        ),
        lambda value: Answer("choice", "ABC"[value], options=COLORS),
    ),
    "color": _Family(
        (
            "What color is the only {kind} in {where}?",
            "There is one {kind} in {where}. What is its color?",
            "Name the color of the single {kind} in {where}.",
        ),
        lambda value: Answer("exact", COLORS[value]),
    ),
    "shape": _Family(
        (
            "What shape is the only {kind} in {where}: square, circle or triangle?",
            "There is one {kind} in {where}. Is it a square, a circle or a triangle?",
            "The single {kind} in {where} is a square, a circle or a triangle?",
        ),
        lambda value: Answer("choice", "ABC"[value], options=SHAPES),
    ),
    "where": _Family(
        (
            "Which box holds the only {kind}: left, middle or right?",
            "There is one {kind}. Is it in the left, middle or right box?",
            "In which box is the single {kind}, left, middle or right?",
        ),
        _place,
    ),
    "most": _Family(
        (
            "Which box holds the most {kinds}: left, middle or right?",
            "Where are the most {kinds}: in the left, middle or right box?",
            "Of the left, middle and right box, which has the largest number of {kinds}?",
        ),
        _place,
    ),
    "more": _Family(
        (
            "Are there more {kinds} than {others} in the image?",
            "Does the image show more {kinds} than {others}?",
            "Is the number of {kinds} larger than the number of {others}?",
        ),
        _yesno,
    ),
    "relation": _Family(
        (
            "In {where}, is the {kind} {beside} the {other}?",
            "Is the {kind} {beside} the {other} in {where}?",
            "Looking at {where}: is the {kind} {beside} the {other}?",
        ),
        _yesno,
    ),
}


def wording(program: Program, number: int) -> str:
    """A program as one of its family's questions."""
    words = _words(program)
    return FAMILIES[program[0]].wordings[number].format(**words)


def _words(program: Program) -> dict[str, str]:
    name, *rest = program
    if name in ("count", "touching", "exists"):
        color, shape, place = rest
        return {"kind": _noun(color, shape), "kinds": _noun(color, shape, "s"), "where": _where(place)}
    if name == "relation":
        color, shape, other, its, place, relation = rest
        beside = "left of" if relation == "left" else "above"
        return {"kind": _noun(color, shape), "other": _noun(other, its), "where": _where(place), "beside": beside}
    if name == "more":
        return {"kinds": _noun(rest[0], ANY, "s"), "others": _noun(rest[1], ANY, "s")}
    if name == "where":
        return {"kind": _noun(*rest)}
    if name == "most":
        return {"kinds": _noun(rest[0], ANY, "s")}
    where = _where(rest[-1])
    if name == "end":
        return {"end": rest[0], "where": where}
    if name == "height":
        return {"where": where}
    return {"kind": _noun(ANY, rest[0]) if name == "color" else _noun(rest[0], ANY), "where": where}


def _noun(color: str, shape: str, plural: str = "") -> str:
    thing = f"{'thing' if shape == ANY else shape}{plural}"
    return thing if color == ANY else f"{color} {thing}"


def _where(place: str) -> str:
    return "the image" if place == ALL else f"the {place} box"


def evidence(program: Program, scene: Scene) -> list[Rect]:
    """What one must see to answer: the things asked about, or the boxes that hold none of them."""
    name, *rest = program
    if name in ("count", "touching", "exists"):
        color, shape, place = rest
        return _things(scene, _boxes(place), [(color, shape)])
    if name == "relation":
        return _things(scene, _boxes(rest[4]), [(rest[0], rest[1]), (rest[2], rest[3])])
    if name == "more":
        return _things(scene, _boxes(ALL), [(rest[0], ANY), (rest[1], ANY)])
    if name == "most":
        return _things(scene, _boxes(ALL), [(rest[0], ANY)])
    if name == "where":
        return _things(scene, _boxes(ALL), [(rest[0], rest[1])])
    if name == "color":
        return _things(scene, _boxes(rest[1]), [(ANY, rest[0])])
    if name == "shape":
        return _things(scene, _boxes(rest[1]), [(rest[0], ANY)])
    return _things(scene, _boxes(rest[-1]), [(ANY, ANY)])  # a tower: all its blocks


def _boxes(place: str) -> Sequence[int]:
    return range(3) if place == ALL else (PLACES.index(place),)


def _things(scene: Scene, boxes: Sequence[int], kinds: Sequence[tuple[str, str]]) -> list[Rect]:
    """The things of some kinds, and for every kind that a box lacks, the box: one must see it all to know."""
    found: list[Rect] = []
    for box, (color, shape) in product(boxes, kinds):
        mine = [rect(box, thing) for thing in scene[box] if _is(thing, color, shape)]
        found += mine or [box_rect(box)]
    return found


def _is(thing: Thing, color: str, shape: str) -> bool:
    return color in (ANY, thing.color) and shape in (ANY, thing.shape)


def _rows(folder: Folder, split: str) -> Iterator[Row]:
    file = folder.find(("train_recovered_scenes.jsonl", "train/train_recovered_scenes.jsonl"), "scene graphs")[0]
    pictures = Pictures(folder, "train")
    known: dict[str, tuple[str, Scene]] = {}
    for row in json_rows(read_json_lines(file), file.name, _FIELDS):
        try:
            scene = read_scene(row.values.get("structured_rep"))
            key, identifier = scene_key(scene), row.text("identifier")
        except BadRow as error:
            yield Row(row.where, row.number, {"fault": str(error)})
            continue
        if _split_of(key) == split:
            known.setdefault(key, (identifier, scene))
    scenes = list(known.values())
    keys = list(known)
    for place, program, number, value in _deal([scene for _, scene in scenes]):
        identifier, scene = scenes[place]
        values: dict[str, Any] = {"identifier": identifier, "scene": scene, "program": program}
        picture = pictures.picture(f"train-{identifier}-0.png")
        values |= {"wording": number, "value": value, "scene_key": keys[place]}
        yield Row(f"{file.name} {identifier}", place, values, {"image": picture})


def _split_of(key: str) -> str:
    return "val" if int(key[:8], 16) % 10 == 0 else "train"


def _deal(scenes: Sequence[Scene]) -> list[tuple[int, Program, int, int]]:
    """(scene, program, wording, answer), every answer of a wording equally often, in the order of the scenes."""
    tables, asked = Tables.of(scenes), Counter(program[0] for program in programs())
    dealt: list[tuple[int, Program, int, int]] = []
    for program in programs():
        wordings = len(FAMILIES[program[0]].wordings)
        answers = solve(program, tables)
        most = _PER_FAMILY // (asked[program[0]] * wordings)
        kept, each = _balanced(np.bincount(answers[answers >= 0], minlength=1), wordings, most)
        rng = np.random.default_rng(list(hashlib.blake2b(" ".join(program).encode(), digest_size=8).digest()))
        for value in kept:
            chosen = rng.permutation(np.flatnonzero(answers == value))[: each * wordings]
            dealt += [(int(place), program, rank % wordings, value) for rank, place in enumerate(chosen)]
    return sorted(dealt, key=lambda one: one[0])


def _balanced(counts: np.ndarray, wordings: int, most: int) -> tuple[list[int], int]:
    """Which answers to ask for, and how often each in a wording: as many answers as leave three quarters of the most
    questions there can be.

    Args:
        counts: scenes with each answer.
        most: questions of a wording, all answers together.
    """
    order = [int(value) for value in np.argsort(-counts, kind="stable") if counts[value] > 0]
    sets = [
        (kinds, min(int(counts[order[kinds - 1]]) // wordings, most // kinds)) for kinds in range(2, len(order) + 1)
    ]
    best = max((kinds * each for kinds, each in sets), default=0)
    kinds, each = max(((k, e) for k, e in sets if k * e >= 0.75 * best), default=(0, 0))
    return sorted(order[:kinds]), each


@cache
def _answer(name: str, value: int) -> Answer:
    return FAMILIES[name].answer(value)


def _mask(program: Program, scene: Scene, frames: Frames) -> np.ndarray:
    return patches_of(evidence(program, scene), frames)


def _ask(row: Row, folder: Folder, split: str) -> Question:
    if "fault" in row.values:
        raise BadRow(str(row.values["fault"]))
    program, scene, number = row.values["program"], row.values["scene"], row.values["wording"]
    text = wording(program, number)
    return Question(
        key=f"nlvr-scenes-{split}-{row.values['identifier']}-{'.'.join(program)}",
        text=text,
        answer=_answer(program[0], row.values["value"]),
        family=program[0],
        medium=Stills((row.pictures["image"],)),
        meta={
            "profile": "strict",
            "question": text,
            "program": program,
            "identifier": row.values["identifier"],
            "scene_key": row.values["scene_key"],
        },
        mask=partial(_mask, program, scene),
    )


SPEC = Spec(
    name="nlvr-scenes",
    title="Template questions about NLVR's training pictures, from their scene graphs",
    media="image",
    files=("train/train_recovered_scenes.jsonl", "train/images/*/train-1-0-0.png; or the zip of these"),
    columns=_FIELDS,
    splits=("train", "val"),
    prompt="none but the question, in one of three wordings",
    metric="accuracy; overall = mean of the families; every answer of a text is equally frequent",
    licence="CC BY 4.0 (the corpus)",
    profile="strict",
    rows=_rows,
    ask=_ask,
    aggregate=over_parts(family),
)
