"""What is particular to one form of benchmark files: TSVs, conversations, cut videos, the authors' own files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from benchmark_cases import CASES
from benchmark_files import b64, parquet, picture, tsv, video
from media import numbered, write
from PIL import Image

from entropy_vision.data.benchmarks import load
from entropy_vision.errors import InputError, UsageError
from entropy_vision.frames import read_image


@pytest.mark.parametrize(
    ("told", "answer"),
    [
        ("B", ("choice", "B")),
        ("(B)", ("choice", "B")),
        ("B. lamp.", ("choice", "B")),
        ("A cup.", ("choice", "A")),  # an article, not a letter
        ("<think>so</think><answer>B</answer>", ("choice", "B")),
        ("<think> so\nit is </think> B", ("choice", "B")),
        ("<think>so</think><answer>B", None),
        ("<think>so B", None),
        ("<think>so</think>", None),
        ("B. A cup", None),  # a letter and the other's text
        ("D", None),
        ("", None),
    ],
)
def test_a_turn_with_options_is_a_choice_or_no_question(
    told: str, answer: tuple[str, str] | None, tmp_path: Path
) -> None:
    said = [{"from": "human", "value": "<image>What?\nA. A cup\nB. lamp\n"}, {"from": "gpt", "value": told}]
    (tmp_path / "t.json").write_text(json.dumps([{"image": ["a.png"], "conversations": said}]))
    benchmark = load("llava", tmp_path / "t.json")
    found = [(question.answer.kind, question.answer.value) for question in benchmark.questions]
    assert found == ([] if answer is None else [answer]) and benchmark.rows == 1


@pytest.mark.parametrize(
    ("told", "answer"),
    [
        ("No.", ("yesno", False)),
        ("12", ("integer", 12)),
        ("0.5", ("number", 0.5)),
        ("[1, 2, 30, 40]", ("box", (1.0, 2.0, 30.0, 40.0))),
        ("[1, 2, 1, 40]", None),
        ("red car", ("exact", "red car")),
        ("It is a red car that stands in front of a house.", None),
    ],
)
def test_a_turn_without_options_is_what_it_is(told: str, answer: tuple[str, object] | None, tmp_path: Path) -> None:
    said = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": told}]
    (tmp_path / "t.jsonl").write_text(json.dumps({"image": "a.png", "conversations": said}) + "\nno json\n")
    benchmark = load("llava", tmp_path / "t.jsonl")
    found = [(question.answer.kind, question.answer.value) for question in benchmark.questions]
    assert found == ([] if answer is None else [answer]) and benchmark.rows == 2


def test_real_conversations_are_questions_whose_videos_are_missing(shared_data: Path) -> None:
    benchmark = load(f"llava:{shared_data / 'qa' / 'onevision_samples.json'}")
    assert (len(benchmark), benchmark.skipped, len(benchmark.missing())) == (10, [], 2)
    assert all(question.answer.kind == "choice" for question in benchmark.questions)
    with pytest.raises(InputError, match=r"ytb_YVQwAEKZpaU\.mp4"):
        benchmark[0]


def test_next_qa_reads_the_authors_csv(tmp_path: Path) -> None:
    names = "video,frame_count,width,height,question,answer,qid,type,a0,a1,a2,a3,a4"
    row = '4010069381,369,640,480,"how do they sit, and why",1,6,CH,"at rest","on a bench",c,d,e'
    (tmp_path / "val.csv").write_text(f"{names}\n{row}\n{row.replace(',1,6,', ',9,6,')}\n")
    benchmark = load("next-qa", tmp_path, "val")
    assert (len(benchmark), benchmark.rows, benchmark.questions[0].answer.value) == (1, 2, "B")
    assert benchmark.questions[0].text == "how do they sit, and why\nA. at rest\nB. on a bench\nC. c\nD. d\nE. e"
    assert benchmark.missing() == [f"{tmp_path}/NExTVideo/4010069381.mp4"]
    (tmp_path / "map_vid_vidorID.json").write_text(json.dumps({"4010069381": "1164/4010069381"}))
    video(tmp_path / "NExTVideo" / "1164" / "4010069381.mp4")
    assert load("next-qa", tmp_path, "val", frames=2)[0].frames.count == 2
    (tmp_path / "val.csv").write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match="cannot be read as a table"):
        load("next-qa", tmp_path, "val")


def test_gqa_reads_the_published_questions(tmp_path: Path) -> None:
    held = {"201": {"question": "Is it red?", "imageId": "n7", "answer": "no", "types": {"structural": "verify"}}}
    (tmp_path / "testdev_balanced_questions.json").write_text(json.dumps(held))
    picture(tmp_path / "images" / "n7.jpg")
    benchmark = load("gqa", tmp_path, size=32)
    assert benchmark[0].frames.count == 1 and benchmark.questions[0].key == "gqa-testdev_balanced-201"
    assert benchmark.aggregate([1.0]) == {"overall": 1.0, "verify": 1.0}


def test_tempcompass_reads_lines_with_a_space_too_few_or_many(tmp_path: Path) -> None:
    (tmp_path / "questions").mkdir()
    asked = {"question": "Which?\nA. dancing\nB.Both\n C. none", "answer": "B.Both"}
    (tmp_path / "questions" / "multi-choice.json").write_text(json.dumps({"7": {"order": [asked]}}))
    question = load("tempcompass", tmp_path).questions[0]
    assert question.answer.options == ("dancing", "Both", "none") and question.answer.value == "B"
    assert question.text.startswith(asked["question"])


def test_tempcompass_reads_tables_too(tmp_path: Path) -> None:
    rows = [{"video_id": "7", "question": "Is it fast?", "answer": "no", "dim": "speed"}]
    parquet(tmp_path / "yes_no" / "test-00000-of-00001.parquet", rows)
    benchmark = load("tempcompass", tmp_path)
    assert benchmark.questions[0].text == "Is it fast?\nPlease answer yes or no:"
    assert benchmark.aggregate([1.0]) == {"overall": 1.0, "yes_no": 1.0, "speed": 1.0}


def test_options_that_are_empty_are_none(tmp_path: Path) -> None:
    row = {
        "index": 0,
        "question": "Which?",
        "answer": "B",
        "category": "single",
        "cycle_category": "1",
        "image": b64(1),
    }
    parquet(tmp_path / "hr_bench_8k.parquet", [{**row, "A": "red", "B": "blue", "C": None, "D": ""}])
    question = load("hr-bench", tmp_path, "8k").questions[0]
    assert question.text == "Which?\nA. red\nB. blue\nAnswer the option letter directly."
    assert question.answer.options == ("red", "blue")
    tsv(tmp_path / "hr_bench_4k.tsv", [{**row, "A": "red", "B": "blue", "C": "nan", "D": ""}])
    assert load("hr-bench", tmp_path, "4k")[0].question == question.text  # the table, as text


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
    (tmp_path / "json" / "action_sequence.json").write_text(json.dumps([{**row, "start": -1.0, "end": 2.0}]))
    assert "start is -1.0" in load("mvbench", tmp_path).skipped[0].reason
    video(tmp_path / "video" / "star" / "Charades_segment" / "v.mp4")
    assert len(load("mvbench", tmp_path)) == 1
