"""Group-relative policy optimisation: completions of a group, verified, compared with each other, learned from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from entropy_vision.policy import Prefix

from .advantage import grpo_advantages
from .batch import Batch
from .context import Context, Metrics
from .health import Scored, tally
from .loss import loss_denominator, policy_terms
from .rollout import Rollouts, read_questions, sample, score

# of `health`, beside what is counted here (zero_variance over all processes, format)
_WATCHED = ("truncated", "unparsable", "ambiguous", "duplicates", "hack_gap")


@dataclass(frozen=True)
class Rolled:
    """One batch's completions, verified: Q questions with G completions each.

    Attributes:
        read: what the policy has read of the Q questions, with gradients: sampling and the first update share it, so
            the graphs of all of a step's batches are alive together.
        rewards: float64 [Q, G].
        sums: metrics of all completions as sums, with their counts, so that parts of a step add up.
    """

    batch: Batch
    read: Prefix
    rollouts: Rollouts
    rewards: Tensor
    sums: Metrics

    @property
    def differ(self) -> Tensor:
        """bool [Q]: questions whose rewards are not all equal; the others carry no advantage."""
        return (self.rewards != self.rewards[:, :1]).any(1)


@dataclass(frozen=True)
class _Learned:
    """The completions of a batch that go through the training forward: L of its questions, G completions each.

    Attributes:
        chosen: int64 [L], which of the batch's questions.
        ids, mask, old_logp, ref_logp: [L * G, T]; advantages: [L * G].
    """

    chosen: Tensor
    ids: Tensor
    mask: Tensor
    old_logp: Tensor
    advantages: Tensor
    ref_logp: Tensor | None


def roll(context: Context, batch: Batch, generator: torch.Generator) -> Rolled:
    """Sample a group a question and verify it."""
    recipe, size = context.recipe.grpo, context.recipe.grpo.group_size
    read = read_questions(context.model, context.tokenizer, batch)
    rollouts = sample(
        context.model,
        context.tokenizer,
        read,
        group=size,
        temperature=recipe.temperature,
        max_new_tokens=recipe.max_new_tokens,
        generator=generator,
    )
    answers = [ask.answer for ask in batch.asks for _ in range(size)]
    scored = [
        Scored(text, answer, context.rubric(text, answer, truncated=cut), cut)
        for text, answer, cut in zip(rollouts.texts, answers, rollouts.truncated.tolist(), strict=True)
    ]
    rewards = [one.reward for one in scored]
    total = torch.tensor([r.total for r in rewards], dtype=torch.float64).view(-1, size)
    sums = {
        "reward": float(total.sum()),
        "accuracy": sum(r.verdict.score for r in rewards),
        "format": float(sum(r.verdict.format_ok for r in rewards)),
        "length": float(rollouts.mask.sum()),
        "entropy": float(rollouts.entropy.sum()),
    }
    watched = tally(scored[i : i + size] for i in range(0, len(scored), size))
    sums |= {name: watched[name] for name in _WATCHED}
    return Rolled(batch, read, rollouts, total, sums)


def _advantages(context: Context, rolled: Sequence[Rolled]) -> list[Tensor]:
    """[Q, G] for each batch. Where the whole step sets the scale, it is the step of all media and processes."""
    scale = context.recipe.grpo.scale
    mine = [r.rewards for r in rolled]
    if scale != "batch":
        return [grpo_advantages(rewards, scale=scale) for rewards in mine]
    everyone = context.team.gather(torch.cat(mine))
    before = sum(len(rewards) for rewards in everyone[: context.team.rank])
    whole = grpo_advantages(torch.cat(everyone), scale=scale)
    return list(whole[before : before + sum(map(len, mine))].split([len(rewards) for rewards in mine]))


@torch.no_grad()
def _to_learn(context: Context, rolled: Rolled, advantages: Tensor) -> _Learned:
    """What of a batch the loss is made of, with the reference's opinion of it."""
    recipe, device = context.recipe.grpo, context.model.device
    chosen = rolled.differ if recipe.equal_groups == "skip" or recipe.beta == 0 else torch.ones(len(advantages)).bool()
    rows = chosen.repeat_interleave(recipe.group_size).to(device)
    questions = chosen.nonzero()[:, 0].to(device)
    ids, mask, logp = (t[rows] for t in (rolled.rollouts.ids, rolled.rollouts.mask, rolled.rollouts.logp))
    ref_logp = None
    if context.reference is not None and len(questions):
        prefix = read_questions(context.reference, context.tokenizer, rolled.batch).rows(questions)
        ref_logp = score(context.reference, context.tokenizer, prefix, ids, mask, temperature=recipe.temperature)
    return _Learned(questions, ids, mask, logp, advantages.flatten().float().to(device)[rows], ref_logp)


