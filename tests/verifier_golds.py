"""Truths of every kind, and texts that are made of what breaks parsers."""

from __future__ import annotations

import random

from entropy_vision.rl import Answer

GOLDS = [
    Answer("exact", "hot dog", aliases=("sausage",)),
    Answer("choice", "C", options=("red cube", "blue ball", "green cone")),
    Answer("choice", "b"),
    Answer("integer", 12),
    Answer("number", -2.5, tolerance=0.1),
    Answer("number", 1e-7, mra=True),
    Answer("number", 1e22),
    Answer("yesno", False),
    Answer("yesno", True),
    Answer("ordering", ["red", "salt, pepper and oil", "a > b"]),
    Answer("point", (0.25, 1e-5), radius=0.1),
    Answer("box", (10.0, 20.0, 30.5, 40.0)),
    Answer("boxes", [(0.0, 0.0, 1.0, 1.0), (2.0, 2.0, 3.0, 3.0)]),
    Answer("boxes", []),
    Answer("set", {"red cube", "none"}),
    Answer("set", set()),
    Answer("interval", (0.0, 1.25)),
]
# fmt: off
PIECES = (
    "<think>", "</think>", "<answer>", "</answer>", "<|im_end|>", "A", "B", "(C)", "yes", "no", "not", "3", "1,000",
    "-", ".", "e", "nan", "inf", "1e999", "[", "]", "{", "}", "(", ",", ">", ":", "\\boxed{", "$", "**", "```", " ",
    "\n", "\0", "\ud800", "３", "²", "ﷺ", "\u202e", "one", "hundred", "thousand", "and", '"x"', "0.5", "to",
)
# fmt: on


def wrapped(text: str) -> str:
    """A well-formed completion around an answer."""
    return f"<think>because</think><answer>{text}</answer>"


def soup(rng: random.Random) -> str:
    """Up to 23 pieces one behind the other."""
    return "".join(rng.choice(PIECES) for _ in range(rng.randrange(24)))


def name_of(answer: Answer) -> str:
    """A test's name for a gold answer, the same in every process: sets are printed in order."""
    value = sorted(answer.value) if isinstance(answer.value, set) else answer.value
    return f"{answer.kind}-{value}"
