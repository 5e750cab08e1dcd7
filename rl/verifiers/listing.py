"""Answers that are lists of words: ordering, set."""

from __future__ import annotations

import json
import re

from entropy_vision.question import Answer

from .normal import plain, tidy, without_opening
from .verdict import Reading, ambiguous, graded, unparsable

_ARROWS = re.compile(r"\s*(?:->|=>|→|⇒)\s*")
_BULLET = re.compile(r"(?:[0-9]{1,3}[.)]|[-*•])\s+")
_BRACKETS = (("[", "]"), ("(", ")"), ("{", "}"))
_NOTHING = {"none", "nothing", "empty", "[]", "{}", "()", "∅"}


def read_ordering(text: str, answer: Answer) -> Reading:
    """All items in the right order, each once. Written as JSON, or with > , ; arrows, "then" or lines between."""
    said = without_opening(tidy(text))
    if "<" in said:  # which end comes first is anyone's guess
        return ambiguous()
    items = _items(said, (">", ";", "\n", ",", " then "))
    if not items:
        return unparsable()
    return graded(float(items == [plain(v) for v in answer.value]), " > ".join(items))


def read_set(text: str, answer: Answer) -> Reading:
    """Exactly the items of the set, in any order. "none" is the empty set, unless the truth has such an item."""
    truth = {plain(v) for v in answer.value}
    said = without_opening(tidy(text))
    whole = plain(said)
    if whole in _NOTHING and whole not in truth:
        return graded(float(not truth), "none")
    items = {whole} if whole in truth else set(_items(said, (";", "\n", ",", " and ")))
    if not items:
        return unparsable()
    return graded(float(items == truth), ", ".join(sorted(items)))


def _items(said: str, separators: tuple[str, ...]) -> list[str]:
    """The items in `plain` form: a JSON list, or the text split at the first kind of separator it has."""
    if said.startswith("["):
        listed = _json_words(said)
        if listed is not None:
            return listed
    for opening, closing in _BRACKETS:
        if said.startswith(opening) and said.endswith(closing):
            said = said[1:-1].strip()
            break
    said = _ARROWS.sub(" > ", said)
    separator = next((s for s in separators if s in said), None)
    parts = [said] if separator is None else said.split(separator)
    items = [_BULLET.sub("", part.strip(), count=1) if separator == "\n" else part.strip() for part in parts]
    if separator in (",", ";"):
        items = [item.removeprefix("and ").removeprefix("then ") for item in items]
    return [plain(item) for item in items if item.strip(" .")]


def _json_words(text: str) -> list[str] | None:
    if text.count("[") > 1 or "{" in text:  # a list of words holds no list and no object; json recurses on what does
        return None
    try:
        loaded = json.loads(text, parse_int=str, parse_float=str)
    except ValueError:
        return None
    if not isinstance(loaded, list) or not all(isinstance(item, str) for item in loaded):
        return None
    return [plain(item) for item in loaded if item.strip()]
