"""gradient: how steep a patch is. Edges, letters and texture score high, flat areas nothing.

    s(p) = mean over the patch's pixels of (dx^2 + dy^2),   dx, dy: central differences of luma

The energy of the luma gradient, known as a measure of focus (E. Krotkov, "Focusing", International Journal of Computer
Vision 1, 1988, after J. M. Tenenbaum, 1970). The frames of a video are scored each by itself, so what stands still pays
in every frame. It cannot see objects of the ground's own luma, nor the inside of flat ones, and ranks noise first.
"""

from __future__ import annotations

import cv2
import numpy as np

from entropy_vision.frames import Frames
from entropy_vision.selection.base import Selector
from entropy_vision.selection.measures import patch_mean


def gradient_energy(plane: np.ndarray, patch_size: int) -> np.ndarray:
    """Mean squared gradient of each patch; across the frame's border there is none.

    Args:
        plane: uint8 [H, W].

    Returns:
        float64 [R, C], (grey levels a pixel) squared, in [0, 32512.5].
    """
    dx = cv2.Sobel(plane, cv2.CV_32F, 1, 0, ksize=1)
    dy = cv2.Sobel(plane, cv2.CV_32F, 0, 1, ksize=1)
    return patch_mean(dx * dx + dy * dy, patch_size) / 4  # Sobel takes differences over two pixels


class Gradient(Selector):
    """Mean squared gradient of luma."""

    name = "gradient"
    version = 1

    def score(self, frames: Frames, patch_size: int) -> np.ndarray:
        """float32 [F, R, C], (grey levels a pixel) squared."""
        planes = (cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames.pixels)
        return np.stack([gradient_energy(plane, patch_size) for plane in planes]).astype(np.float32)
