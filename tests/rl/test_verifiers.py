"""Verifiers against a table of completions that broke others, and against their own laws."""

from __future__ import annotations

import json
import math
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from itertools import combinations, permutations
from pathlib import Path
from typing import Any

import oracles_rl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from verifier_golds import GOLDS, name_of, soup, wrapped

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
    for answer, text, score, why in INSIDE:
        verdict = verify(wrapped(text), answer, profile)
        assert verdict.score == pytest.approx(score, abs=1e-12), (answer.kind, text, why, verdict)
        assert (verdict.status is Status.OK) == (score > 0) and verdict.format_ok == bool(text.strip())


def test_the_table_holds_hundreds_of_completions_of_every_kind_and_says_why() -> None:
    kinds = Counter(answer.kind for answer, *_ in INSIDE)
    assert set(kinds) == set(AnswerKind.__args__) and min(kinds.values()) >= 15  # type: ignore[attr-defined]
    assert sum(score < 1 for _, _, score, _ in INSIDE) >= 200 and len(WHOLE) >= 60
    assert all(why for *_, why in INSIDE) and all(case["why"] for _, case in WHOLE)
    assert len({(repr(answer), text) for answer, text, *_ in INSIDE}) == len(INSIDE)


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
@pytest.mark.parametrize("answer", GOLDS, ids=name_of)
def test_the_truth_itself_scores_one(answer: Answer, profile: str) -> None:
    assert verify(wrapped(canonical(answer)), answer, profile).score == 1.0
    assert {a.kind for a in GOLDS} == set(AnswerKind.__args__)  # type: ignore[attr-defined]


@pytest.mark.parametrize("answer", GOLDS, ids=name_of)
def test_saying_more_never_earns_more_than_the_truth_alone(answer: Answer) -> None:
    others = [canonical(a) for a in GOLDS if a.kind == answer.kind and a is not answer] or ["something else"]
    for other in [*others, canonical(answer), "none of them"]:
        for text in (f"{canonical(answer)} or {other}", f"{other} or {canonical(answer)}"):
            assert verify(wrapped(text), answer).score < 1.0, text


def _numbers(rng: random.Random, count: int) -> list[float]:
    return sorted(round(rng.uniform(0, 9), 1) + 0.01 * i for i in range(count))


def _a_box(rng: random.Random) -> list[float]:
    (x0, x1), (y0, y1) = _numbers(rng, 2), _numbers(rng, 2)
    return [x0, y0, x1 + 0.5, y1 + 0.5]


COLOURS = ["red", "blue", "green", "white"]
# kind -> (truths, one whole answer of that kind): for kinds that ask for one answer
ONE_ANSWER: dict[str, tuple[list[Answer], Callable[[random.Random], str]]] = {
    "exact": ([Answer("exact", "red", aliases=("scarlet",))], lambda r: r.choice([*COLOURS, "scarlet", "a red"])),
    "choice": (
        [Answer("choice", "B", options=tuple(COLOURS)), Answer("choice", "B")],
        lambda r: r.choice(["A", "B", "(B)", "b.", "C", "blue", "red", "B. blue", "Option B"]),
    ),
    "integer": (
        [Answer("integer", 7), Answer("integer", 7, partial=True)],
        lambda r: r.choice(["7", "seven", "7 cubes", "8", "6", "70", "0", "-7"]),
    ),
    "number": (
        [Answer("number", 5.0, tolerance=1.0), Answer("number", 5.0, mra=True)],
        lambda r: r.choice(["5", "5.0", "five", "5.5", "4", "50", "-5", "5e0"]),
    ),
    "yesno": ([Answer("yesno", True)], lambda r: r.choice(["yes", "no", "true", "false", "Yes, it is", "No."])),
    "ordering": (
        [Answer("ordering", COLOURS), Answer("ordering", COLOURS, partial=True)],
        lambda r: ", ".join(r.sample(COLOURS, 4)),
    ),
    "point": ([Answer("point", (5.0, 5.0), radius=2.0)], lambda r: f"({r.uniform(3, 7):.2f}, {r.uniform(3, 7):.2f})"),
    "box": ([Answer("box", (2.0, 2.0, 7.0, 7.0))], lambda r: str(_a_box(r))),
    "interval": ([Answer("interval", (2.0, 7.0))], lambda r: "{} to {}".format(*_numbers(r, 2))),
}


