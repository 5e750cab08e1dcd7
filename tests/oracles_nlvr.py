"""NLVR's template questions answered plainly: one scene at a time, thing by thing, from the JSON as it stands."""

from __future__ import annotations

from typing import Any

WORDS = {"Yellow": "yellow", "Black": "black", "#0099ff": "blue"}
PLACES = ("left", "middle", "right")


def answer(program: tuple[str, ...], boxes: list[list[dict[str, Any]]]) -> int | str | bool | None:
    """What the answer is, in words or numbers; None where the question does not arise."""
    name = program[0]
    if name == "count":
        return len(_found(boxes, *program[1:]))
    if name == "touching":
        if _tower(boxes):
            return None
        return sum(_touches(one) for one in _found(boxes, *program[1:]))
    if name == "exists":
        return bool(_found(boxes, *program[1:]))
    if name == "height":
        return len(boxes[PLACES.index(program[1])]) if _tower(boxes) else None
    if name == "end":
        box = boxes[PLACES.index(program[2])]
        if not _tower(boxes) or len(box) < 2:
            return None
        by_height = sorted(box, key=lambda one: one["y_loc"])
        return WORDS[by_height[0 if program[1] == "top" else -1]["color"]]
    if name == "color":
        found = _found(boxes, "any", program[1], program[2])
        return WORDS[found[0]["color"]] if len(found) == 1 else None
    if name == "shape":
        found = _found(boxes, program[1], "any", program[2])
        return found[0]["type"] if len(found) == 1 and not _tower(boxes) else None
    if name == "where":
        homes = [place for place in PLACES for _ in _found(boxes, program[1], program[2], place)]
        return homes[0] if len(homes) == 1 else None
    if name == "most":
        counts = [len(_found(boxes, program[1], "any", place)) for place in PLACES]
        return PLACES[counts.index(max(counts))] if counts.count(max(counts)) == 1 else None
    if name == "more":
        return len(_found(boxes, program[1], "any", "all")) > len(_found(boxes, program[2], "any", "all"))
    color, shape, other, its, place, relation = program[1:]
    first, second = _found(boxes, color, shape, place), _found(boxes, other, its, place)
    if len(first) != 1 or len(second) != 1:
        return None
    axis = "x_loc" if relation == "left" else "y_loc"
    one, two = (thing[0][axis] + thing[0]["size"] / 2 for thing in (first, second))
    return None if abs(one - two) < 5 else one < two


def _found(boxes: list[list[dict[str, Any]]], color: str, shape: str, place: str) -> list[dict[str, Any]]:
    looked = boxes if place == "all" else [boxes[PLACES.index(place)]]
    return [
        one for box in looked for one in box if color in ("any", WORDS[one["color"]]) and shape in ("any", one["type"])
    ]


def _touches(one: dict[str, Any]) -> bool:
    ends = one["x_loc"] + one["size"], one["y_loc"] + one["size"]
    return one["x_loc"] == 0 or one["y_loc"] == 0 or 100 in ends


def _tower(boxes: list[list[dict[str, Any]]]) -> bool:
    return all(one["type"] == "square" and one["size"] == 20 and one["x_loc"] == 40 for box in boxes for one in box)
