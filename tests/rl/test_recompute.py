"""Gradient checkpointing: the same gradients and the same run, with less kept for the backward pass."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small_policy import noise_frames, pack, small_policy
from small_runs import FEW_IMAGES, small_recipe, weights
from torch import Tensor

from entropy_vision.hf_vision import HFVisionEncoder
from entropy_vision.rl.metrics import read_metrics
from entropy_vision.rl.recipe import GrpoRecipe, TrainRecipe
from entropy_vision.rl.recompute import recompute_layers
from entropy_vision.rl.rollout import read_questions, sample, score
from entropy_vision.rl.trainer import Trainer


def _recipe(run: Path, guessing: Path, **changes: object) -> TrainRecipe:
    grpo = GrpoRecipe(group_size=4, max_new_tokens=12, updates=2, beta=0.05)
    return small_recipe("grpo", run, **{**FEW_IMAGES, "init": str(guessing), "grpo": grpo, "steps": 2, **changes})


def test_gradients_are_those_of_a_policy_that_keeps_everything(tmp_path: Path, guessing: Path) -> None:
    trainer = Trainer(_recipe(tmp_path / "run", guessing))
    model, tokenizer = trainer.model.train(), trainer.tokenizer
    batch = trainer.validation()[0]
    drawn = sample(model, tokenizer, read_questions(model, tokenizer, batch), group=3, max_new_tokens=8)

    def gradients() -> tuple[dict[str, Tensor], int]:
        kept: dict[int, int] = {}

        def keep(tensor: Tensor) -> Tensor:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        model.zero_grad()
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            read = read_questions(model, tokenizer, batch)
            loss = score(model, tokenizer, read, drawn.ids, drawn.mask).square().sum()
        loss.backward()
        return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}, sum(kept.values())

    plain, all_bytes = gradients()
    recompute_layers(model)
    again, few_bytes = gradients()
    assert plain.keys() == again.keys()
    for name, gradient in plain.items():
        torch.testing.assert_close(again[name], gradient, rtol=1e-5, atol=1e-6, msg=name)
    assert few_bytes < 0.6 * all_bytes
    same_draw = sample(model, tokenizer, read_questions(model, tokenizer, batch), temperature=0.0, max_new_tokens=8)
    assert same_draw.ids.shape[0] == len(batch.asks)  # sampling goes on from a cache that was filled under gradients


@pytest.mark.parametrize("decoder", ["mistral", "gemma3_text"])
def test_a_cache_of_sliding_windows_is_left_as_without_it(decoder: str) -> None:
    """It counts what it has read, beside keys and values."""
    ids = torch.randint(5, 20, (2, 9), generator=torch.Generator().manual_seed(0))
    went_on = []
    for on in (False, True):
        model, _ = small_policy(seed=1, decoder=decoder)
        if on:
            recompute_layers(model)
        cache = model(ids, use_cache=True).cache
        positions = torch.tensor([[9, 10]] * 2)
        logits = model(ids[:, :2], cache=cache, position_ids=positions, use_cache=True).logits[..., ~model.blocked]
        went_on.append((logits, cache.get_seq_length()))
    assert went_on[0][1] == went_on[1][1] == 11
    torch.testing.assert_close(went_on[0][0], went_on[1][0])


@pytest.mark.parametrize("frozen", [False, True])
def test_a_run_is_the_same_with_it(frozen: bool, tmp_path: Path, guessing: Path) -> None:
    plain, again = (
        _recipe(tmp_path / name, guessing, gradient_checkpointing=on, frozen_tower=frozen)
        for name, on in (("plain", False), ("again", True))
    )
    for recipe in (plain, again):
        Trainer(recipe).train()
    losses = [[m["loss"] for m in read_metrics(recipe.out)] for recipe in (plain, again)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)
    assert all(m["grad_norm"] > 0 for m in read_metrics(again.out))


def test_a_frozen_tower_stays_as_it_was(tmp_path: Path, guessing: Path) -> None:
    run = tmp_path / "run"
    Trainer(_recipe(run, guessing, frozen_tower=True)).train()
    before, after = weights(guessing), weights(run)
    changed = {n for n in before if ":" not in n and not torch.equal(before[n], after[n])}
    assert {name.split(".")[0] for name in changed} == {"projector", "language"}
    whole = tmp_path / "whole"
    Trainer(_recipe(whole, guessing)).train()
    assert read_metrics(run)[0]["flops"] < read_metrics(whole)[0]["flops"]


def test_maps_beside_a_frozen_tower_are_the_language_models_and_go_on(tmp_path: Path, guessing: Path) -> None:
    pytest.importorskip("peft", reason="the extra [lora] is not installed")
    recipe = _recipe(tmp_path / "run", guessing, lora=2, frozen_tower=True, steps=1)
    trainer = Trainer(recipe)
    maps = {name for name in trainer.optimizer.names.values() if "lora_" in name}
    assert maps and all(name.startswith("language.") for name in maps)
    trainer.train()
    assert Trainer(replace(recipe, steps=2)).train()["steps"] == 2


def test_a_tower_of_transformers_recomputes_too() -> None:
    config = {"model_type": "clip_vision_model", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    config |= {"num_attention_heads": 2, "image_size": 32, "patch_size": 8, "mean": [0.5] * 3, "std": [0.5] * 3}
    torch.manual_seed(0)
    encoder = HFVisionEncoder.from_config(config).train()
    packed = pack(noise_frames(0, size=32), noise_frames(1, size=32), keep=0.5)

    def gradients() -> tuple[list[Tensor], int]:
        encoder.zero_grad()
        kept = 0

        def keep(tensor: Tensor) -> Tensor:
            nonlocal kept
            kept += 1
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss = encoder.encode(packed).square().sum()
        loss.backward()
        return [p.grad.clone() for p in encoder.parameters() if p.grad is not None], kept

    plain, all_kept = gradients()
    encoder.set_grad_checkpointing()
    again, few_kept = gradients()
    torch.testing.assert_close(again, plain)
    assert few_kept < all_kept / 2
