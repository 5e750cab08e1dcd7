"""The three stages, each one function: batches of a step in, gradients and metrics out."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from entropy_vision.policy import Prefix
from entropy_vision.text import PAD, completion_ids, prompt_ids, token_id

from .align import alignment_loss, label_counts
from .batch import Batch
from .context import Context, Metrics
from .grpo import grpo_step
from .rollout import pad_rows


def _label_totals(context: Context, batches: Sequence[Batch]) -> Tensor:
    """`label_counts` of the whole step, all media and processes."""
    mine = sum((label_counts(b.words) for b in batches), torch.zeros(len(context.groups), 2, dtype=torch.float64))
    return torch.tensor(context.team.total(*mine.flatten().tolist())).view_as(mine)


def align_step(context: Context, batches: Sequence[Batch], step: int, update: Callable[[], float]) -> Metrics:
    """Draw visual tokens to words, averaged over all labelled patches of the step."""
    model, counts = context.model, _label_totals(context, batches)
    sums = {"loss": 0.0, "align_accuracy": 0.0}
    for batch in batches:
        tokens = model.embed_patches(batch.patches)
        loss, accuracy = alignment_loss(tokens, batch.words, model.word_embeddings, context.groups, counts)
        loss.backward()
        sums["loss"] += float(loss.detach())
        sums["align_accuracy"] += accuracy
    totals = context.team.total(*sums.values())
    return {**dict(zip(sums, totals, strict=True)), "grad_norm": update()}


def _next_token_loss(
    context: Context, prefix: Prefix, pairs: list[tuple[list[int], list[int]]]
) -> tuple[Tensor, float]:
    """Next-token loss on the completions of (prompt, completion) token rows, each behind its prefix.

    Returns:
        (sum of negative log-probabilities in nats, how many of the tokens were the likeliest).
    """
    model = context.model
    ids, live = pad_rows([prompt + gold for prompt, gold in pairs], token_id(context.tokenizer, PAD))
    learned = live.clone()
    for row, (prompt, _) in enumerate(pairs):
        learned[row, : len(prompt)] = False
    ids, live, wanted = ids.to(model.device), live.to(model.device), learned[:, 1:].to(model.device)
    logits, _ = model.read(prefix, ids[:, :-1], live[:, :-1])
    target = ids[:, 1:]
    loss = F.cross_entropy(logits[wanted], target[wanted], reduction="sum")
    return loss, float((logits.argmax(-1) == target)[wanted].sum())


def sft_step(context: Context, batches: Sequence[Batch], step: int, update: Callable[[], float]) -> Metrics:
    """Next-token loss on the demonstrations, averaged over all completion tokens of the step."""
    model, weight = context.model, context.recipe.sft.align_weight
    rows = [
        [(prompt_ids(context.tokenizer, a.question), completion_ids(context.tokenizer, a.gold)) for a in b.asks]
        for b in batches
    ]
    (tokens,) = context.team.total(sum(len(gold) for batch in rows for _, gold in batch))
    counts = _label_totals(context, batches)
    sums = {"loss": 0.0, "token_accuracy": 0.0, "align_accuracy": 0.0}
    for batch, pairs in zip(batches, rows, strict=True):
        visual = model.embed_patches(batch.patches)
        pictures = model.read_patches(batch.patches, visual).rows(batch.owner.to(model.device))
        said, right = _next_token_loss(context, pictures, pairs)
        loss = said / tokens
        sums["loss"] += float(loss.detach())
        sums["token_accuracy"] += right / tokens
        if weight:
            drawn, accuracy = alignment_loss(visual, batch.words, model.word_embeddings, context.groups, counts)
            loss = loss + weight * drawn
            sums["align_accuracy"] += accuracy
        loss.backward()
    totals = context.team.total(*sums.values())
    return {**dict(zip(sums, totals, strict=True)), "grad_norm": update()}


STEPS = {"align": align_step, "sft": sft_step, "grpo": grpo_step}
