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
    temperature: float = 1.0,
    max_new_tokens: int = 32,
    generator: torch.Generator | None = None,
) -> Rollouts:
    """Sample one completion a row of `prefix`; temperature 0 takes the likeliest token."""
    rows, end = len(prefix.live), token_id(tokenizer, END)
    current = torch.full((rows, 1), token_id(tokenizer, ASSISTANT), device=model.device)
    live = torch.ones(rows, dtype=torch.bool, device=model.device)
    ids, masks, logps, entropies = [], [], [], []
    for _ in range(max_new_tokens):
        logits, prefix = model.read(prefix, current, torch.ones_like(current, dtype=torch.bool))
        logp = torch.log_softmax(logits[:, 0] / (temperature or 1.0), dim=-1)
        if temperature == 0:
            token = logp.argmax(-1, keepdim=True)
        else:
            token = torch.multinomial(logp.exp(), 1, generator=generator)
        ids.append(torch.where(live, token[:, 0], 0))
        masks.append(live)
        logps.append(logp.gather(1, token)[:, 0] * live)
        entropies.append(-(logp.exp() * logp.clamp_min(-1e4)).sum(-1) * live)
        live = live & (token[:, 0] != end)
        current = token
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
    temperature: float = 1.0,
) -> Tensor:
    """Log-probabilities [B, T] of given completions behind their prefixes, with gradients; 0 at padding."""
    start = torch.full_like(ids[:, :1], token_id(tokenizer, ASSISTANT))
    given = torch.cat((start, ids[:, :-1]), 1)
    live = torch.cat((torch.ones_like(mask[:, :1]), mask[:, :-1]), 1)
    logits, _ = model.read(prefix, given, live)
    return token_logp(logits / temperature, ids) * mask


def token_logp(logits: Tensor, ids: Tensor) -> Tensor:
    """log softmax(logits)[ids], [B, T] from [B, T, V]; tokens outside the support count as the first allowed one."""
    logp = torch.log_softmax(logits, dim=-1).gather(-1, ids[..., None])[..., 0]
    return logp.masked_fill(logp == float("-inf"), 0.0)
