"""What does choosing cost beside the work that is done anyway? One thread, everything interleaved in one process.

    OMP_NUM_THREADS=1 python tools/bench_cost.py
    OMP_NUM_THREADS=1 python tools/bench_cost.py --rounds 15 --json

Videos: four drawn clips (still camera and pan, 360p and 1080p, small moving objects, sensor noise), encoded as H.264
(x264, crf 23) into a temporary folder. A round decodes a clip with PyAV and scales every frame to 224 x 224 (FFmpeg's
bilinear kernel), then has every selector score those frames (patch 16) and keep a tenth of them. Stills: pictures of
336 x 336, patch 14, a quarter kept, beside the patch embedding of ViT-L/14-336 (a convolution of 3 to 1024 channels,
kernel and stride 14, fp32, batch of one): `score` alone, `whole` (score, choose, gather), and `video`, which is the
score of a frame of a still-camera video of that size.

Figures are CPU milliseconds a frame of this process, and ratios of neighbours in time: the median of the rounds' own
ratios with their quartiles, because other work on the machine slows both sides. A first round is thrown away.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import cv2
import numpy as np
import torch
from av.filter import Graph

import entropy_vision
from entropy_vision import EntropyTokenizer, Frames, selectors

FRAMES, KEEP = 48, 0.1
CLIPS = {"360p": (360, 640), "1080p": (1080, 1920)}
# of decode and scaling: still camera, panning; of the patch embedding: score of a still, whole, video
BARS = {"360p still": 0.2, "360p pan": 0.7, "1080p still": 0.05, "1080p pan": 0.15}
STILL_BARS = {"score": 0.06, "whole": 0.15, "video": 0.15}


def pink(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Noise whose amplitude falls as 1 / frequency, float32 [H, W], unit variance."""
    y, x = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None]
    falling = 1 / np.maximum(np.hypot(y, x), 1 / max(height, width))
    field = np.fft.irfft2(falling * np.fft.rfft2(rng.standard_normal((height, width))), s=(height, width))
    return ((field - field.mean()) / field.std()).astype(np.float32)


