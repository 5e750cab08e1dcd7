"""Bits a pixel of a frame's blocks against what was seen before: the frame before, and a memory of the ground.

Two references, because each is blind where the other sees. Against the frame before, the inside of a flat object that
moves slowly has not changed and the ground behind it has. Against a memory of what stands still, the whole object is
there and the ground behind it is what it always was. So with r_1 the rate against the frame before, r_m against memory

    r = r_m                       where r_m < r_1   (seen again: not news)
    r = r_1 + 0.3 (r_m - r_1)     elsewhere         (still there: news, a little less each time than a change)

Memory takes in what has stood still for six frames, and at once what has slowly come six grey levels off what it was
when it last was news: drift adds up until it counts. D = noise + registration error x gradient energy + 9.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from entropy_vision.blocks import Blocks, blend, compare, measure, quantile
from entropy_vision.grid import block_side
from entropy_vision.intra import D0, gaussian_rate, picture_bits
from entropy_vision.motion import on_grid, seen_before, shared_motions, warp

_FLICKER = 24.0  # grey levels; a larger common change is another picture, not another exposure
_STEADY = 6  # frames in which the common change must have one sign, or it is flicker
_DUSK = 12.0  # grey levels of steady common change that are news
_REGISTRATION = 0.05  # pixels squared: an error of more than 0.2 pixels is motion, not registration
_MOVES = 0.03  # pixels squared of apparent shift from which on a camera motion is looked for
_CAMERA = 0.2  # of all blocks must be predicted twice as well along a motion for it to be the camera's
_LAYER = 0.06  # the same, of a further layer
_STAYS = 0.3  # what a thing that is not new but not the ground either pays of what it would as a new one
_NEWS = 1.0  # bits a pixel above which a block is not what was known
_PATIENCE = 6  # frames after which what stands still becomes the ground
_MIX = 0.3  # share of a frame in the memory of a ground that stands
_DRIFT = 6.0  # grey levels
_POOL = 0.5  # weight of the 3 x 3 blocks around beside a block's own rate


def residual(now: np.ndarray, predicted: np.ndarray, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean squared error [3, R', C'] after the frame's median change [3] is taken off, and that change."""
    mean, square = compare(now, predicted, side)
    light = np.clip(quantile(mean, 0.5), -_FLICKER, _FLICKER)
    return np.maximum(square + light * (light - 2 * mean), 0), light[:, 0, 0]


def error_floor(blocks: Blocks, energy: np.ndarray) -> np.ndarray:
    """What of a predictor's residual energy is not news, [3, R', C'].

    The noise is what the better quarter of the blocks cannot predict, but never more than a quarter of the blocks
    already hold by themselves (twice, for two noisy frames are subtracted): after a cut all residuals are large, and
    that is no noise. The registration error is the typical residual per gradient energy over the steeper half.
    """
    noise = np.minimum(quantile(energy, 0.25), 2 * quantile(blocks.variance, 0.25))
    steep = blocks.slope >= quantile(blocks.slope, 0.5)
    excess = np.where(steep, np.maximum(energy - noise, 0) / (blocks.slope + 1), np.inf)
    shift = quantile(excess, 0.25)  # the rest is infinite: a quarter of all is the median of the steeper half
    return noise + np.minimum(shift, _REGISTRATION) * blocks.slope + D0


def apparent_shift(blocks: Blocks, energy: np.ndarray) -> float:
    """Pixels squared by which the picture seems to have moved: how luma's residual grows with the gradient energy.

    A shift by d leaves about d^2 / 2 times the gradient energy; noise leaves the same in steep blocks and in flat ones.
    """
    slope, left = blocks.slope[0], energy[0]
    flat, steep = slope <= _one(slope, 0.25), slope >= _one(slope, 0.75)
    steeper = _one(slope[steep], 0.5) - _one(slope[flat], 0.5)
    return (_one(left[steep], 0.5) - _one(left[flat], 0.5)) / (steeper + 1)


