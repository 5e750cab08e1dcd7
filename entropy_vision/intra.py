"""Bits a pixel of a picture's blocks against their surroundings in the same picture.

V is a block's energy around the colour that prevails there, D what such energy usually is there. So texture that goes
on is cheap however busy it is, a flat object on a flat ground is dear, and letters are. "There" is the best of five
places: the block's own neighbourhood and those a quarter of the frame away, because next to an edge between two grounds
the other side prevails.
"""

from __future__ import annotations

import cv2
import numba
import numpy as np

from entropy_vision.blocks import quantile
from entropy_vision.colour import apart, together, ycrcb
from entropy_vision.grid import block_side
from entropy_vision.picture import read_picture
from entropy_vision.surprise import rarity

D0 = 9.0  # grey levels squared: an error of 3 of 255 is not worth a bit
_TEXTURE = 2.0  # energies of up to twice what prevails around are texture
_CELLS = 14  # the prevailing colour is looked for on a grid of at most about this many cells a side
_MOST = 4.0  # bits a pixel, of context: what stands out that far stands out
_KNEE = 2.0  # bits above the picture's median from which on surprise counts in full
_WORTH = 0.75  # bits a pixel that a bit of surprise is worth beside a change between frames
_SIDES = ((-1, 0), (0, -1), (-1, -1), (-1, 1))  # above, left and the two corners; the other is opposite


@numba.njit(cache=True)
def gaussian_rate(odds: np.float32) -> np.float32:
    """Bits a pixel, float32 as `odds` is: 1/4 log2 of the odds, the product over channels of 1 + (energy / floor)^2.

    The smooth form of max(0, 1/2 log2(energy / floor)): the same far above the floor, and never quite nothing below
    it. A hard floor makes equals of all that lies under it, and where a budget reaches that far (coins that fill half
    the picture are each other's surroundings) the choice among them would be by position. The least of several odds
    is that of their rates, and where rates would be added odds are multiplied: one logarithm a block is enough.
    """
    return np.float32(0.25) * np.log2(odds)


def prevailing(blocks: np.ndarray) -> np.ndarray:
    """Median over the surroundings, about a third of the frame's side wide: float32 [R', C', 3] -> the same."""
    height, width, _ = blocks.shape
    pool = max(1, round(max(height, width) / _CELLS))
    if pool == 1:
        return cv2.medianBlur(blocks, 5)
    size = max(1, round(width / pool)), max(1, round(height / pool))
    coarse = cv2.medianBlur(cv2.resize(blocks, size, interpolation=cv2.INTER_AREA), 5)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR)


def context_bits(mean: np.ndarray, variance: np.ndarray) -> np.ndarray:
    """Bits a pixel of each block against its own frame, at most 4.

    Args:
        mean, variance: of the blocks, float32 [R', C', 3].

    Returns:
        float32 [R', C'].
    """
    height, width, _ = mean.shape
    colour = prevailing(mean)
    energy = _energy(mean, variance, colour)
    usual, middle = prevailing(energy), quantile(energy.transpose(2, 0, 1), 0.5)
    bits: np.ndarray = _context(
        mean, variance, colour, usual, middle, max(1, round(height / 4)), max(1, round(width / 4))
    )  # fmt: skip
    return bits


@numba.njit(cache=True)
def _energy(mean: np.ndarray, variance: np.ndarray, colour: np.ndarray) -> np.ndarray:
    """Mean squared distance of the blocks' values from `colour`; all [R', C', 3]."""
    out = np.empty_like(mean)
    energy, one, two, spread = out.ravel(), mean.ravel(), colour.ravel(), variance.ravel()
    for i in range(len(energy)):
        off = one[i] - two[i]
        energy[i] = spread[i] + off * off
    return out


