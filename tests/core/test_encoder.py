from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from media import as_frames
from oracles_encoder import dense_tokens, images_of, make_patchset, resized_tower, same
from safetensors.torch import save_file
from small_tower import SMALL, small_tower

from entropy_vision import EntropyTokenizer
from entropy_vision.encoder import VisionEncoder, _wants_quick_gelu
from entropy_vision.errors import InputError, UsageError
from entropy_vision.packed import PackedPatches

pytestmark = pytest.mark.usefixtures("steady")


def close(left: torch.Tensor, right: torch.Tensor, within: float) -> None:
    torch.testing.assert_close(left, right, rtol=0, atol=within)


# --- equal to open_clip


@pytest.mark.parametrize("model", ["ev-tiny-96", "ViT-B-32"])
def test_tokens_and_embedding_equal_open_clip_when_every_patch_is_kept(model: str) -> None:
    encoder = VisionEncoder(model).eval()
    rows, columns = encoder.tower.grid_size
    kept = make_patchset((1, rows, columns), encoder.patch_size, [rows * columns])
    encoder.tower.output_tokens = True
    with torch.no_grad():
        pooled, tokens = encoder.tower(images_of(kept, encoder.mean, encoder.std))
        close(encoder([kept])[0], tokens[0], 1e-5)
        close(encoder.pooled([kept])[0], pooled, 1e-5)


@pytest.mark.parametrize(
    "changes",
    [
        {"quick_gelu": True},
        {"pool_type": "avg"},
        {"pool_type": "avg", "final_ln_after_pool": True, "no_ln_pre": True},
        {"final_ln_after_pool": True},
        {"pos_embed_type": "sin_cos_2d"},
        {"ls_init_value": 0.3, "mlp_ratio": 3.0},
        {"norm_kwargs": {"eps": 1e-2}},
    ],
    ids=str,
)
def test_towers_of_every_supported_kind_equal_open_clip(changes: dict[str, Any]) -> None:
    encoder = small_tower(**changes)
    kept = make_patchset((3, 4, 4), 8, [16, 16, 16])
    encoder.tower.output_tokens = True
    with torch.no_grad():
        pooled, tokens = encoder.tower(images_of(kept, encoder.mean, encoder.std))
        close(encoder([kept])[0], tokens.flatten(0, 1), 1e-5)
        close(encoder.pooled([kept])[0], pooled, 1e-5)


def test_a_kept_subset_equals_the_dense_forward_that_hides_the_dropped_patches() -> None:
    encoder = small_tower()
    kept = make_patchset((4, 4, 4), 8, [3, 16, 0, 1])
    with torch.no_grad():
        close(encoder([kept])[0], dense_tokens(encoder.tower, kept, encoder.mean, encoder.std), 1e-5)


def test_gradients_equal_those_of_the_dense_forward_that_hides_the_dropped_patches() -> None:
    encoder = small_tower()
    sets = [make_patchset((2, 4, 4), 8, [5, 2], seed=1), make_patchset((1, 4, 4), 8, [5], seed=2)]
    weights = torch.randn(12, 32)
    (torch.cat(encoder(sets)) * weights).sum().backward()
    got = {name: parameter.grad for name, parameter in encoder.tower.named_parameters()}
    encoder.tower.zero_grad(set_to_none=True)
    dense = torch.cat([dense_tokens(encoder.tower, one, encoder.mean, encoder.std) for one in sets])
    (dense * weights).sum().backward()
    for name, parameter in encoder.tower.named_parameters():
        if name == "proj":
            assert got[name] is None
            continue
        assert parameter.grad is not None
        close(got[name], parameter.grad, 2e-4)


def test_another_grid_equals_the_tower_that_open_clip_resizes() -> None:
    encoder = small_tower()
    kept = make_patchset((1, 3, 7), 8, [21])
    other = resized_tower(encoder.config, encoder.tower, (24, 56))
    other.output_tokens = True
    with torch.no_grad():
        close(encoder([kept])[0], other(images_of(kept, encoder.mean, encoder.std))[1][0], 1e-5)


def test_gradients_reach_the_position_rows_through_another_grid() -> None:
    encoder = small_tower()
    encoder([make_patchset((1, 6, 6), 8, [9])])[0].square().sum().backward()
    grad = encoder.tower.positional_embedding.grad
    assert grad is not None and (grad.abs().sum(1) > 0).all()


