"""From verdicts to one reward a completion."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from entropy_vision.errors import UsageError
from entropy_vision.question import Answer

from .verifiers import PROFILES, Status, Verdict, verify

TruncatedPolicy = Literal["pay", "no_format", "zero"]
_UNREAD = (Status.AMBIGUOUS, Status.UNPARSABLE, Status.FORMAT)
_OWN_NAMES = ("accuracy", "format", "unparsable")


@dataclass(frozen=True)
class Part:
    """One more thing a rubric pays for.

    Attributes:
        name: its key in `Reward.parts`.
        weight: finite, >= 0.
        score: (completion, truth, verdict) -> a number in [-1, 1]; below 0 it is a deduction.
        when_wrong: pay it to completions that earn no accuracy too.
    """

    name: str
    weight: float
    score: Callable[[str, Answer, Verdict], float]
    when_wrong: bool = False


@dataclass(frozen=True)
class Reward:
    """What one completion earns.

    Attributes:
        total: the weighted sum.
        accuracy, format: the weighted parts of those names.
        verdict: what the verifier said, whatever of it was paid.
        parts: every part by name before its weight; with `Rubric.weights` they sum up to `total`.
    """

    total: float
    accuracy: float
    format: float
    verdict: Verdict
    parts: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Rubric:
    """Accuracy, a little for the form, and any number of further parts.

    The first two are the rewards of DeepSeek-R1 (arXiv:2501.12948, section 2.2.2), with the form as a gate: it is paid
    beside a right answer only, unless told otherwise.

    Attributes:
        accuracy: weight of the verdict's score.
        format: paid for a completion of exactly the form <think>…</think><answer>…</answer>.
        format_when_wrong: pay the format part to wrong answers too. It teaches the form to a policy that does not have
            it yet, since then a group without one right answer still has a gradient. The price is that a policy can
            collect it without looking.
        profile: how the verifier reads (see `verify`), strict or robust; strict ties the accuracy to the form as well.
        parts: what else is paid for.
        when_truncated: what a completion earns that ended at the length limit, not by itself. "pay" as any other,
            "no_format" all but the format part, "zero" nothing.
        when_unparsable: added where no answer could be read (statuses ambiguous, unparsable, format), truncated or
            not; at most 0. Below 0 it tells an answer that is wrong from none.
        format_limit: the format weight, with the weights of parts paid to wrong answers, may be at most this share of
            `accuracy`; math.inf allows any.

    Raises:
        UsageError: a weight that is none, a name twice, or weights above `format_limit`.
    """

    accuracy: float = 1.0
    format: float = 0.1
    format_when_wrong: bool = False
    profile: str = "strict"
    parts: tuple[Part, ...] = ()
    when_truncated: TruncatedPolicy = "no_format"
    when_unparsable: float = 0.0
    format_limit: float = 0.1

    def __post_init__(self) -> None:
        object.__setattr__(self, "parts", tuple(self.parts))
        named = {"accuracy": self.accuracy, "format": self.format, **{f"parts {p.name}": p.weight for p in self.parts}}
        for name, weight in named.items():
            if not math.isfinite(weight) or weight < 0:
                raise UsageError(f"Rubric.{name} must be a finite weight >= 0, got {weight!r}")
        if self.profile not in PROFILES:
            raise UsageError(f"Rubric.profile must be one of {', '.join(PROFILES)}, got {self.profile!r}")
        if self.when_truncated not in get_args(TruncatedPolicy):
            allowed = ", ".join(get_args(TruncatedPolicy))
            raise UsageError(f"Rubric.when_truncated must be one of {allowed}, got {self.when_truncated!r}")
        if not math.isfinite(self.when_unparsable) or self.when_unparsable > 0:
            raise UsageError(f"Rubric.when_unparsable must be finite and at most 0, got {self.when_unparsable!r}")
        names = [*_OWN_NAMES, *(p.name for p in self.parts)]
        if len(set(names)) < len(names):
            raise UsageError(f"Rubric.parts must have different names, none of {', '.join(_OWN_NAMES)}: {names[3:]}")
        self._check_limit()

    def _check_limit(self) -> None:
        free = self.format + sum(p.weight for p in self.parts if p.when_wrong)
        if self.format_limit == math.inf:
            return
        if not self.format_limit >= 0 or free > self.format_limit * self.accuracy * (1 + 1e-9):
            raise UsageError(
                f"Rubric.format (with the parts paid to wrong answers) weighs {free:g}, above {self.format_limit:g} of "
                f"accuracy ({self.accuracy:g}): a policy would live on it. Lower it, or raise format_limit"
            )

    @property
    def weights(self) -> dict[str, float]:
        """The weight of every name in `Reward.parts`."""
        own = {"accuracy": self.accuracy, "format": self.format, "unparsable": self.when_unparsable}
        return own | {p.name: p.weight for p in self.parts}

    def __call__(self, completion: str, answer: Answer, truncated: bool = False) -> Reward:
        """Reward one completion.

        Args:
            completion: its decoded text.
            answer: the truth.
            truncated: it ended at the length limit, not by itself.

        Raises:
            UsageError: a part's score is no number in [-1, 1].
        """
        verdict = verify(completion, answer, self.profile)
        paid = not (truncated and self.when_truncated == "zero")
        right = verdict.score > 0.0
        earns_form = (
            verdict.format_ok and (right or self.format_when_wrong) and not (truncated and self.when_truncated != "pay")
        )
        parts = {
            "accuracy": verdict.score if paid else 0.0,
            "format": float(earns_form),
            "unparsable": float(verdict.status in _UNREAD),
        }
        for part in self.parts:
            earns = paid and (right or part.when_wrong)
            parts[part.name] = _score(part, completion, answer, verdict) if earns else 0.0
        weights = self.weights
        weighted = {name: weights[name] * value for name, value in parts.items()}
        return Reward(sum(weighted.values()), weighted["accuracy"], weighted["format"], verdict, parts)


def _score(part: Part, completion: str, answer: Answer, verdict: Verdict) -> float:
    score = float(part.score(completion, answer, verdict))
    if not -1.0 <= score <= 1.0:
        raise UsageError(f"Rubric.parts: {part.name} scored {score!r}, which is not in [-1, 1]")
    return score
