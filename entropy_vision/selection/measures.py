"""What several selectors measure: means over patches, and differences between frames."""

from __future__ import annotations

import cv2
import numpy as np

from entropy_vision.grid import grid_size, real_pixels

# Score of the first frame where a selector keeps all of it: above every mean absolute difference of 8-bit pixels, in
# grey levels or any larger unit, so it stands for the originals' infinity.
FIRST_FRAME = 256.0


def patch_mean(plane: np.ndarray, patch_size: int) -> np.ndarray:
    """Mean of each patch over the pixels that belong to the frame; padding is not counted.

    From a table of sums in float64, so it is exact for whole numbers: equal patches get equal means wherever they are.

    Args:
        plane: uint8 or float32 [H, W] or [H, W, n].

    Returns:
        float64 [R, C] or [R, C, n].
    """
    height, width = plane.shape[:2]
    rows, columns = grid_size(height, width, patch_size)
    down = np.minimum(np.arange(rows + 1) * patch_size, height)
    along = np.minimum(np.arange(columns + 1) * patch_size, width)
    corners = cv2.integral(plane, sdepth=cv2.CV_64F)[down][:, along]
    total = np.diff(np.diff(corners, axis=0), axis=1)
    real = real_pixels(height, width, patch_size)
    return total / real.reshape(real.shape + (1,) * (plane.ndim - 2))


def frame_difference(
    pixels: np.ndarray, patch_size: int, unit: float | np.ndarray = 1.0, tubelet: int = 1
) -> np.ndarray:
    """Mean over pixels and channels of the absolute difference to the frame before.

    Args:
        pixels: uint8 [F, H, W, 3].
        unit: grey levels that count as one, the same for all channels or float [3].
        tubelet: frames that share one difference: between the last frame of this tubelet and the first of the one
            before.

    Returns:
        float32 [F, R, C], in [0, 255 / unit]; FIRST_FRAME in the first tubelet, which has nothing before it.
    """
    count, height, width, _ = pixels.shape
    out = np.full((count, *grid_size(height, width, patch_size)), FIRST_FRAME, np.float32)
    for start in range(tubelet, count, tubelet):
        end = min(start + tubelet, count)
        change = patch_mean(cv2.absdiff(pixels[end - 1], pixels[start - tubelet]), patch_size)
        out[start:end] = (change / unit).mean(axis=-1)
    return out
