"""What a verifier says about one completion."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Status(StrEnum):
    """Why a completion got its score; counted in the metrics, because each mends differently."""

    OK = "ok"
    WRONG = "wrong"
    AMBIGUOUS = "ambiguous"
    UNPARSABLE = "unparsable"
    FORMAT = "format"


@dataclass(frozen=True)
class Reading:
    """What one kind's parser made of an answer text: `score` in [0, 1] and the canonical text it understood."""

    score: float
    status: Status
    parsed: str | None = None


@dataclass(frozen=True)
class Verdict:
    """The verdict on one completion.

    Attributes:
        score: in [0, 1], never nan; 0 unless `status` is ok.
        status: ok (score > 0), wrong (understood, worth 0), ambiguous (more than one answer, or a hedge),
            unparsable (not an answer of this kind), format (no answer where one has to stand).
        parsed: canonical text of the answer that was understood, None where there is none.
        format_ok: the completion has exactly the form <think>…</think><answer>…</answer>, whatever the profile.
    """

    score: float
    status: Status
    parsed: str | None
    format_ok: bool


def graded(score: float, parsed: str) -> Reading:
    """A reading that was understood: ok where it earns anything, wrong where it earns nothing."""
    bounded = min(1.0, max(0.0, score))
    return Reading(bounded, Status.OK if bounded > 0.0 else Status.WRONG, parsed)


def ambiguous() -> Reading:
    """More than one answer, or one that is hedged."""
    return Reading(0.0, Status.AMBIGUOUS)


def unparsable() -> Reading:
    """No answer of the kind that was asked for."""
    return Reading(0.0, Status.UNPARSABLE)
