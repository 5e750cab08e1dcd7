"""What does preprocessing cost beside decoding? One thread, everything in turn in one process; then whole runs.

    OMP_NUM_THREADS=1 python tools/bench_preprocess.py
    OMP_NUM_THREADS=1 python tools/bench_preprocess.py --rounds 9 --json
    OMP_NUM_THREADS=1 python tools/bench_preprocess.py --runs 5      # also whole runs: workers, bad files, memory
    OMP_NUM_THREADS=1 python tools/bench_preprocess.py --videos film.mp4 talk.mkv

Clips are drawn as in bench_cost.py (still camera and pan, 360p and 1080p, H.264). A round decodes and scales a clip
to 224 as any pipeline does, with decord (it scales while decoding) and with PyAV (FFmpeg's `scale`, bilinear; `hasty`
opens as we do, without decoding the first frame once more); does so with `read_video`; does all that a worker does
(decode, scale, choose by `rate`, keep a quarter, pack, write); and does what a short script of decord and webdataset
does: `plain` as such scripts are written (frames as stored, Pillow scales them, JPEG of quality 90, one tar), `tuned`
with decord scaling while it decodes. Neither looks at the pixels, and both keep all of them. `speed` is the CPU time of
decord or PyAV as they are used, whichever took less, by that of the other: 1 is free; `of read_video` is the same with
our own reading as the measure. Medians of the rounds' own ratios with their quartiles; a first round is thrown away.

Whole runs are the command line itself on copies of the clips, in turn: one worker, two workers, one worker with a tenth
of the files damaged. Wall-clock seconds, so nothing else should run; `two` is one by two workers, `bad` what the
damaged files add to the seconds of the good ones. `rss` is the largest resident memory of a worker at 1080p, in MiB.
"""

from __future__ import annotations

import argparse
import io
import json
import secrets
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import decord
import numpy as np
import webdataset
from bench_cost import CLIPS, FRAMES, clip, decoded, encode, quartiles
from PIL import Image

from entropy_vision import EntropyTokenizer
from entropy_vision.data import worker
from entropy_vision.data.source import digest, stat
from entropy_vision.frames import decode

BARS = {"360p still": 0.80, "360p pan": 0.65, "1080p still": 0.93, "1080p pan": 0.85}
BARS_OF_RUNS = {"two": 1.7, "bad": 0.05, "rss": 350}
COPIES = 12  # of each clip: enough that the second in which a worker starts does not decide
SETTINGS: dict[str, Any] = {"sampling": {"fps": None}, "size": 224, "salvage": False, "store": "mosaic", "mark": ""}


def draw(folder: Path) -> dict[str, Path]:
    """One file a clip."""
    paths = {}
    for number, (size, (height, width)) in enumerate(CLIPS.items()):
        for camera in ("still", "pan"):
            paths[f"{size} {camera}"] = path = folder / f"{size}-{camera}.mp4"
            encode(path, clip(np.random.default_rng(number), height, width, FRAMES, camera == "pan"))
    return paths


def ours(path: Path, tokenizer: EntropyTokenizer, settings: dict[str, Any], folder: Path) -> None:
    """What a worker does with one task; every task has files of its own."""
    source, name = stat(path), secrets.token_hex(8)
    task = {"source": vars(source), "name": source.name, "key": "a", "digest": digest(source)}
    task |= {"part": str(folder / f"{name}.part"), "note": str(folder / f"{name}.note")}
    worker._write(task, *worker.make(task, settings, tokenizer, folder))


def by_decord(path: Path) -> None:
    """Every frame, scaled to 224."""
    reader = decord.VideoReader(str(path), width=224, height=224, num_threads=1)
    for _ in range(len(reader)):
        reader.next().asnumpy()


def plain(path: Path, folder: Path, **scaled: int) -> None:
    """What a short script does: every frame as a JPEG in a tar."""
    reader = decord.VideoReader(str(path), num_threads=1, **scaled)
    with webdataset.TarWriter(str(folder / "plain.tar")) as tar:
        sample: dict[str, Any] = {"__key__": path.stem}
        for number in range(len(reader)):
            held = io.BytesIO()
            image = Image.fromarray(reader.next().asnumpy())
            (image if scaled else image.resize((224, 224), Image.Resampling.BILINEAR)).save(held, "JPEG", quality=90)
            sample[f"{number:04d}.jpg"] = held.getvalue()
        tar.write(sample)


def spent(work: Callable[[], object], frames: int) -> float:
    """CPU milliseconds a frame."""
    began = time.process_time()
    work()
    return 1000 * (time.process_time() - began) / frames


