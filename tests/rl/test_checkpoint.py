"""Checkpoints written behind the steps: what is in them, what a kill or a full disk leaves, how many are kept."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.torch import load_file
from small_runs import FEW_IMAGES, same, small_recipe, stop_after, weights

from entropy_vision.config import to_toml
from entropy_vision.errors import Terminated, UsageError, refused_by_machine
from entropy_vision.rl import checkpoint
from entropy_vision.rl.metrics import read_metrics
from entropy_vision.rl.parallel import in_team
from entropy_vision.rl.recipe import DataRecipe, GrpoRecipe, OptimRecipe, TrainRecipe
from entropy_vision.rl.train import run_recipes
from entropy_vision.rl.trainer import Trainer

_IMAGES = DataRecipe(image_scenes=2, video_scenes=0, pool=4, workers=0)


def _recipe(run: Path, steps: int, **changes: object) -> TrainRecipe:
    settings: dict[str, object] = {"data": _IMAGES, "checkpoint_every": 1, "steps": steps}
    return small_recipe("align", run, **(settings | changes))


def _write_late(patch: pytest.MonkeyPatch) -> None:
    """Let every write begin after the update that follows it, where there is one: what it holds is of before."""
    updated = threading.Condition()
    made = 0
    write, update = Trainer._write, Trainer._update

    def counted(self: Trainer, step: int) -> float:
        nonlocal made
        norm = update(self, step)
        with updated:
            made += 1
            updated.notify_all()
        return norm

    def late(self: Trainer, moment: checkpoint.Moment) -> None:
        of = self.recipe.grpo.updates * int(moment.facts["step"]) + int(moment.facts.get("turn", 0))  # type: ignore[call-overload]
        with updated:
            came = updated.wait_for(lambda: made > of, timeout=60 if of < self.recipe.grpo.updates * self.end else 0)
        assert came == (of < self.recipe.grpo.updates * self.end)
        write(self, moment)

    patch.setattr(Trainer, "_write", late)
    patch.setattr(Trainer, "_update", counted)


def _held(folder: Path) -> dict[str, object]:
    """All there is in a checkpoint: files by their bytes, but a distributed checkpoint by its tensors."""
    held: dict[str, object] = {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()}
    if (folder / "optimizer").is_dir():
        state = weights(folder.parent, folder)
        held["optimizer"] = {name: value.tolist() for name, value in state.items()}
    return held


@pytest.mark.parametrize(("processes", "parallel"), [(1, "replicate"), (2, "replicate"), (2, "shard")])
def test_what_is_written_behind_the_steps_is_what_was_there(
    processes: int, parallel: str, tmp_path: Path, guessing: Path
) -> None:
    """Every file of every checkpoint, inside a step and between steps; a run goes on from them bit for bit."""
    changes = {**FEW_IMAGES, "init": str(guessing), "steps": 2, "checkpoint_every": 1, "checkpoint_updates": True}
    grpo = GrpoRecipe(group_size=4, max_new_tokens=24, updates=2, beta=0.05)
    optim = OptimRecipe(lr=3e-3, muon_lr=0.02, warmup=2)
    changes |= {"grpo": grpo, "optim": optim, "processes": processes, "parallel": parallel, "checkpoint_keep": 9}
    at_once = small_recipe("grpo", tmp_path / "at_once", **changes)
    in_team(processes, run_recipes, [at_once])
    behind = replace(at_once, out=str(tmp_path / "behind"), checkpoint_async=True)
    with pytest.MonkeyPatch.context() as patch:
        _write_late(patch)
        in_team(processes, run_recipes, [behind])
    made = sorted(p.name for p in (tmp_path / "behind").glob("step-*"))
    assert made == ["step-000000.1", "step-000001", "step-000001.1", "step-000002"]
    for name in made:
        one, other = (_held(tmp_path / run / name) for run in ("at_once", "behind"))
        assert one.keys() == other.keys() and [k for k in one if one[k] != other[k]] == [], name
    run = tmp_path / "resumed"
    run.mkdir()
    for name in ("step-000000.1", "reference"):
        shutil.copytree(tmp_path / "behind" / name, run / name)
    shutil.copy(tmp_path / "behind" / "metrics.jsonl", run)
    in_team(processes, run_recipes, [replace(behind, out=str(run))])
    assert same(weights(run), weights(tmp_path / "at_once"))


def test_low_rank_maps_are_written_behind_the_steps(tmp_path: Path, guessing: Path) -> None:
    pytest.importorskip("peft", reason="the extra [lora] is not installed")
    grpo = GrpoRecipe(updates=1)  # as an update is counted above
    at_once = _recipe(tmp_path / "at_once", 2, init=str(guessing), lora=2, grpo=grpo)
    Trainer(at_once).train()
    with pytest.MonkeyPatch.context() as patch:
        _write_late(patch)
        Trainer(replace(at_once, out=str(tmp_path / "behind"), checkpoint_async=True)).train()
    for name in ("step-000001", "step-000002"):
        for file in ("model", "trained", "optimizer"):
            one, other = (load_file(tmp_path / run / name / f"{file}.safetensors") for run in ("at_once", "behind"))
            assert same(one, other), (name, file)


def test_a_stop_is_answered_when_everything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = checkpoint.save

    def slow(*given: object, **more: object) -> Path:
        time.sleep(1)
        return write(*given, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(checkpoint, "save", slow)
    trainer = Trainer(_recipe(tmp_path / "run", 9, checkpoint_async=True))
    stop_after(trainer, 2)
    with pytest.raises(Terminated) as ended:
        trainer.train()
    assert ended.value.result["checkpoint"] == str(tmp_path / "run" / "step-000002")
    assert sorted(p.name for p in (tmp_path / "run").glob("step-*")) == ["step-000001", "step-000002"]


_DIES_WRITING = """
import sys, time
from entropy_vision.rl import checkpoint
from entropy_vision.rl.trainer import Trainer
from entropy_vision.cli import main
write_facts = checkpoint.write_facts
def stuck(folder, facts):
    if facts["step"] == 2:
        while Trainer.logged < 3: time.sleep(0.01)   # the steps go on meanwhile
        (folder / "here").touch()
        time.sleep(600)
    write_facts(folder, facts)
