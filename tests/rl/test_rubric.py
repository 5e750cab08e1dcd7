"""Accuracy plus format reward."""

from __future__ import annotations

import math

import pytest

from entropy_vision.errors import UsageError
from entropy_vision.rl import Answer, Rubric

ANSWER = Answer("choice", "B", options=("red", "blue"))
RIGHT = "<think>it is blue</think><answer>B</answer>"
WRONG = "<think>it is red</think><answer>A</answer>"
FORMLESS = "The answer is B"


def test_rubric_adds_accuracy_and_format() -> None:
    rubric = Rubric()
    assert [round(rubric(c, ANSWER).total, 12) for c in (RIGHT, WRONG, FORMLESS)] == [1.1, 0.1, 0.0]
    reward = rubric(RIGHT, ANSWER)
    assert (reward.accuracy, reward.format, reward.verdict.score) == (1.0, 0.1, 1.0)
    assert reward.total == reward.accuracy + reward.format


def test_rubric_pays_no_format_to_wrong_answers_where_it_is_told_not_to() -> None:
    rubric = Rubric(format_when_wrong=False)
    assert [rubric(c, ANSWER).total for c in (RIGHT, WRONG)] == [1.1, 0.0]


def test_rubric_pays_no_format_to_truncated_completions() -> None:
    reward = Rubric()(RIGHT, ANSWER, truncated=True)
    assert (reward.format, reward.accuracy) == (0.0, 1.0)


def test_rubric_reads_plain_answers_where_its_profile_is_robust() -> None:
    assert Rubric(profile="robust")(FORMLESS, ANSWER).total == 1.0


def test_rubric_weighs_partial_credit() -> None:
    box = Answer("box", (0.0, 0.0, 1.0, 1.0))
    reward = Rubric(accuracy=2.0, format=0.0)("<think>x</think><answer>[0,0,1,0.5]</answer>", box)
    assert (reward.total, reward.accuracy) == (1.0, 1.0)


@pytest.mark.parametrize("wrong", [{"accuracy": -1.0}, {"format": math.nan}, {"format": math.inf}, {"profile": "x"}])
def test_rubric_refuses_weights_that_are_none(wrong: dict[str, float]) -> None:
    with pytest.raises(UsageError, match=r"Rubric\."):
        Rubric(**wrong)  # type: ignore[arg-type]
