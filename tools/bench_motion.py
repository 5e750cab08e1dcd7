"""Are things that move by themselves kept, whatever the camera does? Recall of their patches at a tenth of the tokens.

    python tools/bench_motion.py --split tune --seeds 8
    python tools/bench_motion.py --split report --seeds 16 --json

Drawn videos, 24 frames of 224 x 224, patch 16, ten conditions on mild and on strong texture. The world (1/f noise in
colour, edges and shapes, areas of leaves) stands still; a camera looks at it; two or three objects of 24 to 48 pixels,
20 to 40 grey levels from their ground, flat or textured, move at 1 to 4 pixels a frame relative to it. Everything is
drawn at twice the size and scaled down by a kernel as wide as FFmpeg's bilinear one, so no sub-pixel position is
favoured and edges are as sharp as in a video that was read at this size.

Truth: the patches of which objects show in a sixteenth or more, in every frame but the first. `recall` is the share of
them that is kept; the budget counts all frames. `share`: truth of all patches, 3 to 7 %, below the budget of 10 %.
`ceiling`: the most that any choice can have. `known`: what the largest difference to the same frame drawn without its
objects would have at that budget, which shows that the pixels hold the answer. Seeds of `tune` and `report` never
meet: choose by the one, publish the other. Intervals are 95 %, bootstrapped over scenes.
"""

from __future__ import annotations

import argparse
import json
import sys
import zlib
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import cv2
import numpy as np

import entropy_vision
from entropy_vision import EntropyTokenizer, Frames, selectors
from entropy_vision.stats import mean_interval

SIDE, PATCH, FRAMES, KEEP = 224, 16, 24, 0.1
FINE = 2  # drawn at this many times the size
SOFT = 0.6  # with the box of FINE pixels as wide (standard deviation) as a triangle of two pixels of the view
REACH = 224  # half a side of the world, in pixels of the view
TOUCH = 1 / 16  # of a patch's pixels
SHARE = (0.03, 0.07)
BAR_EACH, BAR_MEAN = 0.85, 0.93
TIMES = np.arange(FRAMES) - (FRAMES - 1) / 2
CONDITIONS = ("static", "noise", "pan whole", "pan", "zoom", "rotation", "shake", "flicker", "parallax", "jpeg")
TEXTURES = {"mild": (7.0, 14.0, 5.0), "strong": (22.0, 45.0, 26.0)}  # grey levels: noise, shapes, leaves


@dataclass(frozen=True, eq=False)
class Thing:
    """An independently moving object: sprite float32 [S, S, 4] (colour times cover, cover), its path and its turn."""

    sprite: np.ndarray
    path: np.ndarray  # [F, 2], x and y in the world, pixels of the view from its centre
    angle: float
    long: float


@dataclass(frozen=True, eq=False)
class Camera:
    """Where the camera looks, world from view."""

    shift: np.ndarray  # [F, 2]
    scale: np.ndarray  # [F]
    turn: np.ndarray  # [F]

    def linear(self, t: int) -> np.ndarray:
        """[2, 2] of frame t."""
        return self.scale[t] * rotation(self.turn[t])


Layer = tuple[np.ndarray, float]  # float32 [W, W, 4], colour and cover in [0, 1]; what scales its apparent motion


def rotation(angle: float) -> np.ndarray:
    """[2, 2], radians."""
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


def pink(rng: np.random.Generator, side: int, slope: float) -> np.ndarray:
    """Noise whose amplitude falls as 1 / frequency^slope, float32 [side, side], unit variance."""
    y, x = np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None]
    falling = np.maximum(np.hypot(y, x), 1 / side) ** -slope
    falling[0, 0] = 0
    field = np.fft.irfft2(falling * np.fft.rfft2(rng.standard_normal((side, side))), s=(side, side))
    return (field / field.std()).astype(np.float32)


