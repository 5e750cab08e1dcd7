"""Two agents of torchrun, as two machines would be: one dies, comes back, and the run ends as if nothing had been."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small_runs import FEW_IMAGES, same, small_recipe, weights

from entropy_vision.config import to_toml
from entropy_vision.rl.metrics import read_metrics
from entropy_vision.rl.parallel import current_team, in_team
from entropy_vision.rl.recipe import GrpoRecipe, TrainRecipe
from entropy_vision.rl.train import run_recipes
from entropy_vision.rl.trainer import Trainer


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _descendants(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [one for child in map(int, children) for one in (child, *_descendants(child))]


def _agent(node: int, port: int, config: Path) -> subprocess.Popen[bytes]:
    line = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1"]
    line += ["--rdzv-backend", "c10d", "--rdzv-endpoint", f"127.0.0.1:{port}", "--rdzv-id", "run"]
    line += ["--max-restarts", "3"]
    line += ["--local-addr", "127.0.0.1", "--rdzv-conf", f"is_host={int(node == 0)}"]
    line += ["-m", "entropy_vision.cli", "train", str(config)]
    # as tools/train.sbatch and tools/launch_train.py have it: by default the agent that stays keeps its first store and
    # does not tell the one that comes back where it is; both wait until the time is over
    environment = os.environ | {"GLOO_SOCKET_IFNAME": "lo", "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
    log = config.with_name(f"agent-{node}.log").open("ab")
    return subprocess.Popen(line, env=environment, stdout=log, stderr=log, start_new_session=True)


@pytest.mark.slow
@pytest.mark.parametrize("lost", [1, 0])
@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="finds an agent's processes in /proc")
def test_an_agent_that_dies_and_comes_back_costs_nothing(lost: int, tmp_path: Path, guessing: Path) -> None:
    """The first agent holds the store in which they meet: without it the other ends too, and both come back."""
    grpo = GrpoRecipe(group_size=4, max_new_tokens=24, updates=2, beta=0.05)
    settings = {**FEW_IMAGES, "init": str(guessing), "grpo": grpo, "processes": 2, "steps": 12}
    recipe = small_recipe("grpo", tmp_path / "whole", **{**settings, "checkpoint_every": 1, "checkpoint_updates": True})
    in_team(2, run_recipes, [recipe])
    run, config, port = tmp_path / "cut", tmp_path / "run.toml", _free_port()
    config.write_text(to_toml(replace(recipe, out=str(run))))
    agents = [_agent(node, port, config) for node in (0, 1)]
    try:
        deadline = time.monotonic() + 900
        while len(read_metrics(run)) < 4:
            assert all(agent.poll() is None for agent in agents) and time.monotonic() < deadline
            time.sleep(0.02)
        for pid in (agents[lost].pid, *_descendants(agents[lost].pid)):  # the machine is gone
            os.kill(pid, signal.SIGKILL)
        agents[lost].wait()
        lost_at = len(read_metrics(run))
        if lost == 0:
            assert agents[1].wait(timeout=300) != 0
        agents = [
            _agent(node, port, config) if agent.poll() is not None else agent for node, agent in enumerate(agents)
        ]
        assert [agent.wait(timeout=900) for agent in agents] == [0, 0]
    finally:
        for agent in agents:
            if agent.poll() is None:
                agent.terminate()
                agent.wait(timeout=60)
    assert lost_at < 12 and len(read_metrics(run)) == 12
    assert lost == 0 or "waited" in (tmp_path / "agent-0.log").read_text()  # the one that stayed said what it missed
    assert same(weights(tmp_path / "whole"), weights(run))


def _hang_in(rank: int) -> None:
    team = current_team()
    if team.rank == rank:
        time.sleep(30)
    team.total(1.0)


def _hang_before_an_update(recipe: TrainRecipe, rank: int) -> None:
    trainer = Trainer(recipe)
    if trainer.team.rank == rank:
        time.sleep(30)
    trainer._update(0)


def test_a_process_that_hangs_before_an_update_is_told_of(tmp_path: Path, guessing: Path) -> None:
    """Parts of weights are exchanged by torch's own calls, whose word would be theirs."""
    changes = {**FEW_IMAGES, "init": str(guessing), "processes": 2, "parallel": "shard", "timeout": 3}
    recipe = small_recipe("grpo", tmp_path / "run", **changes)
    with pytest.raises(torch.multiprocessing.ProcessRaisedException) as told:
        in_team(2, _hang_before_an_update, recipe, 1, timeout=3)
    assert "process 0 of 2 waited 3 s for the others to add up gradients: one of them has ended" in str(told.value)


def test_a_process_that_hangs_is_told_of_by_the_one_that_waits() -> None:
    began = time.monotonic()
    with pytest.raises(torch.multiprocessing.ProcessRaisedException) as told:
        in_team(2, _hang_in, 1, timeout=2)
    assert "process 0 of 2 waited 2 s for the others to add numbers up: one of them has ended or hangs" in str(
        told.value
    )
    assert time.monotonic() - began < 25
