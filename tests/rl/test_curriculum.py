"""Curriculum: weights from what groups showed, no earlier than the lag, the same for everybody and after a stop."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from small_runs import same, small_recipe, stop_after, untimed, weights

from entropy_vision.errors import Terminated, UsageError
from entropy_vision.rl.checkpoint import newest
from entropy_vision.rl.curriculum import GROUPS, LEARNED, Curriculum, arm_sums
from entropy_vision.rl.parallel import in_team
from entropy_vision.rl.recipe import CurriculumRecipe, DataRecipe, GrpoRecipe, TrainRecipe
from entropy_vision.rl.train import run_recipes
from entropy_vision.rl.trainer import Trainer

ARMS = ("easy", "hard", "sometimes")


def _shown(sometimes: float, groups: int = 2) -> dict[str, float]:
    """A step's sums: of one arm p (1 - p) as given, of another 0, and one that is not asked."""
    sums = {f"{name}{arm}": 0.0 for arm in ARMS for name in (LEARNED, GROUPS)}
    return sums | {f"{LEARNED}sometimes": sometimes * groups, f"{GROUPS}sometimes": groups, f"{GROUPS}easy": groups}


def test_sums_are_the_variance_of_each_arms_groups() -> None:
    sums = arm_sums(("a", "b", "c"), ["a", "b", "a"], [[1, 0, 0, 0], [1, 1, 1, 1], [1, 0, 1, 0]])
    assert sums[f"{LEARNED}a"] == pytest.approx(0.25 * 0.75 + 0.25) and sums[f"{GROUPS}a"] == 2
    assert (sums[f"{LEARNED}b"], sums[f"{GROUPS}b"], sums[f"{GROUPS}c"]) == (0, 1, 0)
    assert arm_sums((), ["a"], [[1, 0]]) == {}


def test_a_step_is_weighed_by_what_was_known_a_lag_before_it() -> None:
    curriculum = Curriculum(CurriculumRecipe(by="learnability", lag=3, window=10), ARMS)
    logged, ahead = [], [curriculum.weights(step) for step in range(3)]
    for step in range(6):
        logged.append(curriculum.record(step, _shown(0.2) | {"loss": 1.0}))
        ahead.append(curriculum.weights(step + 3))  # a loader may ask as early as that
    for asked, line in zip(ahead, logged, strict=False):
        assert {f"curriculum_{arm}": weight for arm, weight in asked.items()}.items() <= line.items()
    assert [line["curriculum_easy"] for line in logged] == [1, 1, 1, 0.2, 0.2, 0.2]  # what step 0 showed weighs in 3
    assert {line["curriculum_sometimes"] for line in logged} == {line["curriculum_hard"] for line in logged} == {1.0}
    assert logged[0]["curriculum_learnability"] == pytest.approx(0.1)
    metrics = _shown(0.2) | {"loss": 1.0}
    curriculum.record(6, metrics)
    assert metrics == {"loss": 1.0}


def test_recent_groups_weigh_more() -> None:
    recipe = CurriculumRecipe(by="learnability", lag=1, window=5, floor=0.01)
    curriculum = Curriculum(recipe, ("a", "b"))
    for step, of_b in enumerate([0.25] * 4 + [0.0] * 30):
        tally = {f"{LEARNED}a": 0.1, f"{GROUPS}a": 1.0, f"{LEARNED}b": of_b, f"{GROUPS}b": 1.0}
        curriculum.record(step, tally)
        if step == 3:
            assert curriculum.weights(4) == {"a": pytest.approx(0.4), "b": 1.0}
    assert curriculum.weights(34) == {"a": 1.0, "b": 0.01}


def test_a_state_goes_on_with_the_same_weights_at_every_step() -> None:
    recipe = CurriculumRecipe(by="learnability", lag=4)
    whole = Curriculum(recipe, ARMS)
    for left in range(12):
        whole.record(left, _shown(0.05 + 0.013 * left))
        again = Curriculum(recipe, ARMS, json.loads(json.dumps(whole.state)))
        for step in range(left + 1, left + 1 + 4):  # so far ahead may be dealt
            assert again.weights(step) == whole.weights(step)
        for step in range(left + 1, left + 8):
            again.record(step, _shown(0.3))
        assert len(again.state["recent"]) == 3


