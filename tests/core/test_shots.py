"""Cuts told apart from everything else that changes a picture: drawn videos whose cuts are known."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from media import needs_decord, write

from entropy_vision.errors import InputError
from entropy_vision.frames import decode, read_video
from entropy_vision.probe import Limits
from entropy_vision.sampling import Sampling, sample
from entropy_vision.shots import sample_shots, shots
from entropy_vision.stats import wilson_interval

SIDE, WORLD = 112, 420
EVENTS = ("still", "pan", "fast pan", "zoom", "objects", "fade", "flash", "noise", "shake")


def ground(rng: np.random.Generator) -> np.ndarray:
    """float32 [WORLD, WORLD, 3]: texture of a random coarseness, or none, and discs and boxes on it."""
    picture = np.zeros((WORLD, WORLD, 3), np.float32) + rng.uniform(60, 190, 3).astype(np.float32)
    finest = rng.choice([2, 5, 14, WORLD])
    for step in (finest, 4 * finest, 12 * finest):
        if step < WORLD:
            coarse = rng.normal(size=(WORLD // step + 2, WORLD // step + 2, 3)).astype(np.float32)
            coarse = 0.8 * coarse.mean(2, keepdims=True) + 0.4 * coarse
            picture += rng.uniform(8, 25) * cv2.resize(coarse, (WORLD, WORLD), interpolation=cv2.INTER_CUBIC)
    for _ in range(rng.integers(20, 60)):
        colour, (x, y), (w, h) = rng.uniform(20, 235, 3).tolist(), rng.integers(0, WORLD, 2), rng.integers(6, 36, 2)
        if rng.random() < 0.5:
            cv2.circle(picture, (int(x), int(y)), int(w), colour, cv2.FILLED, cv2.LINE_AA)
        else:
            cv2.rectangle(picture, (int(x), int(y)), (int(x + w), int(y + h)), colour, cv2.FILLED)
    return np.clip(picture, 0, 255)


def drawn_shot(rng: np.random.Generator, count: int, event: str) -> list[np.ndarray]:
    """uint8 [SIDE, SIDE, 3] frames of one scene in which something happens that is no cut."""
    picture, angle = ground(rng), rng.uniform(0, 2 * np.pi)
    speed = {"pan": rng.uniform(0.5, 2), "fast pan": rng.uniform(3, 6)}.get(event, 0.0)
    grows = 1 + rng.choice([-1, 1]) * rng.uniform(0.005, 0.02) if event == "zoom" else 1.0
    noise = rng.uniform(8, 14) if event == "noise" else rng.uniform(0, 3)
    light = np.ones(count)
    if event == "fade":
        light = np.linspace(1, rng.uniform(0.4, 0.7), count)[:: rng.choice([-1, 1])]
    flash = rng.integers(2, count - 2) if event == "flash" else -1
    draw = rng.uniform
    things = [
        (draw(0, SIDE, 2), draw(-5, 5, 2), draw(10, 28), draw(20, 235, 3).tolist())
        for _ in range(3 if event == "objects" else 0)
    ]
    frames = []
    for number in range(count):
        step = number - count / 2
        scale = grows**step
        corner = WORLD / 2 - scale * SIDE / 2 + speed * step * np.array([np.cos(angle), np.sin(angle)])
        corner += rng.uniform(-2, 2, 2) if event == "shake" else 0
        view = np.array([[scale, 0, corner[0]], [0, scale, corner[1]]])
        frame = cv2.warpAffine(picture, view, (SIDE, SIDE), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
        for start, velocity, radius, colour in things:
            x, y = (start + velocity * number).astype(int) % SIDE
            cv2.circle(frame, (int(x), int(y)), int(radius), colour, cv2.FILLED, cv2.LINE_AA)
        frame = frame * light[number]
        if number == flash:
            frame = 0.3 * frame + 0.7 * 255
        frames.append(np.clip(frame + rng.normal(0, noise, frame.shape), 0, 255).astype(np.uint8))
    return frames


def drawn(seed: int) -> tuple[list[np.ndarray], list[int]]:
    """(frames, places of the cuts): a shot for every event, in random order."""
    rng = np.random.default_rng(seed)
    parts = [drawn_shot(rng, int(rng.integers(8, 20)), str(event)) for event in rng.permutation(EVENTS)]
    cuts = np.cumsum([len(part) for part in parts])[:-1].tolist()
    return list(itertools.chain(*parts)), cuts


def timed(frames: list[np.ndarray], fps: float = 24) -> list[tuple[float, np.ndarray]]:
    return [(number / fps, frame) for number, frame in enumerate(frames)]


def numbers_of(frames: list[np.ndarray]) -> list[int]:
    return [shot for shot, _, _ in shots(timed(frames))]


def cuts_found(frames: list[np.ndarray]) -> list[int]:
    numbers = numbers_of(frames)
    assert len(numbers) == len(frames)
    return [place for place in range(1, len(numbers)) if numbers[place] != numbers[place - 1]]


def mean_differences(frames: list[np.ndarray]) -> np.ndarray:
    """Of the luma of each frame and the one before; 0 for the first."""
    grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY).astype(int) for frame in frames]
    return np.array([0.0] + [np.abs(now - before).mean() for before, now in itertools.pairwise(grey)])


def test_cuts_are_found_and_nothing_else_is_where_differences_fail() -> None:
    """96 cuts among pans, zooms, shakes, fades, flashes, noise and things that move; 12 seeds."""
    hits = wrong = missed = 0
    differences, truth = [], []
    for seed in range(700, 712):
        frames, cuts = drawn(seed)
        found = cuts_found(frames)
        hits += len(set(found) & set(cuts))
        wrong += len(set(found) - set(cuts))
        missed += len(set(cuts) - set(found))
        differences.append(mean_differences(frames))
        truth.append(np.isin(np.arange(len(frames)), cuts))
    precision, recall = hits / (hits + wrong), hits / (hits + missed)
    told = f"{hits} hits, {wrong} wrong, {missed} missed"
    assert wilson_interval(hits, hits + wrong)[0] > 0.9 and wilson_interval(hits, hits + missed)[0] > 0.9, told
    # beside it, the threshold on differences that is best for these very videos
    difference, cut = np.concatenate(differences), np.concatenate(truth)
    best = max(f_measure(cut, difference > level) for level in np.arange(2, 80, 0.5))
    assert best + 0.05 < 2 * precision * recall / (precision + recall), (best, told)


def f_measure(truth: np.ndarray, taken: np.ndarray) -> float:
    return 2 * float((truth & taken).sum()) / float(truth.sum() + taken.sum())


@pytest.mark.parametrize("event", EVENTS)
def test_a_shot_is_one_whatever_happens_in_it(event: str) -> None:
    rng = np.random.default_rng(40)
    assert cuts_found(drawn_shot(rng, 12, event)) == []


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("gain", [0.7, 0.9, 1.1, 1.4])
def test_a_quick_fade_of_a_flat_picture_is_no_cut(gain: float, seed: int) -> None:
    first = drawn_shot(np.random.default_rng(seed), 5, "still")[0] * (0.3 if gain > 1 else 1.0)
    assert cuts_found([np.clip(first * gain**step, 0, 255).astype(np.uint8) for step in range(5)]) == []


def test_shots_of_one_frame_are_shots_and_a_flash_is_none() -> None:
    rng = np.random.default_rng(3)
    one, other, third = (drawn_shot(rng, 5, "pan") for _ in range(3))
    assert cuts_found([*one, *other, *third]) == [5, 10]
    assert cuts_found([*one, other[0], *third]) == [5, 6]
    assert cuts_found([*one, other[0]]) == [5]
    assert cuts_found([*one[:3], other[0], *one[3:]]) == []  # one frame of something else, as a flash is
    assert cuts_found([*one, *other[:2], *one]) == [5, 7]
    assert cuts_found([other[0], *one]) == [1]
    assert cuts_found(one[:1]) == [] and cuts_found([]) == []


@pytest.mark.parametrize("shape", [(1, 1), (3, 500), (17, 9), (300, 40)])
def test_frames_of_any_shape_have_shots(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    frames = [np.full((*shape, 3), level, np.uint8) for level in (20, 20, 220, 220)]
    frames += [rng.integers(0, 256, (*shape, 3), np.uint8)] * 2
    assert all(later - earlier in (0, 1) for earlier, later in itertools.pairwise(numbers_of(frames)))


@pytest.mark.parametrize("fps", [0.1, 3.0, 7.0, 1000.0])
def test_every_shot_gives_its_first_frame_and_so_many_a_second(fps: float) -> None:
    frames, cuts = drawn(11)
    got = [time for time, _ in sample_shots(timed(frames), fps)]
    truth = []
    for start, end in itertools.pairwise([0, *cuts, len(frames)]):  # each shot as if it were a video
        truth += [time for time, _ in sample(iter(timed(frames)[start:end]), fps)]
    assert got == truth
    assert set(np.array(cuts) / 24) <= set(got)


def test_shots_are_told_while_the_frames_pass() -> None:
    """One frame at most is held back, however long the video is."""
    frames, _ = drawn(12)
    asked = 0

    def source() -> Iterator[tuple[float, np.ndarray]]:
        nonlocal asked
        for frame in timed(frames):
            asked += 1
            yield frame

    for number, _ in enumerate(shots(source()), 1):
        assert asked - number <= 1


@needs_decord
def test_scenes_of_a_file_are_equal_by_both_decoders(tmp_path: Path) -> None:
    frames, cuts = drawn(13)
    path = write(tmp_path / "a.mp4", np.array(frames), fps=24, options={"crf": "20"})
    one, info = decode(path, Sampling(scenes=2.0), size=SIDE, decoder="decord")
    other, _ = decode(path, Sampling(scenes=2.0), size=SIDE, decoder="pyav")
    assert info.decoder == "decord"
    np.testing.assert_array_equal(one.pixels, other.pixels)
    np.testing.assert_array_equal(one.pts_seconds, other.pts_seconds)
    assert np.isin(np.round(np.array([0, *cuts]) / 24, 6), np.round(one.pts_seconds, 6)).all()
    assert one.count < len(frames) / 4
    every = read_video(path, size=SIDE)
    taken = np.isin(every.pts_seconds, one.pts_seconds)
    np.testing.assert_array_equal(every.pixels[taken], one.pixels)


def test_what_is_taken_of_scenes_is_limited_too(tmp_path: Path) -> None:
    """How many frames there are is not known before they are decoded."""
    frames, cuts = drawn(13)
    path = write(tmp_path / "a.mp4", np.array(frames), fps=24)
    least = len(cuts) * SIDE * SIDE  # a frame for every shot but one
    for decoder in ("auto", "pyav"):
        with pytest.raises(InputError, match="pixels"):
            read_video(path, size=SIDE, scenes=0.1, decoder=decoder, limits=Limits(max_total_pixels=least))
