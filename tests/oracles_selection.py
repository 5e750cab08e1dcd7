"""Slow, obvious forms of scoring and choosing: loops over patches, blocks and pixels."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterable

import cv2
import numpy as np


def patches(pixels: np.ndarray, side: int) -> dict[tuple[int, int, int], np.ndarray]:
    """Every patch by (frame, row, column); a pixel outside the frame is the nearest inside."""
    count, height, width, _ = pixels.shape
    found = {}
    for frame in range(count):
        for row in range(math.ceil(height / side)):
            for column in range(math.ceil(width / side)):
                patch = np.zeros((side, side, 3), pixels.dtype)
                for y in range(side):
                    for x in range(side):
                        patch[y, x] = pixels[frame, min(row * side + y, height - 1), min(column * side + x, width - 1)]
                found[frame, row, column] = patch
    return found


def entropy(values: list[int]) -> float:
    """Shannon entropy of a list, bits a value."""
    return -sum(n / len(values) * math.log2(n / len(values)) for n in Counter(values).values())


def histogram_entropy(plane: np.ndarray, side: int) -> np.ndarray:
    """Entropy of the real pixels of each patch."""
    rows, columns = math.ceil(plane.shape[0] / side), math.ceil(plane.shape[1] / side)
    cells = [
        [entropy(plane[r * side : (r + 1) * side, c * side : (c + 1) * side].ravel().tolist()) for c in range(columns)]
        for r in range(rows)
    ]
    return np.array(cells)


def exact(bits: np.ndarray, count: int, first: np.ndarray) -> set[tuple[int, ...]]:
    """The chosen positions: best of every frame where count allows, then `first`, then by bits; ties by position."""
    positions = list(np.ndindex(bits.shape))
    falling = sorted(positions, key=lambda p: (-bits[p], p))
    queue = []
    if count >= bits.shape[0]:
        queue += [next(p for p in falling if p[0] == frame) for frame in range(bits.shape[0])]
    queue += [p for p in falling if first[p]]
    queue += falling
    return set(list(dict.fromkeys(queue))[:count])


def rate(x: float) -> float:
    """r(x) = 1/4 log2(1 + x^2)."""
    return 0.25 * math.log2(1 + x * x)


def ranked(values: list[float], share: float) -> float:
    return sorted(values)[int(share * (len(values) - 1))]


def _median_around(field: np.ndarray) -> np.ndarray:
    """Median of the 5 x 5 blocks around each, the border repeated."""
    rows, columns = field.shape
    out = np.zeros_like(field)
    for r in range(rows):
        for c in range(columns):
            near = [
                field[min(max(r + y, 0), rows - 1), min(max(c + x, 0), columns - 1)]
                for y in range(-2, 3)
                for x in range(-2, 3)
            ]
            out[r, c] = sorted(near)[12]
    return out


class Frame:
    """One frame cut into side x side blocks: pixel values of block (r, c) in channel k."""

    def __init__(self, rgb: np.ndarray, side: int) -> None:
        self.planes = cv2.cvtColor(rgb, cv2.COLOR_RGB2YCrCb).astype(np.float64)
        self.side, self.rows, self.columns = side, rgb.shape[0] // side, rgb.shape[1] // side

    def cells(self) -> list[tuple[int, int]]:
        return [(r, c) for r in range(self.rows) for c in range(self.columns)]

    def block(self, planes: np.ndarray, cell: tuple[int, int], k: int) -> np.ndarray:
        (r, c), s = cell, self.side
        return planes[r * s : (r + 1) * s, c * s : (c + 1) * s, k]

    def field(self, planes: np.ndarray, k: int, what: str) -> np.ndarray:
        out = np.zeros((self.rows, self.columns))
        for cell in self.cells():
            out[cell] = getattr(self.block(planes, cell, k), what)()
        return out


def _prevailing(field: np.ndarray) -> np.ndarray:
    """Median over 5 x 5 cells of a grid of at most about 14 a side: the blocks themselves, or means of them."""
    pool = max(1, round(max(field.shape) / 14))
    if pool == 1:
        return _median_around(field)
    size = tuple(max(1, round(length / pool)) for length in field.shape[::-1])
    coarse = _median_around(cv2.resize(field, size, interpolation=cv2.INTER_AREA))
    return cv2.resize(coarse, field.shape[::-1], interpolation=cv2.INTER_LINEAR)


def _ranked_of_some(field: np.ndarray) -> float:
    """About the median: of every so many blocks, some 160."""
    step = max(1, field.size // 160)
    while math.gcd(step, field.shape[1]) > 1:
        step += 1
    return ranked(field.ravel()[::step].tolist(), 0.5)


def context_bits(rgb: np.ndarray, side: int) -> np.ndarray:
    """Bits a pixel of every block of one frame against its surroundings."""
    frame = Frame(rgb, side)
    colour, floor = [], []
    for k in range(3):
        colour.append(_prevailing(frame.field(frame.planes, k, "mean")))
        energy = np.zeros((frame.rows, frame.columns))
        for cell in frame.cells():
            energy[cell] = ((frame.block(frame.planes, cell, k) - colour[k][cell]) ** 2).mean()
        usual = np.maximum(_prevailing(energy), _ranked_of_some(energy))
        floor.append(2 * usual + 9)
    down, along = max(1, round(frame.rows / 4)), max(1, round(frame.columns / 4))

    def beside(cell: tuple[int, int], y: int, x: int) -> tuple[int, int]:
        return min(max(cell[0] + y, 0), frame.rows - 1), min(max(cell[1] + x, 0), frame.columns - 1)

    alone = np.zeros((frame.rows, frame.columns))
    for cell in frame.cells():
        values = [frame.block(frame.planes, cell, k) for k in range(3)]
        alone[cell] = min(
            sum(rate(((values[k] - colour[k][p]) ** 2).mean() / floor[k][p]) for k in range(3))
            for p in (beside(cell, y, x) for y, x in ((0, 0), (-down, 0), (down, 0), (0, -along), (0, along)))
        )
    means = [frame.field(frame.planes, k, "mean") for k in range(3)]
    out = alone.copy()
    for cell in frame.cells():
        for y, x in ((-1, 0), (0, -1), (-1, -1), (-1, 1)):
            p, q = beside(cell, y, x), beside(cell, -y, -x)
            one, two, mean = (np.array([means[k][at] for k in range(3)]) for at in (p, q, cell))
            d = one - two
            a = min(max(float((mean - two) @ d) / (float(d @ d) + 1e-6), 0.0), 1.0)
            bits = alone[p] + alone[q]
            for k in range(3):
                spread = a * (1 - a) * d[k] ** 2
                variance = frame.block(frame.planes, cell, k).var()
                left_over = max(variance - spread, spread / 2 - variance, 0) + (mean[k] - two[k] - a * d[k]) ** 2
                bits += rate(left_over / floor[k][cell])
            out[cell] = min(out[cell], bits)
    return out


def rarity(frame: np.ndarray, side: int) -> np.ndarray:
    """Self-information of every patch among those of its picture (YCrCb): 6 features, kernels (1 - x / 256)^256."""
    rows, columns = frame.shape[0] // side, frame.shape[1] // side
    points = []
    for r in range(rows):
        for c in range(columns):
            patch = frame[r * side : (r + 1) * side, c * side : (c + 1) * side].astype(np.float64)
            luma = patch[..., 0]
            slope = ((luma[1:] - luma[:-1]) ** 2).sum() + ((luma[:, 1:] - luma[:, :-1]) ** 2).sum()
            levels = (luma // 16).astype(int).ravel().tolist()
            widest = (patch.max(axis=(0, 1)) - patch.min(axis=(0, 1))).max()
            points.append([*patch.mean(axis=(0, 1)), math.log1p(slope / side**2), entropy(levels), widest])
    values = np.array(points)
    values = values[:, values.std(axis=0) > 1e-4]
    values = (values - values.mean(axis=0)) / values.std(axis=0) if values.size else values
    step = math.ceil(len(points) / 128)
    centres = values[::step]
    width = 1.3 * len(centres) ** (-1 / 10)
    bits = []
    for i, point in enumerate(values):
        apart = [((point - centre) ** 2).sum() / (2 * width**2) for centre in centres]
        density = sum(max(0.0, 1 - x / 256) ** 256 for x in apart)
        own = 0 if i % step == 0 else 1
        bits.append(max(0.0, -math.log2((density + own) / (len(centres) + own))))
    return np.array(bits).reshape(rows, columns)


def picture_bits(rgb: np.ndarray, side: int, patch: int) -> np.ndarray:
    """Bits a pixel of every patch of a picture that nothing was seen before."""
    blocks, per = np.minimum(context_bits(rgb, side), 4), patch // side
    rare = rarity(cv2.cvtColor(rgb, cv2.COLOR_RGB2YCrCb), patch)
    total = np.zeros_like(rare)
    for r, c in np.ndindex(rare.shape):
        total[r, c] = rare[r, c] + blocks[r * per : (r + 1) * per, c * per : (c + 1) * per].mean()
    usual = float(np.median(total)) + 2
    return 0.75 * (np.log2(1 + 2 ** (total - usual)) - math.log2(1 + 2**-usual))


def _halved(plane: np.ndarray) -> np.ndarray:
    """Every second pixel of a plane seen through the kernel (1 4 6 4 1) / 16 both ways, the border mirrored."""
    kernel = [1, 4, 6, 4, 1]
    padded = np.pad(plane.astype(int), 2, mode="reflect")
    out = np.zeros((plane.shape[0] // 2, plane.shape[1] // 2), np.uint8)
    for y, x in np.ndindex(out.shape):
        total = sum(
            kernel[i] * kernel[j] * padded[2 * y + i, 2 * x + j] for i in range(5) for j in range(5)
        )  # fmt: skip
        out[y, x] = (total + 128) // 256
    return out


def _means(plane: np.ndarray) -> np.ndarray:
    """Rounded means of 2 x 2 pixels."""
    blocks = plane.astype(int).reshape(plane.shape[0] // 2, 2, plane.shape[1] // 2, 2)
    return ((blocks.sum(axis=(1, 3)) + 2) // 4).astype(np.uint8)


class Sampled:
    """A frame as later frames are judged: of a patch of 8 or 16 pixels 8 x 8 luma, 4 x 4 Cr and Cb, 2 x 2 blocks."""

    def __init__(self, rgb: np.ndarray, patch: int) -> None:
        luma, colour = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), [rgb[..., k] for k in range(3)]
        if patch == 16:
            luma, colour = _halved(luma), [_means(plane) for plane in colour]
        chroma = cv2.cvtColor(np.dstack([_halved(plane) for plane in colour]), cv2.COLOR_RGB2YCrCb)
        self.planes = [plane.astype(np.float64) for plane in (luma, chroma[..., 1], chroma[..., 2])]

    def blocks(self, k: int) -> np.ndarray:
        return in_blocks(self.planes[k], k)

    def slope(self, k: int) -> np.ndarray:
        """Mean squared gradient of each block, in samples of luma."""
        padded = np.pad(self.planes[k], 1, mode="reflect")
        dy, dx = (padded[2:, 1:-1] - padded[:-2, 1:-1]) / 2, (padded[1:-1, 2:] - padded[1:-1, :-2]) / 2
        return in_blocks(dy**2 + dx**2, k).mean(axis=(1, 3)) * (0.25 if k else 1)


def in_blocks(plane: np.ndarray, k: int) -> np.ndarray:
    """[R', side, C', side]: 4 x 4 samples of luma (k = 0), 2 x 2 of a colour."""
    side = 2 if k else 4
    return plane.reshape(plane.shape[0] // side, side, plane.shape[1] // side, side)


def residual(now: list[np.ndarray], past: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Residual energy [3, R', C'] after the median change [3] is taken off, and that change."""
    energies, light = [], np.zeros(3)
    for k in range(3):
        blocks = in_blocks(now[k] - past[k], k)
        light[k] = min(max(ranked(blocks.mean(axis=(1, 3)).ravel().tolist(), 0.5), -24), 24)
        energies.append(((blocks - light[k]) ** 2).mean(axis=(1, 3)))
    return np.array(energies), light


