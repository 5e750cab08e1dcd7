"""rlt: patches that did not repeat the ones before them, each standing for the run it begins.

    d(p, t) = mean over pixels and channels of |z_t - z_(t-1)|,   d(p, 0): above every other
    z = (x / 255 - mean) / std

R. Choudhury, G. Zhu, S. Liu, K. Niinuma, K. M. Kitani, L. A. Jeni, "Don't Look Twice: Faster Video Transformers with
Run-Length Tokenization", NeurIPS 2024, arXiv 2411.05222. The mean cancels; std is ImageNet's. There a token is a
tubelet of several frames (two) and d lies between the last frame of one and the first of the tubelet before; here a
token is a patch of one frame. The original keeps d > tau with tau = 0.1, some 6 grey levels: Budget(threshold=TAU).
The variant for a fixed count is the largest d. `run_lengths` gives what its optional length embedding takes.

It finds what moves before a camera at rest. When the camera moves or the light flickers, everything is new; what
drifts by less than tau a frame never is. One image, and any budget below one frame, is filled in reading order.
"""

from __future__ import annotations

import numpy as np

from entropy_vision.frames import Frames
from entropy_vision.selection.base import Selector
from entropy_vision.selection.measures import frame_difference

TAU = 0.1  # standard deviations: the published threshold
_STD = 255 * np.array([0.229, 0.224, 0.225])  # of ImageNet, grey levels


def tubelet_difference(pixels: np.ndarray, patch_size: int, tubelet: int = 1) -> np.ndarray:
    """d of every patch; the frames of a tubelet share one.

    Args:
        pixels: uint8 [F, H, W, 3].

    Returns:
        float32 [F, R, C], standard deviations in [0, 4.43]; 256 in the first tubelet.
    """
    return frame_difference(pixels, patch_size, unit=_STD, tubelet=tubelet)


def run_lengths(mask: np.ndarray) -> np.ndarray:
    """How many frames each kept token stands for: up to the next kept one at the same place, or the video's end.

    Args:
        mask: bool [F, R, C].

    Returns:
        int32 [F, R, C], in [1, F] where kept, 0 elsewhere.
    """
    out = np.zeros(mask.shape, np.int32)
    end = np.full(mask.shape[1:], len(mask), np.int32)
    for frame in range(len(mask) - 1, -1, -1):
        out[frame] = np.where(mask[frame], end - frame, 0)
        end[mask[frame]] = frame
    return out


class Rlt(Selector):
    """Difference to the frame before, in standard deviations."""

    name = "rlt"
    version = 1

    def score(self, frames: Frames, patch_size: int) -> np.ndarray:
        """float32 [F, R, C], standard deviations in [0, 4.43]; 256 in the first frame."""
        return tubelet_difference(frames.pixels, patch_size)
