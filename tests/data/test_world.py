"""The World's questions: exact, balanced, repeatable, in few words."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from oracles_world import COLORS, SHAPES, answer_from_objects, answer_from_rationale, gold

from entropy_vision.data.world import World, tokens, vocabulary
from entropy_vision.errors import UsageError
from entropy_vision.question import Item

FAMILIES = World.families(shared=True)
SMALL = {"size": 32, "frame_count": 8}


def digest(items: list[Item]) -> str:
    whole = hashlib.sha256()
    for item in items:
        whole.update(item.frames.pixels.tobytes())
        whole.update(item.evidence.tobytes())
        whole.update(b"".join(thing.boxes.tobytes() for thing in item.objects))
        whole.update(repr((item.key, item.question, item.answer, item.rationale)).encode())
    return whole.hexdigest()


@pytest.mark.parametrize("family", FAMILIES)
def test_answer_equals_the_oracle_that_sees_the_objects_only(family: str) -> None:
    for difficulty in (0.0, 0.5, 1.0):
        world = World(family, difficulty=difficulty, seed=3, **SMALL)
        for i in range(110):
            item = world[i]
            assert answer_from_objects(item) == gold(item), (item.key, item.question)


@pytest.mark.parametrize("family", FAMILIES)
def test_rationale_leads_to_the_answer_without_the_picture(family: str) -> None:
    for difficulty, frame_count in ((0.0, 8), (0.5, 5), (1.0, 16)):
        world = World(family, difficulty=difficulty, seed=4, size=32, frame_count=frame_count)
        for i in range(60):
            item = world[i]
            assert answer_from_rationale(item) == gold(item), (item.key, item.rationale)


@pytest.mark.parametrize("media", ["image", "video"])
def test_scene_asks_several_true_questions_of_the_same_frames(media: str) -> None:
    world = World(media, seed=5, **SMALL)
    for i in range(60):
        items = world.scene(i)
        assert 3 <= len(items) <= 5
        assert all(item.frames is items[0].frames and item.scene == items[0].scene for item in items)
        assert len({item.key for item in items}) == len({item.question for item in items}) == len(items)
        for item in items:
            assert answer_from_objects(item) == gold(item) == answer_from_rationale(item)


@pytest.mark.parametrize("family", FAMILIES)
def test_answers_are_exactly_balanced_in_every_round(family: str) -> None:
    world = World(family, seed=6, **SMALL)
    answers = [str(world[i].answer.value) for i in range(48)]
    n = len(set(answers))
    assert n == {"moved": 2, "appearance": 2}.get(family, 4)
    for start in range(0, 48, n):
        assert len(set(answers[start : start + n])) == n
    assert len({tuple(answers[start : start + n]) for start in range(0, 48, n)}) > 1  # not one fixed order


@pytest.mark.parametrize("media", ["image", "video"])
def test_answers_of_shared_scenes_are_exactly_balanced(media: str) -> None:
    world = World(media, seed=7, **SMALL)
    counts: dict[tuple[str, bool], Counter[str]] = {}
    for i in range(24):
        for place, item in enumerate(world.scene(i)):
            counts.setdefault((item.family, place == 3), Counter())[str(item.answer.value)] += 1
    for (family, again), seen in counts.items():
        if not again:  # the fourth question's answer depends on the first one of its family
            assert set(seen.values()) == {24 // len(seen)}, (family, seen)
    assert {family for family, _ in counts} == {item.family for item in world.scene(0)}


def test_items_are_byte_identical_in_another_process_and_order() -> None:
    names = (*FAMILIES, "image", "video")
    here = [digest([World(name, seed=8, **SMALL)[i] for i in range(6)]) for name in names]
    code = (
        "from test_world import *\n"
        f"for name in {names!r}:\n"
        "    world = World(name, seed=8, **SMALL)\n"
        "    items = {i: world[i] for i in (5, 3, 0, 1, 4, 2)}\n"
        "    print(digest([items[i] for i in range(6)]))\n"
    )
    tests = Path(__file__).resolve().parents[1]
    env = {**os.environ, "PYTHONHASHSEED": "123", "PYTHONPATH": f"{tests}{os.pathsep}{tests / 'data'}"}
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=True)
    assert there.stdout.split() == here


def test_item_is_reached_directly_at_a_huge_index() -> None:
    world = World("count", **SMALL)
    assert world[10**15].key.endswith(str(10**15))


@pytest.mark.parametrize("change", [{"split": "val"}, {"split": "test"}, {"seed": 1}, {"difficulty": 0.501}])
def test_other_arguments_give_other_scenes(change: dict) -> None:
    one, other = World("relation", **SMALL), World("relation", **{**SMALL, **change})
    places = {item.objects[0].boxes.tobytes() for item in (one[i] for i in range(60))}
    assert not places & {item.objects[0].boxes.tobytes() for item in (other[i] for i in range(60))}
    assert one[0].key != other[0].key


@pytest.mark.parametrize("family", FAMILIES)
def test_scene_and_question_are_the_same_at_every_size(family: str) -> None:
    small, large = World(family, **SMALL), World(family, size=100, frame_count=8)
    for i in range(10):
        a, b = small[i], large[i]
        assert (a.key, a.question, a.answer, a.rationale) == (b.key, b.question, b.answer, b.rationale)
        for x, y in zip(a.objects, b.objects, strict=True):
            np.testing.assert_array_equal(x.boxes, y.boxes)


def test_shapes_types_and_defaults_are_those_of_the_contract() -> None:
    image, video = World("count")[0], World("direction")[0]
    assert image.frames.pixels.shape == (1, 224, 224, 3) and image.evidence.shape == (1, 14, 14)
    assert video.frames.pixels.shape == (16, 224, 224, 3) and video.evidence.shape == (16, 14, 14)
    assert image.evidence.dtype == video.evidence.dtype == bool
    assert World("quadrant", size=100)[0].evidence.shape == (1, 7, 7)  # edge patches padded
    for item in (image, video):
        assert item.evidence.any() and item.objects
        for thing in item.objects:
            boxes = thing.boxes[~np.isnan(thing.boxes[:, 0])]
            assert thing.boxes.dtype == np.float32 and thing.boxes.shape == (item.frames.count, 4)
            assert (boxes >= 0).all() and (boxes <= 1).all() and (boxes[:, :2] < boxes[:, 2:]).all()


def test_words_are_few_and_every_one_is_in_the_vocabulary() -> None:
    words = set(vocabulary(FAMILIES))
    assert len(words) == len(vocabulary(FAMILIES)) <= 130  # 48 of them name places, rows and columns
    used: set[str] = set()
    for family in FAMILIES:
        for difficulty in (0.0, 1.0):
            world = World(family, difficulty=difficulty, **SMALL)
            for i in range(80):
                item = world[i]
                question, rationale = tokens(item.question), tokens(item.rationale)
                assert sum(token.isalnum() for token in question) <= 16, item.question
                assert len(rationale) <= 14, item.rationale
                value = ("no", "yes")[item.answer.value] if item.answer.kind == "yesno" else str(item.answer.value)
                used |= {*question, *rationale, *tokens(value), *tokens(" ".join(item.answer.options))}
    assert used <= words, used - words
    assert len(words - used) <= 8, words - used  # and hardly one is never said


def test_the_page_says_how_many_words_there_are() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs/world.md").read_text()
    (told,) = re.findall(r"`vocabulary\(\)` lists every word[^.]*\((\d+) of them\)", page)
    assert int(told) == len(vocabulary(FAMILIES))


def test_questions_name_every_option_of_a_choice() -> None:
    for family in ("relation", "quadrant", "direction", "appearance"):
        world = World(family, **SMALL)
        for i in range(40):
            item = world[i]
            assert all(option in item.question for option in item.answer.options), item.question


@pytest.mark.parametrize("family", FAMILIES)
def test_family_has_at_least_three_paraphrases(family: str) -> None:
    world = World(family, **SMALL)
    nouns = re.compile(rf"\b({'|'.join(COLORS)}|{'|'.join(SHAPES)}|object)\b ?")
    frames_of_words = {nouns.sub("", world[i].question) for i in range(60)}
    assert len(frames_of_words) >= 3, frames_of_words


def test_keys_are_unique_and_safe_as_names_in_shards() -> None:
    keys = [World(name, **SMALL)[i].key for name in (*FAMILIES, "image", "video") for i in range(12)]
    assert len(set(keys)) == len(keys)
    assert not any(set(key) & set("./ \\") for key in keys)


def test_world_without_a_family_shows_images_and_videos_in_turn() -> None:
    world = World(**SMALL)
    assert [world.scene(i)[0].frames.count for i in range(4)] == [1, 8, 1, 8]
    assert {item.family for i in range(2) for item in world.scene(i)} == set(World.families(shared=True))
    assert world[5].key == world.scene(1)[1].key


@pytest.mark.parametrize(
    ("wrong", "mend"),
    [
        ({"family": "directions"}, "did you mean 'direction'"),
        ({"family": "zzz"}, "count, relation"),
        ({"split": "tran"}, "did you mean 'train'"),
        ({"difficulty": 1.5}, "0..1"),
        ({"difficulty": float("nan")}, "0..1"),
        ({"difficulty": "0.5"}, "0..1"),
        ({"seed": 1.5}, "whole number"),
        ({"seed": "a"}, "whole number"),
        ({"size": 8}, "32"),
        ({"frame_count": 3}, "4"),
    ],
)
def test_wrong_argument_is_named_with_its_mend(wrong: dict, mend: str) -> None:
    with pytest.raises(UsageError, match=mend):
        World(**wrong)


@pytest.mark.parametrize("index", [-1, 1 << 63, 10**30])
def test_an_index_outside_the_counter_is_refused(index: int) -> None:
    with pytest.raises(IndexError, match=r"from 0 to 2\*\*63 - 1"):
        World("count", **SMALL)[index]


@pytest.mark.parametrize("index", [1.5, "1", slice(0, 3)])
def test_an_index_is_a_whole_number(index: Any) -> None:
    for ask in (World("count", **SMALL).__getitem__, World("count", **SMALL).scene, World("order", **SMALL).twin):
        with pytest.raises(TypeError, match="cannot be interpreted as an integer"):
            ask(index)
    assert World("count", **SMALL)[np.int64(1)].key == World("count", **SMALL)[1].key


def test_the_last_index_is_a_scene() -> None:
    assert World("count", **SMALL)[(1 << 63) - 1].question


def test_import_of_the_world_needs_no_torch() -> None:
    code = "import sys; from entropy_vision.data import World; World('count')[0]; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_questions_of_this_version_stay_as_they_are() -> None:
    # a change here changes every figure measured on the World: raise the number in the key of its random streams too
    items = [World(name, seed=1, difficulty=1.0, **SMALL)[i] for name in ("image", "video") for i in range(8)]
    words = repr([(item.question, item.answer.value, item.rationale) for item in items])
    assert hashlib.sha256(words.encode()).hexdigest()[:16] == "9f71610db3cfd002"
