"""The cache of lanes beside transformers' own and beside a loop over rows."""

from __future__ import annotations

import pytest
import torch
from transformers.cache_utils import DynamicCache

from entropy_vision.lanes import LaneCache, padded
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
    wide = padded(length + count, 100)
    mine, theirs = LaneCache(prefix, wide), DynamicCache(prefix.layers)
    for layer in range(2):
        new = torch.randn(2, ROWS, HEADS, count, WIDTH)
        given, expected = mine.update(*new, layer), theirs.update(*new, layer)
        for got, want, kept in zip(given, expected, (mine.layers[layer].keys, mine.layers[layer].values), strict=True):
            assert torch.equal(kept, want)
            assert got.shape[2] == wide and torch.equal(got[:, :, : length + count], want)
            assert not got[:, :, length + count :].any()


def test_whoever_comes_in_steps_gives_as_many_keys_a_block_as_who_comes_at_once() -> None:
    """Whole vectors; a block of 512 that will hold more than 384 is whole from its first key on."""
    for most in range(1, 1400):
        final = padded(most, most)
        for length in range(1, most + 1):
            given = padded(length, most)
            assert length <= given and given % 16 == 0 and given - length < 512
            last = (length - 1) // 512
            there = min(final, 512 * (last + 1))  # of this block, in the end
            assert there - 512 * last <= 384 or given == 512 * (last + 1)
    assert [padded(n, 100) for n in (1, 16, 17)] == [16, 16, 32]
    assert [padded(n, 400) for n in (1, 400)] == [512, 512] and padded(520, 600) == 528


def test_a_prefix_of_a_wider_type_is_gone_on_from() -> None:
    """As under autocast, where what was read before it is in single precision."""
    old, new = torch.randn(ROWS, HEADS, 5, WIDTH), torch.randn(ROWS, HEADS, 2, WIDTH).bfloat16()
    prefix = Prefix(((old, old),), torch.ones(ROWS, 5, dtype=torch.bool), torch.zeros(ROWS))
    keys, _ = LaneCache(prefix, 16, torch.tensor([[5, 6]] * ROWS)).update(new, new, 0)
    assert keys.dtype == torch.float32 and torch.equal(keys[:, :, 5:7], new.float())


def test_every_row_is_filled_at_its_own_place_and_what_lay_there_is_written_over() -> None:
    prefix = _prefix(5)
    held = [tensor.clone() for tensor in prefix.layers[0]]
    filled = torch.zeros(ROWS, dtype=torch.long)
    for parts in ([2, 1, 3], [1, 3, 2], [3, 3, 1]):  # lanes of each row that count; the others are rubbish
        count = max(parts)
        new = torch.randn(2, ROWS, HEADS, count, WIDTH)
        slots = 5 + filled[:, None] + torch.arange(count)
        cache = LaneCache(Prefix(((held[0], held[1]),), prefix.live, prefix.next_position), 32, slots)
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
    cache = LaneCache(Prefix(((old, old),), torch.ones(ROWS, 5, dtype=torch.bool), torch.zeros(ROWS)), 16)
    keys, values = cache.update(new, new, 0)
    (keys.sum() + 2 * values.sum()).backward()
    assert torch.equal(old.grad, torch.full_like(old, 3)) and torch.equal(new.grad, torch.full_like(new, 3))
