"""Bits a pixel of a frame's blocks against what was seen before: the frame before, and a memory of the ground.

Two references, because each is blind where the other sees. Against the frame before, the inside of a flat object that
moves slowly has not changed and the ground behind it has. Against a memory of what stands still, the whole object is
there and the ground behind it is what it always was. So with r_1 the rate against the frame before, r_m against memory

    r = r_m                       where r_m < r_1   (seen again: not news)
    r = r_1 + 0.4 (r_m - r_1)     elsewhere         (still there: news, a little less each time than a change)

Memory takes in what has stood still for some frames, and at once what has slowly come six grey levels off what it was
when it last was news: drift adds up until it counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numba
import numpy as np

from entropy_vision.blocks import blend, every, measure, quantiles
from entropy_vision.intra import gaussian_rate
from entropy_vision.motion import on_grid, seen_before
from entropy_vision.past import MOVES, Past, in_place, is_cut, look_back, mostly_worse
from entropy_vision.planes import BLOCK, Planes, by_halves
from entropy_vision.residual import D0, error_floor, news_rate, residual_of, scales
from entropy_vision.warp import warp

_STEADY = 6  # frames in which the common change must have one sign, or it is flicker
_DUSK = 12.0  # grey levels of steady common change that are news
_STAYS = 0.4  # what a thing that is not new but not the ground either pays of what it would as a new one
_NEWS = 1.0  # bits a pixel above which a block is not what was known
_PATIENCE, _PATIENCE_MOVING = 8, 6  # frames after which what stands still becomes the ground
_PATIENCE_LAYERS = 4  # the same, where layers uncover ground that nobody has seen
_MIX = 0.3  # share of a frame in the memory of a ground that stands
_DRIFT = 6.0  # grey levels
_POOL = 0.5  # weight of the 3 x 3 blocks around beside a block's own rate
_u = np.uint64  # of places; see planes.py


_STATE = ("before", "ground", "evidence", "waited", "everywhere", "anchor", "lights", "shown")


@dataclass(frozen=True, eq=False)
class Evidence:
    """What the last frame's news were found from, for whoever wants to show it.

    Attributes:
        recent, known: float32 [R', C'], bits a pixel against the frame before and against memory.
        seen: bool [R', C'], the blocks that were in view before.
        past: what the frame before said.
    """

    recent: np.ndarray
    known: np.ndarray
    seen: np.ndarray
    past: Past


class Memory:
    """What stood still so far, and the rate of a frame against it and the frame before. `news` takes them in order.

    A frame that nothing predicts begins anew. Where the next one is what was there before, it was a flash, and what was
    known is known again.
    """

    def __init__(self) -> None:
        self.before: Planes | None = None
        self.evidence: Evidence | None = None
        self._aside: dict[str, Any] | None = None  # what was known before a cut, for one frame: it may be a flash

    def news(self, now: Planes) -> np.ndarray | None:
        """Bits a pixel of each block of the next frame, float32 [R', C']; None where the past says nothing of it."""
        if self.before is None:
            self._anew(now, measure(now.luma, now.chroma)[0])
            return None
        past = look_back(now, self.before, self.evidence.past if self.evidence else None)
        if is_cut(past):
            held, self._aside = self._aside, {name: getattr(self, name) for name in _STATE}
            back = held and look_back(now, held["before"])
            if not held or not back or is_cut(back):
                self._anew(now, past.blocks[0])
                return None
            past = back
            for name, value in held.items():
                setattr(self, name, value)
        self._aside = None
        seen = self._follow(past, now)
        moved = past.motion is not None
        patience = _PATIENCE_LAYERS if past.layers else _PATIENCE_MOVING if moved else _PATIENCE
        rate, recent, known = _weighed(
            now.luma, now.chroma, past.blocks, past.energy, seen, moved, patience,
            every(*seen.shape), self.ground.luma, self.ground.chroma, self.waited, self.anchor, self.lights, self.shown,
        )  # fmt: skip
        self.before, self.evidence = now, Evidence(recent, known, seen, past)
        return rate

    def rest(self, frames: np.ndarray, height: int, rates: np.ndarray, thumbnails: np.ndarray) -> int:
        """News of the next frames for as long as the camera stands, as `news` gives them: how many these are.

        In one call, for most of what a frame of a still camera takes is calling from Python.

        Args:
            frames: uint8 [F, H, W, 3], whose planes halving gives.
            height: of their luma.
            rates: float32 [F, R', C'], written as far as it goes.
            thumbnails: uint8 [F, 3, 4 R, 4 C], written as well.
        """
        if self.before is None or (self.evidence and not self.evidence.past.stands):
            return 0
        before, ground = self.before, self.ground
        count, luma, chroma, blocks, energy, recent, known = _rest(
            frames, height, every(*self.everywhere.shape), self.everywhere, before.luma, before.chroma,
            ground.luma, ground.chroma, self.waited, self.anchor, self.lights, self.shown, rates, thumbnails,
        )  # fmt: skip
        if count:
            self._aside, self.before = None, Planes(luma, chroma)
            past = Past(True, blocks, energy, None, None)
            self.evidence = Evidence(recent, known, self.everywhere, past)
        return int(count)

    def _anew(self, now: Planes, mean: np.ndarray) -> None:
        self.before, self.ground, self.evidence = now, now.astype(np.float32), None
        self.waited: np.ndarray = np.zeros(mean.shape[1:], np.float32)
        self.everywhere: np.ndarray = np.ones(self.waited.shape, bool)
        self.anchor = mean
        self.lights: np.ndarray = np.full((_STEADY, 3), np.nan, np.float32)  # common changes of the last frames
        self.lights[-1] = 0
        self.shown: np.ndarray = np.zeros(3, np.float32)

    def _follow(self, past: Past, now: Planes) -> np.ndarray:
        """Move what is remembered with the camera; bool [R', C'], which blocks were in view before."""
        motion = past.motion
        if motion is None:
            return self.everywhere
        self.ground = past.layers.follow(self.ground, now) if past.layers else warp(self.ground, motion)
        seen, self.waited = _followed(motion, self.waited)
        return seen


@numba.njit(cache=True)
def _followed(motion: np.ndarray, waited: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which blocks [R', C'] were in view before, and a field of them along a motion: each from the nearest."""
    rows, columns = waited.shape
    coarse, out = on_grid(motion, 1 / BLOCK, 1 / BLOCK), np.empty_like(waited)
    for y in range(rows):
        for x in range(columns):
            row = int(np.floor(coarse[1, 0] * x + coarse[1, 1] * y + coarse[1, 2] + 0.5))
            column = int(np.floor(coarse[0, 0] * x + coarse[0, 1] * y + coarse[0, 2] + 0.5))
            out[y, x] = waited[min(max(row, 0), rows - 1), min(max(column, 0), columns - 1)]
    return seen_before(motion, rows * BLOCK, columns * BLOCK, BLOCK), out