def by_part(paths: dict[str, Path], rounds: int) -> list[dict[str, Any]]:
    """A row for every clip and pipeline."""
    tokenizer = EntropyTokenizer()
    settings = SETTINGS | {"fingerprint": tokenizer.fingerprint()}  # which a run makes once
    with tempfile.TemporaryDirectory() as held:
        folder = Path(held)
        works: dict[str, Callable[[Path], object]] = {
            "decord": by_decord,
            "pyav": lambda path: deque(decoded(path), maxlen=0),
            "pyav, hasty": lambda path: deque(decoded(path, hasty=True), maxlen=0),
            "read_video": lambda path: decode(path, size=224),
            "ours": lambda path: ours(path, tokenizer, settings, folder),
            "plain": lambda path: plain(path, folder),
            "tuned": lambda path: plain(path, folder, width=224, height=224),
        }
        times: dict[str, dict[str, list[float]]] = {name: {kind: [] for kind in works} for name in paths}
        counts = {name: decode(path, size=224)[0].count for name, path in paths.items()}
        for _ in range(rounds + 1):
            for name, path in paths.items():
                for kind, work in works.items():
                    times[name][kind].append(spent(lambda work=work, path=path: work(path), counts[name]))
    rows = []
    for name, every in times.items():
        taken = {kind: values[1:] for kind, values in every.items()}
        base = min(taken["decord"], taken["pyav"], key=statistics.median)
        for kind, values in taken.items():
            row = {"clip": name, "pipeline": kind, "ms": quartiles(values), "n": rounds}
            for title, other in (("speed", base), ("of_read_video", taken["read_video"])):
                row[title] = quartiles([base_of / one for base_of, one in zip(other, values, strict=True)])
            rows.append(row | ({"bar": BARS[name]} if kind == "ours" and name in BARS else {}))
    return rows


def run(source: Path, out: Path, workers: int) -> tuple[float, float]:
    """(seconds, MiB of the largest worker) of the command line."""
    line = [sys.executable, "-m", "entropy_vision.cli", "preprocess", str(source), "--out", str(out), "--json"]
    line += ["--workers", str(workers), "--max-bad", "1000"]
    watch = "import json, resource, subprocess, sys; done = subprocess.run(sys.argv[1:], stdout=subprocess.PIPE, "
    watch += "check=True); print(json.dumps([json.loads(done.stdout)['seconds'], "
    watch += "resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024]))"
    told = subprocess.run([sys.executable, "-c", watch, *line], stdout=subprocess.PIPE, check=True, text=True)
    seconds, memory = json.loads(told.stdout)
    shutil.rmtree(out)
    return seconds, memory


def whole_runs(paths: dict[str, Path], runs: int, folder: Path) -> list[dict[str, Any]]:
    """Two workers against one, and damaged files against none."""
    good, bad = folder / "good", folder / "bad"
    good.mkdir()
    for number in range(COPIES):
        for name, path in paths.items():
            content = path.read_bytes() + bytes([number])  # no two files are equal
            (good / f"{name.replace(' ', '-')}-{number}.mp4").write_bytes(content)
    shutil.copytree(good, bad)
    damaged = [path for path in sorted(good.iterdir()) if "360p" in path.name][::5]
    for path in damaged:
        content = path.read_bytes()
        (bad / f"damaged-{path.name}").write_bytes(content[: len(content) // 2])
    times: dict[str, list[float]] = {"one": [], "two": [], "bad": []}
    memory = 0.0
    for _ in range(runs):
        for name, source, workers in (("one", good, 1), ("two", good, 2), ("bad", bad, 1)):
            seconds, most = run(source, folder / "out", workers)
            times[name].append(seconds)
            memory = max(memory, most)
    two = [one / both for one, both in zip(times["one"], times["two"], strict=True)]
    more = [spoilt / one - 1 for one, spoilt in zip(times["one"], times["bad"], strict=True)]
    return [
        {"what": "two", "value": statistics.median(two), "values": two, "bar": BARS_OF_RUNS["two"]},
        {"what": "bad", "value": statistics.median(more), "values": more, "bar": BARS_OF_RUNS["bad"]},
        {"what": "rss", "value": memory, "bar": BARS_OF_RUNS["rss"]},
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--runs", type=int, default=0)
    parser.add_argument("--videos", type=Path, nargs="+", help="these files (H.264, not turned) instead of drawn clips")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.rounds < 1 or options.runs < 0 or (options.videos and options.runs):
        parser.error("--rounds must be at least 1, --runs at least 0, and 0 with --videos")
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as held:
        folder = Path(held)
        clips = folder / "clips"
        clips.mkdir()
        paths = {str(path): path for path in options.videos} if options.videos else draw(clips)
        rows = by_part(paths, options.rounds)
        runs = whole_runs(paths, options.runs, folder) if options.runs else []
    if options.json:
        print(json.dumps({"rows": rows, "runs": runs}))
        return
    print(f"{options.rounds} rounds; speed: CPU time of decoding and scaling by the faster of decord and PyAV by it\n")
    print("| clip | pipeline | ms a frame | speed | of read_video | bar |\n|---|---|---|---|---|---|")
    columns = "ms", "speed", "of_read_video"
    for row in rows:
        told = " | ".join("{median:.3f} [{low:.3f}, {high:.3f}]".format(**row[key]) for key in columns)
        print(f"| {row['clip']} | {row['pipeline']} | {told} | {row.get('bar', '')} |")
    for row in runs:
        print(f"{row['what']} {row['value']:.3f} (bar {row['bar']}) {row.get('values', '')}")


if __name__ == "__main__":
    main()
