"""What a checkpoint holds up: written at once, and behind the steps that follow (`checkpoint_async`), in turns.

    OMP_NUM_THREADS=1 python tools/bench_checkpoint.py --rounds 3
    OMP_NUM_THREADS=1 python tools/bench_checkpoint.py --rounds 3 --processes 2 --parallel shard

A turn is a run of `sft` on two images that saves every so many steps, of a policy with random weights. `held up` are
the seconds from a step's end to the next one's begin; `cycle` those of so many steps and their checkpoint, which says
how much the writing takes from the steps beside it; `never` is the same without a checkpoint.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from itertools import pairwise
from pathlib import Path

from entropy_vision.rl.buffer import Buffer
from entropy_vision.rl.parallel import in_team
from entropy_vision.rl.recipe import (
    BudgetRecipe,
    DataRecipe,
    EvalRecipe,
    GrpoRecipe,
    OptimRecipe,
    PolicyRecipe,
    TrainRecipe,
)
from entropy_vision.rl.trainer import Trainer

WAYS = ("never", "at once", "behind")


class _Timed(Trainer):
    """A trainer that notes how long it is held up, and when its steps end."""

    def train(self) -> dict[str, object]:
        self.held: list[float] = []
        self.ends: list[float] = []
        return super().train()

    def _log(self, step: int, metrics: dict[str, float]) -> None:
        super()._log(step, metrics)
        self.ends.append(time.perf_counter())

    def _save(self, buffer: Buffer | None = None) -> None:
        began = time.perf_counter()
        super()._save(buffer)
        self.held.append(time.perf_counter() - began)


def recipe(out: Path, way: str, asked: argparse.Namespace) -> TrainRecipe:
    """A turn: a first cycle to warm up, then as many as asked for, then one to be in the middle of."""
    steps = asked.every * (asked.cycles + 2)
    return TrainRecipe(
        stage="sft",
        out=str(out),
        steps=steps,
        processes=asked.processes,
        parallel=asked.parallel,
        checkpoint_every=steps if way == "never" else asked.every,
        checkpoint_async=way == "behind",
        policy=PolicyRecipe(width=asked.width, layers=asked.layers, heads=8, mlp_width=4 * asked.width),
        data=DataRecipe(image_scenes=2, video_scenes=0, pool=2, workers=0),
        budget=BudgetRecipe(keep=(0.25,), weights=(1.0,)),
        optim=OptimRecipe(muon_lr=0.0),  # AdamW keeps two numbers a weight
        grpo=GrpoRecipe(max_new_tokens=2),
        eval=EvalRecipe(scenes=2),
    )


def turn(one: TrainRecipe, every: int) -> tuple[int, list[float], list[float], float]:
    """(weights of the policy, seconds held up by each save, seconds of each cycle, megabytes of a checkpoint)"""
    trainer = _Timed(one)
    done = trainer.train()
    # a cycle begins where a step has ended whose checkpoint comes next; the first one warms up
    marks = trainer.ends[every - 1 :: every]
    size = sum(p.stat().st_size for p in Path(str(done["checkpoint"])).rglob("*") if p.is_file()) / 1e6
    weights = sum(p.numel() for p in trainer.model.parameters())
    return weights, trainer.held[:-1], [b - a for a, b in pairwise(marks)], size


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cycles", type=int, default=2, help="checkpoints a turn that are counted")
    parser.add_argument("--every", type=int, default=3, help="steps between them")
    parser.add_argument("--width", type=int, default=512, help="width of the language model")
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--parallel", default="replicate", choices=("replicate", "shard"))
    asked = parser.parse_args()
    held: dict[str, list[float]] = {way: [] for way in WAYS}
    cycle: dict[str, list[float]] = {way: [] for way in WAYS}
    for _ in range(asked.rounds):
        for way in WAYS:
            with tempfile.TemporaryDirectory() as folder:
                one = recipe(Path(folder) / "run", way, asked)
                weights, held_up, cycles, size = in_team(asked.processes, turn, one, asked.every)
            held[way] += held_up
            cycle[way] += cycles
    print(f"{weights:,} weights, {size:.0f} MB a checkpoint, {asked.every} steps a cycle")
    print("| way | n | held up, s | cycle, s | cycle / never |")
    print("|---|---|---|---|---|")
    for way in WAYS:
        ratio = statistics.median(cycle[way]) / statistics.median(cycle["never"])
        print(f"| {way} | {len(cycle[way])} | {_told(held[way])} | {_told(cycle[way])} | {ratio:.2f} |")


def _told(seconds: list[float]) -> str:
    """Median and quartiles."""
    if len(seconds) < 2:
        return "-"
    low, middle, high = statistics.quantiles(seconds, n=4, method="inclusive")
    return f"{middle:.2f} [{low:.2f}, {high:.2f}]"


if __name__ == "__main__":
    main()
