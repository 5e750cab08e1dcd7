"""Is small text kept? Recall of the patches that glyphs touch, at a quarter of the tokens, on drawn stills.

    python tools/bench_text.py --split tune --seeds 32
    python tools/bench_text.py --split report --seeds 64 --json

Every second still is 336 x 336 with patch 14, the others are 448 x 448 with patch 16. Each has 6 to 10 words of 3 to 8
letters and digits whose capitals are 8 to 14 pixels high, at random places, in one of three fonts (OpenCV's simplex and
duplex strokes, Pillow's own). Three regimes:

clean        a page or screen: flat or graded grounds, panels with borders, blocks of colour; contrast 60 to 150
textured     1/f noise, shapes with edges and areas of leaves, no plate behind the words; contrast 70 to 130
adversarial  noise of sigma 25 to 45 everywhere; each word on a quiet plate of nearly the noise's mean, contrast 20 to
             35; two more plates are blank

Evidence: patches with at least 4 pixels that ink covers to 40 % or more. `share`: evidence of all patches. Seeds of
`tune` and `report` never meet. Intervals are 95 %, bootstrapped over stills; `over random` is the paired difference.
"""

from __future__ import annotations

import argparse
import json
import zlib
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

import entropy_vision
from entropy_vision import EntropyTokenizer, Frames, selectors
from entropy_vision.stats import mean_interval, paired_difference

KEEP, INK, PIXELS = 0.25, 0.4, 4
SIZES = ((336, 14), (448, 16))  # side, patch
BARS = {"clean": 0.95, "textured": 0.87, "adversarial": 0.87}
SIGNS = list("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789")
Box = tuple[int, int, int, int]  # left, top, right, bottom


def pink(rng: np.random.Generator, side: int, slope: float) -> np.ndarray:
    """Noise whose amplitude falls as 1 / frequency^slope, float32 [side, side], unit variance."""
    y, x = np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None]
    falling = np.maximum(np.hypot(y, x), 1 / side) ** -slope
    falling[0, 0] = 0
    field = np.fft.irfft2(falling * np.fft.rfft2(rng.standard_normal((side, side))), s=(side, side))
    return (field / field.std()).astype(np.float32)


def word(rng: np.random.Generator) -> np.ndarray:
    """Ink of one word, float32 [h, w] in [0, 1], cut to what is drawn."""
    text = "".join(rng.choice(SIGNS, int(rng.integers(3, 9))))
    height, font = rng.uniform(8, 14), int(rng.integers(3))
    if font == 2:
        image = Image.new("L", (240, 60))
        ImageDraw.Draw(image).text((10, 15), text, 255, ImageFont.load_default(height / 0.72))
        ink = np.asarray(image)
    else:
        face = (cv2.FONT_HERSHEY_SIMPLEX, cv2.FONT_HERSHEY_DUPLEX)[font]
        ink = cv2.putText(np.zeros((60, 240), np.uint8), text, (10, 40), face, height / 21, 255, 1, cv2.LINE_AA)
    rows, columns = np.flatnonzero(ink.max(axis=1)), np.flatnonzero(ink.max(axis=0))
    return ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].astype(np.float32) / 255


def places(rng: np.random.Generator, side: int, shapes: list[tuple[int, int]], gap: int) -> Iterator[Box]:
    """A box for each (height, width), at random, at least `gap` pixels apart and from the border."""
    taken: list[Box] = []
    for height, width in shapes:
        for _ in range(500):
            x, y = int(rng.integers(gap, side - width - gap)), int(rng.integers(gap, side - height - gap))
            box = (x, y, x + width, y + height)
            if all(
                x > b[2] + 2 * gap or box[2] + 2 * gap < b[0] or y > b[3] + 2 * gap or box[3] + 2 * gap < b[1]
                for b in taken
            ):
                taken.append(box)
                yield box
                break
        else:
            raise RuntimeError(f"no room for a word of {height} x {width} on {side} x {side}")


