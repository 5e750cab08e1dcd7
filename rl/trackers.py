"""The metrics of a run, sent to where people watch many runs side by side; metrics.jsonl is written in any case."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from entropy_vision.errors import UsageError

TrackerName = Literal["tensorboard", "wandb", "trackio"]
PROJECT = "entropy-vision"


@dataclass(frozen=True)
class Tracker:
    """One of them: `log(step, metrics)` for each step, `close()` at the end."""

    log: Callable[[int, Mapping[str, float]], None]
    close: Callable[[], None]


def open_tracker(name: TrackerName, run: Path, settings: Mapping[str, Any], step: int) -> Tracker:
    """The tracker of a run, named as its folder. A run that goes on is the same run there.

    Args:
        settings: the recipe, as nested mappings.
        step: steps done; what was logged behind it is of steps that were lost.

    Raises:
        UsageError: its package is not installed.
    """
    try:
        return {"tensorboard": _tensorboard, "wandb": _wandb, "trackio": _trackio}[name](run, settings, step)
    except ModuleNotFoundError as error:
        raise UsageError(f"trackers: {name} is not installed ({error.name}): pip install {name}") from error


def _tensorboard(run: Path, settings: Mapping[str, Any], step: int) -> Tracker:
    """Event files in the run's folder: tensorboard --logdir RUN."""
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(run / "tensorboard"), purge_step=step + 1)

    def log(step: int, metrics: Mapping[str, float]) -> None:
        for key, value in metrics.items():
            writer.add_scalar(key, value, step)

    return Tracker(log, writer.close)


def _wandb(run: Path, settings: Mapping[str, Any], step: int) -> Tracker:
    import wandb

    held = wandb.init(
        project=PROJECT, name=run.name, id=_identity(run), resume="allow", dir=str(run), config=dict(settings)
    )
    return Tracker(lambda step, metrics: held.log(dict(metrics), step=step), held.finish)


def _trackio(run: Path, settings: Mapping[str, Any], step: int) -> Tracker:
    import trackio

    held = trackio.init(project=PROJECT, name=_identity(run), resume="allow", config=dict(settings))
    return Tracker(lambda step, metrics: held.log(dict(metrics), step=step), held.finish)


def _identity(run: Path) -> str:
    """The same for a run that goes on, another for another folder of that name."""
    import hashlib

    return f"{run.name}-{hashlib.sha256(str(run.resolve()).encode()).hexdigest()[:8]}"
