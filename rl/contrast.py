"""Pay for what is right because of what was seen: a group is compared with one that sees the same scene wrongly.

T-GRPO (Video-R1, arXiv:2503.21776, section 3.1) samples a second, half as large group on the video with its frames
shuffled; with p and q the shares of right answers of the true and the shuffled group, every right answer of the true
group earns a more where p >= mu q (there a = 0.3, mu = 0.8). Here the second view is made of patches:

    shuffled   the same patches, their frames in another order (videos)
    random     as many patches, chosen by lot instead of by the selector (where not all are kept)

    reward_i + weight * score_i   where   mean(score) >= factor * mean(score of the contrast)

The contrast's completions are only counted: no gradient comes from them.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from entropy_vision.budget import Budget
from entropy_vision.patchset import PatchSet
from entropy_vision.pooled import PooledTokenizer
from entropy_vision.tokenizer import EntropyTokenizer

from .recipe import ContrastView
from .scenes import Scene, Scored


def other_view(
    scene: Scene,
    kept: PatchSet,
    view: ContrastView,
    lots: np.random.Generator,
    chooser: EntropyTokenizer,
    keep: float,
) -> PatchSet | None:
    """A scene's patches as the contrast sees them; None where there is no other view of it.

    Args:
        kept: what the policy sees.
        lots: what is drawn with.
        chooser, keep: what chose it; the lot falls among what that chooses among, patches or pooled tokens.
    """
    if view == "shuffled":
        return shuffled(kept, lots) if kept.grid[0] > 1 else None
    if view == "random" and isinstance(scene, Scored) and len(kept) < kept.bits.size:
        budget = Budget(keep=keep) if isinstance(chooser, PooledTokenizer) else Budget(tokens=len(kept))
        seed = int(lots.integers(2**32))
        return type(chooser)(kept.patch_size, budget=budget, selector="random", seed=seed)(scene.frames)
    return None


def shuffled(kept: PatchSet, lots: np.random.Generator) -> PatchSet:
    """The same patches with their frames in another order, never the same; of two frames or more."""
    frames = kept.grid[0]
    order = lots.permutation(frames)  # what was frame t is frame order[t]
    if (order == np.arange(frames)).all():
        order = np.roll(order, 1)
    moved = kept.positions.copy()
    moved[:, 0] = order[moved[:, 0]]
    rank = np.lexsort(moved.T[::-1])
    return PatchSet(
        pixels=kept.pixels[rank],
        positions=moved[rank],
        bits=kept.bits[np.argsort(order)],
        selector=kept.selector,
        spans=None if kept.spans is None else kept.spans[rank],
    )


def bonus(scores: Tensor, contrast: Tensor, *, weight: float, factor: float) -> Tensor:
    """What each completion earns beside its reward.

    Args:
        scores: float64 [Q, G] in [0, 1].
        contrast: float64 [Q], the mean score of the other view; nan where there is none.

    Returns:
        float64 [Q, G].
    """
    mean = scores.mean(1)
    paid = (mean > 0) & (mean >= factor * contrast)  # nothing is above nan
    return torch.where(paid[:, None], weight * scores, 0.0)
