"""Bits per patch: the Gaussian rate of what could not be predicted.

    R(p, t) = min over predictors m of  sum over blocks b of p  n_b * sum over channels c of r(V / D)
    r(x)    = 1/4 log2(1 + x^2)  ~  max(0, 1/2 log2 x)

This is the rate-distortion function of a Gaussian source with side information (Cover and Thomas, "Elements of
Information Theory", 13.3.2; Wyner and Ziv 1976). Per block b (about 8 x 8 pixels, n_b of them inside the frame) and
channel c of YCbCr, V is the mean squared error of predictor m and D what is not worth describing. One unit for
pictures and videos:

intra   The block against its surroundings in the same frame: V is its energy around the colour that prevails there,
        D what such energy usually is there. So texture that goes on is cheap however busy it is, a flat object on a
        flat ground is dear, and letters are. "There" is the best of five places: the block's own neighbourhood and
        those a quarter of the frame away, because next to an edge between two grounds the other side prevails.
inter   The block against the frame before, at the same place and, where the camera moved, along the global affine
        motion. D = noise + registration error x gradient energy + D0. The frame's median change is taken off first:
        flicker is not news.

Colour counts like luma: an object of the ground's own luma is as visible in Cb and Cr as any.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np

from entropy_vision.grid import block_side, pad, real_pixels
from entropy_vision.motion import global_motion, warp

_D0 = 9.0  # grey levels squared: an error of 3 of 255 is not worth a bit
_TEXTURE = 2.0  # energies of up to twice what prevails around are texture
_CELLS = 14  # the prevailing colour is looked for on a grid of at most about this many cells a side
_PAIRS = ((0, 1), (0, 2), (0, 3), (0, 4), (1, 2), (3, 4))  # places whose colours may meet in a block
_FLICKER = 24.0  # grey levels; a larger common change is another picture, not another exposure
_REGISTRATION = 0.05  # pixels squared: an error of more than 0.2 pixels is motion, not registration
_CAMERA = 1 / 3  # of all blocks must be predicted better along the global motion


@dataclass(frozen=True, eq=False)
class Blocks:
    """What the rate needs to know about F frames; all float32 [F, R', C', 3] over blocks and channels.

    Attributes:
        mean, square: mean and mean square of the block's values.
        slope: mean squared gradient, (grey levels a pixel) squared.
    """

    mean: np.ndarray
    square: np.ndarray
    slope: np.ndarray

    @property
    def variance(self) -> np.ndarray:
        """Energy around the block's own mean."""
        return np.maximum(self.square - self.mean * self.mean, 0)

    def energy(self, colour: np.ndarray) -> np.ndarray:
        """Mean squared distance of the block's values from `colour`."""
        return np.maximum(self.square + colour * (colour - 2 * self.mean), 0)


