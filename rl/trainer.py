"""The loop all stages share: deal, step, measure, save, stop."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import torch
from transformers import PreTrainedTokenizerFast, Qwen2Config

from entropy_vision.config import to_toml
from entropy_vision.console import progress, say
from entropy_vision.encoder import VisionEncoder
from entropy_vision.errors import Terminated, UsageError
from entropy_vision.policy import EntropyVLM, EntropyVLMConfig, count_parameters
from entropy_vision.question import QuestionSource
from entropy_vision.sources import world_source, world_words
from entropy_vision.text import ASSISTANT, IMAGE, PAD, UNKNOWN, token_id, word_tokenizer
from entropy_vision.tokenizer import EntropyTokenizer

from . import checkpoint
from .batch import CELLS, Batch, Dealer, Scored, Steps, alignment_groups, make_batch, score_scene
from .evaluate import Graded, grade
from .optim import Optimizer, learning_rate
from .recipe import DataRecipe, PolicyRecipe, TrainRecipe
from .rubric import Rubric
from .stages import STEPS, Context, Metrics


def new_policy(recipe: PolicyRecipe, data: DataRecipe, seed: int) -> tuple[EntropyVLM, PreTrainedTokenizerFast]:
    """A fresh policy with a word-level tokenizer over the World's vocabulary."""
    words, _, _ = world_words()
    tokenizer = word_tokenizer(words)
    text = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=recipe.width,
        intermediate_size=recipe.mlp_width,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        num_key_value_heads=recipe.heads,
        max_position_embeddings=512,
        initializer_range=0.05,
        tie_word_embeddings=True,
        pad_token_id=token_id(tokenizer, PAD),
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
    )
    torch.manual_seed(seed)
    encoder = VisionEncoder(recipe.tower, pretrained=recipe.pretrained or None)
    config = EntropyVLMConfig(
        vision=encoder.config,
        text=text.to_dict(),
        image_token_id=token_id(tokenizer, IMAGE),
        unsampled_token_ids=[token_id(tokenizer, t) for t in (PAD, UNKNOWN, ASSISTANT)],
        pad_token_id=text.pad_token_id,
        eos_token_id=text.eos_token_id,
        inputs={k: getattr(data, k) for k in ("image_size", "video_size", "frame_count", "difficulty")},
    )
    model = EntropyVLM(config)
    model.encoder.load_state_dict(encoder.state_dict())
    if __import__("os").environ.get("COMP"):
        _compose_places(model, tokenizer)
    return model, tokenizer


@torch.no_grad()
def _compose_places(model: EntropyVLM, tokenizer: PreTrainedTokenizerFast) -> None:
    """Let the word "r3c6" start as the sum of a vector for row 3 and one for column 6.

    So what is true of a row holds for all its places from the start; with 64 unrelated words, "left of" would have to
    be learned for each of 4,032 pairs.
    """
    table, vocabulary = model.word_embeddings, tokenizer.get_vocab()
    rows, columns = torch.randn(2, CELLS, table.shape[1]) * table.std() / 2**0.5
    for row in range(CELLS):
        for column in range(CELLS):
            table[vocabulary[f"r{row + 1}c{column + 1}"]] = rows[row] + columns[column]


def load_scenes(
    data: DataRecipe, tokenizer: EntropyTokenizer, split: str, scenes: int, seed: int
) -> list[list[Scored]]:
    """The first `scenes` scenes of a split, scored, one list for each medium the recipe trains on."""
    media = _sources(data, split, seed)
    return [[score_scene(source.scene(i), tokenizer) for i in range(scenes)] for source, count in media if count]


def batches_of(
    media: Sequence[Sequence[Scored]],
    tokenizer: EntropyTokenizer,
    keep: float,
    groups: Sequence[Sequence[str]],
    size: int = 32,
) -> list[Batch]:
    """Batches of `size` scenes at one budget, media apart."""
    return [
        make_batch(scenes[i : i + size], tokenizer, keep, groups)
        for scenes in media
        for i in range(0, len(scenes), size)
    ]


