"""The `eval` verb on public benchmarks: NAME:FOLDER beside the World's families."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from benchmark_cases import CASES
from small_policy import small_policy

from entropy_vision import cli
from entropy_vision.evaluate import benchmark_source

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
