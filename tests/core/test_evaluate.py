"""The `eval` verb on public benchmarks: NAME:FOLDER beside the World's families."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from benchmark_files import CASES
from small_policy import small_policy

from entropy_vision import cli

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
