"""The World's families with scenes of their own: true, balanced, the same everywhere."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from oracles_world_scenes import READ, answer_from_rationale, answer_text, evidence_alone, follow, middle, noisy_text
from world_stages import patches_that_differ, stage_of

from entropy_vision.data.world import World, source, tokens, vocabulary
from entropy_vision.data.world.cups import CupsStage, draw_swaps, swapped
from entropy_vision.data.world.families import STAGED
from entropy_vision.data.world.identity import draw_tracks
from entropy_vision.data.world.stage import Setting
from entropy_vision.data.world.words import cell_word
from entropy_vision.question import Item
from entropy_vision.rl import verify

FAMILIES = tuple(READ)

SPLITS = ("train", "val", "test", "template", "more", "background")

SMALL = {"size": 32, "frame_count": 8}


def of(family: str, split: str = "train", **arguments: Any) -> World:
    """A world of any split that a family knows."""
    world = World(family, **arguments)
    world.split = split
    return world


def check(item: Item) -> None:
    """The oracle's text earns the full score, in the form that the trainer reads."""
    text = answer_text(item)
    verdict = verify(f"<think>{item.rationale}</think><answer>{text}</answer>", item.answer)
    assert verdict.score == 1.0, (item.key, item.question, item.answer, text, verdict)


def check_rationale(item: Item) -> None:
    told = answer_from_rationale(item)
    if item.family == "change_where":
        x0, y0, x1, y1 = item.answer.value
        # a removed thing was told where it stood; the box is where it would stand
        shift = np.array(item.meta["shift"]) if item.rationale.endswith("none") else np.zeros(2)
        # what lies on a line between two cells may be rounded to the other side
        near = {cell_word((x0 + x1) / 2 - shift[0] + dx, (y0 + y1) / 2 - shift[1] + dy)
                for dx in (-0.02, 0, 0.02) for dy in (-0.02, 0, 0.02)}  # fmt: skip
        assert told in near, item.key
        return
    score = verify(f"<think>so it says</think><answer>{told}</answer>", item.answer).score
    assert score == 1.0, (item.key, item.rationale)


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("family", FAMILIES)
def test_text_of_the_oracle_earns_the_full_score(family: str, split: str) -> None:
    for difficulty, frame_count in ((0.0, 8), (0.5, 16), (1.0, 5)):
        world = of(family, split, difficulty=difficulty, seed=3, size=32, frame_count=frame_count)
        for i in range(8):
            check(world[i])
            check_rationale(world[i])


@pytest.mark.slow
@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("family", FAMILIES)
def test_text_of_the_oracle_earns_the_full_score_on_many_items(family: str, split: str) -> None:
    for difficulty in (0.0, 0.25, 0.5, 0.75, 1.0):
        world = of(family, split, difficulty=difficulty, seed=31, size=32, frame_count=16)
        for i in range(200):
            item = world[i]
            check(item)
            check_rationale(item)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_accuracy_of_a_noisy_observer_falls_with_difficulty(family: str) -> None:
    n, scores = 300, []
    for difficulty in (0.0, 0.25, 0.5, 0.75, 1.0):
        world, rng = World(family, difficulty=difficulty, seed=17, size=32), np.random.default_rng(1)
        items = (world[i] for i in range(n))
        scores.append(np.mean([verify(f"<think>seen</think><answer>{noisy_text(item, rng)}</answer>", item.answer).score
                               for item in items]))  # fmt: skip
    print(f"\n{family}: {' '.join(f'{score:.3f}' for score in scores)}")
    assert scores[0] - scores[-1] > 0.15
    assert all(later < earlier + 1.5 * 0.5 / np.sqrt(n) for earlier, later in pairwise(scores)), scores


@pytest.mark.parametrize("family", ["number", "word", "clock", "cups", "identity", "static_answer"])
def test_evidence_alone_is_enough(family: str) -> None:
    for difficulty in (0.0, 1.0):
        world = World(family, difficulty=difficulty, seed=23, size=96, frame_count=10)
        for i in range(15):
            seen = evidence_alone(world[i])
            check(seen)
            if family == "identity":  # what was not followed is not seen in the end
                assert sum(bool(thing.boxes[-1, 0] > -9) for thing in seen.objects) <= 2