@pytest.mark.parametrize("kind", ONE_ANSWER)
def test_two_answers_earn_no_more_than_the_better_of_them(kind: str) -> None:
    truths, draw = ONE_ANSWER[kind]
    rng = random.Random(kind)
    for truth in truths:
        for _ in range(250):
            first, second = draw(rng), draw(rng)
            text = first + rng.choice([" or ", ", ", "; ", "\n", " / ", " | ", " and ", ". ", " - no, "]) + second
            best = max(verify(wrapped(t), truth).score for t in (first, second))
            assert verify(wrapped(text), truth).score <= best, (truth, text)


@pytest.mark.parametrize("partial", [False, True])
@pytest.mark.parametrize("options", [(), tuple("ABCDEF")])
def test_a_set_earns_less_for_every_wrong_item_and_most_where_it_is_exact(
    partial: bool, options: tuple[str, ...]
) -> None:
    rng = random.Random(0)
    for _ in range(300):
        truth = Answer("set", set(rng.sample("ABCDEF", rng.randrange(1, 6))), options=options, partial=partial)
        named = rng.sample("ABCDEF", rng.randrange(1, 6))
        wrong = [c for c in "ABCDEF" if c not in truth.value and c not in named]
        score = verify(wrapped(", ".join(named)), truth).score
        assert (score == 1.0) == (set(named) == truth.value)
        for extra in [*wrong, *named]:
            assert verify(wrapped(", ".join([*named, extra])), truth).score <= score
        if partial:
            assert score == pytest.approx(oracles_rl.set_credit(set(named), truth.value, options), abs=1e-12)
            blind = verify(wrapped(", ".join("ABCDEF")), truth).score
            assert blind == 0.0 if options else blind < 1.0


def test_boxes_earn_no_more_for_a_repeat_or_for_a_box_elsewhere() -> None:
    rng = random.Random(0)
    for _ in range(150):
        truth = Answer("boxes", [tuple(_a_box(rng)) for _ in range(rng.randrange(1, 4))])
        given = [_a_box(rng) for _ in range(rng.randrange(1, 4))]
        score = verify(wrapped(json.dumps(given)), truth).score
        for extra in (rng.choice(given), [100.0, 100.0, 101.0, 101.0]):
            assert verify(wrapped(json.dumps([*given, extra])), truth).score <= score + 1e-12


def test_partial_credit_of_an_ordering_is_the_share_of_pairs_in_order() -> None:
    truth = Answer("ordering", COLOURS, partial=True)
    for said in permutations(COLOURS):
        pairs = [said.index(a) < said.index(b) for a, b in combinations(COLOURS, 2)]
        assert verify(wrapped(" > ".join(said)), truth).score == pytest.approx(sum(pairs) / len(pairs))
        assert verify(wrapped(" > ".join(said)), Answer("ordering", COLOURS)).score == float(all(pairs))
    assert verify(wrapped("x"), Answer("ordering", ["x"], partial=True)).score == 1.0


def test_partial_credit_of_a_count_is_the_mean_relative_accuracy_of_a_number() -> None:
    for truth in (1, 4, 7, 100, -3):
        for said in range(-5, 160, 3):
            count = verify(wrapped(str(said)), Answer("integer", truth, partial=True)).score
            for number in (Answer("number", float(truth), mra=True), Answer("number", float(truth), partial=True)):
                assert verify(wrapped(str(said)), number).score == count


