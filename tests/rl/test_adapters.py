"""The rubric as other trainers call it. Where a library is installed it makes the call itself."""

from __future__ import annotations

import asyncio
import importlib.util
import inspect
import json
import random
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from verifier_golds import GOLDS, name_of

from entropy_vision.answer_json import answer_from_json, answer_to_json
from entropy_vision.errors import UsageError
from entropy_vision.question import AnswerKind
from entropy_vision.rl import Answer, Rubric, verify
from entropy_vision.rl.adapters import (
    compute_score,
    easyr1_reward,
    text_of,
    trl_reward,
    verifiers_reward,
    verifiers_rubric,
)
from entropy_vision.rl.verifiers import canonical

TRUTH = Answer("choice", "B", options=("red", "blue"))
COLUMN = answer_to_json(TRUTH)
RIGHT, WRONG, BARE = "<think>x</think><answer>B</answer>", "<think>x</think><answer>A</answer>", "B"
PAID = [1.1, 0.0, 0.0]


@pytest.mark.parametrize("answer", GOLDS, ids=name_of)
def test_an_answer_survives_json(answer: Answer) -> None:
    text = answer_to_json(answer)
    again = answer_from_json(text)
    assert answer_to_json(again) == text == answer_to_json(answer_from_json(json.loads(text)))
    assert (again.options, again.aliases, again.tolerance, again.mra) == (
        answer.options,
        answer.aliases,
        answer.tolerance,
        answer.mra,
    )
    assert verify(f"<think>x</think><answer>{canonical(answer)}</answer>", again).score == 1.0
    assert {a.kind for a in GOLDS} == set(AnswerKind.__args__)  # type: ignore[attr-defined]


def test_an_answer_in_json_is_plain_and_short() -> None:
    assert (
        answer_to_json(Answer("set", {"b", "a"}, partial=True))
        == '{"kind": "set", "value": ["a", "b"], "partial": true}'
    )
    array = Answer("box", np.array([0.0, 0.5, 1.0, 1.0], np.float32))
    assert answer_from_json(answer_to_json(array)).value == (0.0, 0.5, 1.0, 1.0)
    assert answer_from_json('{"kind": "set", "value": []}').value == set()


def test_numbers_that_no_float_holds_are_refused() -> None:
    with pytest.raises(UsageError, match="not finite"):
        answer_to_json(Answer("number", float("nan")))
    for kind in ("integer", "number"):
        with pytest.raises(UsageError, match="value must be"):
            verify("5", Answer(kind, 10**400))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("B", "not JSON"),
        ('["B"]', "not a JSON object"),
        ('{"kind": "choice"}', "kind and value"),
        ('{"kind": "choice", "value": "B", "option": ["x"]}', "did you mean 'options'"),
        ('{"kind": "letter", "value": "B"}', "Answer.kind"),
        ('{"kind": "exact", "value": "B", "aliases": [1]}', "texts"),
        ('{"kind": "choice", "value": "B", "options": "red"}', "options must be a list"),
        ("[" * 200_000, "not JSON"),
    ],
)
def test_what_is_no_answer_is_refused(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        answer_from_json(text)


def test_trl_gets_a_list_of_rewards_for_plain_and_conversational_completions() -> None:
    reward = trl_reward()
    texts, answers = [RIGHT, WRONG, BARE], [COLUMN] * 3
    talks = [[{"role": "assistant", "content": text}] for text in texts]
    for completions in (texts, talks):
        given = reward(
            prompts=[""] * 3, completions=completions, completion_ids=[[1]] * 3, answer=answers, other=[0] * 3
        )
        assert given == pytest.approx(PAID) and all(type(r) is float for r in given)
    assert reward(completions=[RIGHT] * 2, answer=[json.loads(COLUMN) | {"radius": None}, TRUTH]) == [1.1, 1.1]
    assert reward.__name__ == "rubric" and trl_reward(name="right").__name__ == "right"
    with pytest.raises(UsageError, match="no column 'answer'"):
        reward(completions=texts, solution=answers)


def test_trl_counts_a_completion_of_the_longest_length_as_truncated() -> None:
    reward = trl_reward(max_completion_length=4, column="truth")
    ids = [[1, 2, 3], [1, 2, 3, 4]]
    assert reward(completions=[RIGHT] * 2, completion_ids=ids, truth=[COLUMN] * 2) == [1.1, 1.0]


def test_rewards_do_not_depend_on_the_batch() -> None:
    rng = random.Random(0)
    rows = [(f"<think>x</think><answer>{canonical(a)}</answer>", answer_to_json(b)) for a in GOLDS for b in GOLDS]
    reward = trl_reward()
    whole = reward(completions=[c for c, _ in rows], answer=[a for _, a in rows])
    order = list(range(len(rows)))
    rng.shuffle(order)
    mixed = reward(completions=[rows[i][0] for i in order], answer=[rows[i][1] for i in order])
    assert [whole[i] for i in order] == mixed
    assert whole == [reward(completions=[c], answer=[a])[0] for c, a in rows]


def test_verl_gets_a_score_and_its_parts() -> None:
    given = [compute_score("world", text, COLUMN) for text in (RIGHT, WRONG, BARE)]
    assert [g["score"] for g in given] == pytest.approx(PAID)
    assert given[0] == {"score": 1.1, "accuracy": 1.0, "format": 1.0, "unparsable": 0.0}
    assert {tuple(g) for g in given} == {tuple(given[0])}  # verl stacks them by key
    assert compute_score("world", RIGHT, COLUMN, {"truncated": True})["score"] == 1.0
    assert list(inspect.signature(compute_score).parameters)[:4] == [
        "data_source",
        "solution_str",
        "ground_truth",
        "extra_info",
    ]


def test_easyr1_gets_overall_and_parts_for_a_batch() -> None:
    rows = [{"response": t, "response_length": 7, "ground_truth": COLUMN} for t in (RIGHT, WRONG, BARE)]
    given = easyr1_reward(rows)
    assert [g["overall"] for g in given] == pytest.approx(PAID)
    assert [g["accuracy"] for g in given] == [1.0, 0.0, 0.0] and [g["format"] for g in given] == [1.0, 0.0, 0.0]
    assert [g["overall"] for g in easyr1_reward(rows[:1], max_response_length=7)] == [1.0]


class FakeRubric:
    """What the adapter asks of verifiers 0.1: functions called by the names of their arguments, and weights."""

    def __init__(self, funcs: list[Any], weights: list[float]) -> None:
        self.funcs, self.weights = funcs, weights

    def score(self, **objects: Any) -> dict[str, float]:
        def call(func: Any) -> float:
            wanted = {name: objects[name] for name in inspect.signature(func).parameters}
            return float(asyncio.run(func(**wanted)))

        return {func.__name__: call(func) for func in self.funcs}


def test_verifiers_gets_a_rubric_of_named_functions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "verifiers", SimpleNamespace(Rubric=FakeRubric))
    rubric = verifiers_rubric(Rubric(format_when_wrong=True))
    assert rubric.weights == [1.0, 0.0, 0.0, 0.0]
    talk = [{"role": "assistant", "content": WRONG}]
    scores = rubric.score(prompt="", completion=talk, answer=COLUMN, state={"is_truncated": False}, info={})
    assert scores == {"total": 0.1, "accuracy": 0.0, "format": 1.0, "unparsable": 0.0}
    assert rubric.score(completion=RIGHT, answer=COLUMN, state={"is_truncated": True})["total"] == 1.0
    monkeypatch.setitem(sys.modules, "verifiers", SimpleNamespace())
    with pytest.raises(UsageError, match="verifiers_reward"):
        verifiers_rubric()


