"""Is what changes slowly shown again, and does a cut start anew? Held error and tokens at a tenth of the patches.

    python tools/bench_drift.py --split tune --seeds 8
    python tools/bench_drift.py --split report --seeds 16 --json

Drawn videos of 224 x 224, patch 16, a still camera on 1/f ground with shapes, noise of one grey level.

drift, part    60 frames; from the fifth on a quarter of the picture grows lighter or darker by one grey level a frame
drift, whole   the same of the whole picture, which a selector that takes a common change for flicker never sends
cut            24 frames; from the 13th on another scene

Held error: at each drifting patch, how far the mean of what was last kept there is from the mean of the frame, in grey
levels; what was never kept counts as kept in the first frame. `p95` and `max` are over those patches and the frames
from the eleventh on, averaged over scenes. Bounds: a p95 of at most 8 where a quarter drifts and 16 where all does (a
tenth of the patches a frame can show every place again each 10 frames). `age`: frames since a drifting patch was last
shown, 95th percentile. Cut: tokens of the four frames from the cut on, divided by those of the first four (`again`;
bar .8), and the share of places that still show the scene before 12 frames after the cut (`stale`) beside that of
places which had shown nothing 12 frames after the start (`empty`). Seeds of `tune` and `report` never meet; 95 %
intervals, bootstrapped over scenes.
"""

from __future__ import annotations

import argparse
import json
import zlib
from pathlib import Path

import cv2
import numpy as np

import entropy_vision
from entropy_vision import EntropyTokenizer, Frames, selectors
from entropy_vision.stats import mean_interval

SIDE, PATCH, KEEP = 224, 16, 0.1
LONG, STARTS, CUT = 60, 4, 12
BOUNDS = {"part": 8.0, "whole": 16.0}
AGAIN = 0.8


def ground(rng: np.random.Generator, level: float) -> np.ndarray:
    """float32 [SIDE, SIDE, 3]: 1/f noise and shapes around a grey level."""
    y, x = np.fft.fftfreq(SIDE)[:, None], np.fft.rfftfreq(SIDE)[None]
    falling = 1 / np.maximum(np.hypot(y, x), 1 / SIDE)
    field = np.fft.irfft2(falling * np.fft.rfft2(rng.standard_normal((SIDE, SIDE))), s=(SIDE, SIDE))
    light = rng.uniform(6, 16) * (field - field.mean()) / field.std()
    picture = (level + light[..., None] * rng.uniform(0.8, 1.2, 3)).astype(np.float32)
    for _ in range(12):
        x0, y0 = (int(v) for v in rng.integers(0, SIDE, 2))
        size = tuple(int(v) for v in rng.integers(6, 40, 2))
        color = tuple(float(v) for v in level + rng.uniform(-35, 35, 3))
        cv2.ellipse(picture, (x0, y0), size, float(rng.uniform(0, 180)), 0, 360, color, -1, cv2.LINE_AA)
    return picture


def frames_of(rng: np.random.Generator, pictures: list[np.ndarray]) -> Frames:
    """With noise, as uint8."""
    noisy = (picture + rng.normal(0, 1, picture.shape) for picture in pictures)
    pixels = np.stack([np.clip(np.rint(picture), 0, 255).astype(np.uint8) for picture in noisy])
    return Frames(pixels=pixels, pts_seconds=np.arange(len(pixels)) / 25)


