"""All families, and the words they need."""

from __future__ import annotations

from . import appearance, count, direction, moved, quadrant, relation
from .family import Family
from .words import COLORS, SHAPES, line_words, place_words, time_words, tokens

FAMILIES: dict[str, Family] = {
    module.FAMILY.name: module.FAMILY for module in (count, relation, quadrant, direction, appearance, moved)
}


def vocabulary() -> tuple[str, ...]:
    """Every unit of every question, rationale and answer, as `tokens` splits them, sorted."""
    units = {*COLORS, *SHAPES, *place_words(), *line_words(), *time_words(), "object", ";", *"ABCD"}
    for family in FAMILIES.values():
        units.update(family.words)
        for template in family.templates:
            units.update(tokens(template.format(a="", b="")))
        for target in family.targets:
            units.update(tokens(target) if isinstance(target, str) else ())
    return tuple(sorted(units))
