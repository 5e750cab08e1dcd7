"""The trainer: every stage runs on real scenes, goes on bit for bit where it was stopped, and learns."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from entropy_vision.config import to_toml
from entropy_vision.errors import InputError, InputReason, Terminated, UsageError
from entropy_vision.rl.batch import Batch, make_batch
from entropy_vision.rl.checkpoint import load, newest
from entropy_vision.rl.grpo import Rolled, learn, roll
from entropy_vision.rl.parallel import current_team, in_team
from entropy_vision.rl.recipe import (
    BudgetRecipe,
    DataRecipe,
    EvalRecipe,
    GrpoRecipe,
    OptimRecipe,
    PolicyRecipe,
    TrainRecipe,
)
from entropy_vision.rl.rollout import Rollouts
from entropy_vision.rl.train import run_recipes
from entropy_vision.rl.trainer import Trainer, read_metrics


def _recipe(stage: str, out: Path, **changes: object) -> TrainRecipe:
    settings: dict[str, object] = {
        "stage": stage,
        "out": str(out),
        "steps": 4,
        "checkpoint_every": 100,
        "policy": PolicyRecipe(width=32, layers=1, heads=2),
        "data": DataRecipe(image_scenes=2, video_scenes=1, frame_count=4, pool=20, workers=0),
        "budget": BudgetRecipe(keep=(0.25, 0.125), weights=(0.5, 0.5)),
        "optim": OptimRecipe(lr=1e-3, warmup=2),
        "grpo": GrpoRecipe(group_size=4, max_new_tokens=6, updates=2, beta=0.05),
        "eval": EvalRecipe(scenes=2),
    }
    return TrainRecipe(**(settings | changes))  # type: ignore[arg-type]


def _weights(run: Path) -> dict[str, torch.Tensor]:
    folder = newest(run)
    assert folder is not None
    return load_file(folder / "model.safetensors") | load_file(folder / "optimizer.safetensors")


def _same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


FEW_IMAGES: dict[str, object] = {
    "data": DataRecipe(image_scenes=4, video_scenes=0, pool=4, workers=0),
    "budget": BudgetRecipe(keep=(0.125,), weights=(1.0,)),
    "optim": OptimRecipe(lr=3e-3, warmup=5),
}


@pytest.fixture(scope="module")
def guessing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A policy that writes the form and an answer of the right kind, and is right by chance."""
    run = tmp_path_factory.mktemp("runs") / "sft"
    Trainer(_recipe("sft", run, steps=60, **FEW_IMAGES)).train()
    return run


@pytest.mark.parametrize("stage", ["align", "sft", "grpo"])
def test_a_run_stopped_by_sigterm_goes_on_bit_for_bit(stage: str, tmp_path: Path, guessing: Path) -> None:
    changes: dict[str, object] = {}
    if stage == "grpo":
        grpo = GrpoRecipe(group_size=4, max_new_tokens=24, updates=2, beta=0.05)
        changes = {**FEW_IMAGES, "init": str(guessing), "grpo": grpo}
    whole = Trainer(_recipe(stage, tmp_path / "whole", **changes)).train()
    assert all(m["grad_norm"] > 0 for m in read_metrics(tmp_path / "whole"))

    cut = Trainer(_recipe(stage, tmp_path / "cut", **changes))
    log = cut._log

    def log_and_stop(step: int, metrics: dict[str, float]) -> None:
        log(step, metrics)
        if step == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    cut._log = log_and_stop  # type: ignore[method-assign]
    with pytest.raises(Terminated) as ended:
        cut.train()
    assert ended.value.code == 143 and ended.value.result["steps"] == 2
    resumed = Trainer(_recipe(stage, tmp_path / "cut", **changes)).train()

    assert resumed["steps"] == whole["steps"] == 4
    assert _same(_weights(tmp_path / "whole"), _weights(tmp_path / "cut"))
    assert resumed["reward_before"] == whole["reward_before"]
    assert resumed["reward_after"] == whole["reward_after"]
    timing = ("seconds", "cpu_seconds")
    records = [
        [{k: v for k, v in r.items() if k not in timing} for r in read_metrics(tmp_path / run)]
        for run in ("whole", "cut")
    ]
    assert records[0] == records[1] and len(records[0]) == 4


