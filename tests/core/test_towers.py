"""Every class of tower on kept patches, beside the dense forward of the library that it comes from."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from oracles_encoder import dense_tokens, images_of, make_patchset, resized_tower, same
from small_tower import FAMILIES, timm_config
from torch import nn

from entropy_vision.cost import count_flops, tower_flops
from entropy_vision.encoder import VisionEncoder, _adapter, _build_tower
from entropy_vision.errors import UsageError
from entropy_vision.packed import PackedPatches
from entropy_vision.tower import Tower, find_tower
from entropy_vision.towers.base import rotation_at
from entropy_vision.towers.sizes import SIZES

pytestmark = pytest.mark.usefixtures("steady")
every_family = pytest.mark.parametrize("family", FAMILIES)
TURNING = ("eva02", "perception", "rope-registers")


def close(left: torch.Tensor, right: torch.Tensor, within: float) -> None:
    torch.testing.assert_close(left, right, rtol=0, atol=within)


# --- equal to the library


def whole(encoder: VisionEncoder) -> None:
    """Every patch of two images: tokens and embeddings are the library's own."""
    rows, columns = encoder.adapter.grid
    kept = make_patchset((2, rows, columns), encoder.patch_size, [rows * columns] * 2)
    with torch.no_grad():
        close(encoder([kept])[0], dense_tokens(encoder.tower, kept, encoder.mean, encoder.std), 1e-5)
        embedded = encoder.tower(images_of(kept, encoder.mean, encoder.std))
        close(encoder.pooled([kept])[0], embedded[0] if isinstance(embedded, tuple) else embedded, 1e-5)


@every_family
def test_every_patch_gives_the_librarys_tokens_and_embedding(family: str) -> None:
    whole(FAMILIES[family]())


@pytest.mark.slow
@pytest.mark.parametrize(
    "model", ["ViT-B-16-SigLIP", "EVA02-B-16", "PE-Core-T-16-384", "ViT-B-32-SigLIP2-256", "coca_ViT-B-32"]
)
def test_towers_of_full_size_equal_open_clip(model: str) -> None:
    whole(VisionEncoder(model).eval())


@every_family
def test_a_kept_subset_equals_the_dense_forward_that_hides_the_rest(family: str) -> None:
    encoder, kept = FAMILIES[family](), make_patchset((4, 4, 4), 8, [3, 16, 0, 1])
    with torch.no_grad():
        close(encoder([kept])[0], dense_tokens(encoder.tower, kept, encoder.mean, encoder.std), 1e-5)


@every_family
def test_gradients_equal_those_of_the_dense_forward_that_hides_the_rest(family: str) -> None:
    encoder = FAMILIES[family]()
    sets = [make_patchset((2, 4, 4), 8, [5, 2], seed=1), make_patchset((1, 4, 4), 8, [5], seed=2)]
    weights = torch.randn(12, 32)
    (torch.cat(encoder(sets)) * weights).sum().backward()
    got = {name: parameter.grad for name, parameter in encoder.tower.named_parameters()}
    encoder.tower.zero_grad(set_to_none=True)
    dense = torch.cat([dense_tokens(encoder.tower, one, encoder.mean, encoder.std) for one in sets])
    (dense * weights).sum().backward()
    reached = 0
    for name, parameter in encoder.tower.named_parameters():
        assert (got[name] is None) == (parameter.grad is None), name
        if parameter.grad is not None:
            close(got[name], parameter.grad, 3e-4)
            reached += bool(parameter.grad.abs().max() > 1e-6)
    assert reached > 20


@every_family
def test_another_grid_equals_the_tower_that_its_library_resizes(family: str) -> None:
    encoder, kept = FAMILIES[family](), make_patchset((1, 3, 7), 8, [21])
    other = resized_tower(encoder.config, encoder.tower, (24, 56))
    with torch.no_grad():
        close(encoder([kept])[0], dense_tokens(other, kept, encoder.mean, encoder.std), 1e-5)