def error_floor(frame: Sampled, energy: np.ndarray) -> np.ndarray:
    """What of a residual energy is noise, registration or not worth a bit, [3, R', C']."""
    out = np.zeros_like(energy)
    for k in range(3):
        slope, variance = frame.slope(k), frame.blocks(k).var(axis=(1, 3))
        noise = min(ranked(energy[k].ravel().tolist(), 0.25), 2 * ranked(variance.ravel().tolist(), 0.25))
        middle = ranked(slope.ravel().tolist(), 0.5)
        excess = [
            max(e - noise, 0) / (s + 1) for e, s in zip(energy[k].ravel(), slope.ravel(), strict=True) if s >= middle
        ]
        out[k] = noise + min(ranked(excess, 0.5), 0.03) * slope + 2.5
    return out


def rates(energy: np.ndarray, floor: np.ndarray) -> np.ndarray:
    return np.array([sum(rate(e / f) for e, f in zip(*pair, strict=True)) for pair in zip(
        energy.reshape(3, -1).T, floor.reshape(3, -1).T, strict=True)]).reshape(energy.shape[1:])  # fmt: skip


def half_around(field: np.ndarray) -> np.ndarray:
    """Half a block's own value, half the mean of the 3 x 3 around it, the border mirrored."""
    padded = np.pad(field, 1, mode="reflect")
    return np.array([
        [field[r, c] / 2 + padded[r : r + 3, c : c + 3].mean() / 2 for c in range(field.shape[1])]
        for r in range(field.shape[0])
    ])  # fmt: skip


