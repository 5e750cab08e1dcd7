"""EntropyTokenizer: frames in, the patches worth their tokens out.

tok = EntropyTokenizer(patch_size=16, keep=0.25)
kept = tok(frames)                        # score, choose, gather
bits = tok.score(frames)                  # or score once ...
tok.select(frames, bits, Budget(tokens=64))   # ... and choose at any budget

push = EntropyTokenizer(16, budget=Budget(threshold=64)).stream()
kept = push(frame)                        # one frame as it comes
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict

import numpy as np

from entropy_vision.budget import Budget, afford, at_least
from entropy_vision.errors import UsageError
from entropy_vision.frames import Frames
from entropy_vision.grid import grid_size
from entropy_vision.merge import hidden_bits, roots, search, shrink
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
        merge: side in patches of the largest region that may become one token; 1 drops what is not kept.
    """

    def __init__(
        self,
        patch_size: int = 16,
        keep: float | None = None,
        budget: Budget | None = None,
        selector: str | Selector = "rate",
        seed: int = 0,
        merge: int = 1,
    ) -> None:
        """
        Args:
            keep: fraction of patches to keep, in (0, 1]; short for Budget(keep=...). 0.25 where neither is given.
            budget: any other limit; exactly one of the two.
            selector: a name out of `selectors()`, or an object of your own (see `selection.Selector`).
            merge: 2, 4, 8 ...: nothing is dropped, regions of up to merge x merge patches that say little become one
                token each (see `merge`), exactly as many tokens as the budget allows; it must allow one for each such
                region. Takes budgets in tokens, keep and flops. The scores decide, the selector's own way of choosing
                does not.

        Raises:
            UsageError: both keep and budget, a value out of range, an unknown selector, or FLOPs of a tower that is
                unknown, takes patches of another size, or wants more for a single patch; a merge that is no power of
                two, or with a budget in bits or by a threshold.
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
        if isinstance(merge, bool) or not isinstance(merge, (int, np.integer)) or merge < 1 or merge & (merge - 1):
            raise UsageError(f"merge must be a power of two, such as 4 for regions of 4 x 4 patches, got {merge!r}")
        self.merge = int(merge)
        self.budget = budget or Budget(keep=0.25 if keep is None else keep)
        self._tower(self.budget)  # refuses what this tokenizer cannot meet before there are frames
        if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)):
            raise UsageError(f"seed must be a whole number, got {seed!r}")
        self.seed = int(seed)
        self.selector = make_selector(selector, self.seed) if isinstance(selector, str) else selector

    def __call__(self, frames: Frames) -> PatchSet:
        """The patches of `frames` that the budget lets through. Raises UsageError: they are no Frames."""
        return self.select(frames, self.score(frames))

    def score(self, frames: Frames) -> np.ndarray:
        """What every patch is worth: float32 [F, R, C], finite, >= 0. Raises UsageError: they are no Frames."""
        if not isinstance(frames, Frames):
            raise UsageError(
                f"a tokenizer takes Frames, got {type(frames).__name__}: "
                "Frames(pixels=uint8 [F, H, W, 3], pts_seconds=float64 [F])"
            )
        return self.selector.score(frames, self.patch_size)

    def select(self, frames: Frames, bits: np.ndarray, budget: Budget | None = None) -> PatchSet:
        """Choose by scores made before.

        Args:
            bits: what `score` gave for these frames.
            budget: instead of the tokenizer's own.

        Raises:
            UsageError: `budget` is no Budget, one that the class would refuse, or too small to cover merged frames.
            ValueError: scores of another grid, or not finite and >= 0.
        """
        budget = self.budget if budget is None else budget
        if not isinstance(budget, Budget):
            raise UsageError(f"budget must be a Budget, such as Budget(tokens=64), got {budget!r}")
        grid = (frames.count, *grid_size(*frames.size, self.patch_size))
        bits = np.asarray(bits)
        if bits.shape != grid:
            raise ValueError(f"bits {bits.shape} do not belong to these frames: their grid is {grid}")
        if not (np.isfinite(bits).all() and (bits >= 0).all()):
            raise ValueError("bits must be finite and >= 0")
        if budget.threshold is not None:
            cover = _alone(at_least(bits, budget.threshold))
        else:
            least, choose = self._choices(frames, bits)
            cover = choose(self._count(bits, budget, least, choose))
        return self._gather(frames, bits, cover)

    def narrow(self, kept: PatchSet, budget: Budget) -> PatchSet:
        """Of patches chosen before those that a budget of fewer would have chosen from the frames.

        Args:
            kept: with bits of the whole grid, chosen by this tokenizer's selector.
            budget: in tokens or keep.

        Raises:
            UsageError: another patch size or selector, a budget of more than there is, or fewer patches that the
                selector would not choose without the pixels, or not all from these.
        """
        count, held = budget.size(kept.bits.size), len(kept)
        if kept.patch_size != self.patch_size or kept.selector != self.selector.name:
            raise UsageError(
                f"the patches were chosen by {kept.selector} at patch size {kept.patch_size}, "
                f"not by {self.selector.name} at {self.patch_size}"
            )
        if count is None or count > held:
            wanted = " ".join(f"{name} = {value:g}" for name, value in asdict(budget).items() if value is not None)
            raise UsageError(f"{wanted} asks for more than was kept: {held} of {kept.bits.size} patches")
        merge = 1 if kept.spans is None else int(kept.spans.max())
        if merge > self.merge or (self.merge > 1 and merge == 1 and held < kept.bits.size):
            raise UsageError(f"the patches were not merged as by merge = {self.merge}: give preprocess the same")
        if count == held:
            return kept
        frames, rows, columns = kept.grid
        if self.merge > 1 or kept.spans is not None or not self.selector.by_bits_alone(frames):
            raise UsageError(
                f"{count} patches cannot be chosen from {held} that {self.selector.name} kept of {frames} frame(s): "
                f"the choice needs the pixels; take {held / kept.bits.size:g} of the patches, or decode the file"
            )
        shape = (frames, rows * self.patch_size, columns * self.patch_size, 3)
        blank = Frames(pixels=np.broadcast_to(np.uint8(0), shape), pts_seconds=np.zeros(frames))
        mask = self.selector.choose(kept.bits, count, blank, self.patch_size)
        if (mask & ~kept.mask).any():
            raise UsageError(f"{count} patches of {self.selector.name} are not all among the {held} that were kept")
        chosen = mask[tuple(kept.positions.T)]
        return PatchSet(
            pixels=kept.pixels[chosen], positions=kept.positions[chosen], bits=kept.bits, selector=kept.selector
        )

    def _gather(self, frames: Frames, bits: np.ndarray, cover: np.ndarray) -> PatchSet:
        """The patches of a cover, rows as `merge.search` has them."""
        positions, spans = np.ascontiguousarray(cover[:, :3]), np.ascontiguousarray(cover[:, 3:])
        merged = bool((spans > 1).any())
        return PatchSet(
            pixels=shrink(frames.pixels, cover, self.patch_size),
            positions=positions,
            bits=bits.astype(np.float32, copy=False),
            selector=self.selector.name,
            spans=spans if merged else None,
        )

    def stream(self) -> Callable[[np.ndarray], PatchSet]:
        """Frames one by one, as they come: a function from uint8 [H, W, 3], RGB, to the patches kept of that frame.

        Together they are what the call gives for all frames at once; the state does not grow. Only a threshold is
        causal: any other budget is shared out over frames that are not there yet.

        Raises:
            UsageError: another budget, merging, or a selector that scores whole videos only.
        """
        threshold = self.budget.threshold
        if threshold is None or self.merge > 1:
            raise UsageError("a stream takes budget=Budget(threshold=...) and no merge: other budgets need every frame")
        score, size = self.selector.stream(self.patch_size), None

        def push(frame: np.ndarray) -> PatchSet:
            nonlocal size
            one = Frames(pixels=frame[None], pts_seconds=np.zeros(1))
            if size not in (None, one.size):
                raise ValueError(f"a frame of {one.size} in a stream of {size}")
            size = one.size
            bits = score(frame)[None].astype(np.float32)
            return self._gather(one, bits, _alone(at_least(bits, threshold)))

        return push

    def _choices(self, frames: Frames, bits: np.ndarray) -> tuple[int, Callable[[int], np.ndarray]]:
        """The least count there can be, and what gives the cover of any count: rows as `merge.search` has them."""
        if self.merge == 1:
            return 1, lambda count: _alone(self.selector.choose(bits, count, frames, self.patch_size))
        levels = hidden_bits(frames.pixels, bits, self.patch_size, self.merge)
        return roots(levels), lambda count: search(levels, count)

    def _count(self, bits: np.ndarray, budget: Budget, least: int, choose: Callable[[int], np.ndarray]) -> int:
        """K of any budget but a threshold."""
        tower = self._tower(budget)
        if tower is None or budget.flops is None:
            return budget.count(bits)

        def price(count: int) -> int:
            frames = np.bincount(choose(count)[:, 0])
            return tower.flops(frames[frames > 0].tolist())

        if budget.flops < price(least):
            raise UsageError(
                f"{budget.flops:g} FLOPs of {tower.name} are too few for these frames: "
                f"{least} merged patches take {price(least)}"
            )
        return afford(budget.flops, price, least, bits.size)

    def _tower(self, budget: Budget) -> Tower | None:
        """The tower whose FLOPs limit the choice, if any does. Raises as the class does."""
        if self.merge > 1 and (budget.bits is not None or budget.threshold is not None):
            raise UsageError("merge takes a budget in tokens, keep or flops: merged patches share their bits")
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
            "merge": self.merge,
        }
        return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]

    def __repr__(self) -> str:
        limit = ", ".join(f"{name}={value}" for name, value in self.budget.settings().items())
        merge = f", merge={self.merge}" if self.merge > 1 else ""
        return f"EntropyTokenizer(patch_size={self.patch_size}, {limit}, selector={self.selector.name!r}{merge})"


def _alone(mask: np.ndarray) -> np.ndarray:
    """The patches of a mask, none merged: int32 [K, 5], frame, row, column, 1, 1."""
    places = mask.nonzero()
    cover = np.ones((len(places[0]), 5), np.int32)
    for axis, place in enumerate(places):
        cover[:, axis] = place
    return cover
