"""Lists of inputs, and the table that a run writes of them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from media import drifting, tree, write
from PIL import Image
from pyarrow import parquet

from entropy_vision.data.files import find_inputs
from entropy_vision.data.lists import read_list
from entropy_vision.data.preprocess import preprocess
from entropy_vision.errors import UsageError

NAMES = ["a.mp4", "sub/b, c.mp4", "/far/ä.mp4"]


def write_list(folder: Path, suffix: str) -> Path:
    """The three names as a list of that kind, in the second column where it has columns."""
    path = folder / f"list{suffix}"
    if suffix == ".txt":
        path.write_text("\ufeff# mine\n" + "\n\n".join(NAMES) + "\n", encoding="utf-8")
    elif suffix == ".csv":
        path.write_text("label,video\n" + "".join(f'1,"{name}"\n' for name in NAMES), encoding="utf-8-sig")
    elif suffix == ".tsv":
        path.write_text("label\tvideo\n" + "".join(f"1\t{name}\n" for name in NAMES), encoding="utf-8")
    elif suffix == ".jsonl":
        path.write_text("".join(json.dumps({"label": 1, "video": name}) + "\n" for name in NAMES))
    else:
        parquet.write_table(pyarrow.table({"label": [1, 2, 3], "video": NAMES}), path)
    return path


@pytest.mark.parametrize("suffix", [".txt", ".csv", ".tsv", ".jsonl", ".parquet"])
def test_every_kind_of_list_names_the_same_files(tmp_path: Path, suffix: str) -> None:
    expected = [tmp_path / "a.mp4", tmp_path / "sub/b, c.mp4", Path("/far/ä.mp4")]
    path = write_list(tmp_path, suffix)
    assert read_list(path) == expected
    assert {Path(one.path) for one in find_inputs([path])} == set(
        expected
    )  # named, so counted, whether or not they are there


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("a.csv", b"label,name\n1,x\n", "has no column path, video, image, file or source: it has"),
        ("b.jsonl", b'{"path": 3}\n', "3 is no path"),
        ("c.jsonl", b'["x.mp4"]\n', "not an object"),
        ("d.jsonl", b"{\n", "cannot be read as a list"),
        ("e.parquet", b"PAR1 no", "cannot be read as a list"),
        ("f.txt", b"\xff\xfe\x00\xd8", "cannot be read as a list"),
        ("g.csv", b'path\n"x\n', "cannot be read as a list"),
    ],
)
def test_a_bad_list_is_one_line(tmp_path: Path, name: str, content: bytes, why: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError, match=why) as told:
        find_inputs([tmp_path / name])
    assert "\n" not in str(told.value) and name in str(told.value)


def test_a_folder_that_cannot_be_listed_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever may read everything has no such folder, so the machine's word is made."""
    (tmp_path / "in" / "sub").mkdir(parents=True)
    Image.fromarray(drifting(1)[0]).save(tmp_path / "in" / "one.png")
    scan = os.scandir

    def refused(path: str) -> Any:
        if str(path).endswith("sub"):
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refused)
    with pytest.raises(UsageError, match=r"in/sub cannot be listed \(Permission denied\)"):
        find_inputs([tmp_path / "in"])


def test_a_pattern_does_not_take_what_the_run_has_written(tmp_path: Path) -> None:
    Image.fromarray(drifting(1)[0]).save(tmp_path / "one.png")
    settings = {"size": 32, "selector": "uniform"}
    for _ in range(2):
        assert preprocess([f"{tmp_path}/**"], tmp_path / "out", **settings)["inputs"] == 1


def test_a_name_may_hold_what_separates_lines_elsewhere(tmp_path: Path) -> None:
    for name in ("a\u2028b.png", "c\x85d.png"):
        Image.fromarray(drifting(1)[0]).save(tmp_path / name)
    (tmp_path / "list.txt").write_text("a\u2028b.png\nc\x85d.png\n")
    (tmp_path / "list.jsonl").write_text('{"path": "a\u2028b.png"}\n{"path": "c\x85d.png"}\n')
    for name in ("list.txt", "list.jsonl"):
        assert all(one.size > 0 for one in find_inputs([tmp_path / name]))


def test_a_run_writes_a_row_for_every_input_and_its_table_is_a_list(tmp_path: Path) -> None:
    write(tmp_path / "one.mp4", drifting(4))
    Image.fromarray(drifting(1)[0]).save(tmp_path / "two.png")
    (tmp_path / "bad.mp4").write_text("no")
    listed = tmp_path / "list.txt"
    listed.write_text("one.mp4\ntwo.png\nbad.mp4\ngone.mp4\n")
    settings = {"size": 64, "selector": "uniform", "max_bad": 3, "shard_samples": 3}
    result = preprocess([listed], tmp_path / "out", **settings)
    rows = parquet.read_table(tmp_path / "out" / "inputs").sort_by("source").to_pylist()
    assert [Path(row["source"]).name for row in rows] == ["bad.mp4", "gone.mp4", "one.mp4", "two.png"]
    assert [row["status"] for row in rows] == ["failed", "failed", "done", "done"]
    assert [row["reason"] for row in rows[:2]] == ["not_media", "missing"] and all(row["detail"] for row in rows[:2])
    assert [row["shard"] for row in rows] == ["", "", "shard-000000.tar", "shard-000001.tar"]
    assert sum(row["tokens_kept"] for row in rows) == result["tokens_kept"]
    before = tree(tmp_path / "out")
    again = preprocess([tmp_path / "out" / "inputs" / "000000.parquet", listed], tmp_path / "out", **settings)
    assert (again["inputs"], again["written"], again["resumed"], again["failed"]) == (4, 0, 2, 2)
    assert tree(tmp_path / "out") == before
