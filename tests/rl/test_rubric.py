"""Accuracy, a gate for the form, further parts, and what truncated and unreadable completions earn."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from entropy_vision.errors import UsageError
from entropy_vision.rl import Answer, Rubric, Verdict
from entropy_vision.rl.recipe import GrpoRecipe
from entropy_vision.rl.rubric import Part

ANSWER = Answer("choice", "B", options=("red", "blue"))
RIGHT = "<think>it is blue</think><answer>B</answer>"
WRONG = "<think>it is red</think><answer>A</answer>"
HEDGED = "<think>it is red</think><answer>A or B</answer>"
FORMLESS = "The answer is B"
WHOLE = json.loads((Path(__file__).parent / "verifier_cases.json").read_text(encoding="utf-8"))["whole"]


def short(completion: str, answer: Answer, verdict: Verdict) -> float:
    return 1.0 if len(completion) < 100 else -1.0


def test_rubric_pays_the_form_beside_a_right_answer_only() -> None:
    rubric = Rubric()
    assert [round(rubric(c, ANSWER).total, 12) for c in (RIGHT, WRONG, HEDGED, FORMLESS)] == [1.1, 0.0, 0.0, 0.0]
    reward = rubric(RIGHT, ANSWER)
    assert (reward.accuracy, reward.format, reward.verdict.score) == (1.0, 0.1, 1.0)
    assert reward.total == reward.accuracy + reward.format


def test_rubric_pays_the_form_to_wrong_answers_where_it_is_told_to() -> None:
    rubric = Rubric(format_when_wrong=True)
    assert [rubric(c, ANSWER).total for c in (RIGHT, WRONG, HEDGED, FORMLESS)] == [1.1, 0.1, 0.1, 0.0]


def test_a_rubric_that_pays_every_form_is_accuracy_plus_a_tenth_for_it() -> None:
    rubric = Rubric(format_when_wrong=True)
    for case in WHOLE:
        reward = rubric(case["completion"], Answer(**case["answer"]))
        assert reward.total == case["strict"] + 0.1 * case["format_ok"], case["why"]


@pytest.mark.parametrize(
    ("policy", "totals"), [("pay", [1.1, 0.1, 0.0]), ("no_format", [1.0, 0.0, 0.0]), ("zero", [0.0, 0.0, 0.0])]
)
def test_rubric_pays_truncated_completions_by_its_policy(policy: Any, totals: list[float]) -> None:
    rubric = Rubric(format_when_wrong=True, when_truncated=policy)
    assert [rubric(c, ANSWER, truncated=True).total for c in (RIGHT, WRONG, FORMLESS)] == totals
    assert [rubric(c, ANSWER).total for c in (RIGHT, WRONG)] == [1.1, 0.1]
    assert rubric(RIGHT, ANSWER, truncated=True).verdict.score == 1.0  # what was said stays known


def test_rubric_takes_something_off_where_no_answer_can_be_read() -> None:
    rubric = Rubric(when_unparsable=-0.5)
    assert [rubric(c, ANSWER).total for c in (RIGHT, WRONG, HEDGED, FORMLESS, "")] == [1.1, 0.0, -0.5, -0.5, -0.5]
    # running into the limit is no way around it
    assert Rubric(when_unparsable=-0.5, when_truncated="zero")(FORMLESS, ANSWER, truncated=True).total == -0.5


def test_rubric_adds_any_number_of_parts_and_shows_each_before_its_weight() -> None:
    parts = (
        Part("short", 0.2, short),
        Part("always", 0.05, lambda *_: 0.5, when_wrong=True),
        Part("never", 3.0, lambda *_: 0.0),
    )
    rubric = Rubric(accuracy=2.0, format=0.1, parts=parts)
    reward = rubric(RIGHT, ANSWER)
    assert reward.parts == {
        "accuracy": 1.0,
        "format": 1.0,
        "unparsable": 0.0,
        "short": 1.0,
        "always": 0.5,
        "never": 0.0,
    }
    assert reward.total == pytest.approx(2.0 + 0.1 + 0.2 + 0.025)
    long = RIGHT.replace("it is", "it is " * 50)
    for completion in (RIGHT, WRONG, HEDGED, FORMLESS, long):
        for truncated in (False, True):
            reward = rubric(completion, ANSWER, truncated)
            weighted = sum(rubric.weights[name] * score for name, score in reward.parts.items())
            assert reward.total == pytest.approx(weighted, abs=1e-12)
    assert rubric(WRONG, ANSWER).total == pytest.approx(0.025) and rubric(long, ANSWER).parts["short"] == -1.0
    nothing = Rubric(parts=parts, when_truncated="zero", format_limit=0.2)
    assert nothing(RIGHT, ANSWER, truncated=True).total == 0.0


def test_rubric_reads_plain_answers_where_its_profile_is_robust() -> None:
    assert Rubric(profile="robust")(FORMLESS, ANSWER).total == 1.0


def test_rubric_weighs_partial_credit() -> None:
    box = Answer("box", (0.0, 0.0, 1.0, 1.0))
    reward = Rubric(accuracy=2.0, format=0.0)("<think>x</think><answer>[0,0,1,0.5]</answer>", box)
    assert (reward.total, reward.accuracy, reward.parts["accuracy"]) == (1.0, 1.0, 0.5)


@pytest.mark.parametrize(
    "wrong",
    [
        {"accuracy": -1.0},
        {"format": math.nan},
        {"format": math.inf},
        {"profile": "x"},
        {"when_truncated": "none"},
        {"when_unparsable": 0.1},
        {"when_unparsable": -math.inf},
        {"parts": (Part("format", 0.1, short),)},
        {"parts": (Part("a", 0.1, short), Part("a", 0.1, short))},
        {"parts": (Part("a", -0.1, short),)},
        {"format": 0.2},
        {"accuracy": 0.5},
        {"format_limit": math.nan},
        {"parts": (Part("a", 0.05, short, when_wrong=True),)},
    ],
    ids=lambda wrong: " ".join(wrong),
)
def test_rubric_refuses_weights_that_cannot_work(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=r"Rubric\."):
        Rubric(**wrong)


@pytest.mark.parametrize(
    "told",
    [
        {"format": 0.5, "format_limit": 0.5},
        {"accuracy": 0.0, "format_limit": math.inf},
        {"accuracy": 3.0, "format": 0.3},
    ],
)
def test_rubric_takes_a_heavier_form_where_it_is_told_to(told: dict[str, float]) -> None:
    assert Rubric(**told).format == told.get("format", 0.1)  # type: ignore[arg-type]


@pytest.mark.parametrize("score", [math.nan, 1.5, -2.0])
def test_rubric_refuses_a_part_that_scores_outside_its_range(score: float) -> None:
    with pytest.raises(UsageError, match="loud scored"):
        Rubric(parts=(Part("loud", 1.0, lambda *_: score),))(RIGHT, ANSWER)


def test_the_recipe_makes_the_rubric_and_refuses_what_it_refuses() -> None:
    assert GrpoRecipe().rubric() == Rubric()
    made = GrpoRecipe(format_when_wrong=True, when_truncated="zero", when_unparsable=-0.1, format_weight=0.05).rubric()
    assert made == Rubric(format=0.05, format_when_wrong=True, when_truncated="zero", when_unparsable=-0.1)
    with pytest.raises(UsageError, match="format_limit"):
        GrpoRecipe(format_weight=0.5)
    assert GrpoRecipe(format_weight=0.5, format_limit=0.5).rubric().format == 0.5
