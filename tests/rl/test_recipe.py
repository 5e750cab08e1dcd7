"""Recipes: what cannot work is told before anything is done."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_runs import small_recipe

from entropy_vision.config import load_config
from entropy_vision.errors import UsageError
from entropy_vision.rl.recipe import (
    BudgetRecipe,
    DataRecipe,
    EvalRecipe,
    GrpoRecipe,
    OptimRecipe,
    PolicyRecipe,
    SftRecipe,
    TrainRecipe,
)


@pytest.mark.parametrize(
    ("section", "changes", "told"),
    [
        (DataRecipe, {"pool": 7, "image_scenes": 2, "video_scenes": 8}, "data.pool must be at least 8"),
        (DataRecipe, {"seed": -1}, "data.seed"),
        (DataRecipe, {"seed": 2**32}, "data.seed must be at least 0, at most 4294967295, got 4294967296"),
        (DataRecipe, {"workers": -1}, "data.workers"),
        (DataRecipe, {"image_scenes": 0, "video_scenes": 0}, "nothing to train on"),
        (BudgetRecipe, {"keep": (), "weights": ()}, "not empty"),
        (BudgetRecipe, {"keep": (0.5,), "weights": (0.0,)}, "not all 0"),
        (BudgetRecipe, {"keep": (1.5,), "weights": (1.0,)}, r"\(0, 1\]"),
        (OptimRecipe, {"lr": -1.0}, "optim.lr must be above 0, at most 1000000.0, got -1"),
        (OptimRecipe, {"lr": float("nan")}, "optim.lr"),
        (PolicyRecipe, {"heads": 5}, "policy.heads"),
        (GrpoRecipe, {"group_size": 1}, "grpo.group_size must be at least 2"),
        (GrpoRecipe, {"updates": 0}, "grpo.updates"),
        (GrpoRecipe, {"resample_rounds": 0}, "grpo.resample_rounds must be at least 1"),
        (GrpoRecipe, {"temperature": 0.0}, "grpo.temperature must be above 0"),
        (EvalRecipe, {"scenes": 0}, "eval.scenes"),
        (DataRecipe, {"frame_count": 3}, r"data\.frame_count must be at least 4 for videos of the World, got 3"),
        (DataRecipe, {"image_size": 24}, r"data\.image_size .* at least 32 for the World"),
        (GrpoRecipe, {"format_weight": 0.5}, r"grpo\.format_weight = 0\.5 is above 0\.1 \(grpo\.format_limit\)"),
        (GrpoRecipe, {"accuracy_weight": 0, "format_weight": 0}, "nothing would be rewarded"),
        (OptimRecipe, {"lr": 1e38}, r"optim\.lr must be above 0, at most"),
    ],
)
def test_settings_that_cannot_work_are_told_before_anything_is_done(
    section: type, changes: dict[str, object], told: str
) -> None:
    with pytest.raises(UsageError, match=told):
        section(**changes)


def test_more_processes_than_scenes_are_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="3 processes are too many"):
        small_recipe("align", tmp_path, processes=3, data=DataRecipe(image_scenes=4, video_scenes=2))
    with pytest.raises(UsageError, match=r"eval\.scenes"):
        small_recipe("align", tmp_path, processes=2, eval=EvalRecipe(scenes=1), data=DataRecipe())


def test_a_contrast_without_another_view_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r'"shuffled" takes the frames of videos.*data\.video_scenes is 0'):
        data = DataRecipe(video_scenes=0)
        small_recipe("grpo", tmp_path, init="x", grpo=GrpoRecipe(contrast="shuffled"), data=data)
    with pytest.raises(UsageError, match=r'"random" takes as many patches by lot, and budget\.keep = \[1\.0\]'):
        budget = BudgetRecipe(keep=(1.0,), weights=(1.0,))
        small_recipe("grpo", tmp_path, init="x", grpo=GrpoRecipe(contrast="random"), budget=budget)


def test_what_an_override_is_told_of_names_no_file_alone(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text('stage = "sft"\nout = "x"\n')
    with pytest.raises(UsageError, match=r"a\.toml with its overrides: lora must be at least 0"):
        load_config(tmp_path / "a.toml", TrainRecipe, ("lora=-1",))


def test_a_seed_that_a_generator_would_refuse_later_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="seed must be"):
        small_recipe("align", tmp_path, seed=2**32)
    assert small_recipe("align", tmp_path, seed=2**32 - 1)


def test_an_accuracy_that_is_never_measured_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"sft\.stop_accuracy.*eval\.every"):
        small_recipe("sft", tmp_path, sft=SftRecipe(stop_accuracy=0.5))
    assert small_recipe("align", tmp_path, sft=SftRecipe(stop_accuracy=0.5))


def test_grpo_without_a_start_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="init"):
        small_recipe("grpo", tmp_path / "x")
