"""Small files of every public benchmark, written from its published schema: two good rows and one that is broken."""

from __future__ import annotations

import base64
import csv
import io
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
from media import drifting, write
from PIL import Image

Rows = list[dict[str, Any]]


def png(seed: int = 0, size: tuple[int, int] = (24, 32)) -> bytes:
    """A small picture as a PNG file."""
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
    held = io.BytesIO()
    Image.fromarray(pixels).save(held, "PNG")
    return held.getvalue()


def cell(seed: int = 0) -> dict[str, Any]:
    """A picture as the `datasets` library keeps it in Parquet."""
    return {"bytes": png(seed), "path": f"{seed}.png"}


def picture(path: Path, seed: int = 0, size: tuple[int, int] = (24, 32)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(png(seed, size))


def video(path: Path, seed: int = 0, frames: int = 6) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write(path, drifting(frames, 32, 48, seed), fps=4)


def parquet(path: Path, rows: Rows, without: str = "") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    kept = [{name: value for name, value in row.items() if name != without} for row in rows]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(kept), path, row_group_size=2)


def as_json(path: Path, held: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(held))


def lines(path: Path, rows: Rows, without: str = "") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(less(row, without)) + "\n" for row in rows))


def less(row: dict[str, Any], without: str) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != without}


def tsv(path: Path, rows: Rows, without: str = "") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    names = [name for name in rows[0] if name != without]
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, names, delimiter="\t", extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)


def b64(seed: int) -> str:
    return base64.b64encode(png(seed)).decode()


def vsi(folder: Path, without: str) -> Path:
    shared = {"dataset": "scannet", "scene_name": "scene0"}
    ask = {"question_type": "object_rel_distance", "question": "Which is closest?", "options": ["A. sofa", "B. bin"]}
    number = {"question_type": "object_counting", "question": "How many chairs?", "options": None}
    rows = [
        {"id": 0, **shared, **ask, "ground_truth": "B", "pruned": False},
        {"id": 1, **shared, **number, "ground_truth": "4", "pruned": False},
        {"id": 2, **shared, **ask, "ground_truth": "E", "pruned": False},
    ]
    parquet(folder / "test_debiased.parquet", rows, without)
    lines(folder / "test.jsonl", [*rows, {"id": 3, **shared, **number, "ground_truth": "2.5", "pruned": True}], without)
    video(folder / "scannet" / "scene0.mp4")
    return folder


def cv(folder: Path, without: str) -> Path:
    shared = {"type": "2D", "task": "Count", "choices": ["1", "3"], "image": cell(1), "source": "COCO"}
    shared |= {"question": "How many?", "prompt": "How many? Select from the following choices.\n(A) 1\n(B) 3"}
    rows = [{"idx": i, **shared, "answer": answer} for i, answer in enumerate(("(B)", "(A)", "(C)"))]
    parquet(folder / "test.parquet", rows, without)
    return folder


def blink(folder: Path, without: str) -> Path:
    shared = {"question": "Same?", "sub_task": "Jigsaw", "choices": ["first", "second", "third"]}
    shared |= {"image_1": cell(1), "image_2": cell(2), "image_3": None, "image_4": None}
    shared |= {"prompt": "Same?\nSelect from the following options.\n(A) first\n(B) second\n(C) third"}
    rows = [{"idx": f"val_Jigsaw_{i}", **shared, "answer": f"({letter})"} for i, letter in enumerate("CAA")]
    rows[2]["choices"] = []
    parquet(folder / "Jigsaw" / "val-00000-of-00001.parquet", rows, without)
    return folder


def sat(folder: Path, without: str) -> Path:
    shared = {"question": "How did the camera move? ", "answers": ["left", "right"], "question_type": "ego_movement"}
    shared |= {"image_bytes": [png(1), png(2)]}
    rows = [{**shared, "correct_answer": answer} for answer in ("right", "left", "up")]
    parquet(folder / "SAT_test.parquet", rows, without)
    return folder


def clevr(folder: Path, without: str) -> Path:
    ask = {"split": "val", "image_index": 0, "image_filename": "CLEVR_val_000000.png"}
    program = [{"function": "scene", "inputs": [], "value_inputs": []}, {"function": "count", "inputs": [0]}]
    questions = [
        {**ask, "question": "How many cubes are there?", "answer": "3", "program": program},
        {**ask, "question": "Is there a cube?", "answer": "yes", "program": [{"type": "exist"}]},
        {**ask, "question": "What is this?", "answer": ""},
    ]
    held = {"info": {"split": "val"}, "questions": [less(one, without) for one in questions]}
    as_json(folder / "questions" / "CLEVR_val_questions.json", held)
    picture(folder / "images" / "val" / "CLEVR_val_000000.png")
    return folder


