"""The processor: what users of transformers expect of one, and one placeholder for every kept patch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import TextStreamer

from entropy_vision import Budget, EntropyVLMProcessor, Frames, UsageError
from entropy_vision.policy import EntropyVLM
from entropy_vision.text import IMAGE, token_id
from tests.small_policy import noise_frames, small_policy

DECODERS = ["qwen2", "qwen3", "llama", "smollm3", "mistral"]
POSITIONED = [*((decoder, "grid") for decoder in DECODERS), ("qwen2", "shared"), ("llama", "sequential")]


def _processor(model: EntropyVLM, tokenizer: object, **options: object) -> EntropyVLMProcessor:
    return EntropyVLMProcessor.for_model(model, tokenizer, **options)


def test_marks_become_placeholders_of_the_patches_kept_in_their_order() -> None:
    model, tokenizer = small_policy()
    processor = _processor(model, tokenizer)
    picture, video = noise_frames(0), noise_frames(1, frames=3)
    inputs = processor(text="is <video> left of <image> ?", images=picture, videos=video, budget=Budget(tokens=7))
    kept = processor.select(video, Budget(tokens=7)), processor.select(picture, Budget(tokens=7))
    assert np.array_equal(inputs["patches"].pixels, np.concatenate([one.pixels for one in kept]))
    image = token_id(tokenizer, IMAGE)
    words = [image if one < 0 else one for one in inputs["input_ids"][0].tolist()]
    is_, left, of, mark = (token_id(tokenizer, word) for word in ("is", "left", "of", "?"))
    assert words == [is_, *[image] * 7, left, of, *[image] * 7, mark]


@pytest.mark.parametrize("budget", [None, 0.1, Budget(tokens=11), Budget(keep=1.0)])
def test_count_of_placeholders_is_known_before_decoding(budget: object) -> None:
    model, tokenizer = small_policy()
    processor = _processor(model, tokenizer, keep=0.3)
    for frames in (1, 3):
        kind, mark = ("images", "<image>") if frames == 1 else ("videos", "<video>")
        inputs = processor(text=mark, **{kind: noise_frames(2, frames=frames, size=50)}, budget=budget)
        assert inputs["input_ids"].shape == (1, processor.placeholders(frames, budget))
    assert processor.placeholders(1, Budget(bits=100.0)) is None
    sizes = processor._get_num_multimodal_tokens(image_sizes=[(640, 480)], video_sizes=[(3, 64, 64)])
    assert sizes["num_image_tokens"] == [processor.placeholders()]
    assert sizes["num_video_tokens"] == [processor.placeholders(3)]


@pytest.mark.parametrize(("decoder", "positions"), POSITIONED)
def test_rows_of_one_generate_answer_as_each_does_alone(decoder: str, positions: str) -> None:
    model, tokenizer = small_policy(decoder=decoder, visual_positions=positions)
    processor = _processor(model, tokenizer)
    texts = ["<image> how many red ?", "is <video> the blue <image> left of ?", "how many ?"]
    pictures, videos = [[noise_frames(3)], [noise_frames(4, size=64)], []], [[], [noise_frames(5, frames=2)], []]
    inputs = processor(text=texts, images=pictures, videos=videos, budget=0.2)
    holes = (inputs["input_ids"] == processor.image_token_id).sum(1).tolist()
    assert len(set(holes)) == 3 and (inputs["attention_mask"][:, 0] == 0).any()
    together = model.generate(**inputs, max_new_tokens=6, do_sample=False)[:, inputs["input_ids"].shape[1] :]
    answers = set()
    for row, (text, mine, films) in enumerate(zip(texts, pictures, videos, strict=True)):
        alone = processor(text=text, images=mine, videos=films, budget=0.2)
        out = model.generate(**alone, max_new_tokens=6, do_sample=False)[0, alone["input_ids"].shape[1] :]
        assert together[row, : len(out)].tolist() == out.tolist()
        answers.add(tuple(out.tolist()))
        with torch.no_grad():  # and one forward pass over the whole says the same as the steps with a cache
            whole = torch.cat((alone["input_ids"], out[None]), dim=1)
            logits = model(whole, patches=alone.get("patches")).logits[0, -len(out) - 1 : -1]
        assert logits.argmax(-1).tolist() == out.tolist()
    assert len(answers) > 1


@pytest.mark.parametrize("positions", ["shared", "grid", "sequential"])
def test_padding_changes_no_logit_and_no_position(positions: str) -> None:
    model, tokenizer = small_policy(visual_positions=positions)
    processor = _processor(model, tokenizer)
    texts = ["<image> how many red ?", "is the <image> blue circle left of the red <image> ?"]
    pictures = [[noise_frames(6)], [noise_frames(7), noise_frames(8)]]
    with torch.no_grad():
        both = processor(text=texts, images=pictures)
        padded = model(**both).logits
        places = model.positions(both["input_ids"], both["attention_mask"], both["patches"])
        for row, (text, mine) in enumerate(zip(texts, pictures, strict=True)):
            alone = processor(text=text, images=mine)
            own = model.positions(alone["input_ids"], None, alone["patches"])[0]
            assert places[row].tolist() == [0] * (places.shape[1] - len(own)) + own.tolist()
            logits = model(**alone).logits[0][:, ~model.blocked]
            assert torch.allclose(padded[row, -len(logits) :][:, ~model.blocked], logits, atol=1e-5)


def test_dropped_patches_leave_the_places_of_the_others_alone() -> None:
    """positions="grid": what follows and what is kept stand where they do with every patch there."""
    model, tokenizer = small_policy(visual_positions="grid")
    processor = _processor(model, tokenizer)
    ask = {"text": "is <image> left of <video> ?", "images": noise_frames(9), "videos": noise_frames(10, frames=2)}
    dense, few = processor(**ask, budget=1.0), processor(**ask, budget=0.2)
    full = model.positions(dense["input_ids"], None, dense["patches"])[0]
    assert full.tolist() == list(range(len(full)))
    kept = model.positions(few["input_ids"], None, few["patches"])[0]
    counts, area = few["patches"].counts, 144
    frame, row, column = few["patches"].positions.T
    ranks = frame * area + row * 12 + column
    first, second = ranks[: counts[0]] + 1, ranks[counts[0] :] + 1 + area + 2
    assert kept.tolist() == [0, *first.tolist(), area + 1, area + 2, *second.tolist(), len(full) - 1]


def test_several_pictures_of_a_prompt_stand_apart() -> None:
    model, tokenizer = small_policy()
    processor = _processor(model, tokenizer)
    inputs = processor(
        text="<image> is <image> left ?", images=[noise_frames(0), noise_frames(1)], budget=Budget(tokens=2)
    )
    assert model.positions(inputs["input_ids"])[0].tolist() == [0, 0, 1, 1, 1, 2, 3]


def test_beams_and_samples_share_one_encoding(monkeypatch: pytest.MonkeyPatch) -> None:
    model, tokenizer = small_policy()
    processor = _processor(model, tokenizer)
    inputs = processor(text=["<image> how many ?", "is <image> <image> ?"], images=[noise_frames(i) for i in range(3)])
    calls = []
    encode = model.encoder.encode
    monkeypatch.setattr(model.encoder, "encode", lambda packed: calls.append(1) or encode(packed))
    out = model.generate(**inputs, num_beams=2, num_return_sequences=2, max_new_tokens=4, do_sample=False)
    assert len(out) == 4 and len(calls) == 1
    assert not (out[:, inputs["input_ids"].shape[1] :] == processor.image_token_id).any()


def test_streams_what_it_says(capsys: pytest.CaptureFixture[str]) -> None:
    model, tokenizer = small_policy()
    processor = _processor(model, tokenizer)
    inputs = processor(text="<image> how many red ?", images=noise_frames(11))
    out = model.generate(
        **inputs, max_new_tokens=5, do_sample=False, streamer=TextStreamer(tokenizer, skip_prompt=True)
    )
    said = tokenizer.decode(out[0, inputs["input_ids"].shape[1] :])
    assert said.split() and capsys.readouterr().out.split() == said.split()


def test_chat_template_takes_pictures_and_videos_among_the_text() -> None:
    model, tokenizer = small_policy()
    processor = _processor(model, tokenizer)
    picture, video = noise_frames(12), noise_frames(13, frames=2)
    content = [
        {"type": "video", "video": video},
        {"type": "text", "text": "is the red"},
        {"type": "image", "image": picture},
        {"type": "text", "text": "?"},
    ]
    turn = [{"role": "user", "content": content}]
    chat = processor.apply_chat_template(
        turn, add_generation_prompt=True, tokenize=True, return_dict=True, processor_kwargs={"budget": 0.1}
    )
    plain = processor(text="<video> is the red <image> ? <assistant>", images=picture, videos=video, budget=0.1)
    assert chat["input_ids"].tolist() == plain["input_ids"].tolist()
    assert torch.equal(chat["patches"].pixels, plain["patches"].pixels)
    tokenizer.chat_template = "{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }}{% endfor %}"
    own = _processor(model, tokenizer).apply_chat_template([*turn, {"role": "assistant", "content": "yes"}])
    assert own.replace("\n", " ") == "[user] <video> is the red<image> ?[assistant] yes"


def test_kinds_of_pictures_and_videos_that_are_taken(tmp_path: Path) -> None:
    model, tokenizer = small_policy()
    processor = _processor(model, tokenizer)
    pixels = noise_frames(14, frames=3).pixels
    Image.fromarray(pixels[0]).save(tmp_path / "picture.png")
    same = [
        Image.fromarray(pixels[0]),
        pixels[0],
        str(tmp_path / "picture.png"),
        Frames(pixels=pixels[:1], pts_seconds=np.zeros(1)),
    ]
    found = [processor(text="<image>", images=one)["patches"].pixels for one in same]
    assert all(torch.equal(one, found[0]) for one in found)
    films = [pixels, [Image.fromarray(one) for one in pixels], list(pixels), [pixels]]
    found = [processor(text="<video>", videos=one)["patches"].pixels for one in films]
    assert all(torch.equal(one, found[0]) for one in found)


def test_fits_as_transformers_does() -> None:
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    from entropy_vision.visuals import fitted

    frames = Frames(
        pixels=np.random.default_rng(0).integers(0, 256, (1, 45, 70, 3), dtype=np.uint8), pts_seconds=np.zeros(1)
    )
    plain = {"do_rescale": False, "do_normalize": False, "return_tensors": "np"}
    clip = CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    theirs = clip(Image.fromarray(frames.pixels[0]), **plain)["pixel_values"][0].transpose(1, 2, 0)
    assert np.array_equal(fitted(frames, (32, 32), "crop_bicubic").pixels[0], theirs)
    square = CLIPImageProcessorPil(size={"height": 32, "width": 32}, do_center_crop=False)
    theirs = square(Image.fromarray(frames.pixels[0]), **plain)["pixel_values"][0].transpose(1, 2, 0)
    assert np.array_equal(fitted(frames, (32, 32), "stretch_bicubic").pixels[0], theirs)


def test_wrong_use_is_told_in_one_line() -> None:
    model, tokenizer = small_policy()
    processor = _processor(model, tokenizer)
    cases = [
        ({"text": "how many ?", "images": noise_frames(0)}, r"0 <image> for 1 inputs"),
        ({"text": "<image> <video> ?", "images": noise_frames(0)}, r"1 <video> for 0 inputs"),
        ({"text": "<image>", "images": 3}, r"a picture is a path.*got int"),
        ({"text": "<image>", "images": noise_frames(0, frames=2)}, r"has one frame, got 2"),
        ({"text": "<image>", "images": noise_frames(0), "budget": 1.5}, r"keep=\) must be in \(0, 1\]"),
        ({"images": noise_frames(0)}, r"takes text"),
    ]
    for ask, said in cases:
        with pytest.raises(UsageError, match=said) as caught:
            processor(**ask)
        assert "\n" not in str(caught.value)
    with pytest.raises(UsageError, match="patch_size=8, not 16"):
        _processor(model, tokenizer, patch_size=16)
    with pytest.raises(UsageError, match="no token '<picture>'"):
        EntropyVLMProcessor(tokenizer, image_token="<picture>")
    ids = processor(text="<image> how many ?", images=noise_frames(0))
    with pytest.raises(UsageError, match="pad at the left"):
        model.generate(ids["input_ids"], ids["patches"], attention_mask=torch.tensor([[1] * 38 + [0]]))
    with pytest.raises(UsageError, match="placeholders a row"):
        model.generate(ids["input_ids"][:, 1:], ids["patches"])


def test_an_option_that_the_processor_does_not_have_is_told() -> None:
    model, tokenizer = small_policy()
    with pytest.raises(UsageError, match="no option 'kep'; the nearest is 'keep'"):
        EntropyVLMProcessor.for_model(model, tokenizer, kep=0.5)
    processor, picture = EntropyVLMProcessor.for_model(model, tokenizer), np.zeros((32, 32, 3), np.uint8)
    with pytest.raises(UsageError, match="no option 'bugdet'; the nearest is 'budget'"):
        processor(text="<image> red", images=picture, bugdet=0.5)
    with pytest.raises(UsageError, match="no option 'keeep'; did you mean 'keep'"):
        EntropyVLMProcessor(tokenizer, 8, (96, 96), keeep=0.9)
    square = EntropyVLMProcessor(tokenizer, 8, 96)
    assert square.image_size == [96, 96] and square.placeholders(noise_frames(1, frames=3)) == square.placeholders(3)
    with pytest.raises(UsageError, match="keep or budget, not both"):
        processor(text="<image> red", images=picture, budget=0.5, keep=0.5)
    one, other = (processor(text="<image> red", images=picture, **how) for how in ({"keep": 0.5}, {"budget": 0.5}))
    assert one["input_ids"].tolist() == other["input_ids"].tolist()
    assert len(one["input_ids"][0]) > len(processor(text="<image> red", images=picture)["input_ids"][0])
    short = processor(text="<image> red", images=picture, truncation=True, max_length=5)  # the tokenizer's
    assert short["input_ids"].shape[1] == 5
    with pytest.raises(UsageError, match="empty list"):
        EntropyVLMProcessor.for_model(model, tokenizer)(text=[])


def test_decoder_that_cannot_be_run_is_told() -> None:
    from entropy_vision.policy import EntropyVLMConfig
    from entropy_vision.policy_parts import check_decoder

    with pytest.raises(UsageError, match="no decoder 'qwen22'; the nearest model_type is 'qwen2'"):
        EntropyVLMConfig(text={"model_type": "qwen22"}).get_text_config()
    for kind, said in [
        ("clip", "no causal language model"),
        ("mamba", "layers without attention"),
        ("gemma2", "scales its logits"),
        ("cohere", "scales its logits"),
    ]:
        with pytest.raises(UsageError, match=said):
            check_decoder(EntropyVLMConfig(text={"model_type": kind}).get_text_config())


SCRIPT = """
import sys
import entropy_vision
assert "torch" not in sys.modules
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, AutoProcessor
sys.path.insert(0, sys.argv[2])
from tests.small_policy import noise_frames
processor = AutoProcessor.from_pretrained(sys.argv[1])
model = AutoModelForImageTextToText.from_pretrained(sys.argv[1]).eval()
assert type(AutoModelForCausalLM.from_pretrained(sys.argv[1])) is type(model) is entropy_vision.EntropyVLM
inputs = processor(text="<image> how many red <video> ?", images=noise_frames(20), videos=noise_frames(21, frames=2))
print(model.generate(**inputs, max_new_tokens=8, do_sample=False)[0].tolist())
print(model(**inputs).logits[0, -1][~model.blocked].tolist())
"""


def test_comes_back_through_the_auto_classes_of_a_fresh_process(tmp_path: Path) -> None:
    model, tokenizer = small_policy(seed=2)
    processor = _processor(model, tokenizer, keep=0.2, selector="evs")
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    inputs = processor(
        text="<image> how many red <video> ?", images=noise_frames(20), videos=noise_frames(21, frames=2)
    )
    here = model.generate(**inputs, max_new_tokens=8, do_sample=False)[0].tolist()
    root = str(Path(__file__).parents[2])
    done = subprocess.run([sys.executable, "-c", SCRIPT, str(tmp_path), root], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    there, logits = map(json.loads, done.stdout.strip().splitlines())
    assert there == here
    with torch.no_grad():
        assert logits == pytest.approx(model(**inputs).logits[0, -1][~model.blocked].tolist(), abs=1e-6)
    assert (tmp_path / "model.safetensors").is_file() and not list(tmp_path.glob("*.bin"))
    card = (tmp_path / "README.md").read_text()
    assert "library_name: transformers" in card and "qwen2" in card and "8 x 8 pixels" in card
    (tmp_path / "README.md").write_text("mine")
    model.save_pretrained(tmp_path)
    assert (tmp_path / "README.md").read_text() == "mine"


@pytest.mark.slow
@pytest.mark.parametrize("module", ["hf_vision", "policy_parts", "processor", "text", "llava"])
def test_any_module_may_be_imported_first(module: str) -> None:
    """Each of them loads a registry of transformers before it is finished itself."""
    script = (
        f"import entropy_vision.{module}\n"
        "from transformers import AutoModelForCausalLM\n"
        "from transformers.models.auto.processing_auto import processor_class_from_name\n"
        "from entropy_vision import EntropyVLM, EntropyVLMConfig, EntropyVLMProcessor\n"
        "assert AutoModelForCausalLM._model_mapping[EntropyVLMConfig] is EntropyVLM\n"
        "assert processor_class_from_name('EntropyVLMProcessor') is EntropyVLMProcessor\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
