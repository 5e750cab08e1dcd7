"""Every benchmark from small files in its published form: what loads, what is counted, what is refused and how."""

from __future__ import annotations

import dataclasses
import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from benchmark_files import CASES, Case, b64, parquet, picture, tsv, video
from media import numbered, tree, write

from entropy_vision import cli
from entropy_vision.data.benchmarks import BENCHMARKS, Benchmark, load
from entropy_vision.data.benchmarks.check import run_benchmarks
from entropy_vision.errors import InputError, InputReason, UsageError
from entropy_vision.frames import read_image
from entropy_vision.grid import grid_size
from entropy_vision.options import BenchmarksOptions
from entropy_vision.rl import verify
from entropy_vision.rl.verifiers import canonical, check_answer


def of(*cases: Case) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("case", cases, ids=lambda case: f"{case.name}-{case.split or 'usual'}")


each = of(*CASES)
SHOWN = {"size": 32, "frames": 3}


def loaded(case: Case, folder: Path) -> Benchmark:
    return load(case.name, case.write(folder, ""), case.split, **SHOWN)


def test_every_benchmark_has_a_case() -> None:
    assert {case.name for case in CASES} | {"nlvr-scenes"} == set(BENCHMARKS)


@each
def test_its_rows_are_questions_or_counted_with_a_reason(case: Case, tmp_path: Path) -> None:
    benchmark = loaded(case, tmp_path)
    assert benchmark.rows == case.rows and len(benchmark) == case.rows - case.broken
    assert len(benchmark.skipped) == case.broken and all(one.where and one.reason for one in benchmark.skipped)
    assert len({question.key for question in benchmark.questions}) == len(benchmark)
    assert benchmark.missing() == []


@each
def test_its_first_question_is_the_official_one_and_its_answers_verify(case: Case, tmp_path: Path) -> None:
    benchmark = loaded(case, tmp_path)
    item = benchmark[0]
    assert item.question == case.prompt
    assert (item.answer.kind, item.answer.value) == case.answer
    assert item.meta["profile"] == case.profile and case.profile.startswith(benchmark.spec.profile)
    for question in benchmark.questions:
        check_answer(question.answer)
        completion = f"<think>so</think><answer>{canonical(question.answer)}</answer>"
        assert verify(completion, question.answer, "strict").score == 1.0


@each
def test_its_answers_earn_everything_by_the_published_rule(case: Case, tmp_path: Path) -> None:
    pytest.importorskip("entropy_vision.rl.verifiers.official", reason="the published rules are not there")
    for question in loaded(case, tmp_path).questions:
        told = canonical(question.answer)
        if question.meta["profile"] in ("official:nlvr", "official:nlvr2"):  # these know no yes
            told = "true" if question.answer.value else "false"
        completion = f"<think>so</think><answer>{told}</answer>"
        assert verify(completion, question.answer, question.meta["profile"]).score == 1.0


@each
def test_its_frames_are_decoded_when_asked_for_and_evidence_is_their_shape(case: Case, tmp_path: Path) -> None:
    benchmark = loaded(case, tmp_path)
    item = benchmark[0]
    assert item.frames.count == case.frames and item.frames.size == (32, 32)
    assert item.evidence.shape == (case.frames, *grid_size(32, 32, 16)) and item.evidence.dtype == bool
    assert item.evidence.all() or benchmark.spec.name == "nlvr"
    shared = benchmark.scene(0)
    assert shared[0].key == item.key and all(one.frames is shared[0].frames for one in shared)
    assert sum(len(benchmark.scene(i)) for i in range(len(benchmark.scenes))) == len(benchmark)


@each
def test_without_its_table_or_a_column_one_line_says_so(case: Case, tmp_path: Path) -> None:
    (tmp_path / "less").mkdir()
    given = case.write(tmp_path / "less", case.column)
    with pytest.raises(UsageError, match=case.column) as told:
        load(case.name, given, case.split)
    assert str(tmp_path / "less") in str(told.value) and "\n" not in str(told.value)
    (tmp_path / "none").mkdir()
    given = case.write(tmp_path / "none", "")
    for path in (tmp_path / "none").rglob("*"):
        if path.is_file() and path.suffix in (".json", ".jsonl", ".parquet", ".tsv", ".tar"):
            path.unlink()
    with pytest.raises(UsageError) as told:
        load(case.name, given, case.split)
    assert str(tmp_path / "none") in str(told.value) and "\n" not in str(told.value)
    assert Path(case.table).suffix in str(told.value)