def test_a_run_that_is_done_is_not_done_again(tmp_path: Path) -> None:
    first = Trainer(_recipe("align", tmp_path / "run", steps=2)).train()
    before = _weights(tmp_path / "run")
    assert Trainer(_recipe("align", tmp_path / "run", steps=2)).train() == first
    assert _same(before, _weights(tmp_path / "run"))


def test_a_run_does_not_go_on_with_other_settings(tmp_path: Path) -> None:
    Trainer(_recipe("align", tmp_path / "run", steps=2)).train()
    with pytest.raises(UsageError, match=r"other settings.*seed = 5"):
        Trainer(_recipe("align", tmp_path / "run", steps=2, seed=5))
    with pytest.raises(UsageError, match="step 2 already"):
        Trainer(_recipe("align", tmp_path / "run", steps=1))


def test_a_run_that_is_done_goes_on_with_more_steps(tmp_path: Path) -> None:
    """As if it had been asked for all of them at once."""
    Trainer(_recipe("sft", tmp_path / "more", steps=2)).train()
    more = Trainer(_recipe("sft", tmp_path / "more", steps=4, checkpoint_every=1)).train()
    once = Trainer(_recipe("sft", tmp_path / "once", steps=4)).train()
    assert {**more, "checkpoint": ""} == {**once, "checkpoint": ""} and more["steps"] == 4
    assert _same(_weights(tmp_path / "more"), _weights(tmp_path / "once"))


@pytest.mark.parametrize(("cooldown", "end"), [(0, 2), (3, 5), (9, 7)])
def test_a_gate_cools_a_run_down_and_ends_it_for_good(cooldown: int, end: int, tmp_path: Path) -> None:
    recipe = _recipe("sft", tmp_path / "run", steps=7, optim=OptimRecipe(warmup=1, cooldown=cooldown))
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


def test_a_kill_while_the_result_is_measured_costs_no_step(tmp_path: Path) -> None:
    class Killed(Exception):
        pass

    def grade(temperature: float) -> tuple[float, float]:
        if trainer.step:
            raise Killed
        return 0.0, 0.0

    recipe = _recipe("align", tmp_path / "run", steps=2)
    trainer = Trainer(recipe)
    trainer.grade = grade  # type: ignore[method-assign]
    with pytest.raises(Killed):
        trainer.train()
    again = Trainer(recipe)
    assert again.step == 2
    assert again.train()["steps"] == 2 and len(read_metrics(tmp_path / "run")) == 2


def test_grpo_keeps_the_reference_it_began_with(tmp_path: Path) -> None:
    first = Trainer(_recipe("sft", tmp_path / "sft", steps=2)).train()
    recipe = _recipe("grpo", tmp_path / "grpo", steps=1, init=str(tmp_path / "sft"))
    Trainer(recipe).train()
    Trainer(_recipe("sft", tmp_path / "sft", steps=4)).train()  # the run it came from goes on
    again = Trainer(replace(recipe, steps=2))
    assert again.facts["init"] == first["checkpoint"]
    held = load_file(Path(str(first["checkpoint"])) / "model.safetensors")
    assert again.context.reference is not None
    state = again.context.reference.state_dict()
    assert all(torch.equal(state[name], value) for name, value in held.items())


def test_a_worker_process_deals_what_the_trainer_would_have_dealt(tmp_path: Path) -> None:
    for workers in (0, 1):
        recipe = _recipe("align", tmp_path / str(workers))
        Trainer(replace(recipe, data=replace(recipe.data, workers=workers))).train()
    assert _same(_weights(tmp_path / "0"), _weights(tmp_path / "1"))


