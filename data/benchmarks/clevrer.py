"""CLEVRER (arXiv:1910.01442): what happens, why, what next, and what if, in videos of collisions.

Fields and the two accuracies are those that the authors' executor/run_oe.py and run_mc.py read and print. There is no
text prompt of its own: the one put here is this project's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath
from string import digits
from typing import Any

from entropy_vision.errors import UsageError
from entropy_vision.question import Answer

from .answers import LETTERS, lettered, word_or_number
from .benchmark import Asked, Question, Spec
from .folder import Folder
from .media import Clip, Named
from .rows import BadRow, Row, json_rows, read_json
from .scores import mean

_FIELDS = ("question", "question_type", "question_id", "video_filename")
_WORD = "\nAnswer the question using a single word or phrase."
_LETTERS = "\nAnswer with the letters of all correct options, or none."
_KINDS = ("explanatory", "predictive", "counterfactual")


def _rows(folder: Folder, split: str) -> Iterator[Row]:
    file = folder.find((f"{split}.json",), "questions")[0]
    videos = read_json(file)
    if not isinstance(videos, list):
        raise UsageError(f"{file.name} holds no list of videos")
    return json_rows([one for video in videos for one in _questions(video)], file.name, _FIELDS)


def _questions(video: Any) -> list[Any]:
    """The questions of a video, each with the video's own fields; a video without any is one broken record."""
    if not isinstance(video, dict) or not isinstance(video.get("questions"), list):
        return [video]
    shared = {name: video.get(name) for name in ("scene_index", "video_filename")}
    return [{**shared, **one} if isinstance(one, dict) else one for one in video["questions"]]


def _ask(row: Row, folder: Folder, split: str) -> Question:
    question, kind = row.text("question"), row.text("question_type")
    video = row.text("video_filename")
    options: list[str] = []
    if kind == "descriptive":
        text, answer = question + _WORD, word_or_number(row.values.get("answer"))
    elif kind.split("_")[0] in _KINDS:
        options, right = _choices(row)
        text = "\n".join([question, *lettered(options)]) + _LETTERS
        answer = Answer("set", right, options=tuple(LETTERS[: len(options)]))
    else:
        raise BadRow(f"question_type {kind!r} is none of the benchmark's")
    number = "".join(c for c in PurePosixPath(video).stem if c in digits)
    shelf = f"video_{int(number) // 1000 * 1000:05d}-{int(number) // 1000 * 1000 + 1000:05d}" if number else ""
    return Question(
        key=f"clevrer-{split}-{video.removesuffix('.mp4')}-{row.name('question_id')}",
        text=text,
        answer=answer,
        family=kind.split("_")[0],
        medium=Clip(Named(folder, (f"video_{split}/{shelf}/{video}", f"video_{split}/{video}", video))),
        # by its options, from which the score of a question follows; the reverse does not
        meta={
            "profile": "official:clevrer-option" if options else "official:clevrer",
            "question": question,
            "options": options,
        },
    )


def _choices(row: Row) -> tuple[list[str], set[str]]:
    held = row.values.get("choices")
    if not isinstance(held, list) or not 0 < len(held) <= len(LETTERS):
        raise BadRow("choices is not a list of options")
    texts = [one.get("choice") if isinstance(one, dict) else None for one in held]
    marks = [one.get("answer") if isinstance(one, dict) else None for one in held]
    if not all(isinstance(text, str) and text for text in texts) or not all(
        mark in ("correct", "wrong") for mark in marks
    ):
        raise BadRow("a choice lacks its text, or is neither correct nor wrong")
    right = {letter for letter, mark in zip(LETTERS, marks, strict=False) if mark == "correct"}
    return [str(text) for text in texts], right


def _aggregate(scores: Sequence[float], items: Sequence[Asked]) -> dict[str, float]:
    """Accuracy of descriptive questions; of the others per option and per question.

    A score is the share of options that were judged rightly (`official:clevrer-option`); a question counts where it
    is 1.
    """
    result: dict[str, float] = {}
    chosen = [(s, i) for s, i in zip(scores, items, strict=True) if i.family != "descriptive"]
    open_ended = [s for s, i in zip(scores, items, strict=True) if i.family == "descriptive"]
    result["descriptive"] = mean(open_ended)
    for kind in _KINDS:
        mine = [(s, len(i.meta["options"])) for s, i in chosen if i.family == kind]
        result[f"{kind}_per_option"] = _weighted(mine)
        result[f"{kind}_per_question"] = mean([float(s == 1.0) for s, _ in mine])
    result["per_option"] = _weighted([(s, len(i.meta["options"])) for s, i in chosen])
    result["per_question"] = mean([float(s == 1.0) for s, _ in chosen])
    named = [result["descriptive"], *(result[f"{kind}_per_question"] for kind in _KINDS)]
    return {"overall": mean([value for value in named if value == value]), **result}


def _weighted(parts: Sequence[tuple[float, int]]) -> float:
    options = sum(n for _, n in parts)
    return sum(score * n for score, n in parts) / options if options else float("nan")


SPEC = Spec(
    name="clevrer",
    title="CLEVRER (arXiv:1910.01442)",
    media="video",
    files=(
        "validation.json (or train.json)",
        "video_validation/video_10000-11000/video_10000.mp4, or the zip of these",
    ),
    columns=(*_FIELDS, "answer or choices[choice, answer]"),
    splits=("validation", "train"),
    prompt="question ↵ answer in a word, or the options' letters and: answer with the letters of all correct options, "
    "or none (this project's)",
    metric="descriptive: accuracy; explanatory, predictive, counterfactual: per option and per question (all options "
    "right); overall = mean of the four per-question accuracies (this project's, none is published)",
    faults="options are judged one by one, so a constant earns a part of the accuracy per option: read it per question",
    licence="CC0, from memory of the dataset's page",
    profile="official:clevrer",
    rows=_rows,
    ask=_ask,
    aggregate=_aggregate,
)
