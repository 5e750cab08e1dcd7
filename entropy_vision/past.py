"""What the frame before says of the present one: in place, or along the motions that much of it shares.

Most frames of a camera that stands need no more than a look in place: where the residual does not grow with the
gradient energy, nothing moves as a whole, and no motion is looked for.
"""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np

from entropy_vision.blocks import every, flat_and_steep, measure
from entropy_vision.layers import Layers, View, layers_of, misfit, owners, refine
from entropy_vision.motion import Corners, Motion, tracked
from entropy_vision.planes import BLOCK, Planes
from entropy_vision.residual import D0, UNCHANGED, residual, residual_of
from entropy_vision.warp import warp

MOVES = 0.006  # samples squared of apparent shift from which on a camera motion is looked for
_CAMERA = 0.15  # of all blocks must be predicted twice as well along a motion for it to be the camera's
_LAYER = 0.06  # the same, of a further layer
_STEPS = 2  # of refinement of a further layer's motion
_LITTLE = 0.5  # grey levels squared that are nothing when gains are compared


@dataclass(frozen=True, eq=False)
class Past:
    """What the frame before says of the present one.

    Attributes:
        stands: nothing seems to have moved as a whole, so no motion was looked for.
        blocks: float32 [3, 3, R', C'], mean, variance and slope of the present one's.
        energy: float32 [3, R', C'], residual along the camera's motion and those of further layers, or in place.
        motion: the camera's, None where it stands.
        layers: where there are several, whose each sample is.
        corners: of the frame, where they were looked for.
    """

    stands: bool
    blocks: np.ndarray
    energy: np.ndarray
    motion: Motion | None
    layers: Layers | None
    corners: Corners | None = None


def look_back(now: Planes, before: Planes, known: Past | None = None) -> Past:
    """Predict a frame by the one before, in place and along the motions that are shared by much of it.

    Args:
        known: what was said of the frame before: what moved goes on to move.
    """
    step = every(now.luma.shape[0] // BLOCK, now.luma.shape[1] // BLOCK)
    blocks, still, shift = in_place(now.luma, now.chroma, before.luma, before.chroma, step)
    if shift < MOVES:
        return Past(True, blocks, still, None, None)
    layers = known.layers if known else None
    alone = known.motion if known and not layers else None
    motions, corners = tracked(before.luma, now.luma, alone, known.corners if known else None)
    motions += layers.motions if layers else []
    found = [(motion, warp(before, motion)) for motion in motions]
    energies = [residual(now, seen)[0] for _, seen in found]
    if not energies:
        return Past(False, blocks, still, None, None)
    middles = [np.median(energy.sum(axis=0)) for energy in energies] if len(energies) > 1 else [0.0]
    first = int(np.argmin(middles))
    best = energies[first]
    if gain(still, best) < _CAMERA:
        return Past(False, blocks, still, None, None)
    order = [first, *(place for place in range(len(found)) if place != first)]
    views = _layer_views(now, before, [found[place] for place in order], [energies[place] for place in order])
    if len(views) == 1:
        return Past(False, blocks, best, views[0][0], None, corners)
    layers = layers_of(now, views)
    energy, _ = residual(now, layers.compose([seen for _, seen in views], now))
    return Past(False, blocks, energy, views[0][0], layers)


def _layer_views(now: Planes, before: Planes, found: list[View], energies: list[np.ndarray]) -> list[View]:
    """The camera's motion, the first of `found`, and those of further layers, the one that gains most next; refined."""
    views, best = found[:1], energies[0]
    errors: list[np.ndarray] = []
    rest = list(zip(found[1:], energies[1:], strict=True))
    while rest:
        gains = [gain(best, energy) for _, energy in rest]
        most = int(np.argmax(gains))
        if gains[most] < _LAYER:
            break
        (motion, view), _ = rest.pop(most)
        errors = errors or [misfit(now, views[0][1])]
        least = np.min(errors, axis=0)
        for _ in range(_STEPS):
            motion = refine(motion, view, now, misfit(now, view) < least)
            view = warp(before, motion)
        energy, _ = residual(now, view)
        if gain(best, energy) >= _LAYER:
            views.append((motion, view))
            errors.append(misfit(now, view))
            best = np.where(energy.sum(axis=0) < best.sum(axis=0), energy, best)
    if len(views) == 1:
        return views
    owner, _ = owners(np.stack(errors))
    motions = [refine(motion, view, now, owner == place) for place, (motion, view) in enumerate(views)]
    return [(motion, warp(before, motion)) for motion in motions]


def is_cut(past: Past) -> bool:
    """Whether the past says less of most blocks than their own means would, noise counted twice."""
    cut: bool = mostly_worse(past.energy, past.blocks[1])
    return cut


@numba.njit(cache=True)
def mostly_worse(energy: np.ndarray, variance: np.ndarray) -> bool:
    _, rows, columns = energy.shape
    worse = 0
    for y in range(rows):
        for x in range(columns):
            left, own = np.float32(0), np.float32(2 * D0)
            for k in range(3):
                left += energy[k, y, x]
                own += 2 * variance[k, y, x]
            if left > own:
                worse += 1
    return worse > rows * columns / 2


@numba.njit(cache=True)
def in_place(
    luma: np.ndarray, chroma: np.ndarray, other_luma: np.ndarray, other_chroma: np.ndarray, step: int
) -> tuple[np.ndarray, np.ndarray, float]:
    """A frame's blocks (`measure`), their residual energy [3, R', C'] against the frame before where it stands, and by
    how much the picture seems to have moved, in samples squared: how luma's residual grows with the gradient energy.

    A shift by d leaves about d^2 / 2 times the gradient energy; noise leaves the same in steep blocks and in flat ones.
    """
    blocks = measure(luma, chroma)
    energy, _ = residual_of(luma, chroma, other_luma, other_chroma, step, UNCHANGED)
    gentle, steep, calm, wild = flat_and_steep(blocks[2, 0].ravel()[::step], energy[0].ravel()[::step])
    return blocks, energy, float((wild - calm) / (steep - gentle + 1))


@numba.njit(cache=True)
def gain(known: np.ndarray, moved: np.ndarray) -> float:
    """Share of the blocks that a motion predicts at least twice as well; residual energies [3, R', C']."""
    _, rows, columns = known.shape
    better, little = 0, np.float32(_LITTLE)
    for y in range(rows):
        for x in range(columns):
            before = known[0, y, x] + known[1, y, x] + known[2, y, x]
            after = moved[0, y, x] + moved[1, y, x] + moved[2, y, x]
            better += after + little < (before + little) / np.float32(2)
    return better / (rows * columns)
