"""The warm-up's loss against its definition, one token at a time."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from entropy_vision.rl.buffer import NotFinite, Turns
from entropy_vision.rl.recipe import DataRecipe, EvalRecipe, PolicyRecipe, SftRecipe, TrainRecipe
from entropy_vision.rl.stages import align_step, sft_step
from entropy_vision.rl.trainer import Trainer
from entropy_vision.text import UNKNOWN, completion_ids, prompt_ids


@pytest.fixture(scope="module")
def trainer(tmp_path_factory: pytest.TempPathFactory) -> Trainer:
    recipe = TrainRecipe(
        stage="sft",
        out=str(tmp_path_factory.mktemp("run")),
        policy=PolicyRecipe(width=32, layers=1, heads=2),
        data=DataRecipe(image_scenes=2, video_scenes=1, frame_count=4, pool=5, workers=0),
        eval=EvalRecipe(scenes=2),
    )
    return Trainer(recipe)


@pytest.mark.parametrize("answer_weight", [1.0, 4.0])
def test_sft_loss_is_the_weighted_mean_over_completion_tokens(trainer: Trainer, answer_weight: float) -> None:
    sft = SftRecipe(answer_weight=answer_weight, align_weight=0.0)
    context = replace(trainer.context, recipe=replace(trainer.recipe, sft=sft))
    model, words = context.model, context.tokenizer
    batches = next(trainer._deal(0))
    metrics = sft_step(context, batches, 0, lambda: 0.0, Turns())

    above = below = 0.0
    with torch.no_grad():
        for batch in batches:
            pictures = model.read_patches(batch.patches)
            for owner, ask in zip(batch.owner.tolist(), batch.asks, strict=True):
                said = prompt_ids(words, ask.question)
                weight = 1.0
                for token in completion_ids(words, ask.gold):
                    ids = torch.tensor([said])
                    logits, _ = model.read(pictures.rows(torch.tensor([owner])), ids, torch.ones_like(ids).bool())
                    above -= weight * float(torch.log_softmax(logits[0, -1], -1)[token])
                    below += weight
                    said.append(token)
                    if words.convert_ids_to_tokens(token) == "</think>":
                        weight = answer_weight
    assert metrics["loss"] == pytest.approx(above / below, rel=1e-5)


def test_gradients_of_the_warm_up_reach_tower_projector_and_language_model(trainer: Trainer, tmp_path: Path) -> None:
    trainer.model.zero_grad()
    sft_step(trainer.context, next(trainer._deal(0)), 0, lambda: 0.0, Turns())
    touched = {
        name.split(".")[0] for name, p in trainer.model.named_parameters() if p.grad is not None and p.grad.any()
    }
    assert touched == {"encoder", "projector", "language"}


def test_a_demonstration_that_can_never_be_said_ends_the_step_before_an_update(trainer: Trainer) -> None:
    """Its log-probability is -inf, and yet all gradients are finite."""
    batches = list(next(trainer._deal(0)))
    asks = tuple(replace(ask, gold=f"<think> {UNKNOWN} </think> <answer> 1 </answer>") for ask in batches[0].asks)
    batches[0] = replace(batches[0], asks=asks)
    with pytest.raises(NotFinite, match="the loss is inf"):
        sft_step(trainer.context, batches, 0, _no_update, Turns())


def test_an_alignment_loss_that_is_not_finite_ends_the_step_before_an_update(trainer: Trainer) -> None:
    context = replace(trainer.context, model=copy.deepcopy(trainer.model))
    with torch.no_grad():
        context.model.word_embeddings[context.groups[1]] = float("nan")
    with pytest.raises(NotFinite, match="the loss is nan"):
        align_step(context, next(trainer._deal(0)), 0, _no_update, Turns())


def _no_update() -> float:
    raise AssertionError("updated by a loss that is not finite")
