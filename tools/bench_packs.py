"""How far a pack is from each input alone, and both from float64: the table of docs/encoder.md.

python tools/bench_packs.py [threads]
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from entropy_vision.encoder import VisionEncoder
from entropy_vision.packed import Attend
from tests.oracles_encoder import make_patchset
from tests.small_tower import FAMILIES

ATTEND: tuple[Attend, ...] = ("frame", 2, "input")
WHOLE = ("ViT-B-32", "ViT-B-16-SigLIP")


def tokens_of(encoder: VisionEncoder, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """(tokens of an input in a pack of three, of the same input alone), every way to attend."""
    shapes = (((3, 4, 4), [2, 7, 2]), ((1, 6, 5), [30]), ((5, 4, 4), [1, 0, 16, 7, 7]))
    sets = [make_patchset(grid, encoder.patch_size, kept, seed + i) for i, (grid, kept) in enumerate(shapes)]
    for attend in ATTEND:
        packed = encoder(sets, attend)
        yield from ((tokens, encoder([one], attend)[0]) for tokens, one in zip(packed, sets, strict=True))


def apart(left: Tensor, right: Tensor) -> float:
    """Norm of the difference by that of the right side."""
    return float((left.double() - right.double()).norm() / right.double().norm())


@torch.no_grad()
def main() -> None:
    """Print a line a tower, the largest of each kind."""
    torch.set_num_threads(int(sys.argv[1]) if len(sys.argv) > 1 else 1)
    print(f"{'tower':16} {'norm':>8} {'largest':>8} {'float64':>8} {'alone':>8} {'packed':>8}  n")
    makers = FAMILIES | {name: lambda name=name: VisionEncoder(name).eval() for name in WHOLE}
    for name, make in makers.items():
        torch.manual_seed(0)
        encoder = make()
        exact = deepcopy(encoder).double()
        rows = [
            (
                apart(a, b),
                float((a - b).abs().max() / b.abs().max()),
                float((c - d).abs().max()),
                apart(b, d),
                apart(a, d),
            )
            for seed in range(0, 4 if name in WHOLE else 40, 4)
            for (a, b), (c, d) in zip(tokens_of(encoder, seed), tokens_of(exact, seed), strict=True)
        ]
        worst = " ".join(f"{max(column):8.1e}" for column in zip(*rows, strict=True))
        print(f"{name:16} {worst}  {len(rows)}", flush=True)


if __name__ == "__main__":
    main()