log = Trainer._log
def logged(self, step, metrics):
    log(self, step, metrics)
    Trainer.logged = step
Trainer.logged, Trainer._log, checkpoint.write_facts = 0, logged, stuck
sys.exit(main(["train", sys.argv[1]]))
"""


def test_a_kill_in_the_middle_of_a_write_leaves_the_checkpoint_before_it(tmp_path: Path) -> None:
    recipe = _recipe(tmp_path / "run", 4, checkpoint_async=True, checkpoint_keep=1)
    (tmp_path / "run.toml").write_text(to_toml(recipe))
    line = [sys.executable, "-c", _DIES_WRITING, str(tmp_path / "run.toml")]
    with subprocess.Popen(line, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True) as job:
        while not list((tmp_path / "run").glob("*.tmp/here")):
            assert job.poll() is None, job.stderr and job.stderr.read()
            time.sleep(0.02)
        os.killpg(job.pid, signal.SIGKILL)
    assert checkpoint.newest(tmp_path / "run") == tmp_path / "run" / "step-000001"
    assert len(read_metrics(tmp_path / "run")) == 3
    Trainer(recipe).train()
    Trainer(replace(recipe, out=str(tmp_path / "whole"), checkpoint_async=False)).train()
    assert same(weights(tmp_path / "run"), weights(tmp_path / "whole"))
    assert sorted(p.name for p in (tmp_path / "run").glob("step-*")) == ["step-000004"]


@contextmanager
def _at_most_64_kb_a_file() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize(("processes", "parallel"), [(1, "replicate"), (2, "replicate"), (2, "shard")])
def test_what_the_machine_refuses_behind_the_steps_is_told_as_at_once(
    processes: int, parallel: str, tmp_path: Path
) -> None:
    """Files that may not grow stand for a disk that is full: the first checkpoint fails, and the run with it. The
    command line makes one line of such an error."""
    told = []
    for behind in (False, True):
        recipe = _recipe(tmp_path / "run", 3, processes=processes, parallel=parallel, checkpoint_async=behind)
        with _at_most_64_kb_a_file(), pytest.raises(OSError) as refused:
            in_team(processes, run_recipes, [recipe])
        told.append((refused.value.errno, refused.value.filename))
        assert checkpoint.newest(tmp_path / "run") is None and refused_by_machine(refused.value)
        shutil.rmtree(tmp_path / "run")
    place = tmp_path / "run" / ("optimizer" if parallel == "shard" else "step-000001")
    assert told == [(errno.EFBIG, str(place))] * 2


def test_as_many_checkpoints_are_kept_as_asked_for(tmp_path: Path) -> None:
    run = tmp_path / "run"
    Trainer(_recipe(run, 4, checkpoint_keep=3)).train()
    assert sorted(p.name for p in run.glob("step-*")) == ["step-000002", "step-000003", "step-000004"]
    (run / "step-000009").mkdir()  # not whole: it is no checkpoint, and takes nobody's place
    Trainer(_recipe(run, 5, checkpoint_keep=1)).train()
    assert sorted(p.name for p in run.glob("step-*")) == ["step-000005"]
    with pytest.raises(UsageError, match="checkpoint_keep must be at least 1"):
        _recipe(run, 5, checkpoint_keep=0)
