"""Question files as scenes: what shares a picture is one, and what is held out shares none with what is learned."""

from __future__ import annotations

import json
import tarfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from benchmark_files import b64, cell, clevr, parquet, picture, tsv
from benchmark_files import webdataset as tar_file
from media import write
from PIL import Image
from question_sets import pixels, question_set, turns

from entropy_vision.data.benchmarks import load
from entropy_vision.data.benchmarks.folder import Folder
from entropy_vision.data.benchmarks.media import Unfolded, View
from entropy_vision.data.benchmarks.scenes import FileScenes, Group, apart_from, group_scenes, hold_out, read_questions
from entropy_vision.errors import UsageError
from entropy_vision.question_files import read_asked
from entropy_vision.sampling import Sampling
from entropy_vision.visuals import FITS


def _groups(*tasks: str) -> list[Group]:
    return group_scenes(read_questions(tasks)[0])


def _names(groups: Sequence[Group]) -> set[str]:
    return {group[0].scene for group in groups}


def test_questions_about_one_picture_are_one_scene_whichever_file_asks_them(tmp_path: Path) -> None:
    task = question_set(tmp_path, images=3)
    (tmp_path / "more.jsonl").write_text(json.dumps(turns("image", "1.png", "red", 1)) + "\n")
    groups = _groups(task, f"llava:{tmp_path / 'more.jsonl'}")
    assert [len(group) for group in groups] == [2, 4, 2]
    scenes = FileScenes(groups, View(size=32))
    assert len(scenes) == 3 and scenes.frames(1).size == (32, 32)
    assert scenes.sources(1) == (str(tmp_path / "1.png"), str(tmp_path / "images" / "1.png"))


def test_what_is_held_out_is_whole_scenes_by_lot_and_always_the_same(tmp_path: Path) -> None:
    groups = _groups(question_set(tmp_path, images=40))
    train, held = hold_out(groups, 0.25, seed=0)
    assert len(held) == 10 and not _names(train) & _names(held) and len(train) == 30
    assert _names(hold_out(groups, 0.25, seed=0)[1]) == _names(held)
    assert _names(hold_out(groups, 0.25, seed=1)[1]) != _names(held)
    assert [g for g in groups if g in train] == train  # in the order of the file
    assert len(hold_out(groups, 1e-6, seed=0)[1]) == 1


def test_rows_that_are_added_leave_most_sides_as_they_are(tmp_path: Path) -> None:
    before = _names(hold_out(_groups(question_set(tmp_path, images=40)), 0.25, seed=0)[1])
    after = _names(hold_out(_groups(question_set(tmp_path, images=44)), 0.25, seed=0)[1])
    assert len(after) == 11 and len(before & after) >= 8


