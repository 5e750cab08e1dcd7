"""Is what a question needs kept? Recall of the World's evidence masks, for every selector and family.

    python tools/bench_evidence.py --scenes 24
    python tools/bench_evidence.py --families direction moved --selectors rate surprisal --scenes 100 --json

Evidence are the patches that one must see to answer (`Item.evidence`, patch 16). For each selector and budget:

recall    kept evidence of all evidence patches of an item, mean over items
tube      places of the grid: evidence counts as kept where it is kept in one of the frames in which it is evidence
all       items of which every evidence patch is kept
all tubes items of which every place of evidence is kept at least once

`share` is the evidence's own part of all patches. Where it is larger than the budget no selector can reach 1: `most` is
the best recall that the budget allows. Nothing is told of the question: a selector that beats `random`, whose recall is
the budget, finds what questions are about because it is what the picture has to say. Intervals are 95 %, bootstrapped
over scenes; `over random` is the paired difference. `random` and `uniform` always run beside the others. Families whose
items name a regime (`Item.meta["regime"]`) have a row for each.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

import entropy_vision
from entropy_vision import Budget, EntropyTokenizer, UsageError, selectors
from entropy_vision.data import World
from entropy_vision.question import Item
from entropy_vision.stats import mean_interval, paired_difference

BESIDE = ("random", "uniform")
MEASURES = ("recall", "tube", "all", "all tubes")
SHOWN = ("tube", "all")  # beside recall
BOUNDS = ("mean", "low", "high")


@dataclass(frozen=True)
class Settings:
    """What is measured on what."""

    families: tuple[str, ...]
    names: tuple[str, ...]
    keeps: tuple[float, ...]
    scenes: int
    split: str
    difficulty: float
    size: int
    frames: int


def measures(kept: np.ndarray, evidence: np.ndarray) -> dict[str, float]:
    """Of one mask of kept patches beside one of evidence, both bool [F, R, C]; the evidence is not empty."""
    both = kept & evidence
    places, seen = evidence.any(axis=0), both.any(axis=0)
    recall, tube = both.sum() / evidence.sum(), seen.sum() / places.sum()
    return {"recall": float(recall), "tube": float(tube), "all": float(recall == 1), "all tubes": float(tube == 1)}


def measure(family: str, settings: Settings) -> list[dict]:
    """A row for each regime of a family, a single one where there are none."""
    world = World(family, settings.split, settings.difficulty, size=settings.size, frame_count=settings.frames)
    groups: dict[str, list[tuple[Item, dict[str, dict[float, dict[str, float]]]]]] = defaultdict(list)
    for i in range(settings.scenes):
        item = world[i]
        if not item.evidence.any():
            raise UsageError(f"{item.key} has no evidence: nothing to be recalled")
        found: dict[str, dict[float, dict[str, float]]] = {}
        for name in settings.names:
            tokenizer = EntropyTokenizer(patch_size=16, selector=name, seed=i)
            bits = tokenizer.score(item.frames)
            found[name] = {
                keep: measures(tokenizer.select(item.frames, bits, Budget(keep=keep)).mask, item.evidence)
                for keep in settings.keeps
            }
        groups[str(item.meta.get("regime", ""))].append((item, found))
    few = [regime for regime, group in groups.items() if len({item.scene for item, _ in group}) < 2]
    if few:
        raise UsageError(f"{family} {few[0]}: a single scene has no interval; ask for more --scenes")
    return [row(family, regime, group, settings) for regime, group in sorted(groups.items())]


def row(
    family: str, regime: str, group: list[tuple[Item, dict[str, dict[float, dict[str, float]]]]], settings: Settings
) -> dict:
    """Means and intervals of one regime; scenes are what is drawn again."""
    scenes = [item.scene for item, _ in group]
    shares = np.array([item.evidence.mean() for item, _ in group])

    def entry(name: str, keep: float) -> dict:
        values = {key: [found[name][keep][key] for _, found in group] for key in MEASURES}
        random = [found["random"][keep]["recall"] for _, found in group]
        told: dict = {key: dict(zip(BOUNDS, mean_interval(v, groups=scenes), strict=True)) for key, v in values.items()}
        difference = paired_difference(random, values["recall"], groups=scenes)
        return {**told, "over_random": dict(zip(BOUNDS, difference, strict=True))}

    return {
        "family": family,
        "regime": regime,
        "n": len(group),
        "share": float(shares.mean()),
        "most": {str(keep): float(np.minimum(1, keep / shares).mean()) for keep in settings.keeps},
        "selectors": {name: {str(keep): entry(name, keep) for keep in settings.keeps} for name in settings.names},
    }


def show(rows: list[dict], keeps: tuple[float, ...]) -> None:
    """A table in Markdown for each row; what does not fit (intervals of the rest, `all tubes`) is in the JSON."""
    for told in rows:
        title = f"{told['family']} {told['regime']}".strip()
        most = ", ".join(f"{told['most'][str(keep)]:.3f} at {keep:.0%}" for keep in keeps)
        print(f"\n**{title}**, {told['n']} items, share {told['share']:.3f}, most {most}\n")
        heads = [f"recall {keep:.0%}" for keep in keeps] + [f"over random {keep:.0%}" for keep in keeps]
        heads += [f"{key} {keep:.0%}" for key in SHOWN for keep in keeps]
        print(f"| selector | {' | '.join(heads)} |\n{'|---' * (len(heads) + 1)}|")
        for name, entries in told["selectors"].items():
            at = [entries[str(keep)] for keep in keeps]
            figures = ["{mean:.3f} [{low:.3f}, {high:.3f}]".format(**entry["recall"]) for entry in at]
            figures += ["{mean:+.3f} [{low:+.3f}, {high:+.3f}]".format(**entry["over_random"]) for entry in at]
            figures += ["{mean:.2f}".format(**entry[key]) for key in SHOWN for entry in at]
            print(f"| {name} | {' | '.join(figures)} |")


def read_settings(argv: list[str] | None = None) -> tuple[Settings, bool]:
    """What the command line asks for, and whether it wants JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--families", nargs="+", default=World.families(), choices=World.families(), metavar="NAME")
    parser.add_argument("--selectors", nargs="+", default=selectors(), choices=selectors(), metavar="NAME")
    parser.add_argument("--keeps", nargs="+", type=float, default=(0.1, 0.25, 0.5), metavar="FRACTION")
    parser.add_argument("--scenes", type=int, default=24, help="items of each family, at least 4")
    parser.add_argument("--split", default="test")
    parser.add_argument("--difficulty", type=float, default=0.5)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(argv)
    if options.scenes < 4:
        parser.error(f"--scenes must be at least 4, got {options.scenes}")
    if not all(0 < keep <= 1 for keep in options.keeps):
        parser.error(f"--keeps must lie in (0, 1], got {options.keeps}")
    names = tuple(dict.fromkeys([*options.selectors, *BESIDE]))
    settings = Settings(
        tuple(options.families), names, tuple(options.keeps), options.scenes,
        options.split, options.difficulty, options.size, options.frames,
    )  # fmt: skip
    return settings, options.json


def main() -> None:
    settings, wants_json = read_settings()
    cv2.setNumThreads(1)
    try:
        rows = [told for family in settings.families for told in measure(family, settings)]
    except UsageError as wrong:
        raise SystemExit(f"bench_evidence: {wrong}") from None
    if wants_json:
        print(json.dumps({"split": settings.split, "difficulty": settings.difficulty, "rows": rows}))
        return
    print(f"entropy_vision of {Path(entropy_vision.__file__).parent}")
    print(
        f"{settings.split} items, difficulty {settings.difficulty:g}, {settings.size} pixels, {settings.frames} frames"
    )
    show(rows, settings.keeps)


if __name__ == "__main__":
    main()
