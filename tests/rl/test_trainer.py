"""The trainer: every stage runs on real scenes, goes on bit for bit where it was stopped, and learns."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from small_runs import FEW_IMAGES, same, small_recipe, stop_after, untimed, weights

from entropy_vision.errors import InputError, InputReason, Terminated, UsageError
from entropy_vision.policy import EntropyVLM
from entropy_vision.rl import grpo as rl_grpo
from entropy_vision.rl.batch import Batch, Dealer
from entropy_vision.rl.checkpoint import load, load_model, newest
from entropy_vision.rl.metrics import read_metrics
from entropy_vision.rl.parallel import Team
from entropy_vision.rl.recipe import BudgetRecipe, DataRecipe, EvalRecipe, GrpoRecipe, OptimRecipe, TrainRecipe
from entropy_vision.rl.rollout import read_questions, sample, score
from entropy_vision.rl.train import run_recipes
from entropy_vision.rl.trainer import Trainer


@pytest.mark.parametrize("stage", ["align", "sft", "grpo"])
def test_a_run_stopped_by_sigterm_goes_on_bit_for_bit(stage: str, tmp_path: Path, guessing: Path) -> None:
    changes: dict[str, object] = {}
    if stage == "grpo":
        grpo = GrpoRecipe(group_size=4, max_new_tokens=24, updates=2, beta=0.05)
        changes = {**FEW_IMAGES, "init": str(guessing), "grpo": grpo}
    whole = Trainer(small_recipe(stage, tmp_path / "whole", **changes)).train()
    assert all(m["grad_norm"] > 0 for m in read_metrics(tmp_path / "whole"))

    cut = Trainer(small_recipe(stage, tmp_path / "cut", **changes))
    stop_after(cut, 2)
    with pytest.raises(Terminated) as ended:
        cut.train()
    assert ended.value.code == 143 and ended.value.result["steps"] == 2
    resumed = Trainer(small_recipe(stage, tmp_path / "cut", **changes)).train()

    assert resumed["steps"] == whole["steps"] == 4
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "cut"))
    assert resumed["reward_before"] == whole["reward_before"]
    assert resumed["reward_after"] == whole["reward_after"]
    assert untimed(tmp_path / "whole") == untimed(tmp_path / "cut") and len(untimed(tmp_path / "whole")) == 4


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


def test_what_was_left_inside_a_step_is_not_done_with_the_one_before(tmp_path: Path, guessing: Path) -> None:
    grpo = GrpoRecipe(group_size=4, max_new_tokens=8, updates=2, beta=0.0)
    changes = {**FEW_IMAGES, "init": str(guessing), "grpo": grpo, "checkpoint_updates": True}
    Trainer(small_recipe("grpo", tmp_path / "run", steps=2, **changes)).train()
    shutil.rmtree(tmp_path / "run" / "step-000002")
    with pytest.raises(UsageError, match="step 1 already and inside the next, after 1 of its updates; steps = 1"):
        Trainer(small_recipe("grpo", tmp_path / "run", steps=1, **changes))


def test_the_decoders_dropout_is_off(tmp_path: Path, guessing: Path) -> None:
    """With it, sampler and scorer would be two policies; the tower's blocks need training mode to recompute."""
    grpo = GrpoRecipe(group_size=4, max_new_tokens=8, beta=0.0)
    trainer = Trainer(small_recipe("grpo", tmp_path / "run", init=str(guessing), grpo=grpo, steps=1, **FEW_IMAGES))
    for layer in trainer.model.language.base_model.layers:
        layer.self_attn.attention_dropout = 0.5
    trainer.train()
    model, batch = trainer.model, trainer.validation()[0]
    assert model.encoder.training
    drawn = sample(model, trainer.dialect, read_questions(model, trainer.dialect, batch), group=2, max_new_tokens=8)
    scored = score(model, trainer.dialect, read_questions(model, trainer.dialect, batch), drawn.ids, drawn.mask)
    torch.testing.assert_close(scored, drawn.logp, atol=1e-5, rtol=0)


def test_a_checkpoint_says_what_its_last_stage_was_trained_on(tmp_path: Path, guessing: Path) -> None:
    grpo = GrpoRecipe(group_size=4, max_new_tokens=9, beta=0.0)
    data = DataRecipe(image_scenes=2, video_scenes=0, pool=4, workers=0, image_size=64, difficulty=0.1)
    changes = {**FEW_IMAGES, "data": data, "init": str(guessing), "grpo": grpo, "steps": 1}
    Trainer(small_recipe("grpo", tmp_path / "run", **changes)).train()
    inputs = load_model(tmp_path / "run").config.inputs
    assert (inputs["image_size"], inputs["difficulty"], inputs["max_new_tokens"]) == (64, 0.1, 9)


def test_a_measurement_works_on_no_more_tokens_at_a_time_than_a_step(tmp_path: Path) -> None:
    data = DataRecipe(image_scenes=2, video_scenes=0, pool=4, workers=0, micro_tokens=80)
    trainer = Trainer(small_recipe("sft", tmp_path / "run", data=data, eval=EvalRecipe(scenes=5)))
    counts = [batch.patches.counts for batch in trainer.validation()]
    assert sum(map(len, counts)) == 5 and max(map(sum, counts)) <= 80 and len(counts) == 3