def shapes(rng: np.random.Generator, picture: np.ndarray, count: int, step: float) -> None:
    """Filled ellipses, boxes and lines over a picture, in place."""
    side = len(picture)
    for _ in range(count):
        ink = np.zeros((side, side), np.uint8)
        x, y = (int(v) for v in rng.integers(0, side, 2))
        long, wide = (int(v) for v in rng.integers(8, side // 4, 2))
        angle, kind = float(rng.uniform(0, 180)), int(rng.integers(3))
        if kind == 0:
            cv2.ellipse(ink, (x, y), (long // 2, wide // 2), angle, 0, 360, 255, -1, cv2.LINE_AA)
        elif kind == 1:
            cv2.fillConvexPoly(ink, cv2.boxPoints(((x, y), (long, wide), angle)).astype(np.int32), 255, cv2.LINE_AA)
        else:
            end = int(x + 2 * long * np.cos(angle)), int(y + 2 * long * np.sin(angle))
            cv2.line(ink, (x, y), end, 255, int(rng.integers(1, 5)), cv2.LINE_AA)
        color = rng.choice([-1, 1]) * rng.uniform(0.5, 1.2) * step + rng.uniform(-0.3, 0.3, 3) * step
        picture += (ink.astype(np.float32) / 255)[..., None] * color.astype(np.float32)


def page(rng: np.random.Generator, side: int) -> np.ndarray:
    """float32 [side, side, 3]: a ground, panels with borders, blocks of colour."""
    base = rng.choice([rng.uniform(20, 60), rng.uniform(110, 150), rng.uniform(190, 240)])
    y, x = np.mgrid[:side, :side].astype(np.float32) / side - 0.5
    ramp = np.cos(turn := rng.uniform(0, 2 * np.pi)) * x + np.sin(turn) * y
    picture = base + rng.uniform(-12, 12, 3) + ramp[..., None] * rng.choice([0, rng.uniform(10, 40)])
    for _ in range(int(rng.integers(2, 6))):
        low, size = rng.integers(0, side - 40, 2), rng.integers(40, side // 2, 2)
        corner = tuple(int(v) for v in low), tuple(int(v) for v in np.minimum(low + size, side - 1))
        color = tuple(float(v) for v in np.clip(base + rng.uniform(-45, 45) + rng.uniform(-15, 15, 3), 5, 250))
        cv2.rectangle(picture, *corner, color, -1)
        if rng.random() < 0.6:
            border = tuple(float(v) for v in np.clip(np.array(color) + rng.choice([-40, 40]), 0, 255))
            cv2.rectangle(picture, *corner, border, int(rng.integers(1, 3)))
    return picture.astype(np.float32)


def wild(rng: np.random.Generator, side: int) -> np.ndarray:
    """float32 [side, side, 3]: 1/f noise in colour, shapes, leaves over a part."""
    sigma = rng.uniform(10, 24)
    picture = rng.uniform(95, 160) + sigma * pink(rng, side, rng.uniform(0.9, 1.3))[..., None] * rng.uniform(
        0.85, 1.15, 3
    )
    picture = (picture + 0.4 * sigma * pink(rng, side, 1.5)[..., None] * rng.uniform(-1, 1, 3)).astype(np.float32)
    shapes(rng, picture, int(rng.integers(8, 20)), 2 * sigma)
    field = pink(rng, side, 1.8)
    where = cv2.GaussianBlur((field > np.quantile(field, 0.7)).astype(np.float32), (0, 0), 2)
    canvas = np.zeros_like(picture)
    for y, x in rng.integers(0, side, (side * side // 40, 2)):
        level, axes = rng.normal(0, 1) * sigma, (int(rng.integers(2, 6)), int(rng.integers(1, 3)))
        color = tuple(float(level * k) for k in (0.9, 1.1, 0.8))
        cv2.ellipse(canvas, (int(x), int(y)), axes, float(rng.uniform(0, 180)), 0, 360, color, -1)
    return picture + canvas * where[..., None]


def static(rng: np.random.Generator, side: int) -> np.ndarray:
    """float32 [side, side, 3]: strong noise, white or a little soft, grey or in colour."""
    noise = rng.standard_normal((side, side, 3 if rng.random() < 0.5 else 1)).astype(np.float32)
    if rng.random() < 0.5:
        noise = cv2.GaussianBlur(noise, (0, 0), 0.7).reshape(noise.shape)
    noise *= rng.uniform(25, 45) / noise.std()
    return noise + rng.uniform(100, 155) + rng.uniform(-10, 10, 3).astype(np.float32)


def still(seed: list[int], regime: str, side: int) -> tuple[np.ndarray, np.ndarray]:
    """uint8 [side, side, 3] and its ink, float32 [side, side]."""
    rng = np.random.default_rng(seed)
    picture = {"clean": page, "textured": wild, "adversarial": static}[regime](rng, side)
    plates, margin = regime == "adversarial", int(rng.integers(4, 7))
    words: list[np.ndarray | None] = [word(rng) for _ in range(int(rng.integers(6, 11)))]
    sizes = [ink.shape for ink in words if ink is not None]
    if plates:
        words += [None, None]
        sizes += [(int(rng.integers(8, 15)), int(rng.integers(30, 70))) for _ in range(2)]
    total, mean = np.zeros((side, side), np.float32), picture.mean(axis=(0, 1))
    for ink, (left, top, right, bottom) in zip(words, places(rng, side, sizes, 2 * margin), strict=True):
        here = np.s_[top:bottom, left:right]
        if plates:
            plate = np.s_[top - margin : bottom + margin, left - margin : right + margin]
            picture[plate] = mean + rng.uniform(-12, 12) + rng.normal(0, 2, picture[plate].shape)
        if ink is None:
            continue
        under = picture[here].mean(axis=(0, 1))
        contrast = rng.uniform(*{"clean": (60, 150), "textured": (70, 130), "adversarial": (20, 35)}[regime])
        room = under.mean() > 127 if abs(under.mean() - 127) > 40 else rng.random() < 0.5
        color = np.clip(under + (-contrast if room else contrast) + rng.uniform(-8, 8, 3), 0, 255)
        picture[here] += ink[..., None] * (color.astype(np.float32) - picture[here])
        total[here] = np.maximum(total[here], ink)
    picture += rng.normal(0, 1, picture.shape)
    return np.clip(np.rint(picture), 0, 255).astype(np.uint8), total


def evidence(ink: np.ndarray, patch: int) -> np.ndarray:
    """bool [1, R, C]: the patches that glyphs touch."""
    cells = len(ink) // patch
    return ((ink >= INK).reshape(cells, patch, cells, patch).sum(axis=(1, 3)) >= PIXELS)[None]


def measure(regime: str, split: str, seeds: int, names: list[str]) -> dict:
    """The row of one regime; values by still."""
    recalls: dict[str, list[float]] = {name: [] for name in names}
    shares = []
    for seed in range(seeds):
        side, patch = SIZES[seed % 2]
        pixels, ink = still([zlib.crc32(f"{split} {regime}".encode()), seed], regime, side)
        truth, frames = evidence(ink, patch), Frames(pixels=pixels[None], pts_seconds=np.zeros(1))
        shares.append(float(truth.mean()))
        for name in recalls:
            kept = EntropyTokenizer(patch_size=patch, keep=KEEP, selector=name, seed=seed)(frames)
            recalls[name].append(float((kept.mask & truth).sum() / truth.sum()))
    recall = {}
    for name, values in recalls.items():
        keys = ("mean", "low", "high")
        entry: dict = dict(zip(keys, mean_interval(values), strict=True))
        entry["over_random"] = dict(zip(keys, paired_difference(recalls["random"], values), strict=True))
        entry["bar_met"] = entry["mean"] >= BARS[regime] and entry["over_random"]["mean"] >= 0
        for start, (side, patch) in enumerate(SIZES):
            entry[f"{side}/{patch}"] = float(np.mean(values[start::2]))
        recall[name] = {**entry, "values": values}
    return {"regime": regime, "n": seeds, "bar": BARS[regime], "share": float(np.mean(shares)), "recall": recall}


def show(rows: list[dict]) -> None:
    """A table in Markdown."""
    sizes = [f"{side}/{patch}" for side, patch in SIZES]
    print(f"| regime | n | share | bar | selector | recall | {' | '.join(sizes)} | over random | bar met |")
    print("|---" * (8 + len(sizes)) + "|")
    for row in rows:
        for name, entry in row["recall"].items():
            figures = ["{mean:.3f} [{low:.3f}, {high:.3f}]".format(**entry), *(f"{entry[size]:.3f}" for size in sizes)]
            figures.append("{mean:+.3f} [{low:+.3f}, {high:+.3f}]".format(**entry["over_random"]))
            told = f"{row['regime']} | {row['n']} | {row['share']:.3f} | {row['bar']} | {name}"
            print(f"| {told} | {' | '.join(figures)} | {'yes' if entry['bar_met'] else 'no'} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--split", choices=("tune", "report"), default="tune")
    parser.add_argument("--seeds", type=int, default=32, help="stills of each regime, at least 4")
    parser.add_argument("--selectors", nargs="+", default=selectors(), choices=selectors(), metavar="NAME")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.seeds < 4:
        parser.error(f"--seeds must be at least 4, got {options.seeds}")
    cv2.setNumThreads(1)
    names = list(dict.fromkeys([*options.selectors, "random"]))
    rows = [measure(regime, options.split, options.seeds, names) for regime in BARS]
    if options.json:
        print(json.dumps({"split": options.split, "keep": KEEP, "rows": rows}))
    else:
        print(f"entropy_vision of {Path(entropy_vision.__file__).parent}")
        print(f"{options.split} stills, recall of evidence at keep {KEEP:g}\n")
        show(rows)


if __name__ == "__main__":
    main()