@numba.njit(cache=True)
def _weighed(
    luma: np.ndarray,
    chroma: np.ndarray,
    blocks: np.ndarray,
    energy: np.ndarray,
    seen: np.ndarray,
    moved: bool,
    patience: int,
    step: int,
    ground: np.ndarray,
    ground_chroma: np.ndarray,
    waited: np.ndarray,
    anchor: np.ndarray,
    lights: np.ndarray,
    shown: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Bits a pixel [R', C'] of a frame given both references, and against the frame before and memory alone.

    One call for all that follows the residual energy [3, R', C'] against the frame before; `Memory`'s fields follow.
    """
    mean, variance, slope = blocks[0], blocks[1], blocks[2]
    most, middle = scales(variance, slope, step)
    recent = news_rate(energy, error_floor(most, middle, slope, energy, step))
    left, light = residual_of(luma, chroma, ground, ground_chroma, step, lights[-1])
    usual = error_floor(most, middle, slope, left, step)
    known = news_rate(left, usual)
    rate = _together(recent, known, seen)
    if moved:
        _limit_arriving(rate, seen, variance, step)
        for k in range(3):
            anchor[k] = mean[k] - light[k]  # no drift is told while a camera moves
    dusk = _steady_change(lights, light, shown)
    share = _settle(rate, recent, known, seen, usual, mean, light, dusk, patience, waited, anchor)
    blend(ground, ground_chroma, luma, chroma, light, share)
    return rate, recent, known


@numba.njit(cache=True)
def _rest(
    frames: np.ndarray,
    height: int,
    step: int,
    everywhere: np.ndarray,
    luma: np.ndarray,
    chroma: np.ndarray,
    ground: np.ndarray,
    ground_chroma: np.ndarray,
    waited: np.ndarray,
    anchor: np.ndarray,
    lights: np.ndarray,
    shown: np.ndarray,
    rates: np.ndarray,
    thumbnails: np.ndarray,
) -> tuple[int, np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """How many frames, and of the last one luma, chroma, blocks, residual energy, and both of its rates."""
    count, recent, known = 0, rates[0], rates[0]
    blocks = np.empty((3, *rates.shape[1:]), np.float32)[None]
    energy = blocks[0]
    for t in range(len(frames)):
        now, now_chroma, thumbnail = by_halves(frames[t], height)
        looked, left, shift = in_place(now, now_chroma, luma, chroma, step)
        if not shift < MOVES or mostly_worse(left, looked[1]):
            break
        rates[t], recent, known = _weighed(
            now, now_chroma, looked, left, everywhere, False, _PATIENCE,
            step, ground, ground_chroma, waited, anchor, lights, shown,
        )  # fmt: skip
        thumbnails[t], luma, chroma, blocks, energy, count = thumbnail, now, now_chroma, looked, left, t + 1
    return count, luma, chroma, blocks, energy, recent, known


@numba.njit(cache=True)
def _limit_arriving(rate: np.ndarray, seen: np.ndarray, variance: np.ndarray, step: int) -> None:
    """What comes into view costs at most what it holds beyond twice what most blocks hold; into `rate` [R', C']."""
    usual = np.float32(2) * quantiles(variance, 0.6, step) + np.float32(D0)
    for y in range(rate.shape[0]):
        for x in range(rate.shape[1]):
            if not seen[y, x]:
                odds = np.float32(1)
                for k in range(3):
                    ratio = variance[k, y, x] / usual[k]
                    odds *= np.float32(1) + ratio * ratio
                rate[y, x] = min(rate[y, x], gaussian_rate(odds))


@numba.njit(cache=True)
def _steady_change(lights: np.ndarray, light: np.ndarray, shown: np.ndarray) -> np.ndarray:
    """The common change [3] where it has kept one sign for some frames and grown large, else nothing.

    `lights` [frames, 3], NaN where there was no frame, takes in `light`; `shown` [3], what of it was news, follows.
    """
    lights[:-1] = lights[1:].copy()
    lights[-1] = light
    least, most = np.zeros(3, np.float32), np.float32(0)
    for k in range(3):
        darkest, brightest = lights[0, k] - shown[k], lights[0, k] - shown[k]
        for i in range(1, len(lights)):
            step = lights[i, k] - shown[k]
            darkest, brightest = min(darkest, step), max(brightest, step)
        if not np.isnan(lights[0, k]):
            least[k] = max(darkest, np.float32(0)) + min(brightest, np.float32(0))
        most = max(most, abs(least[k]))
    if most < _DUSK:
        least[:] = 0
    shown += least
    return least


@numba.njit(cache=True)
def _together(recent: np.ndarray, known: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """The rate given both references, each pooled with the blocks around; see the formula above.

    What comes into view says nothing of what lies beside it.
    """
    rows, columns = recent.shape
    out = np.empty((rows, columns), np.float32)
    first, second = pooled(recent, seen), pooled(known, seen)
    for y in range(rows):
        for x in range(columns):
            one, two = first[y, x], second[y, x]
            out[y, x] = two if two < one else one + np.float32(_STAYS) * (two - one)
    return out


@numba.njit(cache=True)
def pooled(rate: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """A rate [R', C'] and those of the 3 x 3 blocks around, half and half, edges mirrored; what is not seen is 0."""
    rows, columns = rate.shape
    out, wide = np.empty((rows, columns), np.float32), np.empty((rows + 2, columns + 2), np.float32)
    for y in range(rows):
        for x in range(columns):
            wide[y + 1, x + 1] = rate[y, x] if seen[y, x] else np.float32(0)
        wide[y + 1, 0], wide[y + 1, -1] = wide[y + 1, min(2, columns)], wide[y + 1, max(columns - 1, 1)]
    wide[0], wide[-1] = wide[min(2, rows)], wide[max(rows - 1, 1)]
    column = np.empty(columns + 2, np.float32)
    for y in range(_u(rows)):
        above, here, below = wide[y], wide[y + _u(1)], wide[y + _u(2)]
        for x in range(_u(columns + 2)):
            column[x] = above[x] + here[x] + below[x]
        for x in range(_u(columns)):
            around = column[x] + column[x + _u(1)] + column[x + _u(2)]
            out[y, x] = np.float32(1 - _POOL) * here[x + _u(1)] + np.float32(_POOL / 9) * around
    return out


@numba.njit(cache=True)
def _settle(
    rate: np.ndarray,
    recent: np.ndarray,
    known: np.ndarray,
    seen: np.ndarray,
    usual: np.ndarray,
    mean: np.ndarray,
    light: np.ndarray,
    dusk: np.ndarray,
    patience: int,
    waited: np.ndarray,
    anchor: np.ndarray,
) -> np.ndarray:
    """Drift and dusk into `rate`, and how much of the frame memory takes in, [R', C']; `waited` and `anchor` follow.

    The ground is taken in a little, what has waited long enough or is due as it is.
    """
    share = np.empty(rate.shape, np.float32)
    sinks = dusk[0] != 0 or dusk[1] != 0 or dusk[2] != 0
    off = np.empty(3, np.float32)
    for y in range(rate.shape[0]):
        for x in range(rate.shape[1]):
            strange = known[y, x] > _NEWS
            late = False
            for k in range(3):
                off[k] = mean[k, y, x] - light[k] - anchor[k, y, x]
                late |= abs(off[k]) > _DRIFT
            late = late and not strange
            if late:
                rate[y, x] = max(rate[y, x], _rate_of(off, usual, y, x))
            if sinks:
                rate[y, x] = max(rate[y, x], _rate_of(dusk, usual, y, x))
            if strange:
                waited[y, x] += recent[y, x] < _NEWS
            else:
                waited[y, x] = max(waited[y, x] - 1, 0)
            if late or not seen[y, x] or waited[y, x] >= patience:
                share[y, x] = 1
                waited[y, x] = 0
                for k in range(3):
                    anchor[k, y, x] = mean[k, y, x] - light[k]
            else:
                share[y, x] = 0 if strange else _MIX
    return share


@numba.njit(cache=True)
def _rate_of(change: np.ndarray, floor: np.ndarray, y: int, x: int) -> np.float32:
    """Bits a pixel of a change [3] of block (y, x) above its floor [3, R', C']."""
    odds = np.float32(1)
    for k in range(3):
        ratio = change[k] * change[k] / floor[k, y, x]
        odds *= 1 + ratio * ratio
    rate: np.float32 = gaussian_rate(odds)
    return rate
