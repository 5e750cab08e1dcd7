"""The three stages, each one function: batches of a step in, gradients and metrics out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import PreTrainedTokenizerFast

from entropy_vision.policy import EntropyVLM, Prefix
from entropy_vision.text import PAD, completion_ids, prompt_ids, token_id

from .advantage import grpo_advantages
from .align import alignment_loss, label_counts
from .batch import Batch
from .loss import loss_denominator, policy_terms
from .parallel import Team
from .recipe import TrainRecipe
from .rollout import pad_rows, read_prompts, sample, score
from .rubric import Rubric

Metrics = dict[str, float]


@dataclass(frozen=True)
class Context:
    """What a stage needs beside its batches."""

    model: EntropyVLM
    tokenizer: PreTrainedTokenizerFast
    recipe: TrainRecipe
    groups: Sequence[Tensor]
    rubric: Rubric
    reference: EntropyVLM | None = None
    team: Team = field(default_factory=Team)


def _label_totals(context: Context, batches: Sequence[Batch]) -> Tensor:
    """`label_counts` of the whole step, all media and processes."""
    mine = sum((label_counts(b.words) for b in batches), torch.zeros(len(context.groups), 2, dtype=torch.float64))
    return torch.tensor(context.team.total(*mine.flatten().tolist())).view_as(mine)


def align_step(context: Context, batches: Sequence[Batch], step: int, update: Callable[[], float]) -> Metrics:
    """Draw visual tokens to words, averaged over all labelled patches of the step."""
    counts = _label_totals(context, batches)
    loss_sum = accuracy_sum = 0.0
    for batch in batches:
        tokens = context.model.embed_patches(batch.patches)
        loss, accuracy = alignment_loss(tokens, batch.words, context.model.word_embeddings, context.groups, counts)
        loss.backward()
        loss_sum += float(loss.detach())
        accuracy_sum += accuracy
    loss_sum, accuracy_sum = context.team.total(loss_sum, accuracy_sum)
    return {"loss": loss_sum, "align_accuracy": accuracy_sum, "grad_norm": update()}


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
        pictures = model.read_patches(batch.patches, visual)
        ids, live = pad_rows([p + g for p, g in pairs], token_id(context.tokenizer, PAD))
        learned = live.clone()
        for row, (prompt, _) in enumerate(pairs):
            learned[row, : len(prompt)] = False
        ids, live, learned = ids.to(model.device), live.to(model.device), learned.to(model.device)
        logits, _ = model.read(pictures.rows(batch.owner.to(model.device)), ids[:, :-1], live[:, :-1])
        target, wanted = ids[:, 1:], learned[:, 1:]
        loss = F.cross_entropy(logits[wanted], target[wanted], reduction="sum") / tokens
        sums["loss"] += float(loss.detach())
        sums["token_accuracy"] += float((logits.argmax(-1) == target)[wanted].sum()) / tokens
        if weight:
            drawn, accuracy = alignment_loss(visual, batch.words, model.word_embeddings, context.groups, counts)
            loss = loss + weight * drawn
            sums["align_accuracy"] += accuracy
        loss.backward()
    totals = context.team.total(*sums.values())
    return {**dict(zip(sums, totals, strict=True)), "grad_norm": update()}


@dataclass(frozen=True)
class _Group:
    """One batch's completions that carry a learning signal: L questions whose rewards differ, G completions each.

    Attributes:
        live: int64 [L], those questions.
        ids, mask, old_logp, ref_logp: [L * G, T]; advantages: [L * G].
        metrics: of all the batch's completions.
    """

    batch: Batch
    live: Tensor
    ids: Tensor
    mask: Tensor
    old_logp: Tensor
    advantages: Tensor
    ref_logp: Tensor | None
    metrics: Metrics


def _questions(model: EntropyVLM, context: Context, batch: Batch) -> Prefix:
    """Pictures and questions of a batch, read once each."""
    prompts = [prompt_ids(context.tokenizer, ask.question) for ask in batch.asks]
    return read_prompts(model, context.tokenizer, model.read_patches(batch.patches), batch.owner, prompts)


@torch.no_grad()
def _roll(context: Context, batch: Batch, generator: torch.Generator) -> _Group:
    """Sample a group a question, verify, and keep the questions whose rewards differ."""
    recipe, size = context.recipe.grpo, context.recipe.grpo.group_size
    rollouts = sample(
        context.model,
        context.tokenizer,
        _questions(context.model, context, batch),
        group=size,
        temperature=recipe.temperature,
        max_new_tokens=recipe.max_new_tokens,
        generator=generator,
    )
    cut = rollouts.truncated.tolist()
    rewards = [
        context.rubric(text, batch.asks[row // size].answer, truncated=cut[row])
        for row, text in enumerate(rollouts.texts)
    ]
    total = torch.tensor([r.total for r in rewards]).view(-1, size)
    differ = (total != total[:, :1]).any(1)
    lengths = rollouts.mask.sum(1).float()
    metrics = {
        "reward": float(total.mean()),
        "accuracy": sum(r.verdict.score for r in rewards) / len(rewards),
        "format": sum(r.verdict.format_ok for r in rewards) / len(rewards),
        "length": float(lengths.mean()),
        "truncated": float(rollouts.truncated.float().mean()),
        "entropy": float(rollouts.entropy.sum() / lengths.sum()),
        "zero_variance": 1.0 - float(differ.float().mean()),
    }
    live = differ.nonzero()[:, 0].to(context.model.device)
    rows = differ.repeat_interleave(size).to(context.model.device)
    ids, mask, logp = rollouts.ids[rows], rollouts.mask[rows], rollouts.logp[rows]
    ref_logp = None
    if context.reference is not None and len(live):
        prefix = _questions(context.reference, context, batch).rows(live)
        ref_logp = score(context.reference, context.tokenizer, prefix, ids, mask, temperature=recipe.temperature)
    advantages = grpo_advantages(total, scale=recipe.scale).flatten().to(context.model.device)[rows]
    return _Group(batch, live, ids, mask, logp, advantages, ref_logp, metrics)


def grpo_step(context: Context, batches: Sequence[Batch], step: int, update: Callable[[], float]) -> Metrics:
    """One batch of groups and `updates` optimiser steps on it.

    The objective is the essay's: mean over completions of min(ratio A, bounded ratio A) - beta KL(policy, reference).
    Each picture and each question is read once, in sampling and in the training forward alike; all completions
    continue from there and gradients flow back through what they share. Groups with equal rewards carry no
    advantage; they are left out of the loss and of its denominator.
    """
    recipe = context.recipe.grpo
    team = context.team
    generator = torch.Generator(context.model.device)
    generator.manual_seed((context.recipe.seed * 1_000_003 + step) * 1_009 + team.rank)
    groups = [_roll(context, batch, generator) for batch in batches]
    live = [g for g in groups if len(g.live)]
    asked, denominator, tokens = team.total(
        sum(len(g.batch.asks) for g in groups),
        sum(float(loss_denominator(g.mask, recipe.loss)) for g in live),
        sum(int(g.mask.sum()) for g in live),
    )
    names = list(groups[0].metrics)
    seen = team.total(*(sum(g.metrics[n] * len(g.batch.asks) for g in groups) / asked for n in names))
    learned = {"loss": 0.0, "kl": 0.0, "bounded": 0.0}
    norm = 0.0
    for _ in range(recipe.updates if denominator else 0):
        for group in live:
            prefix = _questions(context.model, context, group.batch).rows(group.live)
            terms = policy_terms(
                score(context.model, context.tokenizer, prefix, group.ids, group.mask, temperature=recipe.temperature),
                group.old_logp,
                group.advantages,
                group.mask,
                ref_logp=group.ref_logp,
                beta=recipe.beta,
                eps_low=recipe.eps_low,
                eps_high=recipe.eps_high,
                loss=recipe.loss,
                denominator=denominator,
            )
            terms.loss.backward()
            share = int(group.mask.sum()) / tokens / recipe.updates
            learned["loss"] += float(terms.loss.detach()) / recipe.updates
            learned["kl"] += float(terms.kl) * share
            learned["bounded"] += float(terms.bound_low + terms.bound_high) * share
        norm = update()
    totals = team.total(*learned.values())
    return {**dict(zip(names, seen, strict=True)), **dict(zip(learned, totals, strict=True)), "grad_norm": norm}


STEPS = {"align": align_step, "sft": sft_step, "grpo": grpo_step}