def _sources(data: DataRecipe, split: str, seed: int) -> list[tuple[QuestionSource, int]]:
    image = world_source("image", split=split, difficulty=data.difficulty, seed=seed, size=data.image_size)
    video = world_source(
        "video",
        split=split,
        difficulty=data.difficulty,
        seed=seed,
        size=data.video_size,
        frame_count=data.frame_count,
        folder=data.video_folder or None,
    )
    return [(image, data.image_scenes), (video, data.video_scenes)]


@contextmanager
def _sigterm() -> Iterator[Callable[[], bool]]:
    """Remember a SIGTERM instead of dying in the middle of a step; a second one acts at once."""
    asked = False

    def remember(signum: int, frame: FrameType | None) -> None:
        nonlocal asked
        asked = True
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

    try:
        before = signal.signal(signal.SIGTERM, remember)
    except ValueError:  # not the main thread: the host program owns its signals
        yield lambda: False
        return
    try:
        yield lambda: asked
    finally:
        signal.signal(signal.SIGTERM, before)


class Trainer:
    """One run: a policy, its dealer and its stage. `train()` runs it to its end, from where it was left."""

    def __init__(self, recipe: TrainRecipe) -> None:
        self.recipe, self.run = recipe, Path(recipe.out)
        torch.set_num_threads(recipe.threads)
        left = checkpoint.newest(self.run)
        start = left or (checkpoint.resolve(recipe.init) if recipe.init else None)
        if start is not None:
            self.model, self.tokenizer = checkpoint.load(start)
        else:
            self.model, self.tokenizer = new_policy(recipe.policy, recipe.data, recipe.seed)
        self.optimizer = Optimizer(self.model, recipe)
        self.facts: dict[str, object] = {"step": 0}
        if left is not None:
            self.facts = checkpoint.load_state(left, self.optimizer)
        _, colors, shapes = world_words()
        self.words = alignment_groups(colors, shapes)
        self.selector = EntropyTokenizer(
            patch_size=self.model.encoder.patch_size, keep=recipe.eval.keep, selector=recipe.budget.selector
        )
        self.context = Context(
            model=self.model,
            tokenizer=self.tokenizer,
            recipe=recipe,
            groups=[torch.tensor([token_id(self.tokenizer, w) for w in group]) for group in self.words],
            rubric=Rubric(accuracy=recipe.grpo.accuracy_weight, format=recipe.grpo.format_weight),
            reference=self._reference(),
        )
        self._validation: list[Batch] | None = None

    def _reference(self) -> EntropyVLM | None:
        if self.recipe.stage != "grpo" or self.recipe.grpo.beta == 0:
            return None
        reference, _ = checkpoint.load(Path(self.recipe.init))
        return reference.requires_grad_(False)

    # ---- measuring -------------------------------------------------------------------------------------------

    def validation(self) -> list[Batch]:
        """The validation split at the recipe's evaluation budget."""
        if self._validation is None:
            recipe = self.recipe
            media = load_scenes(recipe.data, self.selector, "val", recipe.eval.scenes, recipe.data.seed)
            self._validation = batches_of(media, self.selector, recipe.eval.keep, self.words)
        return self._validation

    def grade(self, temperature: float, samples: int = 1) -> Graded:
        """Grade the policy on the validation split."""
        graded = grade(
            self.model,
            self.tokenizer,
            self.validation(),
            self.context.rubric,
            temperature=temperature,
            samples=samples,
            seed=self.recipe.seed,
            max_new_tokens=self.recipe.grpo.max_new_tokens,
        )
        self.model.train()
        return graded

    # ---- the loop --------------------------------------------------------------------------------------------

    def train(self) -> dict[str, object]:
        """Run to the last step or the gate; returns the keys `train` prints.

        Raises:
            Terminated: SIGTERM came; the state is saved and the same call goes on from it.
        """
        recipe, first = self.recipe, int(self.facts["step"])  # type: ignore[call-overload]
        self.run.mkdir(parents=True, exist_ok=True)
        (self.run / "config.toml").write_text(to_toml(recipe))
        if "reward_before" not in self.facts:
            self.facts["reward_before"] = float(self.grade(recipe.grpo.temperature).reward.mean())
        if not self.facts.get("done"):
            say(f"{recipe.stage}: {count_parameters(self.model):,} parameters, steps {first}..{recipe.steps}")
            self._loop(first)
            self.facts["reward_after"] = float(self.grade(recipe.grpo.temperature).reward.mean())
            self.facts["done"] = True
            self._save(int(self.facts["step"]))  # type: ignore[call-overload]
        return {
            "stage": recipe.stage,
            "checkpoint": str(checkpoint.newest(self.run)),
            "steps": self.facts["step"],
            "reward_before": self.facts["reward_before"],
            "reward_after": self.facts["reward_after"],
        }

    def _loop(self, first: int) -> None:
        recipe, step_of_stage = self.recipe, STEPS[self.recipe.stage]
        self.model.train()
        with _sigterm() as asked_to_stop, progress(recipe.stage, recipe.steps - first) as bar:
            for step, batches in enumerate(self._deal(first), start=first):
                began, cpu_began = time.perf_counter(), time.process_time()
                metrics = step_of_stage(self.context, batches, step, lambda step=step: self._update(step))  # type: ignore[misc]
                metrics["seconds"] = time.perf_counter() - began
                metrics["cpu_seconds"] = time.process_time() - cpu_began
                metrics["keep"] = batches[0].keep
                gate = self._gate(step + 1, metrics)
                self._log(step + 1, metrics)
                self.facts["step"] = step + 1
                headline = "reward" if "reward" in metrics else "loss"
                bar.advance(note=f"{headline} {metrics[headline]:.3f}")
                if gate:
                    return
                if (step + 1) % recipe.checkpoint_every == 0 and step + 1 < recipe.steps:
                    self._save(step + 1)
                if asked_to_stop():
                    self._save(step + 1)
                    raise Terminated(
                        f"stopped by SIGTERM after step {step + 1}, saved; the same line goes on from there",
                        {"checkpoint": str(checkpoint.newest(self.run)), "steps": step + 1},
                    )

    def _deal(self, first: int) -> Iterator[list[Batch]]:
        recipe = self.recipe
        dealer = Dealer(
            _sources(recipe.data, "train", recipe.data.seed),
            self.selector,
            keeps=recipe.budget.keep,
            weights=recipe.budget.weights,
            pool=recipe.data.pool,
            seed=recipe.seed,
            groups=self.words,
        )
        steps = Steps(dealer, first, recipe.steps)
        workers = recipe.data.workers
        return iter(
            torch.utils.data.DataLoader(
                steps, batch_size=None, num_workers=workers, prefetch_factor=8 if workers else None
            )
        )

    def _update(self, step: int) -> float:
        """One optimiser step; returns the gradient's norm before it is bounded.

        Raises:
            UsageError: the gradient is not finite; nothing was changed by it.
        """
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.optim.max_grad_norm)
        if not torch.isfinite(norm):
            raise UsageError(
                f"the gradient of step {step + 1} is not finite; lower optim.lr and resume by the same line"
            )
        self.optimizer.step(learning_rate(self.recipe, step))
        return float(norm)

    def _gate(self, step: int, metrics: Metrics) -> bool:
        """Measure when it is time; True once the stage has reached what it was for."""
        recipe = self.recipe
        if not recipe.eval.every or step % recipe.eval.every:
            return False
        metrics["val_accuracy"] = float(self.grade(0.0).accuracy.mean())
        return recipe.stage == "sft" and 0 < recipe.sft.stop_accuracy <= metrics["val_accuracy"]

    def _save(self, step: int) -> None:
        checkpoint.save(self.run, step, self.model, self.tokenizer, self.optimizer, self.facts)

    def _log(self, step: int, metrics: Metrics) -> None:
        with (self.run / "metrics.jsonl").open("a") as lines:
            lines.write(json.dumps({"step": step, **{k: round(v, 6) for k, v in metrics.items()}}) + "\n")


def read_metrics(run: str | Path) -> list[dict[str, float]]:
    """The run's metrics, one record a step; after a resume the later record of a step counts."""
    by_step: dict[float, dict[str, float]] = {}
    path = Path(run) / "metrics.jsonl"
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            record = json.loads(line)
        except json.JSONDecodeError:  # a line torn by a kill; the step is done again on resume
            continue
        by_step[record["step"]] = record
    return [by_step[s] for s in sorted(by_step)]