def _one(values: np.ndarray, share: float) -> float:
    """The value of that rank."""
    return float(quantile(values.reshape(1, 1, -1), share)[0, 0, 0])


def arriving(blocks: Blocks) -> np.ndarray:
    """Bits a pixel of blocks that come into view: what they hold beyond twice what most blocks hold, [R', C']."""
    return gaussian_rate(blocks.variance, 2 * quantile(blocks.variance, 0.6) + D0)


def gain(known: np.ndarray, moved: np.ndarray) -> float:
    """Share of the blocks that a motion predicts at least twice as well; residual energies [3, R', C']."""
    return float((moved.sum(axis=0) + 2 < (known.sum(axis=0) + 2) / 2).mean())


@dataclass(frozen=True, eq=False)
class Past:
    """What the frame before says of the present one.

    Attributes:
        energy: float32 [3, R', C'], residual along the camera's motion, or in place.
        motion: the camera's, None where it stands.
        layers: residual energies along the motions of further layers.
    """

    energy: np.ndarray
    motion: np.ndarray | None
    layers: list[np.ndarray]


def look_back(now: np.ndarray, before: np.ndarray, blocks: Blocks, side: int) -> Past:
    """Predict a frame by the one before, in place and along the motions that are shared by much of it."""
    still, _ = residual(now, before, side)
    if apparent_shift(blocks, still) < _MOVES:
        return Past(still, None, [])
    lumas = (np.ascontiguousarray(planes[..., 0]) for planes in (before, now))
    found = [(motion, warp(before, motion)) for motion in shared_motions(*lumas)]
    energies = [residual(now, seen, side)[0] for _, seen in found]
    if not energies:
        return Past(still, None, [])
    first = int(np.argmin([np.median(energy.sum(axis=0)) for energy in energies]))
    best = energies[first]
    if gain(still, best) < _CAMERA:
        return Past(still, None, [])
    layers, views = [], [found[first][1]]
    for place, energy in enumerate(energies):
        if place != first and gain(best, energy) >= _LAYER:
            layers.append(energy)
            views.append(found[place][1])
            best = np.where(energy.sum(axis=0) < best.sum(axis=0), energy, best)
    if layers:
        layers.append(residual(now, _nearest(now, views), side)[0])
    return Past(energies[first], found[first][0], layers)


def _nearest(now: np.ndarray, views: list[np.ndarray]) -> np.ndarray:
    """Of several predictions the one that fits the 3 x 3 pixels around each best: blocks hold borders of layers."""
    errors = []
    for view in views:
        apart = cv2.absdiff(now, view).astype(np.float32)
        errors.append(cv2.blur((apart * apart).sum(axis=2), (3, 3)))
    choice = np.argmin(errors, axis=0)[None, ..., None]
    return np.ascontiguousarray(np.take_along_axis(np.stack(views), choice, axis=0)[0])