@numba.njit(cache=True, fastmath=True)
def _shares(usual: np.ndarray, middle: np.ndarray) -> np.ndarray:
    """What an energy is multiplied by to be a share of the floor: of energies around [R', C', 3] and [3] in general."""
    rows, columns, _ = usual.shape
    out, least = np.empty((rows, 3 * columns), np.float32), np.empty(3 * columns, np.float32)
    for i in range(3 * columns):
        least[i] = middle[i % 3]
    for y in range(rows):
        share, around = out[y], usual[y].ravel()
        for i in range(len(share)):
            share[i] = np.float32(1) / (np.float32(_TEXTURE) * max(around[i], least[i]) + np.float32(D0))
    return out


@numba.njit(cache=True)
def _context(
    mean: np.ndarray,
    variance: np.ndarray,
    colour: np.ndarray,
    usual: np.ndarray,
    middle: np.ndarray,
    down: int,
    along: int,
) -> np.ndarray:
    """Bits [R', C'] given the prevailing colours and energies, and places `down` and `along` away.

    Rows are taken as they are, channels interleaved; beside the frame the blocks of its edge go on.
    """
    rows, columns, _ = mean.shape
    colours = _wide(colour.reshape(rows, -1), along)
    shares = _wide(_shares(usual, middle), along)
    means, variances = _wide(mean.reshape(rows, -1), 1), variance.reshape(rows, -1)
    alone = np.full((rows, columns + 2), np.float32(2 ** (4 * _MOST)))  # one more at either side
    rooms = np.empty((3, 3 * columns), np.float32)  # to work in: to ask for memory takes as long as a row
    for y in range(rows):
        for dy, dx in ((0, 0), (-down, 0), (down, 0), (0, -along), (0, along)):
            v, first = min(max(y + dy, 0), rows - 1), 3 * (along + dx)
            there = slice(first, first + 3 * columns)
            _against(means[y, 3:-3], variances[y], colours[v, there], shares[v, there], rooms[0], alone[y, 1:-1])
        alone[y, 0], alone[y, -1] = alone[y, 1], alone[y, -2]
    bits, least = np.empty((rows, columns), np.float32), np.empty(columns, np.float32)
    for y in range(rows):
        least[:] = alone[y, 1:-1]
        for dy, dx in _SIDES:
            one, two, p, q = max(y + dy, 0), min(y - dy, rows - 1), 1 + dx, 1 - dx
            _between(
                means[y, 3:-3], variances[y], shares[y, 3 * along : 3 * (along + columns)],
                means[one, 3 * p : 3 * (p + columns)], means[two, 3 * q : 3 * (q + columns)],
                alone[one, p : p + columns], alone[two, q : q + columns], rooms, least,
            )  # fmt: skip
        for x in range(columns):
            bits[y, x] = gaussian_rate(least[x])
    return bits


@numba.njit(cache=True)
def _wide(blocks: np.ndarray, more: int) -> np.ndarray:
    """[R', 3 C'] with `more` blocks at either side, those of the edge again: [R', 3 (C' + 2 more)]."""
    rows, wide = blocks.shape
    out = np.empty((rows, wide + 6 * more), np.float32)
    for y in range(rows):
        out[y, 3 * more : 3 * more + wide] = blocks[y]
        for i in range(3 * more):
            out[y, i], out[y, 3 * more + wide + i] = blocks[y, i % 3], blocks[y, wide - 3 + i % 3]
    return out


@numba.njit(cache=True, fastmath=True)
def _against(
    mean: np.ndarray, variance: np.ndarray, colour: np.ndarray, share: np.ndarray, odds: np.ndarray, least: np.ndarray
) -> None:
    """The odds of a row of blocks against a prevailing colour, where they are less: [3 C'] into [C'].

    `odds` [3 C'] is written.
    """
    for i in range(len(odds)):
        off = mean[i] - colour[i]
        ratio = (variance[i] + off * off) * share[i]
        odds[i] = 1 + ratio * ratio
    for x in range(len(least)):
        least[x] = min(least[x], odds[3 * x] * odds[3 * x + 1] * odds[3 * x + 2])


