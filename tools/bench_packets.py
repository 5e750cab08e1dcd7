"""Frames by equal shares of bytes beside frames by equal shares of time: what of the whole video do they show?

    python tools/bench_packets.py

Real videos at 112 x 112, patch 8, all of them that have twice as many frames as are taken. So many frames are taken by
`packets` and by `frames`, and of their patches all or a quarter are kept by `rate`: equal tokens. Then every frame of
the video, taken or not, is compared with what was last kept at each place (before the first one, that one):

PSNR: in dB over all pixels of a file, at most 50.
moving: the share of the moving pixels (as in `bench_real.py`, where their truth is sound) within 30 grey levels of it.

Means over files; paired differences to `frames` with 95 % intervals, bootstrapped over files. The files are those of
$ENTROPY_VISION_SHARED_DATA/videos (../shared/data beside the checkout where it is not set).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

import bench_real
import cv2
import numpy as np

import entropy_vision
from entropy_vision import EntropyTokenizer, Frames, read_video
from entropy_vision.grid import patchify
from entropy_vision.probe import Limits, probe_video
from entropy_vision.sampling import Sampling, choose
from entropy_vision.stats import paired_difference

SIDE, PATCH, COUNTS, KEEPS = 112, 8, (8, 16, 32), (1.0, 0.25)


def shown(frames: Frames, places: list[int], keep: float) -> np.ndarray:
    """What each frame of a video looks like where only some were taken: uint8 [F, R, C, P, P, 3]."""
    taken = Frames(pixels=np.ascontiguousarray(frames.pixels[places]), pts_seconds=frames.pts_seconds[places])
    mask = np.zeros((frames.count, SIDE // PATCH, SIDE // PATCH), bool)
    mask[places] = EntropyTokenizer(patch_size=PATCH, keep=keep)(taken).mask
    return bench_real.rebuilt(patchify(frames.pixels, PATCH), mask, True)


def measure(path: Path) -> dict[str, list[list[float]]]:
    """By count and keep: [PSNR, moving] of `frames` and of `packets`; moving is NaN where there is no sound truth."""
    frames, probe = read_video(path, size=SIDE), probe_video(path, Limits())
    true, out = np.ascontiguousarray(patchify(frames.pixels, PATCH)), {}
    still = float((bench_real.differences(frames.pixels)[1:] < 2).mean())
    moving, unsound = bench_real.moving(frames.pixels, still)
    moving = patchify(moving[..., None], PATCH)[..., 0]
    for count in COUNTS:
        if 2 * count > len(probe.times):
            continue
        for keep in KEEPS:
            told = out[f"{count} {keep:g}"] = []
            for rule in (Sampling(frames=count), Sampling(packets=count)):
                places = choose(rule, probe.times, probe.keyframes, sizes=probe.sizes)
                assert places is not None and len(probe.times) == frames.count
                apart = cv2.absdiff(shown(frames, places, keep).ravel(), true.ravel()).reshape(true.shape)
                error = max(float((apart.astype(np.uint16) ** 2).mean()), bench_real.BEST)
                right = (apart.max(axis=-1) <= bench_real.MOVED) & moving
                recall = float("nan") if unsound else float(right.sum() / moving.sum())
                told.append([float(10 * np.log10(255**2 / error)), recall])
    return out


def summary(files: list[dict[str, list[list[float]]]]) -> list[dict]:
    """A row for each count, keep and figure."""
    rows = []
    for count in COUNTS:
        for keep in KEEPS:
            pairs = np.array([told[f"{count} {keep:g}"] for told in files if f"{count} {keep:g}" in told])
            for place, name in enumerate(("PSNR", "moving")):
                known = pairs[~np.isnan(pairs[:, 0, place]), :, place]
                mean, low, high = paired_difference(known[:, 0].tolist(), known[:, 1].tolist())
                by_time, by_bytes = (float(one) for one in known.mean(axis=0))
                rows.append({"frames": count, "keep": keep, "figure": name, "n": len(known), "by_time": by_time,
                             "by_bytes": by_bytes, "difference": mean, "low": low, "high": high,
                             "better": int((known[:, 1] > known[:, 0]).sum())})  # fmt: skip
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    bench_real.SIDE, bench_real.PATCH = SIDE, PATCH
    default = Path(__file__).resolve().parents[1] / "../shared/data"
    folder = Path(os.environ.get("ENTROPY_VISION_SHARED_DATA", default)).resolve() / "videos"
    if not folder.is_dir():
        print(json.dumps({"skipped": f"no videos at {folder}"}) if options.json else
              f"skipped: no videos at {folder} (set ENTROPY_VISION_SHARED_DATA)")  # fmt: skip
        return
    files = []
    for path in sorted(folder.iterdir()):
        files.append(measure(path))
        print(f"{path.name}: done", file=sys.stderr)
    rows = summary(files)
    if options.json:
        print(json.dumps({"rows": rows}))
        return
    print(f"entropy_vision of {Path(entropy_vision.__file__).parent}\n")
    heads = ("frames", "keep", "figure", "files", "by time", "by bytes", "difference", "better")
    print(f"| {' | '.join(heads)} |\n{'|---' * len(heads)}|")
    for row in rows:
        told = "{by_time:.3f} | {by_bytes:.3f} | {difference:+.3f} [{low:+.3f}, {high:+.3f}]".format(**row)
        print(f"| {row['frames']} | {row['keep']:g} | {row['figure']} | {row['n']} | {told} | {row['better']} |")


if __name__ == "__main__":
    main()
