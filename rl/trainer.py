"""The loop all stages share: deal, step, measure, save, stop."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import asdict, replace
from datetime import timedelta
from pathlib import Path
from typing import cast

import torch
import torch.distributed as dist

from entropy_vision.atomic import atomic_write
from entropy_vision.config import load_config, to_toml
from entropy_vision.console import progress, say
from entropy_vision.device import device_of
from entropy_vision.errors import EntropyVisionError, Terminated, UsageError
from entropy_vision.policy import count_parameters
from entropy_vision.sources import world_words

from . import checkpoint
from .alone import alone
from .batch import Batch, Dealer, Planned, Steps, alignment_groups, make_batches, whole_scenes
from .behind import Behind
from .buffer import Buffer, NotFinite, Turns
from .context import Context, Metrics
from .curriculum import Curriculum
from .evaluate import grade
from .hints import Idle, padded_pictures, short_answers
from .media import asked_of, fingerprint, pools_of, spread, stored_of, told
from .metrics import Log, forget_after
from .optim import Optimizer, bound_gradients, learning_rate
from .parallel import current_team, end_workers, leave_signals_to_the_trainer, requests_to_stop
from .prepare import prepare, word_groups
from .recipe import TrainRecipe
from .reference import Copy, Reference, WithoutMaps
from .scenes import Pool, SceneMemory
from .sharded import gather, is_sharded, reduce_gradients, release, shard
from .stages import STEPS
from .vllm_engine import vllm_engine

_BATCH = 32  # scenes graded at once
_AHEAD = 8  # steps that each worker process makes at most before they are wanted


class Trainer:
    """One run: a policy, its dealer and its stage. `train()` runs it to its end, from where it was left.

    Args:
        memory: scenes that stages before this one have scored already.
    """

    def __init__(self, recipe: TrainRecipe, memory: SceneMemory | None = None) -> None:
        self.recipe, self.run, self.team = recipe, Path(recipe.out), current_team(recipe.timeout)
        self.memory = memory or SceneMemory()
        recipe.check_team(self.team.size)
        if self.run.is_file():
            raise UsageError(f"out = {str(self.run)!r} is a file; name a folder")
        torch.set_num_threads(recipe.threads)
        left = checkpoint.newest(self.run)
        if left is not None:
            self._check_same_settings()
        start = left or (checkpoint.resolve(recipe.init) if recipe.init else None)
        prepared = prepare(recipe, left, start, self.memory)
        self.model, self.processor, self.dialect, self.fit = (
            prepared.model,
            prepared.processor,
            prepared.dialect,
            prepared.fit,
        )
        self.tokenizer = self.processor.tokenizer
        self.asked = asked_of(recipe, self.memory, self.fit)
        self.model.to(device_of(recipe.device))
        self.begins = left is None
        if recipe.parallel == "shard" and self.team.size > 1:
            shard(self.model)
            release(self.model)
        self.optimizer = Optimizer(self.model, recipe)
        self.facts: dict[str, object] = {"step": 0, "init": str(start or "")}
        if self.asked:
            self.facts["questions"] = fingerprint(self.asked)
        if left is not None:
            files = self.facts.get("questions")
            self.facts = checkpoint.load_state(left, self.optimizer)
            if self.facts.get("questions") != files:
                raise UsageError(f"the files of data.questions have changed since {self.run} began: name another out")
            checkpoint.check_buffers(left, self.turn, self.team.size)
            if self.step + bool(self.turn) > recipe.steps:
                inside = f" and inside the next, after {self.turn} of its updates" if self.turn else ""
                raise UsageError(
                    f"{self.run} is at step {self.step} already{inside}; steps = {recipe.steps} cannot be fewer"
                )
        if is_sharded(self.model):
            gather(self.model)
        self.words = alignment_groups(world_words())
        self.selector = self.processor.chooser(recipe.eval.keep, recipe.budget.selector)
        self.curriculum = self._curriculum()
        self.context = Context(
            model=self.model,
            tokenizer=self.tokenizer,
            recipe=prepared.recipe,
            groups=self._groups(),
            rubric=recipe.grpo.rubric(),
            reference=self._reference(),
            team=self.team,
            speech=self.dialect,
            arms=self.curriculum.arms if self.curriculum else (),
        )
        self._validation: list[Batch] | None = None
        self._metrics = Log(self.run, recipe.trackers if self.team.leads else (), asdict(recipe), self.step)
        self._behind = Behind()
        # what writes behind the steps talks over lines of its own: its collectives and theirs come in any order
        apart = recipe.checkpoint_async and is_sharded(self.model)
        limit = timedelta(seconds=recipe.timeout)
        self._lines = cast(dist.ProcessGroup, dist.new_group(backend="gloo", timeout=limit)) if apart else None

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
            timeout=now.timeout,
            parallel=now.parallel,
            device=now.device,
            gradient_checkpointing=now.gradient_checkpointing,
            trackers=now.trackers,
            checkpoint_every=now.checkpoint_every,
            checkpoint_updates=now.checkpoint_updates,
            checkpoint_async=now.checkpoint_async,
            checkpoint_keep=now.checkpoint_keep,
            data=replace(before.data, workers=now.data.workers),
        )
        if before != now:
            lines = set(to_toml(now).splitlines()) - set(to_toml(before).splitlines())
            raise UsageError(
                f"{self.run} holds a run with other settings (now {', '.join(sorted(lines))}); "
                "name another out, or remove the folder"
            )

    def _groups(self) -> list[torch.Tensor]:
        """Token ids of the words that patches are aligned with; none where the tokenizer lacks one."""
        recipe = self.recipe
        groups, why = word_groups(self.dialect, self.words, required=recipe.stage == "align")
        if why and recipe.stage == "sft" and recipe.sft.align_weight:
            self._say(f"sft: without alignment (sft.align_weight), since {why}")
        return [group.to(self.model.device) for group in groups]

    def _curriculum(self) -> Curriculum | None:
        if self.recipe.curriculum.by == "none":
            return None
        arms = sorted({arm for pool, count in self._media("train") if count for arm in pool.arms})
        return Curriculum(self.recipe.curriculum, arms, self.facts.get("curriculum"))  # type: ignore[arg-type]

    def _reference(self) -> Reference | None:
        if self.recipe.stage != "grpo" or self.recipe.grpo.beta == 0:
            return None
        began, kept = Path(str(self.facts["init"])), self.run / checkpoint.REFERENCE
        # a run that starts anew takes its own start, whatever an abandoned one has left here
        folder = kept if not self.begins and kept.exists() else began
        if not folder.exists():
            raise UsageError(f"{self.run} began from {began}, which is gone; begin again in another out")
        if self.recipe.lora:
            held = self.model.projector.state_dict() if self.begins else checkpoint.projector_of(folder)
            return WithoutMaps(self.model, held)
        return Copy(checkpoint.load_model(folder).float().to(self.model.device))

    @property
    def end(self) -> int:
        """The step after which the run is done: the recipe's last, or where its gate has put it."""
        return min(int(self.facts.get("end", self.recipe.steps)), self.recipe.steps)  # type: ignore[call-overload]

    @property
    def step(self) -> int:
        """Optimiser steps done."""
        return int(self.facts["step"])  # type: ignore[call-overload]

    @property
    def turn(self) -> int:
        """Updates done on the completions of the step that follows, where a run was left inside it."""
        return int(self.facts.get("turn", 0))  # type: ignore[call-overload]

    def _media(self, split: str) -> list[tuple[Pool, int]]:
        """The scenes of each medium and how many of them a step takes, or the measurement."""
        return pools_of(self.recipe, split, self.selector, self.memory, self.team.size, self.fit)

    # ---- measuring -------------------------------------------------------------------------------------------

    def validation(self) -> list[Batch]:
        """This process's share of the validation split at the recipe's evaluation budget."""
        if self._validation is None:
            recipe = self.recipe
            pools = [(pool, spread(count, pool.count)) for pool, count in self._media("val") if count]
            scenes = [list(whole_scenes(pool, self.team.share(places)).values()) for pool, places in pools]
            self._validation = [
                batch
                for some in scenes
                for i in range(0, len(some), _BATCH)
                for batch in make_batches(
                    some[i : i + _BATCH], self.selector, recipe.eval.keep, self.words, recipe.data.micro_tokens
                )
            ]
        return self._validation

    def grade(self, temperature: float) -> tuple[float, float]:
        """Mean accuracy and reward of the policy on the validation split.

        Raises:
            UsageError: not one of its scenes can be read.
        """
        mine = (0.0, 0.0, 0.0)  # of a process whose share cannot be read
        if batches := self.validation():
            with self._precision():
                graded = grade(
                    self.model,
                    self.dialect,
                    batches,
                    self.context.rubric,
                    temperature=temperature,
                    seed=self.recipe.seed * 1_009 + self.team.rank,
                    max_new_tokens=self.context.recipe.grpo.max_new_tokens,
                )
            mine = (float(len(graded.keys)), graded.accuracy.sum(), graded.reward.sum())
        self._learning_mode()
        n, right, reward = self.team.total(*mine)
        if not n:
            raise UsageError("not one scene of the validation split can be read: eval.questions names others")
        return right / n, reward / n

    def _learning_mode(self) -> None:
        """The tower's blocks recompute in training mode alone. The decoder stays out of it: with its dropout, sampler
        and scorer would be two policies, and a run that goes on another."""
        self.model.train()
        self.model.language.eval()

    def _precision(self) -> torch.autocast:
        """What matrix products are computed in. Casts are not kept: an update in between changes what they are of."""
        half = self.recipe.dtype == "bfloat16"
        return torch.autocast(self.model.device.type, torch.bfloat16, enabled=half, cache_enabled=False)

    # ---- the loop --------------------------------------------------------------------------------------------

    def train(self) -> dict[str, object]:
        """Run to the last step or the gate; returns the keys `train` prints.

        A run that is done stays done; with more steps it goes on, unless its gate ended it.

        Raises:
            Terminated: SIGTERM or Ctrl-C came; the state is saved and the same call goes on from it.
            UsageError: another process trains in the run's folder.
        """
        with alone(self.run) if self.team.leads else nullcontext():
            return self._train()

    def _train(self) -> dict[str, object]:
        recipe = self.recipe
        if self.team.leads:
            atomic_write(self.run / "config.toml", to_toml(recipe))
            forget_after(self.run, self.step)
            if self.begins and (self.context.reference is not None or recipe.lora):
                checkpoint.save_reference(self.run, self.model, self.processor)
        for line in told(self.asked, stored_of(recipe, self.selector, self.memory)) if self.asked else ():
            self._say(line)
        with requests_to_stop() as asked, self._behind, self._metrics:
            if "reward_before" not in self.facts:
                self.facts["reward_before"] = self.grade(recipe.grpo.temperature)[1]
            if self.step < self.end:
                asks = [ask for batch in self.validation() for ask in batch.asks] if recipe.stage == "grpo" else []
                self._say(short_answers(self.dialect, asks, self.context.recipe.grpo.max_new_tokens))
                if self.fit is None:
                    self._say(padded_pictures(recipe.data, self.model.encoder.patch_size))
                trained = sum(p.numel() for p in self.optimizer.names)
                of = f"{trained:,} of {count_parameters(self.model):,} parameters"
                self._say(f"{recipe.stage}: {of}, steps {self.step}..{self.end}")
                with self._sampled():
                    self._loop(asked)
            if self.facts.get("graded") != self.step:
                self.facts |= {"reward_after": self.grade(recipe.grpo.temperature)[1], "graded": self.step}
                self._behind.wait()
                if self.team.leads:
                    checkpoint.write_facts(checkpoint.step_folder(self.run, self.step, self.turn), self.facts)
            if any(self.team.gather(asked())):  # it came while the result was measured: no other stage may begin
                raise Terminated(f"stopped after step {self.step}, the last of {self.run}, saved", self._result())
            return self._result()

    def _result(self) -> dict[str, object]:
        return {
            "stage": self.recipe.stage,
            "checkpoint": str(self._saved_last()),
            "steps": self.step,
            "reward_before": self.facts.get("reward_before"),
            "reward_after": self.facts.get("reward_after"),
            **({"left_out": {task: len(rows) for task, rows in self.asked.skipped.items()}} if self.asked else {}),
        }

    def _loop(self, asked_to_stop: Callable[[], bool]) -> None:
        """Steps until the end or a request to stop; what was done is saved."""
        recipe, step_of_stage, first = self.recipe, STEPS[self.recipe.stage], self.step
        self._learning_mode()
        idle = Idle()
        with (
            progress(recipe.stage, recipe.steps - first, shown=self.team.leads) as bar,
            closing(self._dealt(first)) as dealt,
        ):
            for step, batches in enumerate(dealt, start=first):
                began, cpu_began = time.perf_counter(), time.process_time()
                turns = Turns(self._left, lambda buffer: self._between(buffer, asked_to_stop))
                try:
                    with self._precision():
                        metrics = step_of_stage(
                            self.context,
                            batches,
                            step,
                            lambda step=step: self._update(step),  # type: ignore[misc]
                            turns,
                        )
                except NotFinite as error:
                    raise UsageError(self._told(error, step, batches)) from error
                metrics["cpu_seconds"] = time.process_time() - cpu_began
                worked = time.perf_counter() - began
                metrics |= self.context.clock.take() | self._counts(batches)
                metrics["seconds"] = worked + metrics["seconds_data"]
                if self.curriculum:
                    metrics |= self.curriculum.record(step, metrics)
                    self.facts["curriculum"] = self.curriculum.state
                self.facts["step"] = step + 1
                self.facts.pop("turn", None)
                if self._gate(step + 1, metrics) and "end" not in self.facts:
                    self.facts["end"] = min(step + 1 + recipe.optim.cooldown, recipe.steps)
                self._log(step + 1, metrics)
                self._say(idle(metrics))
                headline = "reward" if "reward" in metrics else "loss"
                gflops = metrics["flops"] / 1e9
                spent = f"{gflops:.3g} GFLOP at {gflops / metrics['seconds']:.3g}/s"
                bar.advance(note=f"{headline} {metrics[headline]:.3f}  {spent}")
                stop = any(self.team.gather(asked_to_stop()))
                if stop or self.step % recipe.checkpoint_every == 0 or self.step == self.end:
                    self._save()
                if stop:
                    raise Terminated(
                        f"stopped after step {self.step}, saved; the same line goes on from there", self._result()
                    )
                if self.step == self.end:
                    return

    def _counts(self, batches: list[Batch]) -> Metrics:
        """What the step has seen, of all processes: visual tokens, scenes whose file could not be read, mean keep."""
        tokens, skipped, keeps, scenes = self.team.total(
            sum(sum(b.patches.counts) for b in batches),
            sum(b.skipped for b in batches),
            sum(sum(b.keeps) for b in batches),
            sum(len(b.keeps) for b in batches),
        )
        self.facts["skipped"] = int(self.facts.get("skipped", 0)) + int(skipped)  # type: ignore[call-overload]
        return {"visual_tokens": tokens, "skipped": skipped, "keep": keeps / scenes}

    def _left(self, batches: Sequence[Batch]) -> Buffer | None:
        """This process's part of the step that the run was left in."""
        if not self.turn:
            return None
        folder = checkpoint.step_folder(self.run, self.step, self.turn)
        return checkpoint.load_buffer(folder, self.team.rank, batches, self.model.device)

    def _between(self, buffer: Buffer, asked_to_stop: Callable[[], bool]) -> None:
        """Between two updates on the same completions: save where the recipe says so, stop where it is asked for."""
        stop = any(self.team.gather(asked_to_stop()))
        if stop or self.recipe.checkpoint_updates:
            self.facts["turn"] = buffer.turn
            self._save(buffer)
        if stop:
            raise Terminated(
                f"stopped in step {self.step + 1} after update {buffer.turn}, saved; the same line goes on from there",
                self._result(),
            )

    def _told(self, error: NotFinite, step: int, batches: list[Batch]) -> str:
        """Why the run cannot go on, and where what it stumbled over lies."""
        path = self.run / f"not-finite-{step + 1:06d}-{self.team.rank}.safetensors"
        checkpoint.save_evidence(path, batches, error.buffer)
        return (
            f"step {step + 1}: {error}; its batch is in {path}, the weights before it in "
            f"{self._saved_last() or 'no checkpoint yet'}; begin again in another out with a lower optim.lr"
        )

    def _dealt(self, first: int) -> Generator[list[Batch]]:
        """The batches of each step from `first` on, the wait for them on the clock. It is to be closed: worker
        processes answer no signal.

        Raises:
            EntropyVisionError: a step cannot be dealt, as `Dealer.deal`.
        """
        clock, steps = self.context.clock, self._deal(first)
        try:
            while True:
                with clock("data"):
                    batches = next(steps, None)
                if batches is None:
                    return
                if isinstance(batches, EntropyVisionError):
                    raise batches
                chosen = sum(b.seconds for b in batches)
                clock.add("select", chosen)
                if not self.recipe.data.workers:  # what was waited for
                    clock.add("data", -chosen)
                yield batches
        finally:
            end_workers(steps)

    def _dealer(self) -> Dealer:
        recipe = self.recipe
        return Dealer(
            self._media("train"),
            self.selector,
            keeps=recipe.budget.keep,
            weights=recipe.budget.weights,
            each=recipe.budget.each,
            contrast=recipe.grpo.contrast if recipe.stage == "grpo" else "none",
            pool=recipe.data.pool,
            seed=recipe.seed,
            groups=self.words,
            most=recipe.data.micro_tokens,
            team=self.team,
        )

    def _deal(self, first: int) -> Iterator[list[Batch] | EntropyVisionError]:
        recipe = self.recipe
        workers, ahead, planned = recipe.data.workers, _AHEAD, None
        if self.curriculum:
            planned = Planned(first, recipe.steps, self.curriculum.weights)
            # weights of a step must be known when it is the last of those under way
            workers = min(workers, recipe.curriculum.lag - 1)
            ahead = min(ahead, (recipe.curriculum.lag - 1) // max(workers, 1))
        return iter(
            torch.utils.data.DataLoader(
                Steps(self._dealer(), first, recipe.steps),
                batch_size=None,
                sampler=planned,
                num_workers=workers,
                prefetch_factor=ahead if workers else None,
                worker_init_fn=leave_signals_to_the_trainer,
            )
        )

    def _update(self, step: int) -> float:
        """One optimiser step; returns the gradient's norm before it is bounded.

        Raises:
            NotFinite: the gradient is not finite; nothing was changed by it.
        """
        clock = self.context.clock
        sharded = is_sharded(self.model)
        waiting = self.team.waiting if sharded else nullcontext
        with clock("sync"), waiting("add up gradients"):
            if sharded:
                reduce_gradients(self.model)
            else:
                self.team.add_gradients(self.model.parameters())
        with clock("optimiser"), waiting("update their parts of the weights"):
            norm = bound_gradients(self.model.parameters(), self.recipe.optim.max_grad_norm)
            if not math.isfinite(norm):
                raise NotFinite(f"the gradient is {norm}")
            self.optimizer.step(learning_rate(self.recipe, step, self.end))
        with clock("sync"), waiting("give their parts of the weights"):
            if sharded:
                gather(self.model)
        return norm

    def _gate(self, step: int, metrics: Metrics) -> bool:
        """Measure when it is time; True once the stage has reached what it was for."""
        recipe = self.recipe
        if not recipe.eval.every or step % recipe.eval.every or step < recipe.sft.min_steps:
            return False
        accuracy = metrics["val_accuracy"] = self.grade(0.0)[0]
        reached = recipe.stage == "sft" and 0 < recipe.sft.stop_accuracy <= accuracy
        if reached and "end" not in self.facts:
            self._say(f"sft: accuracy {accuracy:.3f} at step {step}, sft.stop_accuracy is {recipe.sft.stop_accuracy:g}")
        return reached

    def _say(self, message: str | None) -> None:
        if message and self.team.leads:
            say(message)

    def _save(self, buffer: Buffer | None = None) -> None:
        """Save once, by the process that leads: nobody goes on before it is there, or with `checkpoint_async` before
        what is to be saved is copied and the save before this one is there.

        Raises:
            UsageError: an update has made a weight nan or infinite; the checkpoints there are stay as they are.
            OSError: the machine refuses to write, this time or the time before.
        """
        poisoned = [n for n, p in self.model.named_parameters() if not bool(torch.isfinite(p).all())]
        if poisoned:
            raise UsageError(
                f"after step {self.step} {poisoned[0]} is not finite, so nothing was saved; the weights before it are "
                f"in {self._saved_last() or 'no checkpoint yet'}: begin again from there with a lower optim.lr"
            )
        buffers = self.team.gather(buffer.packed()) if buffer else []
        behind = self.recipe.checkpoint_async
        self._behind.wait()  # one copy at a time
        moment = checkpoint.Moment.of(
            self.model, self.optimizer, self.facts, buffers, leads=self.team.leads, copied=behind
        )
        if behind:
            self._behind.start(lambda: self._write(moment))
            return
        self._write(moment)
        self.team.total(0.0)

    def _write(self, moment: checkpoint.Moment) -> None:
        if is_sharded(self.model):
            with self.team.waiting("write their parts of a checkpoint"):
                checkpoint.save_parts(self.run, moment, self.team.leads, self._lines)
        if self.team.leads:
            checkpoint.save(self.run, moment, self.processor, self.recipe.checkpoint_keep)

    def _saved_last(self) -> Path | None:
        """The newest checkpoint, once what is being written is there."""
        self._behind.wait()
        return checkpoint.newest(self.run)

    @contextmanager
    def _sampled(self) -> Iterator[None]:
        """The recipe's engine, up while the block runs."""
        if self.recipe.stage != "grpo" or self.recipe.grpo.engine == "own":
            yield
            return
        with vllm_engine(self.model, self.dialect, self.recipe.grpo.engine_python) as engine:
            self.context = replace(self.context, sampler=engine)
            yield

    def _log(self, step: int, metrics: Metrics) -> None:
        (metrics["cpu_seconds"],) = self.team.total(metrics["cpu_seconds"])
        if self.team.leads:
            self._metrics.write(step, metrics)
