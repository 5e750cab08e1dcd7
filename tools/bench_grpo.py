"""A step of GRPO beside TRL's on the same language model; what a larger group costs.

    OMP_NUM_THREADS=1 python tools/bench_grpo.py                        # beside TRL 1.16: pip install trl==1.16.0
    OMP_NUM_THREADS=1 python tools/bench_grpo.py --groups               # groups of 8 and of 16, no TRL needed

`tools/bench_accelerator.py` measures our step alone, on any device.

What each side does in a step, for 4 questions and groups of 8 completions of up to 32 tokens, AdamW, no reference:
ours reads 4 pictures (tower of two layers, projector) and their questions once, samples, verifies, and learns from the
same reading. TRL's GRPOTrainer is given a task that is easier than ours: no pictures at all, but prompts of as many
token ids as ours has visual tokens and words, for the same language model (Qwen3, same widths, same start), the same
rewards, the same number of completions of the same longest length. Neither side is compiled; both are in float32.

Figures are CPU seconds for a whole step, the sides in turns, each turn in a process of its own, its first step thrown
away. Each ratio is of neighbours in time: median and quartiles over the turns.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast, Qwen2Config, Qwen3Config

from entropy_vision import EntropyTokenizer, Frames
from entropy_vision.encoder import VisionEncoder
from entropy_vision.policy import EntropyVLM, EntropyVLMConfig
from entropy_vision.question import Answer
from entropy_vision.rl.batch import Batch, make_batch
from entropy_vision.rl.buffer import Turns
from entropy_vision.rl.clock import Clock
from entropy_vision.rl.context import Context, Metrics
from entropy_vision.rl.grpo import grpo_step
from entropy_vision.rl.optim import bound_gradients
from entropy_vision.rl.recipe import GrpoRecipe, TrainRecipe
from entropy_vision.rl.recompute import recompute_layers
from entropy_vision.rl.rubric import Reward
from entropy_vision.rl.scenes import Ask, Scored
from entropy_vision.rl.sharded import gather, reduce_gradients, release, shard
from entropy_vision.rl.verifiers import Verdict
from entropy_vision.rl.verifiers.verdict import Status
from entropy_vision.text import ASSISTANT, IMAGE, PAD, UNKNOWN, token_id, word_tokenizer

KEEPS = {"dense": 1.0, "keep 0.25": 0.25}
BARS = {"dense": 2.0, "keep 0.25": 5.0}
WORDS = [f"w{i}" for i in range(200)]
QUESTION = " ".join(WORDS[:12])
_STEPS = 4  # of a turn; the first is thrown away


@dataclass(frozen=True)
class Size:
    """What is measured: a language model, a tower, pictures."""

    text: Any
    tower: str
    pixels: int
    frames: int = 1


def sizes(words: PreTrainedTokenizerFast) -> dict[str, Size]:
    """tiny: 256 patches of 8 pixels; 0.5b: Qwen2-0.5B's shape over ViT-L-14-336 and 8 frames, weights random."""
    common = {"pad_token_id": token_id(words, PAD), "eos_token_id": words.eos_token_id, "bos_token_id": None}
    tiny = Qwen3Config(
        vocab_size=len(words), hidden_size=128, intermediate_size=384, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=4, head_dim=32, max_position_embeddings=1024, tie_word_embeddings=True, **common,
    )  # fmt: skip
    large = Qwen2Config(
        vocab_size=151_936, hidden_size=896, intermediate_size=4864, num_hidden_layers=24, num_attention_heads=14,
        num_key_value_heads=2, max_position_embeddings=8192, tie_word_embeddings=True, **common,
    )  # fmt: skip
    return {"tiny": Size(tiny, "ev-tiny-96", 128), "0.5b": Size(large, "ViT-L-14-336", 336, frames=8)}


def distinct(text: str) -> float:
    """The reward both sides pay: the share of distinct words, which no two random completions have alike for long."""
    words = text.split()
    return len(set(words)) / max(len(words), 1) + 0.01 * len(words)


class _Rubric:
    def __call__(self, completion: str, answer: Answer, truncated: bool = False) -> Reward:
        total = distinct(completion)
        return Reward(total, total, 0.0, Verdict(0.0, Status.WRONG, None, False))


