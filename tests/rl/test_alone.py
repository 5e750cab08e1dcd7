"""A run's folder has one process that writes to it, and a run that cannot go on ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from question_sets import file_recipe, question_set
from small_runs import small_recipe

from entropy_vision.config import to_toml
from entropy_vision.errors import UsageError
from entropy_vision.rl.alone import alone
from entropy_vision.rl.metrics import read_metrics
from entropy_vision.rl.recipe import EvalRecipe
from entropy_vision.rl.trainer import Trainer

# holds a folder, and has started a process that outlives it
_HOLDER = """
import os, sys, time
from pathlib import Path
from entropy_vision.rl.alone import alone
with alone(Path(sys.argv[1])):
    child = os.fork()
    if child:
        print(child, flush=True)
    time.sleep(120)
"""


def test_two_runs_do_not_share_a_folder_and_a_killed_one_lets_go_of_it(tmp_path: Path) -> None:
    run = tmp_path / "run"
    trainer = Trainer(small_recipe("align", run, steps=1))
    line = [sys.executable, "-c", _HOLDER, str(run)]
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        child = int(holder.stdout.readline())
        try:
            with pytest.raises(UsageError, match=f"another process is training in {run}: wait for it"):
                trainer.train()
            assert not read_metrics(run) and not (run / "config.toml").exists()
            holder.kill()
            holder.wait()
            os.kill(child, 0)  # it is there
            assert trainer.train()["steps"] == 1
        finally:
            os.kill(child, signal.SIGKILL)


def test_a_folder_that_cannot_be_made_is_told() -> None:
    with pytest.raises(UsageError, match=r"out = '/proc/nothing' cannot be made"), alone(Path("/proc/nothing")):
        pass


@pytest.mark.parametrize("processes", [1, 2])
def test_a_run_whose_steps_cannot_be_dealt_ends_though_its_workers_answer_no_signal(
    processes: int, tmp_path: Path
) -> None:
    good = question_set(tmp_path / "good", images=4)
    bad = question_set(tmp_path / "bad", images=8, first=100)
    for path in (tmp_path / "bad").glob("*.png"):
        path.write_text("no picture")
    data = {"video_scenes": 0, "image_scenes": 2, "workers": 1}
    measured = EvalRecipe(scenes=2, questions=(good,))
    recipe = file_recipe("sft", tmp_path / "run", bad, data=data, processes=processes)
    recipe = type(recipe)(**{**vars(recipe), "eval": measured})
    (tmp_path / "run.toml").write_text(to_toml(recipe))
    line = [sys.executable, "-m", "entropy_vision.cli", "train", str(tmp_path / "run.toml")]
    done = subprocess.run(line, capture_output=True, text=True, timeout=100)
    assert done.returncode == 2 and f"none of its {2 // processes} scenes can be read" in done.stderr, done.stderr
