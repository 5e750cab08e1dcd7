"""EntropyTokenizer: frames in, the patches worth their tokens out.

tok = EntropyTokenizer(patch_size=16, keep=0.25)
kept = tok(frames)                        # score, choose, gather
bits = tok.score(frames)                  # or score once ...
tok.select(frames, bits, Budget(tokens=64))   # ... and choose at any budget
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict

import numpy as np

from entropy_vision.budget import Budget, afford, at_least
from entropy_vision.errors import UsageError
from entropy_vision.frames import Frames
from entropy_vision.grid import gather, grid_size
from entropy_vision.patchset import PatchSet
from entropy_vision.selection import Selector, make_selector
from entropy_vision.tower import Tower, find_tower


class EntropyTokenizer:
    """Scores every patch in bits and keeps the few that carry information.

    The same frames and settings give the same patches, in every process. Any size works; where the patch size does not
    divide it, the last pixels are repeated (see `grid`).

    Attributes:
        patch_size: side P of a patch in pixels.
        budget: what limits selection unless a call says otherwise.
        selector: the selector in use.
        seed: for selectors that draw lots.
    """

    def __init__(
        self,
        patch_size: int = 16,
        keep: float | None = None,
        budget: Budget | None = None,
        selector: str | Selector = "rate",
        seed: int = 0,
    ) -> None:
        """
        Args:
            keep: fraction of patches to keep, in (0, 1]; short for Budget(keep=...). 0.25 where neither is given.
            budget: any other limit; exactly one of the two.
            selector: a name out of `selectors()`, or an object of your own (see `selection.Selector`).

        Raises:
            UsageError: both keep and budget, a value out of range, an unknown selector, or FLOPs of a tower that is
                unknown, takes patches of another size, or wants more for a single patch.
            InputError: FLOPs of a tower in a local folder that cannot be read.
        """
        whole = isinstance(patch_size, (int, np.integer)) and not isinstance(patch_size, bool)
        if not whole or patch_size < 1:
            raise UsageError(f"patch_size must be a whole number of at least 1, got {patch_size!r}")
        if keep is not None and budget is not None:
            raise UsageError("give keep or budget, not both: keep=0.25 is short for budget=Budget(keep=0.25)")
        if budget is not None and not isinstance(budget, Budget):
            raise UsageError(f"budget must be a Budget, such as Budget(tokens=64), got {budget!r}")
        if not isinstance(selector, (str, Selector)):
            raise UsageError(f"selector must be a name out of selectors(), or a Selector, got {selector!r}")
        self.patch_size = int(patch_size)
        self.budget = budget or Budget(keep=0.25 if keep is None else keep)
        self._tower(self.budget)  # refuses what this tokenizer cannot meet before there are frames
        self.seed = int(seed)
        self.selector = make_selector(selector, self.seed) if isinstance(selector, str) else selector

    def __call__(self, frames: Frames) -> PatchSet:
        """The patches of `frames` that the budget lets through."""
        return self.select(frames, self.score(frames))

    def score(self, frames: Frames) -> np.ndarray:
        """What every patch is worth: float32 [F, R, C], finite, >= 0."""
        return self.selector.score(frames, self.patch_size)

    def select(self, frames: Frames, bits: np.ndarray, budget: Budget | None = None) -> PatchSet:
        """Choose by scores made before.

        Args:
            bits: what `score` gave for these frames.
            budget: instead of the tokenizer's own.

        Raises:
            UsageError: `budget` is no Budget, or one in FLOPs that the class would refuse.
            ValueError: scores of another grid, or not finite and >= 0.
        """
        budget = self.budget if budget is None else budget
        if not isinstance(budget, Budget):
            raise UsageError(f"budget must be a Budget, such as Budget(tokens=64), got {budget!r}")
        grid = (frames.count, *grid_size(*frames.size, self.patch_size))
        if bits.shape != grid:
            raise ValueError(f"bits {bits.shape} do not belong to these frames: their grid is {grid}")
        if not (np.isfinite(bits).all() and (bits >= 0).all()):
            raise ValueError("bits must be finite and >= 0")
        if budget.threshold is not None:
            mask = at_least(bits, budget.threshold)
        else:
            mask = self.selector.choose(bits, self._count(bits, budget))
        positions = np.argwhere(mask).astype(np.int32)
        return PatchSet(
            pixels=gather(frames.pixels, positions, self.patch_size),
            positions=positions,
            bits=bits.astype(np.float32, copy=False),
            selector=self.selector.name,
        )

    def _count(self, bits: np.ndarray, budget: Budget) -> int:
        """K of any budget but a threshold."""
        tower = self._tower(budget)
        if tower is None or budget.flops is None:
            return budget.count(bits)

        def price(count: int) -> int:
            frames = self.selector.choose(bits, count).sum(axis=(1, 2))
            return tower.flops(frames[frames > 0].tolist())

        return afford(budget.flops, price, 1, bits.size)

    def _tower(self, budget: Budget) -> Tower | None:
        """The tower whose FLOPs limit the choice, if any does. Raises as the class does."""
        if budget.flops is None:
            return None
        tower = Tower(name=f"ViT-B-{self.patch_size}", patch_size=self.patch_size)
        tower = find_tower(budget.tower) if budget.tower else tower
        if tower.patch_size != self.patch_size:
            raise UsageError(
                f"{tower.name} takes patches of {tower.patch_size} pixels, not {self.patch_size}: "
                f"count its FLOPs with patch_size={tower.patch_size}"
            )
        least = tower.flops([1])
        if budget.flops < least:
            raise UsageError(f"{budget.flops:g} FLOPs pay for no patch of {tower.name}: one takes {least}")
        return tower

    def fingerprint(self) -> str:
        """16 hex digits that change whenever another choice of patches could follow: settings and selector version."""
        tower = self._tower(self.budget)
        settings = {
            "patch_size": self.patch_size,
            "budget": self.budget.settings(),
            "tower": None if tower is None else asdict(tower),  # a folder of the same name may change
            "selector": self.selector.name,
            "version": self.selector.version,
            "seed": self.seed,
        }
        return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]

    def __repr__(self) -> str:
        limit = ", ".join(f"{name}={value}" for name, value in self.budget.settings().items())
        return f"EntropyTokenizer(patch_size={self.patch_size}, {limit}, selector={self.selector.name!r})"
