"""NLVR: every example in six orders with one label, the published baselines, and questions from scene graphs."""

from __future__ import annotations

import json
import re
import zipfile
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from benchmark_files import draw, lines, thing
from oracles_nlvr import answer as plain_answer

from entropy_vision.data.benchmarks import Benchmark, load
from entropy_vision.data.benchmarks.nlvr_boxes import patches_of, read_scene, scene_key, scene_rects
from entropy_vision.data.benchmarks.nlvr_scenes import FAMILIES, evidence
from entropy_vision.data.benchmarks.nlvr_tables import COLORS, PLACES, SHAPES, Tables, programs, solve
from entropy_vision.errors import InputError
from entropy_vision.question import Answer
from entropy_vision.rl.verifiers import check_answer

Boxes = list[list[dict[str, Any]]]


def random_boxes(rng: np.random.Generator) -> Boxes:
    """Three boxes of up to seven things, or three towers."""
    colors = ("Yellow", "Black", "#0099ff")
    if rng.random() < 0.5:
        heights = rng.integers(0, 5, 3)
        return [[thing(color=colors[rng.integers(3)], y=80 - 21 * i) for i in range(h)] for h in heights]
    boxes: Boxes = [[], [], []]
    for box in boxes:
        for _ in range(rng.integers(0, 8)):
            size = int(rng.choice((10, 20, 30)))
            x, y = (int(rng.choice((0, 100 - size, rng.integers(0, 101 - size)))) for _ in range(2))
            box.append(thing(SHAPES[rng.integers(3)], colors[rng.integers(3)], x, y, size))
    return boxes


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder like that of the training pictures: 600 scenes of which one cannot be, pictures of some."""
    folder = tmp_path_factory.mktemp("nlvr")
    rng = np.random.default_rng(0)
    rows = [{"identifier": f"{i}-0", "directory": "7", "structured_rep": random_boxes(rng)} for i in range(600)]
    rows[9]["structured_rep"][0] = [thing("star")]
    lines(folder / "train" / "train_recovered_scenes.jsonl", rows)
    return folder


@pytest.fixture(scope="module")
def scenes(drawn: Path) -> Benchmark:
    return load("nlvr-scenes", drawn)


def graphs(folder: Path) -> dict[str, Boxes]:
    told = (folder / "train" / "train_recovered_scenes.jsonl").read_text().splitlines()
    return {row["identifier"]: row["structured_rep"] for row in map(json.loads, told)}


def word_of(answer: Answer) -> int | str | bool:
    """An answer as the oracle says it."""
    if answer.kind == "choice":
        return answer.options["ABC".index(answer.value)]
    return answer.value


def value_of(family: str, index: int) -> int | str | bool | None:
    return None if index < 0 else word_of(FAMILIES[family].answer(index))


# scene graphs ----------------------------------------------------------------------------------------------------


def test_every_program_is_solved_as_the_plain_oracle_solves_it() -> None:
    rng = np.random.default_rng(1)
    held = [random_boxes(rng) for _ in range(50)]
    tables = Tables.of([read_scene(boxes) for boxes in held])
    arisen: Counter[str] = Counter()
    for program in programs():
        for boxes, index in zip(held, solve(program, tables), strict=True):
            told = value_of(program[0], int(index))
            assert told == plain_answer(program, boxes), (program, boxes)
            arisen[program[0]] += told is not None
    assert set(arisen) == set(FAMILIES) and min(arisen.values()) > 20


def test_questions_are_what_the_scene_graph_says(scenes: Benchmark, drawn: Path) -> None:
    raw = graphs(drawn)
    assert len(scenes) > 10_000 and {q.family for q in scenes.questions} == set(FAMILIES)
    assert {q.answer.kind for q in scenes.questions} == {"integer", "yesno", "choice", "exact"}
    for question in scenes.questions:
        check_answer(question.answer)
        assert plain_answer(question.meta["program"], raw[question.meta["identifier"]]) == word_of(question.answer)


def test_every_answer_of_a_text_is_equally_frequent(scenes: Benchmark) -> None:
    texts: dict[str, Counter[Any]] = {}
    for question in scenes.questions:
        texts.setdefault(question.text, Counter())[word_of(question.answer)] += 1
    assert all(len(set(answers.values())) == 1 and len(answers) > 1 for answers in texts.values())
    assert len({question.text for question in scenes.questions}) > 300


def test_a_text_says_one_thing(scenes: Benchmark) -> None:
    """Texts of different programs differ, and each wording names what it asks for, and the options of a choice."""
    programs_of: dict[str, set[tuple[str, ...]]] = {}
    for question in scenes.questions:
        programs_of.setdefault(question.text, set()).add(question.meta["program"])
        if question.answer.kind == "choice":
            assert all(re.search(rf"\b{option}\b", question.text) for option in question.answer.options)
        assert "{" not in question.text
    assert all(len(some) == 1 for some in programs_of.values())


def test_a_scene_that_cannot_be_is_counted(scenes: Benchmark) -> None:
    (skipped,) = scenes.skipped
    assert "star" in skipped.reason and "record 9" in skipped.where


def test_a_scene_is_in_one_split_whatever_the_order_of_its_boxes(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    rows = []
    for i in range(100):
        boxes = random_boxes(rng)
        orders = (boxes, boxes[::-1], [list(reversed(box)) for box in boxes])
        rows += [{"identifier": f"{i}-{k}", "structured_rep": one} for k, one in enumerate(orders)]
    lines(tmp_path / "train_recovered_scenes.jsonl", rows)
    asked = {
        split: {q.meta["identifier"] for q in load("nlvr-scenes", tmp_path, split).questions}
        for split in ("train", "val")
    }
    numbers = {split: [name.split("-")[0] for name in names] for split, names in asked.items()}
    assert numbers["train"] and numbers["val"] and not set(numbers["train"]) & set(numbers["val"])
    assert all(len(set(some)) == len(some) for some in numbers.values())  # of equals one is asked about


@pytest.mark.parametrize(
    ("program", "seen"),
    [
        (("count", "yellow", "square", "left"), [(40, 80, 60, 100)]),
        (("count", "yellow", "circle", "left"), [(0, 0, 100, 100)]),  # to know there is none, look everywhere
        (("exists", "black", "square", "all"), [(0, 0, 100, 100), (150, 0, 180, 30), (300, 0, 400, 100)]),
        (("where", "blue", "circle"), [(0, 0, 100, 100), (150, 0, 250, 100), (360, 10, 370, 20)]),
        (("relation", "blue", "circle", "yellow", "circle", "right", "left"), [(360, 10, 370, 20), (310, 50, 330, 70)]),
        (("color", "square", "middle"), [(150, 0, 180, 30)]),
        (("shape", "blue", "right"), [(360, 10, 370, 20)]),
        (("height", "left"), [(40, 80, 60, 100)]),
    ],
)
def test_evidence_is_what_the_question_is_about(program: tuple[str, ...], seen: list[tuple[int, ...]]) -> None:
    boxes = [
        [thing()],
        [thing(color="Black", x=0, y=0, size=30)],
        [thing("circle", "#0099ff", 60, 10, 10), thing("circle", "Yellow", 10, 50, 20)],
    ]
    assert sorted(evidence(program, read_scene(boxes))) == sorted(seen)


@pytest.mark.parametrize("size", [None, (224, 224), (100, 300)])
def test_evidence_covers_the_pixels_of_the_things_and_little_else(size: Any, tmp_path: Path) -> None:
    boxes = random_boxes(np.random.default_rng(5))
    row = {"identifier": "1-0", "sentence": "s", "label": "true", "structured_rep": boxes}
    lines(tmp_path / "dev" / "dev.json", [row])
    draw(tmp_path / "dev" / "images" / "dev-1-0-4.png", boxes, (2, 0, 1))
    item = load("nlvr", tmp_path, size=size)[4]  # of the six orders
    pixels, rows, columns = item.frames.pixels[0].astype(int), *item.evidence.shape[1:]
    # what is neither the ground nor a separator nor, scaled, a blend of both, which is grey
    coloured = (np.ptp(pixels, axis=2) > 20) | (pixels.max(axis=2) < 100)
    padded = np.zeros((rows * 16, columns * 16), bool)
    padded[: pixels.shape[0], : pixels.shape[1]] = coloured
    shown = padded.reshape(rows, 16, columns, 16).any(axis=(1, 3))
    assert not (shown & ~item.evidence[0]).any()
    assert item.evidence.sum() <= shown.sum() + 0.15 * rows * columns


def test_the_mask_of_a_rectangle_is_the_patches_it_reaches_into(tmp_path: Path) -> None:
    from media import as_frames

    frames = as_frames(np.zeros((1, 100, 400, 3), np.uint8))
    mask = patches_of([(150, 0, 166, 16)], frames)[0]
    assert mask.shape == (7, 25) and np.argwhere(mask).tolist() == [[0, 9], [0, 10]]


# the corpus as published, small ------------------------------------------------------------------------------------


def corpus(folder: Path, split: str = "dev", **changes: Any) -> Path:
    """Two presentations of two examples each."""
    boxes: Boxes = [[thing()], [thing(color="Black", x=0, y=0, size=30)], []]
    rows = []
    for name, label in (("3-0", "true"), ("3-1", "false"), ("44-0", "true"), ("44-2", "true")):
        rows.append({"identifier": name, "sentence": "S.", "label": label, "structured_rep": boxes, **changes})
        for number in range(6):
            draw(folder / split / "images" / "0" / f"{split}-{name}-{number}.png", boxes)
    lines(folder / split / f"{split}.json", rows)
    return folder


def test_the_hidden_split_loads_without_directory_and_raters(tmp_path: Path) -> None:
    corpus(tmp_path, "hidden")
    benchmark = load("nlvr", tmp_path, "hidden", size=None)
    assert len(benchmark) == 24 and not benchmark.skipped and not benchmark.missing()
    assert benchmark[23].frames.size == (100, 400) and benchmark[23].key == "nlvr-hidden-44-2-5"


def test_a_wrong_directory_does_no_harm_and_a_missing_picture_is_named(tmp_path: Path) -> None:
    benchmark = load("nlvr", corpus(tmp_path, directory="999"))
    assert benchmark[0].frames.count == 1
    (tmp_path / "dev" / "images" / "0" / "dev-3-1-2.png").unlink()
    benchmark = load("nlvr", tmp_path)
    with pytest.raises(InputError, match=r"dev-3-1-2\.png"):
        benchmark[8]
    assert [Path(name).name for name in benchmark.missing()] == ["dev-3-1-2.png"]


def test_accuracy_is_of_pictures_and_consistency_of_presentations(tmp_path: Path) -> None:
    benchmark = load("nlvr", corpus(tmp_path))
    always = [float(question.answer.value) for question in benchmark.questions]
    assert benchmark.aggregate(always) == {"overall": 0.75, "consistency": 0.5, "examples": 0.75}


# the corpus itself ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real(shared_data: Path) -> Path:
    folder = shared_data / "qa"
    if not (folder / "nlvr_dev.zip").is_file():
        pytest.skip("no NLVR: ENTROPY_VISION_SHARED_DATA names a folder that has qa/nlvr_dev.zip")
    return folder


@pytest.mark.parametrize(("split", "examples", "majority"), [("dev", 989, 0.553), ("test", 990, 0.562)])
def test_the_corpus_loads_whole_and_its_majority_is_the_published_one(
    real: Path, split: str, examples: int, majority: float
) -> None:
    benchmark = whole(str(real), split)
    assert (benchmark.rows, len(benchmark), benchmark.skipped) == (6 * examples, 6 * examples, [])
    assert benchmark.missing() == [] and len(benchmark.scenes) == 6 * examples
    labels: dict[str, set[bool]] = {}
    for question in benchmark.questions:
        labels.setdefault(question.meta["example"], set()).add(question.answer.value)
    assert len(labels) == examples and all(len(some) == 1 for some in labels.values())
    always = benchmark.aggregate([float(question.answer.value) for question in benchmark.questions])
    assert round(always["overall"], 3) == majority
    assert always == published(real / f"nlvr_{split}.zip", split)


@cache
def whole(folder: str, split: str) -> Benchmark:
    """A split at its stored size, read once for all tests."""
    return load("nlvr", f"{folder}/nlvr_{split}.zip", split, size=None)


def published(path: Path, split: str) -> dict[str, float]:
    """Always "true", scored as the corpus' README words it, from the file itself."""
    with zipfile.ZipFile(path) as archive:
        rows = [json.loads(line) for line in archive.read(f"nlvr/{split}/{split}.json").splitlines()]
    right = [row["label"] == "true" for row in rows]
    groups: dict[str, bool] = {}
    for row, one in zip(rows, right, strict=True):
        name = row["identifier"].split("-")[0]
        groups[name] = groups.get(name, True) and one
    accuracy = sum(right) / len(right)
    return {"overall": accuracy, "consistency": sum(groups.values()) / len(groups), "examples": accuracy}


