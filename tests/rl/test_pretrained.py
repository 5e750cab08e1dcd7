"""Training and measuring a policy that was made elsewhere: its own tokenizer, chat template and sizes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import media
import numpy as np
import pytest
import torch
from PIL import Image
from small_chat import VICUNA, bytes_tokenizer, chat_policy, pieces_tokenizer, with_parts
from small_runs import FEW_IMAGES, same, small_recipe, stop_inside, untimed, weights
from tokenizers import AddedToken
from transformers import Qwen2Config, Qwen2ForCausalLM

from entropy_vision import EntropyVLM, EntropyVLMProcessor, UsageError, VisionEncoder, cli
from entropy_vision.dialect import INSTRUCTION, ChatDialect, dialect_of
from entropy_vision.errors import Terminated
from entropy_vision.evaluate import benchmark_source, inputs_shown
from entropy_vision.policy import EntropyVLMConfig
from entropy_vision.policy_parts import Parts
from entropy_vision.projectors import Projector
from entropy_vision.rl.checkpoint import load_model, load_whole, newest
from entropy_vision.rl.metrics import read_metrics
from entropy_vision.rl.recipe import DataRecipe, GrpoRecipe, OptimRecipe, PromptRecipe, SftRecipe
from entropy_vision.rl.rollout import read_questions, sample
from entropy_vision.rl.trainer import Trainer
from entropy_vision.visuals import load_image
from tests.core.test_llava import _save

GRPO = GrpoRecipe(group_size=4, max_new_tokens=32, updates=2, beta=0.05)


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as `save_pretrained` writes it: byte-level BPE, Qwen's turns, random weights."""
    folder = tmp_path_factory.mktemp("pretrained")
    model, processor = chat_policy(bytes_tokenizer(size=1200), "qwen3", scale=0.05)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def warmed(pretrained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """After a short warm-up on four pictures."""
    run = tmp_path_factory.mktemp("warmed") / "sft"
    Trainer(small_recipe("sft", run, steps=100, init=str(pretrained), grpo=GRPO, **FEW_IMAGES)).train()
    return run


@pytest.fixture(scope="module")
def llava(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LLaVA-1.5 checkpoint in half precision, as transformers writes it."""
    folder, tokenizer = tmp_path_factory.mktemp("llava"), pieces_tokenizer(with_parts(VICUNA))
    tokenizer.add_tokens([AddedToken("<video>", special=True, normalized=False)])
    theirs, _ = _save(folder, "llava", tokenizer=tokenizer)
    theirs.half().save_pretrained(folder)
    return folder


def test_a_policy_of_parts_as_documented_is_measured_and_trained(tmp_path: Path) -> None:
    """docs/policy.md: no id of an end stands at the top of its configuration, only in the decoder's."""
    tokenizer = bytes_tokenizer(size=1200)
    end = tokenizer.eos_token_id + 1  # another than the tokenizer's
    language = Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, eos_token_id=end,
        )
    )  # fmt: skip
    encoder = VisionEncoder("ev-tiny-96")
    image = tokenizer.convert_tokens_to_ids("<image>")
    config = EntropyVLMConfig(vision=encoder.config, text=language.config.to_dict(), image_token_id=image)
    model = EntropyVLM(config, Parts(encoder, Projector(encoder.width, language.config.hidden_size), language))
    model.generation_config.eos_token_id = None
    assert end in dialect_of(model, EntropyVLMProcessor.for_model(model, tokenizer)).ends
    model.save_pretrained(tmp_path / "parts")
    EntropyVLMProcessor.for_model(model, tokenizer, keep=0.25).save_pretrained(tmp_path / "parts")
    line = [
        "eval",
        str(tmp_path / "parts"),
        "--tasks",
        "count",
        "--questions",
        "4",
        "--keep",
        "0.5",
        "--selectors",
        "rate",
    ]
    assert cli.main([*line, "--json"]) == 0
    Trainer(
        small_recipe("sft", tmp_path / "run", steps=1, init=str(tmp_path / "parts"), grpo=GRPO, **FEW_IMAGES)
    ).train()


