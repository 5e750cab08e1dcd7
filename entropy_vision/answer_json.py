"""An answer as one line of JSON: what a column of a table, a manifest or another library's data set holds."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from entropy_vision.errors import UsageError
from entropy_vision.question import Answer

_FIELDS = {field.name: field.default for field in fields(Answer)}


def answer_to_json(answer: Answer) -> str:
    """The answer as a JSON object: kind, value, and the keywords that are not at their defaults.

    A set's items are sorted, so that equal answers give equal texts; tuples become lists; NumPy's numbers and arrays
    become Python's.

    Raises:
        UsageError: a number in it is not finite.
    """
    record = {name: getattr(answer, name) for name in _FIELDS}
    kept = {n: v for n, v in record.items() if n in ("kind", "value") or v != _FIELDS[n]}
    plain = {name: _plain(value) for name, value in kept.items()}
    try:
        return json.dumps(plain, ensure_ascii=False, allow_nan=False)
    except ValueError:
        raise UsageError(f"answer_to_json: JSON has no number that is not finite: {plain}") from None


def answer_from_json(text: str | Mapping[str, Any]) -> Answer:
    """The answer of such a text, or of the mapping it holds; equal to the one it was made from, up to tuples.

    Raises:
        UsageError: it is no JSON object, has no kind or value, or a key that no answer has.
    """
    record = _loaded(text) if isinstance(text, str) else dict(text)
    for name in record:
        if name not in _FIELDS:
            near = difflib.get_close_matches(str(name), _FIELDS, n=1)
            raise UsageError(f"answer_from_json: no key {name!r}" + (f"; did you mean {near[0]!r}?" if near else ""))
    if "kind" not in record or "value" not in record:
        raise UsageError(f"answer_from_json: an answer has kind and value, got {sorted(record)}")
    value = record.pop("value")
    given: dict[str, Any] = {
        name: tuple(v) if isinstance(v, list) else v for name, v in record.items() if v is not None
    }
    for name in ("options", "aliases"):
        if not isinstance(given.get(name, ()), tuple):  # of a text, its letters would become the options
            raise UsageError(f"answer_from_json: {name} must be a list of texts, got {given[name]!r}")
    try:
        return Answer(value=_value(record["kind"], value), **given)
    except (TypeError, ValueError) as error:
        raise UsageError(f"answer_from_json: {error}") from None


def _loaded(text: str) -> dict[str, Any]:
    try:
        loaded = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"answer_from_json: not JSON ({error}): {text[:80]!r}") from None
    if not isinstance(loaded, dict):
        raise UsageError(f"answer_from_json: not a JSON object: {text[:80]!r}")
    return loaded


def _value(kind: Any, value: Any) -> Any:
    if kind == "set" and isinstance(value, list):
        return set(value)
    if kind in ("point", "box", "interval") and isinstance(value, list):
        return tuple(value)
    if kind == "boxes" and isinstance(value, list):
        return [tuple(box) if isinstance(box, list) else box for box in value]
    return value


def _plain(value: Any) -> Any:
    if isinstance(value, set | frozenset):
        return sorted(value)
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if hasattr(value, "tolist"):  # NumPy's
        return value.tolist()
    return value
