"""Budget: how many patches may be kept, and the exact, deterministic choice of that many.

Serving engines size their buffers before any pixel is seen, so `tokens` and `keep` fix the count K from the grid
alone and the choice meets it exactly. What is paid for in FLOPs depends on the choice itself and is never exceeded.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields

import numba
import numpy as np

from entropy_vision.errors import UsageError

_HIGHEST = 2**63 - 1  # of whole numbers


@dataclass(frozen=True)
class Budget:
    """What limits selection; exactly one is given.

    Attributes:
        tokens: this many patches, or all N where there are fewer: K = min(tokens, N).
        keep: fraction of the grid in (0, 1]: K = max(1, round(keep * N)).
        bits: as many of the most valuable patches as have at most this many bits together, at least one.
        threshold: every patch with at least this many bits, and the best one of every frame.
        flops: as many patches as the vision tower encodes with at most this many FLOPs, all frames together, at least
            one. Each frame is a segment with a class token of its own, as `VisionEncoder` runs it unless asked
            otherwise, so the price depends on how the patches fall over the frames and K is found by choosing. The
            price of what is chosen never exceeds the budget, that of a choice of K + 1 does; a larger budget never
            keeps fewer. Counted is the tower, not the language model behind it.
        tower: the tower that `flops` counts: an open_clip model name, one of this package's, or a local folder; where
            not given a ViT-B of the tokenizer's patch size.

    Raises:
        UsageError: none or several limits are given, a value is out of its range, or a tower without `flops`.
    """

    tokens: int | None = None
    keep: float | None = None
    bits: float | None = None
    threshold: float | None = None
    flops: float | None = None
    tower: str | None = None

    def __post_init__(self) -> None:
        limits = [field.name for field in fields(self) if field.name != "tower"]
        given = [name for name in limits if getattr(self, name) is not None]
        if len(given) != 1:
            names = ", ".join(limits)
            raise UsageError(f"Budget takes exactly one of {names}; got {', '.join(given) or 'none'}")
        (name,) = given
        value = getattr(self, name)
        if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
            raise UsageError(f"Budget({name}=) must be a number, got {value!r}")
        real = isinstance(value, (float, np.floating))
        if not (math.isfinite(value) if real else abs(int(value)) <= _HIGHEST):
            raise UsageError(f"Budget({name}=) must be finite, got {value}")
        if name == "tokens" and (value != int(value) or value < 1):
            raise UsageError(f"Budget(tokens=) must be a whole number of at least 1, got {value}")
        if name == "keep" and not 0 < value <= 1:
            raise UsageError(f"Budget(keep=) must be in (0, 1], got {value}")
        if name in ("bits", "threshold") and value < 0:
            raise UsageError(f"Budget({name}=) must not be negative, got {value}")
        if name == "flops" and not value > 0:
            raise UsageError(f"Budget(flops=) must be above 0, got {value}")
        if self.tower is not None and (name != "flops" or not isinstance(self.tower, str)):
            raise UsageError(f"Budget(tower=) is the name of the model that flops= counts, got {self.tower!r}, {name}=")
        # plain numbers: the budget is hashed and written as JSON
        object.__setattr__(self, name, int(value) if name == "tokens" else float(value))

    def size(self, patches: int) -> int | None:
        """K for a grid of `patches`, where it is known before the pixels (tokens, keep); else None."""
        if self.tokens is not None:
            return min(self.tokens, patches)
        if self.keep is not None:
            return max(1, round(self.keep * patches))
        return None

    def count(self, bits: np.ndarray) -> int:
        """K for the scores float [F, R, C]; of a threshold and of FLOPs only the choice itself tells it."""
        known = self.size(bits.size)
        if known is not None:
            return known
        if self.bits is None:
            name = "flops" if self.threshold is None else "threshold"
            raise UsageError(f"Budget({name}=) has no count before the choice")
        falling = np.sort(bits.ravel().astype(np.float64))[::-1]
        return max(1, int(np.searchsorted(np.cumsum(falling), self.bits, side="right")))

    def settings(self) -> dict[str, float | str]:
        """What was given, by name."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def afford(limit: float, price: Callable[[int], int], least: int, most: int) -> int:
    """A count K with price(K) <= limit < price(K + 1); `least` must be within the limit, `most` where it is as well.

    The halves that bisection tries depend on `least` and `most` alone, so a larger limit never gives a smaller K,
    whether or not every choice of more patches costs more. Where it does, K is the largest that fits.

    Args:
        price: FLOPs of the choice of a count in [least, most].
    """
    low, high = least, most + 1
    while high - low > 1:
        middle = (low + high) // 2
        if price(middle) <= limit:
            low = middle
        else:
            high = middle
    return low


