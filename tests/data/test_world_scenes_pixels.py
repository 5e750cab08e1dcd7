"""What the World's families with scenes of their own draw: only evidence tells, and it looks as they say."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest
from oracles_world_scenes import answer_text, middle
from world_stages import patches_that_differ, rendered, stage_of

from entropy_vision.data.world import World, writing
from entropy_vision.data.world.cups import CupsStage
from entropy_vision.data.world.families import STAGED
from entropy_vision.data.world.identity import CrowdStage
from entropy_vision.question import Item


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
