"""Several processes: they compute what one computes, and what ends one of them ends the call in one line."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from small_runs import FEW_IMAGES, small_recipe

from entropy_vision.config import to_toml
from entropy_vision.errors import Terminated, UsageError
from entropy_vision.rl.checkpoint import newest
from entropy_vision.rl.metrics import read_metrics
from entropy_vision.rl.parallel import current_team, in_team
from entropy_vision.rl.recipe import DataRecipe, EvalRecipe, GrpoRecipe, PolicyRecipe
from entropy_vision.rl.train import run_recipes


@pytest.mark.parametrize("stage", ["align", "sft"])
def test_two_processes_compute_the_step_of_one(stage: str, tmp_path: Path) -> None:
    data = DataRecipe(image_scenes=4, video_scenes=3, frame_count=4, pool=20, workers=0)
    for processes in (1, 2):
        recipe = small_recipe(stage, tmp_path / str(processes), data=data, processes=processes, steps=3)
        result = in_team(processes, run_recipes, [recipe])[0]
        assert result["steps"] == 3
    one, two = (read_metrics(tmp_path / str(n)) for n in (1, 2))
    assert one[0]["loss"] == pytest.approx(two[0]["loss"], rel=1e-5)
    assert one[0]["grad_norm"] == pytest.approx(two[0]["grad_norm"], rel=1e-4)
    # from the second step on the optimiser's own rounding (Muon orthogonalises in bfloat16) parts them a little
    assert [m["loss"] for m in one] == pytest.approx([m["loss"] for m in two], rel=1e-2)


def test_two_processes_share_groups_and_end_alike(tmp_path: Path, guessing: Path) -> None:
    grpo = GrpoRecipe(group_size=4, max_new_tokens=24, beta=0.05)
    recipe = small_recipe("grpo", tmp_path / "run", init=str(guessing), grpo=grpo, **{**FEW_IMAGES, "processes": 2})
    result = in_team(2, run_recipes, [recipe])[0]
    metrics = read_metrics(tmp_path / "run")
    assert result["steps"] == len(metrics) == 4
    assert all(0 <= m["reward"] <= 1.1 and m["grad_norm"] > 0 for m in metrics)


@pytest.mark.slow
def test_torchrun_takes_the_same_line_and_one_process_speaks(tmp_path: Path) -> None:
    config = tmp_path / "run.toml"
    data = DataRecipe(video_scenes=0, workers=0, pool=20)
    config.write_text(to_toml(small_recipe("align", tmp_path / "run", data=data)))
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


def _raise(error: Exception) -> None:
    raise error


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "full", "/x"), PermissionError(errno.EACCES, "no", "/x")])
def test_what_the_machine_refuses_in_a_team_is_the_error_of_the_call(error: OSError) -> None:
    with pytest.raises(OSError) as told:
        in_team(2, _raise, error)
    assert (told.value.errno, told.value.filename) == (error.errno, "/x")


def test_a_defect_in_a_team_keeps_its_traceback() -> None:
    with pytest.raises(torch.multiprocessing.ProcessRaisedException, match="in _raise"):
        in_team(2, _raise, FileNotFoundError(errno.ENOENT, "gone"))


def _rank() -> int:
    return current_team().rank


def test_a_thread_may_call_a_team() -> None:
    """Signals belong to the main thread: elsewhere they stay as they are."""
    given: list[int] = []
    thread = threading.Thread(target=lambda: given.append(in_team(2, _rank)))
    thread.start()
    thread.join()
    assert given == [0]


def _ask_to_stop(number: int) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(0.3)
    if current_team().leads:
        os.kill(os.getppid(), number)
    time.sleep(0.3)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_when_the_work_is_all_but_done_is_not_lost(number: int) -> None:
    before = [signal.signal(n, lambda *_: None) for n in (signal.SIGTERM, signal.SIGINT)]  # should the team take none
    try:
        with pytest.raises(Terminated):
            in_team(2, _ask_to_stop, number)
    finally:
        for n, handler in zip((signal.SIGTERM, signal.SIGINT), before, strict=True):
            signal.signal(n, handler)


@pytest.mark.parametrize(
    ("setting", "number"),
    [
        ("processes", signal.SIGINT),
        ("processes", signal.SIGTERM),
        ("workers", signal.SIGTERM),
        ("measuring", signal.SIGTERM),
    ],
)
def test_a_signal_to_the_whole_group_saves_and_exits_143(setting: str, number: int, tmp_path: Path) -> None:
    """As schedulers and terminals send it: every process of the job gets it, some of them twice."""
    data = DataRecipe(image_scenes=2, video_scenes=2, frame_count=4, pool=20, workers=int(setting == "workers"))
    settings: dict[str, object] = {"steps": 100_000, "data": data, "processes": 1 + (setting == "processes")}
    if setting == "measuring":  # most of the time is spent outside of steps
        settings["eval"] = EvalRecipe(scenes=20, every=1)
        settings["processes"] = 2
    config = tmp_path / "run.toml"
    config.write_text(to_toml(small_recipe("sft", tmp_path / "run", **settings)))
    verb = [sys.executable, "-m", "entropy_vision.cli", "train", str(config), "--json"]
    with subprocess.Popen(
        verb, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as job:
        while len(read_metrics(tmp_path / "run")) < 3:
            assert job.poll() is None, job.stderr and job.stderr.read()
            time.sleep(0.1)
        os.killpg(job.pid, number)
        out, err = job.communicate(timeout=60)
    assert job.returncode == 143, err
    assert "Traceback" not in err
    result = json.loads(out)
    assert result["steps"] >= 3 and "saved" in err
    assert newest(tmp_path / "run") == Path(result["checkpoint"])
    assert {"reward_before", "reward_after"} <= result.keys()


def test_an_error_in_a_team_is_the_error_of_the_call(tmp_path: Path) -> None:
    data = DataRecipe(image_scenes=2, video_scenes=2, workers=0)
    recipe = small_recipe("align", tmp_path, policy=PolicyRecipe(tower="no-such-tower"), data=data)
    with pytest.raises(UsageError, match="no-such-tower"):
        in_team(2, run_recipes, [recipe])
