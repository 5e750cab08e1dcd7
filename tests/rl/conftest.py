"""Runs that several tests of training start from."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_runs import FEW_IMAGES, small_recipe

from entropy_vision.rl.trainer import Trainer


@pytest.fixture(scope="session")
def guessing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A policy that writes the form and an answer of the right kind, and is right by chance."""
    run = tmp_path_factory.mktemp("runs") / "sft"
    Trainer(small_recipe("sft", run, steps=60, **FEW_IMAGES)).train()
    return run