@pytest.mark.parametrize("stage", ["align", "sft"])
def test_two_processes_compute_the_step_of_one(stage: str, tmp_path: Path) -> None:
    data = DataRecipe(image_scenes=4, video_scenes=3, frame_count=4, pool=20, workers=0)
    for processes in (1, 2):
        recipe = _recipe(stage, tmp_path / str(processes), data=data, processes=processes, steps=3)
        result = in_team(processes, run_recipes, [recipe])[0]
        assert result["steps"] == 3
    one, two = (read_metrics(tmp_path / str(n)) for n in (1, 2))
    assert one[0]["loss"] == pytest.approx(two[0]["loss"], rel=1e-5)
    assert one[0]["grad_norm"] == pytest.approx(two[0]["grad_norm"], rel=1e-4)
    # from the second step on the optimiser's own rounding (Muon orthogonalises in bfloat16) parts them a little
    assert [m["loss"] for m in one] == pytest.approx([m["loss"] for m in two], rel=1e-2)


def test_two_processes_share_groups_and_end_alike(tmp_path: Path, guessing: Path) -> None:
    grpo = GrpoRecipe(group_size=4, max_new_tokens=24, beta=0.05)
    recipe = _recipe("grpo", tmp_path / "run", init=str(guessing), grpo=grpo, **{**FEW_IMAGES, "processes": 2})
    result = in_team(2, run_recipes, [recipe])[0]
    metrics = read_metrics(tmp_path / "run")
    assert result["steps"] == len(metrics) == 4
    assert all(0 <= m["reward"] <= 1.1 and m["grad_norm"] > 0 for m in metrics)


@pytest.mark.slow
def test_torchrun_takes_the_same_line_and_one_process_speaks(tmp_path: Path) -> None:
    config = tmp_path / "run.toml"
    config.write_text(to_toml(_recipe("align", tmp_path / "run", data=DataRecipe(video_scenes=0, workers=0, pool=20))))
    verb = ["-m", "entropy_vision.cli", "train", str(config), "--json"]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    done = subprocess.run([*launcher, *verb], capture_output=True, text=True, check=True)
    result = json.loads(done.stdout)
    assert result["steps"] == 4 and len(read_metrics(tmp_path / "run")) == 4


def _fail_in(rank: int) -> None:
    team = current_team()
    if team.rank == rank:
        raise UsageError(f"process {rank} says what is wrong")
    team.total(1.0)


@pytest.mark.parametrize("rank", [0, 1])
def test_whoever_fails_in_a_team_is_heard(rank: int) -> None:
    with pytest.raises(UsageError, match=f"process {rank} says"):
        in_team(2, _fail_in, rank)


