"""surprisal: how rare a patch is among the patches of its own picture, or of its own video.

    s(p) = -log2 (1/n) * sum over j of exp(-|f_p - f_j|^2 / (2 h^2)),   h = n^(-1 / (d + 4))

f: d = 5 features of a patch (mean Y, Cb and Cr, log of 1 + gradient energy, entropy of 16 levels of luma), each
standardised over all patches. This is self-information as a measure of saliency (N. D. B. Bruce, J. K. Tsotsos,
"Saliency Based on Information Maximization", NIPS 2005) under a Gaussian kernel density (E. Parzen, 1962) with Scott's
bandwidth ("Multivariate Density Estimation", 1992). The density's constant is left out: a patch like all others has
0 bits, one unlike any other log2 n.

At most 512 kernels, evenly spread over the patches, so the time grows with the number of patches and no faster; a patch
that has no kernel adds its own. A flat object on a flat ground is rare, and colour counts. It does not know where a
patch stands: of two halves of a picture neither is rare, texture whose patches differ is rare all over, and in a
video what stands still is rare in every frame or in none.
"""

from __future__ import annotations

import cv2
import numpy as np

from entropy_vision.frames import Frames
from entropy_vision.selection.base import Selector
from entropy_vision.selection.gradient import gradient_energy
from entropy_vision.selection.histogram import histogram_entropy
from entropy_vision.selection.measures import patch_mean

_KERNELS = 512


def features(frame: np.ndarray, patch_size: int) -> np.ndarray:
    """What patches are compared by: uint8 [H, W, 3], RGB -> float64 [R, C, 5]."""
    colours = cv2.cvtColor(frame, cv2.COLOR_RGB2YCrCb)
    luma = np.ascontiguousarray(colours[..., 0])
    steepness = np.log1p(gradient_energy(luma, patch_size))
    spread = histogram_entropy(luma // 16, patch_size)
    return np.dstack([patch_mean(colours, patch_size), steepness, spread])


def self_information(points: np.ndarray) -> np.ndarray:
    """Bits of each point under the density of all.

    Args:
        points: float [N, d].

    Returns:
        float32 [N], in [0, log2(min(N, 512) + 1)].
    """
    deviation = points.std(axis=0)
    scale = np.where(deviation > 1e-6, deviation, np.inf)  # a feature that is the same everywhere says nothing
    points = ((points - points.mean(axis=0)) / scale).astype(np.float32)
    step = -(-len(points) // _KERNELS)
    centres = points[::step]
    shrink = np.float32(-0.5 * len(centres) ** (2 / (points.shape[1] + 4)))
    density = np.empty(len(points))
    for start in range(0, len(points), 256):  # what fits a processor's cache
        here = points[start : start + 256]
        distance = np.zeros((len(here), len(centres)), np.float32)
        for mine, theirs in zip(here.T, centres.T, strict=True):
            apart = mine[:, None] - theirs
            distance += apart * apart
        density[start : start + 256] = np.exp(shrink * distance).sum(axis=1)
    own = np.arange(len(points)) % step != 0
    return -np.log2(np.minimum((density + own) / (len(centres) + own), 1)).astype(np.float32)


class Surprisal(Selector):
    """Self-information of a patch under the distribution of all patches."""

    name = "surprisal"
    version = 1

    def score(self, frames: Frames, patch_size: int) -> np.ndarray:
        """float32 [F, R, C], bits in [0, 9.01]."""
        described = np.stack([features(frame, patch_size) for frame in frames.pixels])
        return self_information(described.reshape(-1, described.shape[-1])).reshape(described.shape[:-1])
