"""The `train` verb: a TOML file in, a checkpoint out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from entropy_vision.config import load_config

if TYPE_CHECKING:
    from entropy_vision.options import TrainOptions


def run_train(options: TrainOptions) -> dict[str, object]:
    """Train as the file says; the same call again resumes, or reports a run that is done."""
    from .recipe import TrainRecipe
    from .trainer import Trainer

    return Trainer(load_config(options.config, TrainRecipe, options.overrides)).train()