@pytest.mark.parametrize("family", FAMILIES)
def test_every_target_comes_once_a_round(family: str) -> None:
    n = len(STAGED[family].targets)
    assert n == len(set(STAGED[family].targets))
    world = World(family, seed=6, **SMALL)
    dealt = [world._plan(i)[1][0][1] for i in range(2 * n)]
    assert sorted(dealt[:n]) == sorted(dealt[n:]) == list(range(n)) and dealt[:n] != dealt[n:]


def test_every_option_is_the_answer_equally_often_and_nothing_a_quarter() -> None:
    targets = STAGED["change"].targets
    assert Counter(kind for kind, _ in targets) == {"nothing": 4, "added": 3, "removed": 3, "moved": 3, "recoloured": 3}
    for left_out in {left_out for _, left_out in targets}:
        assert Counter(kind for kind, out in targets if out == left_out).values() == {1} or all(
            count == 1 for count in Counter(kind for kind, out in targets if out == left_out).values()
        )
    letters = Counter(World("change", seed=9, **SMALL)[i].answer.value for i in range(16 * 16))
    assert set(letters) == set("ABCD") and max(abs(n - 64) for n in letters.values()) < 4 * 7


@pytest.mark.parametrize("family", FAMILIES)
def test_words_are_few_known_and_plain(family: str) -> None:
    words = set(vocabulary([family]))
    asked: set[str] = set()
    for split in ("train", "template"):
        for difficulty in (0.0, 1.0):
            world = of(family, split, difficulty=difficulty, **SMALL)
            for i in range(40):
                item = world[i]
                said = tokens(item.question)
                assert sum(token.isalnum() for token in said) <= 18, item.question
                assert len(tokens(item.rationale)) <= 18, item.rationale
                if family != "change_where":
                    options = " ".join(item.answer.options)
                    said += tokens(f"{item.rationale} {options} {item.answer.value}")
                assert not set(said) - words, set(said) - words
                if item.answer.kind == "choice":
                    assert all(option in item.question for option in item.answer.options)
            asked.add(split + item.question)
    held_out = STAGED[family].held_out
    assert len({*STAGED[family].templates, held_out}) >= 4
    train = {of(family, "train", **SMALL)[i].question for i in range(30)}
    start = held_out.split("{")[0]
    assert not any(question.startswith(start) for question in train if start)
    assert all(of(family, "template", **SMALL)[i].question.startswith(start) for i in range(10))


@pytest.mark.parametrize("family", FAMILIES)
def test_scene_is_the_same_at_every_size(family: str) -> None:
    small, large = World(family, **SMALL), World(family, size=100, frame_count=8)
    for i in range(6):
        a, b = small[i], large[i]
        assert (a.key, a.question, a.answer, a.rationale, a.meta) == (b.key, b.question, b.answer, b.rationale, b.meta)
        for x, y in zip(a.objects, b.objects, strict=True):
            np.testing.assert_array_equal(x.boxes, y.boxes)
        assert a.frames.pixels.shape[1:] == (32, 32, 3) and b.frames.pixels.shape[1:] == (100, 100, 3)
        assert a.evidence.shape == (a.frames.count, 2, 2) and b.evidence.shape == (b.frames.count, 7, 7)
        assert a.evidence.any() and json.loads(json.dumps(a.meta)) == a.meta
        for thing in b.objects:
            assert thing.boxes.shape == (b.frames.count, 4) and thing.boxes.dtype == np.float32


def digests(order: Sequence[int]) -> list[str]:
    """One digest a family, of items made in this order."""
    found = []
    for family in FAMILIES:
        world = World(family, seed=8, **SMALL)
        made = {i: world[i] for i in order}
        whole = hashlib.sha256()
        for i in sorted(made):
            item = made[i]
            whole.update(item.frames.pixels.tobytes() + item.evidence.tobytes())
            whole.update(repr((item.key, item.question, item.answer, item.rationale, item.meta)).encode())
        found.append(whole.hexdigest())
    return found