def super_clevr(folder: Path, without: str) -> Path:
    ask = {"image_filename": "superCLEVR_new_025000.png", "image_index": 25_000}
    questions = [
        {**ask, "question": "How many buses?", "answer": 2},
        {**ask, "question": "Is it red?", "answer": True},
        {**ask, "question": "What is this?", "answer": None},
        {"image_filename": "superCLEVR_new_000007.png", "question": "A training question?", "answer": 1},
    ]
    as_json(folder / "superCLEVR_questions_30k.json", {"questions": [less(one, without) for one in questions]})
    picture(folder / "images" / "superCLEVR_new_025000.png")
    return folder


def clevrer(folder: Path, without: str) -> Path:
    choices = [
        {"choice_id": 0, "choice": "The cube's entering", "program": [], "answer": "correct"},
        {"choice_id": 1, "choice": "The ball's presence", "program": [], "answer": "wrong"},
        {"choice_id": 2, "choice": "A collision", "program": [], "answer": "correct"},
    ]
    why = {"question_id": 1, "question_type": "explanatory", "question": "Which is responsible?", "choices": choices}
    what = {"question_id": 0, "question_type": "descriptive", "question": "What color is it?", "answer": "red"}
    bad = {"question_id": 2, "question_type": "predictive", "question": "What next?", "choices": [{"choice": "x"}]}
    questions = [less(one, without) for one in (why, what, bad)]
    held = [{"scene_index": 10_000, "video_filename": "video_10000.mp4", "questions": questions}]
    as_json(folder / "validation.json", held)
    video(folder / "video_validation" / "video_10000-11000" / "video_10000.mp4")
    return folder


def tallyqa(folder: Path, without: str) -> Path:
    shared = {"image": "VG_100K_2/1.jpg", "image_id": 1, "data_source": "amt", "question": "How many dogs?"}
    rows = [
        {**shared, "answer": 4, "issimple": False, "question_id": 7},
        {**shared, "answer": 0, "issimple": True, "question_id": 8},
        {**shared, "answer": "some", "issimple": True, "question_id": 9},
    ]
    as_json(folder / "test.json", [less(row, without) for row in rows])
    picture(folder / "VG_100K_2" / "1.jpg")
    return folder


def thing(shape: str = "square", color: str = "Yellow", x: int = 40, y: int = 80, size: int = 20) -> dict[str, Any]:
    """One thing of NLVR's structured_rep."""
    return {"type": shape, "color": color, "x_loc": x, "y_loc": y, "size": size}


def draw(path: Path, boxes: Sequence[Sequence[dict[str, Any]]], order: Sequence[int] = (0, 1, 2)) -> None:
    """NLVR's picture of three boxes; all things as squares, whose extent is the same."""
    colors = {"Yellow": (255, 255, 0), "Black": (0, 0, 0), "#0099ff": (0, 153, 255)}
    pixels = np.full((100, 400, 3), 128, np.uint8)
    for place, box in enumerate(order):
        pixels[:, 150 * place : 150 * place + 100] = 211
        for one in boxes[box]:
            x, y, size = 150 * place + one["x_loc"], one["y_loc"], one["size"]
            pixels[y : y + size, x : x + size] = colors[one["color"]]
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def nlvr(folder: Path, without: str) -> Path:
    boxes = [[thing()], [thing(color="Black", x=0, y=0, size=30)], [thing("circle", "#0099ff", 60, 10, 10)]]
    shared = {
        "sentence": "There is a yellow block.",
        "evals": {"r0": "true"},
        "directory": "5",
        "structured_rep": boxes,
    }
    rows = [
        {"identifier": "12-0", "label": "true", **shared},
        {"identifier": "12-1", "label": "false", **shared},
        {"identifier": "13-0", "label": "maybe", **shared},
    ]
    lines(folder / "nlvr" / "dev" / "dev.json", rows, without)
    for name in ("12-0", "12-1", "13-0"):
        for number, order in enumerate([(0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)]):
            draw(folder / "nlvr" / "dev" / "images" / "5" / f"dev-{name}-{number}.png", boxes, order)
    return folder


