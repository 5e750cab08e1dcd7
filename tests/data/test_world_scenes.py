"""The World's families with scenes of their own: true, balanced, and only their evidence tells."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from oracles_world_scenes import READ, answer_from_rationale, answer_text, evidence_alone, follow, middle, noisy_text

from entropy_vision.data.world import World, source, tokens, vocabulary, writing
from entropy_vision.data.world.cups import CupsStage, draw_swaps, swapped
from entropy_vision.data.world.families import STAGED
from entropy_vision.data.world.identity import CrowdStage, draw_tracks
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


def stage_of(family: str, target: Any, seed: int = 0, split: str = "train", d: float = 0.5, frames: int = 8) -> Any:
    """A scene, by the family itself; the same stream for every target."""
    rng = np.random.default_rng(seed)
    while True:
        count = 1 if STAGED[family].media == "image" else frames
        stage = STAGED[family].stage(STAGED[family], target, Setting(split, d, count), rng)
        if stage is not None:
            return stage


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


def rendered(stage: Any, size: int = 96) -> np.ndarray:
    pixels: np.ndarray = stage.render(size, np.random.default_rng(7))
    return pixels


def patches_that_differ(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """bool [F, R, C] at patch size 16."""
    count = a.shape[1] // 16
    changed: np.ndarray = (a != b).any(axis=3).reshape(len(a), count, 16, count, 16).any(axis=(2, 4))
    return changed


@pytest.mark.parametrize("family", ["number", "word", "static_answer", "clock"])
@pytest.mark.parametrize("d", [0.0, 1.0])
def test_what_is_written_shows_in_the_evidence_only(family: str, d: float) -> None:
    targets = STAGED[family].targets
    idle = total = 0
    for seed in range(12):
        stage = stage_of(family, targets[7 * seed % len(targets)], seed, d=d, frames=4)
        field = "clocks" if family == "clock" else "signs"
        first, *rest = getattr(stage, field)
        (mask,) = stage.evidence(96)
        union = np.zeros_like(mask)
        for other in targets[:: len(targets) // 12 - 1]:
            changed = replace(first, **{"time" if family == "clock" else "text": other})
            altered = replace(stage, **{field: (changed, *rest)})
            assert (altered.evidence(96)[0] == mask).all()  # nor does the evidence itself tell
            differ = patches_that_differ(rendered(stage), rendered(altered))
            assert not (differ & ~mask).any()
            union |= differ
        idle, total = idle + int((mask & ~union).sum()), total + int(mask.sum())
    # a cell's margin or the edge of the hands' circle may reach into a patch that none of these needs
    assert idle <= 0.25 * total


def test_changed_thing_shows_in_the_evidence_only() -> None:
    for seed in range(40):
        kind = ("added", "removed", "moved", "recoloured")[seed % 4]
        stage = stage_of("change", (kind, "moved" if kind != "moved" else "added"), seed)
        without = replace(
            stage,
            things=tuple(thing for thing in stage.things if thing not in stage.changed),
            paints=tuple(p for t, p in zip(stage.things, stage.paints, strict=True) if t not in stage.changed),
        )
        (mask,) = stage.evidence(96)
        differ = patches_that_differ(rendered(stage), rendered(without))
        assert differ.any() and not (differ & ~mask).any()
        assert mask.sum() <= 2 * 2 * 9
        # the place is evidence in both views, whether or not it was filled
        assert mask[0].any() and mask[1].any()


def repainted(stage: Any, method: str, own: int, which: int, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """The scene with one thing in opposite colours; `which`: the place of the thing among the method's arguments."""
    real = getattr(type(stage), method)

    def draw(self: Any, frame: np.ndarray, *given: Any) -> None:
        paints = [
            tuple(255 - value for value in g) if isinstance(g, tuple) and given[which] == own else g for g in given
        ]
        real(self, frame, *paints)

    with monkeypatch.context() as patched:
        patched.setattr(type(stage), method, draw)
        return rendered(stage)


