"""PooledTokenizer: EntropyTokenizer for a tower that makes one token of four patches of a video.

Of a picture it chooses patches. Of a video it scores and chooses the pooled tokens, as patches of twice the side, and
gives the patches they are made of.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np

from entropy_vision.budget import Budget
from entropy_vision.errors import UsageError
from entropy_vision.frames import Frames
from entropy_vision.grid import gather, grid_size
from entropy_vision.patchset import PatchSet
from entropy_vision.projectors import unit_patches
from entropy_vision.tokenizer import EntropyTokenizer

_NO_FLOPS = "of a video this policy takes pooled tokens, which FLOPs do not price: give tokens or keep"


class PooledTokenizer(EntropyTokenizer):
    """Takes what `EntropyTokenizer` takes; `merge` must be 1."""

    def __init__(self, patch_size: int = 16, keep: float | None = None, **options: Any) -> None:
        super().__init__(patch_size, keep, **options)
        if self.merge > 1:
            raise UsageError("a tokenizer of pooled tokens merges no patches: leave merge at 1")
        self._options: dict[str, Any] = {**options, "keep": keep}

    @property
    def units(self) -> EntropyTokenizer:
        """What chooses among the pooled tokens of a video. Raises UsageError: a budget in FLOPs."""
        if self.budget.flops is not None:
            raise UsageError(_NO_FLOPS)
        return EntropyTokenizer(2 * self.patch_size, **self._options)

    def score(self, frames: Frames) -> np.ndarray:
        """What every patch of a picture or pooled token of a video is worth: float32 [F, R, C], finite, >= 0."""
        return super().score(frames) if frames.count == 1 else self.units.score(frames)

    def select(self, frames: Frames, bits: np.ndarray, budget: Budget | None = None) -> PatchSet:
        """Choose by scores made before; of a video, whole pooled tokens. Arguments and errors as of the base class."""
        if frames.count == 1:
            return super().select(frames, bits, budget)
        if (budget or self.budget).flops is not None:
            raise UsageError(
                "of a video this policy takes pooled tokens, which FLOPs do not price: give tokens or keep"
            )
        kept = self.units.select(frames, bits, budget)
        # where the number of patches along a side is odd, neighbouring units share some
        rows, columns = grid_size(*frames.size, self.patch_size)
        place, _ = unit_patches(rows, columns)
        mask = np.zeros((frames.count, rows * columns), bool)
        frame, unit = np.nonzero(kept.mask.reshape(frames.count, -1))
        mask[frame[:, None], place[unit]] = True
        positions = np.argwhere(mask.reshape(frames.count, rows, columns)).astype(np.int32)
        whole = np.repeat(np.repeat(kept.bits, 2, axis=1), 2, axis=2)[:, :rows, :columns]
        pixels = gather(frames.pixels, positions, self.patch_size)
        return PatchSet(pixels=pixels, positions=positions, bits=whole, selector=kept.selector)

    def stream(self) -> Callable[[np.ndarray], PatchSet]:
        """Raises UsageError: frame by frame there are no pooled tokens."""
        raise UsageError("a tokenizer of pooled tokens does not stream: give it whole videos")

    def narrow(self, kept: PatchSet, budget: Budget) -> PatchSet:
        """As of the base class, of a picture.

        Raises:
            UsageError: a video, whose patches nobody has chosen as pooled tokens.
        """
        if kept.grid[0] > 1:
            raise UsageError("of a video this policy takes pooled tokens, which are not what was kept: decode the file")
        return super().narrow(kept, budget)

    def fingerprint(self) -> str:
        """16 hex digits, other ones than without pooling."""
        return hashlib.sha256(f"pooled {super().fingerprint()}".encode()).hexdigest()[:16]