def test_parts_of_a_video_and_pairs_that_share_a_picture_are_on_one_side(tmp_path: Path) -> None:
    for name in "abcdef":
        picture(tmp_path / f"{name}.png")
    pairs = [["a.png", "b.png"], ["b.png", "c.png"], ["d.png"], ["e.png"], ["f.png"]]
    rows = [{**turns("image", "", "red", i), "image": names} for i, names in enumerate(pairs)]
    (tmp_path / "talk.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    groups = _groups(f"llava:{tmp_path / 'talk.jsonl'}")
    for seed in range(12):
        train, held = hold_out(groups, 0.4, seed=seed)
        seen = {name for group in train for name in group[0].medium.files}
        assert seen.isdisjoint(name for group in held for name in group[0].medium.files)
    together = [g for g in groups if len(g[0].medium.files) == 2]
    assert apart_from(groups, together[:1]) == [g for g in groups if g not in together]


def test_a_file_of_its_own_to_be_measured_on_takes_its_pictures_out_of_training(tmp_path: Path) -> None:
    sizes = {"share": 0.1, "seed": 0, "image_size": 32, "video_size": 32, "frame_count": 4}
    task = question_set(tmp_path, images=5, videos=1)
    (tmp_path / "val.jsonl").write_text(json.dumps(turns("image", "1.png", "red", 1)) + "\n")
    asked = read_asked([task], [f"llava:{tmp_path / 'val.jsonl'}"], **sizes)
    assert {m: len(some) for m, some in asked.train.items()} == {"image": 4, "video": 1}
    assert {m: len(some) for m, some in asked.val.items()} == {"image": 1}
    with pytest.raises(UsageError, match=r"no scene .* all are in eval\.questions too"):
        read_asked([task], [task], **sizes)
    assert asked.train["video"].frames(0).count == 4


def test_a_split_is_named_behind_the_benchmark(tmp_path: Path) -> None:
    folder = clevr(tmp_path, "")
    assert load(f"clevr/val:{folder}").split == load(f"clevr:{folder}").split == "val"
    with pytest.raises(UsageError, match="no split 'tran'"):
        load(f"clevr/tran:{folder}")
    with pytest.raises(UsageError, match=r"llava has no splits.*write llava:"):
        load(f"llava/train:{question_set(tmp_path).partition(':')[2]}")
    with pytest.raises(UsageError, match="clever/val"):
        load(f"clever/val:{folder}")


def test_a_bare_answer_may_stand_behind_thoughts(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    row = turns("image", "a.png", "red", 0)
    row["conversations"][1]["value"] = "<think> the bars of it all look very red to me </think> red"
    (tmp_path / "talk.jsonl").write_text(json.dumps(row))
    ((question, *_), *_) = _groups(f"llava:{tmp_path / 'talk.jsonl'}")
    assert (question.rationale, question.answer.value) == ("the bars of it all look very red to me", "red")


def test_thoughts_before_an_answer_are_its_rationale(tmp_path: Path) -> None:
    asked = load(question_set(tmp_path / "llava", images=1))
    assert [(q.rationale, q.answer.value) for q in asked.questions] == [("it looks red", "red"), ("", True)]
    assert asked[0].rationale == "it looks red"
    row = {"problem": "How many?", "problem_type": "numerical", "data_type": "image", "path": "a.png", "options": []}
    told = {"solution": "<answer>2</answer>", "process": "<think>One and one.</think>"}
    (tmp_path / "r1.json").write_text(json.dumps([{**row, **told}, {**row, "solution": "<answer>3</answer>"}]))
    assert [q.rationale for q in load(f"video-r1:{tmp_path / 'r1.json'}").questions] == ["One and one.", ""]
    assert [q.rationale for q in load(f"webdataset:{tar_file(tmp_path, '')}").questions] == ["", ""]


def test_a_picture_is_one_scene_however_its_folder_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = {"share": 0.1, "seed": 0, "image_size": 32, "video_size": 32, "frame_count": 4}
    question_set(tmp_path / "set", images=4, videos=1)
    (tmp_path / "link").symlink_to(tmp_path / "set")
    (tmp_path / "set" / "2.png").rename(tmp_path / "2.png")
    (tmp_path / "set" / "2.png").symlink_to("../2.png")
    rows = [turns("image", "1.png", "red", 1), turns("video", "4.mp4", "red", 4), turns("image", "2.png", "red", 2)]
    (tmp_path / "set" / "val.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.chdir(tmp_path)
    for spelled in ("set", str(tmp_path / "set"), "set/../link", str(tmp_path / "link")):
        asked = read_asked(["llava:set/talk.jsonl"], [f"llava:{spelled}/val.jsonl"], **sizes)
        assert {m: len(some) for m, some in asked.train.items()} == {"image": 2}
        assert len(_groups("llava:set/talk.jsonl", f"llava:{spelled}/val.jsonl")) == 5


def test_a_member_of_a_zip_is_one_scene_whoever_names_the_zip(tmp_path: Path) -> None:
    tar = tar_file(tmp_path, "")
    (tmp_path / "link").symlink_to(tmp_path)
    other = tmp_path / "link" / tar.relative_to(tmp_path)
    assert apart_from(_groups(f"webdataset:{tar}"), _groups(f"webdataset:{other}")) == []
    nested = tmp_path / "zipped"
    question_set(nested, images=2)
    with zipfile.ZipFile(nested / "images.zip", "w") as archive:
        for i in range(2):
            archive.write(nested / f"{i}.png", f"images/{i}.png")
            (nested / f"{i}.png").unlink()
    one, two = (_groups(f"llava:{tmp_path / way / 'zipped' / 'talk.jsonl'}") for way in ("", "link"))
    assert len(one) == 2 and one[0][0].medium.frames(View(size=8)).count == 1 and apart_from(one, two) == []


def test_a_file_that_is_asked_about_as_a_picture_and_as_a_video_is_on_one_side(tmp_path: Path) -> None:
    rows = []
    for i in range(12):
        frames = [Image.fromarray(pixels("red", 10 * i + k)[0]) for k in range(3)]
        frames[0].save(tmp_path / f"{i}.gif", save_all=True, append_images=frames[1:])
        rows += [turns(kind, f"{i}.gif", "red", i) for kind in ("image", "video")]
    (tmp_path / "talk.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    sizes = {"image_size": 32, "video_size": 32, "frame_count": 4}
    for seed in range(4):
        asked = read_asked([f"llava:{tmp_path / 'talk.jsonl'}"], [], share=0.3, seed=seed, **sizes)
        learned, held = (
            {name for scenes in side.values() for i in range(len(scenes)) for name in scenes.sources(i)}
            for side in (asked.train, asked.val)
        )
        assert learned and held and not learned & held


def test_images_of_an_unfolded_video_are_its_files(tmp_path: Path) -> None:
    for i in range(3):
        picture(tmp_path / "walk" / f"{i}.png")
    files = Unfolded(Folder(tmp_path), ("walk",), 3.0).files
    assert set(files) == {str(tmp_path / "walk"), *(str(tmp_path / "walk" / f"{i}.png") for i in range(3))}
    assert Unfolded(Folder(tmp_path), ("run",), 3.0).files == (str(tmp_path / "run"),)


def test_a_video_in_a_tar_is_shown_as_the_file_would_be(tmp_path: Path) -> None:
    """In every way to bring a wide one to a square."""
    task = question_set(tmp_path, images=0, videos=1)
    wide = pixels("blue", 3, frames=5, side=96)[:, :48]
    wide[:, :, :24] = 0
    write(tmp_path / "0.mp4", wide, fps=4)
    with tarfile.open(tmp_path / "set.tar", "w") as archive:
        archive.add(tmp_path / "0.mp4", "0.mp4")
        held = tmp_path / "0.json"
        held.write_text(json.dumps({"question": "Which?", "answer": "B", "options": ["red", "blue"]}))
        archive.add(held, "0.json")
    for fit in FITS:
        view = View(size=(32, 32), sampling=Sampling(frames=4), fit=fit)
        tar, file = (FileScenes(_groups(one), view).frames(0) for one in (f"webdataset:{tmp_path / 'set.tar'}", task))
        assert tar.size == (32, 32) and np.array_equal(tar.pixels, file.pixels), fit


def test_rows_of_a_table_that_hold_one_picture_are_one_scene(tmp_path: Path) -> None:
    """In a TSV a row may hold the picture again or name the row that does."""
    ask = {"question": "How many?", "A": "two", "B": "three", "answer": "B"}
    cells = [b64(1), b64(2), "0", b64(1), "1", b64(3), "0"]
    tsv(tmp_path / "Set.tsv", [{"index": i, "image": held, **ask} for i, held in enumerate(cells)])
    ask = {"type": "2D", "task": "Count", "choices": ["1", "3"], "source": "COCO", "answer": "(B)"}
    ask |= {"question": "How many?", "prompt": "How many?"}
    for name, shown in (("train", (1, 2, 1, 3, 2, None)), ("test", (2, 4, None))):
        rows = [{"idx": i, "image": None if one is None else cell(one), **ask} for i, one in enumerate(shown)]
        parquet(tmp_path / name / "test.parquet", rows)
    table, learned, measured = (
        f"vlmevalkit:{tmp_path / 'Set.tsv'}",
        *(f"cv-bench:{tmp_path / n}" for n in ("train", "test")),
    )
    assert [len(group) for group in _groups(table)] == [4, 2, 1]
    assert [len(group) for group in _groups(learned)] == [2, 2, 1, 1]
    assert [len(group) for group in _groups(table, learned)] == [6, 4, 2, 1]
    apart = apart_from(_groups(learned), _groups(measured))
    assert [[question.key for question in group] for group in apart] == [
        ["cv-bench-test-0", "cv-bench-test-2"],
        ["cv-bench-test-3"],
        ["cv-bench-test-5"],
    ]