@pytest.mark.parametrize("d", [0.0, 1.0])
def test_cups_show_in_the_evidence_only(d: float, monkeypatch: pytest.MonkeyPatch) -> None:
    idle = total = 0
    for seed in range(12):
        stage: CupsStage = stage_of("cups", seed, seed, d=d, frames=10)
        (mask,) = stage.evidence(96)
        differ = np.zeros_like(mask)
        for cup in range(stage.count):
            one = patches_that_differ(rendered(stage), repainted(stage, "_draw_cup", cup, 0, monkeypatch))
            assert one.any(axis=(1, 2)).all()
            differ |= one
        assert differ.all(axis=(1, 2)).sum() == 0
        assert not (differ & ~mask).any()
        # in the first frames the ball is evidence too
        idle, total = idle + int((mask & ~differ)[stage.shown :].sum()), total + int(mask.sum())
    assert idle <= 0.03 * total


@pytest.mark.parametrize("d", [0.0, 1.0])
def test_ringed_thing_shows_in_the_evidence_only(d: float, monkeypatch: pytest.MonkeyPatch) -> None:
    idle = total = 0
    for seed in range(12):
        stage: CrowdStage = stage_of("identity", seed, seed, d=d, frames=10)
        (mask,) = stage.evidence(96)
        differ = patches_that_differ(rendered(stage), repainted(stage, "_draw", 0, 0, monkeypatch))
        assert differ.any(axis=(1, 2)).all() and not (differ & ~mask).any()
        idle, total = idle + int((mask & ~differ)[stage.marked :].sum()), total + int(mask.sum())
        other = replace(
            stage, tracks=stage.tracks + np.where(np.arange(len(stage.tracks)) == 0, 5.0, 0.0)[:, None, None]
        )
        assert not (patches_that_differ(rendered(stage), rendered(other)) & ~mask).any()


def test_ground_shows_in_the_evidence_of_the_camera_only() -> None:
    covered = 0
    for seed in range(20):
        stage = stage_of("egomotion", ("left", 1), seed, split="more", d=1.0)
        (mask,) = stage.evidence(192)
        moved = replace(stage, base=tuple(255 - value for value in stage.base))
        differ = patches_that_differ(rendered(stage, 192), rendered(moved, 192))
        assert (differ == mask).all()
        covered += int((~mask).sum())
    assert covered > 0


def test_answer_stands_still_while_the_rest_moves() -> None:
    for i in range(30):
        item = World("static_answer", size=96, frame_count=6, seed=4)[i]
        assert item.meta["move"] in ("flicker", "panning", "water")
        pixels = item.frames.pixels.astype(int)
        change = np.abs(np.diff(pixels, axis=0)).sum(axis=3)
        outside = np.ones((96, 96), bool)
        for thing in item.objects:
            x0, y0, x1, y1 = np.rint(thing.boxes[0] * 96).astype(int)
            assert (change[:, y0:y1, x0:x1] == 0).all()
            outside[max(0, y0 - 8) : y1 + 8, max(0, x0 - 8) : x1 + 8] = False
        assert (change[:, outside] > 0).mean() > 0.8
    moves = Counter(World("static_answer", size=32, frame_count=4)[i].meta["move"] for i in range(90))
    assert min(moves[move] for move in ("flicker", "panning", "water")) > 12


@pytest.mark.parametrize("family", ["number", "word", "clock"])
def test_regimes_are_drawn_evenly_and_look_as_they_say(family: str) -> None:
    items = [World(family, size=64, seed=8)[i] for i in range(150)]
    regimes = Counter(item.meta["regime"] for item in items)
    assert set(regimes) == {"clean", "textured", "adversarial"} and min(regimes.values()) > 28

    def roughness(item: Item, inside: bool) -> float:
        x0, y0, x1, y1 = np.rint(item.objects[0].boxes[0] * 64).astype(int)
        keep = np.zeros((64, 64), bool)
        keep[y0:y1, x0:x1] = True
        luma = item.frames.pixels[0].astype(float).mean(axis=2)
        return float(np.abs(np.diff(luma, axis=1))[(keep if inside else ~keep)[:, 1:]].mean())

    def mean(regime: str, inside: bool) -> float:
        return float(np.mean([roughness(item, inside) for item in items if item.meta["regime"] == regime]))

    assert mean("clean", False) < mean("adversarial", False) and mean("adversarial", True) < mean("clean", True)
    assert mean("adversarial", True) < mean("adversarial", False) and mean("clean", True) > mean("clean", False)
    contrast = {
        regime: np.mean([i.meta["contrast"] for i in items if i.meta["regime"] == regime]) for regime in regimes
    }
    assert contrast["adversarial"] < 0.5 * contrast["clean"]


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