# --- packing


def test_packed_inputs_equal_each_input_alone() -> None:
    encoder = small_tower()
    sets = [
        make_patchset((3, 4, 4), 8, [2, 7, 2], seed=1),
        make_patchset((1, 6, 5), 8, [30], seed=2),
        make_patchset((5, 4, 4), 8, [1, 0, 16, 7, 7], seed=3),
        make_patchset((1, 4, 4), 8, [2], seed=4),
    ]
    with torch.no_grad():
        for attend in ("frame", "input"):
            together, pooled = encoder(sets, attend), encoder.pooled(sets, attend)
            for one, tokens, embedding in zip(sets, together, pooled, strict=True):
                same(tokens, encoder([one], attend)[0])
                same(embedding, encoder.pooled([one], attend)[0])


def test_frames_of_an_input_see_each_other_when_asked_to() -> None:
    encoder = small_tower()
    kept = make_patchset((2, 4, 4), 8, [4, 6])
    tower = encoder.tower
    with torch.no_grad():
        embedded = tower._embeds(images_of(kept, encoder.mean, encoder.std))
        mask = torch.from_numpy(kept.mask).flatten(1)
        row = torch.cat([embedded[0, :1], embedded[0, 1:][mask[0]], embedded[1, 1:][mask[1]]])
        wanted = tower.ln_post(tower.transformer(row[None]))[0, 1:]
        close(encoder([kept], "input")[0], wanted, 1e-5)
        assert (encoder([kept])[0] - wanted).abs().max() > 1e-2


def test_layout_places_every_patch_as_a_loop_over_patches_does() -> None:
    sets = [make_patchset((3, 4, 4), 8, [2, 0, 5], seed=1), make_patchset((2, 2, 3), 8, [2, 1], seed=2)]
    packed = PackedPatches.pack(sets)
    segments: dict[tuple[int, int], list[int]] = {}
    places, patch = [], 0
    for which, one in enumerate(sets):
        for frame, row, column in one.positions.tolist():
            segments.setdefault((which, frame), []).append(patch)
            places.append(16 * which + row * one.grid[2] + column)
            patch += 1
    layout, entries = packed.layout, []
    numbers = {key: number for number, key in enumerate(segments)}
    for key in sorted(segments, key=lambda key: (len(segments[key]), key)):
        entries += [numbers[key], *(len(segments) + patch for patch in segments[key])]
    assert layout.order.tolist() == entries
    assert layout.order[layout.patch_rows].tolist() == [len(segments) + patch for patch in range(10)]
    assert layout.order[layout.first_rows].tolist() == [0, 1, 2, 3]
    assert layout.place.tolist() == places
    assert layout.groups == ((1, 2), (2, 3), (1, 6)) and layout.longest == 6
    assert layout.starts.tolist() == [0, 2, 5, 8, 14]
    assert layout.shapes == ((4, 4), (2, 3)) and layout.input_segments == (2, 2)
    assert layout.patch_segments.tolist() == [0, 0, 1, 1, 1, 1, 1, 2, 2, 3]


def test_split_gives_every_input_its_own_rows_in_order() -> None:
    packed = PackedPatches.pack([make_patchset((1, 4, 4), 8, [n], seed=n) for n in (3, 1, 4)])
    assert [part.tolist() for part in packed.split(torch.arange(8))] == [[0, 1, 2], [3], [4, 5, 6, 7]]
    assert packed.to("cpu") is packed and len(packed) == 8 and packed.patch_size == 8


def test_a_pack_refuses_parts_that_do_not_belong_together() -> None:
    good = PackedPatches.pack([make_patchset((1, 4, 4), 8, [3])])
    parts = {"pixels": good.pixels, "positions": good.positions, "counts": (3,), "grids": ((1, 4, 4),)}
    for name, value, said in [
        ("pixels", good.pixels.float(), "pixels"),
        ("positions", good.positions.int(), "positions"),
        ("counts", (2,), "pixels"),
        ("counts", (3, 0), "at least one patch"),
        ("grids", (), "0 grids"),
        ("attend", "video", "'input'"),
    ]:
        with pytest.raises(ValueError, match=said):
            PackedPatches(**(parts | {name: value}))


# --- behaviour in training


