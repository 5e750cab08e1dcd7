"""onevision: where a video codec would find motion of its own, or spend its residual.

    m, e = means over the patch of |mv - median mv| and of |residual|
    s = (min(1, m / p95(m)) + min(1, e / p95(e))) / 2,   p95: of all patches of the frame

After the codec selection of OneVision-Encoder (F. Tang, X. An, Y. Yan and others, "OneVision-Encoder: Codec-Aligned
Sparsity as a Foundational Principle for Multimodal Intelligence", arXiv 2602.08683): motion and residual, each divided
by its 95th percentile in the frame, averaged, taken over patches, and the largest of the whole video kept. It reads
them from the stream through a decoder of its own; stock FFmpeg exports no residuals, so here the vectors are searched
(see `block_motion`). A codec's are finer, have more than one reference, and come free of charge: judge the idea by its
choice, not by its seconds. The first frame, an I frame, has no vectors; its residual is what DC prediction leaves, the
difference from each block's mean.

Dividing by each frame's own percentile makes all frames equal: one in which nothing happens scores its noise as high
as another its only event. Sub-pixel motion and zoom leave residuals on every edge.
"""

from __future__ import annotations

import cv2
import numpy as np

from entropy_vision.frames import Frames
from entropy_vision.grid import grid_size
from entropy_vision.selection.base import Selector
from entropy_vision.selection.block_motion import BLOCK, compensate, motion
from entropy_vision.selection.measures import patch_mean


def motion_and_residual(before: np.ndarray | None, now: np.ndarray, patch_size: int) -> tuple[np.ndarray, np.ndarray]:
    """m and e of every patch, not yet divided: float64 [R, C], means over its pixels in pixels and in grey levels.

    Args:
        before: uint8 [H, W], luma of the frame before; None for the first frame.
        now: uint8 [H, W], luma.
    """
    height, width = now.shape
    if before is None:
        residual = np.abs(now - _on_pixels(patch_mean(now, BLOCK), height, width)).astype(np.float32)
        return np.zeros(grid_size(height, width, patch_size)), patch_mean(residual, patch_size)
    vectors = motion(before, now)
    own = np.linalg.norm(vectors - np.median(vectors, axis=(0, 1)), axis=-1).astype(np.float32)
    residual = cv2.absdiff(now, compensate(before, vectors))
    return patch_mean(_on_pixels(own, height, width), patch_size), patch_mean(residual, patch_size)


def _on_pixels(blocks: np.ndarray, height: int, width: int) -> np.ndarray:
    """The value of the block that each pixel lies in: [R', C'] -> [H, W]."""
    return blocks.repeat(BLOCK, axis=0).repeat(BLOCK, axis=1)[:height, :width]


def by_percentile(field: np.ndarray) -> np.ndarray:
    """Divided by its 95th percentile and cut off at 1; where that is 0, whatever is above it is 1."""
    top = np.percentile(field, 95)
    return np.minimum(field / top, 1) if top > 0 else (field > 0).astype(np.float64)


class OneVision(Selector):
    """Motion against the median and motion-compensated residual, each by its percentile in the frame."""

    name = "onevision"
    version = 1

    def score(self, frames: Frames, patch_size: int) -> np.ndarray:
        """float32 [F, R, C], in [0, 1]; in the first frame at most 0.5."""
        planes = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames.pixels]
        pairs = zip([None, *planes], planes, strict=False)
        scored = (motion_and_residual(before, now, patch_size) for before, now in pairs)
        return np.stack([(by_percentile(m) + by_percentile(e)) / 2 for m, e in scored]).astype(np.float32)
