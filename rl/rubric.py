"""From verdicts to one reward a completion."""

from __future__ import annotations

import math
from dataclasses import dataclass

from entropy_vision.errors import UsageError
from entropy_vision.question import Answer

from .verifiers import PROFILES, Verdict, verify


@dataclass(frozen=True)
class Reward:
    """What one completion earns: `total` is the sum of the weighted parts beside it."""

    total: float
    accuracy: float
    format: float
    verdict: Verdict


@dataclass(frozen=True)
class Rubric:
    """Accuracy plus format reward (the recipe of DeepSeek-R1, arXiv:2501.12948, section 2.2.2).

    Attributes:
        accuracy: weight of the verdict's score.
        format: paid for a completion of exactly the form <think>…</think><answer>…</answer>.
        format_when_wrong: pay the format part to wrong answers too. True teaches the form to a policy that does not
            have it yet, since then a group without one right answer still has a gradient. The price is that a policy
            can collect it without looking; keep it at 0.1 of the accuracy or less, and set this False once nearly all
            completions are well formed, so that being right is the only way to earn.
        profile: how the verifier reads (see `verify`); strict ties the accuracy to the form as well.
    """

    accuracy: float = 1.0
    format: float = 0.1
    format_when_wrong: bool = True
    profile: str = "strict"

    def __post_init__(self) -> None:
        for name in ("accuracy", "format"):
            weight = getattr(self, name)
            if not math.isfinite(weight) or weight < 0:
                raise UsageError(f"Rubric.{name} must be a finite weight >= 0, got {weight!r}")
        if self.profile not in PROFILES:
            raise UsageError(f"Rubric.profile must be one of {', '.join(PROFILES)}, got {self.profile!r}")

    def __call__(self, completion: str, answer: Answer, truncated: bool = False) -> Reward:
        """Reward one completion.

        Args:
            completion: its decoded text.
            answer: the truth.
            truncated: it ended at the length limit, not by itself; such a completion earns no format part.
        """
        verdict = verify(completion, answer, self.profile)
        accuracy = self.accuracy * verdict.score
        earns_form = verdict.format_ok and not truncated and (self.format_when_wrong or verdict.score > 0.0)
        form = self.format if earns_form else 0.0
        return Reward(accuracy + form, accuracy, form, verdict)
