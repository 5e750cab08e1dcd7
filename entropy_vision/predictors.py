"""Which of the predictors of `rate` comes closest to each patch: what `show` paints beside the bits.

The closest may still be far off: a thing that goes its own way is painted as the ground it moves before, and its bits
say how little that explains.
"""

from __future__ import annotations

import numpy as np

from entropy_vision.grid import grid_size, pad
from entropy_vision.inter import Evidence, Memory, pooled
from entropy_vision.planes import SAMPLES, planes_of

PREDICTORS = (
    "the picture itself",
    "frame before, in place",
    "frame before, moved",
    "another layer, moved",
    "memory of the ground",
    "nothing: new in view",
)
_ITSELF, _IN_PLACE, _CAMERA, _LAYER, _MEMORY, _NEW = range(6)
_CLEARLY = 0.1  # bits a pixel by which memory must be better, for on a ground that rests both are as good


def predictors_of(pixels: np.ndarray, patch_size: int) -> np.ndarray:
    """uint8 [F, H, W, 3] -> uint8 [F, R, C], places in `PREDICTORS`."""
    rows, columns = grid_size(pixels.shape[1], pixels.shape[2], patch_size)
    out = np.full((len(pixels), rows, columns), _ITSELF, np.uint8)
    memory = Memory()
    for frame, best in zip(pad(pixels, patch_size), out, strict=True):
        memory.news(planes_of(frame, patch_size))
        if memory.evidence is not None:  # neither the first frame nor one after a cut
            best[...] = _best(memory.evidence)
    return out


def shares(predictors: np.ndarray) -> dict[str, float]:
    """Of all patches, by the name of the predictor."""
    counts = np.bincount(predictors.ravel(), minlength=len(PREDICTORS)) / predictors.size
    return {name: round(float(count), 4) for name, count in zip(PREDICTORS, counts, strict=True)}


def _best(evidence: Evidence) -> np.ndarray:
    """uint8 [R, C] of one frame."""
    past, seen = evidence.past, _of_patches(evidence.seen)
    best = np.full(seen.shape, _IN_PLACE if past.motion is None else _CAMERA, np.uint8)
    if past.layers is not None:
        places = range(len(past.layers.motions) + 1)
        rows, columns = seen.shape
        owner = past.layers.owner.reshape(rows, SAMPLES, columns, SAMPLES)
        most = np.argmax([(owner == place).sum(axis=(1, 3)) for place in places], axis=0)
        best[most > 0] = _LAYER
        best[most == places[-1]] = _ITSELF  # a border between layers, which nothing predicts
    recent, known = (_of_patches(pooled(rate, evidence.seen)) for rate in (evidence.recent, evidence.known))
    best[known + _CLEARLY < recent] = _MEMORY
    best[seen <= 0.5] = _NEW
    return best


def _of_patches(blocks: np.ndarray) -> np.ndarray:
    """Means over the 2 x 2 blocks of a patch: [2 R, 2 C] -> [R, C]."""
    rows, columns = blocks.shape
    means: np.ndarray = blocks.reshape(rows // 2, 2, columns // 2, 2).mean(axis=(1, 3))
    return means
