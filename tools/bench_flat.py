"""Are flat objects kept that lie on the patch grid? Share of object pixels in kept patches, on a public set.

    python tools/bench_flat.py --split tune
    python tools/bench_flat.py --split report --json

Pictures of NLVR (Suhr et al., ACL 2017; CC BY 4.0), 400 x 100: three grey boxes with squares, circles and triangles of
10, 20 or 30 pixels in three solid colours, often aligned with a grid of 10. Patches of 10 and of 20 pixels, 32 % kept.
`tune` has the 989 dev scenes, `report` the 808 of the public test that occur in neither dev nor train; `--scenes` takes
some by lot.
Every scene is shown in one of its six orders of the boxes, drawn by lot. Object pixels have exactly one of the three
colours (the softened rim is nobody's). `coverage` is the mean over scenes of the share of object pixels that lie in
kept patches, `ceiling` the same of the best choice there is; `lost` is the share of scenes in which an object (a
connected area of one colour) has less than half of its pixels kept. Intervals are 95 %, bootstrapped over scenes.

The images are read from $ENTROPY_VISION_SHARED_DATA/qa (../shared/data beside the checkout where it is not set).
"""

from __future__ import annotations

import argparse
import io
import json
import os
import zipfile
import zlib
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

import entropy_vision
from entropy_vision import EntropyTokenizer, Frames, selectors
from entropy_vision.stats import mean_interval

KEEP, PATCHES, BAR = 0.32, (10, 20), 0.98
COLORS = np.array([[255, 255, 0], [0, 0, 0], [0, 153, 255]], np.uint8)
SPLITS = {"tune": "dev", "report": "test"}
ELSEWHERE = ("scene_also_in_train", "scene_also_in_dev")  # scenes of the test that others may have seen


def pictures(folder: Path, split: str, scenes: int | None) -> list[np.ndarray]:
    """uint8 [100, 400, 3] of so many scenes, by lot; of all where it is None."""
    name = SPLITS[split]
    overlap = json.loads((folder / "nlvr_overlap.json").read_text())["splits"]["test"]
    barred = set().union(*(overlap[key] for key in ELSEWHERE)) if split == "report" else set()
    rng = np.random.default_rng(zlib.crc32(f"flat {split}".encode()))
    with zipfile.ZipFile(folder / f"nlvr_{name}.zip") as archive:
        members: dict[str, dict[str, str]] = {}
        for member in archive.namelist():
            if member.endswith(".png"):
                scene, order = Path(member).stem.removeprefix(f"{name}-").rsplit("-", 1)
                members.setdefault(scene, {})[order] = member
        chosen = rng.permutation(sorted(set(members) - barred))[:scenes]
        files = [members[scene][sorted(members[scene])[rng.integers(len(members[scene]))]] for scene in chosen]
        return [np.asarray(Image.open(io.BytesIO(archive.read(file))).convert("RGB")) for file in files]


def objects(pixels: np.ndarray) -> list[np.ndarray]:
    """bool [H, W] of every connected area of one object colour of at least 20 pixels."""
    found = []
    for color in COLORS:
        count, labels = cv2.connectedComponents((pixels == color).all(axis=2).astype(np.uint8), connectivity=4)
        found += [labels == number for number in range(1, count) if (labels == number).sum() >= 20]
    return found


def best(ink: np.ndarray, patch: int, count: int) -> float:
    """The largest share of `ink` that so many patches hold."""
    inside = ink.reshape(ink.shape[0] // patch, patch, ink.shape[1] // patch, patch).sum(axis=(1, 3)).ravel()
    return float(np.sort(inside)[::-1][:count].sum() / ink.sum())


def measure(images: list[np.ndarray], patch: int, names: list[str]) -> dict:
    """The row of one patch size."""
    covers: dict[str, list[float]] = {name: [] for name in names}
    lost: dict[str, list[float]] = {name: [] for name in names}
    ceilings = []
    for seed, pixels in enumerate(images):
        frames = Frames(pixels=pixels[None], pts_seconds=np.zeros(1))
        things = objects(pixels)
        ink = np.logical_or.reduce(things)
        for name in names:
            kept = EntropyTokenizer(patch_size=patch, keep=KEEP, selector=name, seed=seed)(frames)
            seen = kept.mask[0].repeat(patch, 0).repeat(patch, 1)
            covers[name].append(float((seen & ink).sum() / ink.sum()))
            lost[name].append(float(any((seen & thing).sum() < thing.sum() / 2 for thing in things)))
        ceilings.append(best(ink, patch, len(kept)))
    result = {}
    for name in names:
        mean, low, high = mean_interval(covers[name])
        result[name] = {"coverage": mean, "low": low, "high": high, "lost": float(np.mean(lost[name])),
                        "least": min(covers[name]), "bar_met": mean >= BAR}  # fmt: skip
    return {"patch": patch, "n": len(images), "ceiling": float(np.mean(ceilings)), "selectors": result}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--split", choices=tuple(SPLITS), default="tune")
    parser.add_argument("--scenes", type=int, help="by default all")
    parser.add_argument("--selectors", nargs="+", default=selectors(), choices=selectors(), metavar="NAME")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    default = Path(__file__).resolve().parents[1] / "../shared/data"
    folder = Path(os.environ.get("ENTROPY_VISION_SHARED_DATA", default)).resolve() / "qa"
    if not (folder / "nlvr_overlap.json").is_file():
        print(json.dumps({"skipped": f"no images at {folder}"}) if options.json else
              f"skipped: no images at {folder} (set ENTROPY_VISION_SHARED_DATA)")  # fmt: skip
        return
    images = pictures(folder, options.split, options.scenes)
    rows = [measure(images, patch, list(options.selectors)) for patch in PATCHES]
    if options.json:
        print(json.dumps({"split": options.split, "keep": KEEP, "bar": BAR, "rows": rows}))
        return
    print(f"entropy_vision of {Path(entropy_vision.__file__).parent}")
    print(f"{options.split} scenes ({SPLITS[options.split]}), coverage of object pixels at keep {KEEP:g}; bar {BAR}\n")
    print("| patch | n | ceiling | selector | coverage | least | scenes with an object lost | bar met |")
    print("|---|---|---|---|---|---|---|---|")
    for row in rows:
        for name, entry in row["selectors"].items():
            told = "{coverage:.3f} [{low:.3f}, {high:.3f}] | {least:.3f} | {lost:.3f}".format(**entry)
            verdict = "yes" if entry["bar_met"] else "no"
            print(f"| {row['patch']} | {row['n']} | {row['ceiling']:.3f} | {name} | {told} | {verdict} |")


if __name__ == "__main__":
    main()