@numba.njit(cache=True, fastmath=True)
def _between(
    mean: np.ndarray,
    variance: np.ndarray,
    share: np.ndarray,
    one: np.ndarray,
    two: np.ndarray,
    price_one: np.ndarray,
    price_two: np.ndarray,
    rooms: np.ndarray,
    least: np.ndarray,
) -> None:
    """The odds of a row of blocks to be an edge, where they are less: [3 C'] into [C']; `rooms` [3, 3 C'] is written.

    An edge holds two known colours side by side, those of two neighbours, which have to be paid for as well, so only
    cheap ones explain anything. A share a of colour `one` beside 1 - a of `two` has mean two + a * d and variance
    q = a * (1 - a) * d^2, d being their difference. `a` is what fits the block's mean best; what is left is the mean's
    distance and the variance beyond q, or below q / 2 (a soft edge has less than q, but one flat colour in between is a
    thing of its own).
    """
    squared, along, mixed = rooms[0], rooms[1], rooms[2]
    for i in range(len(mean)):
        difference = one[i] - two[i]
        squared[i], along[i] = difference * difference, (mean[i] - two[i]) * difference
    for x in range(len(least)):
        length = squared[3 * x] + squared[3 * x + 1] + squared[3 * x + 2]
        part = (along[3 * x] + along[3 * x + 1] + along[3 * x + 2]) / (length + np.float32(1e-6))
        part = min(max(part, np.float32(0)), np.float32(1))
        mixed[3 * x], mixed[3 * x + 1], mixed[3 * x + 2] = part, part, part
    for i in range(len(mean)):
        off = mean[i] - two[i] - mixed[i] * (one[i] - two[i])
        expected = mixed[i] * (1 - mixed[i]) * squared[i]
        beyond = max(max(variance[i] - expected, expected * np.float32(0.5) - variance[i]), np.float32(0))
        ratio = (beyond + off * off) * share[i]
        mixed[i] = 1 + ratio * ratio
    for x in range(len(least)):
        odds = mixed[3 * x] * mixed[3 * x + 1] * mixed[3 * x + 2]
        least[x] = min(least[x], odds * price_one[x] * price_two[x])


def picture_bits(picture: np.ndarray, patch_size: int) -> np.ndarray:
    """Bits a pixel of each patch of a picture that nothing was seen before: float32 [R, C].

    The sum of what its surroundings and what the picture's other patches say of a patch, and what of it is more than
    usual there: 3/4 log2(1 + 2^(e - median e - 2)), less the value of this at e = 0.

    Args:
        picture: uint8 [R P, C P, 3], RGB.
    """
    side = block_side(patch_size)
    per = patch_size // side
    mean, variance, points = read_picture(together(ycrcb(apart(picture))), side, per)
    bits: np.ndarray = _beyond_usual(context_bits(mean, variance), rarity(points), per)
    return bits


@numba.njit(cache=True)
def _beyond_usual(context: np.ndarray, rare: np.ndarray, per: int) -> np.ndarray:
    """Bits a pixel [R, C], of context [R per, C per] and rarity [R C]."""
    rows, columns = context.shape[0] // per, context.shape[1] // per
    surprise = rare.astype(np.float64).reshape(rows, columns)
    for y in range(rows * per):
        for x in range(columns * per):
            surprise[y // per, x // per] += context[y, x] / (per * per)
    usual = np.median(surprise) + _KNEE
    nothing = _soft(-usual)
    bits = np.empty((rows, columns), np.float32)
    for y in range(rows):
        for x in range(columns):
            bits[y, x] = _WORTH * (_soft(surprise[y, x] - usual) - nothing)
    return bits


@numba.njit(cache=True)
def _soft(bits: float) -> float:
    """log2(1 + 2^bits): 0 far below 0, and `bits` far above."""
    return max(bits, 0.0) + np.log2(1 + 2 ** -abs(bits))
