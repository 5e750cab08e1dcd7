"""Every benchmark from small files in its published form: what loads, what is counted, what is refused and how."""

from __future__ import annotations

import dataclasses
import json
import pickle
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from benchmark_cases import CASES, Case
from benchmark_files import parquet, picture
from media import tree

from entropy_vision.data.benchmarks import BENCHMARKS, Benchmark, load
from entropy_vision.data.benchmarks.folder import Folder
from entropy_vision.data.benchmarks.rows import BadRow
from entropy_vision.errors import InputError, InputReason, UsageError
from entropy_vision.grid import grid_size
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
    kinds = case.kinds or (case.answer[0],) * len(benchmark)
    assert tuple(question.answer.kind for question in benchmark.questions) == kinds
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


@each
@pytest.mark.parametrize("damage", ["garbage", "half", "empty"])
def test_a_table_that_is_damaged_is_one_line_or_rows_that_are_counted(case: Case, damage: str, tmp_path: Path) -> None:
    given = case.write(tmp_path, "")
    table = tmp_path / case.table
    whole = table.read_bytes()
    content = {"garbage": b"\xff\x00\xfe garbage \n\x00\xff", "half": whole[: len(whole) // 2], "empty": b""}
    table.write_bytes(content[damage])
    try:
        benchmark = load(case.name, given, case.split)
    except (UsageError, InputError) as told:  # an empty file is no table of any kind
        assert "\n" not in str(told) and str(tmp_path) in str(told)
    else:  # of lines or members those that are whole remain, and tempcompass has three tables
        assert damage == "half" and benchmark.rows <= case.rows and benchmark.questions


@of(*(case for case in CASES if case.media))
def test_media_that_are_not_there_are_named_when_they_are_needed(case: Case, tmp_path: Path) -> None:
    given = case.write(tmp_path, "")
    (tmp_path / case.media).unlink()
    benchmark = load(case.name, given, case.split, **SHOWN)  # nothing is decoded yet, so it loads
    with pytest.raises(InputError, match=Path(case.media).name) as told:
        benchmark[0]
    assert told.value.reason == InputReason.MISSING
    assert [Path(name).name for name in benchmark.missing()] == [Path(case.media).name]


@each
def test_it_goes_to_other_processes(case: Case, tmp_path: Path) -> None:
    benchmark = loaded(case, tmp_path)
    pixels = benchmark[0].frames.pixels
    sent = pickle.loads(pickle.dumps(benchmark))
    assert np.array_equal(sent[0].frames.pixels, pixels) and sent.spec is benchmark.spec


def test_a_cell_that_is_no_picture_is_named(tmp_path: Path) -> None:
    for number, cell in enumerate(({"bytes": b"no picture", "path": None}, {"bytes": None, "path": "a.png"}, None)):
        folder = tmp_path / str(number)
        shared = {"category": "direct_attributes", "question_id": "0", "text": "Which? (A) one (B) two", "label": "A"}
        parquet(folder / "test-0.parquet", [{**shared, "image": cell}, {**shared, "image": {"bytes": b"", "path": ""}}])
        with pytest.raises(InputError, match=r"test-0\.parquet:image"):
            load("vstar", folder)[0]


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


WEIRD = (
    None,
    "",
    " ",
    0,
    -1,
    1.5,
    float("nan"),
    True,
    [],
    [None],
    ["a"],
    {},
    {"a": 1},
    "x" * 1000,
    "(Z)",
    b"x",
    "1e999",
)
OURS = {"task", "members", "key", "order", "turn"}  # put there by the readers


@each
def test_whatever_a_row_holds_it_is_a_question_that_verifies_or_a_reason(case: Case, tmp_path: Path) -> None:
    given = case.write(tmp_path, "")
    spec = BENCHMARKS[case.name]
    folder = Folder(given if spec.splits else given.parent)
    split = case.split or (spec.splits[0] if spec.splits else given.name)
    outcomes = set()
    for row in spec.rows(folder, split):
        for name in set(row.values) - OURS:
            for value in WEIRD:
                try:
                    question = spec.ask(dataclasses.replace(row, values={**row.values, name: value}), folder, split)
                except BadRow as error:
                    assert str(error) and "\n" not in str(error)
                    outcomes.add(BadRow)
                else:
                    check_answer(question.answer)
                    outcomes.add(type(question))
                    assert isinstance(question.text, str) and "\0" not in question.medium.name
    assert BadRow in outcomes and len(outcomes) == 2


def test_rows_that_say_the_same_identifier_are_counted_once(tmp_path: Path) -> None:
    case = next(case for case in CASES if case.name == "video-mme")
    case.write(tmp_path, "")
    table = tmp_path / "videomme" / "test-00000-of-00001.parquet"
    shutil.copy(table, table.with_name("test-00001-of-00001.parquet"))
    benchmark = load("video-mme", tmp_path)
    assert (benchmark.rows, len(benchmark), len(benchmark.skipped)) == (6, 2, 4)
    assert sum("was there before" in one.reason for one in benchmark.skipped) == 2
