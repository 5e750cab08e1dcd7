"""The `eval` verb on public benchmarks: NAME:FOLDER beside the World's families."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import media
import numpy as np
import pytest
from benchmark_cases import CASES
from PIL import Image
from small_policy import small_policy

from entropy_vision import cli
from entropy_vision.errors import UsageError
from entropy_vision.evaluate import Measured, benchmark_source, run_eval
from entropy_vision.options import EvalOptions
from entropy_vision.rl.evaluate import Graded
from entropy_vision.stats import wilson_interval
from entropy_vision.text import answer_text

INPUTS = {"image_size": 96, "video_size": 64, "frame_count": 3, "difficulty": 0.3}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("policy")
    model, tokenizer = small_policy(inputs=INPUTS)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_benchmarks_are_tasks(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tasks = []
    for name in ("vsi-bench", "blink", "nlvr"):
        (tmp_path / name).mkdir()
        tasks.append(f"{name}:{next(case for case in CASES if case.name == name).write(tmp_path / name, '')}")
    line = ["eval", str(checkpoint), "--tasks", "count", *tasks, "--keep", "0.5", "--selectors", "rate"]
    assert cli.main([*line, "--questions", "4", "--json"]) == 0
    measured = json.loads(capsys.readouterr().out)["tasks"]
    assert {name: cell["0.5"]["n"] for name, cell in measured.items()} == {
        "count": 4,
        "vsi-bench": 3,  # all that it holds
        "blink": 2,
        "nlvr": 4,
        "all": 13,
    }


def test_questions_are_spread_over_a_benchmark(tmp_path: Path) -> None:
    case = next(case for case in CASES if case.name == "nlvr")
    source, count = benchmark_source(f"nlvr:{case.write(tmp_path, '')}", INPUTS, 4)
    assert count == 4
    assert [source.scene(i)[0].key[-6:] for i in range(4)] == ["12-0-0", "12-0-3", "12-1-0", "12-1-3"]


def _conversations(folder: Path, *rows: dict[str, object]) -> str:
    """A container of LLaVA's form, and the task that names it."""
    turns = [{"from": "human", "value": "Is it?"}, {"from": "gpt", "value": "yes"}]
    folder.mkdir(exist_ok=True)
    (folder / "set.json").write_text(json.dumps([{"id": 1, "conversations": turns, **row} for row in rows]))
    return f"llava:{folder / 'set.json'}"


def test_a_container_may_hold_pictures_and_videos(checkpoint: Path, tmp_path: Path) -> None:
    task = _conversations(tmp_path / "both", {"image": "a.png"}, {"video": "b.mp4"}, {"image": "c.png"})
    media.write(tmp_path / "both" / "b.mp4", media.drifting(5, 48, 48))
    for name in ("a.png", "c.png"):
        Image.fromarray(media.drifting(1, 32, 32)[0]).save(tmp_path / "both" / name)
    source, count = benchmark_source(task, INPUTS, 9)
    frames = [source.scene(i)[0].frames for i in range(count)]
    assert [(one.count, one.size) for one in frames] == [(1, (96, 96)), (3, (64, 64)), (1, (96, 96))]
    asked = EvalOptions(checkpoint=checkpoint, tasks=(task,), keep=(0.5,), selectors=("rate",))
    assert run_eval(asked)["tasks"]["llava"]["0.5"]["n"] == 3


def test_two_folders_of_one_benchmark_are_two_tasks(checkpoint: Path, tmp_path: Path) -> None:
    tasks = [_conversations(tmp_path / name, *[{"image": "a.png"}] * n) for name, n in (("one", 1), ("two", 2))]
    for name in ("one", "two"):
        Image.fromarray(media.drifting(1, 32, 32)[0]).save(tmp_path / name / "a.png")
    asked = EvalOptions(checkpoint=checkpoint, tasks=tuple(tasks), keep=(0.5,), selectors=("rate",))
    measured = run_eval(asked)
    counts = {name: cell["0.5"]["n"] for name, cell in measured["tasks"].items()}
    assert counts == {tasks[0]: 1, tasks[1]: 2, "all": 3} and set(measured["majority"]) == set(tasks)


