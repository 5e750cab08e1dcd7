"""Which of how many processes this one is: as told, or as torchrun and SLURM say it in the environment."""

from __future__ import annotations

import os

from entropy_vision.errors import UsageError


def share(rank: int | None, world: int | None, *, slurm: bool = False) -> tuple[int, int]:
    """(rank, world): as given, else torchrun's RANK and WORLD_SIZE, else where `slurm` is set SLURM's, else (0, 1).

    Under SLURM a task of an array (sbatch --array=0-63) is a rank, and so is a task of a step (srun -n 64); both at
    once are the product. What a batch script runs without srun is one process, however many tasks were asked for.

    Raises:
        UsageError: a rank without a world, or not below it; an array with gaps, whose ranks nobody can count.
    """
    if (rank is None) != (world is None):
        raise UsageError("rank and world belong together: give both, or neither")
    if rank is None or world is None:
        told = os.environ.get("RANK", ""), os.environ.get("WORLD_SIZE", "")
        rank, world = (int(told[0]), int(told[1])) if all(told) else _slurm() if slurm else (0, 1)
    if not 0 <= rank < world:
        raise UsageError(f"rank must be from 0 to world - 1, got rank {rank} and world {world}")
    return rank, world


def _slurm() -> tuple[int, int]:
    task, tasks = _numbers("SLURM_PROCID", "SLURM_STEP_NUM_TASKS") or (0, 1)
    array = _numbers("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_MIN", "SLURM_ARRAY_TASK_MAX", "SLURM_ARRAY_TASK_COUNT")
    if array is None:
        return task, tasks
    number, first, last, count = array
    if last - first + 1 != count:
        raise UsageError(f"the array has gaps, {count} tasks from {first} to {last}: say --rank and --world")
    return (number - first) * tasks + task, count * tasks


def _numbers(*names: str) -> tuple[int, ...] | None:
    """These variables as numbers; None where one is not set."""
    told = [os.environ.get(name, "") for name in names]
    return tuple(map(int, told)) if all(text.isdecimal() for text in told) else None