def test_pixels_move_against_the_camera() -> None:
    # seen by the pixels themselves: shift the first frame as the camera says and it is closer to the last
    for i in range(24):
        item = World("egomotion", size=96, frame_count=4, difficulty=0.3, seed=3)[i]
        motion = answer_text(item)
        if motion not in ("left", "right", "up", "down"):
            continue
        first, last = (item.frames.pixels[f].astype(float).mean(axis=2) for f in (0, 1))
        best = min(
            ((dy, dx) for dy in range(-16, 17, 2) for dx in range(-16, 17, 2)),
            key=lambda by: np.abs(np.roll(first, by, axis=(0, 1)) - last)[18:-18, 18:-18].mean(),
        )
        told = {"left": (0, 1), "right": (0, -1), "up": (1, 0), "down": (-1, 0)}[motion]
        assert np.dot(best, told) > 2 and abs(np.dot(best, told[::-1])) <= 4, (item.key, motion, best)


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


def test_writing_is_the_area_average_of_a_large_one() -> None:
    # the same box four times as large, averaged over blocks of 4 x 4: exact within the rounding of bytes
    for x, y, height in ((30.3, 21.7, 13.1), (20.0, 20.0, 40.0), (5.5, 3.2, 9.0)):
        for text, font in (("47", writing.FONTS[0]), ("WHALE", writing.FONTS[2])):
            small, large = np.full((48, 64), 10, np.uint8), np.full((192, 256), 10, np.uint8)
            writing.write(small, text, font, writing.field(text, x, y, height), (250,))
            writing.write(large, text, font, writing.field(text, 4 * x, 4 * y, 4 * height), (250,))
            averaged = large.reshape(48, 4, 64, 4).mean(axis=(1, 3))
            assert np.abs(averaged - small).max() <= 1.1 and (small > 128).any()
            x0, y0, x1, y1 = writing.field(text, x, y, height)
            outside = np.ones((48, 64), bool)
            outside[max(0, int(y0)) : int(np.ceil(y1)), max(0, int(x0)) : int(np.ceil(x1))] = False
            assert (small[outside] == 10).all()


def test_every_word_of_the_list_can_be_told_from_every_other_at_seven_pixels() -> None:
    for texts, least in ((STAGED["word"].targets, 400), (STAGED["number"].targets, 100)):
        drawn = []
        for text in texts:
            frame = np.zeros((9, 48), np.uint8)
            writing.write(frame, text, writing.FONTS[0], writing.field(text, 24.0, 4.5, 7.0), (255,))
            drawn.append(frame.astype(int).ravel())
        away = np.abs(np.array(drawn)[:, None] - np.array(drawn)[None]).sum(axis=2)
        away[np.diag_indices(len(texts))] = 10**6
        assert away.min() > least


def test_octaves_of_the_ground_change_without_a_jump() -> None:
    crossed = 0
    for i in range(60):
        item = World("egomotion", size=64, difficulty=0.0, frame_count=24, seed=1)[i]
        octave = np.floor([camera[2] for camera in item.meta["camera"]])
        if octave[0] == octave[-1]:
            continue
        crossed += 1
        change = np.abs(np.diff(item.frames.pixels.astype(float).mean(axis=3), axis=0)).mean(axis=(1, 2))
        at = int(np.flatnonzero(np.diff(octave))[0])
        beside = change[[max(0, at - 1), min(len(change) - 1, at + 1)]]
        assert change[at] < 1.25 * beside.max()
    assert crossed >= 3


