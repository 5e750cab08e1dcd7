"""FLOPs of one answer by stage, for a tower and a language model of any size: nothing is computed, no weights are made.

python tools/policy_flops.py --tower ViT-L-14-336 --language llama --grid 1 24 24 --keep 1 0.25 0.125
"""

from __future__ import annotations

import argparse
import json

import numpy as np

from entropy_vision.budget import Budget, spread
from entropy_vision.packed import PackedPatches
from entropy_vision.patchset import PatchSet
from entropy_vision.policy_cost import meta_policy, policy_flops


def kept(grid: tuple[int, int, int], keep: float, side: int) -> PatchSet:
    """`keep` of a grid's patches, evenly spread: how many fall on a frame is what their price depends on."""
    count = Budget(keep=keep).size(int(np.prod(grid)))
    positions = np.argwhere(spread(grid, count)).astype(np.int32)
    pixels = np.zeros((len(positions), side, side, 3), np.uint8)
    return PatchSet(pixels=pixels, positions=positions, bits=np.zeros(grid, np.float32))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tower", default="ViT-L-14-336", help="an open_clip model name or a local folder")
    parser.add_argument("--language", default="llama", help="model_type, folder with config.json, or name on the hub")
    parser.add_argument("--grid", type=int, nargs=3, default=(1, 24, 24), metavar=("FRAMES", "ROWS", "COLUMNS"))
    parser.add_argument("--keep", type=float, nargs="+", default=(1.0, 0.25, 0.125))
    parser.add_argument("--prompt", type=int, default=64, help="text tokens of the prompt")
    parser.add_argument("--answer", type=int, default=64, help="tokens of the answer")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    model = meta_policy(asked.tower, asked.language)
    rows = []
    for keep in asked.keep:
        patches = PackedPatches.pack([kept(tuple(asked.grid), keep, model.encoder.patch_size)])
        bill = policy_flops(model, patches, asked.prompt, asked.answer)
        rows.append({"keep": keep, "tokens": len(patches)} | bill | {"whole": sum(bill.values())})
    if asked.json:
        print(json.dumps({"rows": rows}))
        return
    print("| keep | tokens | embed | tower | project | prefill | decode | whole, TFLOPs | first row / this |")
    print("|---|---|---|---|---|---|---|---|---|")
    for row in rows:
        parts = [f"{row[stage] / 1e12:.4f}" for stage in ("embed", "tower", "project", "prefill", "decode", "whole")]
        ratio = rows[0]["whole"] / row["whole"]
        print(f"| {row['keep']:g} | {row['tokens']} | {' | '.join(parts)} | {ratio:.2f} |")


if __name__ == "__main__":
    main()
