"""Preprocess on a SLURM cluster through submitit, as an array of jobs; without one, as processes of this machine.

    python tools/launch_preprocess.py --jobs 64 --partition cpu --dry-run -- /data/videos --out /data/shards
    python tools/launch_preprocess.py --jobs 64 --partition cpu -- /data/videos --out /data/shards
    python tools/launch_preprocess.py --jobs 2 --local -- videos --out shards

What follows `--` are the arguments of `entropy-vision preprocess`. Job r is rank r of --jobs. A job that is preempted
or comes to its time limit is queued again by submitit and goes on where it was; so does the same line at any later
time, with any number of jobs. Prints the results of the jobs, one JSON object a line; exits with the highest code.

Needs: pip install 'entropy-vision[slurm]'
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import submitit


@dataclass(frozen=True)
class Share:
    """One job: the command line of a rank."""

    line: tuple[str, ...]

    def __call__(self) -> tuple[int, str]:
        """(exit code, stdout)"""
        done = subprocess.run(self.line, stdout=subprocess.PIPE, text=True)
        return done.returncode, done.stdout.strip()

    def checkpoint(self) -> submitit.helpers.DelayedSubmission:
        """What submitit queues when the job is preempted: the same again."""
        return submitit.helpers.DelayedSubmission(self)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=8, help="ranks, each a job of the array")
    parser.add_argument("--cpus", type=int, default=8, help="cores of a job, one worker each")
    parser.add_argument("--memory", type=int, default=16, help="GB of a job")
    parser.add_argument("--minutes", type=int, default=240, help="time limit of a job")
    parser.add_argument("--at-once", type=int, default=256, help="jobs that may run at a time")
    parser.add_argument("--partition")
    parser.add_argument("--logs", type=Path, default=Path("entropy-vision-jobs"))
    parser.add_argument("--local", action="store_true", help="run on this machine instead")
    parser.add_argument("--dry-run", action="store_true", help="print what would be submitted, and submit nothing")
    parser.add_argument("arguments", nargs="+", metavar="-- SRC... --out DIR", help="of entropy-vision preprocess")
    options = parser.parse_args()
    if options.jobs < 1 or options.cpus < 1:
        parser.error("--jobs and --cpus must be at least 1")
    program = (sys.executable, "-m", "entropy_vision.cli", "preprocess", *options.arguments)
    share = (*program, "--workers", str(options.cpus), "--json", "--world", str(options.jobs))
    shares = [Share((*share, "--rank", str(rank))) for rank in range(options.jobs)]
    wanted: dict[str, object] = {
        "name": "entropy-vision",
        "cpus_per_task": options.cpus,
        "mem_gb": options.memory,
        "timeout_min": options.minutes,
    }
    if not options.local:
        wanted |= {"slurm_array_parallelism": options.at_once}
        wanted |= {"slurm_partition": options.partition} if options.partition else {}
    if options.dry_run:
        print(json.dumps({"cluster": "local" if options.local else "slurm", **wanted, "logs": str(options.logs)}))
        for one in shares:
            print(shlex.join(one.line))
        return 0
    executor = submitit.AutoExecutor(folder=options.logs, cluster="local" if options.local else "slurm")
    executor.update_parameters(**wanted)
    with executor.batch():
        jobs = [executor.submit(one) for one in shares]
    print(f"{len(jobs)} jobs, the first is {jobs[0].job_id}; logs in {options.logs}", file=sys.stderr)
    codes = []
    for job in jobs:
        code, told = job.result()
        codes.append(code if code >= 0 else 128 - code)  # as a shell tells a signal
        print(told)
    return max(codes)


if __name__ == "__main__":
    sys.exit(main())
