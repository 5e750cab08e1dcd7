"""The World's families with scenes of their own: true, balanced, and only their evidence tells."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from oracles_world_scenes import READ, answer_from_rationale, answer_text, middle

from entropy_vision.data.world import World, source, tokens, vocabulary
from entropy_vision.data.world.cups import CupsStage, draw_swaps, swapped
from entropy_vision.data.world.families import STAGED
from entropy_vision.data.world.identity import CrowdStage
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
                    said += tokens(f"{item.rationale} {options} {item.answer.value}".replace("E", "").replace("F", ""))
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


@pytest.mark.parametrize("family", FAMILIES)
def test_twin_has_the_same_question_and_another_answer(family: str) -> None:
    twin = STAGED[family].twin
    assert twin is not None
    for seed, target in enumerate(STAGED[family].targets[::7][:12]):
        one, other = stage_of(family, target, seed).asks[0], stage_of(family, twin(target), seed).asks[0]
        assert one.question == other.question and one.answer.options == other.answer.options
        assert one.answer.value != other.answer.value
        assert twin(target) in STAGED[family].targets


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
    for seed in range(25):
        stage = stage_of(family, targets[seed % len(targets)], seed, d=d)
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
def test_asked_cup_shows_in_the_evidence_only(d: float, monkeypatch: pytest.MonkeyPatch) -> None:
    idle = total = 0
    for seed in range(12):
        stage: CupsStage = stage_of("cups", seed, seed, d=d, frames=10)
        (mask,) = stage.evidence(96)
        other = repainted(stage, "_draw_cup", stage.balls[0][1], 0, monkeypatch)
        differ = patches_that_differ(rendered(stage), other)
        assert differ.all(axis=(1, 2)).sum() == 0 and differ.any(axis=(1, 2)).all()
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
    n = 400
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


def test_end_of_the_ringed_thing_says_nothing_of_its_start() -> None:
    stayed = nearest = 0
    n = 200
    for seed in range(n):
        stage: CrowdStage = stage_of("identity", seed % 60, seed, d=0.5, frames=16)
        level = stage.tracks - stage.tracks.mean(axis=0)  # all drift together
        places, ends = level[:, 0], level[:, -1]
        home = np.hypot(*(places[:, None] - ends[None]).transpose(2, 0, 1))
        assert np.allclose(np.sort(home, axis=1)[:, 0], 0)  # they change places with each other
        stayed += int(home[0, 0] < 1e-6)
        nearest += int(home[0].argmin() == 0)
    count = len(places)
    assert abs(stayed / n - 1 / count) < 4 * np.sqrt(1 / count * (1 - 1 / count) / n)
    assert stayed == nearest


def test_camera_starts_anywhere_whichever_way_it_goes() -> None:
    starts = {motion: [] for motion, _ in STAGED["egomotion"].targets}
    for i in range(24 * 20):
        item = World("egomotion", seed=2, size=32, frame_count=4)[i]
        motion = answer_text(item)
        starts[motion].append(item.meta["camera"][0])
    every = np.concatenate([np.array(rows) for rows in starts.values()]) / (64 / 9, 64 / 9, 1, 2 * np.pi)
    assert every.min() >= 0 and every.max() <= 1
    for rows in starts.values():
        mean = (np.array(rows) / (64 / 9, 64 / 9, 1, 2 * np.pi)).mean(axis=0)
        assert np.abs(mean - 0.5).max() < 4 * np.sqrt(1 / 12 / len(rows))


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
    assert set(FAMILIES) == set(STAGED) and not set(FAMILIES) & set(source.SHARED)
    assert middle(np.array([0.0, 0.0, 1.0, 0.5])).tolist() == [0.5, 0.25]