def nlvr2(folder: Path, without: str) -> Path:
    rows = [
        {"identifier": "dev-850-0-0", "sentence": "There is a cup.", "label": "False"},
        {"identifier": "dev-850-1-0", "sentence": "There is a cup.", "label": "True"},
        {"identifier": "dev-850-2", "sentence": "There is a cup.", "label": "True"},
    ]
    lines(folder / "data" / "dev.json", rows, without)
    for pair in ("850-0", "850-1"):
        picture(folder / "dev" / f"dev-{pair}-img0.png", 1)
        picture(folder / "dev" / f"dev-{pair}-img1.png", 2, (40, 20))
    return folder


def gqa(folder: Path, without: str) -> Path:
    rows = [
        {"id": "1", "imageId": "n1", "question": "What is it?", "answer": "cup", "types": {"structural": "query"}},
        {"id": "2", "imageId": "n1", "question": "Is it red?", "answer": "yes", "types": {"structural": "verify"}},
        {"id": "3", "imageId": "n1", "question": "", "answer": "yes", "types": {"structural": "verify"}},
    ]
    parquet(folder / "testdev_balanced_instructions" / "testdev-00000-of-00001.parquet", rows, without)
    parquet(folder / "testdev_balanced_images" / "testdev-00000-of-00001.parquet", [{"id": "n1", "image": cell(3)}])
    return folder


def mvbench(folder: Path, without: str) -> Path:
    shared = {"video": "a.mp4", "question": "What happens?", "candidates": ["opens", "closes", "falls"]}
    rows = [{**shared, "answer": answer} for answer in ("closes", "falls", "sleeps")]
    as_json(folder / "json" / "moving_count.json", [less(row, without) for row in rows])
    video(folder / "video" / "clevrer" / "video_validation" / "a.mp4")
    return folder


def video_mme(folder: Path, without: str) -> Path:
    shared = {"video_id": "001", "duration": "short", "domain": "Knowledge", "sub_category": "Geography"}
    shared |= {"videoID": "abc", "task_type": "OCR Problems", "question": "Which?", "url": ""}
    shared |= {"options": ["A. Apples.", "B. Candles.", "C. Berries.", "D. The three kinds are of the same number."]}
    rows = [{**shared, "question_id": f"001-{i}", "answer": answer} for i, answer in enumerate(("C", "A", "F"))]
    parquet(folder / "videomme" / "test-00000-of-00001.parquet", rows, without)
    video(folder / "data" / "abc.mp4")
    return folder


def tempcompass(folder: Path, without: str) -> Path:
    choice = {"question": "What is it doing?\nA. flying\nB. diving", "answer": "B. diving"}
    broken = {"question": "What is it doing?", "answer": "B. diving"}
    held = {"7": {"action": [choice, broken]}}
    held["7"]["action"] = [less(one, without) for one in held["7"]["action"]]
    as_json(folder / "questions" / "multi-choice.json", held)
    as_json(folder / "questions" / "yes_no.json", {"7": {"speed": [{"question": "Is it fast?", "answer": "no"}]}})
    caption = {
        "question": "Which caption?\nCaption A: It flies.\nCaption B: It dives.",
        "answer": "Caption A: It flies.",
    }
    as_json(folder / "questions" / "caption_matching.json", {"7": {"order": [caption]}})
    video(folder / "videos" / "7.mp4")
    return folder


def perception(folder: Path, without: str) -> Path:
    shared = {"video_name": "video_1", "question": "Is it stable?", "options": ["moving", "still", "neither"]}
    shared |= {"area": "physics", "reasoning": "predictive", "tag": ["motion"]}
    rows = [{**shared, "question_id": str(i), "answer_id": answer} for i, answer in enumerate(("1", "0", "3"))]
    parquet(folder / "mc_question_val" / "validation-00000-of-00001.parquet", rows, without)
    video(folder / "videos" / "video_1.mp4")
    return folder


def next_qa(folder: Path, without: str) -> Path:
    shared = {"video": 4010069381, "question": "why does she sit ", "type": "CW", "qid": 0}
    shared |= {f"a{i}": text for i, text in enumerate(("tired", "hungry", "cold", "happy", "to rest"))}
    rows = [{**shared, "answer": answer} for answer in (4, 0, 5)]
    parquet(folder / "MC" / "test-00000-of-00001.parquet", rows, without)
    video(folder / "NExTVideo" / "4010069381.mp4")
    return folder


