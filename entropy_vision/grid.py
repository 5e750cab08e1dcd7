"""The patch grid: frames to patches and back, with the one padding rule everything else follows.

A frame of H x W pixels has R = ceil(H / P) rows and C = ceil(W / P) columns of P x P patches. Where P does not divide
the size, the last row and column of pixels are repeated at the bottom and at the right: a repeated pixel is what the
edge already says, so it adds no new value to a histogram and no gradient across the border, as zeros would.
"""

from __future__ import annotations

import numpy as np

from entropy_vision.errors import UsageError


def grid_size(height: int, width: int, patch_size: int) -> tuple[int, int]:
    """(R, C): patch rows and columns that cover height x width pixels."""
    if patch_size < 1:
        raise UsageError(f"patch_size must be at least 1, got {patch_size}")
    return -(-height // patch_size), -(-width // patch_size)


def pad(pixels: np.ndarray, multiple: int) -> np.ndarray:
    """Repeat the last row and column until `multiple` divides both sides.

    Args:
        pixels: [F, H, W, ...] of any type.

    Returns:
        [F, ceil(H / multiple) * multiple, ceil(W / multiple) * multiple, ...]; the input itself where nothing is due.
    """
    height, width = pixels.shape[1:3]
    rows, columns = grid_size(height, width, multiple)
    below, right = rows * multiple - height, columns * multiple - width
    if not below and not right:
        return pixels
    return np.pad(pixels, [(0, 0), (0, below), (0, right)] + [(0, 0)] * (pixels.ndim - 3), mode="edge")


def patchify(pixels: np.ndarray, patch_size: int) -> np.ndarray:
    """Cut frames into patches.

    Args:
        pixels: [F, H, W, 3].
        patch_size: side P in pixels.

    Returns:
        [F, R, C, P, P, 3], a view where no padding was due.
    """
    padded = pad(pixels, patch_size)
    count, height, width, channels = padded.shape
    rows, columns = height // patch_size, width // patch_size
    return padded.reshape(count, rows, patch_size, columns, patch_size, channels).swapaxes(2, 3)


def unpatchify(patches: np.ndarray, size: tuple[int, int] | None = None) -> np.ndarray:
    """Put patches back together; the inverse of `patchify`.

    Args:
        patches: [F, R, C, P, P, 3].
        size: (height, width) to cut the padding off; None leaves it.

    Returns:
        [F, H, W, 3].
    """
    count, rows, columns, side, _, channels = patches.shape
    pixels = patches.swapaxes(2, 3).reshape(count, rows * side, columns * side, channels)
    return pixels if size is None else pixels[:, : size[0], : size[1]]


def gather(pixels: np.ndarray, positions: np.ndarray, patch_size: int) -> np.ndarray:
    """The pixels of chosen patches.

    Args:
        pixels: [F, H, W, 3].
        positions: int [K, 3], (frame, row, column).

    Returns:
        [K, P, P, 3], contiguous.
    """
    padded = np.ascontiguousarray(pad(pixels, patch_size))
    count, height, width, channels = padded.shape
    # the lines of a patch are taken as one value each, a third of the time that their bytes would take
    lines = padded.reshape(count, height // patch_size, patch_size, width * channels)
    lines = lines.view(f"V{patch_size * channels * padded.itemsize}")
    frame, row, column = positions.T
    chosen = lines[frame, row, :, column].view(padded.dtype)
    return chosen.reshape(len(positions), patch_size, patch_size, channels)


def block_side(patch_size: int) -> int:
    """The divisor of `patch_size` nearest to 8, the smaller of two equally near: 8, 16, 32 -> 8; 14 -> 7; 12 -> 6."""
    divisors = [side for side in range(1, patch_size + 1) if patch_size % side == 0]
    return min(divisors, key=lambda side: (abs(side - 8), side))


def real_pixels(height: int, width: int, side: int) -> np.ndarray:
    """float32 [ceil(H / side), ceil(W / side)]: how many pixels of each block belong to the frame, not the padding."""
    rows, columns = grid_size(height, width, side)
    tall = np.clip(height - side * np.arange(rows), 0, side)
    wide = np.clip(width - side * np.arange(columns), 0, side)
    return np.outer(tall, wide).astype(np.float32)