class Ours:
    """Our step: pictures and questions as the trainer has them, `step` once.

    Args:
        half: matrix products in bfloat16.
        parts: weights, gradients and the optimiser's state divided among the processes there are.
        recompute: activations inside layers are computed again for the backward pass.
    """

    def __init__(
        self,
        size: Size,
        words: PreTrainedTokenizerFast,
        options: argparse.Namespace,
        group: int,
        *,
        device: str = "cpu",
        half: bool = False,
        parts: bool = False,
        recompute: bool = False,
    ) -> None:
        torch.manual_seed(0)
        encoder = VisionEncoder(size.tower)
        nameless = range(len(words), size.text.vocab_size)  # of a table that is larger than the words of this bench
        config = EntropyVLMConfig(
            vision=encoder.config,
            text=size.text.to_dict(),
            image_token_id=token_id(words, IMAGE),
            unsampled_token_ids=[*(token_id(words, t) for t in (PAD, UNKNOWN, ASSISTANT)), *nameless],
            pad_token_id=size.text.pad_token_id,
            eos_token_id=size.text.eos_token_id,
        )
        self.model = EntropyVLM(config).to(device).train()
        if recompute:
            recompute_layers(self.model)
        self.parts, where = parts, self.model.device.type
        self.precision = torch.autocast(where, torch.bfloat16, half, cache_enabled=False)
        if parts:
            shard(self.model)
            release(self.model)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-5)
        grpo = GrpoRecipe(group_size=group, max_new_tokens=options.new_tokens, beta=0.0)
        recipe = TrainRecipe(stage="grpo", out="unused", init="unused", grpo=grpo)
        if parts:
            gather(self.model)
        self.clock = Clock(time.process_time if device == "cpu" else time.perf_counter)
        self.context = Context(self.model, words, recipe, (), _Rubric(), clock=self.clock)  # type: ignore[arg-type]
        self.scenes = self._scenes(size, encoder.patch_size, options.questions)
        self.step_number = 0

    def _scenes(self, size: Size, patch: int, count: int) -> list[Scored]:
        tokenizer, scenes = EntropyTokenizer(patch_size=patch, keep=1.0), []
        for i in range(count):
            rng = np.random.default_rng(i)
            pixels = rng.integers(0, 256, (size.frames, size.pixels, size.pixels, 3), np.uint8)
            frames = Frames(pixels=pixels, pts_seconds=np.arange(size.frames) / 8.0)
            ask = Ask(str(i), "none", QUESTION, Answer(kind="exact", value="x"), "")
            scenes.append(Scored(frames, tokenizer.score(frames), (ask,), ()))
        self.chooser = tokenizer
        return scenes

    def batch(self, keep: float) -> Batch:
        return make_batch(self.scenes, self.chooser, keep, None)

    def step(self, keep: float) -> Metrics:
        """Choose, read, sample, verify, learn, update."""
        with self.clock("select"):
            batch = self.batch(keep)
        with self.precision:
            metrics = grpo_step(self.context, [batch], self.step_number, self._update, Turns())
        self.step_number += 1
        return metrics

    def _update(self) -> float:
        with self.clock("sync"):
            if self.parts:
                reduce_gradients(self.model)
        with self.clock("optimiser"):
            norm = bound_gradients(self.model.parameters(), 1.0)
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
        with self.clock("sync"):
            if self.parts:
                gather(self.model)
        return norm


def prompt_tokens(ours: Ours) -> int:
    """What a question of ours comes to in tokens, dense: visual ones, words, marks."""
    return ours.batch(1.0).patches.counts[0] + len(QUESTION.split()) + 2


