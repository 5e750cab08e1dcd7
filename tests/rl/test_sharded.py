"""FSDP2: two processes that each hold a part compute what one computes, and what they save is anybody's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from small_runs import FEW_IMAGES, same, small_recipe, weights

from entropy_vision.rl.checkpoint import newest
from entropy_vision.rl.metrics import read_metrics
from entropy_vision.rl.parallel import in_team
from entropy_vision.rl.recipe import DataRecipe, GrpoRecipe, OptimRecipe, TrainRecipe
from entropy_vision.rl.train import run_recipes
from entropy_vision.rl.trainer import Trainer


def _model(run: Path) -> dict[str, torch.Tensor]:
    folder = newest(run)
    assert folder is not None
    return load_file(folder / "model.safetensors")


def _recipe(stage: str, run: Path, **changes: object) -> TrainRecipe:
    data = DataRecipe(image_scenes=4, video_scenes=3, frame_count=4, pool=20, workers=0)
    # the rate of recipes/grpo.toml. Adam turns gradients that are nothing but rounding into steps of this size, so that
    # what the order of sums parts grows with it
    optim = OptimRecipe(lr=3e-4, muon_lr=0.0, warmup=2)
    return small_recipe(stage, run, **({"data": data, "optim": optim, "steps": 5} | changes))


def _furthest(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    assert one.keys() == other.keys()
    return max(float((one[k].double() - other[k].double()).abs().max()) for k in one)


@pytest.mark.parametrize("stage", ["align", "sft"])
def test_two_that_hold_parts_compute_what_one_computes(stage: str, tmp_path: Path) -> None:
    """Five steps; `align` leaves the language model unused, whose weights must not decay for it."""
    for name, processes, parallel in (("one", 1, "replicate"), ("two", 2, "shard")):
        recipe = _recipe(stage, tmp_path / name, processes=processes, parallel=parallel)
        in_team(processes, run_recipes, [recipe])
    one, two = (read_metrics(tmp_path / name) for name in ("one", "two"))
    assert [m["loss"] for m in one] == pytest.approx([m["loss"] for m in two], rel=1e-5)
    assert [m["grad_norm"] for m in one] == pytest.approx([m["grad_norm"] for m in two], rel=1e-4)
    assert _furthest(_model(tmp_path / "one"), _model(tmp_path / "two")) <= 1e-5


@pytest.mark.parametrize("medium", ["image_scenes", "video_scenes"])
@pytest.mark.parametrize("stage", ["align", "sft"])
def test_one_that_sums_as_two_do_is_equal_to_them_bit_for_bit(stage: str, medium: str, tmp_path: Path) -> None:
    """Five steps by the shipped recipes' optimisers, the gradient's norm bounded: one process that takes its two scenes
    one after the other, two that hold copies, two that hold parts. Weights and state are the same numbers.

    Two numbers add up to the same in any order, and the norm is summed so that its order is lost in rounding. More than
    two would not: Muon, in half precision, makes updates of full size of what is nothing but rounding in a gradient.
    """
    scenes = {"image_scenes": 0, "video_scenes": 0}
    optim = OptimRecipe(lr=2e-3, muon_lr=0.02, warmup=2)
    teams = {"one": (1, "replicate", 1, 2), "copies": (2, "replicate", 0, 2), "parts": (2, "shard", 0, 2)}
    for name, (processes, parallel, tokens, count) in teams.items():
        data = DataRecipe(**{**scenes, medium: count}, frame_count=4, pool=20, workers=0, micro_tokens=tokens)  # type: ignore[arg-type]
        recipe = _recipe(stage, tmp_path / name, processes=processes, parallel=parallel, data=data, optim=optim)
        in_team(processes, run_recipes, [recipe])
    one, copies, parts = (weights(tmp_path / name) for name in teams)
    assert sum(name.startswith("momentum_buffer:") for name in copies) > 10
    assert max(m["grad_norm"] for m in read_metrics(tmp_path / "parts")) > optim.max_grad_norm
    assert same(copies, parts)
    assert same(copies, one)


@pytest.mark.parametrize("muon_lr", [0.0, 0.006])
def test_ragged_groups_do_not_wait_for_each_other_and_two_parts_become_one(
    muon_lr: float, tmp_path: Path, guessing: Path
) -> None:
    """Completions of any length, groups without a difference left out, two updates a step, saved inside one."""
    optim = OptimRecipe(lr=3e-4, muon_lr=muon_lr, warmup=2, max_grad_norm=0.05)
    grpo = GrpoRecipe(group_size=4, max_new_tokens=24, updates=2, beta=0.05, equal_groups="skip")
    changes = {**FEW_IMAGES, "init": str(guessing), "grpo": grpo, "optim": optim}
    recipe = small_recipe("grpo", tmp_path / "run", processes=2, parallel="shard", **{**changes, "steps": 3})
    in_team(2, run_recipes, [recipe])
    in_team(2, run_recipes, [replace(recipe, out=str(tmp_path / "copies"), parallel="replicate")])
    assert same(weights(tmp_path / "run"), weights(tmp_path / "copies"))
    before, saved = _model(tmp_path / "run"), weights(tmp_path / "run")
    alone = Trainer(replace(recipe, processes=1, steps=4))
    assert same(before, {k: v for k, v in alone.model.state_dict().items() if k in before})
    state = alone.optimizer.tensors()
    assert same(state, {k: v for k, v in saved.items() if k not in before})
    for moment in ("exp_avg:", *["momentum_buffer:"] * bool(muon_lr)):
        assert any(float(v.abs().max()) > 0 for k, v in state.items() if k.startswith(moment))
    assert alone.train()["steps"] == 4  # one goes on where two were
    again = in_team(2, run_recipes, [replace(recipe, steps=5)])[0]  # and two where one was
    assert again["steps"] == 5 and weights(tmp_path / "run").keys() == saved.keys()
