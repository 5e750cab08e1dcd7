"""Does a selector keep the objects? Recall of drawn objects on stills and videos, and what the scoring costs.

    python tools/bench_selection.py                     # every condition, 60 scenes each
    python tools/bench_selection.py --scenes 200 --json

An object counts as seen in a frame when at least half of its visible pixels lie in kept patches. Stills are 96 x 96
(patch 8, 144 patches). Videos are 8 frames of 64 x 64 (patch 8, 512 patches) that went through H.264 (x264, crf 23).
Their columns: `once`, objects seen in at least one frame; `moving`, frames after the first in which a moving object is
seen; `appear`, appearing objects seen in the first or second frame that shows them. Intervals are 95 %, from the
spread of scene means (objects of one scene are not independent).
"""

from __future__ import annotations

import argparse
import io
import json
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

import av
import cv2
import numpy as np

from entropy_vision import Budget, EntropyTokenizer, Frames

PATCH = 8
KEEPS = (0.125, 0.25)
COLORS = np.array(
    [[220, 50, 40], [40, 160, 60], [50, 90, 220], [230, 210, 50], [150, 60, 180], [240, 140, 40], [60, 200, 210],
     [245, 245, 245], [20, 20, 20]], np.float32
)  # fmt: skip
LUMA = np.array([0.299, 0.587, 0.114], np.float32)


@dataclass(frozen=True, eq=False)
class Scene:
    """Frames, and for every object where it is and what it does ("static", "moving", "appearing")."""

    frames: Frames
    masks: np.ndarray  # bool [objects, F, H, W], visible pixels
    roles: tuple[str, ...]


