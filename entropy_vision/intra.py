"""Bits a pixel of a picture's blocks against their surroundings in the same picture.

V is a block's energy around the colour that prevails there, D what such energy usually is there. So texture that goes
on is cheap however busy it is, a flat object on a flat ground is dear, and letters are. "There" is the best of five
places: the block's own neighbourhood and those a quarter of the frame away, because next to an edge between two grounds
the other side prevails.
"""

from __future__ import annotations

import cv2
import numpy as np

from entropy_vision.blocks import Blocks, measure_picture, quantile
from entropy_vision.grid import block_side
from entropy_vision.surprise import self_information

D0 = 9.0  # grey levels squared: an error of 3 of 255 is not worth a bit
_TEXTURE = 2.0  # energies of up to twice what prevails around are texture
_CELLS = 14  # the prevailing colour is looked for on a grid of at most about this many cells a side
_MOST = 4.0  # bits a pixel, of context: what stands out that far stands out
_KNEE = 2.0  # bits above the picture's median from which on surprise counts in full
_WORTH = 0.75  # bits a pixel that a bit of surprise is worth beside a change between frames
_SIDES = ((0, 1), (1, 0), (0, 0), (0, 2))  # above, left and the two corners; the other is opposite


def gaussian_rate(energy: np.ndarray, floor: np.ndarray) -> np.ndarray:
    """Bits a pixel: [3, ...] channels -> [...], the sum over channels of 1/4 log2(1 + (energy / floor)^2).

    The smooth form of max(0, 1/2 log2(energy / floor)): the same far above the floor, and never quite nothing below
    it. A hard floor makes equals of all that lies under it, and where a budget reaches that far (coins that fill half
    the picture are each other's surroundings) the choice among them would be by position.
    """
    return 0.25 * np.log2(_odds(energy, floor))


def _odds(energy: np.ndarray, floor: np.ndarray) -> np.ndarray:
    """What `gaussian_rate` takes the logarithm of: the least of several is found before it."""
    ratio = energy / floor
    return (1 + ratio * ratio).prod(axis=0)


def prevailing(blocks: np.ndarray) -> np.ndarray:
    """Median over the surroundings, about a third of the frame's side wide: [3, R', C'] -> the same."""
    height, width = blocks.shape[1:]
    pool = max(1, round(max(height, width) / _CELLS))
    size = max(1, round(width / pool)), max(1, round(height / pool))
    out = np.empty(blocks.shape, np.float32)
    for field, median in zip(blocks, out, strict=True):
        if pool == 1:
            median[...] = cv2.medianBlur(field, 5)
        else:
            coarse = cv2.medianBlur(cv2.resize(field, size, interpolation=cv2.INTER_AREA), 5)
            median[...] = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR)
    return out


def context_bits(blocks: Blocks) -> np.ndarray:
    """Bits a pixel of each block against its own frame: float32 [R', C']."""
    height, width = blocks.mean.shape[1:]
    colour = prevailing(blocks.mean)
    energy = blocks.energy(colour)
    floor = _TEXTURE * np.maximum(prevailing(energy), quantile(energy, 0.5)[:, None, None]) + D0
    down, along = max(1, round(height / 4)), max(1, round(width / 4))
    margin = ((0, 0), (down, down), (along, along))
    wide_colour, wide_floor = np.pad(colour, margin, mode="edge"), np.pad(floor, margin, mode="edge")
    least = np.full(blocks.mean.shape[1:], np.inf, np.float32)
    for y, x in ((down, along), (0, along), (2 * down, along), (down, 0), (down, 2 * along)):
        there = np.s_[:, y : y + height, x : x + width]
        np.minimum(least, _odds(blocks.energy(wide_colour[there]), wide_floor[there]), out=least)
    # an edge: two neighbours side by side, which have to be paid for as well, so only cheap ones explain anything
    bits: np.ndarray = 0.25 * np.log2(least)
    near = ((1, 1), (1, 1))
    mean, price = np.pad(blocks.mean, ((0, 0), *near), mode="edge"), np.pad(bits, near, mode="edge")
    for y, x in _SIDES:
        one, two = np.s_[..., y : y + height, x : x + width], np.s_[..., 2 - y : 2 - y + height, 2 - x : 2 - x + width]
        mixed = gaussian_rate(mixed_energy(blocks, mean[one], mean[two]), floor)
        bits = np.minimum(bits, mixed + price[one] + price[two])
    return bits


def mixed_energy(blocks: Blocks, one: np.ndarray, two: np.ndarray) -> np.ndarray:
    """How far blocks are from holding two known colours side by side, as the edge of a wall or a letterbox does.

    A share a of colour `one` beside 1 - a of `two` has mean two + a * d and variance q = a * (1 - a) * d^2, d being
    their difference. `a` is what fits the block's mean best; what is left is the mean's distance and the variance
    beyond q, or below q / 2 (a soft edge has less than q, but one flat colour in between is a thing of its own).

    Returns:
        float32 [3, R', C'].
    """
    difference, off = one - two, blocks.mean - two
    length = (difference * difference).sum(axis=0)
    share = np.clip((off * difference).sum(axis=0) / (length + 1e-6), 0, 1)
    off -= share * difference
    expected = share * (1 - share) * difference * difference
    variance = blocks.variance
    return np.maximum(np.maximum(variance - expected, expected / 2 - variance), 0) + off * off


def picture_bits(picture: np.ndarray, patch_size: int) -> np.ndarray:
    """Bits a pixel of each patch of a picture that nothing was seen before: float32 [R, C].

    The sum of what its surroundings and what the picture's other patches say of a patch, and what of it is more than
    usual there: 3/4 log2(1 + 2^(e - median e - 2)), less the value of this at e = 0.

    Args:
        picture: uint8 [R P, C P, 3], RGB.
    """
    frame = cv2.cvtColor(picture, cv2.COLOR_RGB2YCrCb)
    side = block_side(patch_size)
    per = patch_size // side
    context = np.minimum(context_bits(measure_picture(frame, side)), _MOST)
    rows, columns = context.shape[0] // per, context.shape[1] // per
    surprise = context.reshape(rows, per, columns, per).mean(axis=(1, 3)) + self_information(frame, patch_size)
    usual = np.median(surprise) + _KNEE
    bits = _WORTH * (np.logaddexp2(0, surprise - usual) - np.logaddexp2(0, -usual))
    return bits.astype(np.float32)
