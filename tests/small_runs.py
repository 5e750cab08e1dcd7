"""Runs of a policy of some thousand weights on a few scenes: shared by the tests of what trains."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed.checkpoint as dcp
from safetensors.torch import load_file

from entropy_vision.rl.checkpoint import newest
from entropy_vision.rl.metrics import read_metrics
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


def small_recipe(stage: str, out: Path, **changes: object) -> TrainRecipe:
    """A recipe of some seconds; `changes` are fields of it."""
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


FEW_IMAGES: dict[str, object] = {
    "data": DataRecipe(image_scenes=4, video_scenes=0, pool=4, workers=0),
    "budget": BudgetRecipe(keep=(0.125,), weights=(1.0,)),
    "optim": OptimRecipe(lr=3e-3, warmup=5),
}


def weights(run: Path, folder: Path | None = None) -> dict[str, torch.Tensor]:
    """What a checkpoint holds of policy and optimiser, the state of all processes as whole tensors: a run's newest one,
    or that in `folder`."""
    folder = folder or newest(run)
    assert folder is not None
    policy, divided = load_file(folder / "model.safetensors"), folder / "optimizer"
    if not divided.is_dir():
        return policy | load_file(folder / "optimizer.safetensors")
    held = dcp.FileSystemReader(divided).read_metadata().state_dict_metadata
    state = {name: torch.zeros(known.size) for name, known in held.items()}  # type: ignore[union-attr]
    dcp.load(state, checkpoint_id=divided, no_dist=True)
    return policy | state


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    """Whether they are equal bit for bit."""
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


def untimed(run: Path) -> list[dict[str, float]]:
    """A run's metrics without what no two runs share."""
    return [{k: v for k, v in m.items() if "seconds" not in k} for m in read_metrics(run)]


def stop_after(trainer: Trainer, steps: int) -> None:
    """Have a run be asked to stop when so many steps are done."""
    log: Callable[[int, dict[str, float]], None] = trainer._log

    def log_and_stop(step: int, metrics: dict[str, float]) -> None:
        log(step, metrics)
        if step == steps:
            os.kill(os.getpid(), signal.SIGTERM)

    trainer._log = log_and_stop  # type: ignore[method-assign]


def stop_inside(trainer: Trainer, step: int) -> None:
    """Have a run be asked to stop before the first update of that step, counted from 0."""
    update: Callable[[int], float] = trainer._update

    def update_and_stop(number: int) -> float:
        if number == step:
            os.kill(os.getpid(), signal.SIGTERM)
        return update(number)

    trainer._update = update_and_stop  # type: ignore[method-assign]
