"""Figures of docs/benchmarks.md about NLVR: what loads, what a constant earns, what text alone tells, what is kept.

    python tools/nlvr_figures.py FOLDER [--scenes 300] [--keep 0.25] [--json]

FOLDER holds nlvr_dev.zip, nlvr_test.zip and nlvr_train_k0_palette.zip. Recall is the share of a question's evidence
patches that a selector keeps, over questions of the `val` split drawn with seed 0, at the stored size of 400 x 100.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from entropy_vision.data.benchmarks import Benchmark, load
from entropy_vision.stats import mean_interval
from entropy_vision.tokenizer import EntropyTokenizer

SELECTORS = ("rate", "gradient", "surprisal", "histogram", "uniform", "random")


def constant(path: Path, split: str) -> dict[str, Any]:
    """What a split holds, and what answering "true" to everything earns."""
    began = time.perf_counter()
    benchmark = load("nlvr", path, split)
    seconds = time.perf_counter() - began
    labels: dict[str, set[bool]] = {}
    for question in benchmark.questions:
        labels.setdefault(question.meta["example"], set()).add(question.answer.value)
    earned = benchmark.aggregate([float(question.answer.value) for question in benchmark.questions])
    return {
        "split": split,
        "rows": benchmark.rows,
        "questions": len(benchmark),
        "skipped": len(benchmark.skipped),
        "missing": len(benchmark.missing()),
        "examples": len(labels),
        "one_label": sum(len(some) == 1 for some in labels.values()),
        "majority": earned["overall"],
        "its_consistency": earned["consistency"],
        "load_seconds": seconds,
    }


def blind(benchmark: Benchmark) -> list[dict[str, Any]]:
    """Questions of each family, and the best that can be answered who reads the text and sees nothing."""
    texts: dict[str, Counter[Any]] = {}
    family: dict[str, str] = {}
    for question in benchmark.questions:
        texts.setdefault(question.text, Counter())[question.answer.value] += 1
        family[question.text] = question.family
    rows = []
    for name in [*dict.fromkeys(family.values()), "all"]:
        mine = [counts for text, counts in texts.items() if name in (family[text], "all")]
        total = sum(sum(counts.values()) for counts in mine)
        best = sum(max(counts.values()) for counts in mine) / total
        chance = sum(sum(counts.values()) / len(counts) for counts in mine) / total
        rows.append({"family": name, "texts": len(mine), "questions": total, "by_text": best, "chance": chance})
    return rows


def recall(benchmark: Benchmark, count: int, keep: float) -> list[dict[str, Any]]:
    """What selectors keep of the evidence, with a 95 % interval bootstrapped over pictures."""
    chosen = np.random.default_rng(0).choice(len(benchmark), size=min(count, len(benchmark)), replace=False)
    items = [benchmark[int(place)] for place in sorted(chosen)]
    rows = []
    for name in SELECTORS:
        tokenizer = EntropyTokenizer(patch_size=16, keep=keep, selector=name)
        shares = [float(tokenizer(item.frames).mask[item.evidence].mean()) for item in items]
        mean, low, high = mean_interval(shares, groups=[item.scene for item in items])
        whole = float(np.mean([share == 1.0 for share in shares]))
        rows.append({"selector": name, "keep": keep, "recall": mean, "low": low, "high": high, "all_kept": whole})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--scenes", type=int, default=300, help="questions whose pictures are decoded")
    parser.add_argument("--keep", type=float, default=0.25)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    train, val = (
        load("nlvr-scenes", options.folder / "nlvr_train_k0_palette.zip", s, size=None) for s in ("train", "val")
    )
    figures = {
        "corpus": [constant(options.folder / f"nlvr_{split}.zip", split) for split in ("dev", "test")],
        "scenes": [{"split": one.split, "questions": len(one), "pictures": len(one.scenes)} for one in (train, val)],
        "blind_train": blind(train),
        "blind_val": blind(val),
        "evidence": recall(val, options.scenes, options.keep),
    }
    if options.json:
        print(json.dumps(figures))
        return
    for name, rows in figures.items():
        print(name)
        for row in rows:
            print(
                "  "
                + "  ".join(
                    f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}" for key, value in row.items()
                )
            )


if __name__ == "__main__":
    main()
