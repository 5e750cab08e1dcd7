"""Bits a pixel of a frame's blocks against what was seen before: the frame before, and a memory of the ground.

Two references, because each is blind where the other sees. Against the frame before, the inside of a flat object that
moves slowly has not changed and the ground behind it has. Against a memory of what stands still, the whole object is
there and the ground behind it is what it always was. So with r_1 the rate against the frame before, r_m against memory

    r = r_m                       where r_m < r_1   (seen again: not news)
    r = r_1 + 0.4 (r_m - r_1)     elsewhere         (still there: news, a little less each time than a change)

Memory takes in what has stood still for some frames, and at once what has slowly come six grey levels off what it was
when it last was news: drift adds up until it counts. D = noise + registration error x gradient energy + 2.5.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numba
import numpy as np

from entropy_vision.blocks import blend, compare, every, flat_and_steep, measure, quantiles, ranked
from entropy_vision.intra import gaussian_rate
from entropy_vision.layers import Layers, View, layers_of, misfit, refine
from entropy_vision.motion import Corners, Motion, on_grid, seen_before, tracked
from entropy_vision.planes import BLOCK, Planes
from entropy_vision.warp import warp

_D0 = 2.5  # grey levels squared, of halved pixels
_FLICKER = 24.0  # grey levels; a larger common change is another picture, not another exposure
_UNCHANGED = np.zeros(3, np.float32)
_STEADY = 6  # frames in which the common change must have one sign, or it is flicker
_DUSK = 12.0  # grey levels of steady common change that are news
_REGISTRATION = 0.03  # samples squared: a larger error is motion, not registration
_MOVES = 0.006  # samples squared of apparent shift from which on a camera motion is looked for
_CAMERA = 0.15  # of all blocks must be predicted twice as well along a motion for it to be the camera's
_LAYER = 0.06  # the same, of a further layer
_STEPS = 2  # of refinement of a further layer's motion
_STAYS = 0.4  # what a thing that is not new but not the ground either pays of what it would as a new one
_NEWS = 1.0  # bits a pixel above which a block is not what was known
_PATIENCE, _PATIENCE_MOVING = 8, 6  # frames after which what stands still becomes the ground
_PATIENCE_LAYERS = 4  # the same, where layers uncover ground that nobody has seen
_MIX = 0.3  # share of a frame in the memory of a ground that stands
_DRIFT = 6.0  # grey levels
_LITTLE = 0.5  # grey levels squared that are nothing when gains are compared
_POOL = 0.5  # weight of the 3 x 3 blocks around beside a block's own rate
_u = np.uint64  # of places; see planes.py


def residual(now: Planes, predicted: Planes, around: np.ndarray = _UNCHANGED) -> tuple[np.ndarray, np.ndarray]:
    """Mean squared error [3, R', C'] after the frame's median change [3] is taken off, and that change.

    Args:
        around: float32 [3], the change that was known last: a common change is told from another picture by how far it
            is from that. Memory keeps the light it began in, which may be long ago.
    """
    step = every(now.luma.shape[0] // BLOCK, now.luma.shape[1] // BLOCK)
    square, light = _residual(now.luma, now.chroma, predicted.luma, predicted.chroma, step, around)
    return square, light


@numba.njit(cache=True)
def _residual(
    luma: np.ndarray,
    chroma: np.ndarray,
    other_luma: np.ndarray,
    other_chroma: np.ndarray,
    step: int,
    around: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    mean, square = compare(luma, chroma, other_luma, other_chroma, around)
    light = quantiles(mean, 0.5, step)
    for k in range(3):
        known = min(max(light[k], -np.float32(_FLICKER)), np.float32(_FLICKER))
        one, other = square[k].ravel(), mean[k].ravel()
        for i in range(len(one)):
            one[i] = max(one[i] + known * (known - np.float32(2) * other[i]), np.float32(0))
        light[k] = around[k] + known
    return square, light


@numba.njit(cache=True)
def _scales(variance: np.ndarray, slope: np.ndarray, step: int) -> tuple[np.ndarray, np.ndarray]:
    """What a frame tells of its error floors, whatever predicts it: the most that is noise, and the median slope, [3].

    Noise is never more than a quarter of the blocks already hold by themselves (twice, for two noisy frames are
    subtracted): after a cut all residuals are large, and that is no noise.
    """
    return np.float32(2) * quantiles(variance, 0.25, step), quantiles(slope, 0.5, step)


@numba.njit(cache=True)
def error_floor(most: np.ndarray, middle: np.ndarray, slope: np.ndarray, energy: np.ndarray, step: int) -> np.ndarray:
    """What of a predictor's residual energy is not news: [3, R', C'], every so many blocks are looked at.

    The noise is what the better quarter of the blocks cannot predict. The registration error is the typical residual
    per gradient energy over the steeper half.

    Args:
        most, middle: of `_scales`.
        slope, energy: [3, R', C'].
    """
    floor, excess = np.empty_like(energy), np.empty(energy[0].size, np.float32)
    for k in range(3):
        errors, slopes, out = energy[k].ravel(), slope[k].ravel(), floor[k].ravel()
        noise, steep = min(ranked(errors[::step], 0.25), most[k]), 0
        for i in range(0, len(errors), step):
            if slopes[i] >= middle[k]:
                excess[steep] = max(errors[i] - noise, np.float32(0)) / (slopes[i] + np.float32(1))
                steep += 1
        shift = min(ranked(excess[:steep], 0.5), np.float32(_REGISTRATION))
        for i in range(len(out)):
            out[i] = slopes[i] * shift + (noise + np.float32(_D0))
    return floor


@numba.njit(cache=True)
def news_rate(energy: np.ndarray, floor: np.ndarray) -> np.ndarray:
    """Bits a pixel [R', C'] of residual energies [3, R', C'] above their floor; see `intra.gaussian_rate`."""
    _, rows, columns = energy.shape
    out = np.empty((rows, columns), np.float32)
    for y in range(rows):
        for x in range(columns):
            odds = np.float32(1)
            for k in range(3):
                ratio = energy[k, y, x] / floor[k, y, x]
                odds *= np.float32(1) + ratio * ratio
            out[y, x] = gaussian_rate(odds)
    return out


@numba.njit(cache=True)
def _in_place(
    luma: np.ndarray, chroma: np.ndarray, other_luma: np.ndarray, other_chroma: np.ndarray, step: int
) -> tuple[np.ndarray, np.ndarray, float]:
    """A frame's blocks (`measure`), their residual energy [3, R', C'] against the frame before where it stands, and by
    how much the picture seems to have moved, in samples squared: how luma's residual grows with the gradient energy.

    A shift by d leaves about d^2 / 2 times the gradient energy; noise leaves the same in steep blocks and in flat ones.
    """
    blocks = measure(luma, chroma)
    energy, _ = _residual(luma, chroma, other_luma, other_chroma, step, _UNCHANGED)
    gentle, steep, calm, wild = flat_and_steep(blocks[2, 0].ravel()[::step], energy[0].ravel()[::step])
    return blocks, energy, float((wild - calm) / (steep - gentle + 1))


@numba.njit(cache=True)
def _limit_arriving(rate: np.ndarray, seen: np.ndarray, variance: np.ndarray, step: int) -> None:
    """What comes into view costs at most what it holds beyond twice what most blocks hold; into `rate` [R', C']."""
    usual = np.float32(2) * quantiles(variance, 0.6, step) + np.float32(_D0)
    for y in range(rate.shape[0]):
        for x in range(rate.shape[1]):
            if not seen[y, x]:
                odds = np.float32(1)
                for k in range(3):
                    ratio = variance[k, y, x] / usual[k]
                    odds *= np.float32(1) + ratio * ratio
                rate[y, x] = min(rate[y, x], gaussian_rate(odds))


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


@dataclass(frozen=True, eq=False)
class Past:
    """What the frame before says of the present one.

    Attributes:
        blocks: float32 [3, 3, R', C'], mean, variance and slope of the present one's.
        energy: float32 [3, R', C'], residual along the camera's motion and those of further layers, or in place.
        motion: the camera's, None where it stands.
        layers: where there are several, whose each sample is.
        corners: of the frame, where they were looked for.
    """

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
    blocks, still, shift = _in_place(now.luma, now.chroma, before.luma, before.chroma, step)
    if shift < _MOVES:
        return Past(blocks, still, None, None)
    layers = known.layers if known else None
    alone = known.motion if known and not layers else None
    motions, corners = tracked(before.luma, now.luma, alone, known.corners if known else None)
    motions += layers.motions if layers else []
    found = [(motion, warp(before, motion)) for motion in motions]
    energies = [residual(now, seen)[0] for _, seen in found]
    if not energies:
        return Past(blocks, still, None, None)
    middles = [np.median(energy.sum(axis=0)) for energy in energies] if len(energies) > 1 else [0.0]
    first = int(np.argmin(middles))
    best = energies[first]
    if gain(still, best) < _CAMERA:
        return Past(blocks, still, None, None)
    order = [first, *(place for place in range(len(found)) if place != first)]
    views = _layer_views(now, before, [found[place] for place in order], [energies[place] for place in order])
    if len(views) == 1:
        return Past(blocks, best, views[0][0], None, corners)
    layers = layers_of(now, views)
    energy, _ = residual(now, layers.compose([seen for _, seen in views], now))
    return Past(blocks, energy, views[0][0], layers)


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
    owner = np.argmin(errors, axis=0)
    motions = [refine(motion, view, now, owner == place) for place, (motion, view) in enumerate(views)]
    return [(motion, warp(before, motion)) for motion in motions]


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
    most, middle = _scales(variance, slope, step)
    recent = news_rate(energy, error_floor(most, middle, slope, energy, step))
    left, light = _residual(luma, chroma, ground, ground_chroma, step, lights[-1])
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


def is_cut(past: Past) -> bool:
    """Whether the past says less of most blocks than their own means would, noise counted twice."""
    cut: bool = _mostly_worse(past.energy, past.blocks[1])
    return cut


@numba.njit(cache=True)
def _mostly_worse(energy: np.ndarray, variance: np.ndarray) -> bool:
    _, rows, columns = energy.shape
    worse = 0
    for y in range(rows):
        for x in range(columns):
            left, own = np.float32(0), np.float32(2 * _D0)
            for k in range(3):
                left += energy[k, y, x]
                own += 2 * variance[k, y, x]
            if left > own:
                worse += 1
    return worse > rows * columns / 2


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
