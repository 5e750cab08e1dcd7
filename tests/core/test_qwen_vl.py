"""Qwen-VL on kept units: transformers' own logits with all of them, its masked dense forward with fewer."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import (
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLProcessor,
    Qwen3VLVideoProcessor,
)

from entropy_vision import Budget, UsageError
from entropy_vision.qwen_vl import PrunedVL, frames_of, prune
from entropy_vision.text import word_tokenizer
from tests.small_policy import WORDS, noise_frames

MARKS = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
IMAGE, VIDEO = (f"{MARKS[0]}{pad}{MARKS[1]}" for pad in MARKS[2:])
WINDOW = 2  # units along the side of a window


def _tokenizer() -> Any:
    tokenizer = word_tokenizer(WORDS)
    tokenizer.add_special_tokens({"additional_special_tokens": list(MARKS)})
    tokenizer.padding_side = "left"
    return tokenizer


def _model(kind: str) -> tuple[Any, Any]:
    """A random model, every weight away from its initial zero or one, and its real processor."""
    torch.manual_seed(3)
    tokenizer = _tokenizer()
    names = ("vision_start_token_id", "vision_end_token_id", "image_token_id", "video_token_id")
    names = dict(zip(names, tokenizer.convert_tokens_to_ids(list(MARKS)), strict=True))
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "initializer_range": 0.2,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1000.0, "mrope_section": [2, 1, 1]},
    }
    vision = {"depth": 3, "hidden_size": 32, "intermediate_size": 48, "num_heads": 4, "out_hidden_size": 32}
    if kind == "qwen2_5_vl":
        vision |= {"patch_size": 14, "window_size": 14 * 2 * WINDOW, "fullatt_block_indexes": [1]}
        config = Qwen2_5_VLConfig(text_config=text, vision_config=vision, **names)
        model = Qwen2_5_VLForConditionalGeneration(config)
        make, video, side = Qwen2_5_VLProcessor, Qwen2VLVideoProcessor, 14
    else:
        vision |= {"patch_size": 16, "num_position_embeddings": 25, "deepstack_visual_indexes": [0, 1]}
        text |= {"head_dim": 8}
        text["rope_parameters"] |= {"mrope_interleaved": True}
        model = Qwen3VLForConditionalGeneration(Qwen3VLConfig(text_config=text, vision_config=vision, **names))
        make, video, side = Qwen3VLProcessor, Qwen3VLVideoProcessor, 16
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "visual" in name:
                parameter.add_(0.2 * torch.randn_like(parameter))
    small = {"patch_size": side, "size": {"shortest_edge": 4 * side * side, "longest_edge": 10**6}}
    processor = make(
        image_processor=Qwen2VLImageProcessor(**small),
        tokenizer=tokenizer,
        video_processor=video(**small, do_sample_frames=False),
    )
    return model.eval(), processor


@pytest.fixture(scope="module", params=["qwen2_5_vl", "qwen3_vl"])
def qwen(request: pytest.FixtureRequest) -> tuple[Any, Any]:
    return _model(request.param)


def _asked(processor: Any) -> dict[str, Any]:
    """Two prompts of different lengths: pictures of different sizes and a video, some in one prompt."""
    unit = 2 * processor.image_processor.patch_size
    pictures = [noise_frames(0, size=5 * unit).pixels[0][: 3 * unit], noise_frames(1, size=2 * unit).pixels[0]]
    video = noise_frames(2, frames=6, size=3 * unit).pixels
    text = [f"is {IMAGE} red or {VIDEO} blue ?", f"how many {IMAGE} ?"]
    return {"text": text, "images": [[one] for one in pictures], "videos": [video], "padding": True}


def _mixed(qwen: tuple[Any, Any], **budget: Any) -> tuple[Any, Any, PrunedVL]:
    model, processor = qwen
    asked = _asked(processor)
    dense = processor(return_tensors="pt", **asked)
    pruned = prune(model, processor, **budget)
    return dense, pruned.inputs(**asked), pruned


def test_with_every_unit_it_is_transformers_own(qwen: tuple[Any, Any]) -> None:
    model, _ = qwen
    dense, inputs, pruned = _mixed(qwen, keep=1.0)
    assert torch.equal(dense["input_ids"], inputs["input_ids"]) and (inputs["attention_mask"][1, 0] == 0).all()
    live = dense["attention_mask"].bool()
    with torch.no_grad():
        theirs, mine = model(**dense).logits[live], pruned(**inputs).logits[live]
    kind = model.config.model_type
    assert _difference(f"{kind}, every unit", mine, theirs) < 1e-4 and theirs.std() > 0.1
    options = {"max_new_tokens": 12, "do_sample": False}
    said = model.generate(**dense, **options)
    assert len({tuple(row) for row in said[:, dense["input_ids"].shape[1] :].tolist()}) == 2
    assert pruned.generate(**inputs, **options).tolist() == said.tolist()


def _difference(what: str, mine: Tensor, theirs: Tensor) -> float:
    """The largest difference of a logit; printed for `-s`."""
    largest = float((mine - theirs).abs().max())
    print(f"{what}: {largest:.1e}, logits of deviation {float(theirs.std()):.2f}")
    return largest


def _segments(grid: Tensor, windows: bool) -> Tensor:
    """int64 [patches], which patches a patch of the dense tower sees, by hand: those of its window or frame."""
    found: list[int] = []
    known: dict[tuple[int, ...], int] = {}
    for number, (frames, rows, columns) in enumerate(grid.tolist()):
        for frame in range(frames):
            for row in range(rows // 2):
                for column in range(columns // 2):
                    key = (number, frame, row // WINDOW, column // WINDOW) if windows else (number, frame)
                    found += [known.setdefault(key, len(known))] * 4
    return torch.tensor(found)


def _masked_tower(visual: Any, pixels: Tensor, grid: Tensor, mask: Tensor) -> tuple[Tensor, list[Tensor]]:
    """The dense tower, one full attention matrix a block in which nobody sees a dropped unit: tokens, DeepStack."""
    from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import apply_rotary_pos_emb_vision
    from transformers.vision_utils import get_vision_interpolation_indices_and_weights, get_vision_position_ids

    hidden = visual.patch_embed(pixels)
    if hasattr(visual, "pos_embed"):
        index, weights = get_vision_interpolation_indices_and_weights(
            grid, visual.num_grid_per_side, "bilinear", align_corners=True, spatial_merge_size=2
        )
        hidden = hidden + (visual.pos_embed(index) * weights[..., None]).sum(1)
    cos, sin = visual.rotary_pos_emb(hidden, get_vision_position_ids(grid, 2))
    seen = mask.repeat_interleave(4)
    deep = []
    for number, block in enumerate(visual.blocks):
        windows = hasattr(visual, "fullatt_block_indexes") and number not in visual.fullatt_block_indexes
        segment = _segments(grid, windows)
        sees = (segment[:, None] == segment) & (seen | torch.eye(len(seen), dtype=torch.bool))
        heads = block.attn.num_heads
        q, k, v = block.attn.qkv(block.norm1(hidden)).view(len(hidden), 3, heads, -1).unbind(1)
        q, k = apply_rotary_pos_emb_vision(q, k, cos, sin)
        q, k, v = (one.transpose(0, 1)[None] for one in (q, k, v))
        mixed = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=sees)
        hidden = hidden + block.attn.proj(mixed[0].transpose(0, 1).flatten(1))
        hidden = hidden + block.mlp(block.norm2(hidden))
        if number in getattr(visual, "deepstack_visual_indexes", ()):
            place = visual.deepstack_visual_indexes.index(number)
            deep.append(visual.deepstack_merger_list[place](hidden))
    return visual.merger(hidden), deep


def test_with_fewer_units_it_is_the_masked_dense_forward(qwen: tuple[Any, Any]) -> None:
    model, _ = qwen
    dense, inputs, pruned = _mixed(qwen, keep=0.3)
    kept, ids = inputs["kept"], dense["input_ids"]
    assert kept["video"].mask.sum() == round(0.3 * 27) and kept["image"].mask.sum() == round(0.3 * 15) + 1
    body = model.model
    with torch.no_grad():
        embeds, live, deep = model.get_input_embeddings()(ids), dense["attention_mask"].clone(), []
        for name, key in (("image", "pixel_values"), ("video", "pixel_values_videos")):
            tokens, more = _masked_tower(body.visual, dense[key], dense[f"{name}_grid_thw"], kept[name].mask)
            holes = ids == getattr(model.config, f"{name}_token_id")
            embeds = embeds.masked_scatter(holes[..., None], tokens)
            live[holes] = kept[name].mask.long()
            deep.append([torch.zeros_like(embeds).masked_scatter(holes[..., None], one) for one in more])
        given = ("image_grid_thw", "video_grid_thw", "second_per_grid_ts")
        grids = {name: dense[name] for name in given if name in dense}
        mask, types = dense["attention_mask"], dense["mm_token_type_ids"]
        positions, _ = body.get_rope_index(ids, mm_token_type_ids=types, attention_mask=mask, **grids)
        extra = {}
        if deep[0]:
            everywhere = torch.ones_like(ids, dtype=torch.bool)
            summed = [(one + other)[everywhere] for one, other in zip(*deep, strict=True)]
            extra = {"visual_pos_masks": everywhere, "deepstack_visual_embeds": summed}
        hidden = body.language_model(inputs_embeds=embeds, attention_mask=live, position_ids=positions, **extra)
        theirs = model.lm_head(hidden.last_hidden_state)[live.bool()]
        mine = pruned(**inputs).logits[inputs["attention_mask"].bool()]
    assert len(mine) < 0.65 * int(mask.sum())
    assert _difference(f"{model.config.model_type}, keep 0.3", mine, theirs) < 1e-4


def test_rows_answer_as_each_does_alone_and_with_a_cache_as_without(qwen: tuple[Any, Any]) -> None:
    _, inputs, pruned = _mixed(qwen, keep=0.3)
    visual = [pruned.model.config.image_token_id, pruned.model.config.video_token_id]
    options = {"max_new_tokens": 8, "do_sample": False, "suppress_tokens": visual}
    together = pruned.generate(**inputs, **options)[:, inputs["input_ids"].shape[1] :]
    asked = _asked(pruned.processor)
    for row, videos in enumerate((asked["videos"], None)):
        alone = pruned.inputs(text=[asked["text"][row]], images=asked["images"][row], videos=videos)
        out = pruned.generate(**alone, **options)
        said = out[0, alone["input_ids"].shape[1] :]
        assert together[row, : len(said)].tolist() == said.tolist()
        whole = dict(alone)
        more = len(said)
        whole["input_ids"], whole["attention_mask"] = out, torch.ones_like(out)
        steps = alone["position_ids"][..., -1:] + 1 + torch.arange(more)
        whole["position_ids"] = torch.cat((alone["position_ids"], steps), dim=-1)
        with torch.no_grad():
            logits = pruned(**whole).logits[0, -more - 1 : -1]
        logits[:, visual] = -torch.inf
        assert logits.argmax(-1).tolist() == said.tolist()


def test_several_samples_of_rows_share_their_pictures(qwen: tuple[Any, Any]) -> None:
    _, inputs, pruned = _mixed(qwen, budget=Budget(tokens=3))
    alone = pruned.generate(**inputs, max_new_tokens=5, do_sample=False)
    several = pruned.generate(**inputs, max_new_tokens=5, num_beams=1, num_return_sequences=2, do_sample=True, top_k=1)
    assert several[::2].tolist() == several[1::2].tolist() == alone.tolist()


def test_pixels_of_the_processor_are_the_frames_again(qwen: tuple[Any, Any]) -> None:
    model, processor = qwen
    dense = processor(return_tensors="pt", **_asked(processor))
    source, vision = processor.video_processor, model.config.vision_config
    frames = frames_of(
        dense["pixel_values_videos"], dense["video_grid_thw"][0].tolist(), vision, source.image_mean, source.image_std
    )
    assert np.array_equal(frames, _asked(processor)["videos"][0])


def test_what_moves_is_kept(qwen: tuple[Any, Any]) -> None:
    """A square that moves over a still ground: its units are kept behind the first frames, and no other."""
    model, processor = qwen
    unit = 2 * processor.image_processor.patch_size
    ground = np.random.default_rng(0).integers(90, 110, (4 * unit, 4 * unit, 3), dtype=np.uint8)
    video = np.repeat(ground[None], 8, axis=0)
    for frame in range(8):
        column = frame // 2
        video[frame, unit : 2 * unit, column * unit : (column + 1) * unit] = [250, 20, 20]
    pruned = prune(model, processor, budget=Budget(tokens=22))
    mask = pruned.inputs(text=[VIDEO], videos=[video])["kept"]["video"].mask.view(4, 4, 4)
    for number in range(1, 4):
        assert mask[number, 1, number] and not mask[number, 3].any()


def test_gradients_reach_the_tower(qwen: tuple[Any, Any]) -> None:
    model, _ = qwen
    _, inputs, pruned = _mixed(qwen, keep=0.3)
    labels = inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, -100)
    pruned(**inputs, labels=labels).loss.backward()
    assert all(p.grad.abs().sum() > 0 for n, p in model.named_parameters() if "visual" in n and "qkv.bias" not in n)
    model.zero_grad()


def test_wrong_use_is_told(qwen: tuple[Any, Any]) -> None:
    model, processor = qwen
    with pytest.raises(UsageError, match="takes models of qwen2_5_vl and qwen3_vl, got 'Linear'"):
        prune(torch.nn.Linear(1, 1), processor)
    with pytest.raises(UsageError, match="keep or budget, not both"):
        prune(model, processor, keep=0.5, budget=Budget(tokens=3))
    with pytest.raises(UsageError, match="counts units, not FLOPs"):
        prune(model, processor, budget=Budget(flops=1e12))
    dense = processor(return_tensors="pt", **_asked(processor))
    half, same = prune(model, processor).select(dense, 0.5), prune(model, processor, keep=0.5).select(dense)
    assert torch.equal(half["input_ids"], same["input_ids"])  # a number is a share
    dense["input_ids"] = dense["input_ids"][:, 20:]
    dense["attention_mask"] = dense["attention_mask"][:, 20:]
    with pytest.raises(UsageError, match=r"placeholders for \d+ units"):
        prune(model, processor).select(dense)