class Memory:
    """What stood still so far, and the rate of a frame against it and the frame before.

    `news` takes the frames in order; uint8 [H, W, 3], YCrCb, sides multiples of the patch size.
    """

    def __init__(self, patch_size: int) -> None:
        self.patch_size, self.side = patch_size, block_side(patch_size)
        self.before: np.ndarray | None = None

    def news(self, now: np.ndarray) -> np.ndarray:
        """Bits a pixel of each block of the next frame: float32 [R', C']."""
        blocks = measure(now, self.side)
        if self.before is None:
            return self._anew(now, blocks)
        past = look_back(now, self.before, blocks, self.side)
        own = 2 * blocks.variance.sum(axis=0) + 2 * D0
        if (
            past.energy.sum(axis=0) > own
        ).mean() > 0.5:  # the past says less than a block's own mean would, noise counted twice: a cut
            return self._anew(now, blocks)
        seen = self._follow(past.motion, now.shape)
        floor = error_floor(blocks, past.energy)
        recent = gaussian_rate(past.energy, floor)
        energy, light = residual(now, self.ground, self.side)
        usual = error_floor(blocks, energy)
        known = gaussian_rate(energy, usual)
        rate = _together(recent * seen, known * seen)  # what comes into view says nothing of what lies beside it
        for layer in past.layers:
            explained = gaussian_rate(layer, floor)
            rate, recent = np.minimum(rate, explained), np.minimum(recent, explained)
        if past.motion is not None:
            rate = np.where(seen, rate, np.minimum(rate, arriving(blocks)))
        level = blocks.mean - light[:, None, None]
        drift = self._drift(level, past.motion is not None)
        late = (np.abs(drift) > _DRIFT).any(axis=0) & (known < _NEWS)
        rate = np.where(late, np.maximum(rate, gaussian_rate(drift * drift, usual)), rate)
        dusk = self._dusk(light)[:, None, None]
        rate = np.maximum(rate, gaussian_rate(dusk * dusk, usual))
        self._learn(now, level, light, known > _NEWS, recent < _NEWS, late | ~seen)
        return rate

    def _anew(self, now: np.ndarray, blocks: Blocks) -> np.ndarray:
        self.before, self.ground = now, now.astype(np.float32)
        self.waited = np.zeros(blocks.mean.shape[1:], np.float32)
        self.anchor = blocks.mean
        self.lights, self.shown = [np.zeros(3, np.float32)], np.zeros(3, np.float32)
        return picture_bits(now, blocks, self.patch_size)

    def _follow(self, motion: np.ndarray | None, shape: tuple[int, ...]) -> np.ndarray:
        """Move what is remembered with the camera; bool [R', C'], which blocks were in view before."""
        if motion is None:
            return np.ones(self.waited.shape, bool)
        self.ground = warp(self.ground, motion)
        coarse = on_grid(motion, 1 / self.side, 1 / self.side)
        self.waited = warp(self.waited, coarse, cv2.INTER_NEAREST)
        return seen_before(motion, shape[0], shape[1], self.side)

    def _drift(self, level: np.ndarray, moving: bool) -> np.ndarray:
        """How far block means have come from what they were when they last were news; nothing while a camera moves."""
        if moving:
            self.anchor = level
        return level - self.anchor

    def _dusk(self, light: np.ndarray) -> np.ndarray:
        """The common change [3] where it has kept one sign for some frames and grown large, else nothing."""
        self.lights = [*self.lights[1 - _STEADY :], light]
        steps = np.stack(self.lights) - self.shown
        least = np.where((steps > 0).all(axis=0), steps.min(axis=0), 0) + np.where(
            (steps < 0).all(axis=0), steps.max(axis=0), 0
        )
        if len(steps) < _STEADY or np.abs(least).max() < _DUSK:
            return np.zeros(3, np.float32)
        self.shown = self.shown + least
        return least

    def _learn(
        self,
        now: np.ndarray,
        level: np.ndarray,
        light: np.ndarray,
        strange: np.ndarray,
        still: np.ndarray,
        due: np.ndarray,
    ) -> None:
        """Take a frame in: the ground a little, what has waited long enough or is due as it is."""
        waited = np.where(strange, self.waited + still, np.maximum(self.waited - 1, 0))
        take = due | (waited >= _PATIENCE)
        share = np.where(take, 1, np.where(strange, 0, _MIX)).astype(np.float32)
        blend(self.ground, now, light, share, self.side)
        self.waited = np.where(take, 0, waited).astype(np.float32)
        self.anchor = np.where(take, level, self.anchor)
        self.before = now


def _together(recent: np.ndarray, known: np.ndarray) -> np.ndarray:
    """The rate given both references; see the formula above."""
    recent, known = (rate + _POOL * (cv2.blur(rate, (3, 3)) - rate) for rate in (recent, known))
    return np.where(known < recent, known, recent + _STAYS * (known - recent))
