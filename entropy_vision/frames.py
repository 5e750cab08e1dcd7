"""Frames: what every later stage takes. (read_video follows.)"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True, eq=False)
class Frames:
    """Decoded RGB frames in presentation order. An image is one frame at pts 0.

    Attributes:
        pixels: uint8 [F, H, W, 3], RGB, F, H, W >= 1.
        pts_seconds: float64 [F], presentation times, finite and not decreasing.

    Raises:
        TypeError: an array of the wrong type (a float image must be scaled to 0..255 by its owner).
        ValueError: a wrong shape, an empty axis, or times that are not finite and ascending.
    """

    pixels: np.ndarray
    pts_seconds: np.ndarray

    def __post_init__(self) -> None:
        pixels, pts = self.pixels, self.pts_seconds
        if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8:
            got = getattr(pixels, "dtype", type(pixels).__name__)
            raise TypeError(f"Frames.pixels must be uint8 [F, H, W, 3] in 0..255, got {got}")
        if pixels.ndim != 4 or pixels.shape[3] != 3 or 0 in pixels.shape:
            raise ValueError(f"Frames.pixels must be [F, H, W, 3] with no empty axis, got {pixels.shape}")
        if not isinstance(pts, np.ndarray) or pts.dtype != np.float64:
            got = getattr(pts, "dtype", type(pts).__name__)
            raise TypeError(f"Frames.pts_seconds must be float64 [F], got {got}")
        if pts.shape != (pixels.shape[0],):
            raise ValueError(
                f"Frames.pts_seconds must hold one time a frame: {pixels.shape[0]} frames, got {pts.shape}"
            )
        if not np.isfinite(pts).all() or (np.diff(pts) < 0).any():
            raise ValueError("Frames.pts_seconds must be finite and not decreasing")

    @property
    def count(self) -> int:
        """Number of frames F."""
        return self.pixels.shape[0]

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.pixels.shape[1], self.pixels.shape[2]

    def __repr__(self) -> str:
        (height, width), last = self.size, self.pts_seconds[-1]
        return f"Frames({self.count} x {height}x{width}, 0..{last:.3f} s)"
