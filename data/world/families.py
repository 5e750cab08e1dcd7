"""All families, and the words they need."""

from __future__ import annotations

from collections.abc import Collection

from . import (
    appear_order,
    appearance,
    chain,
    change,
    change_where,
    clock,
    collisions,
    count,
    cups,
    direction,
    distance,
    distance_ratio,
    egomotion,
    identity,
    last_left,
    moved,
    number,
    order,
    quadrant,
    relation,
    speed,
    speed_ratio,
    static_answer,
    word,
)
from .family import LayoutFamily, StagedFamily
from .words import COLORS, SHAPES, line_words, place_words, time_words, tokens

# asked of shared layouts, several questions a scene
SHARED: dict[str, LayoutFamily] = {
    module.FAMILY.name: module.FAMILY for module in (count, relation, quadrant, direction, appearance, moved)
}
# asked of scenes of their own, one question a scene
STAGED: dict[str, StagedFamily] = {
    module.FAMILY.name: module.FAMILY
    for module in (
        distance,
        distance_ratio,
        order,
        appear_order,
        last_left,
        speed,
        speed_ratio,
        collisions,
        chain,
        number,
        word,
        clock,
        change,
        change_where,
        cups,
        egomotion,
        identity,
        static_answer,
    )
}
FAMILIES: dict[str, LayoutFamily | StagedFamily] = {**SHARED, **STAGED}
HAVE_TWINS = tuple(name for name, family in FAMILIES.items() if family.twin is not None)


def vocabulary(names: Collection[str] | None = None) -> tuple[str, ...]:
    """Every unit of questions, rationales and answers of some families (all of them: None), as `tokens` splits them."""
    units = {*COLORS, *SHAPES, *place_words(), *line_words(), *time_words(), "object", ";", *"ABCD"}
    for family in FAMILIES.values() if names is None else (FAMILIES[name] for name in names):
        units.update(family.words)
        for template in (*family.templates, family.held_out):
            units.update(tokens(template.format(a="", b="", c="")))
        for target in family.targets:
            units.update(tokens(target) if isinstance(target, str) else ())
    return tuple(sorted(units))
