"""The `train` verb: a TOML file in, a checkpoint out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from entropy_vision.config import load_config

if TYPE_CHECKING:
    from entropy_vision.options import TrainOptions

    from .recipe import TrainRecipe


def run_train(options: TrainOptions) -> dict[str, object]:
    """Train as the file says; the same call again resumes, or reports a run that is done."""
    from .parallel import in_team
    from .recipe import TrainRecipe

    recipe = load_config(options.config, TrainRecipe, options.overrides)
    return in_team(recipe.processes, run_recipes, [recipe], timeout=recipe.timeout)[0]


def run_recipes(recipes: list[TrainRecipe]) -> list[dict[str, object]]:
    """Train one stage after the other in this process, alone or as a member of a team."""
    from .scenes import SceneMemory
    from .trainer import Trainer

    memory = SceneMemory()
    return [Trainer(recipe, memory).train() for recipe in recipes]
