"""How a batch of groups is doing: what to watch beside the reward, because a reward that rises may be a hack.

Every figure is a share of completions in [0, 1]:
    zero_variance  in groups whose rewards are all equal: nothing is learned from them
    unparsable     no answer of the kind that was asked for
    ambiguous      more than one answer, or a hedge
    formless       no answer where one has to stand
    truncated      ended at the length limit
    duplicates     say what an earlier one of their group says, letter for letter but for white space
    hack_gap       mean score the robust profile would pay above the strict one: a policy that is right without the
                   form, or reward that rests on reading generously
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from entropy_vision.errors import UsageError
from entropy_vision.question import Answer

from .rubric import Reward
from .verifiers import Status, verify


@dataclass(frozen=True)
class Scored:
    """One completion with what it earned."""

    completion: str
    answer: Answer
    reward: Reward
    truncated: bool = False


Group = Sequence[Scored]


def tally(groups: Iterable[Group]) -> dict[str, float]:
    """Sums over all completions, so that parts of a step add up; "completions" is what to divide them by."""
    sums = dict.fromkeys(("completions", *_STATUSES, "zero_variance", "truncated", "duplicates", "hack_gap"), 0.0)
    for group in groups:
        sums["completions"] += len(group)
        sums["zero_variance"] += len(group) if len({one.reward.total for one in group}) == 1 else 0
        sums["duplicates"] += len(group) - len({" ".join(one.completion.split()) for one in group})
        for one in group:
            sums["truncated"] += one.truncated
            sums["hack_gap"] += _gap(one)
            if one.reward.verdict.status in _STATUSES.values():
                sums[_NAMES[one.reward.verdict.status]] += 1
    return sums


def health(groups: Iterable[Group]) -> dict[str, float]:
    """The figures of the module's head.

    Raises:
        UsageError: there is no completion.
    """
    sums = tally(groups)
    completions = sums.pop("completions")
    if not completions:
        raise UsageError("health: no completions; give at least one group of one")
    return {name: total / completions for name, total in sums.items()}


_STATUSES = {"unparsable": Status.UNPARSABLE, "ambiguous": Status.AMBIGUOUS, "formless": Status.FORMAT}
_NAMES = {status: name for name, status in _STATUSES.items()}


def _gap(one: Scored) -> float:
    # both profiles read a well-formed completion alike, and strict reads no other
    return 0.0 if one.reward.verdict.format_ok else verify(one.completion, one.answer, "robust").score
