"""Verify a completion against an answer: pure, linear in time, without eval, threads, clocks or a judge model.

The rules: a bad completion is data (a verdict with score 0 and a status), a bad answer is a crash (UsageError); and
saying more never earns more. The forms each kind accepts are listed in docs/verifiers.md.
"""

from __future__ import annotations

from collections.abc import Callable

from entropy_vision.errors import UsageError
from entropy_vision.question import Answer

from .extract import extract
from .geometry import read_box, read_boxes, read_interval, read_point
from .gold import LIST_CHARACTERS, SHORT_CHARACTERS, canonical, check_answer
from .listing import read_ordering, read_set
from .numeric import read_integer, read_number
from .official import OFFICIAL_PROFILES, score_official
from .text import read_choice, read_exact, read_yesno
from .verdict import Reading, Status, Verdict, unparsable

__all__ = ["OFFICIAL_PROFILES", "PROFILES", "Status", "Verdict", "canonical", "check_answer", "verify"]

PROFILES = ("strict", "robust")

_READERS: dict[str, tuple[Callable[[str, Answer], Reading], int]] = {
    "exact": (read_exact, SHORT_CHARACTERS),
    "choice": (read_choice, SHORT_CHARACTERS),
    "integer": (read_integer, SHORT_CHARACTERS),
    "number": (read_number, SHORT_CHARACTERS),
    "yesno": (read_yesno, SHORT_CHARACTERS),
    "ordering": (read_ordering, LIST_CHARACTERS),
    "set": (read_set, LIST_CHARACTERS),
    "point": (read_point, LIST_CHARACTERS),
    "box": (read_box, LIST_CHARACTERS),
    "boxes": (read_boxes, LIST_CHARACTERS),
    "interval": (read_interval, LIST_CHARACTERS),
}


def verify(completion: str, answer: Answer, profile: str = "strict") -> Verdict:
    """Score one completion against the truth. Never raises, whatever the completion says.

    Args:
        completion: the decoded text of a completion, special tokens at its end allowed.
        answer: the truth.
        profile: "strict" (training) reads the answer of a well-formed completion only, exactly
            <think>…</think><answer>…</answer> with white space between; "robust" (evaluation) also reads an answer
            that stands unambiguously somewhere after the thinking; "official:vsi-bench" and its like score as the
            benchmark's published code does, faults included, for tables beside published ones only (`.official`).

    Raises:
        UsageError: the profile has no such name, or the answer's own value is not of its kind.
    """
    official = profile not in PROFILES
    if official and profile not in OFFICIAL_PROFILES:
        raise UsageError(f"verify: no profile {profile!r}; use one of {', '.join((*PROFILES, *OFFICIAL_PROFILES))}")
    check_answer(answer)
    if official:
        reading = score_official(completion, answer, profile)
        return Verdict(reading.score, reading.status, reading.parsed, extract(completion, strict=True).format_ok)
    found = extract(completion, strict=profile == "strict")
    if found.text is None:
        return Verdict(0.0, found.status, None, found.format_ok)
    reader, longest = _READERS[answer.kind]
    text = found.text.strip()
    reading = reader(text, answer) if 0 < len(text) <= longest else unparsable()
    return Verdict(reading.score, reading.status, reading.parsed, found.format_ok)
