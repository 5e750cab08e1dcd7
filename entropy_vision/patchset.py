"""PatchSet: the patches that were kept, where they stood, and what every patch was worth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True, eq=False)
class PatchSet:
    """K kept patches of a grid of F x R x C.

    Attributes:
        pixels: uint8 [K, P, P, 3], the kept patches, in the order of `positions`.
        positions: int32 [K, 3], (frame, row, column), strictly ascending; of a merged patch that of its first one.
        bits: float32 [F, R, C], the selector's score of every patch, kept or not; >= 0, finite.
        selector: name of the selector that scored them.
        spans: int32 [K, 2], the rows and columns of the grid that each kept patch stands for, averaged down to one
            patch's pixels (see `merge`); they do not overlap. None where each stands for itself.
    """

    pixels: np.ndarray
    positions: np.ndarray
    bits: np.ndarray
    selector: str = ""
    spans: np.ndarray | None = None

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
        if self.spans is not None:
            if self.spans.dtype != np.int32 or self.spans.shape != (len(self.positions), 2):
                raise ValueError(
                    f"PatchSet.spans must be int32 [{len(self.positions)}, 2], "
                    f"got {self.spans.dtype} {self.spans.shape}"
                )
            if (self.spans < 1).any() or (self.positions[:, 1:] + self.spans > self.bits.shape[1:]).any():
                raise ValueError(f"PatchSet.spans must be at least 1 and end inside the grid {self.bits.shape}")
            if self.spans.prod(axis=1).sum() != self.shown.sum():
                raise ValueError("PatchSet.spans must not overlap")

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
        """bool [F, R, C], True where a patch is kept (of a merged one at its first); mask.sum() == K."""
        mask = np.zeros(self.bits.shape, bool)
        mask[tuple(self.positions.T)] = True
        return mask

    @property
    def shown(self) -> np.ndarray:
        """bool [F, R, C], True where a kept patch shows the place, by itself or merged; the mask where none is."""
        if self.spans is None:
            return self.mask
        shown = np.zeros(self.bits.shape, bool)
        for (frame, row, column), (down, along) in zip(self.positions.tolist(), self.spans.tolist(), strict=True):
            shown[frame, row : row + down, column : column + along] = True
        return shown

    @property
    def keep(self) -> float:
        """K / N, what is kept for each patch of the grid, in (0, 1]."""
        return len(self.positions) / self.bits.size

    def __len__(self) -> int:
        return len(self.positions)

    def __repr__(self) -> str:
        merged = "" if self.spans is None else f", merged={int((self.spans.max(axis=1) > 1).sum())}"
        return f"PatchSet(kept={len(self)}/{self.bits.size}, grid={self.grid}, patch={self.patch_size}{merged})"
