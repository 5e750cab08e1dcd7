"""Completions from a policy: a picture read once, a question read once, a group sampled from there."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from entropy_vision.policy import EntropyVLM, Prefix
from entropy_vision.text import ASSISTANT, END, decode, token_id


@dataclass(frozen=True)
class Rollouts:
    """B sampled completions.

    Attributes:
        ids: int64 [B, T], completion tokens, end mark included; padding behind it.
        mask: bool [B, T], True at completion tokens.
        logp: fp32 [B, T], log-probability each token was sampled with; 0 at padding.
        entropy: fp32 [B, T], policy entropy in nats at each token; 0 at padding.
        truncated: bool [B], no end mark within the limit.
        texts: the B completions as text.
    """

    ids: Tensor
    mask: Tensor
    logp: Tensor
    entropy: Tensor
    truncated: Tensor
    texts: list[str]


def pad_rows(rows: list[list[int]], pad: int) -> tuple[Tensor, Tensor]:
    """Ragged token rows -> (ids int64 [B, T], live bool [B, T]), padded at the right."""
    ids = torch.full((len(rows), max(map(len, rows))), pad, dtype=torch.long)
    live = torch.zeros(ids.shape, dtype=torch.bool)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = torch.tensor(row)
        live[i, : len(row)] = True
    return ids, live


def read_prompts(
    model: EntropyVLM, tokenizer: PreTrainedTokenizerFast, pictures: Prefix, owner: Tensor, prompts: list[list[int]]
) -> Prefix:
    """Read each question behind its picture, all but the final mark, which starts the completion.

    Args:
        pictures: what `read_patches` gave.
        owner: int64 [Q], the picture of each question.
        prompts: Q rows of `prompt_ids`.
    """
    ids, live = pad_rows([p[:-1] for p in prompts], token_id(tokenizer, "<pad>"))
    _, prefix = model.read(pictures.rows(owner.to(model.device)), ids.to(model.device), live.to(model.device))
    return prefix


@torch.no_grad()
def sample(
    model: EntropyVLM,
    tokenizer: PreTrainedTokenizerFast,
    prefix: Prefix,
    *,
    group: int = 1,
    temperature: float = 1.0,
    max_new_tokens: int = 32,
    generator: torch.Generator | None = None,
) -> Rollouts:
    """Sample `group` completions from each row of `prefix`, side by side; temperature 0 takes the likeliest token.

    Returns:
        rows * group completions, those of one row one behind the other.
    """
    rows, past, end = len(prefix.live), prefix.live.shape[1], token_id(tokenizer, END)
    before = prefix.live[:, None, :].expand(rows, group, past)
    lanes = torch.eye(group, dtype=torch.bool, device=model.device).expand(rows, group, group)
    current = torch.full((rows, group), token_id(tokenizer, ASSISTANT), device=model.device)
    live = torch.ones(rows * group, dtype=torch.bool, device=model.device)
    ids, masks, logps, entropies = [], [], [], []
    for step in range(max_new_tokens):
        sees = torch.cat((before, lanes.repeat(1, 1, step + 1)), dim=2)
        logits, prefix = model.read_lanes(prefix, current, torch.full((group,), step, device=model.device), sees)
        logp = torch.log_softmax(logits.flatten(0, 1) / (temperature or 1.0), dim=-1)
        if temperature == 0:
            token = logp.argmax(-1, keepdim=True)
        else:
            token = torch.multinomial(logp.exp(), 1, generator=generator)
        ids.append(torch.where(live, token[:, 0], 0))
        masks.append(live)
        logps.append(logp.gather(1, token)[:, 0] * live)
        entropies.append(-(logp.exp() * logp.clamp_min(-1e4)).sum(-1) * live)
        live = live & (token[:, 0] != end)
        current = token.view(rows, group)
        if not live.any():
            break
    stacked = torch.stack(ids, 1)
    texts = [decode(tokenizer, row) for row in stacked.tolist()]
    return Rollouts(stacked, torch.stack(masks, 1), torch.stack(logps, 1), torch.stack(entropies, 1), live, texts)


def score(
    model: EntropyVLM,
    tokenizer: PreTrainedTokenizerFast,
    prefix: Prefix,
    ids: Tensor,
    mask: Tensor,
    *,
    temperature: float = 1.0,
) -> Tensor:
    """Log-probabilities [B, T] of given completions behind their prefixes, with gradients; 0 at padding.

    B is a multiple of the prefix's rows: each row is continued by equally many completions, side by side, as `sample`
    returns them.
    """
    rows, (count, length) = len(prefix.live), ids.shape
    group = count // rows
    start = torch.full_like(ids[:, :1], token_id(tokenizer, ASSISTANT))
    given = torch.cat((start, ids[:, :-1]), 1).view(rows, group * length)
    live = torch.cat((torch.ones_like(mask[:, :1]), mask[:, :-1]), 1).view(rows, 1, group * length)
    causal = torch.ones(length, length, dtype=torch.bool, device=ids.device).tril()
    own = torch.block_diag(*[causal] * group).bool()
    # padding sees itself, so that its softmax is finite; nobody else sees it
    new = (live & own) | torch.eye(group * length, dtype=torch.bool, device=ids.device)
    sees = torch.cat((prefix.live[:, None, :].expand(rows, group * length, -1), new), dim=2)
    steps = torch.arange(length, device=ids.device).repeat(group)
    logits, _ = model.read_lanes(prefix, given, steps, sees)
    return token_logp(logits.view(count, length, -1) / temperature, ids) * mask


def token_logp(logits: Tensor, ids: Tensor) -> Tensor:
    """log softmax(logits)[ids], [B, T] from [B, T, V]; 0 where a token is outside the support (padding)."""
    logp = torch.log_softmax(logits, dim=-1).gather(-1, ids[..., None])[..., 0]
    return logp.masked_fill(logp == float("-inf"), 0.0)