@every_family
@pytest.mark.parametrize(("dtype", "within"), [(torch.float32, 1e-6), (torch.float64, 1e-13)], ids=str)
def test_a_pack_equals_each_input_alone(family: str, dtype: torch.dtype, within: float) -> None:
    """To rounding, that is: twice as many digits bring twice as many that are equal."""
    encoder = FAMILIES[family]().to(dtype)
    sets = [
        make_patchset((3, 4, 4), 8, [2, 7, 2], seed=1),
        make_patchset((1, 6, 5), 8, [30], seed=2),
        make_patchset((5, 4, 4), 8, [1, 0, 16, 7, 7], seed=3),
    ]
    with torch.no_grad():
        for attend in ("frame", 2, "input"):
            together, pooled = encoder(sets, attend), encoder.pooled(sets, attend)
            for one, tokens, embedding in zip(sets, together, pooled, strict=True):
                same(tokens, encoder([one], attend)[0], within)
                same(embedding, encoder.pooled([one], attend)[0], within)


# --- where a patch stands


def test_patches_turn_by_their_own_place() -> None:
    """Two places exchanged change the tokens of a tower that has rotations and nothing else to tell places by."""
    encoder, kept = FAMILIES["rope-registers"](), make_patchset((1, 4, 4), 8, [3])
    moved = replace(kept, positions=np.array([[0, 0, 0], [0, 1, 3], [0, 3, 1]], np.int32))
    other = replace(kept, positions=np.array([[0, 0, 0], [0, 0, 1], [0, 3, 1]], np.int32))
    with torch.no_grad():
        assert (encoder([moved])[0] - encoder([other])[0]).abs().max() > 1e-3


@pytest.mark.parametrize("family", TURNING)
def test_a_merged_patch_turns_by_the_angle_half_way(family: str) -> None:
    adapter = FAMILIES[family]().adapter
    table = adapter.rotation((4, 4))
    assert table is not None
    sine, cosine = table.double().chunk(2, dim=1)
    angle = torch.atan2(sine, cosine).view(4, 4, -1)  # all below pi on so small a grid
    place = torch.tensor([[5, 6, 9, 10], [5, 6, 5, 6], [5, 9, 5, 9], [5, 5, 5, 5]])
    weights = torch.tensor([[0.25] * 4, [0.5, 0.5, 0.0, 0.0], [0.5, 0.5, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0]])
    got = rotation_at(table, place, weights)
    centres = [(1, 1), (1, 2), (2, 1), (2, 2)], [(1, 1), (1, 2)], [(1, 1), (2, 1)], [(1, 1)]
    for row, of in zip(got, centres, strict=True):
        mean = torch.stack([angle[y, x] for y, x in of]).mean(dim=0)
        close(row.double(), torch.cat([mean.sin(), mean.cos()]), 1e-6)


def test_merged_patches_are_encoded_by_a_tower_that_turns() -> None:
    encoder, kept = FAMILIES["eva02"](), make_patchset((1, 4, 4), 8, [2])
    kept = replace(kept, positions=np.array([[0, 0, 0], [0, 2, 2]], np.int32))
    apart, large = replace(kept, spans=np.ones((2, 2), np.int32)), replace(kept, spans=np.full((2, 2), 2, np.int32))
    with torch.no_grad():
        close(encoder([apart])[0], encoder([kept])[0], 1e-6)
        assert (encoder([large])[0] - encoder([kept])[0]).abs().max() > 1e-3


# --- what sees each other


