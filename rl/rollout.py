"""Completions from a policy: a picture read once, a question read once, a group sampled from there."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from entropy_vision.dialect import Dialect, spoken
from entropy_vision.packed import PackedPatches
from entropy_vision.policy import EntropyVLM, Prefix

from .batch import Batch

_LET_GO = 0.75  # of the rows still going, or fewer: worth the copy of what they have read
# Lanes are read by twos: a product with a single row is a kernel of its own, which sums in another order than that for
# many, and blocks of attention hold an even number of rows. See also `entropy_vision.lanes`.
_LANES = 2


@dataclass(frozen=True)
class Rollouts:
    """B sampled completions.

    Attributes:
        ids: int64 [B, T], completion tokens, the end included; padding behind it.
        mask: bool [B, T], True at completion tokens.
        logp: fp32 [B, T], log-probability each token was sampled with; 0 at padding.
        entropy: fp32 [B, T], policy entropy in nats at each token; 0 at padding.
        truncated: bool [B], no end within the limit.
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


def read_pictures(
    model: EntropyVLM, dialect: Dialect, patches: PackedPatches, tokens: Tensor | None = None, *, blind: bool = False
) -> Prefix:
    """What stands before a picture, read once, and each picture behind it; `blind` reads no picture.

    Args:
        tokens: as of `read_patches`.
    """
    start = None
    if dialect.before:
        ids = torch.tensor([dialect.before], device=model.device)
        start = model.read_silently(model.empty_prefix(1), ids, torch.ones_like(ids, dtype=torch.bool))
    if not blind:
        return model.read_patches(patches, tokens, start)
    count = len(patches.counts)
    everyone = torch.zeros(count, dtype=torch.long, device=model.device)
    return model.empty_prefix(count) if start is None else start.rows(everyone)


def read_prompts(
    model: EntropyVLM,
    dialect: Dialect | PreTrainedTokenizerFast,
    pictures: Prefix,
    owner: Tensor,
    prompts: list[list[int]],
) -> Prefix:
    """Read each question behind its picture, all but its last token, which the completion starts from.

    Args:
        dialect: the policy's, or its word-level tokenizer; so everywhere here.
        pictures: what `read_pictures` gave.
        owner: int64 [Q], the picture of each question.
        prompts: Q rows of `Dialect.prompt`.
    """
    device = model.device
    ids, live = pad_rows([p[:-1] for p in prompts], spoken(dialect).pad)
    prefix = model.read_silently(pictures.rows(owner.to(device)), ids.to(device), live.to(device))
    return replace(prefix, pending=torch.tensor([p[-1] for p in prompts], device=device))


def read_questions(
    model: EntropyVLM, dialect: Dialect | PreTrainedTokenizerFast, batch: Batch, *, blind: bool = False
) -> Prefix:
    """Pictures and questions of a batch, read once each; `blind` reads no picture."""
    dialect = spoken(dialect)
    pictures = read_pictures(model, dialect, batch.patches, blind=blind)
    return read_prompts(model, dialect, pictures, batch.owner, [dialect.prompt(ask.question) for ask in batch.asks])


def _pending(prefix: Prefix, dialect: Dialect) -> Tensor:
    """int64 [B], the token that each row's completion follows."""
    return torch.full_like(prefix.next_position, dialect.start) if prefix.pending is None else prefix.pending


