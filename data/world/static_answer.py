"""static_answer: a number on a plate that is the same in every frame, while everything around it moves.

What selects patches by change alone never sees the answer.
"""

from __future__ import annotations

from functools import partial

from entropy_vision.question import Answer

from .family import StagedFamily
from .number import NUMBERS
from .signs import Reading, sign_stage

READING = Reading(
    texts=NUMBERS,
    answer=lambda text: Answer("integer", int(text)),
    easy=0.14,
    hard=0.05,
    most=(2, 5),
    regimes=("static",),
)

FAMILY = StagedFamily(
    name="static_answer",
    media="video",
    targets=NUMBERS,
    templates=(
        "what number is on the {a} plate in the video?",
        "which number does the {a} plate show in the video?",
        "read the number on the {a} plate in the video.",
    ),
    held_out="the {a} plate in the video shows what number?",
    stage=partial(sign_stage, READING),
    twin=lambda target: NUMBERS[(NUMBERS.index(target) + 37) % len(NUMBERS)],
)
