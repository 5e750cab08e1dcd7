"""word: which word, of a fixed list of five-letter words, is written on a coloured plate."""

from __future__ import annotations

from functools import partial

from entropy_vision.question import Answer

from .family import StagedFamily
from .signs import Reading, sign_stage

WORDS = (
    "APPLE", "BREAD", "CHAIR", "CLOUD", "DANCE", "EAGLE", "FLAME", "GRAPE",
    "HOUSE", "JUICE", "KNIFE", "LEMON", "MOUSE", "NIGHT", "OCEAN", "PIANO",
    "QUEEN", "RIVER", "SHEEP", "TABLE", "TIGER", "UNCLE", "VOICE", "WHALE",
)  # fmt: skip
READING = Reading(
    texts=WORDS, answer=lambda text: Answer("exact", text.lower()), easy=0.085, hard=0.04, most=(2, 4)
)  # fmt: skip

FAMILY = StagedFamily(
    name="word",
    media="image",
    targets=WORDS,
    templates=(
        "what word is on the {a} plate?",
        "which word does the {a} plate show?",
        "read the word on the {a} plate.",
    ),
    held_out="the {a} plate shows what word?",
    words=tuple(word.lower() for word in WORDS),
    stage=partial(sign_stage, READING),
    twin=lambda target: WORDS[(WORDS.index(target) + 7) % len(WORDS)],
)