def test_the_wait_for_data_is_part_of_a_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deal = Dealer.deal

    def slowly(self: Dealer, *step: Any) -> list[Batch]:
        time.sleep(0.3)
        return deal(self, *step)

    monkeypatch.setattr(Dealer, "deal", slowly)
    Trainer(small_recipe("align", tmp_path / "run", steps=2)).train()
    for logged in read_metrics(tmp_path / "run"):
        parts = sum(value for name, value in logged.items() if name.startswith("seconds_"))
        assert 0.3 < logged["seconds_data"] < parts <= logged["seconds"] + 1e-5


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


def _spoiled(trainer: Trainer, at: int) -> None:
    """Let the gradient of a step be infinite at one weight."""
    add = trainer.team.__class__.add_gradients

    class Spoiling(Team):
        def add_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
            held = list(parameters)
            add(self, held)
            if trainer.step == at:
                next(p for p in held if p.grad is not None).grad.view(-1)[0] = float("inf")  # type: ignore[union-attr]

    trainer.team = Spoiling()


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_what_is_not_finite_ends_the_run_with_its_batch_and_without_a_checkpoint(
    where: str, tmp_path: Path, guessing: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grpo = GrpoRecipe(group_size=4, max_new_tokens=24, updates=2, beta=0.05)
    recipe = small_recipe("grpo", tmp_path / "run", init=str(guessing), grpo=grpo, checkpoint_every=1, **FEW_IMAGES)
    trainer = Trainer(recipe)
    if where == "gradient":
        _spoiled(trainer, at=2)
    else:
        plain, seen = rl_grpo.score, [0]

        def scored(model: EntropyVLM, *rest: Any, **more: Any) -> torch.Tensor:
            logp = plain(model, *rest, **more)
            seen[0] += model is trainer.model and trainer.step == 2
            return logp * float("nan") if seen[0] == 2 else logp  # the second update of the third step

        monkeypatch.setattr(rl_grpo, "score", scored)
    with pytest.raises(
        UsageError, match=rf"step 3: the {where} is (inf|nan); its batch is in .*not-finite-000003-0"
    ) as told:
        trainer.train()
    assert str(tmp_path / "run/step-000002") in str(told.value)
    assert newest(tmp_path / "run") == tmp_path / "run" / "step-000002"
    assert all(torch.isfinite(v).all() for v in weights(tmp_path / "run").values())
    with safe_open(tmp_path / "run" / "not-finite-000003-0.safetensors", "pt") as held:
        facts = {name: json.loads(text) for name, text in held.metadata().items()}
        assert held.get_tensor("0.pixels").shape[0] == sum(facts["counts"][0])
        assert len(held.get_tensor("0.ids")) == 4 * len(facts["asks"][0]) == len(facts["buffer"]["parts"][0]["texts"])
        assert facts["buffer"]["turn"] == (where == "loss")


def test_weights_that_an_update_has_poisoned_are_not_saved(tmp_path: Path) -> None:
    trainer = Trainer(small_recipe("align", tmp_path / "run", checkpoint_every=1))
    update = trainer.optimizer.step

    def step(factor: float) -> None:
        update(factor)
        if trainer.step == 1:
            with torch.no_grad():
                trainer.model.projector.look.weight[0, 0] = float("nan")

    trainer.optimizer.step = step  # type: ignore[method-assign]
    with pytest.raises(UsageError, match=r"after step 2 projector\.look\.weight is not finite, so nothing was saved"):
        trainer.train()
    assert newest(tmp_path / "run") == tmp_path / "run" / "step-000001"


def test_a_damaged_video_is_left_out_and_counted_and_nothing_takes_its_place(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = DataRecipe(
        image_scenes=0, video_scenes=3, frame_count=4, pool=3, workers=0, video_folder=str(tmp_path / "videos")
    )
    recipe = small_recipe("align", tmp_path / "run", data=data, steps=2, eval=EvalRecipe(scenes=1))
    ((_, _), (videos, _)) = Trainer(recipe)._media("train")
    files = [videos.source.path(i) for i in range(3)]  # type: ignore[attr-defined]
    for i in range(3):
        _ = videos[i]
    files[1].write_bytes(files[1].read_bytes()[:200])
    trainer = Trainer(recipe)
    counts = []
    deal = Dealer.deal

    def dealt(self: Dealer, step: int) -> list[Batch]:
        batches = deal(self, step)
        counts.append([len(b.patches.counts) for b in batches])
        return batches

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Dealer, "deal", dealt)
        trainer.train()
    assert counts == [[2], [2]]
    assert [m["skipped"] for m in read_metrics(tmp_path / "run")] == [1, 1]
    told = capsys.readouterr().err
    assert told.count(f"left out: {files[1]}") == 1 and "[damaged]" in told
    for file in files:
        file.write_bytes(b"no video")
    for workers in (0, 1):
        other = replace(recipe, out=str(tmp_path / f"other{workers}"), data=replace(data, workers=workers))
        with pytest.raises(InputError, match=r"^step 1: none of its 3 scenes can be read \[damaged\]$"):
            next(Trainer(other)._dealt(0))
