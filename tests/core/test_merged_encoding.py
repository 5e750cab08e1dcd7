"""Merged patches in the tower: the position row at their centre, and nothing else changes."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from oracles_encoder import make_patchset
from small_policy import small_policy

from entropy_vision import Budget, EntropyTokenizer, Frames, PatchSet
from entropy_vision.cost import count_flops, tower_flops
from entropy_vision.encoder import VisionEncoder
from entropy_vision.packed import PackedPatches
from entropy_vision.projectors import Projector
from entropy_vision.towers.base import resize_positions


def _merged(size: tuple[int, int, int], tokens: int, patch_size: int = 8, seed: int = 0) -> PatchSet:
    frames, height, width = size
    pixels = np.random.default_rng(seed).integers(0, 256, (frames, height, width, 3), dtype=np.uint8)
    pixels[:, : height // 2] = 80
    tok = EntropyTokenizer(patch_size, budget=Budget(tokens=tokens), merge=4)
    kept = tok(Frames(pixels=pixels, pts_seconds=np.arange(frames) / 8))
    assert kept.spans is not None
    return kept


def _encoder() -> VisionEncoder:
    torch.manual_seed(0)
    encoder = VisionEncoder("ev-tiny-96").eval()
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return encoder


def _row_at(table: torch.Tensor, row: float, column: float) -> torch.Tensor:
    """Bilinear in a table [R, C, D]."""
    out = torch.zeros(table.shape[2])
    for y in {math.floor(row), math.ceil(row)}:
        for x in {math.floor(column), math.ceil(column)}:
            out += (1 - abs(row - y)) * (1 - abs(column - x)) * table[y, x]
    return out


def _slow(encoder: VisionEncoder, kept: PatchSet) -> torch.Tensor:
    """float [K, D]: frame by frame, each token with its own convolution and its own interpolated row."""
    tower, (_, rows, columns) = encoder.tower, kept.grid
    table = resize_positions(tower.positional_embedding[1:], tower.grid_size, (rows, columns))
    table = table.view(rows, columns, -1)
    assert kept.spans is not None
    found = []
    for frame in np.unique(kept.positions[:, 0]):
        stream = [tower.class_embedding + tower.positional_embedding[0]]
        for which in np.flatnonzero(kept.positions[:, 0] == frame):
            pixels = torch.from_numpy(kept.pixels[which]).permute(2, 0, 1).float() / 255
            pixels = (pixels - torch.tensor(encoder.mean).view(3, 1, 1)) / torch.tensor(encoder.std).view(3, 1, 1)
            (_, row, column), (down, along) = kept.positions[which].tolist(), kept.spans[which].tolist()
            place = _row_at(table, row + (down - 1) / 2, column + (along - 1) / 2)
            stream.append(tower.conv1(pixels[None]).flatten() + place)
        hidden = tower.transformer(tower.ln_pre(torch.stack(stream)[None]))
        found.append(tower.ln_post(hidden)[0, 1:])
    return torch.cat(found)


@pytest.mark.parametrize("size", [(2, 96, 96), (1, 56, 104), (3, 40, 24)], ids=str)
def test_merged_patches_stand_at_their_centre(size: tuple[int, int, int]) -> None:
    encoder = _encoder()
    kept = _merged(size, 4 * size[0] * -(-size[1] // 32) * -(-size[2] // 32) // 2)
    with torch.no_grad():
        torch.testing.assert_close(encoder([kept])[0], _slow(encoder, kept), rtol=0, atol=2e-5)


def test_patches_that_are_not_merged_are_encoded_as_before_to_the_last_bit() -> None:
    encoder = _encoder()
    plain = [make_patchset((2, 12, 12), 8, [40, 7]), make_patchset((1, 9, 14), 8, [30], seed=1)]
    spanned = [replace(one, spans=np.ones((len(one), 2), np.int32)) for one in plain]
    with torch.no_grad():
        for left, right in zip(encoder(plain), encoder(spanned), strict=True):
            assert torch.equal(left, right)
        mixed = encoder([*plain, _merged((2, 96, 96), 60)])
        for left, right in zip(encoder(plain), mixed, strict=False):
            torch.testing.assert_close(left, right, rtol=0, atol=2e-5)


def test_a_pack_without_merged_patches_carries_no_spans() -> None:
    packed = PackedPatches.pack([make_patchset((2, 12, 12), 8, [40, 7])])
    assert packed.spans is None and packed.layout.weights is None and packed.layout.place.ndim == 1
    assert packed.centres is packed.positions


def test_spans_go_with_the_pack() -> None:
    merged, plain = _merged((2, 96, 96), 60), make_patchset((1, 9, 14), 8, [30])
    packed = PackedPatches.pack([plain, merged])
    assert packed.spans is not None and packed.spans[:30].eq(1).all()
    np.testing.assert_array_equal(packed.spans[30:].numpy(), merged.spans)
    moved = packed.to("meta")
    assert moved.spans is not None and moved.spans.is_meta
    assert moved.layout.weights is not None and moved.layout.weights.is_meta
    with pytest.raises(ValueError, match="spans"):
        replace(packed, spans=packed.spans[:5])
    with pytest.raises(ValueError, match="spans"):
        replace(packed, spans=packed.spans.float())


def test_gradients_reach_the_position_rows_around_a_centre() -> None:
    encoder = _encoder()
    encoder([_merged((1, 96, 96), 9)])[0].square().sum().backward()
    grad = encoder.tower.positional_embedding.grad
    assert grad is not None
    reached = grad[1:].abs().sum(1).view(12, 12) > 0
    assert reached[1:3, 1:3].all() and not reached[0, 0]  # a region of 4 x 4 stands between rows 1 and 2


def test_half_precision_takes_merged_patches() -> None:
    encoder, kept = _encoder(), _merged((1, 96, 96), 30)
    with torch.no_grad():
        single, half = encoder([kept])[0], encoder.bfloat16()([kept])[0]
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), single, rtol=0, atol=0.3)


def test_a_merged_patch_costs_what_any_patch_costs() -> None:
    encoder, kept = VisionEncoder("ev-tiny-96"), _merged((2, 96, 96), 50)
    counted = sum(count_flops(lambda: encoder([kept])).values())
    assert counted == tower_flops(encoder.config, kept.mask.sum(axis=(1, 2)).tolist())


def test_the_language_model_is_told_the_centres() -> None:
    model, _ = small_policy()
    kept = _merged((2, 96, 96), 60, model.encoder.patch_size)
    told: list[torch.Tensor] = []

    class Notes(Projector):
        def forward(self, tokens: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
            told.append(places)
            return tokens

    model.projector = Notes(model.encoder.width, model.config.get_text_config().hidden_size)
    with torch.no_grad():
        model.embed_patches(PackedPatches.pack([kept]))
    assert kept.spans is not None
    frames, rows, columns = kept.grid
    for place, position, span in zip(told[0].tolist(), kept.positions.tolist(), kept.spans.tolist(), strict=True):
        (frame, row, column), (down, along) = position, span
        expected = ((frame + 0.5) / frames, (row + down / 2) / rows, (column + along / 2) / columns)
        assert place == pytest.approx(expected)
