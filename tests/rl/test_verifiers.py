"""Verifiers against a table of completions that broke others, and against their own laws."""

from __future__ import annotations

import json
import math
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import oracles_rl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from verifier_golds import GOLDS, soup, wrapped

from entropy_vision.errors import UsageError
from entropy_vision.question import AnswerKind
from entropy_vision.rl import Answer, Verdict, verify
from entropy_vision.rl.verifiers import PROFILES, Status, canonical
from entropy_vision.rl.verifiers.geometry import best_matching, box_iou
from entropy_vision.rl.verifiers.normal import tidy

TABLE = json.loads((Path(__file__).parent / "verifier_cases.json").read_text(encoding="utf-8"))
INSIDE = [(Answer(**g["answer"]), *case) for g in TABLE["inside"] for case in g["cases"]]
WHOLE = [(Answer(**c["answer"]), c) for c in TABLE["whole"]]


@pytest.mark.parametrize("profile", PROFILES)
def test_verify_scores_the_table_of_answers(profile: str) -> None:
    assert len(INSIDE) >= 60
    for answer, text, score, why in INSIDE:
        verdict = verify(wrapped(text), answer, profile)
        assert verdict.score == pytest.approx(score, abs=1e-12), (answer.kind, text, why, verdict)
        assert (verdict.status is Status.OK) == (score > 0) and verdict.format_ok == bool(text.strip())


@pytest.mark.parametrize("profile", PROFILES)
def test_verify_scores_the_table_of_whole_completions(profile: str) -> None:
    for answer, case in WHOLE:
        verdict = verify(case["completion"], answer, profile)
        assert (verdict.score, verdict.format_ok) == (case[profile], case["format_ok"]), (case, verdict)


def test_strict_never_earns_more_than_robust_nor_without_the_form() -> None:
    for answer, case in WHOLE:
        strict = verify(case["completion"], answer)
        assert strict.score <= verify(case["completion"], answer, "robust").score
        assert strict.score == 0 or strict.format_ok


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("answer", GOLDS, ids=lambda a: f"{a.kind}-{a.value}")
def test_the_truth_itself_scores_one(answer: Answer, profile: str) -> None:
    assert verify(wrapped(canonical(answer)), answer, profile).score == 1.0
    assert {a.kind for a in GOLDS} == set(AnswerKind.__args__)  # type: ignore[attr-defined]


@pytest.mark.parametrize("answer", GOLDS, ids=lambda a: f"{a.kind}-{a.value}")
def test_saying_more_never_earns_more_than_the_truth_alone(answer: Answer) -> None:
    others = [canonical(a) for a in GOLDS if a.kind == answer.kind and a is not answer] or ["something else"]
    for other in [*others, canonical(answer), "none of them"]:
        for text in (f"{canonical(answer)} or {other}", f"{other} or {canonical(answer)}"):
            assert verify(wrapped(text), answer).score < 1.0, text


@pytest.mark.parametrize(
    ("text", "kind", "status"),
    [
        ("A or B", "choice", Status.AMBIGUOUS),
        ("A", "choice", Status.WRONG),
        ("purple", "choice", Status.UNPARSABLE),
        ("", "choice", Status.FORMAT),
        ("3 or 4", "integer", Status.AMBIGUOUS),
        ("many", "integer", Status.UNPARSABLE),
        ("1e999", "number", Status.UNPARSABLE),
        ("inf", "number", Status.UNPARSABLE),
        ("9 to 5", "interval", Status.UNPARSABLE),
        ("6 to 7", "interval", Status.WRONG),
        ("no, maybe", "yesno", Status.AMBIGUOUS),
    ],
)
def test_the_status_says_why_nothing_was_earned(text: str, kind: str, status: Status) -> None:
    values: dict[str, Any] = {"choice": "B", "integer": 5, "yesno": True, "number": 2.0, "interval": (1, 3)}
    answer = Answer(kind, values[kind])  # type: ignore[arg-type]
    assert verify(wrapped(text), answer).status is status


