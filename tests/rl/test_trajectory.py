"""The same run however it is computed: in parts, by two processes, resumed, with eager attention; and as recorded.

`trajectory.json` holds the losses of `_recipe(run, 50)`; whoever changes numerics on purpose records them anew.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small_runs import FEW_IMAGES, small_recipe

from entropy_vision.rl.batch import make_batches
from entropy_vision.rl.grpo import learn, roll
from entropy_vision.rl.metrics import read_metrics
from entropy_vision.rl.parallel import in_team
from entropy_vision.rl.recipe import BudgetRecipe, DataRecipe, GrpoRecipe, OptimRecipe, TrainRecipe
from entropy_vision.rl.train import run_recipes
from entropy_vision.rl.trainer import Trainer

REFERENCE = Path(__file__).with_name("trajectory.json")
TOLERANCE = 1e-5  # relative, of a loss: between ways to compute it
RECORDED = 1e-3  # and between machines


def _recipe(run: Path, steps: int, **changes: object) -> TrainRecipe:
    settings: dict[str, object] = {
        "data": DataRecipe(image_scenes=8, video_scenes=0, pool=8, workers=0),
        "budget": BudgetRecipe(keep=(0.25,), weights=(1.0,)),
        "optim": OptimRecipe(lr=1e-3, muon_lr=0.0, warmup=2),
        "steps": steps,
    }
    return small_recipe("sft", run, **(settings | changes))


def _losses_of_eager(recipe: TrainRecipe) -> list[float]:
    trainer = Trainer(recipe)
    trainer.model.language.set_attn_implementation("eager")
    trainer.train()
    return [m["loss"] for m in read_metrics(recipe.out)]


def _losses(recipe: TrainRecipe) -> list[float]:
    in_team(recipe.processes, run_recipes, [recipe])
    return [m["loss"] for m in read_metrics(recipe.out)]


@pytest.mark.parametrize("steps", [8, pytest.param(50, marks=pytest.mark.slow)])
def test_a_trajectory_is_the_same_however_it_is_computed(steps: int, tmp_path: Path) -> None:
    """Eight scenes at once, one by one, on two processes, with eager attention, stopped half-way; as recorded."""
    whole = _losses(_recipe(tmp_path / "whole", steps))
    assert whole[-1] < 0.9 * whole[0]
    parted = _recipe(tmp_path / "parted", steps)
    parted = replace(parted, data=replace(parted.data, micro_tokens=1))
    assert [len(b.patches.counts) for b in next(Trainer(parted)._deal(0))] == [1] * 8
    assert _losses(parted) == pytest.approx(whole, rel=TOLERANCE)
    assert _losses(_recipe(tmp_path / "two", steps, processes=2)) == pytest.approx(whole, rel=TOLERANCE)
    assert _losses_of_eager(_recipe(tmp_path / "eager", steps)) == pytest.approx(whole, rel=TOLERANCE)
    _losses(_recipe(tmp_path / "resumed", steps // 2))
    assert _losses(_recipe(tmp_path / "resumed", steps)) == whole
    assert whole == pytest.approx(json.loads(REFERENCE.read_text())["loss"][:steps], rel=RECORDED)


def test_parts_of_a_step_learn_what_the_whole_learns(tmp_path: Path, guessing: Path) -> None:
    """The same completions, parted by visual tokens and read again for the gradient, or at once."""
    grpo = GrpoRecipe(group_size=4, max_new_tokens=24, beta=0.05)
    trainer = Trainer(small_recipe("grpo", tmp_path / "run", init=str(guessing), grpo=grpo, **FEW_IMAGES))
    ((scored, _), _) = trainer._media("train")
    scenes = [scored[i] for i in range(4)]
    parts = make_batches(scenes, trainer.selector, 0.25, None, most=2 * 36)
    assert [len(p.patches.counts) for p in parts] == [2, 2]
    assert sum((p.asks for p in parts), ()) == make_batches(scenes, trainer.selector, 0.25, None)[0].asks
    rolled = [roll(trainer.context, part, torch.Generator().manual_seed(1)) for part in parts]
    seen = []
    for again in (False, True):
        grads: list[torch.Tensor] = []

        def update(grads: list[torch.Tensor] = grads) -> float:
            grads += [p.grad.clone().flatten() for p in trainer.model.parameters() if p.grad is not None]
            trainer.model.zero_grad()
            return 0.0

        metrics = learn(trainer.context, [replace(r, read=None) if again else r for r in rolled], update)
        seen.append((metrics["loss"], torch.cat(grads)))
    assert seen[0][0] == pytest.approx(seen[1][0], abs=1e-6)
    torch.testing.assert_close(seen[0][1], seen[1][1], rtol=0, atol=1e-6)
    data = replace(trainer.recipe.data, micro_tokens=50)
    lean = replace(trainer.context, recipe=replace(trainer.recipe, data=data))
    assert roll(lean, parts[0], torch.Generator().manual_seed(1)).read is None
