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

from dataclasses import dataclass

import cv2
import numpy as np

from entropy_vision.grid import block_side, pad, real_pixels
from entropy_vision.motion import global_motion, warp

_D0 = 9.0  # grey levels squared: an error of 3 of 255 is not worth a bit
_TEXTURE = 2.0  # energies of up to twice what prevails around are texture
_CELLS = 14  # the prevailing colour is looked for on a grid of at most about this many cells a side
_SIDES = ((0, 1), (1, 0), (0, 0), (0, 2))  # above, left and the two corners; the other is opposite
_FLICKER = 24.0  # grey levels; a larger common change is another picture, not another exposure
_REGISTRATION = 0.05  # pixels squared: an error of more than 0.2 pixels is motion, not registration
_CAMERA = 1 / 3  # of all blocks must be predicted better along the global motion


@dataclass(frozen=True, eq=False)
class Blocks:
    """What the rate needs to know about F frames; all float32 [3, F, R', C'], channels first, over blocks.

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

    def at(self, frames: slice) -> Blocks:
        """The same of some of the frames."""
        return Blocks(mean=self.mean[:, frames], square=self.square[:, frames], slope=self.slope[:, frames])


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


def quantile(blocks: np.ndarray, share: float) -> np.ndarray:
    """The value of that rank in each channel and frame: [3, F, R', C'] -> [3, F, 1, 1]."""
    flat = blocks.reshape(*blocks.shape[:2], -1)
    rank = int(share * (flat.shape[-1] - 1))
    return np.partition(flat, rank, axis=-1)[..., rank, None, None]


def prevailing(blocks: np.ndarray) -> np.ndarray:
    """Median over the surroundings, about a third of the frame's side wide: [3, F, R', C'] -> the same."""
    height, width = blocks.shape[2:]
    pool = max(1, round(max(height, width) / _CELLS))
    size = max(1, round(width / pool)), max(1, round(height / pool))
    out = np.empty(blocks.shape, np.float32)
    for field, median in zip(blocks.reshape(-1, height, width), out.reshape(-1, height, width), strict=True):
        if pool == 1:
            median[...] = cv2.medianBlur(field, 5)
        else:
            coarse = cv2.medianBlur(cv2.resize(field, size, interpolation=cv2.INTER_AREA), 5)
            median[...] = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR)
    return out


def intra_bits(blocks: Blocks) -> np.ndarray:
    """Bits a pixel of each block against its own frame: float32 [F, R', C']."""
    height, width = blocks.mean.shape[2:]
    colour = prevailing(blocks.mean)
    energy = blocks.energy(colour)
    floor = _TEXTURE * np.maximum(prevailing(energy), quantile(energy, 0.5)) + _D0
    down, along = max(1, round(height / 4)), max(1, round(width / 4))
    margin = ((0, 0), (0, 0), (down, down), (along, along))
    wide_colour, wide_floor = np.pad(colour, margin, mode="edge"), np.pad(floor, margin, mode="edge")
    least = np.full(blocks.mean.shape[1:], np.inf, np.float32)
    for y, x in ((down, along), (0, along), (2 * down, along), (down, 0), (down, 2 * along)):
        there = np.s_[:, :, y : y + height, x : x + width]
        np.minimum(least, _odds(blocks.energy(wide_colour[there]), wide_floor[there]), out=least)
    # an edge: two neighbours side by side, which have to be paid for as well, so only cheap ones explain anything
    bits: np.ndarray = 0.25 * np.log2(least)
    near = ((0, 0), (1, 1), (1, 1))
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
        float32 [3, F, R', C'].
    """
    difference, off = one - two, blocks.mean - two
    length = (difference * difference).sum(axis=0)
    share = np.clip((off * difference).sum(axis=0) / (length + 1e-6), 0, 1)
    off -= share * difference
    expected = share * (1 - share) * difference * difference
    variance = blocks.variance
    return np.maximum(np.maximum(variance - expected, expected / 2 - variance), 0) + off * off


def inter_bits(blocks: Blocks, energy: np.ndarray) -> np.ndarray:
    """Bits a pixel of each block, given the residual energy of a predictor.

    The noise is what the better quarter of the blocks cannot predict, but never more than a quarter of the blocks
    already hold by themselves (twice, for two noisy frames are subtracted): after a cut all residuals are large, and
    that is no noise. The registration error is the typical residual per gradient energy over the steeper half.

    Args:
        blocks: the F frames that are predicted.
        energy: float32 [3, F, R', C'].

    Returns:
        float32 [F, R', C'].
    """
    noise = np.minimum(quantile(energy, 0.25), 2 * quantile(blocks.variance, 0.25))
    steep = blocks.slope >= quantile(blocks.slope, 0.5)
    excess = np.where(steep, np.maximum(energy - noise, 0) / (blocks.slope + 1), np.inf)
    shift = quantile(excess, 0.25)  # the rest is infinite: a quarter of all is the median of the steeper half
    floor = noise + np.minimum(shift, _REGISTRATION) * blocks.slope + _D0
    return gaussian_rate(energy, floor)


class _Meter:
    """Reads block statistics off frames of one size; its buffers are reused, for fresh ones cost more than the sums."""

    def __init__(self, height: int, width: int, side: int) -> None:
        self.cells = width // side, height // side
        self.one, self.two = np.empty((2, height, width, 3), np.float32)

    def means(self, planes: np.ndarray) -> np.ndarray:
        """Mean of each block: float32 [H, W, 3] -> [3, R', C']."""
        return (
            cv2.resize(planes, self.cells, interpolation=cv2.INTER_AREA)
            .reshape(*self.cells[::-1], 3)
            .transpose(2, 0, 1)
        )

    def square(self, planes: np.ndarray) -> np.ndarray:
        """Mean square of each block."""
        return self.means(cv2.multiply(planes, planes, dst=self.one))

    def slope(self, planes: np.ndarray) -> np.ndarray:
        """Mean squared gradient of each block."""
        dx = cv2.Sobel(planes, -1, 1, 0, dst=self.one, ksize=1)
        cv2.multiply(dx, dx, dst=dx)
        dy = cv2.Sobel(planes, -1, 0, 1, dst=self.two, ksize=1)
        cv2.multiply(dy, dy, dst=dy)
        return self.means(cv2.add(dx, dy, dst=dx)) / 4  # central differences span two pixels

    def residual(self, now: np.ndarray, predicted: np.ndarray) -> np.ndarray:
        """Mean squared error of each block after the frame's median change is taken off."""
        error = cv2.subtract(now, predicted, dst=self.two)
        mean, square = self.means(error), self.square(error)
        offset = np.clip(quantile(mean[:, None], 0.5)[:, 0], -_FLICKER, _FLICKER)
        return np.maximum(square + offset * (offset - 2 * mean), 0)


