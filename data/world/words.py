"""Every word the World uses, so that a word-level tokenizer can be built before any item is made."""

from __future__ import annotations

import re

COLORS = ("red", "green", "blue", "yellow", "purple", "orange", "cyan", "white")
SHAPES = ("circle", "square", "triangle", "cross", "diamond")
CELLS = 8  # rationales speak of an 8 x 8 grid of the frame and of eighths of the video

_TOKEN = re.compile(r"[a-z0-9]+|[A-D]|[^\sa-z0-9]")


def tokens(text: str) -> list[str]:
    """Split a question, rationale or answer into the units that `vocabulary` lists: words and single marks."""
    return _TOKEN.findall(text)


def cell_words(x: float, y: float) -> str:
    """The cell of a point given as fractions of width and height, modulo 1: "r1 c1" is the top left of 8 x 8."""
    return f"r{int(y % 1.0 * CELLS) + 1} c{int(x % 1.0 * CELLS) + 1}"


def time_word(frame: int, frame_count: int) -> str:
    """The eighth of the video in which a frame lies: "t1" .. "t8"."""
    return f"t{frame * CELLS // frame_count + 1}"


def grid_words() -> tuple[str, ...]:
    """r1..r8, c1..c8, t1..t8."""
    return tuple(f"{axis}{i + 1}" for axis in "rct" for i in range(CELLS))
