"""Completions from a policy: a picture read once, a question read once, a group sampled from there."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
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

    B is a multiple of the prefix's rows: each row is continued by equally many completions, as `sample` returns them.
    What several completions of a row begin with is read once, see `Tree`.
    """
    rows, (count, length) = len(prefix.live), ids.shape
    tree = grow(ids.tolist(), mask.sum(1).tolist(), rows, token_id(tokenizer, ASSISTANT))
    tokens, depth, above, node = (t.to(ids.device) for t in (tree.tokens, tree.depth, tree.above, tree.node))
    sees = torch.cat((prefix.live[:, None, :].expand(-1, tokens.shape[1], -1), above), dim=2)
    logits, _ = model.read_lanes(prefix, tokens, depth, sees)
    logp = torch.log_softmax(logits / temperature, dim=-1)
    row = torch.arange(rows, device=ids.device).repeat_interleave(count // rows)[:, None].expand(count, length)
    picked = logp[row, node, ids]
    return picked.masked_fill(picked == float("-inf"), 0.0) * mask  # outside the support: padding


@dataclass(frozen=True)
class Tree:
    """The completions of each of R rows as a tree of their beginnings: N nodes a row, the start mark the root.

    Completions of a group begin alike, and the more so the surer a policy is: read side by side, most of the work
    would be done several times over.

    Attributes:
        tokens: int64 [R, N], the last token of each beginning.
        depth: int64 [R, N], how many tokens stand before it.
        above: bool [R, N, N], the nodes each one sees: its beginnings and itself. Padding sees itself, so that its
            softmax is finite; nobody else sees it.
        node: int64 [B, T], where the token t of completion b is predicted: the node of its first t tokens.
    """

    tokens: Tensor
    depth: Tensor
    above: Tensor
    node: Tensor


def grow(ids: list[list[int]], lengths: list[int], rows: int, start: int) -> Tree:
    """The tree of B completions, those of one row one behind the other; `lengths` of their T tokens count."""
    group, longest = len(ids) // rows, len(ids[0])
    node = np.zeros((len(ids), longest), np.int64)
    tokens: list[list[int]] = []
    parents: list[list[int]] = []
    for row in range(rows):
        here, parent, known = [start], [0], dict[tuple[int, int], int]()
        for completion in range(row * group, (row + 1) * group):
            at = 0
            for t in range(1, lengths[completion]):
                step = at, ids[completion][t - 1]
                if step not in known:
                    known[step] = len(here)
                    here.append(step[1])
                    parent.append(at)
                at = node[completion, t] = known[step]
        tokens.append(here)
        parents.append(parent)
    size = max(map(len, tokens))
    padded, depth = np.full((rows, size), start), np.zeros((rows, size), np.int64)
    above = np.broadcast_to(np.eye(size, dtype=bool), (rows, size, size)).copy()
    for row, (here, parent) in enumerate(zip(tokens, parents, strict=True)):
        padded[row, : len(here)] = here
        for n in range(1, len(here)):  # a parent has a smaller number than its children
            above[row, n] |= above[row, parent[n]]
            depth[row, n] = depth[row, parent[n]] + 1
    return Tree(*(torch.from_numpy(part) for part in (padded, depth, above, node)))
