"""Answers that are lists of words: ordering, set."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence, Set
from itertools import combinations

from entropy_vision.question import Answer

from .normal import plain, tidy, without_opening
from .verdict import Reading, ambiguous, graded, unparsable

_ARROWS = re.compile(r"\s*(?:->|=>|→|⇒)\s*")
_BULLET = re.compile(r"(?:[0-9]{1,3}[.)]|[-*•])\s+")
_BRACKETS = (("[", "]"), ("(", ")"), ("{", "}"))
_NOTHING = {"none", "nothing", "empty", "[]", "{}", "()", "∅"}


def read_ordering(text: str, answer: Answer) -> Reading:
    """All items in the right order, each once. Written as JSON, or with > , ; arrows, "then" or lines between.

    With `partial` a permutation of the items earns (tau + 1) / 2, the share of pairs that stand in the right order
    (Kendall, Biometrika 30, 1938); a list that is no permutation earns nothing.
    """
    said = without_opening(tidy(text))
    if "<" in said:  # which end comes first is anyone's guess
        return ambiguous()
    items = _items(said, (">", ";", "\n", ",", " then "))
    if not items:
        return unparsable()
    truth = [plain(v) for v in answer.value]
    score = pairs_in_order(items, truth) if answer.partial else float(items == truth)
    return graded(score, " > ".join(items))


def read_set(text: str, answer: Answer) -> Reading:
    """Exactly the items of the set, in any order. "none" is the empty set, unless the truth has such an item.

    With `partial` the score is `set_credit`.
    """
    truth = {plain(v) for v in answer.value}
    said = without_opening(tidy(text))
    whole = plain(said)
    if whole in _NOTHING and whole not in truth:
        return graded(float(not truth), "none")
    items = {whole} if whole in truth else set(_items(said, (";", "\n", ",", " and ")))
    if not items:
        return unparsable()
    score = set_credit(items, truth, len(answer.options)) if answer.partial else float(items == truth)
    return graded(score, ", ".join(sorted(items)))


def pairs_in_order(items: Sequence[str], truth: Sequence[str]) -> float:
    """The share of pairs of a permutation of `truth` that stand as they do there; 0 for any other list."""
    if list(items) == list(truth):
        return 1.0
    if len(items) != len(truth) or set(items) != set(truth):
        return 0.0
    place = {item: i for i, item in enumerate(truth)}
    ranks = [place[item] for item in items]
    pairs = list(combinations(ranks, 2))
    return sum(a < b for a, b in pairs) / len(pairs)


def set_credit(items: Set[str], truth: Set[str], universe: int = 0) -> float:
    """F1 of two sets, 2 |both| / (|items| + |truth|); where it is known how many options there are, at most Youden's J.

    J (Cancer 3, 1950) is the share of the right options that is named minus that of the wrong ones: naming everything
    earns an F1 of 2 t / (t + universe) and a J of 0.
    """
    if items == truth:
        return 1.0
    hits, slips = len(items & truth), len(items - truth)
    score = 2 * hits / (len(items) + len(truth))
    if universe and truth:
        score = min(score, hits / len(truth) - slips / max(1, universe - len(truth)))
    return max(0.0, score)


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