def test_the_warm_up_teaches_form_and_words(warmed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    losses = [m["loss"] for m in read_metrics(warmed)]
    assert losses[-1] < 0.3 * losses[0]
    assert "align_accuracy" not in read_metrics(warmed)[0] or read_metrics(warmed)[0]["align_accuracy"] == 0


def test_grpo_raises_the_reward_and_the_run_is_measured(
    warmed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The form counts as much as the answer: what a few steps can teach."""
    form = {"format_when_wrong": True, "format_weight": 1.0, "format_limit": 1.0}
    grpo = GrpoRecipe(group_size=16, max_new_tokens=32, beta=0.0, **form)  # type: ignore[arg-type]
    few = {**FEW_IMAGES, "optim": OptimRecipe(lr=1e-3, muon_lr=0.006, warmup=2)}
    run = tmp_path / "grpo"
    done = Trainer(small_recipe("grpo", run, steps=16, init=str(warmed), grpo=grpo, **few)).train()
    rewards = [m["reward"] for m in read_metrics(run)]
    print(f"\nreward {np.mean(rewards[:4]):.3f} -> {np.mean(rewards[-4:]):.3f}")
    assert np.mean(rewards[-4:]) > np.mean(rewards[:4]) + 0.05
    assert done["steps"] == 16
    capsys.readouterr()
    line = ["eval", str(run), "--tasks", "count", "direction", "--keep", "0.25", "--selectors", "rate"]
    assert cli.main([*line, "--questions", "4", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["tasks"]["count"]["0.25"]["n"] == 4 and told["blind"]["all"]["n"] == 8


def test_a_run_stopped_inside_a_step_goes_on_bit_for_bit(warmed: Path, tmp_path: Path) -> None:
    recipe = small_recipe("grpo", tmp_path / "whole", steps=3, init=str(warmed), grpo=GRPO, **FEW_IMAGES)
    Trainer(recipe).train()
    cut = Trainer(replace(recipe, out=str(tmp_path / "cut")))
    stop_inside(cut, 1)
    with pytest.raises(Terminated, match="stopped in step 2 after update 1, saved"):
        cut.train()
    Trainer(replace(recipe, out=str(tmp_path / "cut"))).train()
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "cut"))
    assert untimed(tmp_path / "whole") == untimed(tmp_path / "cut")
    before, after = load_model(warmed), load_model(tmp_path / "whole")
    moved = {n.split(".")[0] for n, p in before.named_parameters() if not torch.equal(p, after.get_parameter(n))}
    assert moved == {"encoder", "projector", "language"}


FRESH = """
import sys
import entropy_vision
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor
folder, question = sys.argv[1:3]
model = AutoModelForImageTextToText.from_pretrained(folder).eval()
processor = AutoProcessor.from_pretrained(folder)
content = [{"type": "image", "image": Image.open(sys.argv[3])}, {"type": "text", "text": question}]
inputs = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True,
                                       tokenize=True, return_dict=True, processor_kwargs={"budget": 0.25})
out = model.generate(**inputs, max_new_tokens=32, do_sample=False)
print(processor.decode(out[0, inputs["input_ids"].shape[1]:], skip_special_tokens=True), end="")
"""


def test_a_checkpoint_says_the_same_in_a_fresh_process(warmed: Path, tmp_path: Path) -> None:
    trainer = Trainer(small_recipe("grpo", tmp_path / "run", steps=1, init=str(warmed), grpo=GRPO, **FEW_IMAGES))
    trainer.train()
    model, dialect, batch = trainer.model.eval(), trainer.dialect, trainer.validation()[0]
    assert isinstance(dialect, ChatDialect)
    rollouts = sample(model, dialect, read_questions(model, dialect, batch), temperature=0.0, max_new_tokens=32)
    assert any(not cut for cut in rollouts.truncated.tolist())
    folder = newest(tmp_path / "run")
    scenes = trainer._media("val")[0][0]
    done = next(i for i, cut in enumerate(rollouts.truncated.tolist()) if not cut)
    picture = scenes[int(batch.owner[done])].frames
    assert picture.size == trainer.model.encoder.image_size
    Image.fromarray(picture.pixels[0]).save(tmp_path / "scene.png")
    # the recipe's validation budget is a quarter, the processor is asked for the same
    question = f"{batch.asks[done].question}\n{dialect.wording.instruction}"
    line = [sys.executable, "-c", FRESH, str(folder), question, str(tmp_path / "scene.png")]
    ran = subprocess.run(line, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout == rollouts.texts[done] != ""


def test_a_run_says_how_its_policy_is_asked_and_the_next_asks_the_same(pretrained: Path, tmp_path: Path) -> None:
    few = {**FEW_IMAGES, "steps": 1, "grpo": GRPO}
    prompt = PromptRecipe(system="You see little.", instruction="Use <think> and <answer>.")
    Trainer(small_recipe("sft", tmp_path / "sft", init=str(pretrained), prompt=prompt, **few)).train()
    inputs = load_model(tmp_path / "sft").config.inputs
    assert (inputs["system"], inputs["instruction"]) == ("You see little.", "Use <think> and <answer>.")
    assert inputs["max_new_tokens"] == 32 and inputs["image_size"] == inputs["video_size"] == 96
    second = Trainer(small_recipe("grpo", tmp_path / "grpo", init=str(tmp_path / "sft"), **few))
    assert isinstance(second.dialect, ChatDialect) and second.dialect.wording.system == "You see little."
    first = Trainer(small_recipe("sft", tmp_path / "other", init=str(pretrained), **few))
    assert isinstance(first.dialect, ChatDialect) and first.dialect.wording.instruction == INSTRUCTION
    with pytest.raises(UsageError, match="knows no system message"):
        Trainer(small_recipe("sft", tmp_path / "words", prompt=prompt, **few))


def test_a_completion_of_any_tokenizer_may_have_256_tokens(pretrained: Path, tmp_path: Path) -> None:
    recipe = small_recipe("sft", tmp_path / "sft", init=str(pretrained), **{**FEW_IMAGES, "grpo": GrpoRecipe()})
    trainer = Trainer(recipe)
    assert trainer.context.recipe.grpo.max_new_tokens == trainer.model.config.inputs["max_new_tokens"] == 256


def test_alignment_wants_the_words_as_tokens(
    pretrained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = {**FEW_IMAGES, "init": str(pretrained)}
    with pytest.raises(
        UsageError, match=r'stage = "align" .*lacks \d+ of the World\'s words .*begin with stage = "sft"'
    ):
        Trainer(small_recipe("align", tmp_path / "align", **few))
    Trainer(small_recipe("sft", tmp_path / "sft", **few))
    assert "sft: without alignment" in capsys.readouterr().err
    Trainer(small_recipe("sft", tmp_path / "plain", sft=SftRecipe(align_weight=0.0), **few))
    assert "without alignment" not in capsys.readouterr().err


def test_a_llava_folder_is_trained_as_it_is(llava: Path, tmp_path: Path) -> None:
    """In single precision, at its tower's size, videos too; the run's checkpoint is a policy of this package."""
    data = DataRecipe(image_scenes=2, video_scenes=1, frame_count=4, pool=4, workers=0)
    grpo = replace(GRPO, max_new_tokens=6, updates=1)
    recipe = small_recipe("grpo", tmp_path / "run", steps=2, init=str(llava), data=data, grpo=grpo)
    trainer = Trainer(recipe)
    assert {p.dtype for p in trainer.model.parameters()} == {torch.float32}
    assert {one.frames.size for scenes, _ in trainer._media("train") for one in [scenes[0]]} == {(40, 40)}
    trainer.train()
    model, processor = load_whole(tmp_path / "run")
    assert isinstance(model, EntropyVLM) and model.dtype == torch.float32 and processor.fit == "crop_bicubic"
    assert Trainer(replace(recipe, steps=3)).train()["steps"] == 3


def test_eval_shows_a_policy_what_its_processor_would(
    llava: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A benchmark's picture of another shape, cut as the checkpoint's image processor cuts it."""
    turns = [{"from": "human", "value": "<image>\nIs it?"}, {"from": "gpt", "value": "yes"}]
    rows = [{"id": i, "conversations": turns, "image": f"{i}.png"} for i in range(2)]
    (tmp_path / "set.json").write_text(json.dumps(rows))
    for i in range(2):
        Image.fromarray(media.drifting(1, 60, 90, seed=i)[0]).save(tmp_path / f"{i}.png")
    model, processor = load_whole(llava)
    task = f"llava:{tmp_path / 'set.json'}"
    dialect = dialect_of(model, processor)
    source, _ = benchmark_source(task, inputs_shown(model, processor, dialect, llava), 2)
    mine, theirs = source.scene(0)[0].frames, load_image(str(tmp_path / "0.png"), (40, 40), processor.fit)
    assert np.array_equal(mine.pixels, theirs.pixels)
    line = ["eval", str(llava), "--tasks", task, "count", "--keep", "0.5", "--selectors", "rate", "--questions", "2"]
    assert cli.main([*line, "--max-new-tokens", "5", "--instruction", "Be brief.", "--json"]) == 0
    tasks = json.loads(capsys.readouterr().out)["tasks"]
    assert tasks["llava"]["0.5"]["n"] == tasks["count"]["0.5"]["n"] == 2