@torch.no_grad()
def sample(
    model: EntropyVLM,
    dialect: Dialect | PreTrainedTokenizerFast,
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
    dialect = spoken(dialect)
    device, rows, vocabulary = model.device, len(prefix.live), len(model.word_embeddings)
    ends = torch.tensor(dialect.ends, device=device)
    size = rows, group, max_new_tokens
    ids, mask = torch.zeros(size, dtype=torch.long, device=device), torch.zeros(size, dtype=torch.bool, device=device)
    logps, entropies = torch.zeros(size, device=device), torch.zeros(size, device=device)
    open_rows = torch.arange(rows, device=device)
    token = _pending(prefix, dialect)[:, None].expand(rows, group)
    live = torch.ones(rows, group, dtype=torch.bool, device=device)
    node = torch.zeros_like(token)  # whose continuation a completion's token is, of the nodes read last
    used = torch.zeros(rows, 1, dtype=torch.long, device=device)  # of a row's slots behind the prefix
    sees = prefix.live[:, None, :].expand(rows, group, -1)
    past, steps = sees.shape[2], 0
    room = past + _whole(group) * max_new_tokens
    while steps < max_new_tokens:
        first, node, parts = _distinct(node * vocabulary + token, live)
        going = live.any(1)
        # all that the host asks for at a token, in one word: an accelerator waits for the question
        left, most = torch.stack((going.sum(), parts.amax())).tolist()
        if not left:
            break
        if left <= _LET_GO * len(going):
            still = going.nonzero()[:, 0]
            prefix, open_rows, first = prefix.rows(still), open_rows[still], first[still]
            token, live, node, sees = token[still], live[still], node[still], sees[still]
            used, parts = used[still], parts[still]
        lanes = _whole(most) if group > 1 else 1  # what is sampled alone is scored by nobody
        first = torch.nn.functional.pad(first, (0, _LANES))[:, :lanes]
        slots = past + used + torch.arange(lanes, device=device)
        seen = sees.gather(1, first[:, :, None].expand(-1, -1, sees.shape[2]))
        seen = torch.cat((seen, seen.new_zeros(len(seen), lanes, lanes)), dim=2)
        seen = seen.scatter(2, slots[:, :, None], True)  # itself
        step = torch.full((lanes,), steps, device=device)
        logits, prefix = model.read_lanes(prefix, token.gather(1, first), step, seen, slots, room)
        sees, used = seen.gather(1, node[:, :, None].expand(-1, -1, seen.shape[2])), used + parts
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
        live = live & ~torch.isin(token, ends)
        steps += 1
    cut = torch.zeros(rows, group, dtype=torch.bool, device=device)
    cut[open_rows] = live
    ids, mask, logps, entropies = (t[:, :, :steps].flatten(0, 1) for t in (ids, mask, logps, entropies))
    return Rollouts(ids, mask, logps, entropies, cut.flatten(), [dialect.text(row) for row in ids.tolist()])


def _whole(lanes: int) -> int:
    """So many lanes or a few more, which count for nothing."""
    return lanes + -lanes % _LANES


def _distinct(key: Tensor, live: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The distinct keys of each row.

    Args:
        key: int64 [R, G], >= 0; live: bool [R, G], those that count. The others share a key that does.

    Returns:
        (int64 [R, G], where each key stands first, and behind these any place; int64 [R, G], which of those each key
        is; int64 [R, 1], how many there are).
    """
    if key.shape[1] == 1:
        return torch.zeros_like(key), torch.zeros_like(key), torch.ones_like(key)
    key = key.masked_fill(~live, -1)
    key = torch.where(live, key, key.amax(1, keepdim=True))
    group = key.shape[1]
    equal = key[:, :, None] == key[:, None, :]
    first = (equal * (1 + live[:, None, :].int())).argmax(2)  # a live one where there is one
    opens = first == torch.arange(group, device=key.device)
    number = opens.long().cumsum(1) - 1
    order = (~opens).int().argsort(dim=1, stable=True)
    return order, number.gather(1, first), opens.sum(1, keepdim=True)


def score(
    model: EntropyVLM,
    dialect: Dialect | PreTrainedTokenizerFast,
    prefix: Prefix,
    ids: Tensor,
    mask: Tensor,
    *,
    temperature: float = 1.0,
    max_new_tokens: int = 0,
) -> Tensor:
    """Log-probabilities [B, T] of given completions behind their prefixes, with gradients; 0 at padding.

    B is a multiple of the prefix's rows: each row is continued by equally many completions, as `sample` returns them.
    What several completions of a row begin with is read once, see `Tree`.

    Args:
        max_new_tokens: what they were sampled with, where it is more than T: then sums go as they went there.
    """
    rows, (count, length) = len(prefix.live), ids.shape
    dialect = spoken(dialect)
    tree = grow(ids.tolist(), mask.sum(1).tolist(), rows, dialect.start)
    tokens, depth, above, node = (t.to(ids.device) for t in (tree.tokens, tree.depth, tree.above, tree.node))
    tokens[:, 0] = _pending(prefix, dialect)  # the root
    sees = torch.cat((prefix.live[:, None, :].expand(-1, tokens.shape[1], -1), above), dim=2)
    room = prefix.live.shape[1] + _whole(count // rows) * max(length, max_new_tokens)
    logits, _ = model.read_lanes(prefix, tokens, depth, sees, most=room)
    logp = torch.log_softmax(logits / temperature, dim=-1)
    row = torch.arange(rows, device=ids.device).repeat_interleave(count // rows)[:, None].expand(count, length)
    picked = logp[row, node, ids]
    return picked.masked_fill(picked == float("-inf"), 0.0) * mask  # outside the support: padding


@dataclass(frozen=True)
class Tree:
    """The completions of each of R rows as a tree of their beginnings: N nodes a row, what they start from the root.

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
    tokens, parents, depths = [], [], []
    for row in range(rows):
        here, parent, depth = [start], [0], [0]
        for t in range(1, longest):
            known: dict[tuple[int, int], int] = {}
            for completion in range(row * group, (row + 1) * group):
                if t < lengths[completion]:
                    step = int(node[completion, t - 1]), ids[completion][t - 1]
                    if step not in known:
                        known[step] = len(here)
                        here.append(step[1])
                        parent.append(step[0])
                        depth.append(t)
                    node[completion, t] = known[step]
        tokens.append(here)
        parents.append(parent)
        depths.append(depth)
    size = _whole(max(map(len, tokens)))
    padded, deep = np.full((rows, size), start), np.zeros((rows, size), np.int64)
    above = np.broadcast_to(np.eye(size, dtype=bool), (rows, size, size)).copy()
    for row, (here, parent, depth) in enumerate(zip(tokens, parents, depths, strict=True)):
        padded[row, : len(here)], deep[row, : len(here)] = here, depth
        for n in range(1, len(here)):  # a parent has a smaller number than its children
            above[row, n] |= above[row, parent[n]]
    return Tree(*(torch.from_numpy(part) for part in (padded, deep, above, node)))
