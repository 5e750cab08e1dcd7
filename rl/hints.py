"""What a run says that would otherwise cost hours to see: that it learns nothing, or on what it did not mean to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from entropy_vision.dialect import Dialect

from .recipe import DataRecipe
from .scenes import Ask

_IDLE = 10  # steps


def short_answers(dialect: Dialect, asks: Iterable[Ask], limit: int) -> str | None:
    """That right answers are longer than a completion may be, and are cut off; None where they fit."""
    longest = max((len(dialect.demonstration(ask.gold)[0]) for ask in asks), default=0)
    if longest <= limit:
        return None
    return f"grpo.max_new_tokens = {limit}: right answers here have up to {longest} tokens, and are cut off"


def padded_pictures(data: DataRecipe, patch_size: int) -> str | None:
    """That patches do not divide the pictures of a run, so that borders repeat; None where they do."""
    sizes = {"image_size": data.image_scenes, "video_size": data.video_scenes}
    for name in (name for name, scenes in sizes.items() if scenes and getattr(data, name) % patch_size):
        side = getattr(data, name)
        less = side // patch_size * patch_size
        more = less + patch_size
        return (
            f"data.{name} = {side}: patches of {patch_size} pixels do not divide it, so the last {more - side} of "
            f"{more} repeat the border; {f'{less} or ' if less else ''}{more} would have none"
        )
    return None


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
