"""The trainer: every stage runs on real scenes, goes on bit for bit where it was stopped, and learns."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
from small_runs import FEW_IMAGES, same, small_recipe, weights

from entropy_vision.errors import InputError, InputReason, Terminated, UsageError
from entropy_vision.rl.checkpoint import load
from entropy_vision.rl.recipe import BudgetRecipe, DataRecipe, GrpoRecipe, OptimRecipe, TrainRecipe
from entropy_vision.rl.train import run_recipes
from entropy_vision.rl.trainer import Trainer, read_metrics


@pytest.mark.parametrize("stage", ["align", "sft", "grpo"])
def test_a_run_stopped_by_sigterm_goes_on_bit_for_bit(stage: str, tmp_path: Path, guessing: Path) -> None:
    changes: dict[str, object] = {}
    if stage == "grpo":
        grpo = GrpoRecipe(group_size=4, max_new_tokens=24, updates=2, beta=0.05)
        changes = {**FEW_IMAGES, "init": str(guessing), "grpo": grpo}
    whole = Trainer(small_recipe(stage, tmp_path / "whole", **changes)).train()
    assert all(m["grad_norm"] > 0 for m in read_metrics(tmp_path / "whole"))

    cut = Trainer(small_recipe(stage, tmp_path / "cut", **changes))
    log = cut._log

    def log_and_stop(step: int, metrics: dict[str, float]) -> None:
        log(step, metrics)
        if step == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    cut._log = log_and_stop  # type: ignore[method-assign]
    with pytest.raises(Terminated) as ended:
        cut.train()
    assert ended.value.code == 143 and ended.value.result["steps"] == 2
    resumed = Trainer(small_recipe(stage, tmp_path / "cut", **changes)).train()

    assert resumed["steps"] == whole["steps"] == 4
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "cut"))
    assert resumed["reward_before"] == whole["reward_before"]
    assert resumed["reward_after"] == whole["reward_after"]
    timing = ("seconds", "cpu_seconds")
    records = [
        [{k: v for k, v in r.items() if k not in timing} for r in read_metrics(tmp_path / run)]
        for run in ("whole", "cut")
    ]
    assert records[0] == records[1] and len(records[0]) == 4


def test_a_run_that_is_done_is_not_done_again(tmp_path: Path) -> None:
    first = Trainer(small_recipe("align", tmp_path / "run", steps=2)).train()
    before = weights(tmp_path / "run")
    assert Trainer(small_recipe("align", tmp_path / "run", steps=2)).train() == first
    assert same(before, weights(tmp_path / "run"))


def test_a_run_does_not_go_on_with_other_settings(tmp_path: Path) -> None:
    Trainer(small_recipe("align", tmp_path / "run", steps=2)).train()
    with pytest.raises(UsageError, match=r"other settings.*seed = 5"):
        Trainer(small_recipe("align", tmp_path / "run", steps=2, seed=5))
    with pytest.raises(UsageError, match="step 2 already"):
        Trainer(small_recipe("align", tmp_path / "run", steps=1))


def test_a_run_that_is_done_goes_on_with_more_steps(tmp_path: Path) -> None:
    """As if it had been asked for all of them at once."""
    Trainer(small_recipe("sft", tmp_path / "more", steps=2)).train()
    more = Trainer(small_recipe("sft", tmp_path / "more", steps=4, checkpoint_every=1)).train()
    once = Trainer(small_recipe("sft", tmp_path / "once", steps=4)).train()
    assert {**more, "checkpoint": ""} == {**once, "checkpoint": ""} and more["steps"] == 4
    assert same(weights(tmp_path / "more"), weights(tmp_path / "once"))


@pytest.mark.parametrize(("cooldown", "end"), [(0, 2), (3, 5), (9, 7)])
def test_a_gate_cools_a_run_down_and_ends_it_for_good(cooldown: int, end: int, tmp_path: Path) -> None:
    recipe = small_recipe("sft", tmp_path / "run", steps=7, optim=OptimRecipe(warmup=1, cooldown=cooldown))
    trainer = Trainer(recipe)
    trainer._gate = lambda step, metrics: step == 2  # type: ignore[method-assign]
    factors: list[float] = []
    update = trainer.optimizer.step

    def step(factor: float) -> None:
        factors.append(factor)
        update(factor)

    trainer.optimizer.step = step  # type: ignore[method-assign]
    assert trainer.train()["steps"] == end
    assert Trainer(recipe).train()["steps"] == end
    if cooldown == 3:
        assert factors == pytest.approx([1, 1, 1, 2 / 3, 1 / 3])


def test_a_run_whose_gate_is_reached_ends_no_later_than_its_steps(tmp_path: Path) -> None:
    recipe = small_recipe("sft", tmp_path / "run", steps=8, optim=OptimRecipe(warmup=1, cooldown=5))
    trainer = Trainer(recipe)
    trainer._gate = lambda step, metrics: step == 2 and os.kill(os.getpid(), signal.SIGTERM) is None  # type: ignore[method-assign]
    with pytest.raises(Terminated):
        trainer.train()
    assert trainer.end == 7
    assert Trainer(replace(recipe, steps=4)).train()["steps"] == 4
    assert Trainer(recipe).train()["steps"] == 7


def test_a_stop_while_the_result_is_measured_lets_no_other_stage_begin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grade = Trainer.grade

    def grade_and_stop(self: Trainer, temperature: float) -> tuple[float, float]:
        if self.step:
            os.kill(os.getpid(), signal.SIGTERM)
        return grade(self, temperature)

    monkeypatch.setattr(Trainer, "grade", grade_and_stop)
    first = small_recipe("align", tmp_path / "first", steps=2)
    with pytest.raises(Terminated, match="step 2") as ended:
        run_recipes([first, small_recipe("sft", tmp_path / "second", init=first.out)])
    assert ended.value.result["reward_after"] is not None and not (tmp_path / "second").exists()
    assert Trainer(first).train() == ended.value.result


def test_a_kill_while_the_result_is_measured_costs_no_step(tmp_path: Path) -> None:
    class Killed(Exception):
        pass

    def grade(temperature: float) -> tuple[float, float]:
        if trainer.step:
            raise Killed
        return 0.0, 0.0

    recipe = small_recipe("align", tmp_path / "run", steps=2)
    trainer = Trainer(recipe)
    trainer.grade = grade  # type: ignore[method-assign]
    with pytest.raises(Killed):
        trainer.train()
    again = Trainer(recipe)
    assert again.step == 2
    assert again.train()["steps"] == 2 and len(read_metrics(tmp_path / "run")) == 2


def test_a_worker_process_deals_what_the_trainer_would_have_dealt(tmp_path: Path) -> None:
    for workers in (0, 1):
        recipe = small_recipe("align", tmp_path / str(workers))
        Trainer(replace(recipe, data=replace(recipe.data, workers=workers))).train()
    assert same(weights(tmp_path / "0"), weights(tmp_path / "1"))


def test_alignment_and_warm_up_lower_their_losses(tmp_path: Path) -> None:
    data = DataRecipe(image_scenes=4, video_scenes=0, pool=4, workers=0)
    common = {"data": data, "steps": 40, "budget": BudgetRecipe(keep=(0.25,), weights=(1.0,))}
    optim = OptimRecipe(lr=3e-3, warmup=5)
    Trainer(small_recipe("align", tmp_path / "align", optim=optim, **common)).train()
    Trainer(small_recipe("sft", tmp_path / "sft", init=str(tmp_path / "align"), optim=optim, **common)).train()
    align, sft = (read_metrics(tmp_path / run) for run in ("align", "sft"))
    assert align[-1]["loss"] < 0.5 * align[0]["loss"]
    assert sft[-1]["loss"] < 0.5 * sft[0]["loss"]


def test_steps_that_are_lost_leave_no_metrics(tmp_path: Path) -> None:
    """Those behind the last checkpoint of a killed run, and all of a run that was killed before its first."""

    class Killed(Exception):
        pass

    def killed(recipe: TrainRecipe, after: int) -> None:
        trainer = Trainer(recipe)
        log = trainer._log

        def log_and_die(step: int, metrics: dict[str, float]) -> None:
            log(step, metrics)
            if step == after:
                raise Killed

        trainer._log = log_and_die  # type: ignore[method-assign]
        with pytest.raises(Killed):
            trainer.train()

    recipe = small_recipe("align", tmp_path / "run", steps=6)
    killed(recipe, after=5)
    assert len(read_metrics(tmp_path / "run")) == 5
    killed(replace(recipe, seed=9, checkpoint_every=2), after=3)
    assert [m["step"] for m in read_metrics(tmp_path / "run")] == [1, 2, 3]
    Trainer(replace(recipe, seed=9, steps=2)).train()
    assert [m["step"] for m in read_metrics(tmp_path / "run")] == [1, 2]


def test_a_file_in_place_of_the_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("")
    with pytest.raises(UsageError, match="is a file; name a folder"):
        Trainer(small_recipe("align", tmp_path / "run"))


def test_a_torn_last_line_of_metrics_is_passed_over(tmp_path: Path) -> None:
    Trainer(small_recipe("align", tmp_path / "run", steps=2)).train()
    with (tmp_path / "run" / "metrics.jsonl").open("a") as lines:
        lines.write('{"step": 3, "lo')
    assert [m["step"] for m in read_metrics(tmp_path / "run")] == [1, 2]
    Trainer(small_recipe("align", tmp_path / "run", steps=4)).train()
    assert [m["step"] for m in read_metrics(tmp_path / "run")] == [1, 2, 3, 4]


@pytest.mark.parametrize("file", ["model.safetensors", "config.json", "tokenizer.json"])
def test_a_damaged_checkpoint_is_bad_input(file: str, tmp_path: Path) -> None:
    done = Trainer(small_recipe("align", tmp_path / "run", steps=1)).train()
    damaged = Path(str(done["checkpoint"])) / file
    damaged.write_bytes(damaged.read_bytes()[:100])
    with pytest.raises(InputError, match="not a whole checkpoint") as told:
        load(tmp_path / "run")
    assert told.value.reason is InputReason.DAMAGED