def camera_moved(still: np.ndarray, moved: np.ndarray) -> bool:
    """Is the global motion the camera's? Residual energies [3, R', C'] without and along it decide.

    A third of all blocks must be predicted at least twice as well. One object that moves over a plain ground also
    gives a perfect "global" motion; to follow it would hide the only thing that happens.
    """
    still, moved = still.sum(axis=0), moved.sum(axis=0)
    better = ((still > 2 * _D0) & (moved < still / 2)).mean()
    worse = ((moved > 2 * _D0) & (still < moved / 2)).mean()
    return bool(better >= _CAMERA and worse < better / 2)


def _along_the_camera(
    meter: _Meter, before: np.ndarray, colours: np.ndarray, now: np.ndarray, still: np.ndarray
) -> np.ndarray | None:
    """Residual energy along the global motion, [3, R', C']; None where the camera stands or nothing is shared.

    Args:
        before, colours: uint8 [H, W, 3], the two frames as YCrCb.
        now: the later one as float32.
        still: residual energy without motion.
    """
    if (still.sum(axis=0) > 2 * _D0).mean() < _CAMERA:
        return None  # most is predicted already: nothing for a motion to mend
    motion = global_motion(before[..., 0], colours[..., 0])
    if motion is None:
        return None
    moved = meter.residual(now, warp(before, motion).astype(np.float32))
    return moved if camera_moved(still, moved) else None


def patch_bits(pixels: np.ndarray, patch_size: int) -> np.ndarray:
    """Bits of every patch, given its own frame and the frame before.

    Args:
        pixels: uint8 [F, H, W, 3], RGB.

    Returns:
        float32 [F, R, C], >= 0. Padding has no bits.
    """
    side, per = block_side(patch_size), patch_size // block_side(patch_size)
    padded = pad(pixels, patch_size)
    count, height, width, _ = padded.shape
    rows, columns = height // side, width // side
    meter = _Meter(height, width, side)
    mean, square, slope, still = np.empty((4, 3, count, rows, columns), np.float32)
    moved: dict[int, np.ndarray] = {}
    colours, planes = np.empty((2, height, width, 3), np.uint8), np.empty((2, height, width, 3), np.float32)
    for t, frame in enumerate(padded):
        here, last = t % 2, 1 - t % 2
        cv2.cvtColor(frame, cv2.COLOR_RGB2YCrCb, dst=colours[here])
        planes[here] = colours[here]
        mean[:, t], square[:, t] = meter.means(planes[here]), meter.square(planes[here])
        if count > 1:
            slope[:, t] = meter.slope(planes[here])
        if t:
            still[:, t] = meter.residual(planes[here], planes[last])
            along = _along_the_camera(meter, colours[last], colours[here], planes[here], still[:, t])
            if along is not None:
                moved[t] = along
    blocks = Blocks(mean=mean, square=square, slope=slope)
    bits = intra_bits(blocks)
    if count > 1:
        bits[1:] = np.minimum(bits[1:], inter_bits(blocks.at(np.s_[1:]), still[:, 1:]))
    for t, energy in moved.items():
        bits[t] = np.minimum(bits[t], inter_bits(blocks.at(np.s_[t : t + 1]), energy[:, None])[0])
    weight = np.zeros((rows, columns), np.float32)
    real = real_pixels(pixels.shape[1], pixels.shape[2], side)
    weight[: real.shape[0], : real.shape[1]] = real
    return (bits * weight).reshape(count, rows // per, per, columns // per, per).sum(axis=(2, 4))