@pytest.mark.parametrize("kind", ["exact", "choice", "yesno", "point"])
def test_partial_credit_is_refused_where_a_kind_is_right_or_wrong(kind: AnswerKind) -> None:
    answer = next(a for a in GOLDS if a.kind == kind)
    with pytest.raises(UsageError, match="right or wrong"):
        verify(wrapped("x"), replace(answer, partial=True))


def test_partial_credit_never_lies_below_the_whole_one() -> None:
    rng = random.Random(3)
    for answer in (a for a in GOLDS if a.kind in ("integer", "number", "ordering", "set")):
        for text in [canonical(answer), *(soup(rng) for _ in range(200))]:
            graded = verify(wrapped(text), replace(answer, partial=True)).score
            assert graded >= verify(wrapped(text), answer).score or answer.tolerance is not None, text


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


@pytest.mark.parametrize("answer", GOLDS, ids=name_of)
def test_verify_never_raises_and_stays_in_range_on_tokensoup(answer: Answer) -> None:
    rng = random.Random(f"{answer.kind}{answer.value!r}" if answer.kind != "set" else "set")
    for i in range(600):
        text = soup(rng)
        verdict = verify(wrapped(text) if i % 3 else text, answer, PROFILES[i % 2])
        _check_range(verdict)


@pytest.mark.slow
@pytest.mark.parametrize("answer", GOLDS, ids=name_of)
def test_verify_never_raises_on_much_token_soup(answer: Answer) -> None:
    rng = random.Random(f"much {answer.kind}{sorted(answer.value) if answer.kind == 'set' else answer.value!r}")
    for i in range(100_000 // len(GOLDS) + 1):
        text = soup(rng)
        _check_range(verify(wrapped(text) if i % 3 else text, answer, PROFILES[i % 2]))


def test_a_verdict_depends_on_its_completion_and_truth_alone() -> None:
    rng = random.Random(5)
    asked = [(wrapped(soup(rng)) if i % 2 else soup(rng), answer) for i in range(40) for answer in GOLDS]
    asked += [(wrapped(canonical(a)), b) for a in GOLDS for b in GOLDS]
    first = [verify(text, answer) for text, answer in asked]
    order = list(range(len(asked)))
    rng.shuffle(order)
    assert [verify(*asked[i]) for i in order] == [first[i] for i in order]


@pytest.mark.parametrize("answer", GOLDS, ids=name_of)
def test_what_was_parsed_reads_as_itself_again(answer: Answer) -> None:
    rng = random.Random(7)
    for text in [canonical(answer), *(canonical(a) for a in GOLDS), *(soup(rng) for _ in range(100))]:
        verdict = verify(wrapped(text), answer)
        if verdict.score == 1.0 and answer.kind != "ordering":  # items that hold separators need JSON
            again = verify(wrapped(str(verdict.parsed)), answer)
            assert again.score == 1.0 and again.parsed == verdict.parsed, (text, verdict)


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


def test_verify_reads_repeated_tags_in_well_under_a_millisecond() -> None:
    """99 of 100 on 128 kB, here with room for other work on the machine; tools/bench_verifiers.py measures it."""
    units = ("<answer>", "<think>", "<answer>C</answer>", "<think></think>", "</answer>")
    texts = [unit * (131_072 // len(unit)) for unit in units]
    answer = Answer("choice", "C", options=("a", "b", "c"))
    seconds = []
    for _ in range(60):
        for text in texts:
            started = time.process_time()
            verify(text, answer)
            seconds.append(time.process_time() - started)
    assert sorted(seconds)[int(0.99 * len(seconds))] < 0.005


def test_verify_checks_thousands_of_short_answers_a_second() -> None:
    texts = [wrapped(canonical(answer)) for answer in GOLDS]
    started = time.process_time()
    for _ in range(200):
        for text, answer in zip(texts, GOLDS, strict=True):
            verify(text, answer)
    assert 200 * len(GOLDS) / (time.process_time() - started) > 5_000  # 25,000 on a core of its own


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