def exact(bits: np.ndarray, count: int, first: np.ndarray | None = None) -> np.ndarray:
    """Choose exactly `count` patches.

    In this order, until `count` is reached: the best patch of every frame (where count >= F), the patches of `first`,
    the rest by falling bits. Ties go to the smaller (frame, row, column).

    Args:
        bits: float [F, R, C].
        count: 1 <= count <= bits.size.
        first: bool [F, R, C], patches to take before others of more bits.

    Returns:
        bool [F, R, C] with exactly `count` True.
    """
    if not 1 <= count <= bits.size:
        raise UsageError(f"cannot keep {count} of {bits.size} patches")
    frames, flat = bits.shape[0], bits.ravel()
    mask = np.zeros(bits.size, bool)
    if count >= frames:
        best = bits.reshape(frames, -1).argmax(axis=1)  # argmax gives the first of equals
        mask[np.arange(frames) * (bits.size // frames) + best] = True
    if first is not None:
        _take(mask, flat, np.flatnonzero(first.ravel() & ~mask), count)
    _take(mask, flat, np.flatnonzero(~mask), count)
    return mask.reshape(bits.shape)


def _take(mask: np.ndarray, bits: np.ndarray, among: np.ndarray, count: int) -> None:
    """Set the most valuable of `among` (rising places) until `count` are set, of equals the first."""
    left = count - int(mask.sum())
    if left >= len(among):
        mask[among] = True
    elif left > 0:
        values = bits[among]
        least = np.partition(values, len(values) - left)[len(values) - left]
        above = values > least
        mask[among[above]] = True
        mask[among[values == least][: left - int(above.sum())]] = True


def at_least(bits: np.ndarray, threshold: float) -> np.ndarray:
    """Choose every patch with `threshold` bits or more, and the best one of every frame.

    A frame that says nothing new is still a frame; and no frame's choice depends on later ones.

    Returns:
        bool [F, R, C] with at least one True in every frame.
    """
    mask = bits >= min(threshold, float(np.finfo(np.float32).max))
    best = bits.reshape(len(bits), -1).argmax(axis=1)  # argmax gives the first of equals
    mask.reshape(len(bits), -1)[np.arange(len(bits)), best] = True
    return mask


def spread(grid: tuple[int, int, int], count: int) -> np.ndarray:
    """Choose `count` patches as evenly as possible in time and in space.

    Frames get equal shares (of at most one patch difference); inside a frame the patches stand on a lattice of about
    equal steps in both directions, shifted from frame to frame by the golden ratio so that a place left out in one
    frame is seen in another.

    Args:
        grid: (F, R, C).
        count: 0 <= count <= F * R * C.

    Returns:
        bool [F, R, C] with exactly `count` True.
    """
    frames, rows, columns = grid
    mask = np.zeros(grid, bool)
    shares = _shares(count, frames)
    # rows used of a frame: square cells, but never more patches in a row than there are columns
    used = {
        share: min(max(round(math.sqrt(share * rows / columns)), -(-share // columns), 1), rows, share)
        for share in set(shares.tolist())
    }
    _lattice(mask, shares, np.array([used[share] for share in shares.tolist()]))
    return mask


@numba.njit(cache=True)
def _lattice(mask: np.ndarray, shares: np.ndarray, used: np.ndarray) -> None:
    """Set `shares[t]` patches of every frame t on `used[t]` of its rows."""
    frames, rows, columns = mask.shape
    for frame in range(frames):
        share, lines = shares[frame], used[frame]
        down, along = (0.5 + frame * 0.7548776662466927) % 1, (0.5 + frame * 0.5698402909980532) % 1
        for line in range(lines):
            # whole shares of the rows, as `_shares` gives them
            here = ((line + 1) * share + lines // 2) // lines - (line * share + lines // 2) // lines
            row = int((line + down) * rows / lines)
            shift = (along + 0.5 * (line % 2)) % 1  # every second line stands between the patches of its neighbour
            for number in range(here):
                mask[frame, row, int((number + shift) * columns / here)] = True


def _shares(total: int, parts: int) -> np.ndarray:
    """int [parts]: `total` in whole shares that differ by at most one, the larger ones evenly between the others."""
    edges = (np.arange(parts + 1) * total + parts // 2) // parts
    return np.diff(edges)
