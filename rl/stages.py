"""The three stages, each one function: batches of a step in, gradients and metrics out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from entropy_vision.policy import Prefix

from .align import alignment_loss, label_counts
from .batch import Batch
from .buffer import Turns, finite
from .context import Context, Metrics
from .flops import Asked
from .grpo import grpo_step
from .rollout import pad_rows, read_pictures


def _label_totals(context: Context, batches: Sequence[Batch]) -> Tensor:
    """`label_counts` of the whole step, all media and processes."""
    mine = sum((label_counts(b.words) for b in batches), torch.zeros(len(context.groups), 2, dtype=torch.float64))
    return torch.tensor(context.team.total(*mine.flatten().tolist())).view_as(mine)


def align_step(
    context: Context, batches: Sequence[Batch], step: int, update: Callable[[], float], turns: Turns
) -> Metrics:
    """Draw visual tokens to words, averaged over all labelled patches of the step.

    Raises:
        NotFinite: the loss or its gradient is not; nothing was changed by it.
    """
    model, counts, prices = context.model, _label_totals(context, batches), context.prices
    sums = {"loss": 0.0, "align_accuracy": 0.0, "flops": 0.0}
    for batch in batches:
        with context.clock("encode"):
            tokens = model.embed_patches(batch.patches)
        loss, accuracy = alignment_loss(tokens, batch.words, model.word_embeddings, context.groups, counts)
        sums["loss"] += finite(loss)
        with context.clock("backward"):
            loss.backward()
        sums["align_accuracy"] += accuracy
        encoded = prices.encode(batch.patches)
        sums["flops"] += encoded + prices.back(encoded, batch.patches)
    totals = context.team.total(*sums.values())
    return {**dict(zip(sums, totals, strict=True)), "grad_norm": update()}


def sft_step(
    context: Context, batches: Sequence[Batch], step: int, update: Callable[[], float], turns: Turns
) -> Metrics:
    """Next-token loss on the demonstrations, the weighted mean over all completion tokens of the step.

    Tokens behind the rationale weigh `sft.answer_weight`. They are few, and that a thing at r3c4 and then at r3c1 moved
    is learned from them alone.

    Raises:
        NotFinite: as `align_step`.
    """
    model, recipe, prices, dialect = context.model, context.recipe.sft, context.prices, context.dialect
    rows = [_demonstrations(context, batch) for batch in batches]
    (total,) = context.team.total(sum(float(d.weight.sum()) for d in rows))
    align_weight = recipe.align_weight if context.groups else 0.0
    counts = _label_totals(context, batches) if align_weight else None
    if counts is None or not counts.any():  # files say nothing of what a patch shows
        align_weight = 0.0
    sums = {"loss": 0.0, "token_accuracy": 0.0, "flops": 0.0} | ({"align_accuracy": 0.0} if align_weight else {})
    for batch, given in zip(batches, rows, strict=True):
        with context.clock("encode"):
            visual = model.embed_patches(batch.patches)
            pictures = read_pictures(model, dialect, batch.patches, visual).rows(batch.owner.to(model.device))
        said, right = _next_token_loss(context, pictures, given)
        loss = said / total
        lengths = (given.live.sum(1) - 1).tolist()
        asked = Asked(model.slots(batch.patches).counts, batch.owner.tolist(), lengths, len(dialect.before))
        read = prices.read_questions(batch.patches, asked, predicted=True)
        sums["flops"] += read + prices.back(read, batch.patches)
        sums["loss"] += float(loss.detach())
        sums["token_accuracy"] += right / total
        if align_weight:
            drawn, accuracy = alignment_loss(visual, batch.words, model.word_embeddings, context.groups, counts)
            loss = loss + align_weight * drawn
            sums["align_accuracy"] += accuracy
        finite(loss)
        with context.clock("backward"):
            loss.backward()
    totals = context.team.total(*sums.values())
    return {**dict(zip(sums, totals, strict=True)), "grad_norm": update()}


def _next_token_loss(context: Context, prefix: Prefix, given: _Demonstrations) -> tuple[Tensor, float]:
    """(weighted sum of negative log-probabilities in nats, weight of the tokens that were the likeliest)."""
    model = context.model
    ids, live, weight = (t.to(model.device) for t in (given.ids, given.live, given.weight[:, 1:]))
    logits, _ = model.read(prefix, ids[:, :-1], live[:, :-1])
    wanted, target = weight > 0, ids[:, 1:]
    each = F.cross_entropy(logits[wanted], target[wanted], reduction="none")
    return (each * weight[wanted]).sum(), float(((logits.argmax(-1) == target) * weight).sum())


@dataclass(frozen=True)
class _Demonstrations:
    """Questions and right completions as rows: ids int64, live bool, weight float, each [Q, T]; weight 0 is not
    learned."""

    ids: Tensor
    live: Tensor
    weight: Tensor


def _demonstrations(context: Context, batch: Batch) -> _Demonstrations:
    """Those of a batch."""
    dialect, answer_weight, rows = context.dialect, context.recipe.sft.answer_weight, []
    weights = []
    for ask in batch.asks:
        prompt, (gold, thought) = dialect.prompt(ask.question), dialect.demonstration(ask.gold)
        rows.append(prompt + gold)
        weights.append([0.0] * len(prompt) + [1.0] * thought + [answer_weight] * (len(gold) - thought))
    ids, live = pad_rows(rows, dialect.pad)
    weight = torch.zeros(ids.shape)
    for i, row in enumerate(weights):
        weight[i, : len(row)] = torch.tensor(row)
    return _Demonstrations(ids, live, weight)


STEPS = {"align": align_step, "sft": sft_step, "grpo": grpo_step}