def still_camera_bits(pictures: list[np.ndarray], patch: int) -> list[np.ndarray]:
    """Bits of every patch after the first frame; no camera moves, nothing is cut, the light does not sink."""
    frames = [Sampled(picture, patch) for picture in pictures]
    ground, found = [plane.copy() for plane in frames[0].planes], []
    cells = list(np.ndindex(frames[0].slope(0).shape))
    waited = dict.fromkeys(cells, 0)
    anchor = np.array([frames[0].blocks(k).mean(axis=(1, 3)) for k in range(3)])
    for before, frame in itertools.pairwise(frames):
        energy, _ = residual(frame.planes, before.planes)
        recent = rates(energy, error_floor(frame, energy))
        energy, light = residual(frame.planes, ground)
        floor = error_floor(frame, energy)
        known = rates(energy, floor)
        near, far = half_around(recent), half_around(known)
        bits = np.where(far < near, far, near + 0.4 * (far - near))
        level = np.array([frame.blocks(k).mean(axis=(1, 3)) - light[k] for k in range(3)])
        for r, c in cells:
            p = r, c
            drift = level[:, r, c] - anchor[:, r, c]
            late = np.abs(drift).max() > 6 and known[p] <= 1
            if late:
                bits[p] = max(bits[p], sum(rate(drift[k] ** 2 / floor[k][p]) for k in range(3)))
            waited[p] = waited[p] + (recent[p] < 1) if known[p] > 1 else max(waited[p] - 1, 0)
            share = 1.0 if late or waited[p] >= 8 else 0.0 if known[p] > 1 else 0.3
            if share == 1:
                waited[p], anchor[:, r, c] = 0, level[:, r, c]
            for k in range(3):
                here = in_blocks(ground[k], k)[r, :, c]
                here += share * (frame.blocks(k)[r, :, c] - light[k] - here)
        rows, columns = bits.shape[0] // 2, bits.shape[1] // 2
        found.append(bits.reshape(rows, 2, columns, 2).mean(axis=(1, 3)) * patch * patch)
    return found


