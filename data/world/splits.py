"""The splits, and which colours and shapes go together in each."""

from __future__ import annotations

from .words import COLORS, SHAPES

IID = ("train", "val", "test")  # alike; they differ in their random streams
SPLITS = (*IID, "cogent_a", "cogent_b", "template", "more", "background", "deeper")


def is_cogent(split: str) -> bool:
    """Whether a split holds half of the (colour, shape) pairs: after the CoGenT splits of CLEVR (arXiv:1612.06890)."""
    return split in ("cogent_a", "cogent_b")


def forms(color: str, split: str, shapes: tuple[str, ...]) -> tuple[str, ...]:
    """The shapes that things of a colour have: those given, but of the cogent splits a share of all five.

    A Latin square puts a number of 0..4 on each pair, once in every row and column of five; condition A holds 0, 1
    and 2, condition B the others. So every colour and every shape occurs in both, and no pair does.
    """
    if not is_cogent(split):
        return shapes
    row = COLORS.index(color)
    return tuple(s for k, s in enumerate(SHAPES) if ((row + k) % len(SHAPES) < 3) == (split == "cogent_a"))
