"""Contrast: other views of a scene, what a group earns for being better than they allow, the same after a stop."""

from __future__ import annotations

import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from media import as_frames, drifting
from small_runs import same, small_recipe, untimed, weights

from entropy_vision import EntropyTokenizer
from entropy_vision.errors import UsageError
from entropy_vision.pooled import PooledTokenizer
from entropy_vision.projectors import pooled_units
from entropy_vision.rl.contrast import bonus, other_view, shuffled
from entropy_vision.rl.grpo import roll
from entropy_vision.rl.recipe import DataRecipe, GrpoRecipe, TrainRecipe
from entropy_vision.rl.scenes import Scored
from entropy_vision.rl.trainer import Trainer

CHOOSER = EntropyTokenizer(patch_size=8, keep=0.3)


def _lots(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize("frames", [2, 3, 6])
def test_shuffled_frames_hold_the_same_patches_at_other_times(frames: int) -> None:
    kept = CHOOSER(as_frames(drifting(frames, 40, 48)))
    for seed in range(12):
        other = shuffled(kept, _lots(seed))
        times = {t: other.positions[other.positions[:, 0] == t] for t in range(frames)}
        moved = []
        for t in range(frames):
            mine = kept.positions[:, 0] == t
            (to,) = [
                u
                for u in range(frames)
                if np.array_equal(other.bits[u], kept.bits[t])
                and np.array_equal(times[u][:, 1:], kept.positions[mine, 1:])
                and np.array_equal(other.pixels[other.positions[:, 0] == u], kept.pixels[mine])
            ]
            moved.append(to)
        assert sorted(moved) == list(range(frames)) != moved


def test_random_patches_are_as_many_and_others() -> None:
    frames = as_frames(drifting(3, 40, 48))
    scene = Scored(frames, CHOOSER.score(frames), (), None)
    kept = scene.kept(CHOOSER, 0.3)
    other = other_view(scene, kept, "random", _lots(0), CHOOSER, 0.3)
    assert other is not None and len(other) == len(kept) and other.grid == kept.grid
    assert not np.array_equal(other.positions, kept.positions)
    again = other_view(scene, kept, "random", _lots(0), CHOOSER, 0.3)
    assert again is not None and np.array_equal(other.positions, again.positions)
    assert other_view(scene, scene.kept(CHOOSER, 1.0), "random", _lots(0), CHOOSER, 0.3) is None
    still = as_frames(drifting(1, 40, 48))
    assert other_view(scene, CHOOSER(still), "shuffled", _lots(0), CHOOSER, 0.3) is None


@pytest.mark.parametrize("keep", [0.125, 0.25, 0.5])
def test_a_policy_that_pools_is_shown_as_many_whole_tokens_by_lot(keep: float) -> None:
    frames, chooser = as_frames(drifting(8, 64, 64)), PooledTokenizer(8, keep=keep)
    scene = Scored(frames, chooser.score(frames), (), None)
    kept = scene.kept(chooser, keep)
    other = other_view(scene, kept, "random", _lots(0), chooser, keep)
    assert other is not None and not np.array_equal(other.positions, kept.positions)
    tokens = [len(pooled_units(one.positions, one.grid)[2]) for one in (kept, other)]
    assert tokens[0] == tokens[1] > 0


def test_right_answers_earn_the_bonus_where_the_true_view_is_as_good_as_a_share_of_the_other() -> None:
    scores = torch.tensor([[1, 0, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0], [1, 1, 0.5, 0], [1, 1, 1, 1]], dtype=torch.float64)
    contrast = torch.tensor([0.3, 0.4, 0.0, 0.0, math.nan], dtype=torch.float64)
    paid = bonus(scores, contrast, weight=0.3, factor=0.8)
    wanted = torch.zeros_like(scores)
    wanted[0, 0] = 0.3  # .25 >= .8 * .3, and .25 < .8 * .4
    wanted[3] = torch.tensor([0.3, 0.3, 0.15, 0.0], dtype=torch.float64)
    torch.testing.assert_close(paid, wanted, rtol=0, atol=0)


def _recipe(run: Path, guessing: Path, view: str, **changes: object) -> TrainRecipe:
    grpo = GrpoRecipe(group_size=4, max_new_tokens=24, updates=2, beta=0.0, contrast=view)  # type: ignore[arg-type]
    data = DataRecipe(image_scenes=2, video_scenes=2, frame_count=4, pool=4, workers=0)
    settings = {"init": str(guessing), "grpo": grpo, "data": data, "steps": 3}
    return small_recipe("grpo", run, **(settings | changes))


@pytest.mark.parametrize("view", ["shuffled", "random"])
def test_a_run_with_a_contrast_goes_on_bit_for_bit_between_steps_and_inside_one(
    view: str, tmp_path: Path, guessing: Path
) -> None:
    recipe = _recipe(
        tmp_path / "whole", guessing, view, checkpoint_every=1, checkpoint_updates=True, checkpoint_keep=100
    )
    Trainer(recipe).train()
    log = untimed(tmp_path / "whole")
    assert {m["contrasted"] for m in log} == ({0.5} if view == "shuffled" else {1.0})
    assert all(0 <= m["contrast_paid"] <= m["contrasted"] for m in log)
    for place in ("step-000001", "step-000001.1"):
        run = tmp_path / place
        run.mkdir()
        shutil.copytree(tmp_path / "whole" / place, run / place)
        shutil.copy(tmp_path / "whole" / "metrics.jsonl", run)
        Trainer(replace(recipe, out=str(run))).train()
        assert same(weights(tmp_path / "whole"), weights(run)) and untimed(run) == log, place


def test_a_contrast_pays_right_answers_and_leaves_everything_else(tmp_path: Path, guessing: Path) -> None:
    """The same completions with and without: their rewards differ by the bonus alone."""
    rolled = {}
    for view in ("none", "random"):
        trainer = Trainer(_recipe(tmp_path / view, guessing, view))
        batches = next(trainer._deal(0))
        rolled[view] = roll(trainer.context, batches[0], torch.Generator().manual_seed(3))
    plain, other = rolled["none"], rolled["random"]
    assert plain.rollouts.texts == other.rollouts.texts
    assert "contrasted" not in plain.sums and other.sums["flops"] > plain.sums["flops"]
    extra = (other.rewards - plain.rewards).round(decimals=9)
    assert set(extra.unique().tolist()) <= {0.0, 0.3}
    right = plain.rewards >= 1
    assert bool((extra[~right] == 0).all())
    assert other.sums["contrast_paid"] == float((extra > 0).any(1).sum()) * 4


def test_patches_by_lot_of_shards_are_refused(tmp_path: Path) -> None:
    data = DataRecipe(questions=("llava:x",), shards=("y",))
    with pytest.raises(UsageError, match=r'contrast = "random" chooses among all patches'):
        _recipe(tmp_path, tmp_path, "random", data=data)
