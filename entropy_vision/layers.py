"""Layers of a parallax: whose sample is whose, where nobody can know, and motions as exact as layers' borders need.

A scene of layers that move as wholes (Wang and Adelson, "Representing moving images with layers", 1994) is predicted
layer by layer: each sample comes from the motion that fits the 3 x 3 around it best. The same is done with what was
seen in the frame before and with what is remembered, so memory holds each layer where it is.

Along the border of two layers nothing predicts: the nearer one uncovers what was never seen, and samples there mix
both. Such samples predict themselves. A border is where samples that surely belong to one layer meet samples that
surely belong to another. Inside a thing that goes its own way no sample surely belongs to any, so it has no borders.

Corners on a thin pole are few and half of what surrounds them is ground. Its motion is made exact on its own samples:
least squares of the differences (Bergen et al., "Hierarchical model-based motion estimation", 1992), large ones
counting less (Cauchy's weights).
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numba
import numpy as np

from entropy_vision.motion import Motion
from entropy_vision.planes import Planes
from entropy_vision.warp import warp

_CLEAR = 0.5  # a layer surely owns what it leaves less than this of the next best layer's error
_NOISE = 1.0  # grey levels squared that are added to both of these errors
_EXPLAINED = 30.0  # grey levels squared; what is left larger is no layer's
_SPECKLE = 7  # samples: a median of what is surely owned, for noise is sure of something here and there
_SOFT = 3  # samples along which two layers mix; as many are doubted around what was covered
_TOLERANCE = 4.0  # grey levels squared from which on a difference counts less
_STIFF = 0.05  # of the equations' trace: how much a motion's linear part resists

View = tuple[Motion, Planes]
"""A motion, and the frame before along it."""


@dataclass(frozen=True, eq=False)
class Layers:
    """Which of several motions each sample of a frame follows.

    Attributes:
        motions: the camera's first.
        owner: uint8 [H, W], a motion's place in `motions`, or their number where nobody knows.
    """

    motions: list[Motion]
    owner: np.ndarray

    def compose(self, views: list[Planes], now: Planes) -> Planes:
        """One frame of several predictions, one a motion; what nobody knows is taken from the frame itself."""
        luma, chroma = now.luma.astype(views[0].luma.dtype), now.chroma.astype(views[0].chroma.dtype)
        for place, view in enumerate(views):
            mine = self.owner == place
            np.copyto(luma, view.luma, where=mine)
            np.copyto(chroma, view.chroma, where=mine[::2, ::2])
        return Planes(luma, chroma)

    def follow(self, memory: Planes, now: Planes) -> Planes:
        """What is remembered, moved layer by layer. It knows less of borders, for it has seen them elsewhere."""
        unknown = np.uint8(len(self.motions))
        wide = np.where(_grown(self.owner == unknown, _SOFT), unknown, self.owner)
        return Layers(self.motions, wide).compose([warp(memory, motion) for motion in self.motions], now)


def layers_of(now: Planes, views: list[View]) -> Layers:
    """Tell whose each sample is, given the frame before along at least two motions, the camera's first."""
    motions = [motion for motion, _ in views]
    owner, sure = owners(np.stack([misfit(now, view) for _, view in views]))
    owned = [_without_speckle(sure & (owner == place)) for place in range(len(views))]
    near = np.zeros(owner.shape, np.uint8)  # how many layers are
    for place, (one, motion) in enumerate(zip(owned, motions, strict=True)):
        reach = _grown(one, _SOFT)
        for other in motions[:place] + motions[place + 1 :]:
            reach |= _grown(_covered(one, motion, other), _SOFT)
        near += reach
    owner[near > 1] = len(views)
    return Layers(motions, owner)