def grpo_step(context: Context, batches: Sequence[Batch], step: int, update: Callable[[], float]) -> Metrics:
    """One batch of groups and `updates` optimiser steps on it."""
    generator = torch.Generator(context.model.device)
    generator.manual_seed((context.recipe.seed * 1_000_003 + step) * 1_009 + context.team.rank)
    return learn(context, [roll(context, batch, generator) for batch in batches], update)


def learn(context: Context, rolled: Sequence[Rolled], update: Callable[[], float]) -> Metrics:
    """Gradients of what was rolled, `update` called for each optimiser step.

    The objective is the essay's: mean over completions of min(ratio A, bounded ratio A) - beta KL(policy, reference),
    over all completions of the step whatever their rewards, however they are parted into batches and processes. The
    policy reads each picture and each question once, for the sampling and the first update together; all completions
    continue from there and gradients flow back through what they share. The reference reads for itself, as does every
    further update.
    """
    recipe, team = context.recipe.grpo, context.team
    learned = [_to_learn(context, *pair) for pair in zip(rolled, _advantages(context, rolled), strict=True)]
    metrics, denominator, tokens = _totals(context, rolled, learned)
    sums = {"loss": 0.0, "kl": 0.0, "bounded": 0.0}
    norm = 0.0
    for turn in range(recipe.updates if tokens else 0):
        for source, part in zip(rolled, learned, strict=True):
            if not len(part.chosen):
                continue
            # a policy that has changed since the sampling must read anew
            read = read_questions(context.model, context.tokenizer, source.batch) if turn else source.read
            prefix = read.rows(part.chosen)
            terms = policy_terms(
                score(context.model, context.tokenizer, prefix, part.ids, part.mask, temperature=recipe.temperature),
                part.old_logp,
                part.advantages,
                part.mask,
                ref_logp=part.ref_logp,
                beta=recipe.beta,
                eps_low=recipe.eps_low,
                eps_high=recipe.eps_high,
                loss=recipe.loss,
                denominator=denominator,
            )
            terms.loss.backward()
            share = int(part.mask.sum()) / tokens / recipe.updates
            sums["loss"] += float(terms.loss.detach()) / recipe.updates
            sums["kl"] += float(terms.kl) * share
            sums["bounded"] += float(terms.bound_low + terms.bound_high) * share
        norm = update()
    totals = team.total(*sums.values())
    return {**metrics, **dict(zip(sums, totals, strict=True)), "grad_norm": norm}


def _totals(context: Context, rolled: Sequence[Rolled], learned: Sequence[_Learned]) -> tuple[Metrics, float, float]:
    """(metrics of the step's completions, what the loss divides by, tokens in the training forward), of all processes.

    The denominator counts every completion, learned from or not: it is the mean's.
    """
    recipe, team = context.recipe.grpo, context.team
    masks = [r.rollouts.mask for r in rolled]
    names = list(rolled[0].sums)
    asked, equal, denominator, tokens, *seen = team.total(
        sum(r.rewards.numel() for r in rolled),
        sum(float((~r.differ).sum()) for r in rolled) * recipe.group_size,
        sum(float(loss_denominator(mask, recipe.loss, recipe.max_new_tokens)) for mask in masks),
        sum(int(part.mask.sum()) for part in learned),
        *(sum(r.sums[name] for r in rolled) for name in names),
    )
    sums = dict(zip(names, seen, strict=True))
    entropy = sums.pop("entropy") / sums["length"]
    metrics = {name: total / asked for name, total in sums.items()}
    return {**metrics, "entropy": entropy, "zero_variance": equal / asked}, denominator, tokens
