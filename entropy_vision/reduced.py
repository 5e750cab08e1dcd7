"""Fewer tokens inside the tower or behind it: what others do once all patches have been paid for.

merged  ToMe (D. Bolya, C.-Y. Fu, X. Dai, P. Zhang, C. Feichtenhofer, J. Hoffman, "Token Merging: Your ViT But Faster",
        ICLR 2023, arXiv 2210.09461): in every block, between attention and MLP, the most similar pairs become one.
pruned  EVS on features (N. Bagrov, E. Khvedchenia, B. Tymchenko and others, arXiv 2510.14624): behind the tower, the
        tokens that differ least from the one before at their place go.

Both take a pack as `rate` or any selector made it, so they can also follow one; a dense pack gives the published rules.
Where a tower rotates queries and keys, similarity is told from rotated keys and a merged token turns by its centre.
Every input ends with the count that `Budget(keep=keep)` gives its tokens; of merged ones at least one a frame, and as
many as halving a frame's in every block leaves.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import cast

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from entropy_vision.budget import Budget
from entropy_vision.encoder import VisionEncoder
from entropy_vision.errors import UsageError
from entropy_vision.hf_vision import HFVisionEncoder
from entropy_vision.packed import PackedPatches
from entropy_vision.projectors import Places
from entropy_vision.reduction import Reduction
from entropy_vision.towers.base import Adapter, rotation_at


@dataclass(frozen=True, eq=False)
class Reduced:
    """Visual tokens that may stand for several patches, N of all inputs end to end.

    Attributes:
        tokens: float [N, D].
        centres: float32 [N, 3], (frame, row, column) of the mean place of what each stands for.
        sizes: float32 [N], patches that each stands for; merging keeps their sum.
        counts: tokens of every input.
        positions: int64 [N, 3], (frame, row, column) of a place that each stands for; of merged ones where their centre
            is.
        grids: (F, R, C) of every input.
    """

    tokens: Tensor
    centres: Tensor
    sizes: Tensor
    counts: tuple[int, ...]
    positions: Tensor
    grids: tuple[tuple[int, int, int], ...]


def see(
    encoder: VisionEncoder | HFVisionEncoder,
    packed: PackedPatches,
    reduction: Reduction | None = None,
    hidden: Tensor | None = None,
) -> tuple[Tensor, Places]:
    """Visual tokens of a pack float [N, D], and where they stand: the pack itself where none are reduced.

    Args:
        hidden: `encoder.embed(packed)`, where already at hand.

    Raises:
        UsageError: as of `check_reduction`, `merged` and `pruned`.
    """
    if reduction is not None and reduction.kind == "tome":
        found = merged(cast(VisionEncoder, encoder), packed, reduction.keep, hidden=hidden)  # which refuses others
        return found.tokens, found
    tokens = encoder.encode(packed) if hidden is None else encoder.through_blocks(packed, hidden)
    if reduction is None:
        return tokens, packed
    found = pruned(tokens, packed, reduction.keep)
    return found.tokens, found


def reduced_counts(packed: PackedPatches, reduction: Reduction, blocks: int) -> tuple[int, ...]:
    """Tokens of every input behind a reduction in a tower of so many blocks, known before it runs."""
    if reduction.kind == "evs-features":
        return tuple(_count(reduction.keep, count) for count in packed.counts)
    left = iter(_left(packed, reduction.keep, blocks))
    return tuple(sum(islice(left, segments)) for segments in packed.layout.input_segments)


def check_reduction(encoder: VisionEncoder | HFVisionEncoder, reduction: Reduction) -> None:
    """Whether a tower can reduce its tokens so.

    Raises:
        UsageError: merging in a tower of transformers, or down to less than halving in every block reaches.
    """
    if reduction.kind == "tome":
        if not isinstance(encoder, VisionEncoder):
            raise UsageError("tome merges in towers of open_clip only: take evs-features, which prunes behind any")
        if reduction.keep < 0.5**encoder.layers:
            least = 0.5**encoder.layers
            raise UsageError(
                f"tome halves tokens at most in each of {encoder.layers} blocks: keep {least:g} at the least, "
                f"not {reduction.keep:g}"
            )


# ---- merging, in every block ------------------------------------------------------------------------------------


def merged(
    encoder: VisionEncoder,
    packed: PackedPatches,
    keep: float,
    *,
    proportional: bool = True,
    hidden: Tensor | None = None,
) -> Reduced:
    """Encode a pack with its most similar tokens merged, equally many in every block.

    Args:
        keep: fraction of each input's tokens that are left behind the last block, in (0, 1].
        proportional: a token weighs in attention by what it stands for (+ log size), as a published model does.
        hidden: `encoder.embed(packed)`, where already at hand.

    Raises:
        UsageError: a fraction outside (0, 1], or fewer tokens than halving them in every block can reach.
    """
    check_reduction(encoder, Reduction("tome", keep))
    adapter, packed = encoder.adapter, encoder.placed(packed)
    layout = packed.lay_out(adapter.prefix)
    left = _left(packed, keep, encoder.layers)
    hidden = encoder.embed(packed) if hidden is None else hidden
    turns = _Turns.of(encoder, packed)
    lengths = torch.bincount(layout.patch_segments)  # of segments in the order of the pack
    by_row = torch.argsort(layout.first_rows)  # in the order of rows
    results: dict[int, tuple[Tensor, Tensor, Tensor]] = {}
    centres, sizes_of = packed.centres.float(), _sizes(packed).to(hidden.device)
    firsts = (lengths.cumsum(0) - lengths).tolist()
    start = done = 0
    for count, length in layout.groups:
        segments = by_row[done : done + count].tolist()
        rows = hidden[start : start + count * length].view(count, length, -1)
        patches = length - adapter.prefix
        mine_of = [slice(firsts[s], firsts[s] + patches) for s in segments]
        places, areas = (torch.stack([t[one] for one in mine_of]) for t in (centres, sizes_of))
        for target in sorted({left[s] for s in segments}):
            mine = [i for i, s in enumerate(segments) if left[s] == target]
            at = torch.tensor(mine, device=rows.device)
            turn = turns.among([segments[i] for i in mine])
            out, where, sizes = rows[at], places[at], areas[at]
            for number, block in enumerate(adapter.blocks, start=1):
                evenly = patches - (patches - target) * number // encoder.layers
                least = min(evenly, target * 2 ** (encoder.layers - number))  # those behind must reach it by halves
                out, where, sizes = _block(adapter, block, out, where, sizes, least, turn, proportional)
            for i, token, place, size in zip(mine, out[:, adapter.prefix :], where, sizes, strict=True):
                results[segments[i]] = _in_order(token, place, size)
        start, done = start + count * length, done + count
    parts = [results[s] for s in range(len(lengths))]
    tokens, where, sizes = (torch.cat(part) for part in zip(*parts, strict=True))
    counts = reduced_counts(packed, Reduction("tome", keep), encoder.layers)
    return Reduced(adapter.finish(tokens), where, sizes, counts, where.long(), packed.grids)


def _left(packed: PackedPatches, keep: float, blocks: int) -> list[int]:
    """Tokens of every segment behind a tower that merges."""
    lengths, left = iter(torch.bincount(packed.layout.patch_segments).tolist()), []
    for segments in packed.layout.input_segments:
        left += shares(list(islice(lengths, segments)), keep, blocks)
    return left


def shares(lengths: Sequence[int], keep: float, blocks: int) -> list[int]:
    """Tokens that merging leaves of each segment of one input: the input's count, shared by its segments as they are
    long, but of each what halving it in every block reaches at the least."""
    segments, count = len(lengths), sum(lengths)
    more = np.cumsum(lengths) - np.arange(1, segments + 1)  # beside one each
    spread = more * (max(segments, _count(keep, count)) - segments) // max(1, count - segments)
    even = 1 + np.diff(spread, prepend=0)
    return [max(one, -(-length // 2**blocks)) for one, length in zip(even.tolist(), lengths, strict=True)]


def _count(keep: float, tokens: int) -> int:
    """As many as any selector keeps of so many."""
    count = Budget(keep=keep).size(tokens)
    assert count is not None
    return count


def _block(
    adapter: Adapter,
    block: torch.nn.Module,
    hidden: Tensor,
    centres: Tensor,
    sizes: Tensor,
    least: int,
    turn: Callable[[Tensor], Tensor | None],
    proportional: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """One block that leaves `least` patches: hidden [S, p + L, D], centres [S, L, 3], sizes [S, L]."""
    prefix, metric = adapter.prefix, []

    def mix(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        metric.append(key.mean(dim=2)[:, prefix:])
        bias = None
        if proportional and bool((sizes > 1).any()):
            bias = F.pad(sizes.log(), (prefix, 0))[:, None, None, :].to(query.dtype)
        query, key, value = (rows.transpose(1, 2) for rows in (query, key, value))
        return F.scaled_dot_product_attention(query, key, value, attn_mask=bias).transpose(1, 2).flatten(2)

    hidden = adapter.attend(block, hidden, mix, turn(centres))
    patches, centres, sizes = merge(metric[0], hidden[:, prefix:], centres, sizes, least)
    return adapter.feed(block, torch.cat((hidden[:, :prefix], patches), dim=1)), centres, sizes


@dataclass(frozen=True, eq=False)
class _Turns:
    """The rotations of towers that rotate, for centres between places.

    Attributes:
        tables: [places, 2 * d], those of every grid of the pack one behind the other; None where nothing is rotated.
        prefix: tokens of a segment that are not rotated.
        grids: int64 [S, 3], first row in `tables`, rows and columns of every segment's grid.
    """

    tables: Tensor | None
    prefix: int
    grids: Tensor

    @classmethod
    def of(cls, encoder: VisionEncoder, packed: PackedPatches) -> _Turns:
        layout = packed.lay_out(encoder.adapter.prefix)
        tables = [encoder.adapter.rotation(shape) for shape in layout.shapes]
        found = [table for table in tables if table is not None]
        firsts = np.cumsum([0, *(rows * columns for rows, columns in layout.shapes)])
        first_of = dict(zip(layout.shapes, firsts.tolist(), strict=False))
        grids = [
            (first_of[rows, columns], rows, columns)
            for (_, rows, columns), segments in zip(packed.grids, layout.input_segments, strict=True)
            for _ in range(segments)
        ]
        joined = torch.cat(found).to(encoder.device) if found else None
        return cls(joined, layout.prefix, torch.tensor(grids, device=encoder.device))

    def among(self, segments: list[int]) -> Callable[[Tensor], Tensor | None]:
        """From centres [S, L, 3] of some segments to the rotations of their rows, [S, p + L, 2 * d]."""

        def turn(centres: Tensor) -> Tensor | None:
            if self.tables is None:
                return None
            first, rows, columns = self.grids[segments].unbind(1)
            place, weights = around(centres[..., 1:], first[:, None], rows[:, None], columns[:, None])
            turns = rotation_at(self.tables, place, weights)
            still = turns.new_zeros(len(turns), self.prefix, turns.shape[2])
            still[..., turns.shape[2] // 2 :] = 1
            return torch.cat((still, turns), dim=1)

        return turn


def around(centres: Tensor, first: Tensor, rows: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
    """The four places around each centre and their bilinear weights.

    Args:
        centres: float [S, L, 2], (row, column).
        first, rows, columns: int64 [S, 1]: of each segment's grid, its first place in a table and its size.

    Returns:
        int64 and float [S, L, 4].
    """
    corner = centres.floor()
    (y, x), (top, left) = (centres - corner).unbind(-1), corner.long().unbind(-1)
    below, right = torch.minimum(top + 1, rows - 1), torch.minimum(left + 1, columns - 1)
    place = torch.stack([first + down * columns + along for down in (top, below) for along in (left, right)], dim=-1)
    weights = torch.stack([(1 - y) * (1 - x), (1 - y) * x, y * (1 - x), y * x], dim=-1)
    return place, weights


def merge(metric: Tensor, tokens: Tensor, centres: Tensor, sizes: Tensor, least: int) -> tuple[Tensor, Tensor, Tensor]:
    """Bipartite soft matching: every second token may go into its most similar one among the others.

    Args:
        metric: [S, L, d], what similarity (cosine) is told from.
        tokens: [S, L, D]; centres: [S, L, 3]; sizes: [S, L].
        least: tokens that are left.

    Returns:
        (tokens, centres, sizes) with `least` in place of L: guests that stay, then hosts with those that went in their
        mean, by size. The order is the published one; it decides who is a guest in the next block.

    Raises:
        UsageError: more than half of the tokens would have to go.
    """
    length = metric.shape[1]
    goes = length - least
    if goes <= 0:
        return tokens, centres, sizes
    if goes > length // 2:
        raise UsageError(f"a block merges {length} tokens into {length - length // 2} at the least, not into {least}")
    unit = F.normalize(metric, dim=-1)
    best, partner = (unit[:, 1::2] @ unit[:, ::2].transpose(1, 2)).max(dim=-1)
    rank = best.argsort(dim=1, descending=True, stable=True)
    going, stays = rank[:, :goes], rank[:, goes:].sort(dim=1).values
    into = partner.gather(1, going)

    def joined(values: Tensor) -> Tensor:
        """Sums [S, least, ...] of what belongs together, of [S, L, ...]."""
        wide = (-1, -1, values.shape[2])
        kept, others = values[:, ::2], values[:, 1::2]
        moved = others.gather(1, going[:, :, None].expand(wide))
        kept = kept.scatter_add(1, into[:, :, None].expand(wide), moved)
        return torch.cat((others.gather(1, stays[:, :, None].expand(wide)), kept), dim=1)

    weight = sizes[:, :, None].to(tokens.dtype)
    total = joined(sizes[:, :, None])
    return joined(tokens * weight) / total.to(tokens.dtype), joined(centres * sizes[:, :, None]) / total, total[:, :, 0]


def _in_order(tokens: Tensor, centres: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """One segment's tokens in reading order of their centres."""
    order = torch.from_numpy(np.lexsort(centres.detach().cpu().numpy().T[::-1])).to(tokens.device)
    return tokens[order], centres[order], sizes[order]