def clip(rng: np.random.Generator, height: int, width: int, count: int, pans: bool) -> np.ndarray:
    """uint8 [F, H, W, 3]: a 1/f ground with blocks, two moving objects, noise of two grey levels."""
    margin = height // 4 if pans else 0
    world = 120 + 25 * pink(rng, height + margin, width + margin)[..., None] * np.array([1, 0.9, 1.1], np.float32)
    for _ in range(30):
        x, y = int(rng.integers(width)), int(rng.integers(height))
        size = tuple(int(v) for v in rng.integers(height // 30, height // 5, 2))
        cv2.rectangle(world, (x, y, *size), tuple(float(v) for v in rng.uniform(30, 220, 3)), -1)
    noise = rng.normal(0, 2, (height, width + 64, 3)).astype(np.float32)
    speed, things, out = margin / count, rng.uniform(0, 1, (2, 4)), np.empty((count, height, width, 3), np.uint8)
    for t in range(count):
        matrix = np.array([[1, 0, speed * t], [0, 1, 0.6 * speed * t]])
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        picture = cv2.warpAffine(world, matrix, (width, height), flags=flags, borderMode=cv2.BORDER_REFLECT)
        for y, x, down, along in things:
            centre = np.array([x * width + (along - 0.5) * 0.6 * width * t / count,
                               y * height + (down - 0.5) * 0.6 * height * t / count])  # fmt: skip
            cv2.circle(picture, tuple(int(v) for v in centre), height // 12, (200.0, 90.0, 60.0), -1)
        shift = int(rng.integers(64))
        out[t] = np.clip(picture + noise[:, shift : shift + width], 0, 255)
    return out


def encode(path: Path, pixels: np.ndarray) -> None:
    """H.264 at 25 frames a second."""
    with av.open(str(path), "w") as target:
        stream = target.add_stream("libx264", rate=25, options={"crf": "23", "preset": "veryfast", "threads": "1"})
        stream.height, stream.width, stream.pix_fmt = *pixels.shape[1:3], "yuv420p"
        for picture in pixels:
            target.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
        target.mux(stream.encode())


def decoded(path: Path, hasty: bool = False) -> Iterator[np.ndarray]:
    """uint8 [224, 224, 3] of every frame: PyAV, one thread, the filters `scale=224:224:flags=bilinear,format=rgb24`.

    `hasty` opens the file without decoding its first frame, as `read_video` does and scripts do not.
    """
    graph = None
    with av.open(str(path), stream_options=[{"skip_frame": "all"}] if hasty else None) as source:
        source.streams.video[0].codec_context.thread_count = 1
        for frame in source.decode(video=0):
            if graph is None:
                graph = Graph()
                graph.threads = 1
                entry = graph.add_buffer(
                    width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base
                )
                scale = graph.add("scale", "224:224:flags=bilinear")
                graph.link_nodes(entry, scale, graph.add("format", "rgb24"), graph.add("buffersink")).configure()
            graph.push(frame)
            yield graph.pull().to_ndarray()


def as_frames(pixels: np.ndarray) -> Frames:
    return Frames(pixels=pixels, pts_seconds=np.arange(len(pixels)) / 25)


def spent(work: Callable[[], object], frames: int) -> float:
    """CPU milliseconds a frame."""
    began = time.process_time()
    work()
    return 1000 * (time.process_time() - began) / frames


def quartiles(values: list[float]) -> dict[str, float]:
    low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
    return {"median": float(middle), "low": float(low), "high": float(high)}


def rows_of(times: dict[str, list[float]], base: str, bars: dict[str, float], about: dict) -> list[dict]:
    """Rows with milliseconds and ratios to `base`, the first round left out; `bars` by the names in `times`."""
    under, rows = times[base][1:], []
    for name, values in times.items():
        if name == base:
            continue
        ratios = [value / part for value, part in zip(values[1:], under, strict=True)]
        row = {**about, "selector": name, "ms": quartiles(values[1:]), "base_ms": quartiles(under),
               "ratio": quartiles(ratios), "n": len(under), "bar": bars.get(name)}  # fmt: skip
        rows.append(row)
    return rows


def videos(rounds: int, names: list[str]) -> list[dict]:
    """Selectors beside decode and scaling."""
    rows, toks = [], {name: EntropyTokenizer(patch_size=16, keep=KEEP, selector=name) for name in names}
    times: dict[str, dict[str, list[float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        paths = {}
        for number, (size, (height, width)) in enumerate(CLIPS.items()):
            for camera in ("still", "pan"):
                paths[f"{size} {camera}"] = path = Path(folder) / f"{size}-{camera}.mp4"
                encode(path, clip(np.random.default_rng(number), height, width, FRAMES, camera == "pan"))
        for _ in range(rounds + 1):
            for clip_name, path in paths.items():
                held = times.setdefault(clip_name, {"decode": [], **{name: [] for name in names}})
                held["decode"].append(spent(lambda path=path: deque(decoded(path), maxlen=0), FRAMES))
                frames = as_frames(np.stack(list(decoded(path))))
                for name, tok in toks.items():
                    held[name].append(spent(lambda tok=tok, frames=frames: tok(frames), FRAMES))
    for clip_name, held in times.items():
        rows += rows_of(held, "decode", dict.fromkeys(names, BARS[clip_name]), {"what": clip_name})
    return rows


def stills(rounds: int, names: list[str]) -> list[dict]:
    """Selectors beside the patch embedding of ViT-L/14-336."""
    torch.set_num_threads(1)
    count, rng = 12, np.random.default_rng(5)
    embed = torch.nn.Conv2d(3, 1024, 14, 14, bias=False)
    pictures = [as_frames(clip(rng, 336, 336, 1, False)) for _ in range(count)]
    video = as_frames(clip(rng, 336, 336, count, False))
    tensors = [torch.from_numpy(p.pixels).permute(0, 3, 1, 2).float() / 255 for p in pictures]
    toks = {name: EntropyTokenizer(patch_size=14, keep=0.25, selector=name) for name in names}
    works: dict[str, Callable[[], object]] = {"embed": lambda: [embed(tensor) for tensor in tensors]}
    for name, tok in toks.items():
        works[f"{name}: score"] = lambda tok=tok: [tok.score(picture) for picture in pictures]
        works[f"{name}: whole"] = lambda tok=tok: [tok(picture) for picture in pictures]
        works[f"{name}: video"] = lambda tok=tok: tok.score(video)
    times: dict[str, list[float]] = {name: [] for name in works}
    with torch.inference_mode():
        for _ in range(rounds + 1):
            for name, work in works.items():
                times[name].append(spent(work, count))
    bars = {name: STILL_BARS[name.split(": ")[1]] for name in works if name != "embed"}
    rows = rows_of(times, "embed", bars, {"what": "336"})
    for row in rows:
        row["selector"], kind = row["selector"].split(": ")
        row["what"] = f"336 {kind}"
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--selectors", nargs="+", default=selectors(), choices=selectors(), metavar="NAME")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.rounds < 1:
        parser.error(f"--rounds must be at least 1, got {options.rounds}")
    cv2.setNumThreads(1)
    names = list(options.selectors)
    rows = videos(options.rounds, names) + stills(options.rounds, names)
    if options.json:
        print(json.dumps({"rows": rows}))
        return
    print(f"entropy_vision of {Path(entropy_vision.__file__).parent}")
    print(f"{options.rounds} rounds; base: decode and scaling to 224, or the patch embedding; medians [quartiles]\n")
    print("| what | base ms | selector | ms a frame | of the base | bar | met |\n|---|---|---|---|---|---|---|")
    for row in rows:
        told = " | ".join("{median:.3f} [{low:.3f}, {high:.3f}]".format(**row[key]) for key in ("ms", "ratio"))
        met = "yes" if row["ratio"]["median"] <= row["bar"] else "no"
        base = f"{row['base_ms']['median']:.2f}"
        print(f"| {row['what']} | {base} | {row['selector']} | {told} | {row['bar']} | {met} |")


if __name__ == "__main__":
    main()
