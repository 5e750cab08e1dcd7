"""What must come of the small files of every benchmark: counts, the prompt to the letter, the answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import benchmark_files as files


@dataclass(frozen=True)
class Case:
    """What a fixture holds and what must come of it.

    Attributes:
        write: writes the files into a folder, without one column where it is named, and gives what `load` takes.
        prompt: of the first question, to the letter.
        answer: (kind, value) of the first question.
        frames: of the first item, where videos are read with 3 frames.
        table: what holds the questions.
        column: one without which the table does not.
        media: a file that the first question needs; "" where pictures are in the table.
        profile: the name `verify` is called with.
        rows: written, the broken ones included.
        broken: how many are.
        kinds: of all answers, where they are not all of the first one's.
    """

    name: str
    write: Callable[[Path, str], Path]
    prompt: str
    answer: tuple[str, Any]
    table: str
    column: str
    profile: str
    media: str = ""
    frames: int = 1
    rows: int = 3
    broken: int = 1
    kinds: tuple[str, ...] = ()
    split: str | None = None


_NOTE = "Note: You only need to respond with {} without providing any additional information.\n"
_DIRECTLY = "Answer with the option's letter from the given choices directly."
_WORD = "\nAnswer the question using a single word or phrase."
_R1 = (
    "\nPlease think about this question as if you were a human pondering deeply. "
    "Engage in an internal dialogue using expressions such as 'let me think', 'wait', 'Hmm', 'oh, I see', "
    "'let's break it down', etc, or other natural language thought expressions "
    "It's encouraged to include self-reflection or verification in the reasoning process. "
    "Provide your detailed reasoning between the <think> </think> tags, and then give your final answer between the "
    "<answer> </answer> tags. Please provide only the single option letter (e.g., A, B, C, D, etc.) within the "
    "<answer> </answer> tags."
)
_SAT = (
    "How did the camera move?\nWhen multiple images are provided, You want to realize that when camera moves left, the "
    "objects in the image move right, and vice versa. And when you are asked about the movement of the same object "
    "captured in different images, you can compare the position of the object relative to other objects in the image "
    "to answer the question.\n\nA. left\nB. right\n\nOnly output the letter of the correct option and nothing else."
)

CASES = (
    Case(
        "vsi-bench",
        files.vsi,
        f"These are frames of a video.\nWhich is closest?\nOptions:\nA. sofa\nB. bin\n{_DIRECTLY}",
        ("choice", "B"),
        "test.jsonl",
        "question_type",
        "official:vsi-bench",
        media="scannet/scene0.mp4",
        frames=3,
        rows=4,
        kinds=("choice", "number", "number"),
    ),
    Case(
        "vsi-bench",
        files.vsi,
        f"These are frames of a video.\nWhich is closest?\nOptions:\nA. sofa\nB. bin\n{_DIRECTLY}",
        ("choice", "B"),
        "test_debiased.parquet",
        "ground_truth",
        "official:vsi-bench",
        media="scannet/scene0.mp4",
        frames=3,
        split="debiased",
        kinds=("choice", "number"),
    ),
    Case(
        "cv-bench",
        files.cv,
        _NOTE.format("A, B") + "\nHow many? Select from the following choices.\n(A) 1\n(B) 3",
        ("choice", "B"),
        "test.parquet",
        "source",
        "official:cv-bench",
    ),
    Case(
        "blink",
        files.blink,
        _NOTE.format("A, B, C") + "Same?\nSelect from the following options.\n(A) first\n(B) second\n(C) third",
        ("choice", "C"),
        "Jigsaw/val-00000-of-00001.parquet",
        "prompt",
        "official:blink",
        frames=2,
    ),
    Case("sat", files.sat, _SAT, ("choice", "B"), "SAT_test.parquet", "image_bytes", "official:sat", frames=2),
    Case(
        "clevr",
        files.clevr,
        f"How many cubes are there?{_WORD}",
        ("integer", 3),
        "questions/CLEVR_val_questions.json",
        "answer",
        "official:clevr",
        media="images/val/CLEVR_val_000000.png",
        kinds=("integer", "yesno"),
    ),
    Case(
        "super-clevr",
        files.super_clevr,
        f"How many buses?{_WORD}",
        ("integer", 2),
        "superCLEVR_questions_30k.json",
        "image_filename",
        "official:super-clevr",
        media="images/superCLEVR_new_025000.png",
        kinds=("integer", "yesno"),
    ),
    Case(
        "clevrer",
        files.clevrer,
        "Which is responsible?\nA. The cube's entering\nB. The ball's presence\nC. A collision\n"
        "Answer with the letters of all correct options, or none.",
        ("set", {"A", "C"}),
        "validation.json",
        "question_type",
        "official:clevrer-option",
        media="video_validation/video_10000-11000/video_10000.mp4",
        frames=3,
        kinds=("set", "exact"),
    ),
    Case(
        "tallyqa",
        files.tallyqa,
        "How many dogs?\nAnswer with a single number.",
        ("integer", 4),
        "test.json",
        "issimple",
        "official:tallyqa",
        media="VG_100K_2/1.jpg",
    ),
    Case(
        "nlvr",
        files.nlvr,
        "There is a yellow block.\nIs this sentence true of the image? Answer true or false.",
        ("yesno", True),
        "nlvr/dev/dev.json",
        "structured_rep",
        "official:nlvr",
        media="nlvr/dev/images/5/dev-12-0-0.png",
        rows=18,
        broken=6,
    ),
    Case(
        "nlvr2",
        files.nlvr2,
        "There is a cup.\nIs this sentence true of the two images, the left one first? Answer true or false.",
        ("yesno", False),
        "data/dev.json",
        "label",
        "official:nlvr2",
        media="dev/dev-850-0-img1.png",
        frames=2,
    ),
    Case(
        "gqa",
        files.gqa,
        f"What is it?{_WORD}",
        ("exact", "cup"),
        "testdev_balanced_instructions/testdev-00000-of-00001.parquet",
        "imageId",
        "official:gqa",
        kinds=("exact", "yesno"),
    ),
    Case(
        "mvbench",
        files.mvbench,
        "Question:What happens?\nOption:\n(A) opens\n(B) closes\n(C) falls\nOnly give the best option.\n",
        ("choice", "B"),
        "json/moving_count.json",
        "candidates",
        "official:mvbench",
        media="video/clevrer/video_validation/a.mp4",
        frames=3,
    ),
    Case(
        "video-mme",
        files.video_mme,
        "Select the best answer to the following multiple-choice question based on the video and the subtitles. "
        "Respond with only the letter (A, B, C, or D) of the correct option.\nWhich?\nA. Apples.\nB. Candles.\n"
        f"C. Berries.\nD. The three kinds are of the same number.\n\n{_DIRECTLY}",
        ("choice", "C"),
        "videomme/test-00000-of-00001.parquet",
        "task_type",
        "official:video-mme",
        media="data/abc.mp4",
        frames=3,
    ),
    Case(
        "tempcompass",
        files.tempcompass,
        "What is it doing?\nA. flying\nB. diving\nPlease directly give the best option:",
        ("choice", "B"),
        "questions/multi-choice.json",
        "answer",
        "official:tempcompass",
        media="videos/7.mp4",
        frames=3,
        rows=4,
        kinds=("choice", "yesno", "choice"),
    ),
    Case(
        "perception-test",
        files.perception,
        f"Is it stable?\nA. moving\nB. still\nC. neither\n{_DIRECTLY}",
        ("choice", "B"),
        "mc_question_val/validation-00000-of-00001.parquet",
        "answer_id",
        "official:perception-test",
        media="videos/video_1.mp4",
        frames=3,
    ),
    Case(
        "next-qa",
        files.next_qa,
        "why does she sit\nA. tired\nB. hungry\nC. cold\nD. happy\nE. to rest",
        ("choice", "E"),
        "MC/test-00000-of-00001.parquet",
        "a4",
        "official:next-qa",
        media="NExTVideo/4010069381.mp4",
        frames=3,
    ),
    Case(
        "vstar",
        files.vstar,
        f"What color is the glove?\nA. red\nB. blue\n{_DIRECTLY}\n{_DIRECTLY}",
        ("choice", "B"),
        "test-00000-of-00001.parquet",
        "category",
        "official:vstar",
    ),
    Case(
        "hr-bench",
        files.hr_bench,
        "Which color?\nA. red\nB. blue\nC. grey\nD. pink\nAnswer the option letter directly.",
        ("choice", "D"),
        "hr_bench_4k.parquet",
        "cycle_category",
        "official:hr-bench",
    ),
    Case(
        "geometry3k",
        files.geometry3k,
        f"Find x.\nA. 3\nB. 4\nC. 5\nD. 6\n{_DIRECTLY}",
        ("choice", "C"),
        "data/test-00000-of-00001.parquet",
        "images",
        "official:geometry3k",
    ),
    Case(
        "vlmevalkit",
        files.vlmevalkit,
        'Hint: Count.\nQuestion: Which "one"?\nLook closely.\nOptions:\nA. two\nB. three\n'
        "Please select the correct answer from the options above. \n",
        ("choice", "B"),
        "Set.tsv",
        "question",
        "robust",
    ),
    Case(
        "llava",
        files.llava,
        "What is it?\nA. A cup\nB. A lamp\nAnswer with the letter.",
        ("choice", "B"),
        "talk.jsonl",
        "conversations",
        "robust",
        media="a.mp4",
        frames=3,
        kinds=("choice", "yesno"),
    ),
    Case(
        "video-r1",
        files.video_r1,
        f"What moves?Options:\nA. cube\nB. ball\n{_R1}",
        ("choice", "A"),
        "Video-R1.json",
        "solution",
        "robust",
        media="CLEVRER/a.mp4",
        frames=3,
        kinds=("choice", "number"),
    ),
    Case(
        "webdataset",
        files.webdataset,
        "Which?\nA. red\nB. blue",
        ("choice", "B"),
        "set.tar",
        "question",
        "robust",
        kinds=("choice", "integer"),
    ),
)
