"""The World's pixels show what its boxes and evidence say."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from oracles_world import centres, named
from oracles_world_flat import READ, named_in

from entropy_vision.data.world import World, draw
from entropy_vision.question import Item, SceneObject

FAMILIES = World.families(shared=True)
# what the names mean, within the jitter; written apart from the renderer's own table
NAMED_RGB = {"red": (210, 45, 45), "green": (50, 170, 70), "blue": (50, 90, 220), "yellow": (235, 205, 50)}
Paint = Callable[[tuple[int, ...]], tuple[int, ...]]


def patches_that_differ(a: np.ndarray, b: np.ndarray, patch: int = 16) -> np.ndarray:
    """bool [F, R, C] by plain loops."""
    frames, side = a.shape[0], a.shape[1]
    count = -(-side // patch)
    out = np.zeros((frames, count, count), bool)
    for f in range(frames):
        for r in range(count):
            for c in range(count):
                window = np.s_[f, r * patch : (r + 1) * patch, c * patch : (c + 1) * patch]
                out[f, r, c] = (a[window] != b[window]).any()
    return out


def repainted(world: World, i: int, which: list[int], monkeypatch: pytest.MonkeyPatch) -> Item:
    """Item i with the things at these places of the drawing order in opposite colours, all else the same."""
    real_render, real_draw = draw.render, draw.draw_sprite

    def draw_opposite(frame: np.ndarray, shape: str, size: float, x: float, y: float, paint: tuple[int, ...]) -> None:
        if frame.ndim == 3 and any(abs(size - marked) < 1e-9 for marked in sizes):
            paint = tuple(int(value < 128) * 255 for value in paint)
        real_draw(frame, shape, size, x, y, paint)

    def render(layout, size, difficulty, rng, kind):  # type: ignore[no-untyped-def]
        sizes.extend(layout.sprites[k].size * size for k in which)
        return real_render(layout, size, difficulty, rng, kind)

    sizes: list[float] = []
    with monkeypatch.context() as patched:
        patched.setattr(draw, "draw_sprite", draw_opposite)
        patched.setattr("entropy_vision.data.world.shared.render", render)
        return world[i]


def needed(item: Item) -> list[int]:
    """Places of the things that the question needs, by the oracle's reading."""
    if item.family == "chain":
        return list(item.meta["program"]["path"])
    if item.family in READ:
        text = item.answer.options[0] if item.family == "appear_order" else item.question
        return [k for k, thing in enumerate(item.objects) if any(thing is other for other in named_in(item, text))]
    if item.family == "count":
        return list(range(len(item.objects)))
    return [k for k, thing in enumerate(item.objects) if any(thing is other for other in named(item))]


