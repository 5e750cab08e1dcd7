"""Dense alignment: each visual token is drawn to the language model's own words for what its patch shows."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

_TEMPERATURE = 0.07
_SHAPE = 1  # the group that labels patches of objects and no others


def label_counts(words: Tensor) -> Tensor:
    """How many patches each group labels: float64 [G, 2], patches of objects and others."""
    known, thing = words >= 0, words[:, _SHAPE : _SHAPE + 1] >= 0
    return torch.stack(((known & thing).sum(0), (known & ~thing).sum(0)), dim=1).double()


def alignment_loss(
    tokens: Tensor, words: Tensor, embedding: Tensor, groups: Sequence[Tensor], counts: Tensor | None = None
) -> tuple[Tensor, float]:
    """Cosine cross-entropy of visual tokens against the words of each group.

    For group g with word embeddings E_g, at a patch whose word is w: -log softmax(cos(h, E_g) / 0.07)[w]. The mean over
    patches of objects and the mean over others count half each where a group labels both (most patches show no
    object), and the groups are added.

    Args:
        tokens: [N, D] visual tokens after the projector.
        words: int [N, G], index of the right word in each group, -1 for none.
        embedding: [V, D], the language model's input embeddings.
        groups: G tensors of token ids.
        counts: `label_counts` of the whole step where this is a part of it; the parts' losses add up to the whole's.

    Returns:
        (loss, accuracy: share of right words over patches of objects, groups averaged; both parts of the step's).
    """
    counts = label_counts(words) if counts is None else counts
    words = words.to(tokens.device)
    directions = F.normalize(tokens, dim=-1)
    thing = words[:, _SHAPE] >= 0
    loss, hits = tokens[:0].sum(), 0.0  # 0, with a gradient where no patch has a label
    asked = int((counts[:, 0] > 0).sum())
    for group, column, (on_things, on_others) in zip(groups, words.unbind(1), counts.tolist(), strict=True):
        known = column >= 0
        logits = directions[known] @ F.normalize(embedding[group], dim=-1).T / _TEMPERATURE
        target = column[known].long()
        each = F.cross_entropy(logits, target, reduction="none")
        sides = (on_things > 0) + (on_others > 0)
        for side, count in ((thing[known], on_things), (~thing[known], on_others)):
            if count:
                loss = loss + each[side].sum() / (count * sides)
        if on_things:
            hits += float((logits.argmax(-1) == target)[thing[known]].sum()) / (on_things * asked)
    return loss, hits
