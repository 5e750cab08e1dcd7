"""The loop all stages share: deal, step, measure, save, stop."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType

import torch
from transformers import PreTrainedTokenizerFast, Qwen2Config

from entropy_vision.config import load_config, to_toml
from entropy_vision.console import progress, say
from entropy_vision.encoder import VisionEncoder
from entropy_vision.errors import Terminated, UsageError
from entropy_vision.policy import EntropyVLM, EntropyVLMConfig, count_parameters
from entropy_vision.sources import world_words
from entropy_vision.text import ASSISTANT, IMAGE, PAD, UNKNOWN, token_id, word_tokenizer
from entropy_vision.tokenizer import EntropyTokenizer

from . import checkpoint
from .batch import Batch, Dealer, Steps, alignment_groups, make_batch
from .evaluate import grade
from .optim import Optimizer, learning_rate
from .parallel import current_team
from .recipe import DataRecipe, PolicyRecipe, TrainRecipe
from .rubric import Rubric
from .scenes import SceneMemory, Scenes
from .stages import STEPS, Context, Metrics

_BATCH = 32  # scenes graded at once


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
    return model, tokenizer


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
    """One run: a policy, its dealer and its stage. `train()` runs it to its end, from where it was left.

    Args:
        memory: scenes that stages before this one have scored already.
    """

    def __init__(self, recipe: TrainRecipe, memory: SceneMemory | None = None) -> None:
        self.recipe, self.run, self.team = recipe, Path(recipe.out), current_team()
        self.memory = memory or SceneMemory()
        torch.set_num_threads(recipe.threads)
        left = checkpoint.newest(self.run)
        if left is not None:
            self._check_same_settings()
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
            team=self.team,
        )
        self._validation: list[Batch] | None = None

    def _check_same_settings(self) -> None:
        """A run goes on only as what it was; how far, how often saved and on how many processes may change."""
        path, now = self.run / "config.toml", self.recipe
        if not path.is_file():
            return
        before = load_config(path, TrainRecipe)
        before = replace(
            before,
            steps=now.steps,
            threads=now.threads,
            processes=now.processes,
            checkpoint_every=now.checkpoint_every,
            data=replace(before.data, workers=now.data.workers),
        )
        if before != now:
            lines = set(to_toml(now).splitlines()) - set(to_toml(before).splitlines())
            raise UsageError(
                f"{self.run} holds a run with other settings (now {', '.join(sorted(lines))}); "
                "name another out, or remove the folder"
            )

    def _reference(self) -> EntropyVLM | None:
        if self.recipe.stage != "grpo" or self.recipe.grpo.beta == 0:
            return None
        reference, _ = checkpoint.load(Path(self.recipe.init))
        return reference.requires_grad_(False)

    def _media(self, split: str) -> list[tuple[Scenes, int]]:
        """The scenes of each medium and how many of them a step takes."""
        data = self.recipe.data
        counts = {"image": data.image_scenes, "video": data.video_scenes}
        return [(self.memory.world(medium, split, data, self.selector), count) for medium, count in counts.items()]

    # ---- measuring -------------------------------------------------------------------------------------------

    def validation(self) -> list[Batch]:
        """This process's share of the validation split at the recipe's evaluation budget."""
        if self._validation is None:
            recipe = self.recipe
            mine = self.team.share(list(range(recipe.eval.scenes)))
            scenes = [[scored[i] for i in mine] for scored, count in self._media("val") if count]
            self._validation = [
                make_batch(some[i : i + _BATCH], self.selector, recipe.eval.keep, self.words)
                for some in scenes
                for i in range(0, len(some), _BATCH)
            ]
        return self._validation

    def grade(self, temperature: float) -> tuple[float, float]:
        """Mean accuracy and reward of the policy on the validation split."""
        graded = grade(
            self.model,
            self.tokenizer,
            self.validation(),
            self.context.rubric,
            temperature=temperature,
            seed=self.recipe.seed * 1_009 + self.team.rank,
            max_new_tokens=self.recipe.grpo.max_new_tokens,
        )
        self.model.train()
        n, right, reward = self.team.total(len(graded.keys), graded.accuracy.sum(), graded.reward.sum())
        return right / n, reward / n

    # ---- the loop --------------------------------------------------------------------------------------------

    def train(self) -> dict[str, object]:
        """Run to the last step or the gate; returns the keys `train` prints.

        Raises:
            Terminated: SIGTERM came; the state is saved and the same call goes on from it.
        """
        recipe, first = self.recipe, int(self.facts["step"])  # type: ignore[call-overload]
        if self.team.leads:
            self.run.mkdir(parents=True, exist_ok=True)
            (self.run / "config.toml").write_text(to_toml(recipe))
        if "reward_before" not in self.facts:
            self.facts["reward_before"] = self.grade(recipe.grpo.temperature)[1]
        if not self.facts.get("done"):
            self._say(f"{recipe.stage}: {count_parameters(self.model):,} parameters, steps {first}..{recipe.steps}")
            self._loop(first)
            self.facts["reward_after"] = self.grade(recipe.grpo.temperature)[1]
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
        with _sigterm() as asked_to_stop, progress(recipe.stage, recipe.steps - first, shown=self.team.leads) as bar:
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
                if any(self.team.gather(asked_to_stop())):
                    self._save(step + 1)
                    raise Terminated(
                        f"stopped by SIGTERM after step {step + 1}, saved; the same line goes on from there",
                        {"checkpoint": str(checkpoint.newest(self.run)), "steps": step + 1},
                    )

    def _deal(self, first: int) -> Iterator[list[Batch]]:
        recipe = self.recipe
        dealer = Dealer(
            self._media("train"),
            self.selector,
            keeps=recipe.budget.keep,
            weights=recipe.budget.weights,
            pool=recipe.data.pool,
            seed=recipe.seed,
            groups=self.words,
            team=self.team,
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
        self.team.add_gradients(self.model.parameters())
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
        metrics["val_accuracy"] = self.grade(0.0)[0]
        if recipe.stage != "sft" or step < recipe.sft.min_steps:
            return False
        return 0 < recipe.sft.stop_accuracy <= metrics["val_accuracy"]

    def _say(self, message: str) -> None:
        if self.team.leads:
            say(message)

    def _save(self, step: int) -> None:
        """Save once, by the process that leads; nobody goes on before it is there."""
        if self.team.leads:
            checkpoint.save(self.run, step, self.model, self.tokenizer, self.optimizer, self.facts)
        self.team.total(0.0)

    def _log(self, step: int, metrics: Metrics) -> None:
        (metrics["cpu_seconds"],) = self.team.total(metrics["cpu_seconds"])
        if not self.team.leads:
            return
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