def world(rng: np.random.Generator, texture: str) -> np.ndarray:
    """float32 [W, W, 3]: 1/f ground, shapes with edges, an area of leaves."""
    noise, edges, leaf = TEXTURES[texture]
    side = 2 * REACH * FINE
    light = noise * pink(rng, side, rng.uniform(0.9, 1.3))[..., None] * rng.uniform(0.85, 1.15, 3).astype(np.float32)
    picture = light + rng.uniform(100, 150) + rng.uniform(-15, 15, 3).astype(np.float32)
    picture += 0.4 * noise * pink(rng, side, 1.5)[..., None] * rng.uniform(-1, 1, 3).astype(np.float32)
    for _ in range(int(rng.integers(25, 45))):
        ink = np.zeros((side, side), np.uint8)
        x, y = (int(v) for v in rng.integers(0, side, 2))
        long, wide = (int(v) for v in rng.integers(12, 140, 2))
        kind, angle = int(rng.integers(3)), float(rng.uniform(0, 180))
        if kind == 0:
            cv2.ellipse(ink, (x, y), (long // 2, wide // 2), angle, 0, 360, 255, -1, cv2.LINE_AA)
        elif kind == 1:
            cv2.fillConvexPoly(ink, cv2.boxPoints(((x, y), (long, wide), angle)).astype(np.int32), 255, cv2.LINE_AA)
        else:
            end = int(x + 3 * long * np.cos(angle)), int(y + 3 * long * np.sin(angle))
            cv2.line(ink, (x, y), end, 255, int(rng.integers(2, 9)), cv2.LINE_AA)
        step = rng.choice([-1, 1]) * rng.uniform(0.5, 1.2) * edges + rng.uniform(-0.3, 0.3, 3) * edges
        picture += (ink.astype(np.float32) / 255)[..., None] * step.astype(np.float32)
    return np.clip(picture + leaves(rng, side, leaf), 12, 243)


def leaves(rng: np.random.Generator, side: int, strength: float) -> np.ndarray:
    """float32 [W, W, 3]: small overlapping ellipses, light and dark, over about a third of the world."""
    field = pink(rng, side, 1.8)
    where = cv2.GaussianBlur((field > np.quantile(field, 0.67)).astype(np.float32), (0, 0), 3)
    canvas = np.zeros((side, side, 3), np.float32)
    for y, x in rng.integers(0, side, (9000, 2)):
        if where[y, x] < 0.3:
            continue
        axes = int(rng.integers(4, 11)), int(rng.integers(2, 5))
        level = rng.normal(0, 1) * strength
        color = tuple(float(level * k) for k in (0.9, 1.1, 0.8))
        cv2.ellipse(canvas, (int(x), int(y)), axes, float(rng.uniform(0, 180)), 0, 360, color, -1)
    return cv2.GaussianBlur(canvas, (0, 0), 0.7) * where[..., None]


def layers_of(rng: np.random.Generator, texture: str, condition: str) -> list[Layer]:
    """One layer, or in parallax two or three, the farthest first; objects stand on the layer of motion 1."""
    side, stack = 2 * REACH * FINE, []
    cover = np.ones((side, side), np.float32)
    if condition != "parallax":
        return [(np.dstack([world(rng, texture), cover]), 1.0)]
    if rng.random() < 0.5:  # far hills behind the ground: the ground covers the lower part
        stack.append((np.dstack([world(rng, texture), cover]), rng.uniform(0.4, 0.65)))
        rim = side * rng.uniform(0.4, 0.55) + 25 * FINE * pink(rng, side, 1.5)[0]
        cover = cv2.GaussianBlur((np.arange(side)[:, None] > rim[None]).astype(np.float32), (0, 0), 0.8)
    stack.append((np.dstack([world(rng, texture), cover]), 1.0))
    poles = np.zeros((side, side), np.float32)
    for x in np.arange(rng.uniform(0, 100), side, rng.uniform(130, 190)):
        lean, width = rng.uniform(-40, 40), int(rng.integers(14, 34))
        cv2.line(poles, (int(x), 0), (int(x + lean), side), 1.0, width, cv2.LINE_AA)
    poles = cv2.GaussianBlur(poles, (0, 0), 0.8)
    return [*stack, (np.dstack([world(rng, texture), poles]), rng.uniform(1.6, 2.2))]


def camera_of(rng: np.random.Generator, condition: str) -> Camera:
    """The camera's path; in the middle of the video it looks at the centre of the world, give or take a pixel."""
    shift, scale, turn = rng.uniform(-1, 1, 2) * np.ones((FRAMES, 1)), np.ones(FRAMES), np.zeros(FRAMES)
    if condition == "pan whole":
        while not (speed := rng.integers(-3, 4, 2)).any():
            pass
        shift = shift + TIMES[:, None] * speed
    elif condition in ("pan", "parallax"):
        angle, speed = rng.uniform(0, 2 * np.pi), rng.uniform(0.8, 2.5 if condition == "parallax" else 3.2)
        shift = shift + TIMES[:, None] * speed * np.array([np.cos(angle), np.sin(angle)])
    elif condition == "zoom":
        scale = np.exp(rng.choice([-1, 1]) * rng.uniform(0.003, 0.009) * TIMES)
        shift = shift + (1 - scale)[:, None] * rng.uniform(-25, 25, 2)
    elif condition == "rotation":
        turn = np.radians(rng.choice([-1, 1]) * rng.uniform(0.2, 0.6)) * TIMES
    elif condition == "shake":
        wave = [shaking(rng) for _ in range(4)]
        shift = shift + np.stack(wave[:2], axis=1) * rng.uniform(1.0, 2.5)
        turn, scale = np.radians(rng.uniform(0.15, 0.4)) * wave[2], np.exp(0.002 * wave[3])
    return Camera(shift, scale, turn)


def shaking(rng: np.random.Generator) -> np.ndarray:
    """A hand's tremor at 25 frames a second, [F], about unit amplitude: three waves of 1 to 7 Hz."""
    waves = [np.sin(2 * np.pi * rng.uniform(1, 7) * TIMES / 25 + rng.uniform(0, 2 * np.pi)) for _ in range(3)]
    return np.sum(waves, axis=0) / np.sqrt(1.5)


def things_of(rng: np.random.Generator, layers: list[Layer], camera: Camera) -> list[Thing]:
    """Two or three objects near the view, of any colour that is 20 to 40 grey levels from the ground on their way."""
    ground = next(picture[..., :3] for picture, near in layers if near == 1)
    pan = np.diff(camera.shift, axis=0).mean(axis=0)
    found = []
    for _ in range(int(rng.integers(2, 4))):
        while True:
            heading, bend = rng.uniform(0, 2 * np.pi), np.radians(rng.uniform(-3, 3))
            heading = heading + bend * TIMES
            step = rng.uniform(1, 4) * np.stack([np.cos(heading), np.sin(heading)], axis=1)
            # an object that goes exactly with a layer cannot be told from it
            if all(np.hypot(*(step.mean(axis=0) - (1 - near) * pan)) >= 0.9 for _, near in layers):
                break
        path = np.cumsum(step, axis=0)
        path = path - path[FRAMES // 2] + rng.uniform(-0.42, 0.42, 2) * SIDE
        long = rng.uniform(24, 48)
        sprite = sprite_of(rng, long, way_colour(ground, path, long))
        found.append(Thing(sprite, path, rng.uniform(0, 2 * np.pi), long))
    return found


def way_colour(picture: np.ndarray, path: np.ndarray, long: float) -> np.ndarray:
    """Mean colour of the ground along a path, float32 [3]."""
    half, seen = int(long * FINE / 2), []
    for x, y in ((path + REACH) * FINE).astype(int)[::6]:
        window = picture[max(y - half, 0) : y + half, max(x - half, 0) : x + half]
        if window.size:
            seen.append(window.mean(axis=(0, 1)))
    return np.mean(seen or [picture.mean(axis=(0, 1))], axis=0)


def sprite_of(rng: np.random.Generator, long: float, under: np.ndarray) -> np.ndarray:
    """float32 [S, S, 4]: an ellipse, a rounded bar or an irregular blob, every second one textured."""
    side = 2 * int(np.ceil(long * FINE * 0.6)) + 4
    wide = long * rng.uniform(0.4, min(1.0, 26 / long))
    ink, middle = np.zeros((side, side), np.uint8), side // 2
    reach = int(long * FINE / 2), int(wide * FINE / 2)
    kind = int(rng.integers(3))
    if kind == 0:
        cv2.ellipse(ink, (middle, middle), reach, 0, 0, 360, 255, -1, cv2.LINE_AA)
    elif kind == 1:
        cv2.rectangle(ink, (middle - reach[0], middle - reach[1]), (middle + reach[0], middle + reach[1]), 255, -1)
    else:
        turn = np.linspace(0, 2 * np.pi, 14, endpoint=False)
        radius = rng.uniform(0.75, 1.1, 14)
        rim = middle + np.stack([reach[0] * radius * np.cos(turn), reach[1] * radius * np.sin(turn)], axis=1)
        cv2.fillPoly(ink, [rim.astype(np.int32)], 255, cv2.LINE_AA)
    cover = cv2.GaussianBlur(ink.astype(np.float32) / 255, (0, 0), 0.6)[..., None]
    sign = rng.choice([-1, 1]) if 70 < under.mean() < 185 else (1 if under.mean() <= 70 else -1)
    color = under + sign * rng.uniform(20, 40) + rng.uniform(-8, 8, 3)
    inside = np.broadcast_to(color.astype(np.float32), (side, side, 3))
    if rng.random() < 0.5:
        inside = inside + rng.uniform(6, 14) * pink(rng, side, 1.0)[..., None]
    return np.concatenate([np.clip(inside, 0, 255) * cover, cover], axis=2).astype(np.float32)


def layer_view(layer: Layer, camera: Camera, t: int) -> tuple[np.ndarray, np.ndarray]:
    """Colour [h, w, 3] and cover [h, w, 1] of a layer in frame t at the drawing size."""
    (picture, near), linear, size = layer, camera.linear(t), SIDE * FINE
    off = FINE * near * camera.shift[t] + linear @ np.full(2, 0.5 - size / 2) + REACH * FINE - 0.5
    flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    matrix = np.hstack([linear, off[:, None]])
    seen = cv2.warpAffine(picture, matrix, (size, size), flags=flags, borderMode=cv2.BORDER_REFLECT)
    return seen[..., :3], np.clip(seen[..., 3:], 0, 1)


def draw(full: np.ndarray, ink: np.ndarray, thing: Thing, camera: Camera, t: int) -> None:
    """Put an object over frame t, in place."""
    linear, back = camera.linear(t), rotation(-thing.angle)
    centre = FINE * (np.linalg.inv(linear) @ (thing.path[t] - camera.shift[t]) + SIDE / 2)
    radius = FINE * thing.long * 0.75 / camera.scale[t] + 3
    low = np.clip(np.floor(centre - radius), 0, SIDE * FINE).astype(int)
    high = np.clip(np.ceil(centre + radius), 0, SIDE * FINE).astype(int)
    if (high - low < 2).any():
        return
    matrix = back @ linear
    off = FINE * back @ (camera.shift[t] - thing.path[t]) + len(thing.sprite) / 2 - 0.5
    off = off + matrix @ (low + 0.5 - SIDE * FINE / 2)
    size = int(high[0] - low[0]), int(high[1] - low[1])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    drawn = cv2.warpAffine(thing.sprite, np.hstack([matrix, off[:, None]]), size, flags=flags)
    where = slice(low[1], high[1]), slice(low[0], high[0])
    full[where] = full[where] * (1 - drawn[..., 3:]) + drawn[..., :3]
    ink[where] = np.maximum(ink[where], drawn[..., 3])


def render(layers: list[Layer], things: list[Thing], camera: Camera, t: int) -> tuple[np.ndarray, ...]:
    """Frame t with objects, without them (float32 [H, W, 3]), and the objects' visible cover [H, W]."""
    full, empty = np.zeros((2, SIDE * FINE, SIDE * FINE, 3), np.float32)
    ink = np.zeros((SIDE * FINE, SIDE * FINE), np.float32)
    for layer in layers:
        picture, cover = layer_view(layer, camera, t)
        full += cover * (picture - full)
        empty += cover * (picture - empty)
        ink *= 1 - cover[..., 0]
        for thing in things if layer[1] == 1 else ():
            draw(full, ink, thing, camera, t)
    full, empty = (cv2.GaussianBlur(plane, (0, 0), SOFT) for plane in (full, empty))
    return tuple(cv2.resize(plane, (SIDE, SIDE), interpolation=cv2.INTER_AREA) for plane in (full, empty, ink))


def develop(rng: np.random.Generator, condition: str, full: np.ndarray, empty: np.ndarray) -> tuple[np.ndarray, ...]:
    """Light, noise and compression of one frame: uint8 [H, W, 3], and the empty frame in the same light."""
    if condition == "flicker":
        gain, offset = 1 + rng.uniform(-0.03, 0.03), rng.uniform(-12, 12)
        full, empty = full * gain + offset, empty * gain + offset
    full = full + rng.normal(0, {"noise": 6.0, "jpeg": 2.0}.get(condition, 1.0), full.shape)
    image = np.clip(np.rint(full), 0, 255).astype(np.uint8)
    if condition == "jpeg":
        quality = [cv2.IMWRITE_JPEG_QUALITY, 50]
        image = cv2.imdecode(cv2.imencode(".jpg", image[..., ::-1], quality)[1], cv2.IMREAD_COLOR)[..., ::-1]
    return image, empty


def scene(seed: list[int], condition: str, texture: str, patch: int = PATCH) -> tuple[Frames, np.ndarray, np.ndarray]:
    """Frames, the same without objects (float32), and the truth, bool [F, R, C], none in the first frame."""
    rng = np.random.default_rng(seed)
    layers, camera = layers_of(rng, texture, condition), camera_of(rng, condition)
    for _ in range(200):
        things = things_of(rng, layers, camera)
        views = [render(layers, things, camera, t) for t in (1, 8, 16, FRAMES - 1)]
        if SHARE[0] <= np.mean([touched(ink, patch) for *_, ink in views]) <= SHARE[1]:
            views = [render(layers, things, camera, t) for t in range(FRAMES)]
            truth = np.stack([touched(ink, patch) for *_, ink in views])
            if SHARE[0] <= truth[1:].mean() <= SHARE[1]:
                break
    else:
        raise RuntimeError(f"no scene with {SHARE} of its patches touched: {condition}, {texture}, seed {seed}")
    truth[0] = False
    shown = [develop(rng, condition, full, empty) for full, empty, _ in views]
    pixels, empty = (np.ascontiguousarray(np.stack(planes)) for planes in zip(*shown, strict=True))
    return Frames(pixels=pixels, pts_seconds=np.arange(FRAMES) / 25), empty, truth


def touched(ink: np.ndarray, patch: int) -> np.ndarray:
    """bool [R, C]: patches of which objects cover at least a share of TOUCH by half."""
    return patch_sums((ink > 0.5).astype(np.float32), patch) >= TOUCH * patch**2


def patch_sums(plane: np.ndarray, patch: int) -> np.ndarray:
    """[..., H, W] -> [..., R, C]."""
    return plane.reshape(*plane.shape[:-2], SIDE // patch, patch, -1, patch).sum(axis=(-3, -1))


def known(frames: Frames, empty: np.ndarray, truth: np.ndarray, patch: int) -> float:
    """Recall of the patches that differ most from the same frame without objects."""
    worth = patch_sums(((frames.pixels - empty) ** 2).sum(axis=-1), patch)
    worth[0] = 0
    best = np.argsort(-worth.ravel(), kind="stable")[: round(KEEP * worth.size)]
    return float(truth.ravel()[best].sum() / truth.sum())


def measure(condition: str, texture: str, split: str, seeds: int, names: list[str], patch: int) -> dict:
    """The row of one condition on one texture; values by scene."""
    row: dict = {"share": [], "ceiling": [], "known": []}
    recalls: dict[str, list[float]] = {name: [] for name in names}
    for seed in range(seeds):
        key = [zlib.crc32(f"{split} {condition} {texture}".encode()), seed]
        frames, empty, truth = scene(key, condition, texture, patch)
        total = truth.sum()
        row["share"].append(truth[1:].mean())
        row["ceiling"].append(min(1.0, (round(KEEP * truth.size) - 1) / total))
        row["known"].append(known(frames, empty, truth, patch))
        for name in names:
            kept = EntropyTokenizer(patch_size=patch, keep=KEEP, selector=name, seed=seed)(frames)
            recalls[name].append(float((kept.mask & truth).sum() / total))
    means = {key: float(np.mean(values)) for key, values in row.items()}
    recall = {name: spread_of(values) for name, values in recalls.items()}
    return {"condition": condition, "texture": texture, "n": seeds, **means, "recall": recall}


def spread_of(values: list[float]) -> dict:
    """Mean, 95 % interval and the values themselves."""
    mean, low, high = mean_interval(values) if len(values) > 1 else (values[0], float("nan"), float("nan"))
    return {"mean": mean, "low": low, "high": high, "values": values}


def summary(rows: list[dict], name: str) -> dict:
    """Mean over all conditions, the worst one, and whether both bars are met."""
    means = {f"{row['condition']}, {row['texture']}": row["recall"][name]["mean"] for row in rows}
    overall = spread_of([value for row in rows for value in row["recall"][name]["values"]])
    del overall["values"]
    where, below = min(means, key=means.__getitem__), [key for key, mean in means.items() if mean < BAR_EACH]
    return {**overall, "worst": means[where], "where": where, "below_bar": below,
            "bars_met": not below and overall["mean"] >= BAR_MEAN}  # fmt: skip


def show(rows: list[dict], totals: dict[str, dict]) -> None:
    """Tables in Markdown."""
    print(f"| condition | texture | n | share | ceiling | known | {' | '.join(totals)} |")
    print("|---" * (6 + len(totals)) + "|")
    for row in rows:
        figures = [f"{row[key]:.3f}" for key in ("share", "ceiling", "known")]
        figures += ["{mean:.3f} [{low:.3f}, {high:.3f}]".format(**row["recall"][name]) for name in totals]
        print(f"| {row['condition']} | {row['texture']} | {row['n']} | {' | '.join(figures)} |")
    print()
    for name, total in totals.items():
        verdict = "both bars met" if total["bars_met"] else f"{len(total['below_bar'])} rows below {BAR_EACH}"
        told = "{mean:.3f} [{low:.3f}, {high:.3f}], worst {worst:.3f} ({where})".format(**total)
        print(f"{name}: mean {told}; {verdict}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--split", choices=("tune", "report"), default="tune")
    parser.add_argument("--seeds", type=int, default=8, help="scenes of each condition and texture")
    parser.add_argument("--selectors", nargs="+", default=selectors(), choices=selectors(), metavar="NAME")
    parser.add_argument("--conditions", nargs="+", default=CONDITIONS, choices=CONDITIONS, metavar="NAME")
    parser.add_argument("--patch", type=int, default=PATCH, help="a side that divides 224")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.seeds < 1:
        parser.error(f"--seeds must be at least 1, got {options.seeds}")
    if options.patch < 1 or SIDE % options.patch:
        parser.error(f"--patch must divide {SIDE}, got {options.patch}")
    cv2.setNumThreads(1)
    rows = []
    for condition, texture in product(options.conditions, TEXTURES):
        rows.append(measure(condition, texture, options.split, options.seeds, options.selectors, options.patch))
        print(f"{condition}, {texture}: done", file=sys.stderr)
    totals = {name: summary(rows, name) for name in options.selectors}
    if options.json:
        print(json.dumps({"split": options.split, "rows": rows, "summary": totals}))
    else:
        print(f"entropy_vision of {Path(entropy_vision.__file__).parent}")
        print(f"{options.split} scenes, recall at keep {KEEP:g}; bars {BAR_EACH} each, {BAR_MEAN} on average\n")
        show(rows, totals)


if __name__ == "__main__":
    main()