# ---- pruning, behind the tower ----------------------------------------------------------------------------------


def pruned(tokens: Tensor, packed: PackedPatches, keep: float) -> Reduced:
    """Drop the tokens most like the one before them at their place.

    s = 1 - cos(e, e'), e' the last token of the same (row, column) in an earlier frame; above every other where there
    is none. Each input keeps its largest s, as many as the budget says; ties go to the smaller (frame, row, column).

    Args:
        tokens: float [N, D], what `VisionEncoder.encode` gave for `packed`, or a projector behind it.

    Raises:
        UsageError: a fraction outside (0, 1].
    """
    chosen, first = [], 0
    counts = [_count(keep, count) for count in packed.counts]
    scores = feature_change(tokens, packed)
    for whole, count in zip(packed.counts, counts, strict=True):
        best = scores[first : first + whole].argsort(descending=True, stable=True)[:count]
        chosen.append(first + best.sort().values)
        first += whole
    index = torch.cat(chosen)
    centres = packed.centres.to(index.device)[index].float()
    sizes, places = _sizes(packed).to(index.device)[index], packed.positions.to(index.device)[index]
    return Reduced(tokens[index], centres, sizes, tuple(counts), places, packed.grids)


def _sizes(packed: PackedPatches) -> Tensor:
    """Patches that every token of a pack stands for before anything is merged here, float32 [N]."""
    return torch.ones(len(packed)) if packed.spans is None else packed.spans.prod(dim=1).float()


def feature_change(tokens: Tensor, packed: PackedPatches) -> Tensor:
    """float [N], 1 - cos to the token before at the same place of the same input; 3 where there is none before."""
    source = np.repeat(np.arange(len(packed.counts)), packed.counts)
    frame, row, column = packed.positions.cpu().numpy().T
    order = np.lexsort((frame, column, row, source))
    place = np.stack([source, row, column])[:, order]
    again = np.flatnonzero((place[:, 1:] == place[:, :-1]).all(axis=0)) + 1
    unit = F.normalize(tokens.float(), dim=-1)
    change = torch.full((len(tokens),), 3.0, device=tokens.device)
    now, before = (torch.from_numpy(order[at]).to(tokens.device) for at in (again, again - 1))
    change[now] = 1 - (unit[now] * unit[before]).sum(-1)
    return change