@pytest.mark.parametrize("setting", ["processes", "workers", "measuring"])
def test_a_signal_to_the_whole_group_saves_and_exits_143(setting: str, tmp_path: Path) -> None:
    """As schedulers send it: every process of the job gets it, some of them twice."""
    data = DataRecipe(image_scenes=2, video_scenes=2, frame_count=4, pool=20, workers=int(setting == "workers"))
    settings: dict[str, object] = {"steps": 100_000, "data": data, "processes": 1 + (setting == "processes")}
    if setting == "measuring":  # most of the time is spent outside of steps
        settings["eval"] = EvalRecipe(scenes=20, every=1)
        settings["processes"] = 2
    config = tmp_path / "run.toml"
    config.write_text(to_toml(_recipe("sft", tmp_path / "run", **settings)))
    verb = [sys.executable, "-m", "entropy_vision.cli", "train", str(config), "--json"]
    with subprocess.Popen(
        verb, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as job:
        while len(read_metrics(tmp_path / "run")) < 3:
            assert job.poll() is None, job.stderr and job.stderr.read()
            time.sleep(0.1)
        os.killpg(job.pid, signal.SIGTERM)
        out, err = job.communicate(timeout=60)
    assert job.returncode == 143, err
    result = json.loads(out)
    assert result["steps"] >= 3 and "saved" in err and "Traceback" not in err
    assert newest(tmp_path / "run") == Path(result["checkpoint"])
    assert {"reward_before", "reward_after"} <= result.keys()


def test_an_error_in_a_team_is_the_error_of_the_call(tmp_path: Path) -> None:
    data = DataRecipe(image_scenes=2, video_scenes=2, workers=0)
    with pytest.raises(UsageError, match="no-such-tower"):
        in_team(2, run_recipes, [_recipe("align", tmp_path, policy=PolicyRecipe(tower="no-such-tower"), data=data)])


def test_alignment_and_warm_up_lower_their_losses(tmp_path: Path) -> None:
    data = DataRecipe(image_scenes=4, video_scenes=0, pool=4, workers=0)
    common = {"data": data, "steps": 40, "budget": BudgetRecipe(keep=(0.25,), weights=(1.0,))}
    optim = OptimRecipe(lr=3e-3, warmup=5)
    Trainer(_recipe("align", tmp_path / "align", optim=optim, **common)).train()
    Trainer(_recipe("sft", tmp_path / "sft", init=str(tmp_path / "align"), optim=optim, **common)).train()
    align, sft = (read_metrics(tmp_path / run) for run in ("align", "sft"))
    assert align[-1]["loss"] < 0.5 * align[0]["loss"]
    assert sft[-1]["loss"] < 0.5 * sft[0]["loss"]


def test_grpo_raises_the_reward_of_a_policy_that_guesses(tmp_path: Path, guessing: Path) -> None:
    """On four pictures it can only learn which answer is right where: a sign error would lower the reward."""
    grpo = GrpoRecipe(group_size=8, max_new_tokens=24, beta=0.01)
    Trainer(_recipe("grpo", tmp_path / "grpo", init=str(guessing), steps=24, grpo=grpo, **FEW_IMAGES)).train()
    metrics = read_metrics(tmp_path / "grpo")
    rewards = [m["reward"] for m in metrics]
    assert sum(rewards[-8:]) / 8 > sum(rewards[:8]) / 8 + 0.05
    assert all(m["kl"] >= 0 for m in metrics) and metrics[-1]["kl"] > 0


def test_grpo_without_a_start_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="init"):
        _recipe("grpo", tmp_path / "x")


def test_a_torn_last_line_of_metrics_is_passed_over(tmp_path: Path) -> None:
    Trainer(_recipe("align", tmp_path / "run", steps=2)).train()
    with (tmp_path / "run" / "metrics.jsonl").open("a") as lines:
        lines.write('{"step": 3, "lo')
    assert [m["step"] for m in read_metrics(tmp_path / "run")] == [1, 2]
    Trainer(_recipe("align", tmp_path / "run", steps=4)).train()
    assert [m["step"] for m in read_metrics(tmp_path / "run")] == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("section", "changes", "told"),
    [
        (DataRecipe, {"pool": 0}, "data.pool"),
        (DataRecipe, {"workers": -1}, "data.workers"),
        (DataRecipe, {"image_scenes": 0, "video_scenes": 0}, "nothing to train on"),
        (BudgetRecipe, {"keep": (), "weights": ()}, "not empty"),
        (BudgetRecipe, {"keep": (0.5,), "weights": (0.0,)}, "not all 0"),
        (BudgetRecipe, {"keep": (1.5,), "weights": (1.0,)}, r"\(0, 1\]"),
        (OptimRecipe, {"lr": -1.0}, "optim.lr must be above 0, got -1"),
        (OptimRecipe, {"lr": float("nan")}, "optim.lr"),
        (PolicyRecipe, {"heads": 5}, "policy.heads"),
        (GrpoRecipe, {"group_size": 1}, "grpo.group_size must be at least 2"),
        (GrpoRecipe, {"updates": 0}, "grpo.updates"),
        (GrpoRecipe, {"temperature": 0.0}, "grpo.temperature must be above 0"),
        (EvalRecipe, {"scenes": 0}, "eval.scenes"),
    ],
)
def test_settings_that_cannot_work_are_told_before_anything_is_done(
    section: type, changes: dict[str, object], told: str
) -> None:
    with pytest.raises(UsageError, match=told):
        section(**changes)