def test_training_mode_equals_evaluation_also_where_the_tower_drops_patches() -> None:
    encoder = small_tower(patch_dropout=0.5)
    kept = make_patchset((2, 4, 4), 8, [5, 2])
    with torch.no_grad():
        assert torch.equal(encoder.train()([kept])[0], encoder.eval()([kept])[0])


def test_gradient_checkpointing_changes_no_gradient() -> None:
    encoder = small_tower().train()
    kept = make_patchset((2, 4, 4), 8, [5, 2])
    grads = []
    for enable in (False, True):
        encoder.tower.set_grad_checkpointing(enable)
        encoder.zero_grad()
        encoder([kept])[0].square().sum().backward()
        grads.append([p.grad.clone() for p in encoder.parameters() if p.grad is not None])
    assert all(torch.equal(left, right) for left, right in zip(*grads, strict=True))


def test_half_precision_stays_near_single() -> None:
    encoder = small_tower()
    kept = make_patchset((2, 4, 4), 8, [5, 2])
    with torch.no_grad():
        single = encoder([kept])[0]
        with torch.autocast("cpu", torch.bfloat16):
            close(encoder([kept])[0].float(), single, 0.1)
        half = encoder.bfloat16()([kept])[0]
    assert half.dtype == torch.bfloat16
    close(half.float(), single, 0.1)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_variable_length_kernel_equals_grouped_attention() -> None:
    encoder = small_tower()
    sets = [make_patchset((3, 4, 4), 8, [2, 7, 2], seed=1), make_patchset((1, 6, 5), 8, [30], seed=2)]
    with torch.no_grad():
        single = torch.cat(encoder(sets))
        half = torch.cat(encoder.to("cuda", torch.bfloat16)(sets))
    close(half.float().cpu(), single, 0.1)


# --- weights and configs


def test_weights_carry_open_clips_own_names() -> None:
    model = open_clip.create_model("ev-tiny-96") if "ev-tiny-96" in open_clip.list_models() else None
    encoder = VisionEncoder("ev-tiny-96")
    model = model or open_clip.create_model("ev-tiny-96")
    encoder.tower.load_state_dict(model.visual.state_dict())
    assert {name.removeprefix("tower.") for name in encoder.state_dict()} == set(model.visual.state_dict())


def test_config_rebuilds_the_encoder_after_a_trip_through_json() -> None:
    encoder = small_tower(quick_gelu=True, ls_init_value=0.2)
    encoder.config["mean"] = [0.1, 0.2, 0.3]
    first = VisionEncoder.from_config(json.loads(json.dumps(encoder.config)))
    again = VisionEncoder.from_config(json.loads(json.dumps(first.config))).eval()
    assert again.config == first.config and again.mean == (0.1, 0.2, 0.3)
    first.load_state_dict(encoder.state_dict())
    again.load_state_dict(encoder.state_dict())
    kept = make_patchset((1, 4, 4), 8, [5])
    assert torch.equal(first([kept])[0], again([kept])[0])
    assert (again.width, again.patch_size, again.layers, again.image_size) == (32, 8, 2, (32, 32))


def write_folder(folder: Path) -> dict[str, torch.Tensor]:
    config = deepcopy(SMALL)
    config["text_cfg"] = {"context_length": 8, "vocab_size": 16, "width": 16, "heads": 1, "layers": 1}
    content = {"model_cfg": config, "preprocess_cfg": {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]}}
    (folder / "open_clip_config.json").write_text(json.dumps(content))
    model = open_clip.CLIP(**deepcopy(config))
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    return model.visual.state_dict()


def test_a_local_folder_brings_weights_and_pixel_statistics(tmp_path: Path) -> None:
    state = write_folder(tmp_path)
    encoder = VisionEncoder(str(tmp_path))
    assert all(torch.equal(tensor, state[name]) for name, tensor in encoder.tower.state_dict().items())
    assert encoder.mean == (0.5, 0.5, 0.5) and encoder.std == (0.25, 0.25, 0.25)
    assert VisionEncoder.from_config(encoder.config).mean == encoder.mean


def test_a_weights_file_loads_by_name_and_path(tmp_path: Path) -> None:
    VisionEncoder("ev-tiny-96")
    model = open_clip.create_model("ev-tiny-96")
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    encoder = VisionEncoder("ev-tiny-96", pretrained=str(tmp_path / "weights.pt"))
    assert torch.equal(encoder.tower.conv1.weight, model.visual.conv1.weight)


# --- wrong use