def test_verifiers_tasks_get_a_reward_method() -> None:
    class Task:
        score = verifiers_reward()

    for text, paid in zip((RIGHT, WRONG, BARE), PAID, strict=True):
        trace = SimpleNamespace(last_reply=text, is_truncated=False)
        assert asyncio.run(Task().score(task=SimpleNamespace(answer=COLUMN), trace=trace)) == paid


def test_text_of_takes_what_the_last_assistant_says() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "image"}, {"type": "text", "text": "b"}]
    assert text_of([{"role": "assistant", "content": parts}]) == "ab"
    assert text_of([{"role": "assistant", "content": "x"}, {"role": "tool", "content": "y"}]) == "x"
    assert text_of([{"role": "assistant", "content": c} for c in "xyz"]) == "z"
    assert text_of([SimpleNamespace(role="assistant", content="x")]) == "x"
    assert [text_of(c) for c in ([], None, [{"content": "x"}], [{"role": "assistant", "content": None}])] == [
        "",
        "",
        "x",
        "",
    ]


def test_a_fault_in_the_truth_is_an_error_and_no_zero() -> None:
    bad = '{"kind": "choice", "value": "E", "options": ["red", "blue"]}'
    with pytest.raises(UsageError, match="A to B"):
        trl_reward()(completions=[RIGHT], answer=[bad])
    with pytest.raises(UsageError, match="NoneType"):
        compute_score("world", RIGHT, None)


def test_adapters_import_none_of_the_libraries() -> None:
    code = "import sys, entropy_vision.rl.adapters; print({'torch', 'trl', 'verl', 'verifiers'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def installed(*names: str) -> bool:
    return all(importlib.util.find_spec(name) is not None for name in names)


@pytest.mark.skipif(not installed("trl", "datasets", "accelerate", "pandas"), reason="TRL is not installed")
def test_trl_itself_names_the_function() -> None:
    from trl.trainer import grpo_trainer

    assert grpo_trainer.get_callable_name(trl_reward(name="right")) == "right"


@pytest.mark.skipif(not (installed("verifiers") and installed("verifiers.rubrics")), reason="no verifiers 0.1")
def test_verifiers_itself_calls_the_rubric() -> None:
    rubric = verifiers_rubric()
    for text, paid in zip((RIGHT, WRONG, BARE), PAID, strict=True):
        talk = [{"role": "assistant", "content": text}]
        state = {"prompt": [], "completion": talk, "answer": COLUMN, "info": {}, "input": {}}
        state |= {"timing": {}, "trajectory": [], "reward": None}
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(rubric, "task_for_state", lambda *_: {})
            patch.setattr(rubric, "task_score_fields", lambda *_: {})
            assert asyncio.run(rubric._call_individual_reward_func(rubric.funcs[0], state)) == paid
