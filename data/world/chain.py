"""chain: what colour the thing has that one reaches from another over one to three relations."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from entropy_vision.question import Answer

from .cast import Name, few_or_many, still_layout, thing_sizes
from .family import Ask, StagedFamily
from .layout import palette, shapes, spread
from .relation import OPTIONS
from .shared import LayoutStage
from .splits import forms
from .stage import Setting
from .words import COLORS, cell_word

DEEPEST = 3  # only in the split "deeper"
_SAID = {"left": "left of", "right": "right of", "above": "above", "below": "below"}
_CLEAR = 0.06  # by which one axis dominates, where a thing must be seen to lie on a side or not


@dataclass(frozen=True)
class Program:
    """From a thing over things: `path[0]` is named, `path[k + 1]` lies on side `sides[k]` of `path[k]`, alone."""

    path: tuple[int, ...]
    sides: tuple[str, ...]

    def noun(self, name: str) -> str:
        """What is reached, in words: "thing left of the thing above the red circle"."""
        words = f"the {name}"
        for side in self.sides:
            words = f"the thing {_SAID[side]} {words}"
        return words.removeprefix("the ")


def neighbours(spots: np.ndarray) -> dict[tuple[int, str], int]:
    """The only thing on a side of each thing, where every other is clearly somewhere else: (thing, side) -> thing.

    A thing lies to the left where it is farther to the left than up or down.
    """
    found = {}
    for k, (x, y) in enumerate(spots.tolist()):
        right, down = spots[:, 0] - x, spots[:, 1] - y
        for side, along, beside in zip(OPTIONS, (-right, right, -down, down), (down, down, right, right), strict=True):
            lead = along - np.abs(beside)
            on_side = np.flatnonzero(lead >= 0)
            others = np.arange(len(spots)) != k
            if len(on_side[on_side != k]) == 1 and (np.abs(lead[others & (along > 0)]) >= _CLEAR).all():
                found[k, side] = int(on_side[on_side != k][0])
    return found


def programs(spots: np.ndarray, depth: int) -> list[Program]:
    """Every chain of a depth that never comes back."""
    steps = neighbours(spots)
    chains = [Program((k,), ()) for k in range(len(spots))]
    for _ in range(depth):
        chains = [
            Program((*chain.path, steps[chain.path[-1], side]), (*chain.sides, side))
            for chain in chains
            for side in OPTIONS
            if steps.get((chain.path[-1], side), chain.path[0]) not in chain.path
        ]
    return chains


def _names(rng: np.random.Generator, setting: Setting, n: int, path: tuple[int, ...], color: str) -> list[Name]:
    """Colours drawn apart from each other, so that no thing's colour tells another's; the last of the path has `color`.

    The first of the path is named by colour and shape and must be the only such thing.
    """
    colors = palette(setting.difficulty)
    drawn = [colors[k] for k in rng.integers(len(colors), size=n).tolist()]
    drawn[path[-1]] = color
    chances = rng.random(n).tolist()
    allowed = [forms(c, setting.split, shapes(setting.difficulty)) for c in drawn]
    names = [(c, own[int(u * len(own))]) for c, own, u in zip(drawn, allowed, chances, strict=True)]
    start = path[0]
    for k in range(n):  # a thing like the first one changes its shape
        if k != start and names[k] == names[start]:
            others = [shape for shape in allowed[k] if shape != names[start][1]]
            names[k] = (drawn[k], others[int(chances[k] * 97) % len(others)])
    return names


def _stage(family: StagedFamily, target: int, setting: Setting, rng: np.random.Generator) -> LayoutStage | None:
    d = setting.difficulty
    depth = DEEPEST if setting.split == "deeper" else 1 + int(rng.random() < d)
    n = few_or_many(rng, setting, easiest=4, hardest=7, more=8)
    sizes = thing_sizes(rng, setting, n, 0.95 if n <= 8 else 0.75)
    spots = spread(rng, sizes, margin=0.01, gap=0.02)
    chains = programs(np.array(spots), depth) if spots is not None else []
    if spots is None or not chains:
        return None
    program = chains[int(rng.integers(len(chains)))]
    colors = palette(d)
    names = _names(rng, setting, n, program.path, colors[target % len(colors)])
    layout = still_layout(names, range(n), sizes, spots, setting)
    color, shape = names[program.path[0]]
    cells = [cell_word(layout.sprites[k].x, layout.sprites[k].y) for k in program.path]
    steps = [f"{color} {shape} {cells[0]}", *(f"{s} {c}" for s, c in zip(program.sides, cells[1:], strict=True))]
    answer = names[program.path[-1]][0]
    ask = Ask(
        question=family.worded(setting, rng, program.noun(f"{color} {shape}")),
        answer=Answer("exact", answer),
        rationale=" ; ".join([*steps, answer]),
        needs=tuple((k, 0) for k in program.path),
    )
    facts = {"depth": depth, "program": {"path": list(program.path), "sides": list(program.sides)}}
    return LayoutStage(layout, (ask,), d, setting.split, facts)


FAMILY = StagedFamily(
    name="chain",
    media="image",
    targets=tuple(range(24)),  # 4, 6 and 8 colours divide it: each is dealt equally often
    templates=(
        "what color is the {a}?",
        "what is the color of the {a}?",
        "which color does the {a} have?",
    ),
    held_out="name the color of the {a}.",
    splits=("cogent_a", "cogent_b", "template", "more", "background", "deeper"),
    stage=_stage,
    twin=lambda target: (target + 1) % 24,
    words=("thing", "the", *(word for said in _SAID.values() for word in said.split()), *COLORS),
)