def look(rgb: np.ndarray, patch: int) -> dict[tuple[int, int], list[int]]:
    """Each patch of a frame coarsely: 4 x 4 of luma, 2 x 2 of Cr, 2 x 2 of Cb (patches of 8 or 16 pixels)."""
    planes = [rgb[..., k] for k in range(3)]
    for _ in range(patch.bit_length() - 3):
        planes = [_means(plane) for plane in planes]
    picture = cv2.cvtColor(np.dstack(planes), cv2.COLOR_RGB2YCrCb)
    found = {}
    for r, c in np.ndindex(picture.shape[0] // 4, picture.shape[1] // 4):
        cell = picture[4 * r : 4 * r + 4, 4 * c : 4 * c + 4]
        found[r, c] = [*cell[..., 0].ravel().tolist(), *_means(cell[..., 1]).ravel(), *_means(cell[..., 2]).ravel()]
    return found


def lost_bits(one: list[int], other: list[int]) -> float:
    """Bits by which two looks differ."""
    apart = [(int(a) - int(b)) ** 2 for a, b in zip(one, other, strict=True)]
    ratios = [sum(apart[low:high]) / (high - low) / 9 for low, high in ((0, 16), (16, 20), (20, 24))]
    return 0.0 if sum(ratios) < 0.33 else 64 * math.log2(math.prod(1 + x * x for x in ratios))


Look = dict[tuple[int, int], list[int]]


def apparent(now: Look, before: Look) -> tuple[list[float], float, float]:
    """Gradient energies; how much more steep patches change than flat ones, per gradient energy; what that leaves."""
    errors, slopes = [], []
    for p, values in now.items():
        cells = np.array(values[:16], float).reshape(4, 4)
        errors.append(float(((cells - np.array(before[p][:16], float).reshape(4, 4)) ** 2).mean()))
        slopes.append(float((np.diff(cells, axis=0) ** 2).sum() + (np.diff(cells, axis=1) ** 2).sum()) / 12)
    low, high = ranked(slopes, 0.25), ranked(slopes, 0.75)
    flat = [i for i, slope in enumerate(slopes) if slope <= low]
    steep = [i for i, slope in enumerate(slopes) if slope >= high]

    def middle(values: list[float], among: list[int]) -> float:
        return ranked([values[i] for i in among], 0.5)

    rise = middle(slopes, steep) - middle(slopes, flat) + 1
    shift = (middle(errors, steep) - middle(errors, flat)) / rise
    most = middle(errors, steep) / (middle(slopes, steep) + 1)
    return slopes, shift, middle(errors, flat) - 2 * most * middle(slopes, flat)


def rests_and_fading(now: Look, before: Look | None) -> tuple[dict[tuple[int, int], float], float]:
    """How surely each patch goes on to be what it is, and how much of the change is a dissolve."""
    if before is None:
        return dict.fromkeys(now, 1.0), 0.0
    slopes, shift, unexplained = apparent(now, before)
    rests = {}
    for (p, values), slope in zip(now.items(), slopes, strict=True):
        ahead = 64 * math.log2(1 + (64 * max(shift - 0.003, 0) * slope / 9) ** 2)
        rests[p] = math.exp(-max(lost_bits(values, before[p]), ahead) / 60)
    return rests, min(max((unexplained - 8) / 8, 0), 1)


def walk(bits: np.ndarray, looks: list[Look], least: float, whole: bool) -> tuple[np.ndarray, np.ndarray]:
    """Keep what is worth `least`, one frame after the other; no light changes. The mask, and what each was worth."""
    mask, worths, last, owed = np.zeros(bits.shape, bool), np.zeros(bits.shape), {}, dict.fromkeys(looks[0], 0.0)
    for t, seen in enumerate(looks):
        rests, fading = rests_and_fading(seen, looks[t - 1] if t else None)
        for p, values in seen.items():
            worth, loss = float(bits[t][p]), 0.0
            if p in last:
                apart = lost_bits(values, last[p])
                loss = apart * max(rests[p], 0.6 * fading)
                worth += 60 * (1 - math.exp(-apart / 400)) + 0.6 * loss + 0.05 * owed[p]
            owed[p] += loss
            worths[t][p] = worth
            if worth >= least or (whole and t == 0):
                mask[t][p] = True
                last[p], owed[p] = values, 0.0
    return mask, worths


def closed_loop(
    bits: np.ndarray, looks: list[Look], most: int, least: float, whole: bool
) -> tuple[np.ndarray, np.ndarray]:
    """The lowest threshold that bisection finds for at most `most` patches: what it keeps, and what each was worth."""
    mask, worth = walk(bits, looks, least, whole)
    if mask.sum() <= most:
        return mask, worth
    low = max(least, sorted(bits.ravel().tolist(), reverse=True)[most - 1])
    apart = 64 * 3 * math.log2((510**2 / 9) ** 2)
    high = float(bits.max()) + 60 + (0.6 + 0.05 * len(bits)) * apart
    for _ in range(9):
        middle = math.sqrt((low + 1) * (high + 1)) - 1
        if walk(bits, looks, middle, whole)[0].sum() > most:
            low = middle
        else:
            high = middle
    return walk(bits, looks, high, whole)


def scattered(rows: int, columns: int) -> list[tuple[int, int]]:
    """All places, in an order whose every beginning is spread evenly."""
    order: list[tuple[int, int]] = []
    for n in range(1, 16 * rows * columns + 1):
        place = int(n * 0.7548776662466927 % 1 * rows), int(n * 0.5698402909980532 % 1 * columns)
        if place not in order:
            order.append(place)
    return order + [place for place in np.ndindex(rows, columns) if place not in order]


def interpolated(plane: np.ndarray, motion: np.ndarray, places: Iterable[tuple[int, int]] | None = None) -> np.ndarray:
    """[H, W] along a motion, sample by sample: Keys' kernel of -0.75 over the 4 x 4 around, the border repeated; all
    samples or those at some places."""

    def kernel(x: float) -> float:
        a, x = -0.75, abs(x)
        if x <= 1:
            return (a + 2) * x**3 - (a + 3) * x**2 + 1
        return a * (x**3 - 5 * x**2 + 8 * x - 4) if x < 2 else 0.0

    height, width = plane.shape
    out = np.empty(plane.shape)
    for y, x in np.ndindex(height, width) if places is None else places:
        at_x, at_y = motion @ [x, y, 1]
        at_x, at_y = min(max(at_x, -2), width + 1), min(max(at_y, -2), height + 1)  # beyond, all is the border
        columns = [(min(max(u, 0), width - 1), kernel(at_x - u)) for u in range(int(at_x // 1) - 1, int(at_x // 1) + 3)]
        total = 0.0
        for v in range(int(at_y // 1) - 1, int(at_y // 1) + 3):
            row = plane[min(max(v, 0), height - 1)]
            total += kernel(at_y - v) * sum(share * float(row[u]) for u, share in columns)
        out[y, x] = total
    return out