def test_groups_of_frames_see_each_other() -> None:
    encoder, kept = FAMILIES["siglip"](), make_patchset((5, 4, 4), 8, [4, 6, 0, 3, 2])
    with torch.no_grad():
        got = encoder.pooled([kept], 2)[0]
        assert len(got) == 3  # frames 0 and 1, 2 and 3, 4
        tokens = encoder([kept], 2)[0]
        for first, rows in ((0, slice(0, 10)), (2, slice(10, 13)), (4, slice(13, 15))):
            frames = kept.positions[rows]
            part = replace(kept, pixels=kept.pixels[rows], positions=frames)
            same(tokens[rows], encoder([part], "input")[0])
            assert (frames[:, 0] // 2 == first // 2).all()
    close(encoder([kept], 5)[0], encoder([kept], "input")[0], 0.0)
    close(encoder([kept], 1)[0], encoder([kept], "frame")[0], 0.0)


def test_prefix_tokens_stand_before_their_own_segment_in_their_own_order() -> None:
    packed = PackedPatches.pack([make_patchset((3, 4, 4), 8, [2, 0, 5]), make_patchset((1, 2, 2), 8, [1])])
    layout = packed.lay_out(2)  # entries 0 to 5 are prefix tokens of three segments, 6 to 13 patches
    assert layout.order.tolist() == [4, 5, 13, 0, 1, 6, 7, 2, 3, 8, 9, 10, 11, 12]
    assert layout.first_rows.tolist() == [3, 7, 0] and layout.groups == ((1, 3), (1, 4), (1, 7))
    none = packed.lay_out(0)
    assert none.order.tolist() == [7, 0, 1, 2, 3, 4, 5, 6] and none.groups == ((1, 1), (1, 2), (1, 5))
    assert packed.to("meta").lay_out(2).order.is_meta


@pytest.mark.parametrize("attend", [0, -1, True, "video", 2.0])
def test_a_group_of_no_frames_is_refused(attend: Any) -> None:
    with pytest.raises(ValueError, match="a count of frames"):
        PackedPatches.pack([make_patchset((1, 4, 4), 8, [3])], attend)


# --- in training


@every_family
def test_training_checkpointing_and_half_precision_change_nothing_but_rounding(family: str) -> None:
    encoder, kept = FAMILIES[family](), make_patchset((2, 4, 4), 8, [5, 2])
    encoder([kept])[0].square().sum().backward()
    plain = {name: p.grad.clone() for name, p in encoder.named_parameters() if p.grad is not None}
    encoder.zero_grad()
    encoder.train().set_grad_checkpointing(True)
    tokens = encoder([kept])[0]
    tokens.square().sum().backward()
    again = {name: p.grad for name, p in encoder.named_parameters() if p.grad is not None}
    assert plain.keys() == again.keys() and all(torch.equal(plain[name], again[name]) for name in plain)
    with torch.no_grad():
        half = encoder.eval().bfloat16()([kept])[0]
    assert half.dtype == torch.bfloat16
    close(half.float(), tokens.detach(), 0.2)


@pytest.mark.parametrize("family", ["open_clip", "siglip", "eva02"])
def test_checkpointing_runs_every_block_again(family: str) -> None:
    encoder, kept = FAMILIES[family]().train(), make_patchset((1, 4, 4), 8, [5])

    def step() -> None:
        encoder([kept])[0].sum().backward()

    plain = sum(count_flops(step).values())
    encoder.set_grad_checkpointing(True)
    sizes = encoder.adapter.sizes()
    blocks = sizes.flops([5]) - 2 * 5 * 3 * 8 * 8 * sizes.width
    # torch stops once all that is needed is there: nobody needs what the last product of a block gives
    spared = sizes.layers * 2 * (5 + sizes.prefix) * sizes.hidden * sizes.width
    assert sum(count_flops(step).values()) == plain + blocks - spared


# --- weights, configs and prices


@every_family
def test_weights_keep_their_own_names_and_configs_rebuild_the_tower(family: str) -> None:
    encoder, kept = FAMILIES[family](), make_patchset((1, 4, 4), 8, [5])
    names = {f"tower.{name}" for name in encoder.tower.state_dict()}
    assert set(encoder.state_dict()) == names
    again = VisionEncoder.from_config(json.loads(json.dumps(encoder.config))).eval()
    again.load_state_dict(encoder.state_dict())
    assert again.config == encoder.config
    assert torch.equal(again([kept])[0], encoder([kept])[0])
    assert (again.width, again.patch_size, again.layers, again.image_size) == (32, 8, 2, (32, 32))


@every_family
@pytest.mark.parametrize("gradients", [True, False])
def test_counted_flops_equal_the_closed_form(family: str, gradients: bool) -> None:
    encoder = FAMILIES[family]()
    for counts in ((16,), (7, 16, 0, 1)):
        kept = make_patchset((len(counts), 4, 4), 8, counts)
        with torch.set_grad_enabled(gradients):
            counted = sum(count_flops(lambda: encoder([kept])).values())  # noqa: B023
        assert counted == tower_flops(encoder.config, [count for count in counts if count])


def check_sizes(model: str) -> None:
    config = open_clip.get_model_config(model) or {
        "embed_dim": 8,
        "vision_cfg": {"timm_model_name": model, "timm_pool": "", "timm_proj": "linear"},
    }
    with torch.device("meta"):
        encoder = VisionEncoder.from_config(config)
    known = Tower.from_config({"vision_cfg": config["vision_cfg"]}, "the tower")
    assert asdict(known) == asdict(encoder.adapter.sizes())
    rows, columns = encoder.adapter.grid
    packed = PackedPatches.pack([make_patchset((2, rows, columns), encoder.patch_size, [rows * columns, 9])])
    tokens: list[torch.Tensor] = []
    counted = count_flops(lambda: tokens.append(encoder.encode(packed)))
    assert sum(counted.values()) == known.flops([rows * columns, 9])
    assert tokens[0].shape == (rows * columns + 9, known.width) and tokens[0].is_meta


@pytest.mark.parametrize("model", ["ViT-L-14-336", "ViT-SO400M-14-SigLIP-384", "EVA02-L-14-336"])
def test_large_towers_are_counted_without_being_computed(model: str) -> None:
    check_sizes(model)


@pytest.mark.slow
@pytest.mark.parametrize("timm", SIZES)
def test_the_table_of_sizes_is_timms(timm: str) -> None:
    models = [
        name
        for name in open_clip.list_models()
        if open_clip.get_model_config(name)["vision_cfg"].get("timm_model_name") == timm
    ]
    check_sizes(models[0] if models else timm)


@pytest.mark.slow
@pytest.mark.parametrize("model", ["ViT-H-14", "ViT-bigG-14", "ViT-g-14", "coca_ViT-L-14", "ViT-L-14-CLIPA-336"])
def test_large_open_clip_towers_are_counted_too(model: str) -> None:
    check_sizes(model)


@pytest.mark.parametrize(
    ("model", "patches", "published"),
    [
        ("ViT-B-16", 196, 35.13),
        ("ViT-L-14-336", 576, 381.92),
        ("ViT-H-14", 256, 334.59),
        ("ViT-bigG-14", 256, 967.5),
        ("EVA02-B-16", 196, 35.13),
        ("EVA02-L-14-336", 576, 381.86),
        ("EVA02-E-14", 256, 2264.33),
    ],
)
def test_a_price_is_known_before_there_is_a_tower(model: str, patches: int, published: float) -> None:
    """Next to open_clip's profile (docs/model_profile.csv), which counts the projection of the class token too."""
    assert find_tower(model).flops([patches]) / 1e9 == pytest.approx(published, abs=0.01)


def test_towers_that_no_adapter_runs_are_refused_before_a_weight_is_made() -> None:
    config = timm_config("eva02")
    config["vision_cfg"]["timm_model_name"] = "eva02_base_patch16_clip_224"
    tower = _build_tower(config)
    tower.trunk.rope.aug_active = True
    with pytest.raises(UsageError, match="RotaryEmbeddingCat"):
        _adapter(tower)
    with pytest.raises(UsageError, match="swin_base_patch4_window7_224, which is not supported"):
        find_tower("swin_base_patch4_window7_224")
    with pytest.raises(UsageError, match="patch embedding"):
        VisionEncoder("MobileCLIP-B")
    tower = _build_tower(timm_config("siglip"))
    tower.trunk.patch_embed.norm = nn.LayerNorm(32)  # as AIMv2's
    with pytest.raises(UsageError, match="norm behind the patch embedding"):
        _adapter(tower)
