"""PatchSet: the patches that were kept, where they stood, and what every patch was worth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True, eq=False)
class PatchSet:
    """K kept patches of a grid of F x R x C.

    Attributes:
        pixels: uint8 [K, P, P, 3], the kept patches, in the order of `positions`.
        positions: int32 [K, 3], (frame, row, column), strictly ascending.
        bits: float32 [F, R, C], the selector's score of every patch, kept or not; >= 0, finite.
        selector: name of the selector that scored them.
    """

    pixels: np.ndarray
    positions: np.ndarray
    bits: np.ndarray
    selector: str = ""

    def __post_init__(self) -> None:
        if self.pixels.dtype != np.uint8 or self.pixels.ndim != 4 or self.pixels.shape[3] != 3:
            raise ValueError(f"PatchSet.pixels must be uint8 [K, P, P, 3], got {self.pixels.dtype} {self.pixels.shape}")
        if self.pixels.shape[1] != self.pixels.shape[2]:
            raise ValueError(f"PatchSet.pixels must hold square patches, got {self.pixels.shape}")
        if self.positions.dtype != np.int32 or self.positions.shape != (len(self.pixels), 3):
            raise ValueError(
                f"PatchSet.positions must be int32 [{len(self.pixels)}, 3], "
                f"got {self.positions.dtype} {self.positions.shape}"
            )
        if self.bits.dtype != np.float32 or self.bits.ndim != 3:
            raise ValueError(f"PatchSet.bits must be float32 [F, R, C], got {self.bits.dtype} {self.bits.shape}")
        if len(self.positions) == 0:
            raise ValueError("PatchSet must keep at least one patch")
        if (self.positions < 0).any() or (self.positions >= self.bits.shape).any():
            raise ValueError(f"PatchSet.positions must lie inside the grid {self.bits.shape}")
        if (np.diff(np.ravel_multi_index(tuple(self.positions.T), self.bits.shape)) <= 0).any():
            raise ValueError("PatchSet.positions must be strictly ascending by (frame, row, column)")

    @property
    def grid(self) -> tuple[int, int, int]:
        """(F, R, C): frames, patch rows, patch columns."""
        frames, rows, columns = self.bits.shape
        return frames, rows, columns

    @property
    def patch_size(self) -> int:
        """Side P of a patch in pixels."""
        return self.pixels.shape[1]

    @property
    def mask(self) -> np.ndarray:
        """bool [F, R, C], True where a patch is kept; mask.sum() == K."""
        mask = np.zeros(self.bits.shape, bool)
        mask[tuple(self.positions.T)] = True
        return mask

    @property
    def keep(self) -> float:
        """Fraction of the grid that was kept, in (0, 1]."""
        return len(self.positions) / self.bits.size

    def __len__(self) -> int:
        return len(self.positions)

    def __repr__(self) -> str:
        return f"PatchSet(kept={len(self)}/{self.bits.size}, grid={self.grid}, patch={self.patch_size})"
