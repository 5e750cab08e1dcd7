"""Ask more of what a policy is right about sometimes: weights of kinds of questions from what recent groups showed.

The learnability of a question with success rate p is p (1 - p), the variance of its outcome: nothing is learned from
what always or never succeeds (SFL; Rutherford et al., arXiv:2408.15099, section 4). Here it is the mean over the recent
groups of a kind, an *arm*: a family of questions, of the World at one difficulty.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .recipe import CurriculumRecipe

LEARNED, GROUPS = "learnability of ", "groups of "
"""What a stage's metrics call the sums of an arm."""

Tally = dict[str, tuple[float, float]]
"""{arm: (sum of p (1 - p), groups)}"""


def arm_sums(arms: Sequence[str], asked: Sequence[str], accuracy: Sequence[Sequence[float]]) -> dict[str, float]:
    """The sums of a batch, named for its metrics.

    Args:
        arms: all there are; each has its two sums, 0 where it was not asked.
        asked: the arm of each of Q questions.
        accuracy: [Q, G] scores in [0, 1].
    """
    sums = {f"{name}{arm}": 0.0 for arm in arms for name in (LEARNED, GROUPS)}
    for arm, group in zip(asked if arms else (), accuracy, strict=bool(arms)):
        p = sum(group) / len(group)
        sums[f"{LEARNED}{arm}"] += p * (1 - p)
        sums[f"{GROUPS}{arm}"] += 1.0
    return sums


def is_arm_sum(name: str) -> bool:
    """Whether a metric is one of them."""
    return name.startswith((LEARNED, GROUPS))


@dataclass(frozen=True)
class _Past:
    """Tallies folded up to a step, and those of the steps behind it one by one."""

    folded: Tally
    recent: tuple[tuple[int, Tally], ...]


class Curriculum:
    """The weights of arms, step by step.

    Those that deal step s come from the steps up to s - lag, so batches may be made that many steps ahead, and a run
    that goes on deals what it would have dealt.
    """

    def __init__(self, recipe: CurriculumRecipe, arms: Sequence[str], state: Mapping[str, Any] | None = None) -> None:
        """
        Args:
            state: what `state` gave when the run was left.
        """
        self.recipe, self.arms = recipe, tuple(arms)
        held = state or {"folded": {}, "recent": []}
        self._past = _Past(_read(held["folded"]), tuple((int(step), _read(tally)) for step, tally in held["recent"]))

    def weights(self, step: int) -> dict[str, float]:
        """Each arm's weight in [floor, 1] in the dealing of a step: its learnability as a share of the greatest.

        An arm that was not asked yet weighs 1.
        """
        seen = self._folded(step - self.recipe.lag)
        rates = {arm: learned / groups for arm, (learned, groups) in seen.items() if groups}
        top = max(rates.values(), default=0.0)
        return {arm: max(self.recipe.floor, rates[arm] / top) if top and arm in rates else 1.0 for arm in self.arms}

    def record(self, step: int, metrics: dict[str, float]) -> dict[str, float]:
        """Take the sums of step `step` out of its metrics; the weights that dealt it, to be logged."""
        used = self.weights(step)
        tally = {arm: (metrics.pop(f"{LEARNED}{arm}"), metrics.pop(f"{GROUPS}{arm}")) for arm in self.arms}
        self._past = _Past(self._past.folded, (*self._past.recent, (step, tally)))
        known = step + 1 - self.recipe.lag  # the step that follows looks no further back
        self._past = _Past(self._folded(known), tuple(one for one in self._past.recent if one[0] > known))
        learned, groups = (sum(sums) for sums in zip(*tally.values(), strict=True))
        mean = learned / groups if groups else 0.0
        return {"curriculum_learnability": mean} | {f"curriculum_{arm}": weight for arm, weight in used.items()}

    @property
    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps, as JSON holds it; floats keep every bit there."""
        return {"folded": self._past.folded, "recent": self._past.recent}

    def _folded(self, last: int) -> Tally:
        """The tallies up to step `last`, each weighing less the longer ago it was."""
        stay = 1 - 1 / self.recipe.window
        sums = self._past.folded
        for step, tally in self._past.recent:
            if step <= last:
                held = {arm: sums.get(arm, (0.0, 0.0)) for arm in self.arms}
                sums = {arm: (stay * held[arm][0] + tally[arm][0], stay * held[arm][1] + tally[arm][1]) for arm in held}
        return sums


def _read(tally: Mapping[str, Sequence[float]]) -> Tally:
    return {arm: (float(sums[0]), float(sums[1])) for arm, sums in tally.items()}
