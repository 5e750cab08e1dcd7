"""Answers in places and times: point, box, boxes, interval. Units are those of the truth, pixels or fractions."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from entropy_vision.question import Answer

from .nested import read_nested, rows_of
from .normal import tidy, without_preamble
from .verdict import Reading, ambiguous, graded, unparsable

_TIME = r"([0-9]+(?::[0-5]?[0-9]){0,2}(?:\.[0-9]+)?)\s*(?:seconds|second|secs|sec|s)?"
_INTERVAL = re.compile(rf"(?:(?:from|between)\s+)?{_TIME}\s*(?:-|–|—|to|and|until|\.\.|,)\s*{_TIME}", re.IGNORECASE)


def read_point(text: str, answer: Answer) -> Reading:
    """1 within `radius` of the truth (its edge included), else 0. More than one point is ambiguous."""
    nested = read_nested(without_preamble(tidy(text)))
    rows = None if nested is None else rows_of(nested, 2)
    if not rows:
        return unparsable()
    if len(rows) > 1:
        return ambiguous()
    given, truth = rows[0], answer.value
    distance = math.hypot(given[0] - truth[0], given[1] - truth[1])
    return graded(float(distance <= float(answer.radius or 0.0)), _shown(given))


def read_box(text: str, answer: Answer) -> Reading:
    """Intersection over union with the truth, on continuous coordinates. More than one box is ambiguous."""
    nested = read_nested(without_preamble(tidy(text)))
    if nested is None:
        return unparsable()
    rows = rows_of(nested, 4)
    corners = rows_of(nested, 2)
    if corners is not None and len(corners) == 2:
        rows = [corners[0] + corners[1]]
    if rows and len(rows) > 1:
        return ambiguous()
    if not rows or not is_box(rows[0]):
        return unparsable()
    return graded(box_iou(rows[0], answer.value), _shown(rows[0]))


def read_boxes(text: str, answer: Answer) -> Reading:
    """Sum of the best one-to-one matching's IoU over max(given, true): a box too many costs as much as one missed.

    A box given twice counts twice and is matched once, or it would earn on a neighbour too. Where the truth is empty
    only an empty list earns 1. Far more boxes than there are true ones (over 64 and over four times as many) are not
    read.
    """
    nested = read_nested(without_preamble(tidy(text)))
    rows = None if nested is None else rows_of(nested, 4)
    truth = [list(map(float, box)) for box in answer.value]
    if rows is None or len(rows) > max(64, 4 * len(truth)) or not all(map(is_box, rows)):
        return unparsable()
    parsed = "[" + ", ".join(map(_shown, rows)) + "]"
    if not rows or not truth:
        return graded(float(len(rows) == len(truth)), parsed)
    gain = [[box_iou(row, box) for box in truth] for row in dict.fromkeys(map(tuple, rows))]
    return graded(best_matching(gain) / max(len(rows), len(truth)), parsed)


def read_interval(text: str, answer: Answer) -> Reading:
    """Temporal intersection over union. Seconds or clock times (mm:ss, h:mm:ss), the start before the end."""
    said = without_preamble(tidy(text))
    match = _INTERVAL.fullmatch(said.strip("[]()").strip())
    if match is not None:
        given = [_seconds(match.group(1)), _seconds(match.group(2))]
    else:
        nested = read_nested(said)
        rows = None if nested is None else rows_of(nested, 2)
        if not rows:
            return unparsable()
        if len(rows) > 1:
            return ambiguous()
        given = rows[0]
    if not (all(map(math.isfinite, given)) and 0.0 <= given[0] < given[1]):
        return unparsable()
    t0, t1 = map(float, answer.value)
    shared = max(0.0, min(given[1], t1) - max(given[0], t0))
    return graded(shared / (max(given[1], t1) - min(given[0], t0)), _shown(given))


def _seconds(clock: str) -> float:
    total = 0.0
    for part in clock.split(":"):
        total = 60.0 * total + float(part)
    return total


def is_box(row: Sequence[float]) -> bool:
    """x0 < x1 and y0 < y1."""
    return row[0] < row[2] and row[1] < row[3]


def box_iou(a: Sequence[float], b: Sequence[float]) -> float:
    """Intersection over union of two boxes (x0, y0, x1, y1), in [0, 1]; nothing is added to a side."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0.0 or height <= 0.0:
        return 0.0
    # fractions of the shared sides: products of huge or tiny coordinates would overflow or vanish
    size_a = (a[2] - a[0]) / width * ((a[3] - a[1]) / height)
    size_b = (b[2] - b[0]) / width * ((b[3] - b[1]) / height)
    return 1.0 / (size_a + size_b - 1.0)


def best_matching(gain: Sequence[Sequence[float]]) -> float:
    """The largest sum over one-to-one matchings of rows and columns (shortest augmenting paths, O(n²m))."""
    if len(gain) > len(gain[0]):
        gain = list(zip(*gain, strict=True))
    n, m = len(gain), len(gain[0])
    row_price, column_price = [0.0] * (n + 1), [0.0] * (m + 1)
    owner = [0] * (m + 1)  # row matched to a column, 1-based; column 0 is where a new row starts
    for row in range(1, n + 1):
        owner[0] = row
        column, reach, came_from, done = 0, [math.inf] * (m + 1), [0] * (m + 1), [False] * (m + 1)
        while owner[column]:
            done[column] = True
            current, step, nearest = owner[column], math.inf, 0
            for j in range(1, m + 1):
                if done[j]:
                    continue
                cost = -gain[current - 1][j - 1] - row_price[current] - column_price[j]
                if cost < reach[j]:
                    reach[j], came_from[j] = cost, column
                if reach[j] < step:
                    step, nearest = reach[j], j
            for j in range(m + 1):
                if done[j]:
                    row_price[owner[j]] += step
                    column_price[j] -= step
                else:
                    reach[j] -= step
            column = nearest
        while column:
            owner[column] = owner[came_from[column]]
            column = came_from[column]
    return math.fsum(gain[owner[j] - 1][j - 1] for j in range(1, m + 1) if owner[j])


def _shown(numbers: Sequence[float]) -> str:
    return "[" + ", ".join(f"{v:.6g}" for v in numbers) + "]"
