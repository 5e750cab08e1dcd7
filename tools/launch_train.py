"""Train on a SLURM cluster through submitit: one job of some nodes, on each an agent of torchrun.

    python tools/launch_train.py --nodes 4 --processes 8 --partition gpu --dry-run -- run.toml optim.lr=1e-4
    python tools/launch_train.py --nodes 4 --processes 8 --partition gpu -- run.toml optim.lr=1e-4
    python tools/launch_train.py --nodes 1 --processes 2 --local -- run.toml

What follows `--` are the arguments of `entropy-vision train`; `out` must lie where every node sees it. A job that is
preempted or comes to its time limit saves, is queued again by submitit and goes on where it was; so does the same line
at any later time. A process that fails is started again with all others (`--restarts` times); a lost node ends the job,
which SLURM queues again. Prints what the run printed; exits with its code.

Needs: pip install 'entropy-vision[slurm]'
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import submitit

# by default an agent that comes back and those that stayed wait for each other (docs/training.md)
AGENT = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}


@dataclass(frozen=True)
class Agent:
    """One node's part of the run: the agent of torchrun that starts its processes."""

    line: tuple[str, ...]
    nodes: int
    port: int

    def __call__(self) -> tuple[int, str]:
        """(exit code, stdout)"""
        host = "localhost"
        if self.nodes > 1:
            listed = ["scontrol", "show", "hostnames", os.environ["SLURM_JOB_NODELIST"]]
            host = subprocess.run(listed, capture_output=True, text=True, check=True).stdout.split()[0]
        done = subprocess.run(self.command(host), stdout=subprocess.PIPE, text=True, env=os.environ | AGENT)
        return done.returncode, done.stdout.strip()

    def command(self, host: str) -> list[str]:
        """The line that a node runs; all meet at the first one."""
        launcher, program = self.line[: self.line.index("-m", 3)], self.line[self.line.index("-m", 3) :]
        return [*launcher, "--rdzv-endpoint", f"{host}:{self.port}", *program]

    def checkpoint(self) -> submitit.helpers.DelayedSubmission:
        """What submitit queues when the job is preempted: the same again."""
        return submitit.helpers.DelayedSubmission(self)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=1)
    parser.add_argument("--processes", type=int, default=1, help="processes of a node, one for each accelerator")
    parser.add_argument("--gpus", type=int, default=0, help="accelerators of a node")
    parser.add_argument("--cpus", type=int, default=8, help="cores of a node")
    parser.add_argument("--memory", type=int, default=64, help="GB of a node")
    parser.add_argument("--minutes", type=int, default=1440, help="time limit")
    parser.add_argument("--restarts", type=int, default=3, help="how often the processes are started again")
    parser.add_argument("--port", type=int, default=29500, help="where the agents meet, on the first node")
    parser.add_argument("--partition")
    parser.add_argument("--logs", type=Path, default=Path("entropy-vision-jobs"))
    parser.add_argument("--local", action="store_true", help="run on this machine instead")
    parser.add_argument("--dry-run", action="store_true", help="print what would be submitted, and submit nothing")
    parser.add_argument("arguments", nargs="+", metavar="-- CONFIG.toml", help="of entropy-vision train")
    options = parser.parse_args()
    if options.nodes < 1 or options.processes < 1:
        parser.error("--nodes and --processes must be at least 1")
    if options.local and options.nodes > 1:
        parser.error("--local is one node")
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nnodes", options.nodes]
    launcher += ["--nproc-per-node", options.processes, "--max-restarts", options.restarts, "--rdzv-backend", "c10d"]
    program = ["-m", "entropy_vision.cli", "train", *options.arguments, "--json"]
    agent = Agent(tuple(map(str, [*launcher, "--rdzv-id", "run", *program])), options.nodes, options.port)
    wanted: dict[str, object] = {
        "name": "entropy-vision-train",
        "nodes": options.nodes,
        "tasks_per_node": 1,
        "cpus_per_task": options.cpus,
        "mem_gb": options.memory,
        "timeout_min": options.minutes,
    }
    wanted |= {"gpus_per_node": options.gpus} if options.gpus else {}
    if not options.local:
        wanted |= {"slurm_partition": options.partition} if options.partition else {}
        wanted["slurm_additional_parameters"] = {"requeue": True}
    if options.dry_run:
        print(json.dumps({"cluster": "local" if options.local else "slurm", **wanted, "logs": str(options.logs)}))
        settings = [f"{name}={value}" for name, value in AGENT.items()]
        print(shlex.join([*settings, *agent.command("FIRST-NODE" if options.nodes > 1 else "localhost")]))
        return 0
    executor = submitit.AutoExecutor(folder=options.logs, cluster="local" if options.local else "slurm")
    executor.update_parameters(**wanted)
    job = executor.submit(agent)
    print(f"job {job.job_id}; logs in {options.logs}", file=sys.stderr)
    results = job.results()
    print(next((told for _, told in results if told), ""))
    codes = [code if code >= 0 else 128 - code for code, _ in results]  # as a shell tells a signal
    return max(codes)


if __name__ == "__main__":
    sys.exit(main())
