"""Figures of a batch beside its reward, against counting by hand."""

from __future__ import annotations

import random

import pytest

from entropy_vision.errors import UsageError
from entropy_vision.rl import Answer, Rubric, verify
from entropy_vision.rl.health import Scored, health, tally

ANSWER = Answer("choice", "B", options=("red", "blue"))
TEXTS = {
    "right": "<think>x</think><answer>B</answer>",
    "right again": "<think>x</think> <answer>B</answer>",
    "wrong": "<think>x</think><answer>A</answer>",
    "hedged": "<think>x</think><answer>A or B</answer>",
    "unreadable": "<think>x</think><answer>purple</answer>",
    "formless": "x",
    "bare": "The answer is B",
}


def group(*names: str, cut: bool = False, rubric: Rubric | None = None) -> list[Scored]:
    rubric = rubric or Rubric()
    return [Scored(TEXTS[n], ANSWER, rubric(TEXTS[n], ANSWER, truncated=cut), cut) for n in names]


def test_health_counts_what_it_names() -> None:
    found = health(
        [group("right", "wrong", "hedged", "unreadable"), group("formless", "bare", "wrong", "wrong", cut=True)]
    )
    assert found == {
        "unparsable": 1 / 8,
        "ambiguous": 1 / 8,
        "formless": 2 / 8,
        "zero_variance": 4 / 8,  # the second group earns nothing anywhere
        "truncated": 4 / 8,
        "duplicates": 1 / 8,
        "hack_gap": 1 / 8,  # the bare answer is right to a generous reader
    }


def test_duplicates_are_texts_of_one_group_that_differ_in_white_space_at_most() -> None:
    assert health([group("right", "right", "wrong", "wrong")])["duplicates"] == 2 / 4
    assert health([group("right"), group("right")])["duplicates"] == 0.0
    assert health([group("right", "right again")])["duplicates"] == 0.0
    spaced = [Scored(f"a {' ' * i}\nb", ANSWER, Rubric()("", ANSWER)) for i in range(4)]
    assert health([spaced])["duplicates"] == 3 / 4


def test_the_hack_gap_is_robust_minus_strict_whatever_the_rubric_reads() -> None:
    rng = random.Random(0)
    for profile in ("strict", "robust"):
        names = rng.choices(list(TEXTS), k=40)
        gap = [verify(TEXTS[n], ANSWER, "robust").score - verify(TEXTS[n], ANSWER).score for n in names]
        found = health([group(*names, rubric=Rubric(profile=profile))])["hack_gap"]
        assert found == pytest.approx(sum(gap) / 40) and found > 0


def test_parts_of_a_step_add_up() -> None:
    parts = [[group("right", "wrong")], [group("hedged", "hedged"), group("bare", "formless")]]
    whole, tallies = tally([*parts[0], *parts[1]]), [tally(part) for part in parts]
    assert whole == {name: tallies[0][name] + tallies[1][name] for name in whole}
    assert whole["completions"] == 6 and health(parts[1]) == {
        n: v / 4 for n, v in tallies[1].items() if n != "completions"
    }


def test_health_of_nothing_is_refused() -> None:
    for groups in ([], [[]]):
        with pytest.raises(UsageError, match="no completions"):
            health(groups)
