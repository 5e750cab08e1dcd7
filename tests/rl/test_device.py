"""A policy on an accelerator: every tensor of a step is where the policy is. The accelerator is pretended."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from pretend import There, pretend_cuda
from small_runs import FEW_IMAGES, small_recipe

from entropy_vision.device import device_of
from entropy_vision.dialect import dialect_of
from entropy_vision.errors import UsageError
from entropy_vision.rl import trainer as trainer_module
from entropy_vision.rl.buffer import Turns
from entropy_vision.rl.checkpoint import load_whole
from entropy_vision.rl.grpo import grpo_step
from entropy_vision.rl.metrics import read_metrics
from entropy_vision.rl.recipe import DataRecipe, GrpoRecipe
from entropy_vision.rl.rollout import sample
from entropy_vision.rl.trainer import Trainer


def test_the_pretended_device_tells_a_tensor_that_was_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    with pretend_cuda(monkeypatch) as there:
        x = torch.ones(3, requires_grad=True)
        y = x.to(there)
        assert isinstance(y, There) and y.device.type == "cuda"
        (y * y + 1).sum().backward()
        assert x.grad is not None and x.grad.tolist() == [2.0, 2.0, 2.0]
        assert torch.zeros(2, device=there).device.type == "cuda" and y.cpu().device.type == "cpu"
        with pytest.raises(RuntimeError, match="on the CPU, others on cuda"):
            y + torch.ones(3)


@pytest.mark.parametrize("stage", ["align", "sft", "grpo"])
def test_every_stage_leaves_nothing_behind(
    stage: str, tmp_path: Path, guessing: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grpo = GrpoRecipe(group_size=4, max_new_tokens=8, updates=2, beta=0.05, equal_groups="resample")
    changes = {**FEW_IMAGES, "init": str(guessing), "grpo": grpo, "steps": 2}
    with pretend_cuda(monkeypatch) as there:
        monkeypatch.setattr(trainer_module, "device_of", lambda name: there)
        trainer = Trainer(small_recipe(stage, tmp_path / "run", **changes))
        assert trainer.model.device.type == "cuda"
        trainer.train()
    assert all(m["grad_norm"] > 0 for m in read_metrics(tmp_path / "run"))


def test_the_host_waits_once_a_token(guessing: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For one answer: how many rows go on and how many places they part into."""
    model, processor = load_whole(guessing)
    dialect = replace(dialect_of(model, processor), ends=())  # nobody ends, all tokens are sampled
    waits = []
    with pretend_cuda(monkeypatch) as there, torch.no_grad():
        prefix = model.to(there).empty_prefix(3)
        for count in (4, 12):
            before = There.waits
            drawn = sample(model, dialect, prefix, group=4, max_new_tokens=count, generator=torch.Generator(there))
            waits.append(There.waits - before)
            assert drawn.ids.shape == (12, count)
    assert waits[1] - waits[0] == 12 - 4


def test_what_a_step_waits_for_does_not_grow_with_it(
    tmp_path: Path, guessing: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside the tokens: larger groups and more scenes are read, rewarded and learned from as one."""
    waits = {}
    for group, scenes in ((4, 2), (8, 2), (4, 4)):
        grpo = GrpoRecipe(group_size=group, max_new_tokens=8, updates=2, beta=0.05)
        data = DataRecipe(image_scenes=scenes, video_scenes=0, pool=4, workers=0)
        changes = {**FEW_IMAGES, "init": str(guessing), "grpo": grpo, "data": data, "steps": 1}
        with pretend_cuda(monkeypatch) as there:
            monkeypatch.setattr(trainer_module, "device_of", lambda name, there=there: there)
            trainer = Trainer(small_recipe("grpo", tmp_path / f"{group}-{scenes}", **changes))
            batches = next(trainer._deal(0))
            before = There.waits
            grpo_step(trainer.context, batches, 0, lambda trainer=trainer: trainer._update(0), Turns())
        waits[group, scenes] = There.waits - before
    assert max(waits.values()) - min(waits.values()) <= 2  # a token more or less, rows that are let go
    assert max(waits.values()) < 8 + 32


def test_a_device_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(UsageError, match="doctor"):
        device_of("cuda")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    for place, device in (("0", "cuda:0"), ("1", "cuda:1")):
        monkeypatch.setenv("LOCAL_RANK", place)
        assert device_of("cuda") == torch.device(device)
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(UsageError, match="start at most 2"):
        device_of("cuda")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)  # the scheduler shows each process its own
    assert device_of("cuda") == torch.device("cuda:0")
