"""What is loaded is what was saved, or a line says why not."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from small_tower import FAMILIES
from transformers import AutoModelForImageTextToText
from transformers import GenerationConfig as Generation

from entropy_vision import EntropyVLM, InputError, UsageError
from entropy_vision.policy import EntropyVLMConfig
from entropy_vision.policy_parts import Parts
from entropy_vision.projectors import make_projector
from tests.core.test_llava import _save
from tests.small_policy import noise_frames, pack, small_policy


def _with_tower(family: str) -> EntropyVLM:
    """The small policy with a tower of a family instead of its own."""
    plain, _ = small_policy()
    torch.manual_seed(0)
    encoder = FAMILIES[family]()
    settings = plain.config.to_dict() | {"vision": encoder.config}
    config = EntropyVLMConfig(**{k: v for k, v in settings.items() if k not in ("model_type", "transformers_version")})
    return EntropyVLM(config, Parts(encoder, make_projector({}, encoder.width, 32), plain.language)).eval()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_policy_of_every_tower_comes_back(family: str, tmp_path: Path) -> None:
    """Rotations and other buffers that no file holds included."""
    model, patches = _with_tower(family), pack(noise_frames(1, size=32), noise_frames(2, size=32))
    model.save_pretrained(tmp_path)
    again = EntropyVLM.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        assert torch.equal(again.embed_patches(patches), model.embed_patches(patches))


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    small_policy()[0].save_pretrained(tmp_path)
    return tmp_path


def _change(folder: Path, **fields: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    for name, value in fields.items():
        section, _, key = name.partition("__")
        config[section][key] = value
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize("load", [EntropyVLM, AutoModelForImageTextToText])
def test_other_weights_than_the_configuration_describes_are_told(load: Any, saved: Path) -> None:
    """In one line: transformers' table of them does not come before it."""
    said: list[str] = []
    listener = logging.Handler()
    listener.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("transformers").addHandler(listener)
    file = saved / "model.safetensors"
    weights = load_file(file)
    some = {name: tensor for name, tensor in weights.items() if not name.startswith("projector.")}
    save_file(some, file, metadata={"format": "pt"})
    with pytest.raises(UsageError, match=r"other weights than its config.json describes: \d missing \(projector\."):
        load.from_pretrained(saved)
    save_file(weights | {"projector.more.weight": torch.zeros(2)}, file, metadata={"format": "pt"})
    with pytest.raises(UsageError, match=r"1 that the model does not have \(projector\.more\.weight\)"):
        load.from_pretrained(saved)
    save_file(weights, file, metadata={"format": "pt"})
    _change(saved, text__intermediate_size=48)
    with pytest.raises(UsageError, match=r"6 of another shape \(language\.model\.layers\.0\.mlp"):
        load.from_pretrained(saved)
    model, info = load.from_pretrained(saved, ignore_mismatched_sizes=True, output_loading_info=True)
    assert isinstance(model, EntropyVLM) and len(info["mismatched_keys"]) == 6
    _change(saved, text__intermediate_size=64, text__num_hidden_layers=1, text__layer_types=["full_attention"])
    with pytest.raises(UsageError, match=r"that the model does not have \(language\.model\.layers\.1"):
        load.from_pretrained(saved)
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(InputError, match="weights that cannot be read"):
        load.from_pretrained(saved)
    logging.getLogger("transformers").removeHandler(listener)
    assert not said


def test_a_checkpoint_of_another_model_is_told(tmp_path: Path) -> None:
    _save(tmp_path, "llava")
    with pytest.raises(UsageError, match=r"a checkpoint of 'llava', not of 'entropy_vlm': .*from_llava reads it"):
        EntropyVLM.from_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    save_file(
        {k: v for k, v in weights.items() if "multi_modal" not in k},
        tmp_path / "model.safetensors",
        metadata={"format": "pt"},
    )
    with pytest.raises(UsageError, match=r"4 missing \(.*multi_modal_projector"):
        EntropyVLM.from_llava(tmp_path)


def test_maps_are_merged_before_a_policy_is_saved(tmp_path: Path) -> None:
    pytest.importorskip("peft", reason="peft is not installed")
    model, _ = small_policy()
    model.encoder.train_only("lora", rank=2)
    with pytest.raises(UsageError, match=r"call encoder\.merge_lora\(\) first"):
        model.save_pretrained(tmp_path)
    model.encoder.merge_lora()
    model.save_pretrained(tmp_path)
    EntropyVLM.from_pretrained(tmp_path)


@pytest.mark.parametrize("wrong", [None, -1, 10**6, True, "7"])
def test_an_id_that_the_vocabulary_does_not_have_is_told(wrong: Any) -> None:
    """None would block every token: it is what a tokenizer gives for one that it does not have."""
    plain, _ = small_policy()
    for changes in ({"image_token_id": wrong}, {"unsampled_token_ids": [1, wrong]}):
        config = EntropyVLMConfig(
            **{"vision": plain.config.vision, "text": plain.config.text, "image_token_id": 2} | changes
        )
        with pytest.raises(UsageError, match=r"token_ids? must be ids of the vocabulary \(0 to \d+\), got"):
            EntropyVLM(config)


def test_parts_that_exist_keep_their_precision_and_how_they_generate() -> None:
    plain, _ = small_policy()
    language = plain.language.to(torch.bfloat16)
    language.generation_config = Generation(eos_token_id=[3, 4], pad_token_id=0, temperature=0.5, do_sample=True)
    model = EntropyVLM(plain.config, Parts(plain.encoder, plain.projector, language))
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert model.generation_config.eos_token_id == [3, 4] and model.generation_config.temperature == 0.5
    patches = pack(noise_frames(1))
    assert model.read_patches(patches).layers[0][0].dtype == torch.bfloat16
    ids = torch.tensor([[model.config.image_token_id] * len(patches) + [9, 10]])
    assert model.generate(ids, patches=patches, max_new_tokens=2, do_sample=False).shape[1] > ids.shape[1]


def test_a_name_that_is_nearly_an_option_is_told() -> None:
    with pytest.raises(UsageError, match="no 'visual_position'; did you mean 'visual_positions'"):
        EntropyVLMConfig(visual_position="grid")


def test_more_tokens_make_room_in_what_is_never_sampled() -> None:
    model, _ = small_policy()
    blocked, size = model.blocked.clone(), len(model.word_embeddings)
    model.resize_token_embeddings(size + 5)
    assert len(model.word_embeddings) == len(model.blocked) == model.config.get_text_config().vocab_size == size + 5
    assert torch.equal(model.blocked[:size], blocked) and not model.blocked[size:].any()
    patches = pack(noise_frames(1))
    ids = torch.tensor([[model.config.image_token_id] * len(patches) + [9, 10]])
    output = model(ids, patches=patches, labels=ids)
    assert output.logits.shape[-1] == size + 5 and torch.isfinite(output.loss)  # placeholders are not learned


def test_the_attention_that_is_asked_for_reaches_the_decoder(saved: Path) -> None:
    model = EntropyVLM.from_pretrained(saved, attn_implementation="eager")
    assert model.language.config._attn_implementation == "eager"


def test_a_projector_without_such_an_option_is_told() -> None:
    with pytest.raises(UsageError, match="kind 'llava' has no option 'wide'"):
        make_projector({"kind": "llava", "wide": 3}, 8, 8)
    with pytest.raises(UsageError, match="place"):
        make_projector({"kind": "pool"}, 8, 8)