def drifting(seed: list[int], kind: str) -> tuple[Frames, np.ndarray]:
    """The frames, and which patches drift, bool [R, C]."""
    rng = np.random.default_rng(seed)
    sign = int(rng.choice([-1, 1]))
    where = np.ones((SIDE, SIDE), np.float32)
    if kind == "part":
        top, left = (int(v) * PATCH for v in rng.integers(0, SIDE // PATCH - 6, 2))
        where[...] = 0
        where[top : top + SIDE // 2, left : left + SIDE // 2] = 1
    truth = where.reshape(SIDE // PATCH, PATCH, -1, PATCH).mean(axis=(1, 3)) > 0.5
    base = ground(rng, 128 - sign * LONG / 2)
    soft = cv2.GaussianBlur(where, (0, 0), 3)[..., None] if kind == "part" else where[..., None]
    return frames_of(rng, [base + sign * max(t - STARTS, 0) * soft for t in range(LONG)]), truth


def held(frames: Frames, mask: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Held error and age over the drifting patches."""
    grey = frames.pixels.mean(axis=-1)
    means = grey.reshape(len(grey), SIDE // PATCH, PATCH, -1, PATCH).mean(axis=(2, 4))
    times = np.arange(len(mask))[:, None, None]
    last = np.maximum.accumulate(np.where(mask, times, 0), axis=0)
    error = np.abs(means - np.take_along_axis(means, last, axis=0))[10:, truth]
    age = (times - last)[10:, truth]
    return {"p95": float(np.quantile(error, 0.95)), "max": float(error.max()), "age": float(np.quantile(age, 0.95))}


def cut(seed: list[int]) -> Frames:
    """Two scenes, one after the other."""
    rng = np.random.default_rng(seed)
    scenes = [ground(rng, rng.uniform(90, 165)) for _ in range(2)]
    return frames_of(rng, [scenes[t // CUT] for t in range(2 * CUT)])


def anew(mask: np.ndarray) -> dict[str, float]:
    """How the second scene is sent, beside the first."""
    first, second = mask[:CUT], mask[CUT:]
    return {"again": float(second[:4].sum() / max(1, first[:4].sum())),
            "stale": float((first.any(axis=0) & ~second.any(axis=0)).mean()),
            "empty": float((~first.any(axis=0)).mean())}  # fmt: skip


def measure(kind: str, split: str, seeds: int, name: str) -> dict:
    """The row of one kind and selector: {figure: {mean, low, high}}."""
    found: dict[str, list[float]] = {}
    for seed in range(seeds):
        tok = EntropyTokenizer(patch_size=PATCH, keep=KEEP, selector=name, seed=seed)
        key = [zlib.crc32(f"{split} {kind}".encode()), seed]
        if kind == "cut":
            figures = anew(tok(cut(key)).mask)
        else:
            frames, truth = drifting(key, kind)
            figures = held(frames, tok(frames).mask, truth)
        for figure, value in figures.items():
            found.setdefault(figure, []).append(value)
    row = {f: dict(zip(("mean", "low", "high"), mean_interval(v), strict=True)) for f, v in found.items()}
    met = row["again"]["mean"] >= AGAIN if kind == "cut" else row["p95"]["mean"] <= BOUNDS[kind]
    return {"kind": kind, "selector": name, "n": seeds, "met": met, "figures": row}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--split", choices=("tune", "report"), default="tune")
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--selectors", nargs="+", default=selectors(), choices=selectors(), metavar="NAME")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.seeds < 2:
        parser.error(f"--seeds must be at least 2, got {options.seeds}")
    cv2.setNumThreads(1)
    rows = [measure(kind, options.split, options.seeds, name)
            for kind in (*BOUNDS, "cut") for name in options.selectors]  # fmt: skip
    if options.json:
        print(json.dumps({"split": options.split, "keep": KEEP, "bounds": BOUNDS, "again": AGAIN, "rows": rows}))
        return
    print(f"entropy_vision of {Path(entropy_vision.__file__).parent}\n{options.split} scenes, keep {KEEP:g}")
    for kind in (*BOUNDS, "cut"):
        mine = [row for row in rows if row["kind"] == kind]
        title = f"cut, bar {AGAIN} of `again`" if kind == "cut" else f"drift, {kind}, bound {BOUNDS[kind]:g} of `p95`"
        print(f"\n{title}\n\n| selector | n | {' | '.join(mine[0]['figures'])} | met |")
        print("|---" * (3 + len(mine[0]["figures"])) + "|")
        for row in mine:
            told = " | ".join("{mean:.2f} [{low:.2f}, {high:.2f}]".format(**f) for f in row["figures"].values())
            print(f"| {row['selector']} | {row['n']} | {told} | {'yes' if row['met'] else 'no'} |")


if __name__ == "__main__":
    main()
