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
_0, _1, _2 = np.uint64(0), np.uint64(1), np.uint64(2)
_SIDES = ((-1, 0), (0, -1), (-1, -1), (-1, 1))  # above, left and the two corners; the other is opposite


@numba.njit(cache=True)
def gaussian_rate(odds: np.float32) -> np.float32:
    """Bits a pixel, float32 as `odds` is: 1/4 log2 of the odds, the product over channels of 1 + (energy / floor)^2.

    The smooth form of max(0, 1/2 log2(energy / floor)): the same far above the floor, and never quite nothing below
    it. A hard floor makes equals of all that lies under it, and where a budget reaches that far (coins that fill half
    the picture are each other's surroundings) the choice among them would be by position. The least of several odds
    is that of their rates, and where rates would be added odds are multiplied: one logarithm a block is enough.
    """
    one = np.float32(1)  # of which the logarithm is known: most blocks of a camera that stands
    return np.float32(0.25) * np.log2(odds) if odds > one else np.float32(0)


def prevailing(blocks: np.ndarray) -> np.ndarray:
    """Median over the surroundings, about a third of the frame's side wide: float32 [3, R', C'] -> the same."""
    _, height, width = blocks.shape
    pool, out = max(1, round(max(height, width) / _CELLS)), together(blocks)  # three medians as fast as one
    if pool > 1:
        out = cv2.resize(out, (max(1, round(width / pool)), max(1, round(height / pool))), interpolation=cv2.INTER_AREA)
    out = cv2.medianBlur(out, 5)
    if pool > 1:
        out = cv2.resize(out, (width, height), interpolation=cv2.INTER_LINEAR)
    return apart(out)


def context_bits(mean: np.ndarray, variance: np.ndarray) -> np.ndarray:
    """Bits a pixel of each block against its own frame, at most 4.

    Args:
        mean, variance: of the blocks, float32 [3, R', C'].

    Returns:
        float32 [R', C'].
    """
    _, height, width = mean.shape
    colour = prevailing(mean)
    energy = _energy(mean, variance, colour)
    usual, middle = prevailing(energy), quantile(energy, 0.5)
    bits: np.ndarray = _context(
        mean, variance, colour, usual, middle, max(1, round(height / 4)), max(1, round(width / 4))
    )  # fmt: skip
    return bits


@numba.njit(cache=True)
def _energy(mean: np.ndarray, variance: np.ndarray, colour: np.ndarray) -> np.ndarray:
    """Mean squared distance of the blocks' values from `colour`; all [3, R', C']."""
    out = np.empty_like(mean)
    energy, one, two, spread = out.ravel(), mean.ravel(), colour.ravel(), variance.ravel()
    for i in range(len(energy)):
        off = one[i] - two[i]
        energy[i] = spread[i] + off * off
    return out


