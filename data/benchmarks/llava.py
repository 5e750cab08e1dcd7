"""Any conversations in LLaVA's form (VLM-R1's too): {id, image | video, conversations: [{from, value}]}, JSON or lines.

Every human turn with the answer behind it is a question of its own, asked without the turns before it; it is put as it
stands, without the marks <image> and <video>. An answer that no rule verifies (a sentence of free text) is a row that
is skipped, with the reason.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from typing import Any

from entropy_vision.question import Answer

from .answers import choice, choice_at, exact, number, word_or_number
from .benchmark import Question, Spec
from .folder import Folder
from .media import Clip, Medium, Named, Stills
from .rows import BadRow, Row, json_rows, read_records
from .scores import family, over_questions

_FIELDS = ("conversations",)
_MARK = re.compile(r"<(?:image|video)>\s*")
_OPTION = re.compile(r"^\s*\(?([A-Z])[.):]\s+(.+?)\s*$", re.MULTILINE)
_LETTER = re.compile(r"\(?([A-Z])\)?\s*[.:)]?(?:\s+(.*))?", re.DOTALL)
_THOUGHT = re.compile(r"\s*<think>(.*?)</think>(.*)", re.DOTALL)
_TAGGED = re.compile(r"\s*<answer>(.*?)</answer>\s*", re.DOTALL)
_TAG = re.compile(r"</?(?:think|answer)>")
_REAL = re.compile(r"[+-]?\d+\.\d+")
_WORDS = 8  # a longer answer is a sentence, and no rule says which other sentence is as right


def _rows(folder: Folder, split: str) -> Iterator[Row]:
    file = folder.file(split)
    turns = [turn for record in read_records(file) for turn in _turns(record)]
    return json_rows(turns, file.name, _FIELDS)


def _turns(record: Any) -> list[Any]:
    """A record for every pair of turns; one that is no conversation stays as it is, to be counted."""
    said = record.get("conversations") if isinstance(record, dict) else None
    if not isinstance(said, list) or not said:
        return [record]
    pairs = [said[place : place + 2] for place in range(0, len(said), 2)]
    return [{**record, "conversations": pair, "turn": turn} for turn, pair in enumerate(pairs)]


def _ask(row: Row, folder: Folder, split: str) -> Question:
    pair = row.values.get("conversations")
    if not row.values:
        raise BadRow("it is no JSON object")
    if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(one, dict) for one in pair):
        raise BadRow("conversations is no pair of turns")
    asked, told = (one.get("value") for one in pair)
    if not isinstance(asked, str) or not isinstance(told, str):
        raise BadRow("a turn has no text")
    text = _MARK.sub("", asked).strip()
    rationale, said = _parted(told)
    return Question(
        key=f"llava-{split}-{row.number}",
        text=text,
        answer=_answer(text, said),
        family=str(row.values.get("data_source") or "conversation"),
        medium=_medium(row, folder),
        meta={"profile": "robust", "question": text, "id": str(row.values.get("id", "")), "turn": row.values["turn"]},
        rationale=rationale,
    )


def _parted(told: str) -> tuple[str, str]:
    """(the thoughts in `<think>`, if there are any; the answer behind them, in `<answer>` or bare).

    Raises:
        BadRow: tags that do not part it so.
    """
    thought = _THOUGHT.fullmatch(told)
    rationale, rest = thought.groups() if thought else ("", told)
    tagged = _TAGGED.fullmatch(rest)
    answer = (tagged.group(1) if tagged else rest).strip()
    if _TAG.search(answer) or (thought and not answer):
        raise BadRow("what it says is not <think>...</think> and then an answer, in <answer>...</answer> or bare")
    return rationale.strip(), answer


def _answer(question: str, told: str) -> Answer:
    options = _options(question)
    letter, bare = _LETTER.fullmatch(told), [option.rstrip(".") for option in options]
    if told.rstrip(".") in bare:
        return choice_at(bare.index(told.rstrip(".")), options)
    if options and letter:
        answer = choice(letter.group(1), options)
        given = (letter.group(2) or "").strip().rstrip(".")
        if given and given != bare[ord(answer.value) - ord("A")]:
            raise BadRow(f"the answer {told!r} names a letter and another option's text")
        return answer
    if told.startswith("["):
        return _box(told)
    if _REAL.fullmatch(told):
        return number(told)
    short = told.rstrip(".")
    if len(short.split()) > _WORDS:
        raise BadRow(f"the answer is free text of {len(short.split())} words, which no rule verifies")
    return word_or_number(short) if short else exact(told)


def _options(question: str) -> list[str]:
    """The options a question lists, if they are lettered A, B, … without a gap."""
    found = _OPTION.findall(question)
    letters = "".join(letter for letter, _ in found)
    return (
        [text for _, text in found] if len(found) > 1 and letters == "ABCDEFGHIJKLMNOPQRSTUVWXYZ"[: len(found)] else []
    )


def _box(told: str) -> Answer:
    try:
        held = json.loads(told, parse_int=float)
    except (ValueError, RecursionError):
        raise BadRow(f"the answer {told[:40]!r} is not JSON") from None
    if len(held) != 4 or not all(isinstance(one, float) and math.isfinite(one) for one in held) or not _has_area(held):
        raise BadRow(f"the answer {told[:40]!r} is no box (x0, y0, x1, y1)")
    return Answer("box", tuple(held))


def _has_area(box: list[float]) -> bool:
    return box[0] < box[2] and box[1] < box[3]


def _medium(row: Row, folder: Folder) -> Medium:
    video, image = row.values.get("video"), row.values.get("image")
    if isinstance(video, str) and video:
        return Clip(Named(folder, (video, f"videos/{video}")))
    named = [image] if isinstance(image, str) else image
    if not isinstance(named, list) or not named or not all(isinstance(one, str) and one for one in named):
        raise BadRow("neither image nor video names a file")
    return Stills(tuple(Named(folder, (one, f"images/{one}")) for one in named))


SPEC = Spec(
    name="llava",
    title="Any conversations in LLaVA's or VLM-R1's form",
    media="any",
    files=("the .jsonl or .json; images and videos below its folder",),
    columns=("conversations[from, value]", "image or video", "id, data_source (optional)"),
    splits=(),
    prompt="the turn as it stands, without <image> and <video>",
    metric="accuracy over questions; by data_source beside it",
    licence="that of the file",
    profile="robust",
    rows=_rows,
    ask=_ask,
    aggregate=over_questions(family),
)
