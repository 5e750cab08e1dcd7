"""Group-relative policy optimisation in a run: its reference, its gradient however scenes are parted, its reward."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from small_runs import FEW_IMAGES, same, small_recipe

from entropy_vision.dialect import spoken
from entropy_vision.errors import UsageError
from entropy_vision.packed import PackedPatches
from entropy_vision.policy import EntropyVLM
from entropy_vision.question import Answer
from entropy_vision.rl import policy_loss
from entropy_vision.rl.advantage import grpo_advantages
from entropy_vision.rl.batch import Batch, make_batch
from entropy_vision.rl.context import Context
from entropy_vision.rl.grpo import Rolled, learn, roll
from entropy_vision.rl.hints import Idle, padded_pictures, short_answers
from entropy_vision.rl.metrics import read_metrics
from entropy_vision.rl.parallel import in_team
from entropy_vision.rl.recipe import DataRecipe, GrpoRecipe, TrainRecipe
from entropy_vision.rl.reference import Copy
from entropy_vision.rl.rollout import Rollouts, read_questions, score
from entropy_vision.rl.rubric import Reward
from entropy_vision.rl.scenes import Ask
from entropy_vision.rl.trainer import Trainer
from entropy_vision.rl.verifiers import Verdict
from entropy_vision.rl.verifiers.verdict import Status
from entropy_vision.text import IMAGE, prompt_ids, token_id, word_tokenizer


def test_what_cannot_be_learned_is_told_once() -> None:
    idle = Idle()
    told = [idle({"zero_variance": 1.0, "reward": 0.1}) for _ in range(25)]
    assert [i for i, said in enumerate(told) if said] == [9] and "earned the same (reward 0.1)" in str(told[9])
    assert not idle({"zero_variance": 0.9, "reward": 0.1}) and not idle({"loss": 1.0})
    assert [bool(idle({"zero_variance": 1.0, "reward": 0.0})) for _ in range(10)] == [False] * 9 + [True]


def test_answers_that_are_cut_off_are_told() -> None:
    tokenizer = word_tokenizer(["red", "look"])
    ask = Ask("k", "f", "q?", Answer("exact", "red"), "<think> look </think> <answer> red </answer>")
    assert short_answers(spoken(tokenizer), [ask], 7) is None
    assert "grpo.max_new_tokens = 6: right answers here have up to 7 tokens" in str(
        short_answers(spoken(tokenizer), [ask], 6)
    )


def test_pictures_that_patches_do_not_divide_are_told() -> None:
    assert padded_pictures(DataRecipe(image_size=96, video_size=64), 16) is None
    told = str(padded_pictures(DataRecipe(image_size=100, video_size=64), 16))
    assert told.startswith("data.image_size = 100: patches of 16") and "last 12 of 112" in told and "96 or 112" in told
    assert padded_pictures(DataRecipe(image_size=100, image_scenes=0, video_size=64), 16) is None
    assert "data.video_size = 40" in str(padded_pictures(DataRecipe(image_size=64, video_size=40), 32))


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
    assert isinstance(again.context.reference, Copy)
    state = again.context.reference.model.state_dict()
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


def _scores(pattern: list[list[float]]) -> Callable[..., Reward]:
    """A rubric that gives the completions of each draw these totals, one list a draw, the last one for ever."""
    draws, given = iter(pattern), list[float]()

    def rubric(completion: str, answer: object, truncated: bool = False) -> Reward:
        if not given:
            given.extend(next(draws, pattern[-1]))
        total = given.pop(0)
        return Reward(total, total, 0.0, Verdict(0.0, Status.WRONG, None, False))

    return rubric


@pytest.mark.parametrize(
    ("draws", "drawn_again", "learned"),
    [
        ([[1, 1, 1, 1, 0, 1, 0, 1], [0, 0, 0, 0], [1, 0, 0, 0]], 8, 2),  # the first question parts at the second draw
        ([[1, 1, 1, 1, 0, 1, 0, 1], [0, 0, 0, 0]], 12, 1),  # it never does
        ([[1, 0, 0, 0, 0, 1, 0, 1]], 0, 2),
    ],
)
def test_groups_of_equal_rewards_are_drawn_again_a_bounded_number_of_times(
    draws: list[list[float]], drawn_again: int, learned: int, tmp_path: Path, guessing: Path
) -> None:
    grpo = GrpoRecipe(group_size=4, max_new_tokens=8, equal_groups="resample", resample_rounds=3)
    trainer = Trainer(small_recipe("grpo", tmp_path / "run", init=str(guessing), grpo=grpo, **FEW_IMAGES))
    ((scored, _), _) = trainer._media("train")
    scene = replace(scored[0], asks=scored[0].asks[:2])
    context = replace(trainer.context, rubric=_scores(draws))  # type: ignore[arg-type]
    batch = make_batch([scene], trainer.selector, 0.125, None)
    rolled = roll(context, batch, torch.Generator().manual_seed(1))
    assert rolled.sums["resampled"] == drawn_again
    assert rolled.sums["reward"] == sum(draws[0])  # of the first draw
    assert int(rolled.differ.sum()) == learned
    again = score(context.model, context.tokenizer, rolled.read, rolled.rollouts.ids, rolled.rollouts.mask)
    torch.testing.assert_close(again, rolled.rollouts.logp, rtol=0, atol=2e-6 * 50)
    metrics = learn(context, [rolled], lambda: 0.0)
    assert metrics["resampled"] == drawn_again / 8 and metrics["zero_variance"] == (2 - learned) / 2


def test_a_reward_that_fails_ends_the_run_and_tells_the_completion(tmp_path: Path, guessing: Path) -> None:
    trainer = Trainer(small_recipe("grpo", tmp_path / "run", init=str(guessing), **FEW_IMAGES))
    said: list[str] = []

    def rubric(completion: str, answer: object, truncated: bool = False) -> Reward:
        said.append(completion)
        raise ZeroDivisionError("a defect")

    trainer.context = replace(trainer.context, rubric=rubric)  # type: ignore[arg-type]
    trainer.grade = lambda temperature: (0.0, 0.0)  # type: ignore[method-assign]
    with pytest.raises(ZeroDivisionError, match="a defect") as failed:
        trainer.train()
    assert len(said) == 1 and repr(said[0]) in failed.value.__notes__[0]
    assert not list((tmp_path / "run").glob("step-*"))


def _alone(model: EntropyVLM, context: Context, rolled: Rolled) -> torch.Tensor:
    """[B, T] log-probabilities, every completion a row of its own through `forward`, its picture encoded for itself."""
    size, rows = context.recipe.grpo.group_size, []
    for row, (ids, mask) in enumerate(zip(rolled.rollouts.ids, rolled.rollouts.mask, strict=True)):
        question, scene = row // size, int(rolled.batch.owner[row // size])
        patches = rolled.batch.patches
        first = sum(patches.counts[:scene])
        mine = slice(first, first + patches.counts[scene])
        picture = PackedPatches(
            pixels=patches.pixels[mine],
            positions=patches.positions[mine],
            counts=(patches.counts[scene],),
            grids=(patches.grids[scene],),
        )
        said = ids[mask].tolist()
        holes = [token_id(context.tokenizer, IMAGE)] * picture.counts[0]
        read = holes + prompt_ids(context.tokenizer, rolled.batch.asks[question].question) + said
        logp = model(torch.tensor([read]), patches=picture).logits[0, -len(said) - 1 : -1].log_softmax(-1)
        picked = logp[torch.arange(len(said)), torch.tensor(said)]
        rows.append(torch.nn.functional.pad(picked, (0, len(ids) - len(said))))
    return torch.stack(rows)


def test_a_step_that_shares_what_it_reads_equals_one_that_does_not(tmp_path: Path, guessing: Path) -> None:
    """Loss to 1e-6 and gradients to 1e-5, off the policy, with a penalty; the sampler against the scorer to 2e-6."""
    grpo = GrpoRecipe(group_size=4, max_new_tokens=24, beta=0.05)
    trainer = Trainer(small_recipe("grpo", tmp_path / "run", init=str(guessing), grpo=grpo, **FEW_IMAGES))
    context, model, reference = trainer.context, trainer.model, trainer.context.reference
    assert isinstance(reference, Copy)
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(1.02)  # away from the reference
    ((scored, _), _) = trainer._media("train")
    scenes = [replace(scored[i], asks=scored[i].asks[:2]) for i in range(2)]
    batch = make_batch(scenes, trainer.selector, 0.25, None)
    rolled = roll(context, batch, torch.Generator().manual_seed(2))
    again = score(model, context.tokenizer, rolled.read, rolled.rollouts.ids, rolled.rollouts.mask)
    assert float((again.detach() - rolled.rollouts.logp).abs().max()) <= 2e-6
    noise = 0.3 * torch.randn(again.shape, generator=torch.Generator().manual_seed(3)) * rolled.rollouts.mask
    rewards = torch.rand(4, 4, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    off = replace(rolled, rollouts=replace(rolled.rollouts, logp=rolled.rollouts.logp + noise), rewards=rewards)
    grads: dict[str, torch.Tensor] = {}

    def update() -> float:
        grads.update({n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})
        model.zero_grad()
        return 0.0

    metrics = learn(context, [off], update)
    assert metrics["bounded"] > 0.15
    with torch.no_grad():
        ref_logp = _alone(reference.model, context, off)
    loss = policy_loss(
        _alone(model, context, off),
        off.rollouts.logp,
        grpo_advantages(rewards).flatten().float(),
        off.rollouts.mask,
        ref_logp=ref_logp,
        beta=0.05,
    )
    loss.backward()
    assert metrics["loss"] == pytest.approx(loss.item(), abs=1e-6)
    seen = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    assert seen.keys() == grads.keys() and max(float(g.abs().max()) for g in seen.values()) > 0.01
    assert max(float((seen[n] - grads[n]).abs().max()) for n in seen) <= 1e-5
