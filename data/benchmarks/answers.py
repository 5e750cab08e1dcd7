"""Answers from what a row says, refused with a reason where no completion could meet them."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from entropy_vision.question import Answer

from .rows import BadRow, Row

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_LONGEST = 256  # characters; what is longer is no answer that a rule verifies
_LETTERED = re.compile(r"\(?([A-Z])[).:]\s*")
_WHOLE = re.compile(r"[+-]?\d+")
_REAL = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?")


def choice(letter: str, options: Sequence[str]) -> Answer:
    """A choice by its letter, bare or as (A), A. or A)."""
    bare = letter.strip().strip("().").upper()
    if len(bare) != 1 or bare not in LETTERS[: len(options)]:
        raise BadRow(f"the answer {letter!r} is none of {len(options)} options")
    return Answer("choice", bare, options=tuple(options))


def choice_at(place: int, options: Sequence[str]) -> Answer:
    """A choice by its place, from 0."""
    if not 0 <= place < len(options) <= len(LETTERS):
        raise BadRow(f"the answer {place} is none of {len(options)} options counted from 0")
    return Answer("choice", LETTERS[place], options=tuple(options))


def choice_of(text: str, options: Sequence[str]) -> Answer:
    """A choice by its text, the first that is the same."""
    if text not in options:
        raise BadRow(f"the answer {text!r} is none of the options")
    return choice_at(list(options).index(text), options)


def yesno(word: str) -> Answer:
    """yes, no, true or false, however they are written."""
    value = {"yes": True, "true": True, "no": False, "false": False}.get(word.strip().lower())
    if value is None:
        raise BadRow(f"the answer {word!r} is neither yes nor no")
    return Answer("yesno", value)


def exact(text: str) -> Answer:
    """A word or phrase."""
    if not 0 < len(text.strip()) <= _LONGEST:
        raise BadRow(f"the answer has {len(text.strip())} characters; a rule verifies 1 to {_LONGEST}")
    return Answer("exact", text.strip())


def integer(value: object) -> Answer:
    """A whole number, as a number or as text."""
    if type(value) is int or (isinstance(value, str) and _WHOLE.fullmatch(value.strip())):
        if len(value) > _LONGEST if isinstance(value, str) else abs(value) >= 10**_LONGEST:
            raise BadRow(f"the answer is a whole number of more than {_LONGEST} digits")
        return Answer("integer", int(value))
    raise BadRow(f"the answer {value!r} is not a whole number")


def number(text: str, *, mra: bool = False, tolerance: float | None = None) -> Answer:
    """A finite number."""
    value = float(text) if _REAL.fullmatch(text.strip()) else math.nan
    if not math.isfinite(value):
        raise BadRow(f"the answer {text!r} is not a finite number")
    return Answer("number", value, mra=mra, tolerance=tolerance)


def word_or_number(value: object) -> Answer:
    """The plainest kind that a short answer is: yes or no, a whole number, or a phrase."""
    if isinstance(value, bool):
        return Answer("yesno", value)
    if isinstance(value, int) or (isinstance(value, str) and _WHOLE.fullmatch(value.strip())):
        return integer(value)
    if not isinstance(value, str):
        raise BadRow(f"the answer is {value!r}")
    return yesno(value) if value.strip().lower() in ("yes", "no", "true", "false") else exact(value)


def options_in_columns(row: Row) -> list[str]:
    """The options that a table holds in its columns A, B, …, up to the first that is empty (`nan` as pandas writes)."""
    options: list[str] = []
    for letter in LETTERS:
        held = row.values.get(letter)
        if held is None or held != held or str(held).strip() in ("", "nan"):
            break
        options.append(str(held))
    if len(options) == 1:
        raise BadRow("there is one option only")
    return options


def unlettered(option: str) -> str:
    """An option without the letter that stands before it: "B. red" and "(B) red" are "red"."""
    option = option.strip()
    match = _LETTERED.match(option)
    return option[match.end() :] if match else option


def lettered(options: Sequence[str], form: str = "{0}. {1}") -> list[str]:
    """Options with their letters before them."""
    return [form.format(letter, option) for letter, option in zip(LETTERS, options, strict=False)]