def test_more_processes_than_scenes_are_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="3 processes are too many"):
        _recipe("align", tmp_path, processes=3, data=DataRecipe(image_scenes=4, video_scenes=2))
    with pytest.raises(UsageError, match=r"eval\.scenes"):
        _recipe("align", tmp_path, processes=2, eval=EvalRecipe(scenes=1), data=DataRecipe())


@pytest.mark.parametrize("file", ["model.safetensors", "config.json", "tokenizer.json"])
def test_a_damaged_checkpoint_is_bad_input(file: str, tmp_path: Path) -> None:
    done = Trainer(_recipe("align", tmp_path / "run", steps=1)).train()
    damaged = Path(str(done["checkpoint"])) / file
    damaged.write_bytes(damaged.read_bytes()[:100])
    with pytest.raises(InputError, match="not a whole checkpoint") as told:
        load(tmp_path / "run")
    assert told.value.reason is InputReason.DAMAGED


def _joined(batch: Batch, rolled: list[Rolled]) -> Rolled:
    """The completions of several batches as those of one."""
    longest = max(r.rollouts.mask.shape[1] for r in rolled)

    def padded(name: str) -> torch.Tensor:
        parts = [getattr(r.rollouts, name) for r in rolled]
        return torch.cat([torch.nn.functional.pad(part, (0, longest - part.shape[1])) for part in parts])

    rollouts = Rollouts(
        *(padded(name) for name in ("ids", "mask", "logp", "entropy")),
        torch.cat([r.rollouts.truncated for r in rolled]),
        [text for r in rolled for text in r.rollouts.texts],
    )
    sums = {name: sum(r.sums[name] for r in rolled) for name in rolled[0].sums}
    return Rolled(batch, rollouts, torch.cat([r.rewards for r in rolled]), sums)


@pytest.mark.parametrize("change", [{"loss": "dr_grpo"}, {"scale": "batch"}, {"loss": "dapo", "equal_groups": "skip"}])
def test_a_grpo_step_does_not_depend_on_how_its_scenes_are_parted(
    change: dict[str, object], tmp_path: Path, guessing: Path
) -> None:
    """One batch of four pictures, or four batches of one: the same loss and the same gradient."""
    grpo = GrpoRecipe(group_size=4, max_new_tokens=24, beta=0.05, **change)  # type: ignore[arg-type]
    trainer = Trainer(_recipe("grpo", tmp_path / "run", init=str(guessing), grpo=grpo, **FEW_IMAGES))
    ((scored, _), _) = trainer._media("train")
    scenes = [scored[i] for i in range(4)]
    parts = [make_batch([scene], trainer.selector, 0.125, None) for scene in scenes]
    rolled = [roll(trainer.context, part, torch.Generator().manual_seed(3)) for part in parts]
    assert len({r.rollouts.mask.shape[1] for r in rolled}) > 1  # of different lengths
    joined = _joined(make_batch(scenes, trainer.selector, 0.125, None), rolled)
    seen = []
    for rolls in ([joined], rolled):
        grads: list[torch.Tensor] = []

        def update(grads: list[torch.Tensor] = grads) -> float:
            grads += [p.grad.clone() for p in trainer.model.parameters() if p.grad is not None]
            trainer.model.zero_grad()
            return 0.0

        metrics = learn(trainer.context, rolls, update)
        seen.append((metrics["loss"], torch.cat([g.flatten() for g in grads])))
    assert seen[0][0] == pytest.approx(seen[1][0], abs=1e-6)
    assert seen[0][1].abs().max() > 0
    torch.testing.assert_close(seen[0][1], seen[1][1], rtol=1e-4, atol=1e-6)
