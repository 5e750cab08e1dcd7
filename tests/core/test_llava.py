"""LLaVA checkpoints: transformers' own logits with every patch, its masked forward with fewer."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import media
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from transformers import (
    AutoModelForImageTextToText,
    AutoProcessor,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    PreTrainedTokenizerFast,
    Qwen2Config,
    SiglipVisionConfig,
)

from entropy_vision import Budget, EntropyTokenizer, EntropyVLM, EntropyVLMProcessor, Frames, UsageError
from entropy_vision.bench import read_videos, run_bench
from entropy_vision.cost import count_flops
from entropy_vision.grid import unpatchify
from entropy_vision.options import BenchOptions
from entropy_vision.packed import PackedPatches
from entropy_vision.policy_config import EntropyVLMConfig
from entropy_vision.policy_cost import policy_flops
from entropy_vision.policy_parts import Parts
from entropy_vision.text import IMAGE, token_id, word_tokenizer
from tests.oracles_encoder import same
from tests.small_policy import WORDS, noise_frames

VIDEO = "<video>"
MEAN, STD = [0.48, 0.46, 0.41], [0.27, 0.26, 0.28]
TOWER = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4, "patch_size": 8}
DECODER = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.2,
    "bos_token_id": None,
}


def _save(
    folder: Path, kind: str, side: int = 40, tokenizer: PreTrainedTokenizerFast | None = None
) -> tuple[Any, PreTrainedTokenizerFast]:
    """A random checkpoint as transformers writes it; every weight is away from its initial zero or one."""
    torch.manual_seed(1)
    tokenizer = tokenizer or word_tokenizer([*WORDS, VIDEO])
    text = DECODER | {
        "vocab_size": len(tokenizer) + 3,  # as published ones, the table is larger than the vocabulary
        "pad_token_id": tokenizer.pad_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
    image, video = token_id(tokenizer, IMAGE), token_id(tokenizer, VIDEO)
    if kind == "llava":
        tower = CLIPVisionConfig(**TOWER, image_size=side, num_hidden_layers=3, projection_dim=16)
        config = LlavaConfig(
            vision_config=tower,
            text_config=LlamaConfig(**text),
            image_token_index=image,
            image_seq_length=(side // 8) ** 2,
        )
        model = LlavaForConditionalGeneration(config)
    else:
        tower = SiglipVisionConfig(**TOWER, image_size=side, num_hidden_layers=2, vision_use_head=False)
        words = Qwen2Config(**text, tie_word_embeddings=True)
        config = LlavaOnevisionConfig(
            vision_config=tower,
            text_config=words,
            image_token_index=image,
            video_token_index=video,
            image_grid_pinpoints=[[side, side]],
        )
        model = LlavaOnevisionForConditionalGeneration(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "vision_tower" in name or "projector" in name or "newline" in name:
                parameter.add_(0.2 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(f'{{"image_mean": {MEAN}, "image_std": {STD}}}')
    return model.eval(), tokenizer


def _normalised(frames: Frames) -> Tensor:
    """float [F, 3, H, W], as transformers' image processor gives it."""
    pixels = torch.from_numpy(frames.pixels).permute(0, 3, 1, 2).float() / 255
    return (pixels - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


def _both(folder: Path) -> tuple[EntropyVLM, EntropyVLMProcessor]:
    return EntropyVLM.from_llava(folder), EntropyVLMProcessor.from_llava(folder)


def _difference(what: str, model: EntropyVLM, mine: Tensor, theirs: Tensor) -> float:
    """The largest difference of a logit that can be sampled; printed for `-s`."""
    allowed = ~model.blocked
    largest = float((mine[..., allowed] - theirs.float()[..., allowed]).abs().max())
    print(f"{what}: {largest:.1e}, logits of deviation {float(theirs.std()):.2f}")
    return largest


@pytest.fixture(scope="module")
def llava(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    folder = tmp_path_factory.mktemp("llava")
    return folder, _save(folder, "llava")[0]


@pytest.fixture(scope="module", params=[40, 32])  # a side of 5 patches is pooled to 3, one of 4 to 2
def onevision(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    folder = tmp_path_factory.mktemp(f"onevision{request.param}")
    return folder, _save(folder, "onevision", request.param)[0]


@pytest.mark.parametrize("side", [40, 44])  # of 44 pixels the last four belong to no whole patch
def test_llava_with_every_patch_is_transformers_own(side: int, llava: tuple[Path, Any], tmp_path: Path) -> None:
    folder, theirs = llava if side == 40 else (tmp_path, _save(tmp_path, "llava", side)[0])
    model, processor = _both(folder)
    pictures = [noise_frames(seed, size=side) for seed in (0, 1, 2)]
    texts = ["is <image> red or <image> ?", "how many circle <image> ?"]
    inputs = processor(text=texts, images=pictures, budget=1.0)
    pixels = torch.cat([_normalised(one) for one in pictures])
    asked = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    with torch.no_grad():
        mine, dense = model(**inputs).logits, theirs(**asked, pixel_values=pixels).logits
    seen = inputs["attention_mask"].bool()
    assert _difference("llava, every patch", model, mine[seen], dense[seen]) < 1e-4 and dense.std() > 0.1
    suppress = model.blocked.nonzero()[:, 0].tolist()  # ours never says its placeholder
    said = theirs.generate(**asked, pixel_values=pixels, max_new_tokens=12, do_sample=False, suppress_tokens=suppress)
    assert model.generate(**inputs, max_new_tokens=12, do_sample=False).tolist() == said.tolist()


def _masked_tower(theirs: Any, pixels: Tensor, mask: np.ndarray, layer: int) -> Tensor:
    """float [F, places, D]: transformers' dense tower, a mask hiding the patches that were dropped."""
    tower = theirs.model.vision_tower
    opening = int(hasattr(tower.embeddings, "class_embedding"))
    hidden = tower.embeddings(pixels)
    if opening:
        hidden = tower.pre_layrnorm(hidden)
    hides = torch.zeros(len(pixels), 1, 1, hidden.shape[1])
    hides[:, 0, 0, opening:][~torch.from_numpy(mask).flatten(1)] = -torch.inf
    count = len(tower.encoder.layers) + 1 + layer
    for block in tower.encoder.layers[:count]:
        hidden = block(hidden, attention_mask=hides.expand(-1, -1, hidden.shape[1], -1))
    return hidden[:, opening:]


def test_llava_with_fewer_patches_is_its_masked_dense_forward(llava: tuple[Path, Any]) -> None:
    folder, theirs = llava
    model, processor = _both(folder)
    picture = noise_frames(3, size=40)
    dense, few = (processor(text="is <image> red ?", images=picture, budget=b) for b in (1.0, Budget(tokens=9)))
    mask = processor.select(picture, Budget(tokens=9)).mask
    with torch.no_grad():
        features = theirs.model.multi_modal_projector(_masked_tower(theirs, _normalised(picture), mask, -2))
        ids = dense["input_ids"]
        holes = ids == processor.image_token_id
        embeds = theirs.get_input_embeddings()(ids).masked_scatter(holes[..., None], features)
        live = torch.ones_like(ids)
        live[holes] = torch.from_numpy(mask).flatten().long()
        positions = torch.arange(ids.shape[1])[None]
        logits = theirs(inputs_embeds=embeds, attention_mask=live, position_ids=positions).logits
        mine = model(**few).logits
    assert mine.shape[1] == int(live.sum()) == ids.shape[1] - 16
    assert _difference("llava, 9 of 25 patches", model, mine, logits[live.bool()][None]) < 1e-4
    # and with a cache, token by token, what one pass says
    said = model.generate(**few, max_new_tokens=6, do_sample=False)
    with torch.no_grad():
        whole = model(said, patches=few["patches"]).logits[0, -7:-1]
    assert said[0, -6:].tolist() == whole.argmax(-1).tolist()


def test_onevision_pictures_and_video_are_transformers_own(onevision: tuple[Path, Any]) -> None:
    _is_onevision(*onevision)


def test_onevision_passes_over_what_no_whole_patch_covers(tmp_path: Path) -> None:
    """As the published one does: 384 pixels, patches of 14. Pictures of other sizes are resized as there, then cut."""
    theirs, _ = _save(tmp_path, "onevision", 44)
    _is_onevision(tmp_path, theirs)
    with pytest.raises(UsageError, match="no option 'keeep'"):
        EntropyVLMProcessor.from_llava(tmp_path, keeep=0.5)
    processor = EntropyVLMProcessor.from_llava(tmp_path)
    assert (processor.image_size, processor.scaled, processor.placeholders(budget=1.0)) == ([40, 40], (44, 44), 26)
    large = noise_frames(1, size=90)
    resized = np.asarray(Image.fromarray(large.pixels[0]).resize((44, 44), Image.Resampling.BICUBIC))
    shown = processor(text="<image> ?", images=large, budget=1.0)["patches"]
    assert np.array_equal(unpatchify(shown.pixels.numpy().reshape(1, 5, 5, 8, 8, 3))[0], resized[:40, :40])
    model = EntropyVLM.from_llava(tmp_path)
    config = EntropyVLMConfig.from_dict(model.config.to_dict() | {"reduction": {"kind": "evs-features", "keep": 0.5}})
    with pytest.raises(UsageError, match="leave the policy's reduction out"):
        EntropyVLM(config, Parts(model.encoder, model.projector, model.language))
    model.save_pretrained(tmp_path / "mine")
    processor.save_pretrained(tmp_path / "mine")
    assert AutoProcessor.from_pretrained(tmp_path / "mine").scaled == (44, 44)
    assert EntropyVLMProcessor.for_model(model, processor.tokenizer).scaled == (44, 44)


def _is_onevision(folder: Path, theirs: Any) -> None:
    side = theirs.config.vision_config.image_size
    model, processor = _both(folder)
    pictures = [noise_frames(seed, size=side) for seed in (4, 5)]
    video = noise_frames(6, frames=3, size=side)
    inputs = processor(text="<image> is <video> red <image> ?", images=pictures, videos=video, budget=1.0)
    ids = inputs["input_ids"].clone()
    area, pooled = (side // 8) ** 2, (-(-(side // 8) // 2)) ** 2
    holes = (ids[0] == processor.image_token_id).nonzero()[:, 0]
    assert len(holes) == 2 * (area + 1) + 3 * pooled + 1
    ids[0, holes[area + 1 : area + 1 + 3 * pooled + 1]] = theirs.config.video_token_index
    asked = {
        "input_ids": ids,
        "attention_mask": inputs["attention_mask"],
        "pixel_values": torch.stack([_normalised(one) for one in pictures]),
        "image_sizes": torch.tensor([[side, side]] * 2),
        "batch_num_images": torch.tensor([2]),
        "pixel_values_videos": _normalised(video)[None],
    }
    with torch.no_grad():
        mine, dense = model(**inputs).logits, theirs(**asked).logits
    assert _difference("onevision, every patch", model, mine, dense) < 1e-4 and dense.std() > 0.1
    suppress = model.blocked.nonzero()[:, 0].tolist()
    said = theirs.generate(**asked, max_new_tokens=10, do_sample=False, suppress_tokens=suppress)[:, ids.shape[1] :]
    assert model.generate(**inputs, max_new_tokens=10, do_sample=False)[:, ids.shape[1] :].tolist() == said.tolist()


def test_onevision_keeps_units_of_a_video(onevision: tuple[Path, Any]) -> None:
    """The kept units are pooled from the tower's masked forward and stand where they stand among all."""
    folder, theirs = onevision
    side = theirs.config.vision_config.image_size
    model, processor = _both(folder)
    video, budget = noise_frames(7, frames=3, size=side), Budget(tokens=5)
    few = processor(text="is <video> red ?", videos=video, budget=budget)
    assert processor.placeholders(3, budget) == 6 == int((few["input_ids"] == processor.image_token_id).sum())
    kept = processor.select(video, budget)
    slots = model.slots(few["patches"])
    with torch.no_grad():
        body = theirs.model
        tokens = _masked_tower(theirs, _normalised(video), kept.mask, -1)
        pooled = body.apply_pooling(body.multi_modal_projector(tokens)).flatten(0, 1)
        expected = torch.cat((pooled[slots.ranks[:-1]], body.image_newline[None]))
        assert torch.allclose(model.embed_patches(few["patches"]), expected, atol=1e-5)
    assert slots.totals == (len(pooled) + 1,) and slots.ranks[-1] == len(pooled)
    positions = model.positions(few["input_ids"], None, few["patches"])[0]
    assert positions.tolist() == [0, *(slots.ranks + 1).tolist(), len(pooled) + 2, len(pooled) + 3]


def test_comes_back_through_the_auto_classes(onevision: tuple[Path, Any], tmp_path: Path) -> None:
    model, processor = _both(onevision[0])
    side = model.encoder.image_size[0]
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    again, loaded = (
        AutoModelForImageTextToText.from_pretrained(tmp_path).eval(),
        AutoProcessor.from_pretrained(tmp_path),
    )
    ask = {"text": "<image> is <video> ?", "images": noise_frames(8, size=side), "videos": noise_frames(9, 2, side)}
    inputs, same = processor(**ask), loaded(**ask)
    assert torch.equal(inputs["input_ids"], same["input_ids"])
    with torch.no_grad():
        assert torch.equal(model(**inputs).logits, again(**same).logits)


@pytest.mark.parametrize("kind", ["llava", "onevision"])
def test_bench_tells_what_a_tower_of_transformers_costs(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _save(tmp_path / "theirs", kind)
    model = EntropyVLM.from_llava(tmp_path / "theirs")
    model.save_pretrained(tmp_path / "ours")
    (tmp_path / "videos").mkdir()
    media.write(tmp_path / "videos" / "a.mp4", media.drifting(6, 64, 64))
    asked = BenchOptions(
        checkpoint=tmp_path / "ours", videos=tmp_path / "videos", keep=(0.25,), selectors=("rate",), repeats=1, frames=3
    )
    dense, kept = run_bench(asked)["rows"]
    side = model.encoder.image_size[0]
    frames = read_videos(tmp_path / "videos", 3, (side, side)).frames
    for row in (dense, kept):
        packed = PackedPatches.pack([EntropyTokenizer(patch_size=8, keep=row["keep"])(one) for one in frames])
        bill = policy_flops(model, packed, prompt=1, answer=1)
        counted = sum(count_flops(partial(model.encoder.encode, packed)).values())
        assert row["flops"] == counted == bill["embed"] + bill["tower"]
        assert row["tokens"] == len(packed) and row["accuracy"] is None
    assert dense["flops_ratio"] == 1.0 < kept["flops_ratio"]
    assert "no accuracy" in capsys.readouterr().err


def test_reading_in_steps_is_the_forward_pass(llava: tuple[Path, Any]) -> None:
    model, processor = _both(llava[0])
    inputs = processor(text="<image> is red ?", images=noise_frames(10, size=40))
    count = inputs["patches"].counts[0]
    text = inputs["input_ids"][:, count:]
    with torch.no_grad():
        whole = model(**inputs).logits[:, count:]
        stepped, _ = model.read(model.read_patches(inputs["patches"]), text, torch.ones_like(text, dtype=torch.bool))
    assert torch.allclose(whole[..., ~model.blocked], stepped[..., ~model.blocked], atol=1e-5)


def test_other_precisions_come_from_the_checkpoint(llava: tuple[Path, Any]) -> None:
    model, processor = _both(llava[0])
    half = EntropyVLM.from_llava(llava[0], dtype="bfloat16")
    assert {p.dtype for p in half.parameters()} == {torch.bfloat16} and half.config.dtype == torch.bfloat16
    inputs = processor(text="is <image> red ?", images=noise_frames(11, size=40))
    with torch.no_grad():
        exact, rough = model(**inputs).logits[..., ~model.blocked], half(**inputs).logits[..., ~model.blocked]
    assert (exact - rough).abs().mean() < 0.1


def test_a_pack_is_what_each_input_is_alone_and_gradients_agree(onevision: tuple[Path, Any]) -> None:
    model, processor = _both(onevision[0])
    side = model.encoder.image_size[0]
    frames = [noise_frames(12, size=side), noise_frames(13, 3, side), noise_frames(14, 2, side)]
    sets = [processor.select(one, Budget(tokens=n)) for one, n in zip(frames, (7, 4, 5), strict=True)]

    def run(packs: list[PackedPatches]) -> tuple[Tensor, Tensor]:
        model.zero_grad()
        tokens = torch.cat([model.encoder.encode(pack) for pack in packs])
        (tokens * torch.arange(tokens.numel()).view_as(tokens).sin()).sum().backward()
        weight = model.encoder.tower.embeddings.patch_embedding.weight
        return tokens.detach(), weight.grad.clone()

    together = run([PackedPatches.pack(sets)])
    alone = run([PackedPatches.pack([one]) for one in sets])
    same(together[0], alone[0])
    assert torch.allclose(together[1], alone[1], atol=1e-4)


def test_tokens_pruned_behind_the_tower_are_its_dense_forward_without_them(llava: tuple[Path, Any]) -> None:
    """transformers' own decoder over all tokens of a video, those that are pruned hidden from it."""
    folder, theirs = llava
    model, processor = _both(folder)
    video = noise_frames(4, frames=2, size=40)
    ids = processor(text="is <video> red ?", videos=video, budget=1.0)["input_ids"]
    model.config.reduction = processor.reduction = {"kind": "evs-features", "keep": 0.6}
    few = processor(text="is <video> red ?", videos=video, budget=1.0)
    with torch.no_grad():
        mine = model(**few).logits
        tower = _masked_tower(theirs, _normalised(video), np.ones((2, 5, 5), bool), -2)
        alike = torch.nn.functional.cosine_similarity(tower[1], tower[0], dim=-1)
        left = torch.ones(50, dtype=torch.bool)  # the first frame is all new; of the second, the 5 that differ most
        left[25 + alike.argsort()[5:]] = False
        features = theirs.model.multi_modal_projector(tower).flatten(0, 1)
        holes, live = ids == processor.image_token_id, torch.ones_like(ids)
        live[holes] = left.long()
        embeds = theirs.get_input_embeddings()(ids).masked_scatter(holes[..., None], features)
        places = torch.arange(ids.shape[1])[None]
        dense = theirs(inputs_embeds=embeds, attention_mask=live, position_ids=places).logits[live.bool()]
    assert mine.shape[1] == len(dense) == ids.shape[1] - 20
    assert _difference("llava, 30 of 50 tokens behind the tower", model, mine[0], dense) < 1e-4
    model.config.reduction = {"kind": "tome", "keep": 0.6}
    with pytest.raises(UsageError, match=r"merges in towers of open_clip only: take evs-features"):
        model.embed_patches(few["patches"])


def test_tokens_that_are_pooled_are_not_pruned(onevision: tuple[Path, Any]) -> None:
    model, processor = _both(onevision[0])
    patches = processor(text="<image> ?", images=noise_frames(5, size=processor.image_size[0]))["patches"]
    model.config.reduction = {"kind": "evs-features", "keep": 0.5}
    with pytest.raises(UsageError, match="pools four tokens of a video into one: leave the policy's reduction out"):
        model.look(patches)


def test_merged_patches_stand_between_the_rows_of_what_they_show(llava: tuple[Path, Any]) -> None:
    """A tower of another grid, too: transformers' own interpolation."""
    model, _ = _both(llava[0])
    frames = Frames(pixels=np.full((1, 48, 48, 3), 90, np.uint8), pts_seconds=np.zeros(1))
    merged = EntropyTokenizer(8, budget=Budget(tokens=9), merge=2)(frames)
    assert merged.spans is not None and (merged.spans == 2).all()
    packed = PackedPatches.pack([merged])
    hidden, layout = model.encoder.embed(packed), packed.layout
    tower = llava[1].model.vision_tower
    with torch.no_grad():
        dense = tower.embeddings(_normalised(frames), interpolate_pos_encoding=True)[0, 1:].view(3, 2, 3, 2, -1)
        expected = tower.pre_layrnorm(dense.mean(dim=(1, 3)).flatten(0, 1))
    assert torch.allclose(hidden[layout.patch_rows], expected, atol=1e-5)


def test_what_is_no_such_checkpoint_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no LLaVA checkpoint"):
        EntropyVLM.from_llava(tmp_path)
    with pytest.raises(UsageError, match="of no EntropyVLM"):
        EntropyVLM(EntropyVLMConfig())
    LlamaConfig(**DECODER).save_pretrained(tmp_path)
    with pytest.raises(UsageError, match="a checkpoint of 'llama'; from_llava reads those of llava and"):
        EntropyVLM.from_llava(tmp_path)
    for change, said in [
        ({"vision_feature_layer": [-2, -3]}, "features of several layers"),
        ({"vision_feature_select_strategy": "full"}, "features 'full' of a 'clip_vision_model' tower"),
    ]:
        parts = {"vision_config": CLIPVisionConfig(**TOWER), "text_config": LlamaConfig(**DECODER)}
        LlavaConfig(**parts, **change).save_pretrained(tmp_path)
        with pytest.raises(UsageError, match=said):
            EntropyVLM.from_llava(tmp_path)
