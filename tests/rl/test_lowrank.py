"""Low-rank maps and bfloat16: runs train what they should, go on bit for bit, and leave a policy that anybody reads."""

from __future__ import annotations

import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from small_runs import FEW_IMAGES, same, small_recipe, untimed, weights

from entropy_vision.config import load_config, to_toml
from entropy_vision.errors import UsageError
from entropy_vision.rl import checkpoint
from entropy_vision.rl.lowrank import TRAINED, merged, trained
from entropy_vision.rl.metrics import read_metrics
from entropy_vision.rl.parallel import in_team
from entropy_vision.rl.recipe import GrpoRecipe, OptimRecipe, TrainRecipe
from entropy_vision.rl.reference import WithoutMaps
from entropy_vision.rl.rollout import read_questions
from entropy_vision.rl.train import run_recipes
from entropy_vision.rl.trainer import Trainer


def _recipe(run: Path, guessing: Path, **changes: object) -> TrainRecipe:
    grpo = GrpoRecipe(group_size=4, max_new_tokens=24, updates=2, beta=0.05)
    settings = {**FEW_IMAGES, "init": str(guessing), "grpo": grpo, "steps": 2, "checkpoint_every": 1}
    recipe = small_recipe("grpo", run, **{**settings, "checkpoint_updates": True, **changes})
    (run.parent / f"{run.name}.toml").write_text(to_toml(recipe))
    return load_config(run.parent / f"{run.name}.toml", TrainRecipe)


@pytest.mark.parametrize(
    ("lora", "dtype", "processes", "parallel"),
    [
        (2, "float32", 1, "replicate"),
        (2, "bfloat16", 1, "replicate"),
        (0, "bfloat16", 1, "replicate"),
        (2, "bfloat16", 2, "replicate"),
        (0, "bfloat16", 2, "shard"),
    ],
)
def test_a_recipe_with_maps_or_half_precision_trains_and_goes_on_bit_for_bit(
    lora: int,
    dtype: str,
    processes: int,
    parallel: str,
    tmp_path: Path,
    guessing: Path,
) -> None:
    if lora:
        pytest.importorskip("peft", reason="the extra [lora] is not installed")
    whole = tmp_path / "whole"
    changes: dict[str, object] = {"optim": OptimRecipe(lr=1e-3, muon_lr=0.0, warmup=2)} if parallel == "shard" else {}
    changes["checkpoint_keep"] = 100
    recipe = _recipe(whole, guessing, lora=lora, dtype=dtype, processes=processes, parallel=parallel, **changes)
    in_team(processes, run_recipes, [recipe])
    assert all(m["grad_norm"] > 0 for m in read_metrics(whole))
    for place in ("step-000000.1", "step-000001"):
        run = tmp_path / place
        run.mkdir()
        for name in (place, "reference"):
            shutil.copytree(whole / name, run / name)
        shutil.copy(whole / "metrics.jsonl", run)
        in_team(processes, run_recipes, [replace(recipe, out=str(run))])
        assert same(weights(whole), weights(run)), place
        assert untimed(run) == untimed(whole), place
        if lora:
            assert same(*(load_file(checkpoint.resolve(one) / TRAINED) for one in (whole, run))), place


def test_maps_and_projector_are_trained_and_the_checkpoint_is_a_plain_policy(tmp_path: Path, guessing: Path) -> None:
    pytest.importorskip("peft", reason="the extra [lora] is not installed")
    trainer = Trainer(_recipe(tmp_path / "run", guessing, lora=2, optim=OptimRecipe(lr=1e-2, warmup=1)))
    before = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    assert set(trainer.optimizer.names.values()) == trained(trainer.model).keys()
    trainer.train()
    changed = {name for name, p in trainer.model.named_parameters() if not torch.equal(p, before[name])}
    assert all("lora_" in name or name.startswith("projector.") for name in changed)
    for part in ("encoder.tower", "language.model", "projector"):
        assert any(name.startswith(part) for name in changed), part
    plain = checkpoint.load(tmp_path / "run")[0]
    assert not any("lora_" in name for name, _ in plain.named_parameters())
    assert plain.state_dict().keys() == checkpoint.load(guessing)[0].state_dict().keys()
    assert same(dict(plain.named_parameters()), dict(merged(trainer.model).named_parameters()))
    (batch, *_) = trainer.validation()
    with torch.no_grad():
        seen, wanted = (one.eval().embed_patches(batch.patches) for one in (plain, trainer.model))
        start = checkpoint.load(guessing)[0].embed_patches(batch.patches)
    torch.testing.assert_close(seen, wanted, rtol=0, atol=1e-4)
    assert (start - wanted).abs().max() > 1e-3


