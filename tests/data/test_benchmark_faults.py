"""What damaged or hostile files of benchmarks hold is a reason in one line, not a crash."""

from __future__ import annotations

import csv
import json
import multiprocessing
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from benchmark_files import parquet

from entropy_vision.data.benchmarks import load
from entropy_vision.data.benchmarks import rows as rows_module
from entropy_vision.data.benchmarks.answers import integer
from entropy_vision.data.benchmarks.folder import Folder, Found
from entropy_vision.data.benchmarks.llava import _box
from entropy_vision.data.benchmarks.media import Unfolded, image_bytes
from entropy_vision.data.benchmarks.rows import BadRow, Row, read_json, separated_rows, tsv_rows
from entropy_vision.errors import InputError, UsageError

LONG = "1" * 5000  # Python refuses to read it as an integer


@pytest.mark.parametrize("value", ["--5", "+-5", LONG, "²", "5.0", ""])
def test_a_text_that_is_no_whole_number_is_a_reason(value: str) -> None:
    with pytest.raises(BadRow, match="not a whole number"):
        Row("here", 0, {"n": value}).whole("n")


@pytest.mark.parametrize("value", [f"[{LONG}]", "[" * 200_000, "[1, 2]"])
def test_a_text_that_is_no_list_is_a_reason(value: str) -> None:
    with pytest.raises(BadRow, match="not a list of texts"):
        Row("here", 0, {"options": value}).texts("options")


@pytest.mark.parametrize(
    ("read", "value"),
    [
        (integer, LONG),
        (integer, 10**400),
        (_box, f"[0, 0, {LONG}, 5]"),
        (_box, "[0, 0, Infinity, 5]"),
        (_box, "[false, false, true, true]"),
    ],
)
def test_numbers_beyond_all_bounds_are_no_answers(read: Callable[[Any], object], value: object) -> None:
    with pytest.raises(BadRow):
        read(value)


def test_text_outside_ascii_is_not_base64() -> None:
    with pytest.raises(InputError, match="not base64"):
        image_bytes("é" * 100, "here")


@pytest.mark.parametrize("name", ["x" * 256 + ".mp4", "ü" * 128, "a/" * 2001 + "b", "\ud800.mp4"])
def test_a_name_that_no_file_can_have_is_counted(name: str, tmp_path: Path) -> None:
    row = {"question": "?", "candidates": ["a", "b"], "answer": "a", "start": 0.0, "end": 1.0}
    (tmp_path / "json").mkdir()
    for task in ("action_sequence", "episodic_reasoning"):
        rows = [{**row, "video": name}, {**row, "video": "v.mp4"}]
        (tmp_path / "json" / f"{task}.json").write_text(json.dumps(rows))
    benchmark = load("mvbench", tmp_path)
    assert (len(benchmark), len(benchmark.skipped)) == (2, 2)
    reason = "is no text" if "\ud800" in name else "too long for a file"
    assert all(reason in one.reason for one in benchmark.skipped)
    assert len(benchmark.missing()) == 2
    assert Folder(tmp_path).locate([name]) is None


@pytest.mark.parametrize("end", ["Infinity", "NaN", "1" + "0" * 400, "-1.0", '"5"'])
def test_an_end_that_is_no_time_is_counted(end: str, tmp_path: Path) -> None:
    text = '[{"video": "v.mp4", "question": "?", "candidates": ["a", "b"], "answer": "a", "start": 0.0, "end": %s}]'
    (tmp_path / "json").mkdir()
    (tmp_path / "json" / "action_sequence.json").write_text(text % end)
    benchmark = load("mvbench", tmp_path)
    assert not len(benchmark) and "needs seconds" in benchmark.skipped[0].reason


def _table(folder: Path, size: int) -> Found:
    lines = ["index\tquestion\tanswer\timage", *(f"{i}\t?\tyes\t{'A' * size}" for i in range(3))]
    (folder / "set.tsv").write_text("\n".join(lines) + "\n")
    return Folder(folder).file("set.tsv")


def test_readers_of_tables_that_take_turns_read_long_fields(tmp_path: Path) -> None:
    limit, file = csv.field_size_limit(), _table(tmp_path, 200_000)
    one, two = (tsv_rows([file], ("index",)) for _ in range(2))
    rows = [next(one), next(two), *one, *two]
    assert [row.values["index"] for row in rows] == ["0", "0", "1", "2", "1", "2"]
    assert csv.field_size_limit() == limit
    assert len(rows[-1].pictures["image"].read()[0]) == 150_000


def test_a_field_that_is_too_long_is_an_error_with_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = _table(tmp_path, 2000)
    *_, last = tsv_rows([file], ("index",))
    monkeypatch.setattr(rows_module, "_LONGEST", 1000)
    with pytest.raises(InputError, match=r"set\.tsv: row 2 cannot be read \(field larger"):
        last.pictures["image"].read()
    with pytest.raises(UsageError, match=r"set\.tsv cannot be read as a table \(field larger"):
        list(tsv_rows([file], ("index",)))
    (tmp_path / "test.csv").write_text(f"video,question\n1,{'x' * 200_000}\n")
    with pytest.raises(UsageError, match=r"test\.csv cannot be read as a table \(field larger"):
        list(separated_rows(Folder(tmp_path), ("test.csv",), ("video",)))