def test_the_six_pictures_of_an_example_are_its_boxes_in_six_orders(real: Path) -> None:
    benchmark = whole(str(real), "dev")
    orders = [(0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)]
    for example in range(0, 989, 200):
        first = benchmark[6 * example].frames.pixels[0]
        for number, order in enumerate(orders):
            item = benchmark[6 * example + number]
            for place, box in enumerate(order):
                shown = item.frames.pixels[0][:, 150 * place : 150 * place + 100]
                # the corpus' own pictures of a box differ in a pixel now and then
                assert (shown != first[:, 150 * box : 150 * box + 100]).any(axis=2).sum() < 5
            covered = np.kron(item.evidence[0], np.ones((16, 16), bool))[:100, :400]
            pixels = item.frames.pixels[0]
            ground = (pixels == 211).all(axis=2) | (pixels == 128).all(axis=2)
            assert not (~ground & ~covered).any()


def test_an_unpacked_folder_gives_what_the_zip_gives(real: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(real / "nlvr_dev.zip") as archive:
        names = [name for name in archive.namelist() if "/images/5/" in name and "-1-" in name]
        archive.extractall(tmp_path, [*names, "nlvr/dev/dev.json"])
    packed, unpacked = whole(str(real), "dev"), load("nlvr", tmp_path, size=None)
    assert [q.key for q in packed.questions] == [q.key for q in unpacked.questions]
    here = [i for i, q in enumerate(unpacked.questions) if not q.medium.missing()]
    assert len(here) == len(names) > 100
    for i in here[::50]:
        assert np.array_equal(packed[i].frames.pixels, unpacked[i].frames.pixels)


@pytest.mark.parametrize("split", ["dev", "test"])
def test_scenes_that_occur_in_training_too_are_told_by_their_key(real: Path, split: str) -> None:
    listed = json.loads((real / "nlvr_overlap.json").read_text())["splits"][split]["scene_also_in_train"]
    keys = {scene_key(read_scene(boxes)) for _, boxes in recovered(real)}
    benchmark = whole(str(real), split)
    fewer = benchmark.without(lambda question: question.meta["scene_key"] in keys, "trained on")
    left_out = {question.meta["example"] for question in benchmark.questions} - {
        q.meta["example"] for q in fewer.questions
    }
    assert left_out == set(listed) and len(benchmark.questions) - len(fewer) == 6 * len(listed)
    assert fewer.rows == benchmark.rows and len(fewer.scenes) == len(fewer)
    assert benchmark.skipped == [] and {one.reason for one in fewer.skipped} == {"trained on"}


def recovered(real: Path) -> Iterator[tuple[str, Boxes]]:
    with zipfile.ZipFile(real / "nlvr_train_k0_palette.zip") as archive:
        for line in archive.read("nlvr/train/train_recovered_scenes.jsonl").splitlines():
            row = json.loads(line)
            yield row["identifier"], row["structured_rep"]


@pytest.mark.slow
def test_every_question_about_the_training_pictures_is_right(real: Path) -> None:
    raw = dict(recovered(real))
    assert len(raw) == 12_410
    texts: dict[str, Counter[Any]] = {}
    for split in ("train", "val"):
        benchmark = load("nlvr-scenes", real / "nlvr_train_k0_palette.zip", split)
        assert benchmark.skipped == [] and benchmark.missing() == []
        for question in benchmark.questions:
            told = word_of(question.answer)
            assert plain_answer(question.meta["program"], raw[question.meta["identifier"]]) == told
            texts.setdefault(f"{split} {question.text}", Counter())[told] += 1
    assert all(len(set(answers.values())) == 1 and len(answers) > 1 for answers in texts.values())


@pytest.mark.slow
def test_every_program_on_every_training_picture_is_what_the_oracle_says(real: Path) -> None:
    held = [boxes for _, boxes in recovered(real)]
    tables = Tables.of([read_scene(boxes) for boxes in held])
    # relations are two thirds of the programs and one rule: a tenth of them will do
    asked = [p for i, p in enumerate(programs()) if p[0] != "relation" or i % 10 == 0]
    for program in asked:
        solved = solve(program, tables)
        for boxes, index in zip(held, solved, strict=True):
            assert value_of(program[0], int(index)) == plain_answer(program, boxes)


@pytest.mark.slow
def test_the_scene_graph_of_every_training_picture_is_what_its_pixels_show(real: Path) -> None:
    """The middle of each thing has its colour, and there is nothing outside of what the graph covers."""
    from PIL import Image

    colors = {"Yellow": (255, 255, 0), "Black": (0, 0, 0), "#0099ff": (0, 153, 255)}
    with zipfile.ZipFile(real / "nlvr_train_k0_palette.zip") as archive:
        named = {Path(name).name: name for name in archive.namelist() if name.endswith(".png")}
        for identifier, boxes in recovered(real):
            with archive.open(named[f"train-{identifier}-0.png"]) as file:
                pixels = np.asarray(Image.open(file).convert("RGB"))
            covered = np.zeros((100, 400), bool)
            for x0, y0, x1, y1 in scene_rects(read_scene(boxes)):
                covered[int(y0) : int(y1), int(x0) : int(x1)] = True
            ground = (pixels == 211).all(axis=2) | (pixels == 128).all(axis=2)
            assert not (~ground & ~covered).any(), identifier
            for place, box in enumerate(boxes):
                for one in box:
                    middle = one["y_loc"] + one["size"] // 2, 150 * place + one["x_loc"] + one["size"] // 2
                    assert tuple(pixels[middle]) == colors[one["color"]], identifier


def test_places_and_colors_are_the_words_of_the_oracle() -> None:
    assert PLACES == ("left", "middle", "right") and COLORS == ("yellow", "black", "blue")