@numba.njit(cache=True, fastmath=True)
def _shares(usual: np.ndarray, middle: np.ndarray) -> np.ndarray:
    """What an energy is multiplied by to be a share of the floor: of energies around [3, R', C'] and [3] in general."""
    out = np.empty_like(usual)
    for k in range(3):
        share, around, least = out[k].ravel(), usual[k].ravel(), middle[k]
        for i in range(len(share)):
            share[i] = np.float32(1) / (np.float32(_TEXTURE) * max(around[i], least) + np.float32(D0))
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

    Beside the frame the blocks of its edge go on.
    """
    _, rows, columns = mean.shape
    share = _shares(usual, middle)
    colours, shares = _framed(colour, 0, along), _framed(share, 0, along)
    alone = np.full((1, rows, columns), np.float32(2 ** (4 * _MOST)))
    for dy, dx in ((0, 0), (-down, 0), (down, 0), (0, -along), (0, along)):
        _against(mean, variance, colours, shares, dy, along + dx, alone[0])
    # all rows at once, one block more at every side: a neighbour is so many places on
    means, variances, own, price = _edged(mean), _edged(variance), _edged(share), _edged(alone)[0]
    wide, first, count = columns + 2, columns + 3, rows * (columns + 2) - 2
    here = slice(first, first + count)
    least, rooms = price[here].copy(), np.empty((3, count), np.float32)
    for dy, dx in _SIDES:
        off = dy * wide + dx
        one, two = slice(first + off, first + off + count), slice(first - off, first - off + count)
        _between(means, variances, own, price, here, one, two, rooms, least)
    bits = np.empty((rows, columns), np.float32)
    for y in range(rows):
        for x in range(columns):
            bits[y, x] = gaussian_rate(least[y * wide + x])
    return bits


@numba.njit(cache=True)
def _edged(blocks: np.ndarray) -> np.ndarray:
    """[n, R', C'] with the blocks of the edge again all around, flat: [n, (R' + 2) (C' + 2)]."""
    return _framed(blocks, 1, 1).reshape(len(blocks), -1)


@numba.njit(cache=True)
def _framed(blocks: np.ndarray, down: int, along: int) -> np.ndarray:
    """[n, R', C'] with `down` rows more above and below, `along` blocks at either side, those of the edge again.

    In loops: to copy so little, slices of arrays take three times as long.
    """
    count, rows, columns = blocks.shape
    out = np.empty((count, rows + 2 * down, columns + 2 * along), np.float32)
    for k in range(count):
        for y in range(out.shape[1]):
            given, row = blocks[k, min(max(y - down, 0), rows - 1)], out[k, y]
            first, last = given[0], given[columns - 1]
            for x in range(along):
                row[x] = first
                row[along + columns + x] = last
            for x in range(np.uint64(columns)):
                row[np.uint64(along) + x] = given[x]
    return out


@numba.njit(cache=True, fastmath=True)
def _against(
    mean: np.ndarray,
    variance: np.ndarray,
    colours: np.ndarray,
    shares: np.ndarray,
    down: int,
    first: int,
    least: np.ndarray,
) -> None:
    """The odds of blocks against the colours that prevail `down` rows below, from block `first` on, where they are
    less: into `least` [R', C']."""
    rows, columns = least.shape
    for row in range(rows):
        y, there = np.uint64(row), np.uint64(min(max(row + down, 0), rows - 1))
        for x in range(np.uint64(columns)):  # unsigned, or several would not be taken at once
            at = np.uint64(first) + x
            off = mean[_0, y, x] - colours[_0, there, at]
            one = (variance[_0, y, x] + off * off) * shares[_0, there, at]
            off = mean[_1, y, x] - colours[_1, there, at]
            two = (variance[_1, y, x] + off * off) * shares[_1, there, at]
            off = mean[_2, y, x] - colours[_2, there, at]
            three = (variance[_2, y, x] + off * off) * shares[_2, there, at]
            least[y, x] = min(least[y, x], (1 + one * one) * (1 + two * two) * (1 + three * three))


@numba.njit(cache=True, fastmath=True)
def _between(
    means: np.ndarray,
    variances: np.ndarray,
    shares: np.ndarray,
    price: np.ndarray,
    here: slice,
    one: slice,
    two: slice,
    rooms: np.ndarray,
    least: np.ndarray,
) -> None:
    """The odds of blocks to be an edge, where they are less: of `_edged` blocks into `least` [N]; `rooms` [3, N] is
    written.

    An edge holds two known colours side by side, those of two neighbours, which have to be paid for as well, so only
    cheap ones explain anything. A share a of colour `one` beside 1 - a of `two` has mean two + a * d and variance
    q = a * (1 - a) * d^2, d being their difference. `a` is what fits the block's mean best; what is left is the mean's
    distance and the variance beyond q, or below q / 2 (a soft edge has less than q, but one flat colour in between is a
    thing of its own).
    """
    part, length, odds = rooms[0], rooms[1], rooms[2]
    part[:], length[:] = 0, 1e-6
    for k in range(3):
        _fit(means[k, here], means[k, one], means[k, two], part, length)
    price_one, price_two = price[one], price[two]
    for i in range(len(part)):
        part[i] = min(max(part[i] / length[i], np.float32(0)), np.float32(1))
        odds[i] = price_one[i] * price_two[i]
    for k in range(3):
        _left(means[k, here], means[k, one], means[k, two], variances[k, here], shares[k, here], part, odds)
    for i in range(len(least)):
        least[i] = min(least[i], odds[i])


@numba.njit(cache=True, fastmath=True)
def _fit(mean: np.ndarray, one: np.ndarray, two: np.ndarray, along: np.ndarray, length: np.ndarray) -> None:
    """Adds a channel's part of (mean - two) d and of d^2, d = one - two; all [N]."""
    for i in range(len(mean)):
        difference = one[i] - two[i]
        along[i] += (mean[i] - two[i]) * difference
        length[i] += difference * difference


@numba.njit(cache=True, fastmath=True)
def _left(
    mean: np.ndarray,
    one: np.ndarray,
    two: np.ndarray,
    variance: np.ndarray,
    share: np.ndarray,
    part: np.ndarray,
    odds: np.ndarray,
) -> None:
    """Multiplies a channel's odds of what an edge of `part` of colour `one` leaves of a block; all [N]."""
    for i in range(len(mean)):
        difference = one[i] - two[i]
        off = mean[i] - two[i] - part[i] * difference
        expected = part[i] * (1 - part[i]) * difference * difference
        beyond = max(max(variance[i] - expected, expected * np.float32(0.5) - variance[i]), np.float32(0))
        ratio = (beyond + off * off) * share[i]
        odds[i] *= 1 + ratio * ratio


def picture_bits(picture: np.ndarray, patch_size: int) -> np.ndarray:
    """Bits a pixel of each patch of a picture that nothing was seen before: float32 [R, C].

    The sum of what its surroundings and what the picture's other patches say of a patch, and what of it is more than
    usual there: 3/4 log2(1 + 2^(e - median e - 2)), less the value of this at e = 0.

    Args:
        picture: uint8 [R P, C P, 3], RGB.
    """
    side = block_side(patch_size)
    per = patch_size // side
    mean, variance, points = read_picture(ycrcb(apart(picture)), side, per)
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