def _recipe(run: Path, guessing: Path, **changes: object) -> TrainRecipe:
    settings: dict[str, object] = {
        "init": str(guessing),
        "steps": 7,
        "data": DataRecipe(image_scenes=4, video_scenes=2, frame_count=4, pool=6, workers=1),
        "grpo": GrpoRecipe(group_size=4, max_new_tokens=24, beta=0.0),
        "curriculum": CurriculumRecipe(by="learnability", difficulties=(0.0, 0.5), lag=3, window=5),
    }
    return small_recipe("grpo", run, **(settings | changes))


def test_a_run_with_a_curriculum_goes_on_bit_for_bit_however_far_ahead_it_deals(tmp_path: Path, guessing: Path) -> None:
    whole = _recipe(tmp_path / "whole", guessing)
    Trainer(whole).train()
    data = DataRecipe(image_scenes=4, video_scenes=2, frame_count=4, pool=6, workers=0)
    cut = Trainer(_recipe(tmp_path / "cut", guessing, data=data))
    stop_after(cut, 4)
    with pytest.raises(Terminated):
        cut.train()
    Trainer(_recipe(tmp_path / "cut", guessing)).train()
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "cut"))
    log = untimed(tmp_path / "whole")
    assert log == untimed(tmp_path / "cut")
    arms = [name for name in log[0] if name.startswith("curriculum_") and "@" in name]
    assert len(arms) == 12 and {log[0][arm] for arm in arms} == {1.0}
    assert any(log[-1][arm] < 1 for arm in arms)
    last = json.loads((newest(tmp_path / "whole") / "state.json").read_text())["curriculum"]["recent"]  # type: ignore[operator]
    groups = [[count for _, count in tally.values()] for _, tally in last]
    assert all(count == int(count) for step in groups for count in step) and all(sum(step) >= 4 for step in groups)
    in_team(2, run_recipes, [_recipe(tmp_path / "two", guessing, processes=2)])  # every step ends in both or in none
    assert len(untimed(tmp_path / "two")) == 7


def test_what_weighs_little_is_dealt_and_asked_little(tmp_path: Path, guessing: Path) -> None:
    trainer = Trainer(_recipe(tmp_path / "run", guessing))
    assert trainer.curriculum is not None
    dealer = trainer._dealer()
    heavy = {arm: 1.0 if arm == "count@0.5" else 0.05 for arm in trainer.curriculum.arms}
    even, odd = Counter[str](), Counter[str]()
    for step in range(40):
        even.update(ask.arm for batch in dealer.deal(step, dict.fromkeys(heavy, 0.3)) for ask in batch.asks)
        odd.update(ask.arm for batch in dealer.deal(step, heavy) for ask in batch.asks)
    stills = [arm for arm in heavy if arm.partition("@")[0] in ("count", "relation", "quadrant")]
    assert even["count@0"] > 0.6 * even["count@0.5"] > 0
    # of scenes nine tenths have it, and beside it one question in ten; of the rest all three are asked
    assert odd["count@0.5"] > 0.5 * sum(odd[arm] for arm in stills) and even["count@0.5"] < 0.25 * sum(even.values())
    assert sum(odd.values()) < 0.7 * sum(even.values()) and len(odd) > 6


def test_a_curriculum_that_cannot_be_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match='needs stage = "grpo"'):
        small_recipe("sft", tmp_path, curriculum=CurriculumRecipe(by="learnability"))
    with pytest.raises(UsageError, match=r"curriculum\.floor must be above 0"):
        CurriculumRecipe(floor=0)
    with pytest.raises(UsageError, match=r"different numbers in 0\.\.1"):
        CurriculumRecipe(by="learnability", difficulties=(0.2, 0.2))
    with pytest.raises(UsageError, match=r'difficulties needs curriculum\.by = "learnability"'):
        CurriculumRecipe(difficulties=(0.2,))