def test_items_are_byte_identical_in_another_process_and_order() -> None:
    code = "from test_world_scenes import digests; print(*digests((3, 0, 2, 1)))"
    tests = Path(__file__).resolve().parents[1]
    path = os.pathsep.join([str(tests), str(tests / "data"), os.environ.get("PYTHONPATH", "")])
    env = {**os.environ, "PYTHONHASHSEED": "123", "PYTHONPATH": path}
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=True)
    assert there.stdout.split() == digests((0, 1, 2, 3))


@pytest.mark.parametrize("family", FAMILIES)
def test_twin_has_the_same_question_and_another_answer(family: str) -> None:
    twin = STAGED[family].twin
    assert twin is not None
    for seed, target in enumerate(STAGED[family].targets[::7][:12]):
        one, other = stage_of(family, target, seed).asks[0], stage_of(family, twin(target), seed).asks[0]
        assert one.question == other.question and one.answer.options == other.answer.options
        assert one.answer.value != other.answer.value
        assert twin(target) in STAGED[family].targets


@pytest.mark.parametrize("family", FAMILIES)
def test_twin_is_the_same_scene_but_for_what_tells_the_answer(family: str) -> None:
    kind = STAGED[family]
    for seed, target in enumerate(kind.targets[::9][:8]):
        pair = []
        for wanted in (target, kind.twin(target)):  # type: ignore[misc]
            rng = np.random.default_rng(seed)
            stage = kind.stage(kind, wanted, Setting("train", 0.5, 1 if kind.media == "image" else 10), rng)
            if stage is None:
                break
            pair.append(stage.render(96, rng))
        if len(pair) < 2:
            continue
        differ = patches_that_differ(*pair)
        assert differ.any()
        if family == "cups":  # what is swapped on the way shows in neither the first frame nor the last
            assert not differ[0].any() and not differ[-1].any()
        elif family == "egomotion":
            assert not differ[0].any() and differ[-1].all()
        elif family == "identity":  # the digits alone change
            assert not differ[:-2].any()
        else:
            assert differ.mean() < 0.7


@pytest.mark.parametrize(("count", "swaps"), [(3, 2), (3, 3), (4, 2), (4, 3), (4, 5), (5, 2), (5, 5), (6, 3), (6, 6)])
def test_swaps_lead_from_every_place_to_every_place_equally_often(count: int, swaps: int) -> None:
    rng = np.random.default_rng(5)
    seen = np.zeros((count, count))
    n = 1500
    for _ in range(n):
        places = np.arange(count)
        pairs = draw_swaps(count, swaps, rng)
        assert len(pairs) == swaps and all(a != b for a, b in pairs)
        for pair in pairs:
            places = swapped(places, pair)
        seen[np.arange(count), places] += 1
    p = 1 / count
    assert np.abs(seen / n - p).max() < 4.2 * np.sqrt(p * (1 - p) / n)


def test_every_swap_has_a_frame_in_which_its_cups_are_under_way() -> None:
    for frames in (4, 5, 7, 8, 12, 16, 24):
        for seed in range(20):
            stage: CupsStage = stage_of("cups", seed, seed, d=(seed % 5) / 4, frames=frames)
            row = np.isclose(stage.tracks[:, stage.shown :, 1], stage.y).all(axis=0)
            under_way = np.diff(np.concatenate([[1], row.astype(int), [1]]))
            assert row[-1] and (~row).sum() >= len(stage.swaps) >= 2
            assert (under_way == -1).sum() >= 1
            np.testing.assert_allclose(sorted(stage.tracks[:, -1, 0]), stage.xs)


def test_both_views_show_equally_many_things_whatever_happened() -> None:
    for family in ("change", "change_where"):
        sizes: dict[str, list[int]] = {}
        for i in range(160):
            item = World(family, seed=12, size=32)[i]
            assert item.frames.count == 2
            boxes = np.stack([thing.boxes for thing in item.objects if thing.shape != "lid"])
            shown = (~np.isnan(boxes[:, :, 0])).sum(axis=0)
            assert shown[0] == shown[1]
            sizes.setdefault(answer_text(item) if family == "change" else "any", []).append(int(shown[0]))
        means = [np.mean(counts) for counts in sizes.values()]
        assert max(means) - min(means) < 0.5


