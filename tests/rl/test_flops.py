"""FLOPs of a step in closed form, beside what torch counts of the same step."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small_policy import noise_frames, pack, small_policy
from small_runs import FEW_IMAGES, small_recipe
from transformers import CLIPVisionConfig, CLIPVisionModel, SiglipVisionConfig, SiglipVisionModel

from entropy_vision.cost import count_flops
from entropy_vision.hf_vision import HFVisionEncoder
from entropy_vision.rl.buffer import Rolled, Turns
from entropy_vision.rl.context import Metrics
from entropy_vision.rl.flops import Asked, Prices, beginnings
from entropy_vision.rl.grpo import learn, roll
from entropy_vision.rl.recipe import DataRecipe, GrpoRecipe, OptimRecipe
from entropy_vision.rl.rollout import read_prompts, sample, score
from entropy_vision.rl.rubric import Reward
from entropy_vision.rl.stages import STEPS
from entropy_vision.rl.trainer import Trainer
from entropy_vision.rl.verifiers import Verdict
from entropy_vision.rl.verifiers.verdict import Status
from entropy_vision.text import prompt_ids
from entropy_vision.tower import Tower


def _counted(run: object) -> int:
    with torch.no_grad():
        return sum(count_flops(run).values())  # type: ignore[arg-type]


@pytest.fixture
def unpadded(monkeypatch: pytest.MonkeyPatch) -> None:
    """No more lanes and keys than there are; padding is work that no price counts."""
    monkeypatch.setattr("entropy_vision.lanes._VECTOR", 1)
    monkeypatch.setattr("entropy_vision.rl.rollout._LANES", 1)


@pytest.mark.usefixtures("unpadded")
def test_reading_sampling_and_scoring_cost_what_torch_counts() -> None:
    """One question, so that nothing is padded: equal to the last FLOP."""
    model, tokenizer = small_policy()
    patches, prices, group = pack(noise_frames(0, frames=2, size=64)), Prices.of(model), 4
    prompt = prompt_ids(tokenizer, "how many red ?")
    asked = Asked(patches.counts, [0], [len(prompt) - 1])
    owner = torch.zeros(1, dtype=torch.long)
    prefix = read_prompts(model, tokenizer, model.read_patches(patches), owner, [prompt])
    read = _counted(lambda: read_prompts(model, tokenizer, model.read_patches(patches), owner, [prompt]))
    assert prices.read_questions(patches, asked) == read
    seed = torch.Generator().manual_seed(3)
    drawn = []
    sampled = _counted(
        lambda: drawn.append(sample(model, tokenizer, prefix, group=group, max_new_tokens=9, generator=seed))
    )
    (levels,) = beginnings(drawn[0].ids, drawn[0].mask, group)
    assert levels[0] == 1 and 1 < max(levels) <= group and len(levels) == drawn[0].ids.shape[1]
    assert prices.sample(levels, *asked.slots) == sampled
    scored = _counted(lambda: score(model, tokenizer, prefix, drawn[0].ids, drawn[0].mask))
    assert prices.score(levels, *asked.slots) == scored


def test_beginnings_are_counted_once_and_ends_go_on_no_further() -> None:
    ids = torch.tensor([[5, 6, 7], [5, 6, 9], [5, 1, 0], [1, 0, 0]])
    mask = torch.tensor([[1, 1, 1], [1, 1, 1], [1, 1, 0], [1, 0, 0]]).bool()
    assert beginnings(ids, mask, 4) == [[1, 1, 1]]
    assert beginnings(ids, mask, 2) == [[1, 1, 1], [1, 1]]
    assert beginnings(ids, mask, 1) == [[1, 1, 1], [1, 1, 1], [1, 1], [1]]


@pytest.mark.parametrize("stage", ["align", "sft", "grpo"])
def test_a_step_costs_about_what_torch_counts(stage: str, tmp_path: Path, guessing: Path) -> None:
    """At most a fifth below, as padding and losses are not priced, and little above: the first map passes no gradient
    on."""
    data = DataRecipe(image_scenes=2, video_scenes=2, frame_count=4, pool=8, workers=0)
    grpo = GrpoRecipe(group_size=4, max_new_tokens=24, updates=2, beta=0.05)
    changes = {**FEW_IMAGES, "data": data, "optim": OptimRecipe(muon_lr=0.0), "grpo": grpo, "init": str(guessing)}
    trainer = Trainer(small_recipe(stage, tmp_path / "run", **changes))
    trainer.model.train()
    batches, told = next(trainer._deal(0)), list[Metrics]()

    def step() -> None:
        told.append(STEPS[stage](trainer.context, batches, 0, lambda: trainer._update(0), Turns()))

    counted = sum(count_flops(step).values())
    assert 0.8 * counted < told[0]["flops"] < 1.02 * counted


@pytest.mark.usefixtures("unpadded")
def test_groups_drawn_again_readings_and_updates_are_all_counted(tmp_path: Path, guessing: Path) -> None:
    """One question, so that nothing is padded: what is rolled to the last FLOP, and a reading more where a step is in
    parts. Of the gradient no more than a tenth is priced too much: what is read before the completions needs none of
    its last layer's queries and MLP, and this policy has one layer."""
    data = DataRecipe(image_scenes=1, video_scenes=0, pool=1, workers=0)
    grpo = GrpoRecipe(group_size=4, max_new_tokens=24, updates=3, beta=0.05)
    changes = {**FEW_IMAGES, "data": data, "optim": OptimRecipe(muon_lr=0.0), "init": str(guessing)}
    trainer = Trainer(small_recipe("grpo", tmp_path / "run", **{**changes, "grpo": grpo}))
    whole, recipe = trainer.context, trainer.recipe
    zero = Reward(0.0, 0.0, 0.0, Verdict(0.0, Status.WRONG, None, False))
    again = replace(recipe, grpo=replace(grpo, equal_groups="resample"))
    parted = replace(recipe, data=replace(data, micro_tokens=20))
    (batch,) = next(trainer._deal(0))
    batch = replace(batch, asks=batch.asks[:1], owner=batch.owner[:1])
    rolled, told, torchs = list[Rolled](), list[float](), list[int]()
    for context in (
        replace(whole, recipe=again, rubric=lambda *_, **__: zero),
        whole,
        replace(whole, recipe=parted),
    ):
        assert context.prices  # what it takes to know them is counted by nobody
        seed = torch.Generator().manual_seed(1)
        counted = sum(count_flops(lambda c=context, s=seed: rolled.append(roll(c, batch, s))).values())
        assert rolled[-1].sums["flops"] == counted
        metrics = list[Metrics]()
        learnt = count_flops(lambda c=context, m=metrics: m.append(learn(c, rolled[-1:], lambda: 0.0)))
        told.append(metrics[0]["flops"] - counted)
        torchs.append(sum(learnt.values()))
    assert rolled[0].sums["resampled"] == 3 * 4 and told[0] == torchs[0] == 0
    assert told[2] - told[1] == torchs[2] - torchs[1] > 0
    assert told[1:] == pytest.approx(torchs[1:], rel=0.1)


def test_the_progress_line_tells_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Trainer(small_recipe("align", tmp_path / "run", steps=1)).train()
    assert "GFLOP at" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_towers_of_transformers_have_their_price(kind: str) -> None:
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    sizes |= {"image_size": 32, "patch_size": 8}
    tower = (
        CLIPVisionModel(CLIPVisionConfig(**sizes)) if kind == "clip" else SiglipVisionModel(SiglipVisionConfig(**sizes))
    )
    encoder = HFVisionEncoder(tower, -1, (0.5,) * 3, (0.5,) * 3)
    patches = pack(noise_frames(0, frames=2, size=32), noise_frames(1, size=32))
    price = Tower.from_config(encoder.config)
    segments = torch.bincount(patches.lay_out(price.prefix).patch_segments).tolist()
    assert price.flops(segments) == _counted(lambda: encoder.encode(patches))
