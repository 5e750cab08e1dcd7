"""number: which two digits are written on a coloured plate, 10 to 99."""

from __future__ import annotations

from functools import partial

from entropy_vision.question import Answer

from .family import StagedFamily
from .signs import Reading, sign_stage

NUMBERS = tuple(str(number) for number in range(10, 100))
READING = Reading(
    texts=NUMBERS, answer=lambda text: Answer("integer", int(text)), easy=0.14, hard=0.05, most=(2, 5)
)  # fmt: skip

FAMILY = StagedFamily(
    name="number",
    media="image",
    targets=NUMBERS,
    templates=(
        "what number is on the {a} plate?",
        "which number does the {a} plate show?",
        "read the number on the {a} plate.",
    ),
    held_out="the {a} plate shows what number?",
    stage=partial(sign_stage, READING),
    twin=lambda target: NUMBERS[(NUMBERS.index(target) + 37) % len(NUMBERS)],  # both digits differ
)
