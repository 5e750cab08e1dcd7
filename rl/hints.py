"""What a run of GRPO says where it learns nothing, which would otherwise cost hours to see."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from entropy_vision.dialect import Dialect

from .scenes import Ask

_IDLE = 10  # steps


def short_answers(dialect: Dialect, asks: Iterable[Ask], limit: int) -> str | None:
    """That right answers are longer than a completion may be, and are cut off; None where they fit."""
    longest = max((len(dialect.demonstration(ask.gold)[0]) for ask in asks), default=0)
    if longest <= limit:
        return None
    return f"grpo.max_new_tokens = {limit}: right answers here have up to {longest} tokens, and are cut off"


class Idle:
    """Counts steps in a row in which all groups are equal, and so carry no advantage."""

    def __init__(self) -> None:
        self._steps = 0

    def __call__(self, metrics: Mapping[str, float]) -> str | None:
        """What there is to say after a step: once, when it has gone on for a while."""
        self._steps = self._steps + 1 if metrics.get("zero_variance") == 1 else 0
        if self._steps != _IDLE:
            return None
        return (
            f"in {_IDLE} steps all completions of every question earned the same (reward {metrics['reward']:.3g}), so "
            "nothing is learned: take an init that is right sometimes, easier questions or a higher grpo.temperature"
        )
