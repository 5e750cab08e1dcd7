"""From scores to the numbers that are published, and what the `benchmarks` verb tells."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from benchmark_cases import CASES
from benchmark_files import parquet

from entropy_vision import cli
from entropy_vision.data.benchmarks import BENCHMARKS, load
from entropy_vision.data.benchmarks.check import run_benchmarks
from entropy_vision.errors import UsageError
from entropy_vision.options import BenchmarksOptions


@dataclasses.dataclass(frozen=True)
class Asked:
    """A question without pictures, as aggregations see it."""

    family: str = ""
    scene: str = ""
    meta: dict[str, object] = dataclasses.field(default_factory=dict)


def test_vsi_bench_is_the_mean_of_eight_tasks() -> None:
    tasks = {
        "object_counting": 0.5,
        "object_abs_distance": 0.25,
        "object_size_estimation": 1.0,
        "room_size_estimation": 0.0,
        "object_rel_distance": 1.0,
        "route_planning": 0.0,
        "obj_appearance_order": 1.0,
    }
    levels = {"easy": [1, 1, 1, 1], "medium": [0], "hard": [1, 0]}  # unweighted: (1 + 0 + .5) / 3
    pairs = [(score, Asked(name)) for name, score in tasks.items() for _ in range(3)]
    pairs += [(score, Asked(f"object_rel_direction_{level}")) for level, some in levels.items() for score in some]
    numbers = BENCHMARKS["vsi-bench"].aggregate([s for s, _ in pairs], [a for _, a in pairs])
    assert numbers["object_rel_direction"] == 0.5 and len(numbers) == 9
    assert numbers["overall"] == pytest.approx((sum(tasks.values()) + 0.5) / 8)


def test_cv_bench_weighs_its_sources() -> None:
    pairs = [(1, "ADE20K"), (0, "ADE20K"), (1, "COCO"), (0, "Omni3D"), (0, "Omni3D"), (1, "Omni3D"), (0, "Omni3D")]
    asked = [Asked(meta={"source": source, "type": "2D" if source != "Omni3D" else "3D"}) for _, source in pairs]
    numbers = BENCHMARKS["cv-bench"].aggregate([s for s, _ in pairs], asked)
    assert numbers["overall"] == ((0.5 + 1.0) / 2 + 0.25) / 2 and numbers["questions"] == 3 / 7


def test_consistency_asks_for_every_picture_of_a_presentation() -> None:
    def asked(name: str, example: str) -> Asked:
        return Asked(meta={"presentation": name, "example": example})

    pairs = [(1.0, asked("1", "1-0"))] * 6 + [(1.0, asked("1", "1-1"))] * 6
    pairs += [(1.0, asked("2", "2-0"))] * 6 + [(1.0, asked("2", "2-1"))] * 5 + [(0.0, asked("2", "2-1"))]
    numbers = BENCHMARKS["nlvr"].aggregate([s for s, _ in pairs], [a for _, a in pairs])
    assert numbers == {"overall": 23 / 24, "consistency": 0.5, "examples": 0.75}
    same = [
        (1.0, Asked(meta={"sentence": "a"})),
        (0.0, Asked(meta={"sentence": "a"})),
        (1.0, Asked(meta={"sentence": "b"})),
    ]
    assert BENCHMARKS["nlvr2"].aggregate([s for s, _ in same], [a for _, a in same])["consistency"] == 0.5


def test_clevrer_counts_options_and_questions() -> None:
    pairs = [
        (1.0, Asked("explanatory", meta={"options": list("ABCD")})),
        (0.75, Asked("explanatory", meta={"options": list("ABCD")})),
        (0.5, Asked("predictive", meta={"options": list("AB")})),
        (0.0, Asked("descriptive", meta={"options": []})),
        (1.0, Asked("descriptive", meta={"options": []})),
    ]
    numbers = BENCHMARKS["clevrer"].aggregate([s for s, _ in pairs], [a for _, a in pairs])
    assert (numbers["descriptive"], numbers["explanatory_per_question"], numbers["predictive_per_question"]) == (
        0.5,
        0.5,
        0,
    )
    assert (numbers["explanatory_per_option"], numbers["predictive_per_option"]) == (7 / 8, 1 / 2)
    assert (numbers["per_option"], numbers["per_question"]) == (8 / 10, 1 / 3)
    assert numbers["overall"] == pytest.approx((0.5 + 0.5 + 0.0) / 3)  # nothing counterfactual was asked


def test_hr_bench_takes_the_orders_of_options_as_equals() -> None:
    pairs = [(1.0, "single", "a"), (1.0, "single", "a"), (0.0, "single", "b"), (1.0, "cross", "a")]
    asked = [Asked(family, meta={"cycle": cycle}) for _, family, cycle in pairs]
    numbers = BENCHMARKS["hr-bench"].aggregate([s for s, _, _ in pairs], asked)
    assert numbers == {"overall": 0.5, "single": 0.5, "cross": 1.0}


def test_a_mean_of_parts_is_not_a_mean_of_questions() -> None:
    asked = [Asked("a"), Asked("a"), Asked("a"), Asked("b")]
    assert BENCHMARKS["mvbench"].aggregate([1, 1, 1, 0], asked) == {
        "overall": 0.5,
        "questions": 0.75,
        "a": 1.0,
        "b": 0.0,
    }


def test_scores_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    benchmark = load("clevr", next(case for case in CASES if case.name == "clevr").write(tmp_path, ""))
    with pytest.raises(UsageError, match="2 questions, 1 scores"):
        benchmark.aggregate([1.0])
    assert benchmark.aggregate([1.0, 0.0]) == {"overall": 0.5, "count": 1.0, "exist": 0.0}


def test_the_verb_lists_every_benchmark_with_its_files_metric_and_licence() -> None:
    rows = run_benchmarks(BenchmarksOptions(json=True))["benchmarks"]
    assert [row["benchmark"] for row in rows] == list(BENCHMARKS)
    assert all(row["files"] and row["metric"] and row["licence"] and row["profile"] for row in rows)


def test_the_page_says_of_every_benchmark_what_the_verb_says() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "benchmarks.md").read_text()
    for spec in BENCHMARKS.values():
        assert page.count(f"\n| `{spec.name}` |") == 2  # a row in each table
        held = ("; ".join(spec.files), ", ".join(spec.columns), spec.prompt, spec.metric)
        for told in (*held, spec.faults, spec.licence):
            assert told.replace("|", "\\|") in page, (spec.name, told)


def test_the_verb_counts_what_a_folder_holds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    case = next(case for case in CASES if case.name == "perception-test")
    case.write(tmp_path, "")
    assert cli.main(["benchmarks", case.name, str(tmp_path), "--json"]) == 1
    result = json.loads(capsys.readouterr().out)
    assert (result["rows"], result["questions"], result["skipped"], result["missing"]) == (3, 2, 1, 0)
    assert result["samples"][0]["question"] == case.prompt and result["reasons"][0]["reason"]
    (tmp_path / case.media).unlink()
    assert cli.main(["benchmarks", case.name, str(tmp_path)]) == 1
    assert "1 rows and 1 files cannot be used" in capsys.readouterr().err
    assert cli.main(["benchmarks", f"{case.name}:{tmp_path}"]) == 1
    capsys.readouterr()
    assert cli.main(["benchmarks", case.name]) == 0
    told = capsys.readouterr().out
    assert (
        "perception-test" in told
        and "vsi-bench" not in told
        and all(file in told for file in BENCHMARKS[case.name].files)
    )
    assert cli.main(["benchmarks", "perception-tset"]) == 2
    assert "perception-test" in capsys.readouterr().err


def test_a_folder_where_all_is_well_passes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parquet(tmp_path / "testdev_balanced_images" / "a.parquet", [{"id": "1", "image": {"bytes": b"x", "path": ""}}])
    rows = [{"id": "1", "imageId": "1", "question": "What?", "answer": "cup"}]
    parquet(tmp_path / "testdev_balanced_instructions" / "a.parquet", rows)
    assert cli.main(["benchmarks", "gqa", str(tmp_path)]) == 0
    assert "What?" in capsys.readouterr().out