def vstar(folder: Path, without: str) -> Path:
    text = (
        "What color is the glove?\n(A) red\n(B) blue\nAnswer with the option's letter from the given choices directly."
    )
    shared = {"image": cell(4), "category": "direct_attributes", "question_id": "0"}
    rows = [{**shared, "text": text, "label": "B"}, {**shared, "text": "What? (A) one (B) two (C) six", "label": "C"}]
    rows.append({**shared, "text": "What color?", "label": "A"})
    parquet(folder / "test-00000-of-00001.parquet", rows, without)
    return folder


def hr_bench(folder: Path, without: str) -> Path:
    shared = {"question": "Which color?", "A": "red", "B": "blue", "C": "grey", "D": "pink", "category": "single"}
    rows = [
        {"index": i, **shared, "answer": answer, "cycle_category": f"cycle{i}", "image": b64(5)}
        for i, answer in enumerate("DAE")
    ]
    parquet(folder / "hr_bench_4k.parquet", rows, without)
    return folder


def geometry3k(folder: Path, without: str) -> Path:
    shared = {"images": [cell(6)], "problem": "<image>Find x.", "choices": ["3", "4", "5", "6"], "answer": "5"}
    rows = [{**shared, "id": i, "ground_truth": letter} for i, letter in enumerate("CAZ")]
    parquet(folder / "data" / "test-00000-of-00001.parquet", rows, without)
    return folder


def vlmevalkit(folder: Path, without: str) -> Path:
    shared = {
        "question": 'Which "one"?\nLook closely.',
        "hint": "Count.",
        "A": "two",
        "B": "three",
        "category": "count",
    }
    rows = [
        {"index": "10", "image": b64(7), **shared, "answer": "B"},
        {"index": "11", "image": "10", **shared, "answer": "A"},
        {"index": "12", "image": b64(8), **shared, "answer": "Q"},
    ]
    tsv(folder / "Set.tsv", rows, without)
    return folder / "Set.tsv"


def llava(folder: Path, without: str) -> Path:
    def turns(*said: str) -> Rows:
        return [{"from": ("human", "gpt")[i % 2], "value": value} for i, value in enumerate(said)]

    text = "<video>\nWhat is it?\nA. A cup\nB. A lamp\nAnswer with the letter."
    sentence = "It is a long sentence about what is to be seen."
    rows = [
        {"id": "1", "video": "a.mp4", "conversations": turns(text, "B. A lamp.", "Is it lit?", "Yes.")},
        {"id": "2", "video": "a.mp4", "conversations": turns("<video>\nDescribe it.", sentence)},
    ]
    lines(folder / "talk.jsonl", rows, without)
    video(folder / "a.mp4")
    return folder / "talk.jsonl"


def video_r1(folder: Path, without: str) -> Path:
    shared = {"data_type": "video", "path": "./CLEVRER/a.mp4", "data_source": "CLEVRER", "options": []}
    choice = {"problem": "What moves?", "problem_type": "multiple choice", "options": ["A. cube", "B. ball"]}
    number = {"problem": "How many?", "problem_type": "numerical"}
    rows = [
        {"problem_id": 1, **shared, **choice, "solution": "<answer>A</answer>"},
        {"problem_id": 2, **shared, **number, "solution": "<answer>2</answer>"},
        {"problem_id": 3, **shared, **number, "problem_type": "free-form", "solution": "<answer>a tale</answer>"},
    ]
    as_json(folder / "Video-R1.json", [less(row, without) for row in rows])
    video(folder / "CLEVRER" / "a.mp4")
    return folder / "Video-R1.json"


def webdataset(folder: Path, without: str) -> Path:
    samples = [
        ("a", {"question": "Which?", "answer": "B", "options": ["red", "blue"]}),
        ("b", {"question": "How many?", "answer": 3}),
        ("c", {"question": "How many?", "answer": [1]}),
    ]
    with tarfile.open(folder / "set.tar", "w") as archive:
        for key, held in samples:
            for name, content in ((f"{key}.json", json.dumps(less(held, without)).encode()), (f"{key}.png", png(9))):
                info = tarfile.TarInfo(name)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return folder / "set.tar"