def test_places_of_one_view_do_not_tell_what_changed() -> None:
    # how full each place is, by answer: the same for every answer within chance, in both views
    counts = {kind: np.zeros((2, 16)) for kind in ("added", "removed", "moved", "recoloured", "nothing")}
    n = 250
    for kind, seen in counts.items():
        for seed in range(n):
            left_out = "moved" if kind != "moved" else "added"
            stage = stage_of("change", (kind, left_out), 1000 * len(kind) + seed)
            for view in range(2):
                for thing in stage.things:
                    spot = thing.spots[view]
                    if spot is not None:
                        x, y = np.array(spot) - np.array(stage.shift) * view
                        seen[view, int((y - 0.06) / 0.22) * 4 + int((x - 0.06) / 0.22)] += 1
    shares = np.stack(list(counts.values())) / n
    p = shares.mean()
    assert np.abs(shares - p).max() < 4.5 * np.sqrt(p * (1 - p) / n)


@pytest.mark.parametrize(("n", "frames"), [(3, 4), (3, 16), (4, 6), (4, 16), (5, 6), (5, 16), (6, 8), (6, 24)])
def test_things_change_places_evenly_and_are_never_lost(n: int, frames: int) -> None:
    rng = np.random.default_rng(6)
    seen = np.zeros(n)
    draws = 500
    for k in range(draws):
        tracks = draw_tracks(rng, n, frames, (k % 5) / 4)
        level = tracks - tracks.mean(axis=0)  # all drift together
        home = np.hypot(*(level[:, None, 0] - level[None, :, -1]).transpose(2, 0, 1))
        starts = home.argmin(axis=0)  # in whose place each ends
        assert (home.min(axis=0) < 1e-6).all() and len(set(starts)) == n  # in somebody's
        seen[(starts[0] - 0) % n] += 1
        if k < 40:
            for at in range(n):
                assert follow(tracks, at) == at
    p = 1 / n
    assert np.abs(seen / draws - p).max() < 4.2 * np.sqrt(p * (1 - p) / draws)


def test_camera_starts_anywhere_whichever_way_it_goes() -> None:
    starts = {motion: [] for motion, _ in STAGED["egomotion"].targets}
    for i in range(24 * 12):
        item = World("egomotion", seed=2, size=32, frame_count=4)[i]
        motion = answer_text(item)
        starts[motion].append(item.meta["camera"][0])
    every = np.concatenate([np.array(rows) for rows in starts.values()]) / (64 / 9, 64 / 9, 1, 2 * np.pi)
    assert every.min() >= 0 and every.max() <= 1
    for rows in starts.values():
        shares = np.array(rows) / (64 / 9, 64 / 9, 1, 2 * np.pi)
        assert np.abs(shares.mean(axis=0) - 0.5).max() < 4 * np.sqrt(1 / 12 / len(rows))
        assert np.abs(shares.std(axis=0) - np.sqrt(1 / 12)).max() < 4 * np.sqrt(1 / 180 / len(rows)) / (2 * 0.2887)


def test_more_is_more_and_the_held_out_ground_is_never_trained_on() -> None:
    def things(split: str, family: str) -> int:
        return max(len(of(family, split, difficulty=1.0, **SMALL)[i].objects) for i in range(20))

    for family in ("number", "word", "clock", "change", "cups", "egomotion", "identity", "static_answer"):
        assert things("more", family) > things("train", family), family
    for family in FAMILIES:
        grounds = {of(family, "train", **SMALL)[i].meta["ground"] for i in range(40)}
        held_out = {of(family, "background", **SMALL)[i].meta["ground"] for i in range(10)}
        assert len(held_out) == 1 and not held_out & grounds


def test_words_of_the_list_are_as_long_as_each_other() -> None:
    assert {len(word) for word in STAGED["word"].targets} == {5}
    assert len({len(number) for number in STAGED["number"].targets}) == 1


def test_families_with_scenes_of_their_own_are_left_out_of_shared_ones() -> None:
    assert set(FAMILIES) <= set(STAGED) and not set(FAMILIES) & set(source.SHARED)
    assert set(FAMILIES) <= set(World.families()) and not set(FAMILIES) & set(World.families(shared=True))
    assert middle(np.array([0.0, 0.0, 1.0, 0.5])).tolist() == [0.5, 0.25]
