"""The cache of lanes beside transformers' own and beside a loop over rows."""

from __future__ import annotations

import pytest
import torch
from transformers.cache_utils import DynamicCache

from entropy_vision.lanes import LaneCache, whole_vectors
from entropy_vision.prefix import Prefix

ROWS, HEADS, WIDTH = 3, 2, 4


def _prefix(length: int) -> Prefix:
    made = torch.Generator().manual_seed(length)
    layers = tuple(
        (torch.randn(ROWS, HEADS, length, WIDTH, generator=made), torch.randn(ROWS, HEADS, length, WIDTH)) for _ in "ab"
    )
    return Prefix(layers, torch.ones(ROWS, length, dtype=torch.bool), torch.full((ROWS,), length))


@pytest.mark.parametrize("length", [0, 5, 16])
@pytest.mark.parametrize("count", [1, 11, 16])
def test_in_order_it_is_transformers_cache_with_zeros_behind(length: int, count: int) -> None:
    prefix = _prefix(length)
    mine, theirs = LaneCache(prefix), DynamicCache(prefix.layers)
    for layer in range(2):
        new = torch.randn(2, ROWS, HEADS, count, WIDTH)
        given, expected = mine.update(*new, layer), theirs.update(*new, layer)
        for got, want, kept in zip(given, expected, (mine.layers[layer].keys, mine.layers[layer].values), strict=True):
            assert torch.equal(kept, want)
            assert got.shape[2] % 16 == 0 and torch.equal(got[:, :, : length + count], want)
            assert not got[:, :, length + count :].any()
    mask = whole_vectors(torch.ones(ROWS, count, length + count, dtype=torch.bool))
    assert mask.shape[2] == got.shape[2] and int(mask[0, 0].sum()) == length + count


def test_every_row_is_filled_at_its_own_place_and_what_lay_there_is_written_over() -> None:
    prefix = _prefix(5)
    held = [tensor.clone() for tensor in prefix.layers[0]]
    filled = torch.zeros(ROWS, dtype=torch.long)
    for parts in ([2, 1, 3], [1, 3, 2], [3, 3, 1]):  # lanes of each row that count; the others are rubbish
        count = max(parts)
        new = torch.randn(2, ROWS, HEADS, count, WIDTH)
        slots = 5 + filled[:, None] + torch.arange(count)
        cache = LaneCache(Prefix(((held[0], held[1]),), prefix.live, prefix.next_position), slots)
        cache.update(*new, 0)
        lane = cache.layers[0]
        for row, mine in enumerate(parts):
            at = 5 + int(filled[row])
            for kept, before, fresh in zip((lane.keys, lane.values), held, new, strict=True):
                assert torch.equal(kept[row, :, :at], before[row, :, :at])
                assert torch.equal(kept[row, :, at : at + mine], fresh[row, :, :mine])
        held, filled = [lane.keys, lane.values], filled + torch.tensor(parts)


def test_gradients_go_through_to_the_prefix_and_to_what_is_new() -> None:
    old, new = torch.randn(ROWS, HEADS, 5, WIDTH), torch.randn(ROWS, HEADS, 3, WIDTH)
    old.requires_grad_(), new.requires_grad_()
    cache = LaneCache(Prefix(((old, old),), torch.ones(ROWS, 5, dtype=torch.bool), torch.zeros(ROWS)))
    keys, values = cache.update(new, new, 0)
    (keys.sum() + 2 * values.sum()).backward()
    assert torch.equal(old.grad, torch.full_like(old, 3)) and torch.equal(new.grad, torch.full_like(new, 3))
