"""Every word the World uses, so that a word-level tokenizer can be built before any item is made."""

from __future__ import annotations

import re

COLORS = ("red", "green", "blue", "yellow", "purple", "orange", "cyan", "white")
SHAPES = ("circle", "square", "triangle", "cross", "diamond")
CELLS = 6  # rationales speak of a 6 x 6 grid of the frame ...
MOMENTS = 8  # ... and of eighths of the video

_TOKEN = re.compile(r"[a-z0-9]+|[A-D]|[^\sa-z0-9]")


def tokens(text: str) -> list[str]:
    """Split a question, rationale or answer into the units that `vocabulary` lists: words and single marks."""
    return _TOKEN.findall(text)


def cell_word(x: float, y: float) -> str:
    """The cell of a point given as fractions of width and height, modulo 1: "r1c1" is the top left of 6 x 6.

    One word a place: what names a place should be one look, not two that must find the same thing again.
    """
    return line_word("r", y) + line_word("c", x)


def line_word(axis: str, at: float) -> str:
    """The row ("r") or column ("c") of the grid in which a fraction of height or width lies, modulo 1: "r1" .. "c6"."""
    return f"{axis}{int(at % 1.0 * CELLS) + 1}"


def time_word(frame: int, frame_count: int) -> str:
    """The eighth of the video in which a frame lies: "t1" .. "t8"."""
    return f"t{frame * MOMENTS // frame_count + 1}"


def hundredths(length: float) -> str:
    """A length as hundredths of the frame's side: "23" is .23; what needs a finer measure than a cell."""
    return str(round(100 * length))


def place_words() -> tuple[str, ...]:
    """r1c1..r6c6, row by row."""
    return tuple(f"r{row + 1}c{column + 1}" for row in range(CELLS) for column in range(CELLS))


def line_words() -> tuple[str, ...]:
    """r1..r6 and c1..c6."""
    return tuple(f"{axis}{i + 1}" for axis in "rc" for i in range(CELLS))


def number_words() -> tuple[str, ...]:
    """0..99: what `hundredths` says of lengths under one side of the frame."""
    return tuple(str(n) for n in range(100))


def decimal_words() -> tuple[str, ...]:
    """The units of numbers with two decimals: whole and broken parts under 100, and the point."""
    return (*number_words(), *(f"0{n}" for n in range(1, 10)), ".")


def time_words() -> tuple[str, ...]:
    """t1..t8."""
    return tuple(f"t{i + 1}" for i in range(MOMENTS))