def test_patches_of_another_size_are_refused_with_the_size_to_use() -> None:
    with pytest.raises(UsageError, match=r"patch_size=8"):
        small_tower()([make_patchset((1, 2, 2), 16, [2])])


def test_sets_that_cannot_be_packed_are_refused() -> None:
    with pytest.raises(UsageError, match="at least one"):
        small_tower()([])
    with pytest.raises(UsageError, match=r"\[8, 16\]"):
        small_tower()([make_patchset((1, 2, 2), 16, [2]), make_patchset((1, 2, 2), 8, [2])])


@pytest.mark.parametrize(
    ("model", "pretrained", "said"),
    [
        ("ViT-B32", None, "'ViT-B-32'"),
        ("convnext_tiny", None, "ConvNeXt"),
        ("RN50", None, "ResNet"),
        ("ViT-B-32", "no-such-tag", "openai"),
        ("hf-hub:", None, "cannot find hf-hub:"),
    ],
)
def test_models_that_cannot_be_used_say_what_can(model: str, pretrained: str | None, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        VisionEncoder(model, pretrained=pretrained)


def test_custom_blocks_and_missing_pooling_are_refused() -> None:
    with pytest.raises(UsageError, match="custom"):
        small_tower(qk_norm=True)
    with pytest.raises(UsageError, match="pooling"):
        small_tower(pool_type="none").pooled([make_patchset((1, 4, 4), 8, [2])])
    with pytest.raises(UsageError, match="vision_cfg"):
        VisionEncoder.from_config({"width": 3})


def test_damaged_folders_say_which_file_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"open_clip_config\.json"):
        VisionEncoder(str(tmp_path))
    for content in ("{", "{}", "[]"):
        (tmp_path / "open_clip_config.json").write_text(content)
        with pytest.raises(InputError, match=r"open_clip_config\.json"):
            VisionEncoder(str(tmp_path))
    write_folder(tmp_path)
    with pytest.raises(UsageError, match="brings its own weights"):
        VisionEncoder(str(tmp_path), pretrained="openai")
    weights = tmp_path / "open_clip_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(UsageError, match="cannot load"):
        VisionEncoder(str(tmp_path))
    weights.unlink()
    with pytest.raises(UsageError, match="cannot load"):
        VisionEncoder(str(tmp_path))


@pytest.mark.parametrize(
    ("model", "tag", "quick"),
    [
        ("ViT-B-32", "openai", True),
        ("ViT-L-14", "openai", True),
        ("ViT-B-32", "laion2b_s34b_b79k", False),
        ("ViT-B-32-quickgelu", "openai", True),
        ("ViT-B-32", None, False),
    ],
)
def test_the_activation_is_the_one_the_weights_were_trained_with(model: str, tag: str | None, quick: bool) -> None:
    """open_clip only warns where a plain name meets such weights, and computes with the other activation."""
    assert _wants_quick_gelu(model, tag, open_clip.get_model_config(model)) is quick


def test_weights_are_loaded_into_the_activation_they_want(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = open_clip.create_model("ViT-B-32-quickgelu")
    save_file(whole.state_dict(), tmp_path / "weights.safetensors")
    monkeypatch.setattr(open_clip, "get_pretrained_cfg", lambda model, tag: {"quick_gelu": True})
    encoder = VisionEncoder("ViT-B-32", pretrained=str(tmp_path / "weights.safetensors"))
    assert encoder.config["quick_gelu"] is True
    kept = make_patchset((1, 7, 7), 32, [49])
    whole.eval()
    with torch.no_grad():
        expected = dense_tokens(whole.visual, kept, encoder.mean, encoder.std)
        torch.testing.assert_close(encoder([kept])[0], expected, atol=1e-4, rtol=1e-4)
        plain = VisionEncoder.from_config(encoder.config | {"quick_gelu": False})
        plain.load_state_dict(encoder.state_dict())
        assert not torch.allclose(plain([kept])[0], expected, atol=1e-3)


def test_what_is_no_list_of_patch_sets_is_told() -> None:
    frames = as_frames(np.zeros((1, 64, 64, 3), np.uint8))
    kept, encoder = EntropyTokenizer(8)(frames), VisionEncoder("ev-tiny-96")
    for wrong in (kept, [frames], torch.zeros(1, 3, 8, 8)):
        with pytest.raises(UsageError, match="a list of PatchSet"):
            encoder(wrong)