def test_a_benchmark_without_a_question_is_one_line(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    task = _conversations(tmp_path / "none", {"conversations": "?"}, {})
    assert cli.main(["eval", str(checkpoint), "--tasks", task]) == 2
    told = capsys.readouterr().err.splitlines()[-1]
    assert "none of its 2 rows is a question" in told and "record 0: conversations is no pair of turns" in told


def test_questions_that_cannot_be_shown_are_counted_and_named(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"image": "a.png"}, {"image": "gone.png"}, {"image": "b.png"}, {"conversations": "?"}]
    task = _conversations(tmp_path / "some", *rows)
    Image.fromarray(media.drifting(1, 32, 32)[0]).save(tmp_path / "some" / "a.png")
    (tmp_path / "some" / "b.png").write_bytes(b"no picture")
    asked = EvalOptions(checkpoint=checkpoint, tasks=(task,), keep=(0.5,), selectors=("rate",), json=True)
    measured = run_eval(asked)
    assert measured["tasks"]["llava"]["0.5"]["n"] == 1
    bad, *unread = measured["skipped"]["llava"]
    assert "no pair of turns" in bad and "gone.png" in unread[0] and "b.png" in unread[1] and len(unread) == 2
    assert "llava: 3 left out, the first: " in capsys.readouterr().err
    (tmp_path / "some" / "a.png").unlink()
    with pytest.raises(UsageError, match=r"none of its 3 questions can be shown: .*a\.png"):
        run_eval(asked)


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """A policy that answers every question rightly, without the form that training asks for."""

    def sample(model: object, tokenizer: object, batch: Any, *, group: int, **how: object) -> SimpleNamespace:
        answers = [ask.answer for ask in batch.asks for _ in range(group)]
        texts = [answer.value if answer.kind == "choice" else answer_text(answer) for answer in answers]
        return SimpleNamespace(texts=texts, truncated=np.zeros(len(texts), bool))

    monkeypatch.setattr("entropy_vision.rl.evaluate.read_questions", lambda model, tokenizer, batch, **how: batch)
    monkeypatch.setattr("entropy_vision.rl.evaluate.sample", sample)


@pytest.fixture
def tasks(tmp_path: Path) -> tuple[str, ...]:
    """Two benchmarks with rules of their own, a container with none, a family."""
    folders = {name: tmp_path / name for name in ("vsi-bench", "blink")}
    for name, folder in folders.items():
        folder.mkdir()
        next(case for case in CASES if case.name == name).write(folder, "")
    Image.fromarray(media.drifting(1, 32, 32)[0]).save(tmp_path / "a.png")
    named = tuple(f"{name}:{folder}" for name, folder in folders.items())
    return (*named, _conversations(tmp_path, {"image": "a.png"}), "count")


@pytest.mark.parametrize(
    ("profile", "read", "right"),
    [
        (None, ["official:vsi-bench", "official:blink", "robust", "strict"], [1.0, 1.0, 1.0, 0.0]),
        ("strict", ["strict"] * 4, [0.0] * 4),
        ("robust", ["robust"] * 4, [1.0] * 4),
    ],
)
def test_answers_are_read_as_they_are_published(
    profile: str | None, read: list[str], right: list[float], bare: None, checkpoint: Path, tasks: tuple[str, ...],
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    line = ["eval", str(checkpoint), "--keep", "0.5", "--selectors", "rate", "random", "--questions", "4", "--json"]
    told = ["--profile", profile] if profile else []
    assert cli.main([*line, *told, "--tasks", *tasks]) == 0
    result = json.loads(capsys.readouterr().out)
    names = ["vsi-bench", "blink", "llava", "count"]
    assert result["profiles"] == dict(zip(names, read, strict=True))
    for name, rule, accuracy in zip(names, read, right, strict=True):
        for cell in (result["tasks"][name]["0.5"], result["selectors"]["random"][name]["0.5"], result["blind"][name]):
            assert cell["accuracy"] == accuracy and cell["low"] <= accuracy <= cell["high"]
            assert cell.get("strict") == (None if rule == "strict" else 0.0)
            assert cell.get("published") == (1.0 if profile is None and name != "count" else None)
    if profile is None:
        assert result["published"]["vsi-bench"]["rate"]["0.5"].keys() > {"overall", "object_counting"}
        assert result["published"]["blink"]["blind"]["0"]["overall"] == 1.0
    assert ("published" in result) is (profile is None)


def test_scores_in_parts_count_as_parts() -> None:
    parts, ones = np.array([[0.5], [0.25], [1.0]]), np.zeros((3, 1))
    graded = Graded(
        keys=("a", "b", "c"), families=("f",) * 3, questions=("?",) * 3, answers=("1",) * 3, accuracy=ones, reward=ones,
        format=ones, scores=parts, profiles=("official:vsi-bench",) * 3, completions=("",) * 3, tokens=np.zeros(3),
    )  # fmt: skip
    cell = Measured({("rate", 0.5): graded}).cell("rate", 0.5, "f")
    assert cell["accuracy"] == pytest.approx(1.75 / 3) and cell["strict"] == 0.0
    assert (cell["low"], cell["high"]) == wilson_interval(1.75, 3)


def test_a_profile_that_is_none_is_told() -> None:
    with pytest.raises(UsageError, match="--profile takes official, strict, robust"):
        EvalOptions(checkpoint=Path("x"), profile="lenient")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("task", "told"),
    [
        ("vsi-bnch:x", "did you mean vsi-bench?"),
        ("vsi-bench:nowhere", "nowhere is not there"),
        ("vsi-bench:", "NAME:FOLDER"),
        ("conut", "the nearest is count, and a benchmark is written NAME:FOLDER"),
    ],
)
def test_a_task_that_is_none_is_one_line(
    checkpoint: Path, task: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["eval", str(checkpoint), "--tasks", task, "--questions", "2"]) == 2
    err = capsys.readouterr().err
    assert told in err.splitlines()[-1]
