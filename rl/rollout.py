"""Completions from a policy: a picture read once, a question read once, a group sampled from there."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from entropy_vision.policy import EntropyVLM, Prefix
from entropy_vision.text import ASSISTANT, END, decode, prompt_ids, token_id

from .batch import Batch

_LET_GO = 0.75  # of the rows still going, or fewer: worth the copy of what they have read


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


def read_questions(
    model: EntropyVLM, tokenizer: PreTrainedTokenizerFast, batch: Batch, *, blind: bool = False
) -> Prefix:
    """Pictures and questions of a batch, read once each; `blind` reads no picture."""
    pictures = model.empty_prefix(len(batch.patches.counts)) if blind else model.read_patches(batch.patches)
    prompts = [prompt_ids(tokenizer, ask.question) for ask in batch.asks]
    return read_prompts(model, tokenizer, pictures, batch.owner, prompts)


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
    """Sample `group` completions from each row of `prefix`; temperature 0 takes the likeliest token.

    Completions of a row that begin alike are read as one until they part, and rows whose completions have all ended
    are let go.

    Returns:
        rows * group completions, those of one row one behind the other.
    """
    device, rows, end = model.device, len(prefix.live), token_id(tokenizer, END)
    size = rows, group, max_new_tokens
    ids, mask = torch.zeros(size, dtype=torch.long, device=device), torch.zeros(size, dtype=torch.bool, device=device)
    logps, entropies = torch.zeros(size, device=device), torch.zeros(size, device=device)
    open_rows = torch.arange(rows, device=device)
    token = torch.full((rows, group), token_id(tokenizer, ASSISTANT), device=device)
    live = torch.ones(rows, group, dtype=torch.bool, device=device)
    node = torch.zeros_like(token)  # whose continuation a completion's token is, of the nodes read last
    sees = prefix.live[:, None, :].expand(rows, group, -1)
    steps = 0
    while steps < max_new_tokens and live.any():
        going = live.any(1)
        if going.sum() <= _LET_GO * len(going):
            still = going.nonzero()[:, 0]
            prefix, open_rows = prefix.rows(still), open_rows[still]
            token, live, node, sees = token[still], live[still], node[still], sees[still]
        first, node = _distinct(node * len(tokenizer) + token, live)
        count = first.shape[1]
        itself = torch.eye(count, dtype=torch.bool, device=device)
        seen = sees.gather(1, first[:, :, None].expand(-1, -1, sees.shape[2]))
        seen = torch.cat((seen, itself.expand(len(seen), -1, -1)), dim=2)
        step = torch.full((count,), steps, device=device)
        logits, prefix = model.read_lanes(prefix, token.gather(1, first), step, seen)
        sees = torch.cat((sees, itself[node]), dim=2)
        logp = torch.log_softmax(logits / (temperature or 1.0), dim=-1)
        entropy = -(logp.exp() * logp.clamp_min(-1e4)).sum(-1)
        each = logp.gather(1, node[:, :, None].expand(-1, -1, logp.shape[2]))
        if temperature == 0:
            token = each.argmax(-1)
        else:
            token = torch.multinomial(each.flatten(0, 1).exp(), 1, generator=generator).view(token.shape)
        ids[open_rows, :, steps] = token * live
        mask[open_rows, :, steps] = live
        logps[open_rows, :, steps] = each.gather(2, token[:, :, None])[:, :, 0] * live
        entropies[open_rows, :, steps] = entropy.gather(1, node) * live
        live = live & (token != end)
        steps += 1
    cut = torch.zeros(rows, group, dtype=torch.bool, device=device)
    cut[open_rows] = live
    ids, mask, logps, entropies = (t[:, :, :steps].flatten(0, 1) for t in (ids, mask, logps, entropies))
    return Rollouts(ids, mask, logps, entropies, cut.flatten(), [decode(tokenizer, row) for row in ids.tolist()])


def _distinct(key: Tensor, live: Tensor) -> tuple[Tensor, Tensor]:
    """The distinct keys of each row.

    Args:
        key: int64 [R, G], >= 0; live: bool [R, G], those that count. The others share a key that does.

    Returns:
        (int64 [R, N], where each key stands first; int64 [R, G], which of those each key is). N is that of the row
        with most; in the others any place fills up.
    """
    if key.shape[1] == 1:
        return torch.zeros_like(key), torch.zeros_like(key)
    key = key.masked_fill(~live, -1)
    key = torch.where(live, key, key.amax(1, keepdim=True))
    group = key.shape[1]
    equal = key[:, :, None] == key[:, None, :]
    first = (equal * (1 + live[:, None, :].int())).argmax(2)  # a live one where there is one
    opens = first == torch.arange(group, device=key.device)
    number = opens.long().cumsum(1) - 1
    order = (~opens).int().argsort(dim=1, stable=True)
    return order[:, : int(opens.sum(1).max())], number.gather(1, first)


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