@numba.njit(cache=True)
def owners(errors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Whose error is least, uint8 [H, W], and where that is sure, bool [H, W]; of float32 [n, H, W], n at least 2."""
    count, height, width = errors.shape
    owner, sure = np.empty((height, width), np.uint8), np.empty((height, width), np.bool_)
    for y in range(height):
        for x in range(width):
            first, least, second = 0, errors[0, y, x], np.float32(np.inf)
            for k in range(1, count):
                error = errors[k, y, x]
                if error < least:
                    first, least, second = k, error, least
                elif error < second:
                    second = error
            owner[y, x] = first
            clear = np.float32(least + np.float32(_NOISE)) < np.float32(_CLEAR) * np.float32(
                second + np.float32(_NOISE)
            )
            sure[y, x] = clear and least < np.float32(_EXPLAINED)
    return owner, sure


def _without_speckle(mask: np.ndarray) -> np.ndarray:
    """The median over a square of samples of bool [H, W], edges repeated, as 0 and 1: uint8 [H, W].

    Of two values that is what more than half of them are, and a sum is twenty times as fast.
    """
    square = _SPECKLE, _SPECKLE
    total = cv2.boxFilter(mask.view(np.uint8), cv2.CV_8U, square, normalize=False, borderType=cv2.BORDER_REPLICATE)
    return (total > _SPECKLE**2 // 2).view(np.uint8)


def misfit(now: Planes, view: Planes) -> np.ndarray:
    """Squared error of luma, mean over the 3 x 3 samples around each: float32 [H, W]."""
    apart = cv2.absdiff(now.luma, view.luma).astype(np.float32)
    return cv2.blur(apart * apart, (3, 3))


def _grown(mask: np.ndarray, side: int) -> np.ndarray:
    """bool [H, W]: within a square of `side` samples around what is set in `mask`."""
    return cv2.dilate(mask.astype(np.uint8), np.ones((side, side), np.uint8)).astype(bool)


def _covered(owned: np.ndarray, motion: Motion, other: Motion) -> np.ndarray:
    """Samples that, if they follow `other`, were in the frame before under one that is `owned` and follows `motion`."""
    theirs, mine = (np.vstack([m, [0, 0, 1]]) for m in (other, motion))
    return cv2.warpAffine(
        owned, (np.linalg.inv(mine) @ theirs)[:2], owned.shape[1::-1], flags=cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP
    )  # fmt: skip


def refine(motion: Motion, view: Planes, now: Planes, mine: np.ndarray) -> Motion:
    """A motion after one step of Gauss and Newton on the samples that follow it.

    Args:
        view: the frame before along `motion`.
        mine: bool [H, W].
    """
    normal, right = _equations(view.luma, now.luma, mine)
    stiff = np.array([1e-3, _STIFF, _STIFF, 1e-3, _STIFF, _STIFF]) * (1 + np.trace(normal))
    step = np.linalg.solve(normal + np.diag(stiff), right).reshape(2, 3)
    height, width = now.luma.shape
    linear = step[:, 1:] * (2 / max(height, width))
    off = step[:, 0] - linear @ np.array([(width - 1) / 2, (height - 1) / 2])
    return motion @ np.vstack([np.hstack([np.eye(2) + linear, off[:, None]]), [0, 0, 1]])


@numba.njit(cache=True)
def _equations(view: np.ndarray, now: np.ndarray, mine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """J'J [6, 6] and J'r [6] for now(x) = view(x + d(x)), d affine in coordinates from -1 to 1, by rows (1, u, v)."""
    height, width = now.shape
    normal, right, row = np.zeros((6, 6)), np.zeros(6), np.empty(6)
    scale = 2 / max(height, width)
    for y in range(1, height - 1):
        v = (y - (height - 1) / 2) * scale
        for x in range(1, width - 1):
            if not mine[y, x]:
                continue
            u = (x - (width - 1) / 2) * scale
            across = 0.5 * (float(view[y, x + 1]) - float(view[y, x - 1]))
            down = 0.5 * (float(view[y + 1, x]) - float(view[y - 1, x]))
            off = float(now[y, x]) - float(view[y, x])
            weight = 1 / (1 + off * off / _TOLERANCE)
            row[0], row[1], row[2] = across, across * u, across * v
            row[3], row[4], row[5] = down, down * u, down * v
            for i in range(6):
                right[i] += weight * row[i] * off
                for j in range(i + 1):
                    normal[i, j] += weight * row[i] * row[j]
    for i in range(6):
        for j in range(i):
            normal[j, i] = normal[i, j]
    return normal, right
