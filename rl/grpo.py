"""Group-relative policy optimisation: completions of a group, verified, compared with each other, learned from."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from entropy_vision.policy import Prefix

from .advantage import grpo_advantages
from .batch import Batch
from .buffer import Buffer, NotFinite, Rolled, Turns, finite
from .context import Context, Metrics
from .contrast import bonus
from .curriculum import arm_sums, is_arm_sum
from .engines import Wanted
from .flops import Asked, beginnings
from .health import Scored, tally
from .loss import loss_denominator, policy_terms
from .rollout import Rollouts, read_questions, score
from .rubric import Reward
from .scenes import Ask

# of `health`, beside what is counted here (zero_variance over all processes, format)
_WATCHED = ("truncated", "unparsable", "ambiguous", "duplicates", "hack_gap")


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
    """Sample a group a question and verify it; where the recipe says so, draw groups of equal rewards again.

    A question that is drawn again until its rewards differ is learned from as the completions of DAPO's dynamic
    sampling are (arXiv:2503.14476, section 3.2), but it has been read already, picture included.
    """
    parted = context.recipe.data.micro_tokens > 0
    with context.clock("encode"), torch.set_grad_enabled(not parted):
        read = read_questions(context.model, context.dialect, batch)
    rollouts, rewards = _draw(context, batch, range(len(batch.asks)), read, generator)
    against = _against(context, batch, generator)
    total = _totalled(context, rewards, against)
    sums = {
        "reward": float(total.sum()),
        "accuracy": sum(r.verdict.score for r in rewards),
        "format": float(sum(r.verdict.format_ok for r in rewards)),
        "length": float(rollouts.mask.sum()),
        "entropy": float(rollouts.entropy.sum()),
    }
    scores = _scores(context, rewards)
    sums |= arm_sums(context.arms, [ask.arm for ask in batch.asks], scores.tolist())
    with context.clock("verify"):
        sums |= _watched(context, batch, rollouts, rewards)
    asked = _asked(context, batch)
    sums["flops"] = context.prices.read_questions(batch.patches, asked) + _sampling(context, rollouts, asked.slots)
    if against is not None:
        sums |= _told(context, scores, against)
        sums["flops"] += against.flops
    if context.recipe.grpo.equal_groups == "resample":
        sums["resampled"] = 0.0
        for _ in range(context.recipe.grpo.resample_rounds):
            again = (total == total[:, :1]).all(1).nonzero()[:, 0]
            if not len(again):
                break
            rows = read.rows(again.to(context.model.device))
            drawn, verified = _draw(context, batch, again.tolist(), rows, generator)
            total[again] = _totalled(context, verified, against and against.rows(again))
            rollouts = _with_groups(rollouts, again, drawn, context.recipe.grpo.group_size)
            sums["flops"] += _sampling(context, drawn, [asked.slots[i] for i in again.tolist()])
            sums["resampled"] += len(verified)
    return Rolled(batch, None if parted else read, rollouts, total, sums)


@dataclass(frozen=True)
class _Against:
    """What Q groups are compared with.

    Attributes:
        scores: float64 [Q], mean score of the completions that saw another view; nan where there is none.
        flops: what it took.
    """

    scores: Tensor
    flops: int

    def rows(self, questions: Tensor) -> _Against:
        """Of some of the questions."""
        return _Against(self.scores[questions], 0)


@torch.no_grad()
def _against(context: Context, batch: Batch, generator: torch.Generator) -> _Against | None:
    """Half a group for each question that has another view, sampled from it; None where the recipe wants none."""
    if context.recipe.grpo.contrast == "none":
        return None
    mean = torch.full((len(batch.asks),), math.nan, dtype=torch.float64)
    if batch.contrast is None:
        return _Against(mean, 0)
    other, size = batch.contrast.batch, context.recipe.grpo.group_size // 2
    with context.clock("encode"):
        read = read_questions(context.model, context.dialect, other)
    rollouts, rewards = _draw(context, other, range(len(other.asks)), read, generator, size)
    scores = torch.tensor([r.verdict.score for r in rewards], dtype=torch.float64)
    mean[batch.contrast.questions] = scores.view(-1, size).mean(1)
    asked = _asked(context, other)
    flops = context.prices.read_questions(other.patches, asked) + _sampling(context, rollouts, asked.slots, size)
    return _Against(mean, flops)


def _told(context: Context, scores: Tensor, against: _Against) -> Metrics:
    """Of groups: those that have a contrast, those that were paid for it, and by how much they are better; as sums
    over completions."""
    size, seen = scores.shape[1], ~against.scores.isnan()
    gap = (scores.mean(1) - against.scores)[seen]
    return {
        "contrasted": float(seen.sum()) * size,
        "contrast_paid": float((_bonus(context, scores, against) > 0).any(1).sum()) * size,
        "contrast_gap": float(gap.sum()) * size,
    }


def _bonus(context: Context, scores: Tensor, against: _Against) -> Tensor:
    recipe = context.recipe.grpo
    return bonus(scores, against.scores, weight=recipe.contrast_weight, factor=recipe.contrast_factor)


def _draw(
    context: Context,
    batch: Batch,
    questions: Sequence[int],
    read: Prefix,
    generator: torch.Generator,
    size: int = 0,
) -> tuple[Rollouts, list[Reward]]:
    """A group (of `size` instead of the recipe's) for some questions behind what was read of them, with the rewards."""
    recipe, size = context.recipe.grpo, size or context.recipe.grpo.group_size
    with context.clock("generate"):
        rollouts = context.engine(
            Wanted(batch, questions, read, size, recipe.temperature, recipe.max_new_tokens, generator)
        )
    cut, texts = rollouts.truncated.tolist(), rollouts.texts
    asks = [batch.asks[q] for q in questions]
    with context.clock("verify"):
        return rollouts, [_rewarded(context, asks[row // size], text, cut[row]) for row, text in enumerate(texts)]


def _rewarded(context: Context, ask: Ask, completion: str, truncated: bool) -> Reward:
    """A reward that fails is a defect of the reward: the run ends, and what it failed on is told."""
    try:
        return context.rubric(completion, ask.answer, truncated=truncated)
    except Exception as error:
        error.add_note(f"the reward failed on this completion of {ask.key} ({ask.question!r}): {completion!r}")
        raise


def _asked(context: Context, batch: Batch) -> Asked:
    """What `read_questions` reads: all of a question but the token that its completions start from."""
    dialect = context.dialect
    lengths = [len(dialect.prompt(ask.question)) - 1 for ask in batch.asks]
    return Asked(context.model.slots(batch.patches).counts, batch.owner.tolist(), lengths, len(dialect.before))


def _sampling(context: Context, rollouts: Rollouts, slots: Sequence[int], size: int = 0) -> int:
    """FLOPs of sampling a group (of `size` instead of the recipe's) behind each question's slots."""
    groups = beginnings(rollouts.ids, rollouts.mask, size or context.recipe.grpo.group_size)
    return sum(map(context.prices.sample, groups, slots))


def _learning(context: Context, source: Rolled, part: _Learned) -> int:
    """FLOPs of all updates on a batch and of the reference's opinion; the policy's first reading is the sampling's."""
    if not len(part.chosen):
        return 0
    prices, updates, asked = context.prices, context.recipe.grpo.updates, _asked(context, source.batch)
    slots = [asked.slots[i] for i in part.chosen.tolist()]
    read = prices.read_questions(source.batch.patches, asked)
    scored = sum(map(prices.score, beginnings(part.ids, part.mask, context.recipe.grpo.group_size), slots))
    again = updates - (context.recipe.data.micro_tokens == 0)  # readings beside it
    opinion = read + scored if part.ref_logp is not None else 0
    backward = prices.back(scored) + prices.back(read, source.batch.patches)
    return updates * (scored + backward) + again * read + opinion


def _watched(context: Context, batch: Batch, rollouts: Rollouts, rewards: Sequence[Reward]) -> Metrics:
    """What of `health` is logged, as sums."""
    size = context.recipe.grpo.group_size
    answers = [ask.answer for ask in batch.asks for _ in range(size)]
    scored = list(map(Scored, rollouts.texts, answers, rewards, rollouts.truncated.tolist()))
    tallied = tally(scored[i : i + size] for i in range(0, len(scored), size))
    return {name: tallied[name] for name in _WATCHED}


def _totalled(context: Context, rewards: Sequence[Reward], against: _Against | None = None) -> Tensor:
    """float64 [Q, G], the bonus over a contrast included."""
    total = torch.tensor([r.total for r in rewards], dtype=torch.float64).view(-1, context.recipe.grpo.group_size)
    return total if against is None else total + _bonus(context, _scores(context, rewards), against)


def _scores(context: Context, rewards: Sequence[Reward]) -> Tensor:
    """float64 [Q, G], what the verifier said."""
    scores = torch.tensor([r.verdict.score for r in rewards], dtype=torch.float64)
    return scores.view(-1, context.recipe.grpo.group_size)


def _with_groups(rollouts: Rollouts, chosen: Tensor, drawn: Rollouts, size: int) -> Rollouts:
    """The rollouts with the groups `chosen` replaced by those of `drawn`."""
    rows = (chosen[:, None] * size + torch.arange(size)).flatten()
    length = max(rollouts.ids.shape[1], drawn.ids.shape[1])

    def replaced(name: str) -> Tensor:
        old, new = getattr(rollouts, name), getattr(drawn, name)
        if old.ndim == 2:
            old, new = (F.pad(t, (0, length - t.shape[1])) for t in (old, new))
        return old.index_copy(0, rows.to(old.device), new)

    texts = list(rollouts.texts)
    for row, text in zip(rows.tolist(), drawn.texts, strict=True):
        texts[row] = text
    ids, mask, logp, entropy, truncated = map(replaced, ("ids", "mask", "logp", "entropy", "truncated"))
    return Rollouts(ids, mask, logp, entropy, truncated, texts)


def _advantages(context: Context, rolled: Sequence[Rolled]) -> list[Tensor]:
    """[Q, G] for each batch. Where the whole step sets the scale, it is the step of all media and processes."""
    scale, baseline = context.recipe.grpo.scale, context.recipe.grpo.baseline
    mine = [r.rewards for r in rolled]
    if scale != "batch":
        return [grpo_advantages(rewards, scale=scale, baseline=baseline) for rewards in mine]
    everyone = context.team.gather(torch.cat(mine))
    before = sum(len(rewards) for rewards in everyone[: context.team.rank])
    whole = grpo_advantages(torch.cat(everyone), scale=scale, baseline=baseline)
    return list(whole[before : before + sum(map(len, mine))].split([len(rewards) for rewards in mine]))


@torch.no_grad()
def _to_learn(context: Context, rolled: Rolled, advantages: Tensor) -> _Learned:
    """What of a batch the loss is made of, with the reference's opinion of it."""
    recipe, device = context.recipe.grpo, context.model.device
    chosen = rolled.differ if recipe.equal_groups != "keep" or recipe.beta == 0 else torch.ones(len(advantages)).bool()
    rows = chosen.repeat_interleave(recipe.group_size).to(device)
    questions = chosen.nonzero()[:, 0].to(device)
    ids, mask, logp = (t[rows] for t in (rolled.rollouts.ids, rolled.rollouts.mask, rolled.rollouts.logp))
    ref_logp = None
    if context.reference is not None and len(questions):
        with context.reference() as start:
            with context.clock("encode"):
                prefix = read_questions(start, context.dialect, rolled.batch).rows(questions)
            with context.clock("score"):
                ref_logp = score(start, context.dialect, prefix, ids, mask, temperature=recipe.temperature)
    return _Learned(questions, ids, mask, logp, advantages.flatten().float().to(device)[rows], ref_logp)


def grpo_step(
    context: Context, batches: Sequence[Batch], step: int, update: Callable[[], float], turns: Turns
) -> Metrics:
    """One batch of groups and `updates` optimiser steps on it."""
    left = turns.left(batches)
    if left is not None:
        return learn(context, left.rolled, update, turns, left)
    generator = torch.Generator(context.model.device)
    generator.manual_seed((context.recipe.seed * 1_000_003 + step) * 1_009 + context.team.rank)
    return learn(context, [roll(context, batch, generator) for batch in batches], update, turns)


def learn(
    context: Context,
    rolled: Sequence[Rolled],
    update: Callable[[], float],
    turns: Turns = Turns(),  # noqa: B008  (frozen)
    left: Buffer | None = None,
) -> Metrics:
    """Gradients of what was rolled, `update` called for each optimiser step.

    The objective is the essay's: mean over completions of min(ratio A, bounded ratio A) - beta KL(policy, reference),
    over all completions of the step whatever their rewards, however they are parted into batches and processes. The
    policy reads each picture and each question once, for the sampling and the first update together; all completions
    continue from there and gradients flow back through what they share. The reference reads for itself, as does every
    further update.

    Raises:
        NotFinite: the loss or its gradient is not; nothing was changed by it.
    """
    recipe, team = context.recipe.grpo, context.team
    with context.clock("sync"):
        advantages = _advantages(context, rolled)
    learned = [_to_learn(context, *pair) for pair in zip(rolled, advantages, strict=True)]
    with context.clock("sync"):
        metrics, denominator, tokens = _totals(context, rolled, learned)
    buffer = left or Buffer(0, rolled, {"loss": 0.0, "kl": 0.0, "bounded": 0.0})
    for turn in range(buffer.turn, recipe.updates if tokens else 0):
        sums = dict(buffer.sums)
        try:
            for source, part in zip(rolled, learned, strict=True):
                if len(part.chosen):
                    for name, value in _learn_part(context, source, part, turn, denominator, tokens).items():
                        sums[name] += value / recipe.updates
            buffer = Buffer(turn + 1, rolled, sums, update())
        except NotFinite as error:
            raise NotFinite(str(error), buffer) from error
        if turn + 1 < recipe.updates:
            turns.between(buffer)
    with context.clock("sync"):
        totals = team.total(*buffer.sums.values())
    return {**metrics, **dict(zip(buffer.sums, totals, strict=True)), "grad_norm": buffer.norm}


def _learn_part(
    context: Context, source: Rolled, part: _Learned, turn: int, denominator: float, tokens: float
) -> Metrics:
    """Add a batch's part of the gradient; its part of the step's loss, divergence and bounded share."""
    recipe, clock = context.recipe.grpo, context.clock
    read = source.read
    if turn or read is None:  # a policy that has changed since the sampling must read anew
        with clock("encode"):
            read = read_questions(context.model, context.dialect, source.batch)
    prefix = read.rows(part.chosen)
    with clock("score"):
        terms = policy_terms(
            score(
                context.model,
                context.dialect,
                prefix,
                part.ids,
                part.mask,
                temperature=recipe.temperature,
                max_new_tokens=recipe.max_new_tokens,
            ),
            part.old_logp,
            part.advantages,
            part.mask,
            ref_logp=part.ref_logp,
            beta=recipe.beta,
            eps_low=recipe.eps_low,
            eps_high=recipe.eps_high,
            loss=recipe.loss,
            kl=recipe.kl,
            denominator=denominator,
        )
        loss = finite(terms.loss)
    with clock("backward"):
        terms.loss.backward()
    kl, bounded, live = torch.stack((terms.kl.detach(), terms.bound_low + terms.bound_high, terms.tokens)).tolist()
    share = live / tokens
    return {"loss": loss, "kl": kl * share, "bounded": bounded * share}


def _totals(context: Context, rolled: Sequence[Rolled], learned: Sequence[_Learned]) -> tuple[Metrics, float, float]:
    """(metrics of the step's completions, what the loss divides by, tokens in the training forward), of all processes.

    The denominator counts every completion, learned from or not: it is the mean's.
    """
    recipe, team = context.recipe.grpo, context.team
    masks = [r.rollouts.mask for r in rolled]
    names = list(rolled[0].sums)
    asked, equal, denominator, tokens, learning, *seen = team.total(
        sum(r.rewards.numel() for r in rolled),
        sum(float((~r.differ).sum()) for r in rolled) * recipe.group_size,
        sum(float(loss_denominator(mask, recipe.loss, recipe.max_new_tokens)) for mask in masks),
        sum(int(part.mask.sum()) for part in learned),
        sum(_learning(context, *pair) for pair in zip(rolled, learned, strict=True)),
        *(sum(r.sums[name] for r in rolled) for name in names),
    )
    sums = dict(zip(names, seen, strict=True))
    entropy, flops = sums.pop("entropy") / sums["length"], sums.pop("flops") + learning
    metrics = {name: total if is_arm_sum(name) else total / asked for name, total in sums.items()}
    return {**metrics, "entropy": entropy, "zero_variance": equal / asked, "flops": flops}, denominator, tokens
