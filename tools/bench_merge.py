"""What merging shows that dropping does not, at the same number of tokens, on real videos.

    python tools/bench_merge.py --frames 8
    python tools/bench_merge.py --frames 1 --json

Each file gives evenly spread frames of 224 x 224, patch 16, scored by `rate`; `drop` keeps K patches, `merge` covers
everything by K tokens of up to 4 x 4 or 8 x 8 patches.

rebuilt     PSNR in dB of the frames as the tokens tell them: a merged token enlarged, a dropped patch as it was last
            kept at its place, grey where it never was
hidden      share of all bits that this does not tell: of each patch bits * V / (V + 9), V its mean squared error
full        share of all bits in patches that are shown at full size in their own frame
seconds     median of five, choosing and gathering, the scores given

Means over files with 95 % intervals, bootstrapped over files. The files are those of $ENTROPY_VISION_SHARED_DATA/videos
(../shared/data beside the checkout where it is not set).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

import cv2
import numpy as np

import entropy_vision
from entropy_vision import EntropyTokenizer, Frames, PatchSet, read_video
from entropy_vision.cost import measure_seconds
from entropy_vision.grid import patchify
from entropy_vision.stats import mean_interval

SIDE, PATCH = 224, 16
WAYS = {"drop": 1, "merge 4": 4, "merge 8": 8}
KEEPS = (0.125, 0.25, 0.5)


def read(path: Path, count: int) -> Frames:
    """`count` evenly spread frames, or as many as there are at four a second."""
    frames = read_video(path, fps=4, size=SIDE)
    which = np.unique(np.linspace(0, frames.count - 1, count).round().astype(int))
    return Frames(pixels=frames.pixels[which], pts_seconds=frames.pts_seconds[which])


def rebuilt(kept: PatchSet) -> np.ndarray:
    """What the tokens tell of every patch: uint8 [F, R, C, P, P, 3]."""
    frames, rows, columns = kept.grid
    out = np.full((frames, rows, columns, PATCH, PATCH, 3), 128, np.uint8)
    told = np.zeros(kept.grid, bool)
    spans = np.ones((len(kept), 2), int) if kept.spans is None else kept.spans
    for pixels, (frame, row, column), (down, along) in zip(kept.pixels, kept.positions, spans, strict=True):
        large = pixels.repeat(down, axis=0).repeat(along, axis=1)
        out[frame, row : row + down, column : column + along] = patchify(large[None], PATCH)[0]
        told[frame, row : row + down, column : column + along] = True
    for frame in range(1, frames):
        out[frame][~told[frame]] = out[frame - 1][~told[frame]]
    return out


def measures(frames: Frames, kept: PatchSet) -> dict[str, float]:
    """`rebuilt`, `hidden` and `full` of one choice."""
    apart = rebuilt(kept).astype(np.float32) - patchify(frames.pixels, PATCH)
    energy = (apart**2).mean(axis=(3, 4, 5))
    bits = kept.bits.astype(np.float64)
    full = kept.mask
    if kept.spans is not None:
        full[tuple(kept.positions[kept.spans.max(axis=1) > 1].T)] = False
    return {
        "rebuilt": float(10 * np.log10(255**2 / max(float(energy.mean()), 0.01))),
        "hidden": float((bits * energy / (energy + 9)).sum() / bits.sum()),
        "full": float(bits[full].sum() / bits.sum()),
    }


def measure(path: Path, count: int) -> dict[str, dict[str, float]]:
    """Every row of one file."""
    frames, rows = read(path, count), {}
    for keep in KEEPS:
        for name, side in WAYS.items():
            tok = EntropyTokenizer(patch_size=PATCH, keep=keep, merge=side)
            bits = tok.score(frames)
            seconds = measure_seconds(lambda tok=tok, bits=bits: tok.select(frames, bits)).median
            rows[f"{name}, {keep:g}"] = measures(frames, tok.select(frames, bits)) | {"seconds": seconds}
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=8, help="frames of every file; 1 for stills")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    default = Path(__file__).resolve().parents[1] / "../shared/data"
    folder = Path(os.environ.get("ENTROPY_VISION_SHARED_DATA", default)).resolve() / "videos"
    if not folder.is_dir():
        print(json.dumps({"skipped": f"no videos at {folder}"}) if options.json else
              f"skipped: no videos at {folder} (set ENTROPY_VISION_SHARED_DATA)")  # fmt: skip
        return
    files = {}
    for path in sorted(folder.iterdir()):
        files[path.name] = measure(path, options.frames)
        print(f"{path.name}: done", file=sys.stderr)
    rows = {
        row: {
            name: mean_interval([file[row][name] for file in files.values()])
            for name in ("rebuilt", "hidden", "full", "seconds")
        }
        for row in next(iter(files.values()))
    }
    if options.json:
        print(json.dumps({"frames": options.frames, "files": files, "rows": rows}))
        return
    print(f"{entropy_vision.__file__}: {len(files)} files, {options.frames} frames")
    print(f"{'row':<14} {'rebuilt, dB':>20} {'hidden':>18} {'full':>18} {'ms':>8}")
    for row, found in rows.items():
        cells = []
        for name, digits in (("rebuilt", 1), ("hidden", 2), ("full", 2)):
            mean, low, high = found[name]
            cells.append(f"{mean:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]")
        print(f"{row:<14} {cells[0]:>20} {cells[1]:>18} {cells[2]:>18} {1000 * found['seconds'][0]:>8.1f}")


if __name__ == "__main__":
    main()
