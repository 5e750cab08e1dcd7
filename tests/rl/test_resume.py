"""Runs go on bit for bit from every place a checkpoint is made: between steps and inside one, stopped or killed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from small_runs import FEW_IMAGES, same, small_recipe, stop_inside, untimed, weights

from entropy_vision.config import to_toml
from entropy_vision.errors import Terminated, UsageError
from entropy_vision.rl import checkpoint
from entropy_vision.rl.metrics import read_metrics
from entropy_vision.rl.parallel import in_team
from entropy_vision.rl.recipe import GrpoRecipe, OptimRecipe, TrainRecipe
from entropy_vision.rl.train import run_recipes
from entropy_vision.rl.trainer import Trainer

_BY_ADAMW = {"optim": OptimRecipe(lr=3e-3, muon_lr=0.0, warmup=5)}


def _recipe(run: Path, guessing: Path, steps: int, **changes: object) -> TrainRecipe:
    grpo = GrpoRecipe(group_size=4, max_new_tokens=24, updates=2, beta=0.05)
    settings = {**FEW_IMAGES, "init": str(guessing), "grpo": grpo, "checkpoint_every": 1, "checkpoint_updates": True}
    return small_recipe("grpo", run, steps=steps, **(settings | changes))


def _left_at(place: str, whole: Path, run: Path) -> None:
    """The folder of a run as it stood when the checkpoint `place` had just been made."""
    run.mkdir()
    for name in (place, "reference"):
        shutil.copytree(whole / name, run / name)
    shutil.copy(whole / "metrics.jsonl", run)


@pytest.mark.parametrize(
    ("steps", "processes", "parallel", "changes", "places"),
    [
        (3, 1, "replicate", {}, ["step-000000.1", "step-000001", "step-000002.1"]),
        pytest.param(12, 1, "replicate", {}, None, marks=pytest.mark.slow),
        pytest.param(12, 2, "replicate", {}, None, marks=pytest.mark.slow),
        pytest.param(12, 2, "shard", _BY_ADAMW, None, marks=pytest.mark.slow),
        pytest.param(12, 2, "shard", {"checkpoint_async": True}, None, marks=pytest.mark.slow),
    ],
)
def test_a_run_goes_on_bit_for_bit_from_every_place(
    steps: int,
    processes: int,
    parallel: str,
    changes: dict[str, object],
    places: list[str] | None,
    tmp_path: Path,
    guessing: Path,
) -> None:
    """Two updates a step: every place between them and between steps. The whole run keeps all its checkpoints."""
    recipe = _recipe(
        tmp_path / "whole", guessing, steps, processes=processes, parallel=parallel, checkpoint_keep=100, **changes
    )
    in_team(processes, run_recipes, [recipe])
    whole = tmp_path / "whole"
    made = sorted(p.name for p in whole.glob("step-*"))
    assert len(made) == 2 * steps and all(m["bounded"] >= 0 < m["grad_norm"] for m in read_metrics(whole))
    for place in places or made[:-1]:
        run = tmp_path / place
        _left_at(place, whole, run)
        in_team(processes, run_recipes, [replace(recipe, out=str(run))])
        assert same(weights(whole), weights(run)), place
        assert untimed(whole) == untimed(run), place
        shutil.rmtree(run)


def test_a_stop_inside_a_step_is_answered_there(tmp_path: Path, guessing: Path) -> None:
    whole = _recipe(tmp_path / "whole", guessing, 2, checkpoint_updates=False)
    Trainer(whole).train()
    recipe = replace(whole, out=str(tmp_path / "cut"))
    cut = Trainer(recipe)
    stop_inside(cut, 1)
    with pytest.raises(Terminated, match="stopped in step 2 after update 1, saved"):
        cut.train()
    assert checkpoint.newest(tmp_path / "cut") == tmp_path / "cut" / "step-000001.1"
    with pytest.raises(UsageError, match="by 1 processes and cannot go on with 2"):
        in_team(2, run_recipes, [replace(recipe, processes=2)])
    Trainer(recipe).train()
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "cut"))
    assert untimed(tmp_path / "whole") == untimed(tmp_path / "cut")


@pytest.mark.slow
@pytest.mark.parametrize(("processes", "parallel"), [(1, "replicate"), (2, "replicate"), (2, "shard")])
def test_a_run_that_is_killed_again_and_again_ends_as_if_it_had_not_been(
    processes: int, parallel: str, tmp_path: Path, guessing: Path
) -> None:
    recipe = _recipe(tmp_path / "whole", guessing, 12, processes=processes, parallel=parallel)
    in_team(processes, run_recipes, [recipe])
    config, run = tmp_path / "run.toml", tmp_path / "killed"
    config.write_text(to_toml(replace(recipe, out=str(run))))
    line = [sys.executable, "-m", "entropy_vision.cli", "train", str(config)]
    kills = 0
    for after in (2, 5, 9):
        with subprocess.Popen(
            line, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True
        ) as job:
            while len(read_metrics(run)) < after and job.poll() is None:
                time.sleep(0.02)
            if job.poll() is None:
                os.killpg(job.pid, signal.SIGKILL)
                kills += 1
    assert kills == 3
    subprocess.run(line, check=True, capture_output=True)
    assert same(weights(tmp_path / "whole"), weights(run))
    assert untimed(tmp_path / "whole") == untimed(run)
