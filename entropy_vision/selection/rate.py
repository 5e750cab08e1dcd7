"""rate: the bits a patch costs to describe, given what has been shown before (see `entropy_vision.rate`).

A part of the budget goes to places that would never be shown, in the first frame, whatever they score: where clever
pruners lose to random, this is what they lack, and who rebuilds the video from what was kept has something to start
from. Where fewer patches than the budget say anything at all, the rest of it is spread evenly too.
"""

from __future__ import annotations

import functools
from weakref import WeakKeyDictionary

import numpy as np

from entropy_vision.budget import exact, spread
from entropy_vision.frames import Frames
from entropy_vision.planes import SAMPLES, thumbnails
from entropy_vision.rate import Bits, patch_bits
from entropy_vision.selection.base import Selector
from entropy_vision.shown import closed_loop, looks_of

_ALL = 0.35  # of the budget of a video may go to its whole first frame; where that is too little:
_COVERAGE, _COVERAGE_STILL = 0.12, 0.03  # of the budget of a video, of a picture
_NOTHING = 1.0  # a patch of less than one bit says nothing
_ROUNDS = 4  # of spreading more patches where some fell on patches already in
_THUMBNAILS: WeakKeyDictionary[Frames, tuple[int, np.ndarray]] = WeakKeyDictionary()
"""(patch size, thumbnails) of the frames that were scored and still are there: a choice follows, or several."""


class Rate(Selector):
    """Bits against what was seen before, or against the picture itself where nothing was."""

    name = "rate"
    version = 10

    def score(self, frames: Frames, patch_size: int) -> np.ndarray:
        """float32 [F, R, C], bits."""
        if frames.count == 1:
            return patch_bits(frames.pixels, patch_size)
        bits, seen = Bits(patch_size).read_all(frames.pixels)
        if patch_size >= SAMPLES:  # of smaller patches they are as large as the frames, and cheap to make again
            _THUMBNAILS[frames] = patch_size, seen
        return bits

    def stream(self, patch_size: int) -> Bits:
        """A fresh one: each frame given those before."""
        return Bits(patch_size)

    def by_bits_alone(self, moments: int) -> bool:
        """Of a still; what a video has shown before is told by pixels."""
        return moments == 1

    def choose(self, bits: np.ndarray, count: int, frames: Frames, patch_size: int) -> np.ndarray:
        """bool [F, R, C]: the most bits, given what the choice has shown before, and a floor of coverage."""
        if count == bits.size:
            return np.ones(bits.shape, bool)
        whole = frames.count > 1 and bits[0].size <= _ALL * count
        spare = 0 if whole else int((_COVERAGE if frames.count > 1 else _COVERAGE_STILL) * count)
        if frames.count > 1:
            looks = looks_of(_thumbnails(frames, patch_size))
            mask, worth = closed_loop(bits, looks, count - spare, whole, _NOTHING, patch_size)
        else:
            worth, mask = bits, exact(bits, max(1, count - spare)) & (bits >= _NOTHING)
        idle = worth[~mask].max() < _NOTHING  # what else there is says nothing
        floor = _never_shown(mask, count - int(mask.sum()) if idle else spare)
        # the patch that every frame keeps is paid for by what is worth least, not by the only view of a place
        only = floor & ~mask
        only[0] |= whole
        return exact(np.where(only, np.inf, worth), count, _filled(floor, count) if idle else floor)


def _thumbnails(frames: Frames, patch_size: int) -> np.ndarray:
    """uint8 [F, 3, 4 R, 4 C], as the score has seen them; anew where other frames were scored."""
    side, seen = _THUMBNAILS.get(frames, (0, np.empty(0)))
    return seen if side == patch_size else thumbnails(frames.pixels, patch_size)


def _never_shown(mask: np.ndarray, most: int) -> np.ndarray:
    """`mask` and, in the first frame, up to `most` of the places where it has no patch, evenly spread."""
    _, rows, columns = mask.shape
    out, shown = mask.copy(), mask.any(axis=0).ravel()
    order = _scattered(rows, columns)
    out[0].reshape(-1)[order[~shown[order]][:most]] = True
    return out


@functools.cache
def _scattered(rows: int, columns: int) -> np.ndarray:
    """All places, int [R * C], in an order whose every beginning is spread evenly (Roberts' R2 sequence, 2018)."""
    n = np.arange(1, 16 * rows * columns + 1)
    row = (n * 0.7548776662466927 % 1 * rows).astype(int)
    column = (n * 0.5698402909980532 % 1 * columns).astype(int)
    place, first = np.unique(row * columns + column, return_index=True)
    return np.concatenate([place[np.argsort(first)], np.setdiff1d(np.arange(rows * columns), place)])


def _filled(mask: np.ndarray, count: int) -> np.ndarray:
    """`mask` and evenly spread patches, together `count` or a few less."""
    frames, rows, columns = mask.shape
    full, points = mask, count - int(mask.sum())
    for _ in range(_ROUNDS):
        more = mask | spread((frames, rows, columns), points)
        short = count - int(more.sum())
        if short < 0:
            break
        full, points = more, points + short  # as many fell on patches that were in already
        if not short or points > mask.size:
            break
    return full
