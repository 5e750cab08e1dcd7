"""What is logged arrives where it was sent; the packages are the user's to install."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
from small_runs import FEW_IMAGES, small_recipe

from entropy_vision.errors import UsageError
from entropy_vision.rl import metrics
from entropy_vision.rl.metrics import read_metrics
from entropy_vision.rl.trackers import open_tracker
from entropy_vision.rl.trainer import Trainer


def test_tensorboard_holds_every_metric_of_every_step_once(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = tmp_path / "run"
    for steps in (2, 4):  # stopped and gone on
        Trainer(small_recipe("sft", run, steps=steps, trackers=("tensorboard",), **FEW_IMAGES)).train()
    held = EventAccumulator(str(run / "tensorboard")).Reload()
    logged = read_metrics(run)
    assert [m["step"] for m in logged] == [1, 2, 3, 4]
    for name in metrics[0].keys() - {"step"}:
        assert [e.step for e in held.Scalars(name)] == [1, 2, 3, 4], name
        assert [e.value for e in held.Scalars(name)] == pytest.approx([m[name] for m in metrics], rel=1e-6), name


def test_wandb_gets_the_same_run_when_it_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb", reason="wandb is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    run = tmp_path / "run"
    run.mkdir()
    for step in (0, 1):
        tracker = open_tracker("wandb", run, {"stage": "sft"}, step)
        tracker.log(step + 1, {"loss": 0.5})
        tracker.close()
    files = sorted((run / "wandb").glob("offline-run-*/*.wandb"))
    assert len(files) == 2 and len({file.name for file in files}) == 1
    assert all(b"loss" in file.read_bytes() for file in files)


def test_trackio_holds_what_was_logged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    pytest.importorskip("trackio", reason="trackio is not installed")
    tracker = open_tracker("trackio", tmp_path / "run", {"stage": "sft"}, 0)
    tracker.log(1, {"loss": 0.5})
    tracker.close()
    assert list((tmp_path / "trackio").rglob("*.db"))


def test_a_package_that_is_not_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UsageError, match=r"wandb is not installed .*pip install wandb"):
        open_tracker("wandb", tmp_path, {}, 0)


def test_a_tracker_that_is_none_is_named_with_those_there_are(tmp_path: Path) -> None:
    from entropy_vision.config import load_config
    from entropy_vision.rl.recipe import TrainRecipe

    path = tmp_path / "run.toml"
    path.write_text(f'stage = "sft"\nout = {json.dumps(str(tmp_path / "run"))}\ntrackers = ["tensorbord"]\n')
    with pytest.raises(UsageError, match="tensorboard"):
        load_config(path, TrainRecipe)


def test_where_a_tracker_does_not_open_those_before_it_are_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[str] = []

    class Opened:
        def log(self, step: int, metrics: Mapping[str, float]) -> None: ...

        def close(self) -> None:
            closed.append("tensorboard")

    def opened(name: str, *_: object) -> Opened:
        if name == "wandb":
            raise UsageError("no network")
        return Opened()

    monkeypatch.setattr(metrics, "open_tracker", opened)
    with pytest.raises(UsageError, match="no network"), metrics.Log(tmp_path, ("tensorboard", "wandb"), {}, 0):
        pass
    assert closed == ["tensorboard"]
