"""The scripts that start a run on a cluster: what they would submit, and that what they start is the run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from small_runs import small_recipe

from entropy_vision.config import to_toml
from entropy_vision.rl.checkpoint import newest
from entropy_vision.rl.metrics import read_metrics
from entropy_vision.rl.recipe import DataRecipe

TOOLS = Path(__file__).parents[2] / "tools"


def _environment(**more: str) -> dict[str, str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    python_path = os.pathsep.join(one for one in sys.path if one)
    return {**os.environ, "PATH": path, "PYTHONPATH": python_path, "GLOO_SOCKET_IFNAME": "lo", **more}


def test_the_launcher_says_what_it_would_submit() -> None:
    pytest.importorskip("submitit", reason="the extra [slurm] is not installed")
    line = [sys.executable, str(TOOLS / "launch_train.py"), "--nodes", "4", "--processes", "8", "--gpus", "8"]
    line += ["--partition", "gpu", "--dry-run", "--", "run.toml", "optim.lr=1e-4"]
    done = subprocess.run(line, capture_output=True, text=True, env=_environment(), check=True)
    wanted, command = done.stdout.splitlines()
    told = json.loads(wanted)
    assert (told["nodes"], told["tasks_per_node"], told["gpus_per_node"]) == (4, 1, 8)
    assert told["slurm_additional_parameters"] == {"requeue": True}
    assert command.startswith("TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 ")
    assert "--nnodes 4 --nproc-per-node 8 --max-restarts 3" in command
    assert command.endswith(
        "--rdzv-endpoint FIRST-NODE:29500 -m entropy_vision.cli train run.toml optim.lr=1e-4 --json"
    )


def _cluster(folder: Path, srun: str, **more: str) -> dict[str, str]:
    """An environment with stand-ins: `srun` does what is given, scontrol notes what it was asked for."""
    stands = folder / "bin"
    stands.mkdir()
    for name, body in (("srun", srun), ("scontrol", f'echo "$@" >> {folder}/asked; echo localhost')):
        (stands / name).write_text(f"#!/bin/bash\n{body}\n")
        (stands / name).chmod(0o755)
    environment = _environment(SLURM_JOB_ID="7", SLURM_JOB_NODELIST="localhost", PROCESSES="2", PORT="0", **more)
    return environment | {"PATH": f"{stands}{os.pathsep}{environment['PATH']}"}


@pytest.mark.parametrize(
    ("srun", "restarts", "code", "again"),
    [
        ("kill -KILL $$", 0, 137, True),
        ("kill -KILL $$", 3, 137, False),
        ("kill -TERM $$", 0, 143, False),
        ("exit 1", 0, 1, False),
        ("[ $TORCH_DISABLE_SHARE_RDZV_TCP_STORE = 1 ]", 0, 0, False),
    ],
)
def test_a_lost_agent_queues_the_job_again_and_one_that_gives_up_does_not(
    srun: str, restarts: int, code: int, again: bool, tmp_path: Path
) -> None:
    environment = _cluster(tmp_path, srun, SLURM_RESTART_COUNT=str(restarts))
    line = ["bash", str(TOOLS / "train.sbatch"), "run.toml"]
    assert subprocess.run(line, env=environment, capture_output=True).returncode == code
    assert ("requeue 7" in (tmp_path / "asked").read_text().splitlines()) == again


def test_a_cluster_that_refuses_to_queue_again_does_not_hide_how_the_run_ended(tmp_path: Path) -> None:
    environment = _cluster(tmp_path, "kill -KILL $$", SLURM_RESTART_COUNT="0")
    scontrol = tmp_path / "bin" / "scontrol"
    scontrol.write_text('#!/bin/bash\n[ "$1" != requeue ] && echo localhost\n')
    line = ["bash", str(TOOLS / "train.sbatch"), "run.toml"]
    done = subprocess.run(line, env=environment, capture_output=True, text=True)
    assert done.returncode == 137 and "not queued again" in done.stderr


@pytest.mark.slow
def test_the_batch_script_trains_saves_on_a_signal_and_queues_itself_again(tmp_path: Path) -> None:
    data, config = DataRecipe(image_scenes=2, video_scenes=2, frame_count=4, pool=20, workers=0), tmp_path / "run.toml"
    config.write_text(to_toml(small_recipe("align", tmp_path / "run", steps=100_000, data=data)))
    environment = _cluster(tmp_path, 'shift; exec "$@"')  # behind srun's own option
    with subprocess.Popen(["bash", str(TOOLS / "train.sbatch"), str(config)], env=environment) as job:
        while len(read_metrics(tmp_path / "run")) < 3:
            assert job.poll() is None
            time.sleep(0.1)
        job.send_signal(signal.SIGTERM)
        assert job.wait(timeout=120) == 143
    assert (tmp_path / "asked").read_text().splitlines()[-1] == "requeue 7"
    assert newest(tmp_path / "run") is not None
