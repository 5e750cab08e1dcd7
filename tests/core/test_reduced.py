"""Tokens merged in the tower and pruned behind it, beside loops that say the same slowly."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from oracles_encoder import make_patchset
from small_tower import FAMILIES, small_tower
from torch.nn import functional as F

from entropy_vision.budget import Budget
from entropy_vision.encoder import VisionEncoder
from entropy_vision.errors import UsageError
from entropy_vision.frames import Frames
from entropy_vision.packed import PackedPatches
from entropy_vision.reduced import feature_change, merge, merged, pruned
from entropy_vision.tokenizer import EntropyTokenizer

pytestmark = pytest.mark.usefixtures("steady")


@pytest.fixture(autouse=True)
def _no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


def slow_merge(
    metric: torch.Tensor, tokens: torch.Tensor, centres: torch.Tensor, sizes: torch.Tensor, least: int
) -> list[tuple[torch.Tensor, torch.Tensor, float]]:
    """One segment, token by token."""
    unit = [m / m.norm() for m in metric]
    hosts, guests = range(0, len(unit), 2), range(1, len(unit), 2)
    partner = {g: max(hosts, key=lambda h, g=g: (float(unit[g] @ unit[h]), -h)) for g in guests}
    going = sorted(guests, key=lambda g: (-float(unit[g] @ unit[partner[g]]), g))[: len(unit) - least]
    if not going:  # nobody changes places
        hosts, guests, going, partner = range(len(unit)), range(0), [], {}
    groups = [[g] for g in guests if g not in going] + [[h, *(g for g in going if partner[g] == h)] for h in hosts]
    out = []
    for group in groups:
        size = sum(float(sizes[i]) for i in group)
        out.append(
            (sum(tokens[i] * sizes[i] for i in group) / size, sum(centres[i] * sizes[i] for i in group) / size, size)
        )
    return out


def slow_tower(encoder: VisionEncoder, packed: PackedPatches, least: list[int], proportional: bool) -> torch.Tensor:
    """One frame through the tower, attention written out."""
    tower = encoder.tower
    hidden = encoder.embed(packed)
    centres, sizes = packed.centres.float(), torch.ones(len(packed))
    for block, count in zip(tower.transformer.resblocks, least, strict=True):
        q, k, v = F.linear(block.ln_1(hidden), block.attn.in_proj_weight, block.attn.in_proj_bias).chunk(3, dim=-1)
        heads = [t.view(len(t), block.attn.num_heads, -1).transpose(0, 1) for t in (q, k, v)]
        logits = heads[0] @ heads[1].transpose(1, 2) / heads[0].shape[2] ** 0.5
        if proportional:
            logits = logits + torch.cat((torch.zeros(1), sizes.log()))
        mixed = (logits.softmax(-1) @ heads[2]).transpose(0, 1).flatten(1)
        hidden = hidden + block.attn.out_proj(mixed)
        parts = slow_merge(heads[1].mean(0)[1:], hidden[1:], centres, sizes, count)
        tokens, where, many = zip(*parts, strict=True)
        centres, sizes = torch.stack(where), torch.tensor(many)
        hidden = torch.cat((hidden[:1], torch.stack(tokens)))
        hidden = hidden + block.mlp(block.ln_2(hidden))
    order = sorted(range(len(sizes)), key=lambda i: centres[i].tolist())
    return tower.ln_post(hidden[1:])[order]


def slow_rotation(encoder: VisionEncoder, grid: tuple[int, int], centres: torch.Tensor) -> torch.Tensor | None:
    """float [p + L, 2 * d], token by token: the mean unit vectors of the four places around a centre."""
    table = encoder.adapter.rotation(grid)
    if table is None:
        return None
    sine, cosine = table.view(*grid, -1).chunk(2, dim=2)
    still = torch.cat([torch.zeros(sine.shape[2]), torch.ones(sine.shape[2])])
    rows = [still] * encoder.adapter.prefix
    for row, column in centres[:, 1:].tolist():
        s, c = torch.zeros(sine.shape[2]), torch.zeros(sine.shape[2])
        for y in range(grid[0]):
            for x in range(grid[1]):
                weight = max(0.0, 1 - abs(row - y)) * max(0.0, 1 - abs(column - x))
                s, c = s + weight * sine[y, x], c + weight * cosine[y, x]
        length = (s * s + c * c).sqrt()
        rows.append(torch.cat([s / length, c / length]))
    return torch.stack(rows)


def slow_merging(encoder: VisionEncoder, packed: PackedPatches, least: list[int]) -> torch.Tensor:
    """One frame through a tower of any class, attention and merging written out."""
    adapter, prefix = encoder.adapter, encoder.adapter.prefix
    hidden = encoder.embed(packed)
    centres, sizes = packed.centres.float(), torch.ones(len(packed))
    for block, count in zip(adapter.blocks, least, strict=True):
        keys = []

        def mix(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
            keys.append(key)  # noqa: B023
            out = []
            for head in range(query.shape[1]):
                logits = query[:, head] @ key[:, head].T / query.shape[2] ** 0.5
                logits = logits + torch.cat([torch.zeros(prefix), sizes.log()])  # noqa: B023
                out.append(logits.softmax(dim=1) @ value[:, head])
            return torch.stack(out, dim=1).flatten(1)

        hidden = adapter.attend(block, hidden, mix, slow_rotation(encoder, packed.grids[0][1:], centres))
        parts = slow_merge(keys[0].mean(dim=1)[prefix:], hidden[prefix:], centres, sizes, count)
        tokens, where, many = zip(*parts, strict=True)
        centres, sizes = torch.stack(where), torch.tensor(many)
        hidden = adapter.feed(block, torch.cat((hidden[:prefix], torch.stack(tokens))))
    order = sorted(range(len(sizes)), key=lambda i: centres[i].tolist())
    return adapter.finish(hidden[prefix:])[order]


@pytest.mark.parametrize("family", FAMILIES)
def test_merging_in_every_class_of_tower_equals_one_written_out(family: str) -> None:
    encoder = FAMILIES[family]()
    packed = PackedPatches.pack([make_patchset((1, 4, 4), 8, [16])])
    got = merged(encoder, packed, 0.25)
    assert got.counts == (4,) and float(got.sizes.sum()) == 16
    torch.testing.assert_close(got.tokens, slow_merging(encoder, packed, [8, 4]), rtol=0, atol=2e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_merging_follows_a_selection_in_every_class_of_tower(family: str) -> None:
    """What a selector kept goes in, several grids in one pack; merging nothing is the plain tower."""
    encoder = FAMILIES[family]()
    sets = [make_patchset((3, 4, 4), 8, [16, 5, 9], seed=1), make_patchset((1, 3, 6), 8, [7], seed=2)]
    packed = PackedPatches.pack(sets)
    plain = merged(encoder, packed, 1.0)
    torch.testing.assert_close(plain.tokens, encoder.encode(packed), rtol=0, atol=1e-5)
    together = merged(encoder, packed, 0.5)
    assert together.counts == (15, 4)
    for one, tokens in zip(sets, together.tokens.split(list(together.counts)), strict=True):
        alone = merged(encoder, PackedPatches.pack([one]), 0.5)
        torch.testing.assert_close(alone.tokens, tokens, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("length", "least"), [(9, 9), (9, 6), (9, 5), (2, 1), (16, 8)])
def test_matching_equals_the_loop(length: int, least: int) -> None:
    metric, tokens = torch.randn(3, length, 5), torch.randn(3, length, 7)
    centres, sizes = torch.rand(3, length, 3), torch.randint(1, 5, (3, length)).float()
    got = merge(metric, tokens, centres, sizes, least)
    for s in range(3):
        expected = slow_merge(metric[s], tokens[s], centres[s], sizes[s], least)
        mine = zip(*(part[s].tolist() for part in got), strict=True)  # in order: it says who is a guest next
        for (a, b, c), (x, y, z) in zip(mine, expected, strict=True):
            np.testing.assert_allclose([*a, *b, c], [*x, *y, z], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("proportional", [True, False])
def test_a_tower_that_merges_equals_one_written_out(proportional: bool) -> None:
    encoder = small_tower(layers=3)
    packed = PackedPatches.pack([make_patchset((1, 4, 4), 8, [16])])
    got = merged(encoder, packed, 0.25, proportional=proportional)
    assert got.counts == (4,) and float(got.sizes.sum()) == 16
    torch.testing.assert_close(got.tokens, slow_tower(encoder, packed, [12, 8, 4], proportional), rtol=0, atol=2e-5)


def test_merging_nothing_is_the_plain_tower() -> None:
    encoder = small_tower(layers=3)
    packed = PackedPatches.pack([make_patchset((3, 4, 4), 8, [16, 5, 9]), make_patchset((1, 4, 4), 8, [7])])
    got = merged(encoder, packed, 1.0)
    torch.testing.assert_close(got.tokens, encoder.encode(packed), rtol=0, atol=1e-5)
    assert got.counts == packed.counts and (got.sizes == 1).all()
    assert torch.equal(got.centres, packed.centres.float())


def test_every_input_ends_with_its_count_and_each_as_if_it_were_alone() -> None:
    encoder = small_tower(layers=3)
    sets = [make_patchset((3, 4, 4), 8, [16, 5, 9], seed=1), make_patchset((2, 4, 4), 8, [16, 16], seed=2)]
    together = merged(encoder, PackedPatches.pack(sets), 0.4)
    assert together.counts == (12, 13)
    for one, tokens in zip(sets, together.tokens.split(list(together.counts)), strict=True):
        torch.testing.assert_close(merged(encoder, PackedPatches.pack([one]), 0.4).tokens, tokens, rtol=0, atol=1e-5)
    whole = merged(encoder, PackedPatches.pack(sets, attend="input"), 0.4)
    assert whole.counts == (12, 13) and float(whole.sizes.sum()) == 62


def test_tokens_that_were_merged_before_keep_what_they_stand_for() -> None:
    pixels = np.random.default_rng(5).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    frames = Frames(pixels=pixels, pts_seconds=np.arange(2.0))
    kept = EntropyTokenizer(patch_size=8, budget=Budget(tokens=20), merge=2)(frames)
    packed = PackedPatches.pack([kept])
    assert packed.spans is not None
    encoder = small_tower(layers=3)
    assert float(merged(encoder, packed, 0.5).sizes.sum()) == 32
    assert float(pruned(encoder.encode(packed), packed, 1.0).sizes.sum()) == 32


def test_patches_of_another_size_are_refused() -> None:
    with pytest.raises(UsageError, match="patch_size=8"):
        merged(small_tower(layers=3), PackedPatches.pack([make_patchset((1, 4, 4), 4, [16])]), 0.5)


def test_no_block_can_merge_more_than_half() -> None:
    with pytest.raises(UsageError, match="at the least"):
        merged(small_tower(layers=3), PackedPatches.pack([make_patchset((1, 4, 4), 8, [16])]), 0.05)
    for keep in (0.0, 1.5, float("nan")):
        with pytest.raises(UsageError, match="keep"):
            merged(small_tower(layers=3), PackedPatches.pack([make_patchset((1, 4, 4), 8, [16])]), keep)


def test_pruning_keeps_what_changed_most_against_the_last_token_of_its_place() -> None:
    sets = [make_patchset((3, 4, 4), 8, [16, 5, 9], seed=3), make_patchset((1, 4, 4), 8, [7], seed=4)]
    packed = PackedPatches.pack(sets)
    tokens = torch.randn(len(packed), 6)
    expected, first = [], 0
    for one in sets:
        last: dict[tuple[int, int], torch.Tensor] = {}
        for i, (_, row, column) in enumerate(one.positions.tolist()):
            token, before = tokens[first + i], last.get((row, column))
            expected.append(3.0 if before is None else 1 - float(F.cosine_similarity(token, before, dim=0)))
            last[row, column] = token
        first += len(one)
    change = feature_change(tokens, packed)
    np.testing.assert_allclose(change, expected, atol=1e-6)
    assert (change < 3).sum() >= 10
    got = pruned(tokens, packed, 0.6)
    assert got.counts == (18, 4)
    best = [*sorted(sorted(range(30), key=lambda i: (-expected[i], i))[:18]), 30, 31, 32, 33]
    assert torch.equal(got.tokens, tokens[best])
    assert torch.equal(got.centres, packed.positions[best].float())