def block_mean(planes: np.ndarray, side: int) -> np.ndarray:
    """Mean of each side x side block: float32 [H, W, 3] -> [H / side, W / side, 3]."""
    height, width = planes.shape[:2]
    return cv2.resize(planes, (width // side, height // side), interpolation=cv2.INTER_AREA)


def measure(planes: Sequence[np.ndarray], side: int) -> Blocks:
    """Block statistics of frames, each float32 [H, W, 3] with `side` dividing H and W."""
    means, squares, slopes = [], [], []
    for plane in planes:
        dx, dy = cv2.Sobel(plane, -1, 1, 0, ksize=1), cv2.Sobel(plane, -1, 0, 1, ksize=1)
        means.append(block_mean(plane, side))
        squares.append(block_mean(cv2.multiply(plane, plane), side))
        slopes.append(block_mean(cv2.add(cv2.multiply(dx, dx), cv2.multiply(dy, dy)), side))
    # central differences span two pixels
    return Blocks(mean=np.stack(means), square=np.stack(squares), slope=np.stack(slopes) / 4)


def gaussian_rate(energy: np.ndarray, floor: np.ndarray) -> np.ndarray:
    """Bits a pixel: [..., 3] channels -> [...], the sum over channels of 1/4 log2(1 + (energy / floor)^2).

    The smooth form of max(0, 1/2 log2(energy / floor)): the same far above the floor, and never quite nothing below
    it. A hard floor makes equals of all that lies under it, and where a budget reaches that far (coins that fill half
    the picture are each other's surroundings) the choice among them would be by position.
    """
    ratio = energy / floor
    return 0.25 * np.log2((1 + ratio * ratio).prod(axis=-1))


def quantile(blocks: np.ndarray, share: float) -> np.ndarray:
    """The value of that rank in each frame and channel: [F, R', C', 3] -> [F, 1, 1, 3]."""
    flat = blocks.reshape(len(blocks), -1, blocks.shape[-1])
    rank = int(share * (flat.shape[1] - 1))
    return np.partition(flat, rank, axis=1)[:, rank, None, None]


def prevailing(blocks: np.ndarray) -> np.ndarray:
    """Median over the surroundings, about a third of the frame's side wide: [F, R', C', 3] -> the same."""
    height, width = blocks.shape[1:3]
    pool = max(1, round(max(height, width) / _CELLS))
    if pool == 1:
        return np.stack([cv2.medianBlur(frame, 5) for frame in blocks])
    size = max(1, round(width / pool)), max(1, round(height / pool))
    coarse = (cv2.medianBlur(cv2.resize(frame, size, interpolation=cv2.INTER_AREA), 5) for frame in blocks)
    return np.stack([cv2.resize(frame, (width, height), interpolation=cv2.INTER_LINEAR) for frame in coarse])


def intra_bits(blocks: Blocks) -> np.ndarray:
    """Bits a pixel of each block against its own frame: float32 [F, R', C']."""
    height, width = blocks.mean.shape[1:3]
    colour = prevailing(blocks.mean)
    energy = blocks.energy(colour)
    floor = _TEXTURE * np.maximum(prevailing(energy), quantile(energy, 0.5)) + _D0
    down, along = max(1, round(height / 4)), max(1, round(width / 4))
    margin = ((0, 0), (down, down), (along, along), (0, 0))
    colour, floor = np.pad(colour, margin, mode="edge"), np.pad(floor, margin, mode="edge")
    corners = ((down, along), (0, along), (2 * down, along), (down, 0), (down, 2 * along))
    places = [np.s_[:, y : y + height, x : x + width] for y, x in corners]  # here, above, below, left, right
    least = np.full(blocks.mean.shape[:3], np.inf, np.float32)
    for there in places:
        least = np.minimum(least, gaussian_rate(blocks.energy(colour[there]), floor[there]))
    for i, j in _PAIRS:
        share, energy = mixed_energy(blocks, colour[places[i]], colour[places[j]])
        between = share * floor[places[i]] + (1 - share) * floor[places[j]]
        least = np.minimum(least, gaussian_rate(energy, between))
    return least


def mixed_energy(blocks: Blocks, one: np.ndarray, two: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How far blocks are from holding two known colours side by side, as the edge of a wall or a letterbox does.

    A share a of colour `one` beside 1 - a of `two` has mean two + a * d and variance q = a * (1 - a) * d^2, d being
    their difference. `a` is what fits the block's mean best; what is left is the mean's distance and the variance
    beyond q, or below q / 2 (a soft edge has less than q, but one flat colour in between is a thing of its own).

    Returns:
        (share, energy), float32 [F, R', C', 1] in [0, 1] and [F, R', C', 3].
    """
    difference, off = one - two, blocks.mean - two
    length = (difference * difference).sum(axis=-1, keepdims=True)
    share = np.clip((off * difference).sum(axis=-1, keepdims=True) / (length + 1e-6), 0, 1)
    off = off - share * difference
    expected = share * (1 - share) * difference * difference
    variance = blocks.variance
    return share, np.maximum(np.maximum(variance - expected, expected / 2 - variance), 0) + off * off


def residual_energy(now: np.ndarray, predicted: np.ndarray, side: int) -> np.ndarray:
    """Mean squared error of each block and channel after the frame's median change is taken off.

    Args:
        now, predicted: float32 [H, W, 3].

    Returns:
        float32 [R', C', 3].
    """
    residual = cv2.subtract(now, predicted)
    mean, square = block_mean(residual, side), block_mean(cv2.multiply(residual, residual), side)
    offset = np.clip(quantile(mean[None], 0.5)[0], -_FLICKER, _FLICKER)
    return np.maximum(square + offset * (offset - 2 * mean), 0)


def inter_bits(blocks: Blocks, energy: np.ndarray) -> np.ndarray:
    """Bits a pixel of each block, given the residual energy of a predictor.

    The noise is what the better quarter of the blocks cannot predict, but never more than a quarter of the blocks
    already hold by themselves (twice, for two noisy frames are subtracted): after a cut all residuals are large, and
    that is no noise. The registration error is the typical residual per gradient energy over the steeper half.

    Args:
        blocks: the F frames that are predicted.
        energy: float32 [F, R', C', 3].

    Returns:
        float32 [F, R', C'].
    """
    noise = np.minimum(quantile(energy, 0.25), 2 * quantile(blocks.variance, 0.25))
    steep = blocks.slope >= quantile(blocks.slope, 0.5)
    excess = np.where(steep, np.maximum(energy - noise, 0) / (blocks.slope + 1), np.inf)
    shift = quantile(excess, 0.25)  # the rest is infinite: a quarter of all is the median of the steeper half
    floor = noise + np.minimum(shift, _REGISTRATION) * blocks.slope + _D0
    return gaussian_rate(energy, floor)


def camera_moved(still: np.ndarray, moved: np.ndarray) -> bool:
    """Is the global motion the camera's? Residual energies [R', C', 3] without and along it decide.

    A third of all blocks must be predicted at least twice as well. One object that moves over a plain ground also
    gives a perfect "global" motion; to follow it would hide the only thing that happens.
    """
    still, moved = still.sum(axis=-1), moved.sum(axis=-1)
    better = ((still > 2 * _D0) & (moved < still / 2)).mean()
    worse = ((moved > 2 * _D0) & (still < moved / 2)).mean()
    return bool(better >= _CAMERA and worse < better / 2)


def patch_bits(pixels: np.ndarray, patch_size: int) -> np.ndarray:
    """Bits of every patch, given its own frame and the frame before.

    Args:
        pixels: uint8 [F, H, W, 3], RGB.

    Returns:
        float32 [F, R, C], >= 0. Padding has no bits.
    """
    side, per = block_side(patch_size), patch_size // block_side(patch_size)
    colours = [cv2.cvtColor(frame, cv2.COLOR_RGB2YCrCb) for frame in pad(pixels, patch_size)]
    planes = [colour.astype(np.float32) for colour in colours]
    blocks = measure(planes, side)
    bits = intra_bits(blocks)
    if len(planes) > 1:
        bits[1:] = np.minimum(bits[1:], _predicted_bits(colours, planes, blocks, side))
    count, rows, columns = bits.shape
    real = real_pixels(pixels.shape[1], pixels.shape[2], side)
    weight = np.zeros((rows, columns), np.float32)
    weight[: real.shape[0], : real.shape[1]] = real
    return (bits * weight).reshape(count, rows // per, per, columns // per, per).sum(axis=(2, 4))


def _predicted_bits(colours: list[np.ndarray], planes: list[np.ndarray], blocks: Blocks, side: int) -> np.ndarray:
    """The least bits a pixel over the predictors that look back: float32 [F - 1, R', C']."""
    later = Blocks(mean=blocks.mean[1:], square=blocks.square[1:], slope=blocks.slope[1:])
    still = np.stack([residual_energy(now, before, side) for before, now in pairwise(planes)])
    bits = inter_bits(later, still)
    # where most is predicted without motion there is nothing for a camera motion to mend
    restless = (still.sum(axis=-1) > 2 * _D0).mean(axis=(1, 2)) >= _CAMERA
    for t in np.flatnonzero(restless):
        motion = global_motion(colours[t][..., 0], colours[t + 1][..., 0])
        if motion is None:
            continue
        moved = residual_energy(planes[t + 1], warp(colours[t], motion).astype(np.float32), side)
        if camera_moved(still[t], moved):
            here = np.s_[t : t + 1]
            frame = Blocks(mean=later.mean[here], square=later.square[here], slope=later.slope[here])
            bits[t] = np.minimum(bits[t], inter_bits(frame, moved[None])[0])
    return bits
