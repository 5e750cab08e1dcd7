"""Read nested lists of numbers: JSON, or the brackets that models write instead. One pass, bounded depth."""

from __future__ import annotations

import json
import math
import re
from typing import Any

Nested = list[Any]  # of floats, or of such lists

_MAX_DEPTH = 4
_TOKEN = re.compile(r"\s*(?:([\[(])|([\])])|([,;])|([+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?))\s*")
# how grounding models name the numbers inside an object
_KEYS: tuple[tuple[str, ...], ...] = (
    ("bbox_2d",),
    ("bbox",),
    ("box",),
    ("point_2d",),
    ("point",),
    ("x", "y"),
    ("x0", "y0", "x1", "y1"),
    ("x1", "y1", "x2", "y2"),
    ("start", "end"),
)


def read_nested(text: str) -> Nested | None:
    """The numbers of a text as nested lists; None where anything else stands in it, or a number is not finite."""
    bare = text.removeprefix("json").strip()
    found = _from_json(bare) if "{" in bare else _from_brackets(bare)
    return found if found is not None and _all_finite(found) else None


def _from_brackets(text: str) -> Nested | None:
    top: Nested = []
    stack = [top]
    position, bracketed = 0, False
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            return None
        opening, closing, separator, number = match.groups()
        if opening:
            if len(stack) > _MAX_DEPTH:
                return None
            bracketed = True
            stack[-1].append([])
            stack.append(stack[-1][-1])
        elif closing:
            if len(stack) == 1:
                return None
            stack.pop()
        elif number:
            # two numbers run together ("1.2.3", "5-10") are no list of numbers
            if position and text[position - 1] not in " \t\r\n,;[(":
                return None
            stack[-1].append(float(number))
        elif separator and not stack[-1]:
            return None
        position = match.end()
    if len(stack) != 1 or (not top and not bracketed):
        return None
    return top[0] if len(top) == 1 and isinstance(top[0], list) else top


def _from_json(text: str) -> Nested | None:
    depth = deepest = 0
    for character in text:  # json recurses: look before it does
        depth += (character in "[{") - (character in "]}")
        deepest = max(deepest, depth)
    if deepest > _MAX_DEPTH:
        return None
    try:
        loaded = json.loads(text, parse_int=float)
    except ValueError:
        return None
    found = _plain(loaded)
    return found if isinstance(found, list) else None


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return value
    if isinstance(value, list):
        items = [_plain(v) for v in value]
        return None if any(item is None for item in items) else items
    if isinstance(value, dict):
        for keys in _KEYS:
            if all(key in value for key in keys):
                return _plain(value[keys[0]] if len(keys) == 1 else [value[key] for key in keys])
    return None


def _all_finite(value: Any) -> bool:
    return all(map(_all_finite, value)) if isinstance(value, list) else math.isfinite(value)


def rows_of(nested: Nested, width: int) -> list[list[float]] | None:
    """The list as rows of `width` numbers: one row is taken as [row]; None where it is anything else."""
    rows = [nested] if nested and not any(isinstance(v, list) for v in nested) else nested
    fits = all(isinstance(r, list) and len(r) == width and not any(isinstance(v, list) for v in r) for r in rows)
    return rows if fits else None
