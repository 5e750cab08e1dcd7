"""Dense alignment: each visual token is drawn to the language model's own words for what its patch shows."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

_TEMPERATURE = 0.07


def alignment_loss(tokens: Tensor, words: Tensor, embedding: Tensor, groups: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Cosine cross-entropy of visual tokens against the words of each group.

    For group g with word embeddings E_g: mean over labelled tokens of -log softmax(cos(h, E_g) / 0.07)[word].
    Where a group labels patches with and without an object, both count half: most patches show none.

    Args:
        tokens: [N, D] visual tokens after the projector.
        words: int [N, G], index of the right word in each group, -1 for none.
        embedding: [V, D], the language model's input embeddings.
        groups: G tensors of token ids.

    Returns:
        (loss: sum over groups, accuracy: share of right words over object patches, groups averaged).
    """
    directions = F.normalize(tokens, dim=-1)
    losses, hits = [], []
    for group, column in zip(groups, words.unbind(1), strict=True):
        known = column >= 0
        if not known.any():
            continue
        logits = directions[known] @ F.normalize(embedding[group], dim=-1).T / _TEMPERATURE
        target = column[known].long()
        each = F.cross_entropy(logits, target, reduction="none")
        thing, right = words[known, 1] >= 0, (logits.argmax(-1) == target).float()
        if thing.any() and not thing.all():  # as much weight on patches of objects as on the ground's
            losses.append((each[thing].mean() + each[~thing].mean()) / 2)
            hits.append(right[thing].mean())
        else:
            losses.append(each.mean())
            hits.append(right.mean())
    return torch.stack(losses).sum(), torch.stack(hits).mean().detach()
