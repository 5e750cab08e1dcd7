"""Real videos: are moving pixels kept, and how well can the video be rebuilt from what was kept?

    python tools/bench_real.py --split tune
    python tools/bench_real.py --split all --json

Videos are read at 224 x 224, patch 16; of one of more than 160 frames every second, third ... is taken. 10 % and 25 %
of the patches are kept. Files alternate between `tune` and `report` by name; `all` is both.

Moving pixels: those farther than 30 grey levels (in any channel) from the median over time, in every frame but the
first. This is a truth only where a still camera looks at a ground that is mostly seen. So a file counts when it has at
least 24 frames, 70 % of its patches stand still from frame to frame (mean difference below 2), at 90 % of the pixels
60 % of the frames are within 15 of the median, the medians of its two halves are within 15 of each other at 90 % of the
pixels, and 1 to 10 % of all pixels move. Beside the selectors stand: the mean absolute difference to the frame before,
largest of the whole file (`difference, file`) or an equal number in every frame (`difference, frame`), and the choice
by the truth itself (`ceiling`). None of these three spends anything on the first frame.

Rebuilding: each place shows the patch last kept there; before the first one mid-grey (`grey`), or the first one
(`first`, which a store can do and a stream cannot). PSNR in dB over all pixels of a file, at most 50; SSIM (Wang,
Bovik, Sheikh, Simoncelli, IEEE TIP 13, 2004; luma, Gaussian window of 1.5 pixels) over every fourth frame; means over
files.

The files are those of $ENTROPY_VISION_SHARED_DATA/videos (../shared/data beside the checkout where it is not set).
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
from entropy_vision import EntropyTokenizer, Frames, read_video, selectors
from entropy_vision.grid import patchify, unpatchify
from entropy_vision.stats import mean_interval, paired_difference

SIDE, PATCH, LONGEST, KEEPS = 224, 16, 160, (0.1, 0.25)
MOVED, AGREE = 30, 15  # grey levels
BEST = 255**2 / 10**5  # 50 dB: a smaller error is not seen, and would rule the mean over files
DIFFERENCES = ("difference, file", "difference, frame")


def read(path: Path) -> tuple[Frames, float]:
    """The frames of a file, thinned to at most LONGEST, and the share of patches that stand still between all."""
    frames = read_video(path, size=SIDE)
    still = float((differences(frames.pixels)[1:] < 2).mean()) if frames.count > 1 else 1.0
    step = -(-frames.count // LONGEST)
    return Frames(pixels=np.ascontiguousarray(frames.pixels[::step]), pts_seconds=frames.pts_seconds[::step]), still


def moving(pixels: np.ndarray, still: float) -> tuple[np.ndarray, str]:
    """(truth bool [F, H, W], why it is not sound or "")."""
    middle = np.median(pixels, axis=0).astype(np.int16)
    apart = np.abs(pixels.astype(np.int16) - middle).max(axis=-1)
    truth, half = apart > MOVED, len(pixels) // 2
    truth[0] = False
    halves = (np.median(part, axis=0) for part in (pixels[:half], pixels[half:]))
    differ = (np.abs(np.subtract(*halves)).max(axis=-1) > AGREE).mean()
    seen = ((apart <= AGREE).mean(axis=0) >= 0.6).mean()
    share = truth[1:].mean()
    tests = {
        "too few frames": len(pixels) < 24,
        f"{still:.0%} of the patches stand still": still < 0.7,
        f"ground seen at {seen:.0%} of the pixels": seen < 0.9,
        f"medians of the halves differ at {differ:.0%}": differ > 0.1,
        f"{share:.1%} of the pixels move": not 0.01 <= share <= 0.1,
    }
    return truth, "; ".join(reason for reason, failed in tests.items() if failed)


def differences(pixels: np.ndarray) -> np.ndarray:
    """Mean absolute difference of each patch to the frame before, float64 [F, R, C]; none in the first frame."""
    out = np.zeros((len(pixels), SIDE // PATCH, SIDE // PATCH))
    for t in range(1, len(pixels)):
        out[t] = patch_means(cv2.absdiff(pixels[t], pixels[t - 1]).mean(axis=-1)[None])[0]
    return out


def patch_means(planes: np.ndarray) -> np.ndarray:
    """[F, H, W] -> [F, R, C]."""
    return planes.reshape(len(planes), SIDE // PATCH, PATCH, -1, PATCH).mean(axis=(2, 4))


def largest(worth: np.ndarray, count: int, each: bool) -> np.ndarray:
    """bool [F, R, C]: so many of the largest, of the whole file or of each frame but the first in equal parts."""
    mask = np.zeros(worth.shape, bool)
    if not each:
        mask.ravel()[np.argsort(-worth.ravel(), kind="stable")[:count]] = True
        return mask
    shares = np.diff(np.arange(len(worth)) * count // (len(worth) - 1))
    for t, share in enumerate(shares, start=1):
        mask[t].ravel()[np.argsort(-worth[t].ravel(), kind="stable")[:share]] = True
    return mask


def chosen(frames: Frames, keep: float, names: list[str]) -> dict[str, np.ndarray]:
    """The mask of every selector, bool [F, R, C]."""
    return {name: EntropyTokenizer(patch_size=PATCH, keep=keep, selector=name)(frames).mask for name in names}


def recalls(pixels: np.ndarray, truth: np.ndarray, masks: dict[str, np.ndarray]) -> dict[str, float]:
    """Share of the moving pixels in kept patches, with the differences and the ceiling."""
    inside, change = patch_means(truth), differences(pixels)
    count = int(next(iter(masks.values())).sum())
    plain = {name: largest(change, count, name.endswith("frame")) for name in DIFFERENCES}
    every = {**masks, **plain, "ceiling": largest(inside, count, False)}
    return {name: float(inside[mask].sum() / inside.sum()) for name, mask in every.items()}


def rebuilt(patches: np.ndarray, mask: np.ndarray, first: bool) -> np.ndarray:
    """Frames from the kept patches: uint8 [F, R, C, P, P, 3] -> the same."""
    times = np.arange(len(mask))[:, None, None]
    last = np.maximum.accumulate(np.where(mask, times, -1), axis=0)
    if first:
        last = np.where((last < 0) & mask.any(axis=0), mask.argmax(axis=0), last)
    rows, columns = np.indices(mask.shape[1:])
    out = patches[np.maximum(last, 0), rows, columns]
    out[last < 0] = 128
    return out


def quality(patches: np.ndarray, luma: np.ndarray, mask: np.ndarray, first: bool) -> tuple[float, float]:
    """(PSNR, SSIM) of what can be rebuilt; luma uint8 [F / 4, H, W] is of the true frames."""
    again = rebuilt(patches, mask, first)
    error = np.mean([(cv2.absdiff(a.reshape(-1, 3), b.reshape(-1, 3)).astype(np.float32) ** 2).mean()
                     for a, b in zip(again, patches, strict=True)])  # fmt: skip
    pictures = unpatchify(again[::4])
    likeness = [ssim(a, cv2.cvtColor(b, cv2.COLOR_RGB2GRAY)) for a, b in zip(luma, pictures, strict=True)]
    return float(10 * np.log10(255**2 / max(error, BEST))), float(np.mean(likeness))


def ssim(one: np.ndarray, two: np.ndarray) -> float:
    """Mean structural similarity of two uint8 [H, W]."""
    a, b = one.astype(np.float32), two.astype(np.float32)
    blur = [cv2.GaussianBlur(plane, (11, 11), 1.5) for plane in (a, b, a * a, b * b, a * b)]
    mean_a, mean_b = blur[:2]
    var_a, var_b, both = blur[2] - mean_a**2, blur[3] - mean_b**2, blur[4] - mean_a * mean_b
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    top = (2 * mean_a * mean_b + c1) * (2 * both + c2)
    return float((top / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))).mean())


def measure(path: Path, names: list[str]) -> dict:
    """Everything about one file."""
    frames, still = read(path)
    truth, unsound = moving(frames.pixels, still)
    row: dict = {"file": path.name, "frames": frames.count, "unsound": unsound, "moving": {}, "rebuilt": {}}
    row["share"] = float(truth[1:].mean()) if frames.count > 1 else 0.0
    patches = patchify(frames.pixels, PATCH)
    luma = np.stack([cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY) for picture in frames.pixels[::4]])
    for keep in KEEPS:
        masks = chosen(frames, keep, names)
        if not unsound:
            row["moving"][f"{keep:g}"] = recalls(frames.pixels, truth, masks)
        row["rebuilt"][f"{keep:g}"] = {
            name: [*quality(patches, luma, mask, False), *quality(patches, luma, mask, True)]
            for name, mask in masks.items()
        }
    return row


def show_moving(rows: list[dict], names: list[str]) -> None:
    """Recall of moving pixels by file, and where a selector is not above both differences."""
    shown = [*names, *DIFFERENCES, "ceiling"]
    for row in rows:
        if row["unsound"]:
            print(f"no sound truth: {row['file']}: {row['unsound']}")
    sound = [row for row in rows if row["moving"]]
    for keep in map("{:g}".format, KEEPS) if sound else ():
        print(f"\nRecall of moving pixels at keep {keep}\n\n| file | frames | moving | {' | '.join(shown)} |")
        print("|---" * (3 + len(shown)) + "|")
        for row in sound:
            cells = " | ".join(f"{row['moving'][keep][name]:.3f}" for name in shown)
            print(f"| {row['file']} | {row['frames']} | {row['share']:.3f} | {cells} |")
        print()
        for name in names:
            below = [
                r["file"] for r in sound if r["moving"][keep][name] <= max(r["moving"][keep][d] for d in DIFFERENCES)
            ]
            values = [row["moving"][keep][name] for row in sound]
            told = "{:.3f} [{:.3f}, {:.3f}]".format(*mean_interval(values)) if len(values) > 1 else values[0]
            which = f": {', '.join(below)}" if name == names[0] and below else ""
            print(f"{name}: mean {told}; not above both differences in {len(below)} of {len(sound)} files{which}")


def show_rebuilt(rows: list[dict], names: list[str]) -> None:
    """Means over files, and the paired difference of the first selector to each."""
    titles = ("PSNR grey", "SSIM grey", "PSNR first", "SSIM first")
    for keep in map("{:g}".format, KEEPS):
        print(f"\nRebuilt from keep {keep}, means over {len(rows)} files\n\n| selector | {' | '.join(titles)} |")
        print("|---" * (1 + len(titles)) + "|")
        for name in names:
            cells = []
            for column in range(len(titles)):
                values = [row["rebuilt"][keep][name][column] for row in rows]
                cell = f"{np.mean(values):.3f}"
                if name != names[0] and len(rows) > 1:
                    best = [row["rebuilt"][keep][names[0]][column] for row in rows]
                    cell += " ({} {:+.3f} [{:+.3f}, {:+.3f}])".format(names[0], *paired_difference(values, best))
                cells.append(cell)
            print(f"| {name} | {' | '.join(cells)} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--split", choices=("tune", "report", "all"), default="tune")
    parser.add_argument("--selectors", nargs="+", default=selectors(), choices=selectors(), metavar="NAME")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    default = Path(__file__).resolve().parents[1] / "../shared/data"
    folder = Path(os.environ.get("ENTROPY_VISION_SHARED_DATA", default)).resolve() / "videos"
    if not folder.is_dir():
        print(json.dumps({"skipped": f"no videos at {folder}"}) if options.json else
              f"skipped: no videos at {folder} (set ENTROPY_VISION_SHARED_DATA)")  # fmt: skip
        return
    step = {"tune": slice(0, None, 2), "report": slice(1, None, 2), "all": slice(None)}[options.split]
    names, rows = list(options.selectors), []
    for path in sorted(folder.iterdir())[step]:
        rows.append(measure(path, names))
        print(f"{path.name}: done", file=sys.stderr)
    if options.json:
        print(json.dumps({"split": options.split, "rebuilt_columns": ["psnr_grey", "ssim_grey", "psnr_first",
                                                                      "ssim_first"], "rows": rows}))  # fmt: skip
        return
    print(f"entropy_vision of {Path(entropy_vision.__file__).parent}\n{options.split} files\n")
    show_moving(rows, names)
    show_rebuilt(rows, names)


if __name__ == "__main__":
    main()