NAMED_RGB = {"red": (210, 45, 45), "green": (50, 170, 70), "blue": (50, 90, 220), "yellow": (235, 205, 50),
             "purple": (150, 65, 190), "orange": (240, 135, 30)}  # fmt: skip


@pytest.mark.parametrize("family", ["change", "change_where", "cups", "identity"])
def test_middle_of_every_box_has_the_named_color(family: str) -> None:
    looked = 0
    for i in range(12):
        item = World(family, seed=12, difficulty=0.0, size=128, frame_count=8)[i]
        light = item.meta.get("light", 1.0)
        for thing in item.objects:
            for f, box in enumerate(thing.boxes[: 6 if family == "identity" else 8]):  # then come digits
                if np.isnan(box[0]) or thing.shape in ("lid", "cup"):
                    continue
                x, y = (middle(box) * 128).astype(int)
                pixel = item.frames.pixels[f, y, x] / (light if f else 1.0)
                away = {name: np.abs(pixel - rgb).sum() for name, rgb in NAMED_RGB.items()}
                assert min(away, key=away.__getitem__) == thing.color and away[thing.color] < 70, (item.key, f)
                looked += 1
    assert looked >= 12


def test_hands_of_a_clock_point_where_the_time_says() -> None:
    read = 0
    for i in range(40):
        item = World("clock", seed=5, difficulty=0.0, size=224)[i]
        if item.meta["regime"] != "clean":
            continue
        pixels = item.frames.pixels[0].astype(int)
        for thing, (hour, minute) in zip(item.objects, item.meta["times"], strict=True):
            (x, y), radius = middle(thing.boxes[0]) * 224, (thing.boxes[0, 2] - thing.boxes[0, 0]) * 112
            rows, columns = (slice(int(at - 0.6 * radius), int(at + 0.6 * radius)) for at in (y, x))
            ink = np.abs(pixels - np.median(pixels[rows, columns], axis=(0, 1))).sum(axis=2)

            def at(turn: float, share: float, x: float = x, y: float = y, reach: float = radius) -> tuple[int, int]:
                angle = 2 * np.pi * turn
                return int(y - np.cos(angle) * share * reach), int(x + np.sin(angle) * share * reach)

            assert ink[at(minute / 60, 0.7)] > 100 and ink[at((hour + minute / 60) / 12, 0.4)] > 100, item.key
            others = [m for m in range(12) if m != minute // 5]
            assert max(ink[at(m / 12, 0.7)] for m in others) < 60  # the hour hand does not reach so far
            read += 1
    assert read > 8


def test_digits_on_a_plate_are_those_of_the_answer() -> None:
    def ink_box(mask: np.ndarray) -> np.ndarray:
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        inside = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].astype(np.float32)
        wide = cv2.resize(inside, (20, 32), interpolation=cv2.INTER_AREA)
        return np.append(wide.ravel(), [4 * inside.shape[1] / inside.shape[0]])

    known = {}
    for digit in "0123456789":
        for font, stroke in zip(writing.FONTS, (13, 10, 9), strict=True):
            canvas = np.zeros((288, 288), np.uint8)
            cv2.putText(canvas, digit, (96, 192), font, 96 / 21, 255, stroke)
            known[digit, font] = ink_box(canvas > 127)
    read = 0
    for i in range(45):
        item = World("number", seed=5, difficulty=0.0, size=448)[i]
        if item.meta["regime"] != "clean":
            continue
        at = next(k for k, text in enumerate(item.meta["texts"]) if int(text) == item.answer.value)
        x0, y0, x1, y1 = item.objects[at].boxes[0] * 448
        told = ""
        for low, high in ((x0, (x0 + x1) / 2), ((x0 + x1) / 2, x1)):
            cell = item.frames.pixels[0, round(y0) : round(y1), round(low) : round(high)].astype(int)
            away = np.abs(cell - cell[0, 0]).sum(axis=2)
            seen = ink_box(away > away.max() / 2)
            told += min(known, key=lambda name: np.abs(known[name] - seen).sum())[0]
        assert told == str(item.answer.value), item.key
        read += 1
    assert read > 8