def test_parsed_is_the_answer_as_it_was_understood() -> None:
    choice = Answer("choice", "A", options=("left", "right"))
    assert verify(wrapped("**Right.**"), choice).parsed == "B"
    assert verify(wrapped("twenty-one"), Answer("integer", 3)).parsed == "21"
    assert verify(wrapped("A or B"), choice).parsed is None


def test_two_answers_in_one_completion_are_ambiguous_in_both_profiles() -> None:
    text = "<think>x</think><answer>B</answer><answer>B</answer>"
    assert {verify(text, Answer("choice", "B"), p).status for p in PROFILES} == {Status.AMBIGUOUS}


@pytest.mark.parametrize("answer", GOLDS, ids=lambda a: f"{a.kind}-{a.value}")
def test_verify_never_raises_and_stays_in_range_on_tokensoup(answer: Answer) -> None:
    rng = random.Random(f"{answer.kind}{answer.value!r}" if answer.kind != "set" else "set")
    for i in range(600):
        text = soup(rng)
        verdict = verify(wrapped(text) if i % 3 else text, answer, PROFILES[i % 2])
        _check_range(verdict)


@settings(max_examples=100, deadline=None)
@given(text=st.text(max_size=300), profile=st.sampled_from(PROFILES), which=st.integers(0, len(GOLDS) - 1))
def test_verify_never_raises_on_any_text(text: str, profile: str, which: int) -> None:
    _check_range(verify(text, GOLDS[which], profile))
    _check_range(verify(wrapped(text), GOLDS[which], profile))


def _check_range(verdict: Verdict) -> None:
    assert 0.0 <= verdict.score <= 1.0 and not math.isnan(verdict.score)
    assert (verdict.score > 0) == (verdict.status is Status.OK)
    if verdict.status in (Status.AMBIGUOUS, Status.UNPARSABLE, Status.FORMAT):
        assert verdict.parsed is None


TAGS = ["<answer>", "<think>", "<think></think>", "<answer>C</answer>", "</think>", "<|im_end|>", "<|im_end|> "]
MARKS = ["1,", "(", "[", "[[1,", "{", "\\boxed{", "$", " ", "\n", "-", "\n*", "0", "1:", "'", "**", "9e"]
WORDS = ["C ", "no ", "not ", "one ", "Answer: ", "the ", "a>", "3 or "]


