"""Placeholders in a prompt: whether they fit the kept patches, and which rotary positions they and the text have."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from entropy_vision.errors import UsageError
from entropy_vision.projectors import Slots


def check_placeholders(holes: Tensor, counts: Sequence[int], hint: str = "") -> None:
    """Whether the inputs of a pack, in their order, fill the rows' placeholders, one or several inputs a row.

    Args:
        holes: bool [B, T], True at placeholders.
        counts: placeholders that every input fills.
        hint: where else it may lie, for the message.

    Raises:
        UsageError: they do not.
    """
    wanted, fits, given = holes.sum(1).tolist(), True, iter(counts)
    for count in wanted:
        while count > 0:
            count -= next(given, count + 1)
        fits = fits and count == 0
    if not fits or next(given, None) is not None:
        raise UsageError(
            f"the prompt has {wanted} placeholders a row for inputs that fill {list(counts)}; "
            f"write one for each, in the order of the inputs (EntropyVLMProcessor does){hint}"
        )


def rotary_positions(live: Tensor, holes: Tensor, kind: str, slots: Slots | None = None) -> Tensor:
    """Rotary positions int64 [B, T] of whole rows; 0 at padding.

    Args:
        live: int64 [B, T], 0 at padding.
        holes: bool [B, T], True at placeholders.
        kind: one of `policy_config.POSITIONS`.
        slots: what the placeholders stand for, where `kind` is "grid" and there are any.

    Raises:
        UsageError: the placeholders do not fit `slots`, or a row of "grid" ends in a picture with patches left out
            at its end, so that nobody knows where the next token stands.
    """
    if kind == "shared":
        return (live * ~holes).cumsum(1) * live
    steps = live.clone()
    if kind == "grid" and slots is not None:
        check_placeholders(holes, slots.counts)
        # the step to a placeholder is the way from the one before it; the text behind an input goes to its end
        counts, totals = torch.tensor(slots.counts), torch.tensor(slots.totals)
        ends = counts.cumsum(0)
        before = slots.ranks.roll(1)
        before[ends - counts] = -1
        steps[holes] = (slots.ranks - before).to(steps.device)
        left = (totals - 1 - slots.ranks[ends - 1]).to(steps.device)
        last = holes.flatten().nonzero()[:, 0][(ends - 1).to(steps.device)]
        closes = (last + 1) % holes.shape[1] == 0
        if bool((closes & (left > 0)).any()):
            raise UsageError("a prompt must not end in a picture: put the question or the end of the turn behind it")
        steps.view(-1)[(last + 1)[~closes]] += left[~closes]
    return (steps.cumsum(1) - 1).clamp_min(0) * live