def test_the_reference_of_maps_is_the_start_and_no_copy_of_it(tmp_path: Path, guessing: Path) -> None:
    """Bit for bit, after updates and after a stop; and the policy is itself again behind it."""
    pytest.importorskip("peft", reason="the extra [lora] is not installed")
    recipe = _recipe(tmp_path / "run", guessing, lora=2, optim=OptimRecipe(lr=1e-2, warmup=1))
    Trainer(recipe).train()
    trainer = Trainer(replace(recipe, steps=3))
    for _ in range(2):
        trainer.train()
        assert isinstance(trainer.context.reference, WithoutMaps)
        (batch, *_) = trainer.validation()
        before = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
        needs = {name: p.requires_grad for name, p in trainer.model.named_parameters()}
        start = checkpoint.load(guessing)[0].eval()
        with torch.no_grad():
            now = trainer.model.embed_patches(batch.patches)
            with trainer.context.reference() as policy:
                read, wanted = (read_questions(one, trainer.dialect, batch) for one in (policy, start))
                seen = policy.embed_patches(batch.patches)
            assert torch.equal(seen, start.embed_patches(batch.patches)) and not torch.equal(seen, now)
            for one, other in zip(read.layers, wanted.layers, strict=True):
                assert torch.equal(one[0], other[0]) and torch.equal(one[1], other[1])
            assert torch.equal(trainer.model.embed_patches(batch.patches), now)
        assert same(before, dict(trainer.model.named_parameters()))
        assert needs == {name: p.requires_grad for name, p in trainer.model.named_parameters()}
        trainer = Trainer(replace(recipe, steps=4))


def test_half_precision_is_that_of_the_products_alone(tmp_path: Path, guessing: Path) -> None:
    trainer = Trainer(_recipe(tmp_path / "run", guessing, dtype="bfloat16"))
    seen: set[torch.dtype] = set()
    layer = trainer.model.language.base_model.layers[0].mlp.down_proj
    layer.register_forward_hook(lambda module, given, out: seen.add(out.dtype))
    trainer.train()
    assert seen == {torch.bfloat16}
    assert {p.dtype for p in trainer.model.parameters()} == {torch.float32}
    assert {v.dtype for v in trainer.optimizer.tensors().values()} == {torch.float32}


def test_an_update_is_seen_by_the_next_forward_pass_in_half_precision(tmp_path: Path, guessing: Path) -> None:
    """Casts that are remembered would be those of the weights before the update."""
    trainer = Trainer(_recipe(tmp_path / "run", guessing, dtype="bfloat16"))
    x = torch.ones(1, 32)
    layer = trainer.model.language.base_model.layers[0].self_attn.q_proj
    with trainer._precision():
        before = layer(x)
        with torch.no_grad():
            layer.weight.mul_(2.0)
        after = layer(x)
    assert torch.equal(after, 2 * before)


def test_maps_are_refused_where_the_state_is_divided_and_without_peft(
    tmp_path: Path, guessing: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError, match="lora needs parallel"):
        small_recipe("align", tmp_path, parallel="shard", lora=4, optim=OptimRecipe(muon_lr=0.0))
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(UsageError, match=r"entropy-vision\[lora\]"):
        Trainer(_recipe(tmp_path / "run", guessing, lora=2))