@pytest.mark.parametrize("unit", TAGS + MARKS + WORDS)
def test_verify_takes_linear_time_on_endless_repetition(unit: str) -> None:
    answers = {answer.kind: answer for answer in GOLDS}.values()
    for size in (250, 4_000, 100_000):
        body = unit * (size // len(unit))
        started = time.process_time()
        for answer in answers:
            for text in (body, wrapped(body), "<think>x</think>" + body, f"<think>{body}</think><answer>C</answer>"):
                verify(text, answer, "robust")
                verify(text, answer)
        assert time.process_time() - started < 2.0, f"{size} characters of {unit!r}"


@pytest.mark.parametrize(
    ("raw", "tidied"),
    [
        ("**A** or **B**", "**A** or **B**"),
        ("\\boxed{A} or \\boxed{B}", "\\boxed{A} or \\boxed{B}"),
        ("$\\boxed{\\text{**A**}}.$", "A"),
        ("`A`.", "A"),
        ("“Ａ”", "A"),
    ],
)
def test_tidy_unwraps_only_what_wraps_the_whole_text(raw: str, tidied: str) -> None:
    assert tidy(raw) == tidied


@pytest.mark.parametrize("brackets", ["[]", "()", "{}"])
def test_verify_reads_no_deeper_than_a_list_of_rows(brackets: str) -> None:
    for depth in (5, 1900):
        text = brackets[0] * depth + "1,2,3,4" + brackets[1] * depth
        for answer in GOLDS:
            assert verify(wrapped(text), answer).score == 0.0
            assert verify(wrapped(f'{{"x": {text}, "y": 1}}'), answer).score == 0.0


def test_an_answer_longer_than_an_answer_is_not_read() -> None:
    answer = Answer("integer", 3)
    assert verify(wrapped("3" + " cubes" * 100), answer).status is Status.UNPARSABLE
    assert verify(wrapped(" " * 5000 + "3"), answer).score == 1.0


def test_verify_refuses_a_profile_it_does_not_have() -> None:
    with pytest.raises(UsageError, match="strict, robust"):
        verify("x", Answer("integer", 3), "lenient")


@pytest.mark.parametrize(
    ("kind", "value", "more"),
    [
        ("exact", "", {}),
        ("exact", "x" * 300, {}),
        ("exact", 3, {}),
        ("choice", "E", {"options": ("a", "b")}),
        ("choice", "AB", {}),
        ("choice", "", {}),
        ("integer", 3.0, {}),
        ("integer", True, {}),
        ("number", math.nan, {}),
        ("number", "3", {}),
        ("number", 3.0, {"tolerance": -1.0}),
        ("yesno", "no", {}),
        ("yesno", 0, {}),
        ("ordering", ["a", "a"], {}),
        ("ordering", "ab", {}),
        ("ordering", [], {}),
        ("point", (0.5, 0.5), {}),
        ("point", (0.5,), {"radius": 1.0}),
        ("point", (0.5, math.inf), {"radius": 1.0}),
        ("box", (0.5, 0.1, 0.1, 0.5), {}),
        ("boxes", [(0, 0, 1)], {}),
        ("set", "ab", {}),
        ("set", {1, 2}, {}),
        ("interval", (5, 5), {}),
        ("interval", (-1, 5), {}),
    ],
)
def test_a_truth_that_nothing_can_meet_is_refused(kind: AnswerKind, value: object, more: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=f"kind='{kind}'"):
        verify(wrapped("x"), Answer(kind, value, **more))


def test_best_matching_equals_trying_every_one() -> None:
    rng = random.Random(0)
    for _ in range(150):
        rows, columns = rng.randrange(1, 6), rng.randrange(1, 6)
        gain = [[rng.choice([0.0, rng.random()]) for _ in range(columns)] for _ in range(rows)]
        assert best_matching(gain) == pytest.approx(oracles_rl.best_matching(gain), abs=1e-12)


def test_box_iou_equals_the_areas() -> None:
    rng = random.Random(1)
    for _ in range(200):
        x, y = sorted(rng.random() for _ in range(4)), sorted(rng.random() for _ in range(4))
        a, b = (x[0], y[1], x[2], y[3]), (x[1], y[0], x[3], y[2])
        assert box_iou(a, b) == pytest.approx(oracles_rl.box_iou(a, b))
        assert box_iou(a, a) == pytest.approx(1.0)


def test_many_boxes_around_one_right_one_earn_no_more_than_its_share() -> None:
    answer = Answer("boxes", [(0.0, 0.0, 1.0, 1.0)])
    spam = [[0, 0, 1, 1]] + [[i, i, i + 1, i + 1] for i in range(1, 60)]
    assert verify(wrapped(json.dumps(spam)), answer).score == pytest.approx(1 / 60)
    assert verify(wrapped(json.dumps(spam * 2)), answer).score == 0.0


def test_verify_matches_a_hundred_true_boxes_in_seconds() -> None:
    truth = [(float(i), 0.0, i + 1.5, 1.0) for i in range(100)]
    given = json.dumps([[i, 0, i + 1, 1] for i in range(200)], separators=(",", ":"))
    started = time.process_time()
    verify(wrapped(given[:4000].rpartition("],")[0] + "]]"), Answer("boxes", truth))
    assert time.process_time() - started < 5.0


def test_verifiers_and_rubric_need_no_torch() -> None:
    code = "import sys; from entropy_vision.rl import Rubric, verify; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_public_names_of_rl_are_those_it_lists() -> None:
    import entropy_vision.rl as rl

    assert rl.__all__ == sorted(rl.__all__)
    assert all(getattr(rl, name) is not None for name in rl.__all__)
    with pytest.raises(AttributeError, match="no attribute 'grpo_advantage'"):
        _ = rl.grpo_advantage


@pytest.mark.parametrize("kind", ["set", "ordering"])
def test_a_list_of_nested_objects_is_no_crash(kind: str) -> None:
    answer = Answer("set", {"a"}) if kind == "set" else Answer("ordering", ["a", "b"])
    assert verify(wrapped("[" + '{"":' * 1000), answer).score == 0