def octaves(rng: np.random.Generator, side: int, finest: int = 4, slope: float = 1.0) -> np.ndarray:
    """Sum of smooth noises of falling wavelength, float32 [side, side], about unit variance."""
    total, wave = np.zeros((side, side), np.float32), side // 2
    while wave >= finest:
        coarse = rng.standard_normal((side // wave + 3, side // wave + 3)).astype(np.float32)
        fine = cv2.resize(coarse, None, fx=wave, fy=wave, interpolation=cv2.INTER_CUBIC)
        total += fine[:side, :side] * (wave / side) ** slope
        wave //= 2
    return (total - total.mean()) / (total.std() + 1e-6)


def ground(rng: np.random.Generator, side: int, kind: str) -> np.ndarray:
    """float32 [side, side, 3], a background of that kind."""
    base = rng.uniform(60, 190, 3).astype(np.float32)
    y, x = np.mgrid[:side, :side].astype(np.float32)
    if kind == "flat":
        return np.broadcast_to(base, (side, side, 3)).copy()
    if kind == "gradient":
        angle, span = rng.uniform(0, 2 * np.pi), rng.uniform(-70, 70, 3).astype(np.float32)
        ramp = (np.cos(angle) * x + np.sin(angle) * y) / side
        return base + (ramp - ramp.mean())[..., None] * span
    if kind == "checker":
        cell, step = int(rng.integers(3, 13)), rng.uniform(-50, 50, 3).astype(np.float32)
        return base + (((x // cell + y // cell) % 2)[..., None] - 0.5) * step
    if kind == "octaves":
        tint = rng.uniform(-1, 1, 3).astype(np.float32)
        tint *= rng.uniform(10, 30) / np.abs(tint).max()
        return base + octaves(rng, side)[..., None] * tint
    if kind == "foliage":  # half the view is fine, strong texture
        leaf = octaves(rng, side, finest=2, slope=0.3)
        edge = np.clip((x - side * rng.uniform(0.35, 0.65)) / 3 * rng.choice([-1, 1]), 0, 1)
        return base + (leaf * edge)[..., None] * np.array([24, 34, 18], np.float32)
    raise ValueError(kind)


def shape(kind: int, cy: float, cx: float, size: float, height: int, width: int) -> np.ndarray:
    """Coverage in [0, 1], float32 [H, W], of a shape with smooth edges."""
    y, x = np.mgrid[:height, :width].astype(np.float32)
    dy, dx, half = y - cy, x - cx, size / 2
    if kind == 0:
        inside = half - np.hypot(dy, dx)
    elif kind == 1:
        inside = half * 0.9 - np.maximum(abs(dy), abs(dx))
    elif kind == 2:
        inside = np.minimum(half - dy, (dy + half) * 0.5 - abs(dx))
    else:
        inside = half * 1.2 - abs(dy) - abs(dx)
    return np.clip(inside + 0.5, 0, 1)


def paint(rng: np.random.Generator, under: np.ndarray, equal_luma: bool) -> np.ndarray:
    """A palette colour that differs from the ground `under` it by 60 or more, or one of the ground's own luma."""
    for _ in range(200):
        color = COLORS[rng.integers(len(COLORS))] + rng.uniform(-12, 12, 3).astype(np.float32)
        if equal_luma:
            color = color + (under @ LUMA - color @ LUMA)
        if np.linalg.norm(color - under) >= 60 and color.min() >= 0 and color.max() <= 255:
            return color
    return np.clip(255 - under, 0, 255)


def places(rng: np.random.Generator, count: int, side: int, gap: float) -> np.ndarray:
    """Up to `count` centres at least `gap` apart, float [n, 2]."""
    found: list[np.ndarray] = []
    for _ in range(400):
        here = rng.uniform(9, side - 9, 2)
        if len(found) < count and all(np.hypot(*(here - other)) >= gap for other in found):
            found.append(here)
    return np.array(found)


def still(rng: np.random.Generator, condition: str) -> Scene:
    """A 96 x 96 picture of 3 to 8 shapes of 12 to 16 pixels."""
    side = 96
    kind = {
        "clean": str(rng.choice(["flat", "gradient"])),
        "textured": str(rng.choice(["octaves", "checker"])),
        "foliage": "foliage",
        "white noise": "flat",
        "equal luma": str(rng.choice(["flat", "octaves", "checker", "gradient"])),
        "aligned": "flat",
        "text": str(rng.choice(["flat", "octaves", "checker"])),
    }[condition]
    picture = ground(rng, side, kind)
    if condition == "white noise":
        corner = rng.integers(0, side - 40, 2)
        noisy = picture[corner[0] : corner[0] + 40, corner[1] : corner[1] + 40]
        noisy += rng.normal(0, 40, noisy.shape).astype(np.float32)
    if condition == "text":
        return written(rng, picture)
    masks = []
    for cy, cx in places(rng, int(rng.integers(3, 9)), side, 19):
        cover = shape(int(rng.integers(4)), cy, cx, rng.uniform(12, 16), side, side)
        if condition == "aligned":  # fills four patches and touches no other: no patch holds an edge
            cover = np.zeros((side, side), np.float32)
            top, left = (int(min(max(round(c / PATCH) - 1, 0), side // PATCH - 2)) * PATCH for c in (cy, cx))
            cover[top : top + 2 * PATCH, left : left + 2 * PATCH] = 1
        color = paint(rng, picture[cover > 0.5].mean(axis=0), condition == "equal luma")
        picture = picture + cover[..., None] * (color - picture)
        masks.append(cover > 0.5)
    picture += rng.normal(0, 2, picture.shape).astype(np.float32)
    pixels = np.clip(picture, 0, 255).round().astype(np.uint8)[None]
    return Scene(Frames(pixels=pixels, pts_seconds=np.zeros(1)), np.array(masks)[:, None], ("static",) * len(masks))


def written(rng: np.random.Generator, picture: np.ndarray) -> Scene:
    """Words of 8 pixel capitals; each word's pixels are an object."""
    side, masks = len(picture), []
    for row in rng.choice(np.arange(1, 9), int(rng.integers(2, 5)), replace=False):
        word = "".join(rng.choice(list("ABCDEFGHKLMNPRSTUXYZ"), int(rng.integers(3, 6))))
        ink = np.zeros((side, side), np.uint8)
        origin = int(rng.integers(2, side - 8 * len(word) - 2)), int(row) * 10 + 8
        cv2.putText(ink, word, origin, cv2.FONT_HERSHEY_SIMPLEX, 0.37, 255, 1, cv2.LINE_AA)
        cover = ink.astype(np.float32)[..., None] / 255
        under = picture[ink > 127].mean(axis=0)
        picture = picture + cover * (np.where(under @ LUMA > 128, 20, 235) - picture)
        masks.append(ink > 127)
    pixels = np.clip(picture + rng.normal(0, 2, picture.shape), 0, 255).round().astype(np.uint8)[None]
    return Scene(Frames(pixels=pixels, pts_seconds=np.zeros(1)), np.array(masks)[:, None], ("static",) * len(masks))


def through_h264(pixels: np.ndarray) -> np.ndarray:
    """What x264 leaves of the frames, uint8 [F, H, W, 3]."""
    memory = io.BytesIO()
    with av.open(memory, "w", format="mp4") as target:
        stream = target.add_stream("libx264", rate=8, options={"crf": "23", "preset": "veryfast", "threads": "1"})
        stream.height, stream.width = pixels.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for image in pixels:
            target.mux(stream.encode(av.VideoFrame.from_ndarray(image, "rgb24")))
        target.mux(stream.encode())
    memory.seek(0)
    with av.open(memory) as source:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in source.decode(video=0)])


def video(rng: np.random.Generator, condition: str) -> Scene:
    """8 frames of 64 x 64: standing, moving and appearing shapes under that condition."""
    side, count, margin = 64, 8, 24
    canvas = ground(rng, side + 2 * margin, str(rng.choice(["octaves", "checker", "gradient"])))
    pan = rng.uniform(-2, 2, 2) if condition == "pan" else np.zeros(2)
    centres = places(rng, int(rng.integers(3, 6)), side, 20)
    roles = tuple(rng.choice(["static", "moving", "appearing"], len(centres)))
    angles, speeds = rng.uniform(0, 2 * np.pi, len(centres)), rng.uniform(1.5, 3, len(centres))
    sizes, kinds = rng.uniform(12, 16, len(centres)), rng.integers(0, 4, len(centres))
    starts = [int(rng.integers(2, 6)) if role == "appearing" else 0 for role in roles]
    equal = rng.random(len(centres)) < 0.3
    colors: dict[int, np.ndarray] = {}
    out, masks = [], np.zeros((len(centres), count, side, side), bool)
    for t in range(count):
        shift = np.array([[1, 0, margin + pan[1] * t], [0, 1, margin + pan[0] * t]], np.float32)
        flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
        picture = cv2.warpAffine(canvas, shift, (side, side), flags=flags, borderMode=cv2.BORDER_REFLECT)
        for i, (centre, role) in enumerate(zip(centres, roles, strict=True)):
            if t < starts[i]:
                continue
            step = speeds[i] * np.array([np.sin(angles[i]), np.cos(angles[i])]) if role == "moving" else np.zeros(2)
            cy, cx = centre + (step - pan) * t
            cover = shape(int(kinds[i]), cy, cx, sizes[i], side, side)
            if not (cover > 0.5).any():
                continue
            colors.setdefault(i, paint(rng, picture[cover > 0.5].mean(axis=0), bool(equal[i])))
            picture = picture + cover[..., None] * (colors[i] - picture)
            masks[:i, t] &= cover <= 0.5
            masks[i, t] = cover > 0.5
        if condition == "noise":
            picture = picture + rng.normal(0, 8, picture.shape).astype(np.float32)
        if condition == "flicker":
            picture = picture + rng.uniform(-14, 14)
        out.append(np.clip(picture, 0, 255).round().astype(np.uint8))
    frames = Frames(pixels=through_h264(np.stack(out)), pts_seconds=np.arange(count) / 8)
    return Scene(frames, masks, roles)


STILLS = ("clean", "textured", "foliage", "white noise", "equal luma", "aligned", "text")
VIDEOS = ("static", "pan", "noise", "flicker")


def seen(scene: Scene, mask: np.ndarray) -> np.ndarray:
    """bool [objects, F]: half of the visible pixels kept (objects under 40 visible pixels count as absent: False)."""
    height, width = scene.frames.size
    pixels = mask.repeat(PATCH, 1).repeat(PATCH, 2)[:, :height, :width]
    total = scene.masks.sum(axis=(2, 3))
    return ((scene.masks & pixels).sum(axis=(2, 3)) >= total / 2) & (total >= 40)


def measures(scene: Scene, mask: np.ndarray) -> dict[str, float]:
    """Scene means of what the module's docstring defines."""
    found, there = seen(scene, mask), scene.masks.sum(axis=(2, 3)) >= 40
    result: dict[str, list[float]] = defaultdict(list)
    for i, role in enumerate(scene.roles):
        if not there[i].any():
            continue
        result["once"].append(float(found[i].any()))
        if role == "moving" and there[i, 1:].any():
            result["moving"].append(float(found[i, 1:][there[i, 1:]].mean()))
        if role == "appearing":
            first = int(there[i].argmax())
            result["appear"].append(float(found[i, first : first + 2].any()))
    return {name: float(np.mean(values)) for name, values in result.items()}


def bench(name: str, make: Callable[[np.random.Generator, str], Scene], scenes: int, names: tuple[str, ...]) -> dict:
    """{selector: {keep: {measure: (mean, half interval, n)}, "ms": median CPU milliseconds to score}}."""
    table: dict = {}
    dealt = [make(np.random.default_rng([index, len(name), ord(name[0])]), name) for index in range(scenes)]
    for selector in names:
        tok, row, spent = EntropyTokenizer(patch_size=PATCH, selector=selector), {}, []
        rows: dict[float, list[dict[str, float]]] = {keep: [] for keep in KEEPS}
        for scene in dealt:
            began = time.process_time()
            bits = tok.score(scene.frames)
            spent.append(1000 * (time.process_time() - began))
            for keep in KEEPS:
                rows[keep].append(measures(scene, tok.select(scene.frames, bits, Budget(keep=keep)).mask))
        for keep in KEEPS:
            row[keep] = {
                measure: _interval([r[measure] for r in rows[keep] if measure in r])
                for measure in ("once", "moving", "appear")
                if any(measure in r for r in rows[keep])
            }
        table[selector] = {**row, "ms": float(np.median(spent))}
    return table


def _interval(values: list[float]) -> tuple[float, float, int]:
    return float(np.mean(values)), float(1.96 * np.std(values) / np.sqrt(len(values))), len(values)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=60)
    parser.add_argument("--selectors", nargs="*", default=["rate", "histogram", "random", "uniform"])
    parser.add_argument("--conditions", nargs="*", default=[*STILLS, *VIDEOS])
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    tables = {
        name: bench(name, still if name in STILLS else video, options.scenes, tuple(options.selectors))
        for name in options.conditions
    }
    if options.json:
        print(json.dumps(tables))
        return
    for name, table in tables.items():
        print(f"\n{'still' if name in STILLS else 'video'}: {name}, {options.scenes} scenes")
        for selector, row in table.items():
            cells = [
                f"{keep:g} {measure} {mean:.3f}±{half:.3f}"
                for keep in KEEPS
                for measure, (mean, half, _) in row[keep].items()
            ]
            print(f"  {selector:10s} {'  '.join(cells)}  {row['ms']:.2f} ms")


if __name__ == "__main__":
    main()
