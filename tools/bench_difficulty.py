"""Does difficulty make every family harder? `python tools/bench_difficulty.py [--items 300]` prints a Markdown table.

A fixed observer answers items of growing difficulty. It reads places, times and colours with a fixed error in pixels,
frames and RGB (`PIXELS`, `FRAMES`, `RGB`), and overlooks a thing the more often the smaller it is and the less it
stands out from its surroundings. What it sees goes through the oracles of the tests, which know the question's words
only; where they make nothing of it, it guesses. Its accuracy must fall from step to step, up to its interval.

What the oracles read from `Item.meta` (plates, cameras) is seen without error: of families that rest on it, only what
is overlooked counts, and a level row says nothing.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from entropy_vision.data.world import World
from entropy_vision.data.world.draw import RGB as PAINTS
from entropy_vision.question import Item, SceneObject
from entropy_vision.rl import verify

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
import oracles_world_flat
import oracles_world_scenes

STEPS = (0.0, 0.25, 0.5, 0.75, 1.0)
PIXELS = 4.0  # standard deviation of a place, in every frame
FRAMES = 0.8  # of the frame in which something comes or goes
RGB = 28.0  # of each channel of a colour
TOUCH = 5.0  # pixels between two discs that are taken for a touch
_UNCLEAR = (AssertionError, ValueError, IndexError, KeyError, TypeError)  # what oracles raise where nothing fits


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=300, help="a family and step")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--families", nargs="*", default=list(World.families()))
    parser.add_argument("--json", type=Path, help="also write the accuracies here")
    options = parser.parse_args()
    if options.items < 2:
        parser.error(f"--items must be at least 2, got {options.items}")
    print(f"| family | {' | '.join(f'{step:g}' for step in STEPS)} | ± | Spearman | falls |")
    print("|---|" + "---|" * (len(STEPS) + 3))
    found = {}
    for family in options.families:
        scores = np.array([measure(family, step, options.items, options.size) for step in STEPS])
        means, errors = scores.mean(axis=1), scores.std(axis=1, ddof=1) / math.sqrt(options.items)
        found[family] = means.tolist()
        rises = np.diff(means) > 1.96 * np.hypot(errors[1:], errors[:-1])
        falls = not rises.any() and means[0] - means[-1] > 1.96 * math.hypot(errors[0], errors[-1])
        row = " | ".join(f"{mean:.3f}".lstrip("0") for mean in means)
        sign = "yes" if falls else "level" if np.ptp(means) == 0 else "NO"
        print(f"| `{family}` | {row} | {1.96 * errors.max():.3f} | {spearman(means):+.1f} | {sign} |", flush=True)
    if options.json:
        options.json.write_text(json.dumps(found, indent=1))


def measure(family: str, difficulty: float, count: int, size: int) -> list[float]:
    """Scores of the observer on the first items of a family."""
    world = World(family, "test", difficulty=difficulty, seed=5, size=size)
    return [score(world[i], np.random.default_rng([5, i])) for i in range(count)]


def score(item: Item, rng: np.random.Generator) -> float:
    """What the observer's answer earns; where it has none, what a guess earns on average."""
    seen = glance(item, rng)
    try:
        if item.family == "collisions":
            text = touches(item, seen, rng)
        elif item.family in oracles_world_scenes.READ:
            text = oracles_world_scenes.answer_text(seen)
        else:
            text = oracles_world_flat.answer_text(seen)
    except _UNCLEAR:
        return guess(item)
    return verify(f"<think>seen</think><answer>{text}</answer>", item.answer).score


def guess(item: Item) -> float:
    """Chance of a blind guess."""
    if item.answer.kind == "choice":
        return 1 / len(item.answer.options)
    return {"yesno": 0.5, "integer": 0.25 if item.family in ("count", "collisions") else 0.0}.get(item.answer.kind, 0.0)


def glance(item: Item, rng: np.random.Generator) -> Item:
    """The item as the observer sees it; `meta["noticed"]` says which things those are."""
    things, noticed = [], []
    for k, thing in enumerate(item.objects):
        if rng.random() < overlooked(item, thing):
            continue
        seen = seen_thing(item, thing, rng)
        if seen is not None:
            things.append(seen)
            noticed.append(k)
    meta = {**item.meta, "noticed": noticed}
    if "extents" in meta:  # a list beside the objects: it shrinks with them
        meta["extents"] = [item.meta["extents"][k] for k in noticed]
    return replace(item, objects=tuple(things), meta=meta)


