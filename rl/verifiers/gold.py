"""What a truth must be before anything is verified against it, and the text that states it."""

from __future__ import annotations

import json
import math
import numbers
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from entropy_vision.errors import UsageError
from entropy_vision.question import Answer

SHORT_CHARACTERS = 256  # an answer in words or numbers; anything longer is not one
LIST_CHARACTERS = 4096  # an answer that is a list
_ALL_OR_NOTHING = ("exact", "choice", "yesno", "point")


def check_answer(answer: Answer) -> None:
    """Refuse a truth that no completion could meet, so that a fault in the data is not trained on as zeros.

    Raises:
        UsageError: `value` or a keyword of the answer is not what its kind needs.
    """
    fault = _FAULTS[answer.kind](answer)
    if not fault and answer.partial and answer.kind in _ALL_OR_NOTHING:
        fault = f"partial=True, and {answer.kind} answers are right or wrong"
    if fault:
        raise UsageError(f"Answer(kind={answer.kind!r}, value={answer.value!r}): {fault}")


def canonical(answer: Answer) -> str:
    """The plainest text that states the truth; verified against the answer it scores 1."""
    value = answer.value
    if answer.kind == "choice":
        return str(value).upper()
    if answer.kind == "yesno":
        return "yes" if value else "no"
    if answer.kind == "number":
        return repr(float(value))
    if answer.kind == "ordering":
        return json.dumps(list(value), ensure_ascii=False)
    if answer.kind == "set":
        return json.dumps(sorted(value), ensure_ascii=False)
    if answer.kind == "boxes":
        return json.dumps([[float(v) for v in box] for box in value])
    if answer.kind in ("point", "box", "interval"):
        return json.dumps([float(v) for v in value])
    return str(value)


def _is_real(value: Any) -> bool:
    # nearly all are of these two types; the rest takes five times as long
    if type(value) not in (float, int) and (isinstance(value, bool | np.bool_) or not isinstance(value, numbers.Real)):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer that no float holds
        return False


def _row(value: Any, width: int) -> bool:
    fits = isinstance(value, Sequence | np.ndarray) and not isinstance(value, str) and len(value) == width
    return fits and all(map(_is_real, value))


def _word(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value.strip()) <= SHORT_CHARACTERS


def _exact(answer: Answer) -> str:
    fits = _word(answer.value) and all(map(_word, answer.aliases))
    return "" if fits else f"value and aliases must be texts of 1 to {SHORT_CHARACTERS} characters"


def _choice(answer: Answer) -> str:
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"[: len(answer.options) or 26]
    if len(answer.options) > 26:
        return "at most 26 options"
    fits = isinstance(answer.value, str) and len(answer.value) == 1 and answer.value.upper() in letters
    return "" if fits else f"value must be a letter from A to {letters[-1]}"


def _integer(answer: Answer) -> str:
    fits = isinstance(answer.value, numbers.Integral) and _is_real(answer.value)
    return "" if fits else "value must be a whole number (int) that a float can hold"


def _number(answer: Answer) -> str:
    if not _is_real(answer.value):
        return "value must be a finite number"
    fits = answer.tolerance is None or (_is_real(answer.tolerance) and answer.tolerance >= 0)
    return "" if fits else "tolerance must be a finite number >= 0"


def _yesno(answer: Answer) -> str:
    # a text would do harm here: bool("no") is true
    return "" if isinstance(answer.value, bool | np.bool_) else "value must be True or False"


def _ordering(answer: Answer) -> str:
    fits = isinstance(answer.value, list | tuple) and len(answer.value) > 0 and all(map(_word, answer.value))
    if not fits or len(set(answer.value)) != len(answer.value):
        return "value must be a list of different texts"
    return ""


def _set(answer: Answer) -> str:
    fits = isinstance(answer.value, Collection) and not isinstance(answer.value, str | dict)
    return "" if fits and all(map(_word, answer.value)) else "value must be a set of texts"


def _point(answer: Answer) -> str:
    if not _row(answer.value, 2):
        return "value must be (x, y)"
    return "" if _is_real(answer.radius) and answer.radius > 0 else "a point needs radius > 0"  # type: ignore[operator]


def _box_fault(value: Any) -> str:
    fits = _row(value, 4) and value[0] < value[2] and value[1] < value[3]
    return "" if fits else "a box is (x0, y0, x1, y1) with x0 < x1 and y0 < y1"


def _boxes(answer: Answer) -> str:
    if not isinstance(answer.value, Sequence | np.ndarray) or isinstance(answer.value, str):
        return "value must be a list of boxes"
    return next((fault for fault in map(_box_fault, answer.value) if fault), "")


def _interval(answer: Answer) -> str:
    fits = _row(answer.value, 2) and 0 <= answer.value[0] < answer.value[1]
    return "" if fits else "value must be (t0, t1) in seconds with 0 <= t0 < t1"


_FAULTS = {
    "exact": _exact,
    "choice": _choice,
    "integer": _integer,
    "number": _number,
    "yesno": _yesno,
    "ordering": _ordering,
    "set": _set,
    "point": _point,
    "box": lambda answer: _box_fault(answer.value),
    "boxes": _boxes,
    "interval": _interval,
}