def test_evidence_of_collisions_is_both_discs_around_every_meeting(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World("collisions", seed=11, size=100, frame_count=8)
    for i in range(12):
        item = world[i]
        drawn = patches_that_differ(item.frames.pixels, repainted(world, i, [0], monkeypatch).frames.pixels)
        wanted = np.zeros_like(item.evidence)
        for time, one, other, _ in item.meta["meetings"]:
            window = slice(int(np.floor(time)) - 1, int(np.ceil(time)) + 2)
            assert window.start >= 0 and window.stop <= 8
            for k in (one, other):
                x, y = (centres(item.objects[k]) * 100 // 16).astype(int)[window].T
                assert item.evidence[np.arange(8)[window], y, x].all()
                alone = touched(item, k)
                wanted[window] |= alone[window]
        assert not (item.evidence & ~drawn).any()  # all discs are of one size: all of them were repainted
        assert not (item.evidence & ~wanted).any()


def under_another(item: Item, k: int) -> np.ndarray:
    """bool [F]: whether the box of a later thing meets the one of thing k, round the torus."""
    widths = [np.nanmax(thing.boxes[:, 2:] - thing.boxes[:, :2], initial=0, axis=0) for thing in item.objects]
    met = np.zeros(item.frames.count, bool)
    for other in range(k + 1, len(item.objects)):
        away = np.abs(full_centres(item.objects[other]) - full_centres(item.objects[k]))
        met |= (np.minimum(away, 1 - away) < (widths[k] + widths[other]) / 2 + 2 / 96).all(axis=1)
    return met


def full_centres(thing: SceneObject) -> np.ndarray:
    """[F, 2]: the middle of a thing, also where an edge cuts its box."""
    low, high = thing.boxes[:, :2], thing.boxes[:, 2:]
    width = np.nanmax(high - low, axis=0)
    low = np.where(low <= 0, high - width, low)
    return low + width / 2


def touched(item: Item, k: int) -> np.ndarray:
    """bool [F, R, C]: patches that share a pixel with the box of a thing, or with its other part beyond an edge."""
    size, count = item.frames.pixels.shape[1], item.evidence.shape[1]
    width = item.meta["extents"][k][0] * size
    out = np.zeros_like(item.evidence)
    for f, box in enumerate(item.objects[k].boxes * size):
        spans = []
        for low, high in ((box[0], box[2]), (box[1], box[3])):
            low, high = (high - width if low <= 0 else low), (low + width if high >= size else high)
            pixels = np.arange(np.floor(low) - 1, np.ceil(high) + 1).astype(int) % size
            spans.append(np.isin(np.arange(count), pixels // 16))
        out[f] = spans[1][:, None] & spans[0][None, :]
    return out


@pytest.mark.parametrize("family", [*FAMILIES, *(name for name in READ if name != "collisions")])
@pytest.mark.parametrize("size", [64, 100])
def test_evidence_is_where_the_needed_things_are_drawn(family: str, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(family, seed=11, size=size, frame_count=6)
    wrong = total = 0
    for i in range(12):
        item = world[i]
        other = repainted(world, i, needed(item), monkeypatch)
        assert other.question == item.question
        changed = patches_that_differ(item.frames.pixels, other.frames.pixels)
        assert changed.any()
        assert not (changed & ~item.evidence).any(), item.key
        wrong, total = wrong + int((item.evidence & ~changed).sum()), total + int(item.evidence.sum())
    assert wrong <= 0.01 * total  # a faint edge pixel may come out the same in both colours


@pytest.mark.parametrize("family", FAMILIES)
def test_centre_of_every_box_has_the_named_color(family: str) -> None:
    world = World(family, seed=12, difficulty=0.0, size=96, frame_count=6)
    for i in range(10):
        item = world[i]
        for k, thing in enumerate(item.objects):
            seen = zip(item.frames.pixels, thing.boxes, centres(thing), under_another(item, k), strict=True)
            for frame, box, (x, y), under in seen:
                if np.isnan(x) or box.min() <= 0 or box.max() >= 1 or under:
                    continue  # not there, or cut by an edge, or not all to be seen
                pixel = frame[int(y * 96), int(x * 96)].astype(int)
                away = {name: np.abs(pixel - rgb).sum() for name, rgb in NAMED_RGB.items()}
                assert min(away, key=away.__getitem__) == thing.color and away[thing.color] < 60, item.key


@pytest.mark.parametrize("family", ["relation", "direction"])
def test_things_are_drawn_inside_their_boxes_and_fill_them(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(family, seed=13, difficulty=1.0, size=96, frame_count=6)
    for i in range(10):
        item = world[i]
        for k, thing in enumerate(item.objects):
            change = item.frames.pixels.astype(int) - repainted(world, i, [k], monkeypatch).frames.pixels
            weight = np.abs(change).sum(axis=3)
            for shown, box, under in zip(weight, thing.boxes, under_another(item, k), strict=True):
                if np.isnan(box[0]):
                    assert not shown.any()
                elif not under and box.min() > 0 and box.max() < 1:
                    rows, columns = np.nonzero(shown > 0.5 * shown.max())  # half covered
                    drawn = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
                    outside = (drawn - box * 96) * [-1, -1, 1, 1]
                    # a tip covers little of its last pixels, so it may seem to end inside
                    assert outside.max() <= 1.0 and outside.min() >= -2.0, (item.key, drawn, box * 96)


def test_thing_cut_by_an_edge_is_drawn_on_both_sides(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World("direction", seed=14, difficulty=0.0, size=96, frame_count=6)
    cut = 0
    for i in range(20):
        item = world[i]
        for k, thing in enumerate(item.objects):
            for f in np.flatnonzero((thing.boxes[:, 0] == 0) & (thing.boxes[:, 2] < 0.15)):
                changed = item.frames.pixels[f] != repainted(world, i, [k], monkeypatch).frames.pixels[f]
                width = thing.boxes[f, 2] * 96
                full = float(np.nanmax(thing.boxes[:, 2] - thing.boxes[:, 0])) * 96
                if full - width > 3:
                    cut += 1
                    assert changed[:, 0].any() and changed[:, -1].any()
    assert cut > 0


def test_background_stays_and_only_noise_changes_from_frame_to_frame() -> None:
    world = World("moved", seed=15, size=64, frame_count=8, difficulty=0.5)
    for i in range(10):
        item = world[i]
        pixels = item.frames.pixels.astype(int)
        empty = np.ones((64, 64), bool)
        for thing in item.objects:
            for box in thing.boxes[~np.isnan(thing.boxes[:, 0])]:
                x0, y0, x1, y1 = box * 64
                if box.min() <= 0 or box.max() >= 1:
                    empty[:] = False  # an edge cuts it: half of it lies elsewhere
                empty[max(0, int(y0) - 2) : int(y1) + 3, max(0, int(x0) - 2) : int(x1) + 3] = False
        if empty.sum() < 200:
            continue
        change = np.diff(pixels, axis=0)[:, empty]
        assert 0.5 < change.std() < 8 and np.abs(change).max() < 40


def test_things_stand_out_from_the_ground_at_every_difficulty(monkeypatch: pytest.MonkeyPatch) -> None:
    for difficulty in (0.0, 0.5, 1.0):
        world = World("image", seed=16, difficulty=difficulty, size=96)
        for i in range(25):
            pixels = world.scene(i)[0].frames.pixels[0].astype(int)
            with monkeypatch.context() as patched:
                patched.setattr(draw, "draw_sprite", lambda *args: None)
                patched.setattr(draw, "touched_patches", lambda layout, *args: np.ones((1, 6, 6), bool))
                ground = world.scene(i)[0].frames.pixels[0].astype(int)
            for thing in world.scene(i)[0].objects:
                x, y = (centres(thing)[0] * 96).astype(int)
                assert np.abs(pixels[y, x] - ground[y, x]).max() > 20, (difficulty, i, thing)


def test_difficulty_makes_more_and_smaller_things() -> None:
    def look(difficulty: float) -> tuple[float, float]:
        scenes = [World("image", difficulty=difficulty, size=32).scene(i)[0].objects for i in range(40)]
        widths = [thing.boxes[0, 2] - thing.boxes[0, 0] for things in scenes for thing in things]
        return float(np.mean([len(things) for things in scenes])), float(np.mean(widths))

    (few, large), (some, middle), (many, small) = look(0.0), look(0.5), look(1.0)
    assert 3 <= few < some < many <= 8
    assert large > middle > small
    assert 12 <= middle * 96 <= 18