def _zipped(folder: Path, damage: bool) -> Path:
    path = folder / "files.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.json", json.dumps(list(range(5000))))
    content = bytearray(path.read_bytes())
    if damage:
        content[60:400] = bytes(byte ^ 0xFF for byte in content[60:400])
    else:
        content[6] |= 1  # says that the member has a password, as the directory at the end does
        content[content.rindex(b"PK\1\2") + 8] |= 1
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("damage", [True, False])
def test_a_member_of_a_zip_that_cannot_be_read_is_damaged(damage: bool, tmp_path: Path) -> None:
    found = Folder(_zipped(tmp_path, damage)).locate(["a.json"])
    assert found is not None
    with pytest.raises(InputError, match="the zip cannot give it"):
        found.read()
    with pytest.raises(InputError, match="the zip cannot give it"), found.local():
        pass


def test_a_forked_reader_leaves_the_place_in_a_zip_that_its_parent_reads_from(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "files.zip", "w") as archive:
        for name in "ab":
            archive.writestr(name, name.encode() * 100_000)
    folder = Folder(tmp_path)
    first, second = folder.locate(["a"]), folder.locate(["b"])
    assert first is not None and second is not None and first.read() == b"a" * 100_000
    file = folder.archive(first.path).fp
    assert file is not None
    before = os.lseek(file.fileno(), 0, os.SEEK_CUR)
    child = multiprocessing.get_context("fork").Process(target=_read_or_die, args=(second,))
    child.start()
    child.join()
    assert child.exitcode == 0
    assert os.lseek(file.fileno(), 0, os.SEEK_CUR) == before


def _read_or_die(found: Found) -> None:
    assert found.read() == b"b" * 100_000


def test_json_without_end_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("[" * 200_000)
    with pytest.raises(UsageError, match="cannot be read as JSON"):
        read_json(Folder(tmp_path).file("a.json"))


@pytest.mark.parametrize("name", ["a**b", "../beside", "[ab]"])
def test_a_folder_of_frames_is_found_by_its_name_alone(name: str, tmp_path: Path) -> None:
    for folder in ("beside", "home/a"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "0.jpg").write_bytes(b"")
    assert Unfolded(Folder(tmp_path / "home"), (name,), 3.0).missing()
    assert not Unfolded(Folder(tmp_path / "home"), ("a",), 3.0).missing()


def test_a_record_without_its_label_is_skipped(tmp_path: Path) -> None:
    right = {"identifier": "dev-0-0-0", "sentence": "so", "label": "True"}
    lines = [right, {"identifier": "dev-0-0-1", "sentence": "so"}]
    (tmp_path / "dev.json").write_text("\n".join(map(json.dumps, lines)))
    benchmark = load("nlvr2", tmp_path)
    assert [len(benchmark), [one.reason for one in benchmark.skipped]] == [1, ["label is missing, not a text"]]


def test_a_mark_that_is_a_list_is_skipped(tmp_path: Path) -> None:
    asked = {"question": "so?", "question_type": "predictive", "question_id": 0}
    held = [{**asked, "choices": [{"choice": "a", "answer": ["correct"]}]}]
    held.append({**asked, "question_id": 1, "choices": [{"choice": "a", "answer": "correct"}]})
    (tmp_path / "validation.json").write_text(json.dumps([{"video_filename": "video_².mp4", "questions": held}]))
    benchmark = load("clevrer", tmp_path)
    assert [len(benchmark), len(benchmark.skipped)] == [1, 1]


def test_a_picture_without_its_name_is_nobodys(tmp_path: Path) -> None:
    for folder in ("testdev_balanced_images", "testdev_balanced_instructions"):
        (tmp_path / folder).mkdir()
    parquet(tmp_path / "testdev_balanced_images/0.parquet", [{"id": None, "image": b""}, {"id": "1", "image": b""}])
    asked = {"id": "q", "imageId": "1", "question": "so?", "answer": "yes"}
    parquet(tmp_path / "testdev_balanced_instructions/0.parquet", [asked])
    assert len(load("gqa", tmp_path)) == 1


def test_a_size_that_is_none_is_told_when_files_are_loaded(tmp_path: Path) -> None:
    turns = [{"from": "human", "value": "q"}, {"from": "gpt", "value": "yes"}]
    (tmp_path / "set.jsonl").write_text("{broken\n" + json.dumps({"image": "a.png", "conversations": turns}) + "\n")
    task = f"llava:{tmp_path / 'set.jsonl'}"
    benchmark = load(task)
    assert [row.reason for row in benchmark.skipped] == ["it is no JSON object"]
    assert repr(benchmark) == "Benchmark('llava', 'set.jsonl': 1 questions, 1 rows skipped)"
    for size in ("x", 0, -5, 20_000):
        with pytest.raises(UsageError, match="size must be"):
            load(task, size=size)
    for score in (float("nan"), 1.5, -0.1):
        with pytest.raises(UsageError, match="scores of 0 to 1"):
            benchmark.aggregate([score])