def seen_thing(item: Item, thing: SceneObject, rng: np.random.Generator) -> SceneObject | None:
    """A thing with errors of place, time and colour."""
    height, width = item.frames.pixels.shape[1:3]
    boxes = thing.boxes.astype(float)
    frames = np.flatnonzero(~np.isnan(boxes[:, 0]))
    if not len(frames):
        return None
    start, stop = int(frames[0]), int(frames[-1]) + 1
    late, early = (round(float(error)) for error in rng.normal(0, FRAMES, 2))
    count = len(boxes)
    first = min(max(start + late, 0), count - 1) if start > 0 else 0
    last = min(max(stop + early, first + 1), count) if stop < count else count
    shown = np.full_like(boxes, np.nan)
    for f in range(first, last):
        nearest = frames[np.abs(frames - f).argmin()]
        if f in frames or f < start or f >= stop:
            shown[f] = boxes[nearest]
    jitter = rng.normal(0, PIXELS, (count, 2)) / (width, height)
    moved = shown + np.concatenate([jitter, jitter], axis=1)
    # a side cut by an edge stays where it is: its box says so
    moved = np.where((shown <= 0) | (shown >= 1), shown, np.clip(moved, 1e-6, 1 - 1e-6))
    return SceneObject(color=seen_color(item, thing, rng), shape=thing.shape, boxes=moved)


def seen_color(item: Item, thing: SceneObject, rng: np.random.Generator) -> str:
    """The name nearest to the colour in the middle of a thing, read with an error."""
    if thing.shape not in oracles_world_flat.SHAPES or thing.color not in PAINTS:
        return thing.color
    frame, (x0, y0, x1, y1) = place(item, thing)
    color = item.frames.pixels[frame, (y0 + y1) // 2, (x0 + x1) // 2] + rng.normal(0, RGB, 3)
    known = {other.color for other in item.objects if other.color in PAINTS}
    return min(known, key=lambda name: float(np.abs(color - PAINTS[name]).sum()))


def place(item: Item, thing: SceneObject) -> tuple[int, tuple[int, int, int, int]]:
    """The frame in which most of a thing shows, and its box there in pixels."""
    height, width = item.frames.pixels.shape[1:3]
    sides = np.nan_to_num(thing.boxes[:, 2:] - thing.boxes[:, :2])
    frame = int((sides[:, 0] * sides[:, 1]).argmax())
    x0, y0, x1, y1 = np.clip(np.nan_to_num(thing.boxes[frame]), 0, 1) * (width, height, width, height)
    return frame, (int(x0), int(y0), max(int(x1) - 1, int(x0)), max(int(y1) - 1, int(y0)))


def overlooked(item: Item, thing: SceneObject) -> float:
    """Chance of missing a thing: e to the power of -2, for 30 pixels of width and a contrast of 100 in RGB."""
    frame, (x0, y0, x1, y1) = place(item, thing)
    pixels = item.frames.pixels[frame].astype(float)
    height, width = pixels.shape[:2]
    inside = pixels[(y0 + y1) // 2, (x0 + x1) // 2]
    rim = [pixels[min(max(y, 0), height - 1), min(max(x, 0), width - 1)]
           for x in (x0 - 3, (x0 + x1) // 2, x1 + 3) for y in (y0 - 3, (y0 + y1) // 2, y1 + 3)
           if (x, y) != ((x0 + x1) // 2, (y0 + y1) // 2)]  # fmt: skip
    contrast = float(np.linalg.norm(np.median(rim, axis=0) - inside))
    return math.exp(-2 * contrast / 100 * math.sqrt((x1 - x0 + 1) * (y1 - y0 + 1)) / 30)


def touches(item: Item, seen: Item, rng: np.random.Generator) -> str:
    """Meetings at which two discs, both of them noticed, seem to touch: gaps are read with the error of two places."""
    size, hits = item.frames.pixels.shape[2], 0
    for _, i, j, gap in item.meta["meetings"]:
        if {i, j} <= set(seen.meta["noticed"]):
            hits += gap * size + rng.normal(0, PIXELS * math.sqrt(2)) < TOUCH
    return str(hits)


def spearman(means: np.ndarray) -> float:
    """Rank correlation of difficulty and accuracy, ties at their mean rank; 0 where all are tied."""
    ranks = np.array([((means < mean).sum() + (means <= mean).sum() - 1) / 2 for mean in means])
    steps = np.arange(len(means), dtype=float)
    return float(np.corrcoef(steps, ranks)[0, 1]) if np.ptp(ranks) else 0.0


if __name__ == "__main__":
    main()
