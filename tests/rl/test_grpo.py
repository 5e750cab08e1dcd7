"""Group-relative policy optimisation in a run: its reference, its gradient however scenes are parted, its reward."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from small_runs import FEW_IMAGES, small_recipe

from entropy_vision.rl.batch import Batch, make_batch
from entropy_vision.rl.grpo import Rolled, learn, roll
from entropy_vision.rl.recipe import (
    GrpoRecipe,
)
from entropy_vision.rl.rollout import Rollouts
from entropy_vision.rl.trainer import Trainer, read_metrics


def test_grpo_keeps_the_reference_it_began_with(tmp_path: Path) -> None:
    first = Trainer(small_recipe("sft", tmp_path / "sft", steps=2)).train()
    recipe = small_recipe("grpo", tmp_path / "grpo", steps=1, init=str(tmp_path / "sft"))
    Trainer(recipe).train()
    Trainer(small_recipe("sft", tmp_path / "sft", steps=4)).train()  # the run it came from goes on
    again = Trainer(replace(recipe, steps=2))
    assert again.facts["init"] == first["checkpoint"]
    held = load_file(Path(str(first["checkpoint"])) / "model.safetensors")
    assert again.context.reference is not None
    state = again.context.reference.state_dict()
    assert all(torch.equal(state[name], value) for name, value in held.items())


def test_grpo_raises_the_reward_of_a_policy_that_guesses(tmp_path: Path, guessing: Path) -> None:
    """On four pictures it can only learn which answer is right where: a sign error would lower the reward."""
    grpo = GrpoRecipe(group_size=8, max_new_tokens=24, beta=0.01)
    Trainer(small_recipe("grpo", tmp_path / "grpo", init=str(guessing), steps=24, grpo=grpo, **FEW_IMAGES)).train()
    metrics = read_metrics(tmp_path / "grpo")
    rewards = [m["reward"] for m in metrics]
    assert sum(rewards[-8:]) / 8 > sum(rewards[:8]) / 8 + 0.05
    assert all(m["kl"] >= 0 for m in metrics) and metrics[-1]["kl"] > 0


def _joined(batch: Batch, rolled: list[Rolled]) -> Rolled:
    """The completions of several batches as those of one."""
    longest = max(r.rollouts.mask.shape[1] for r in rolled)

    def padded(name: str) -> torch.Tensor:
        parts = [getattr(r.rollouts, name) for r in rolled]
        return torch.cat([torch.nn.functional.pad(part, (0, longest - part.shape[1])) for part in parts])

    rollouts = Rollouts(
        *(padded(name) for name in ("ids", "mask", "logp", "entropy")),
        torch.cat([r.rollouts.truncated for r in rolled]),
        [text for r in rolled for text in r.rollouts.texts],
    )
    sums = {name: sum(r.sums[name] for r in rolled) for name in rolled[0].sums}
    return Rolled(batch, rollouts, torch.cat([r.rewards for r in rolled]), sums)


@pytest.mark.parametrize("change", [{"loss": "dr_grpo"}, {"scale": "batch"}, {"loss": "dapo", "equal_groups": "skip"}])
def test_a_grpo_step_does_not_depend_on_how_its_scenes_are_parted(
    change: dict[str, object], tmp_path: Path, guessing: Path
) -> None:
    """One batch of four pictures, or four batches of one: the same loss and the same gradient."""
    grpo = GrpoRecipe(group_size=4, max_new_tokens=24, beta=0.05, **change)  # type: ignore[arg-type]
    trainer = Trainer(small_recipe("grpo", tmp_path / "run", init=str(guessing), grpo=grpo, **FEW_IMAGES))
    ((scored, _), _) = trainer._media("train")
    scenes = [scored[i] for i in range(4)]
    parts = [make_batch([scene], trainer.selector, 0.125, None) for scene in scenes]
    rolled = [roll(trainer.context, part, torch.Generator().manual_seed(3)) for part in parts]
    assert len({r.rollouts.mask.shape[1] for r in rolled}) > 1  # of different lengths
    joined = _joined(make_batch(scenes, trainer.selector, 0.125, None), rolled)
    seen = []
    for rolls in ([joined], rolled):
        grads: list[torch.Tensor] = []

        def update(grads: list[torch.Tensor] = grads) -> float:
            grads += [p.grad.clone() for p in trainer.model.parameters() if p.grad is not None]
            trainer.model.zero_grad()
            return 0.0

        metrics = learn(trainer.context, rolls, update)
        seen.append((metrics["loss"], torch.cat([g.flatten() for g in grads])))
    assert seen[0][0] == pytest.approx(seen[1][0], abs=1e-6)
    assert seen[0][1].abs().max() > 0
    torch.testing.assert_close(seen[0][1], seen[1][1], rtol=1e-4, atol=1e-6)