def trl_seconds(
    size: Size, words: PreTrainedTokenizerFast, options: argparse.Namespace, prompt: int
) -> list[dict[str, float]]:
    """CPU seconds of steps of TRL's trainer on prompts of `prompt` tokens, and how many tokens a completion had."""
    from datasets import Dataset
    from transformers import PrinterCallback, TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    steps: list[dict[str, float]] = []
    lengths: list[int] = []

    class Watch(TrainerCallback):
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            self.began = time.process_time()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            spent = time.process_time() - self.began
            steps.append({"seconds": spent, "length": statistics.mean(lengths)})
            lengths.clear()

    def reward(completions: list[str], completion_ids: list[list[int]], **_: Any) -> list[float]:
        lengths.extend(map(len, completion_ids))
        return [distinct(text) for text in completions]

    rng = np.random.default_rng(0)
    prompts = [" ".join(rng.choice(WORDS, prompt)) for _ in range(options.questions * _STEPS)]
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(size.text)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = GRPOConfig(
            output_dir=folder, per_device_train_batch_size=options.questions * options.group,
            num_generations=options.group, max_completion_length=options.new_tokens, max_steps=_STEPS, beta=0.0,
            learning_rate=1e-5, loss_type="grpo", temperature=1.0, bf16=False, use_cpu=True, report_to=[],
            save_strategy="no", logging_strategy="no", disable_tqdm=True, gradient_checkpointing=False,
        )  # fmt: skip
        trainer = GRPOTrainer(
            model=model,
            reward_funcs=reward,
            args=config,
            train_dataset=Dataset.from_dict({"prompt": prompts}),
            processing_class=words,
            callbacks=[Watch()],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    return steps


def our_seconds(ours: Ours, keep: float) -> list[dict[str, float]]:
    """The same of ours."""
    steps = []
    for _ in range(_STEPS):
        began = time.process_time()
        length = ours.step(keep)["length"]
        steps.append({"seconds": time.process_time() - began, "length": length})
    return steps


def spread(values: list[float]) -> dict[str, float]:
    """Median and quartiles."""
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else values * 3
    return {"median": round(middle, 3), "low": round(low, 3), "high": round(high, 3)}


def beside_trl(size: Size, words: PreTrainedTokenizerFast, options: argparse.Namespace) -> dict[str, Any]:
    """Ratios TRL / ours, dense and at keep 0.25."""
    sides = ("trl", *KEEPS)
    times: dict[str, list[float]] = {name: [] for name in sides}
    lengths: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(options.rounds):
        for name in sides:
            line = [sys.executable, __file__, *sys.argv[1:], "--side", name]
            told = subprocess.run(line, stdout=subprocess.PIPE, check=True, text=True).stdout
            steps = json.loads(told.splitlines()[-1])[1:]
            times[name].append(statistics.mean(step["seconds"] for step in steps))
            lengths[name].append(statistics.mean(step["length"] for step in steps))
            print(f"{name}: {times[name][-1]:.3f} s a step", file=sys.stderr)
    rows: dict[str, Any] = {}
    for name, bar in BARS.items():
        ratios = [theirs / mine for theirs, mine in zip(times["trl"], times[name], strict=True)]
        rows[name] = {"ratio": spread(ratios), "bar": bar, "met": statistics.median(ratios) >= bar}
    seconds = {name: spread(v) for name, v in times.items()}
    return {"seconds": seconds, "tokens": {name: statistics.mean(v) for name, v in lengths.items()}, **rows}


def side(size: Size, words: PreTrainedTokenizerFast, options: argparse.Namespace) -> list[dict[str, float]]:
    """One turn of one side."""
    ours = Ours(size, words, options, options.group)
    if options.side == "trl":
        return trl_seconds(size, words, options, prompt_tokens(ours))
    return our_seconds(ours, KEEPS[options.side])


def groups(size: Size, words: PreTrainedTokenizerFast, options: argparse.Namespace) -> dict[str, Any]:
    """What twice the group costs: in vision and prompt, which are read once whatever it is, and in the whole step."""
    sides = {group: Ours(size, words, options, group) for group in (options.group, 2 * options.group)}
    read: dict[int, list[float]] = {group: [] for group in sides}
    whole: dict[int, list[float]] = {group: [] for group in sides}
    for turn in range(options.rounds + 1):
        for group, ours in sides.items():
            ours.clock.take()
            began = time.process_time()
            for _ in range(_STEPS):
                ours.step(1.0)
            if turn:
                whole[group].append(time.process_time() - began)
                read[group].append(ours.clock.take()["seconds_encode"])
    small, large = sides
    ratios = [b / a for a, b in zip(read[small], read[large], strict=True)]
    steps = [b / a for a, b in zip(whole[small], whole[large], strict=True)]
    met = statistics.median(ratios) < 1.05
    return {"groups": [small, large], "read": spread(ratios), "bar": 1.05, "met": met, "step": spread(steps)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--side", choices=("trl", *KEEPS), help="one turn of one side: seconds and tokens of its steps")
    what.add_argument("--groups", action="store_true", help="what a group of twice the size costs")
    parser.add_argument("--questions", type=int, default=4)
    parser.add_argument("--group", type=int, default=8)
    parser.add_argument("--new-tokens", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    words = word_tokenizer(WORDS)
    size = sizes(words)["tiny"]
    if options.side:
        print(json.dumps(side(size, words, options)))
        return
    run = groups if options.groups else beside_trl
    print(json.dumps(run(size, words, options), indent=1))


if __name__ == "__main__":
    main()