@of(*(case for case in CASES if case.media))
def test_media_that_are_not_there_are_named_when_they_are_needed(case: Case, tmp_path: Path) -> None:
    given = case.write(tmp_path, "")
    (tmp_path / case.media).unlink()
    benchmark = load(case.name, given, case.split, **SHOWN)  # nothing is decoded yet, so it loads
    with pytest.raises(InputError, match=Path(case.media).name) as told:
        benchmark[0]
    assert told.value.reason == InputReason.MISSING
    assert [Path(name).name for name in benchmark.missing()] == [Path(case.media).name]


@of(*(case for case in CASES if BENCHMARKS[case.name].splits))
def test_a_zip_of_its_files_gives_the_same(case: Case, tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    plain = loaded(case, tmp_path / "plain")
    packed = tmp_path / "packed.zip"
    with zipfile.ZipFile(packed, "w") as archive:
        for name, content in tree(tmp_path / "plain").items():
            archive.writestr(f"some/folder/{name}", content)
    zipped = load(case.name, packed, case.split, **SHOWN)
    assert [q.key for q in zipped.questions] == [q.key for q in plain.questions]
    assert np.array_equal(zipped[0].frames.pixels, plain[0].frames.pixels)


def test_media_in_the_zips_beside_a_table_are_found(tmp_path: Path) -> None:
    case = next(case for case in CASES if case.name == "vsi-bench")
    plain = loaded(case, tmp_path)[0].frames.pixels
    with zipfile.ZipFile(tmp_path / "scannet.zip", "w") as archive:
        archive.write(tmp_path / "scannet" / "scene0.mp4", "scannet/scene0.mp4")
    shutil.rmtree(tmp_path / "scannet")
    assert np.array_equal(load("vsi-bench", tmp_path, **SHOWN)[0].frames.pixels, plain)


def test_a_path_of_a_table_stays_in_the_folder(tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    picture(tmp_path / "secret.png")
    row = {"data_type": "image", "problem": "?", "problem_type": "numerical", "solution": "<answer>1</answer>"}
    (inside / "p.json").write_text(json.dumps([{**row, "path": "../secret.png"}]))
    assert len(load("video-r1", inside / "p.json").missing()) == 1


def test_names_folders_and_splits_that_are_wrong_are_one_line(tmp_path: Path) -> None:
    for arguments, told in (
        (("vsi-bnch", tmp_path), "did you mean vsi-bench?"),
        (("vsi-bench", tmp_path / "nowhere"), "is not there"),
        (("vsi-bench",), "NAME:FOLDER"),
        (("vsi-bench", tmp_path, "test"), "full, debiased, pruned"),
        (("llava", tmp_path), "is no file"),
    ):
        with pytest.raises(UsageError, match=told):
            load(*arguments)
    assert len(load(f"vsi-bench:{next(c for c in CASES if c.name == 'vsi-bench').write(tmp_path, '')}")) == 3


def test_rows_that_say_the_same_identifier_are_counted_once(tmp_path: Path) -> None:
    case = next(case for case in CASES if case.name == "video-mme")
    case.write(tmp_path, "")
    table = tmp_path / "videomme" / "test-00000-of-00001.parquet"
    shutil.copy(table, table.with_name("test-00001-of-00001.parquet"))
    benchmark = load("video-mme", tmp_path)
    assert (benchmark.rows, len(benchmark), len(benchmark.skipped)) == (6, 2, 4)
    assert sum("was there before" in one.reason for one in benchmark.skipped) == 2


def test_a_tsv_is_read_as_the_csv_module_reads_it_and_images_by_reference(tmp_path: Path) -> None:
    rows = [
        {"index": "1", "image": b64(1), "question": 'a "quoted"\tword', "answer": "yes"},
        {"index": "2", "image": f"['{b64(2)}', '{b64(3)}']", "question": "two\nlines", "answer": "2"},
        {"index": "3", "image": "1", "question": "as the first", "answer": "lamp"},
    ]
    tsv(tmp_path / "a.tsv", rows)
    benchmark = load("vlmevalkit", tmp_path / "a.tsv", size=None)
    assert [question.meta["question"] for question in benchmark.questions] == [row["question"] for row in rows]
    assert [question.answer.kind for question in benchmark.questions] == ["yesno", "integer", "exact"]
    assert [benchmark[i].frames.count for i in range(3)] == [1, 2, 1]
    assert np.array_equal(benchmark[2].frames.pixels, benchmark[0].frames.pixels)


def test_images_of_several_sizes_need_a_size(tmp_path: Path) -> None:
    case = next(case for case in CASES if case.name == "nlvr2")
    case.write(tmp_path, "")
    with pytest.raises(UsageError, match="32x24, 20x40"):
        load("nlvr2", tmp_path, size=None)[0]
    frames = load("nlvr2", tmp_path, size=48)[0].frames
    assert np.array_equal(frames.pixels[1], read_image(tmp_path / "dev" / "dev-850-0-img1.png", 48).pixels[0])


@pytest.mark.parametrize("task", ["action_sequence", "episodic_reasoning"])
def test_seconds_are_cut_out_of_uncut_videos(task: str, tmp_path: Path) -> None:
    """Frames at 4 (3) a second, each 6 levels brighter: 2 s to 4 s are the numbers 8 to 16 (6 to 12)."""
    row = {"video": "v.mp4", "question": "?", "candidates": ["a", "b"], "answer": "a", "start": 2.0, "end": 4.0}
    pixels, rate = numbered(30), 4 if task == "action_sequence" else 3
    (tmp_path / "json").mkdir()
    if task == "action_sequence":
        path = tmp_path / "video" / "star" / "Charades_v1_480" / "v.mp4"
        path.parent.mkdir(parents=True)
        write(path, pixels, fps=4, options={"crf": "0"})
    else:
        row["video"] = "v"
        from PIL import Image

        home = tmp_path / "video" / "tvqa" / "frames_fps3_hq" / "v"
        home.mkdir(parents=True)
        for number, one in enumerate(pixels):
            Image.fromarray(one).save(home / f"{number + 1:05d}.jpg", quality=95)
    (tmp_path / "json" / f"{task}.json").write_text(json.dumps([row]))
    benchmark = load("mvbench", tmp_path, task, frames=4)
    assert not benchmark.skipped and not benchmark.missing()
    frames = benchmark[0].frames
    shown = (frames.pixels[:, 100, 100, 0].astype(float) - 20) / 6
    assert frames.count == 4 and (np.abs(shown - np.round(shown)) < 0.5).all()
    assert shown.min() >= 2 * rate - 0.5 and shown.max() <= 4 * rate + 0.5 and (np.diff(shown) > 0).all()


def test_a_clip_without_seconds_is_counted_where_only_the_uncut_video_is_there(tmp_path: Path) -> None:
    row = {"video": "v.mp4", "question": "?", "candidates": ["a", "b"], "answer": "a"}
    (tmp_path / "json").mkdir()
    (tmp_path / "json" / "action_sequence.json").write_text(json.dumps([row]))
    assert "seconds" in load("mvbench", tmp_path).skipped[0].reason
    video(tmp_path / "video" / "star" / "Charades_segment" / "v.mp4")
    assert len(load("mvbench", tmp_path)) == 1


# the published numbers -------------------------------------------------------------------------------------------


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
    benchmark = loaded(next(case for case in CASES if case.name == "clevr"), tmp_path)
    with pytest.raises(UsageError, match="2 questions, 1 scores"):
        benchmark.aggregate([1.0])
    assert benchmark.aggregate([1.0, 0.0]) == {"overall": 0.5, "count": 1.0, "exist": 0.0}


# the verb --------------------------------------------------------------------------------------------------------


def test_the_verb_lists_every_benchmark_with_its_files_metric_and_licence() -> None:
    rows = run_benchmarks(BenchmarksOptions(json=True))["benchmarks"]
    assert [row["benchmark"] for row in rows] == list(BENCHMARKS)
    assert all(row["files"] and row["metric"] and row["licence"] and row["profile"] for row in rows)


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
    assert cli.main(["benchmarks", case.name]) == 2


def test_a_folder_where_all_is_well_passes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parquet(tmp_path / "testdev_balanced_images" / "a.parquet", [{"id": "1", "image": {"bytes": b"x", "path": ""}}])
    rows = [{"id": "1", "imageId": "1", "question": "What?", "answer": "cup"}]
    parquet(tmp_path / "testdev_balanced_instructions" / "a.parquet", rows)
    assert cli.main(["benchmarks", "gqa", str(tmp_path)]) == 0
    assert "What?" in capsys.readouterr().out
