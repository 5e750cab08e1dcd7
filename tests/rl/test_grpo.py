"""Group-relative policy optimisation in a run: its reference, its gradient however scenes are parted, its reward."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from small_runs import FEW_IMAGES, same, small_recipe

from entropy_vision.errors import UsageError
from entropy_vision.rl.advantage import grpo_advantages
from entropy_vision.rl.batch import Batch, make_batch
from entropy_vision.rl.context import Context
from entropy_vision.rl.grpo import Rolled, learn, roll
from entropy_vision.rl.parallel import in_team
from entropy_vision.rl.recipe import GrpoRecipe, TrainRecipe
from entropy_vision.rl.rollout import Rollouts, read_questions, score
from entropy_vision.rl.trainer import Trainer, read_metrics


def test_grpo_keeps_the_reference_it_began_with(tmp_path: Path) -> None:
    first = Trainer(small_recipe("sft", tmp_path / "sft", steps=2)).train()
    began = Path(str(first["checkpoint"]))
    held = load_file(began / "model.safetensors")
    recipe = small_recipe("grpo", tmp_path / "grpo", steps=1, init=str(tmp_path / "sft"))
    Trainer(recipe).train()
    Trainer(small_recipe("sft", tmp_path / "sft", steps=4, checkpoint_every=1)).train()  # where it came from goes on
    assert not began.exists()
    again = Trainer(replace(recipe, steps=2))
    assert again.facts["init"] == str(began)
    assert again.context.reference is not None
    state = again.context.reference.state_dict()
    assert all(torch.equal(state[name], value) for name, value in held.items())
    assert again.train()["steps"] == 2


def test_a_reference_that_an_abandoned_run_has_left_is_not_taken(tmp_path: Path) -> None:
    Trainer(small_recipe("sft", tmp_path / "sft", steps=2)).train()
    recipe = small_recipe("grpo", tmp_path / "grpo", steps=1, init=str(tmp_path / "sft"))
    kept = tmp_path / "grpo" / "reference"
    kept.mkdir(parents=True)
    (kept / "config.json").write_text("{}")
    Trainer(recipe).train()
    assert same(load_file(kept / "model.safetensors"), load_file(tmp_path / "sft/step-000002/model.safetensors"))


def test_a_run_whose_reference_is_gone_says_so(tmp_path: Path) -> None:
    Trainer(small_recipe("sft", tmp_path / "sft", steps=2)).train()
    recipe = small_recipe("grpo", tmp_path / "grpo", steps=1, init=str(tmp_path / "sft"))
    Trainer(recipe).train()
    for folder in (tmp_path / "grpo" / "reference", tmp_path / "sft" / "step-000002"):
        shutil.rmtree(folder)
    with pytest.raises(UsageError, match="which is gone; begin again in another out"):
        Trainer(replace(recipe, steps=2))


def test_without_a_penalty_no_reference_is_kept(tmp_path: Path) -> None:
    Trainer(small_recipe("sft", tmp_path / "sft", steps=1)).train()
    grpo = GrpoRecipe(group_size=2, max_new_tokens=4, beta=0.0)
    Trainer(small_recipe("grpo", tmp_path / "grpo", steps=1, init=str(tmp_path / "sft"), grpo=grpo)).train()
    assert not (tmp_path / "grpo" / "reference").exists()


def test_grpo_raises_the_reward_of_a_policy_that_guesses(tmp_path: Path, guessing: Path) -> None:
    """On four pictures it can only learn which answer is right where: a sign error would lower the reward."""
    grpo = GrpoRecipe(group_size=8, max_new_tokens=24, beta=0.01)
    Trainer(small_recipe("grpo", tmp_path / "grpo", init=str(guessing), steps=24, grpo=grpo, **FEW_IMAGES)).train()
    metrics = read_metrics(tmp_path / "grpo")
    watched = {"zero_variance", "truncated", "unparsable", "ambiguous", "duplicates", "hack_gap"}
    assert all(0.0 <= m[name] <= 1.0 for m in metrics for name in watched)
    rewards = [m["reward"] for m in metrics]
    assert sum(rewards[-8:]) / 8 > sum(rewards[:8]) / 8 + 0.05
    assert all(m["kl"] >= 0 for m in metrics) and metrics[-1]["kl"] > 0


def _joined(context: Context, batch: Batch, rolled: list[Rolled]) -> Rolled:
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
    rewards = torch.cat([r.rewards for r in rolled])
    return Rolled(batch, read_questions(context.model, context.tokenizer, batch), rollouts, rewards, sums)


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
    rolled = [roll(trainer.context, part, torch.Generator().manual_seed(5)) for part in parts]
    assert len({r.rollouts.mask.shape[1] for r in rolled}) > 1  # of different lengths
    joined = _joined(trainer.context, make_batch(scenes, trainer.selector, 0.125, None), rolled)
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


def _loss_and_gradient(recipe: TrainRecipe) -> tuple[float, float]:
    """(loss, the gradient's norm) of four pictures, of which each process of a team has its share."""
    trainer = Trainer(recipe)
    context, parameters = trainer.context, list(trainer.model.parameters())
    ((scored, _), _) = trainer._media("train")
    batches = {i: make_batch([scored[i]], trainer.selector, 0.125, None) for i in context.team.share(list(range(4)))}
    rolled = [roll(context, batch, torch.Generator().manual_seed(i)) for i, batch in batches.items()]

    def update() -> float:
        context.team.add_gradients(parameters)
        return float(torch.nn.utils.clip_grad_norm_(parameters, float("inf")))

    metrics = learn(context, rolled, update)
    return metrics["loss"], metrics["grad_norm"]


@pytest.mark.parametrize("change", [{"loss": "dapo"}, {"scale": "batch"}])
def test_two_processes_learn_what_one_learns(change: dict[str, object], tmp_path: Path, guessing: Path) -> None:
    grpo = GrpoRecipe(group_size=4, max_new_tokens=24, beta=0.05, **change)  # type: ignore[arg-type]
    recipe = small_recipe("grpo", tmp_path / "run", init=str(guessing), grpo=grpo, **FEW_IMAGES)
    one, two = (in_team(processes, _loss_and_gradient, recipe) for processes in (1, 2))
    assert one == pytest.approx(two, rel=1e-3, abs=1e-6) and one[1] > 0


def test_a_second_update_reads_anew_with_the_policy_the_first_has_changed(tmp_path: Path, guessing: Path) -> None:
    grpo = GrpoRecipe(group_size=4, max_new_tokens=24, beta=0.0, updates=2, equal_groups="keep")
    trainer = Trainer(small_recipe("grpo", tmp_path / "run", init=str(guessing), grpo=grpo, **FEW_IMAGES))
    context, model = trainer.context, trainer.model
    ((scored, _), _) = trainer._media("train")
    batch = make_batch([scored[i] for i in range(4)], trainer.selector, 0.25, None)
    rolled = roll(context, batch, torch.Generator().manual_seed(3))
    grads: list[torch.Tensor] = []

    def update() -> float:
        """A step on what the pictures go through: what was read before it is out of date."""
        grads.append(model.projector.look.weight.grad.clone())
        model.zero_grad()
        with torch.no_grad():
            model.projector.look.weight.mul_(1.3)
        return 0.0

    learn(context, [rolled], update)
    with torch.no_grad():
        model.projector.look.weight.div_(1.3)
    r = rolled.rollouts
    logp = score(model, context.tokenizer, read_questions(model, context.tokenizer, batch), r.ids, r.mask)
    advantages = grpo_advantages(rolled.rewards).flatten().float()
    ratio = (logp - r.logp).exp()
    gain = torch.minimum(ratio * advantages[:, None], ratio.clamp(0.8, 1.2) * advantages[:, None])
    (-((gain * r.mask).sum(1) / r.mask.sum(1)).mean()).backward()
    assert not torch.allclose(grads[0], grads[1], rtol=0.01, atol=0)
    torch.testing.assert_close(grads[1], model.projector.look.weight.grad, rtol=1e-4, atol=1e-6)
