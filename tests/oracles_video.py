"""Bits and choice of a whole video in slow, obvious form: loops, double precision. The camera's motion is given."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import oracles_selection as still

Motion = np.ndarray | None
Moved = Callable[[list[np.ndarray], np.ndarray, bool], list[np.ndarray]]

_D0, _FLICKER, _DUSK, _DRIFT = 2.5, 24.0, 12.0, 6.0


def _of_cells(motion: np.ndarray, side: float) -> np.ndarray:
    """A motion of samples as one of cells `side` samples wide."""
    grow, off = np.diag([side, side, 1.0]), np.array([[1, 0, (side - 1) / 2], [0, 1, (side - 1) / 2], [0, 0, 1]])
    to_samples = off @ grow
    return (np.linalg.inv(to_samples) @ np.vstack([motion, [0, 0, 1]]) @ to_samples)[:2]


def moved(planes: list[np.ndarray], motion: np.ndarray, whole: bool) -> list[np.ndarray]:
    """Luma, Cr, Cb along a motion of luma's samples; `whole` values where they are a picture's."""
    chroma = _of_cells(motion, 2)
    seen = [still.interpolated(plane, m) for plane, m in zip(planes, (motion, chroma, chroma), strict=True)]
    return [np.floor(np.clip(plane, 0, 255) + 0.5).clip(0, 255) for plane in seen] if whole else seen


def _in_view(motion: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Blocks of 4 x 4 samples all corners of which lay inside the frame before."""

    def inside(y: float, x: float) -> bool:
        at_x, at_y = motion @ [x, y, 1]
        return bool(-0.75 <= at_x <= 4 * columns - 0.25 and -0.75 <= at_y <= 4 * rows - 0.25)

    corners = [(0, 0), (0, 4), (4, 0), (4, 4)]
    out = np.zeros((rows, columns), bool)
    for r, c in np.ndindex(rows, columns):
        out[r, c] = all(inside(4 * r + dy - 0.5, 4 * c + dx - 0.5) for dy, dx in corners)
    return out


def _residual(now: list[np.ndarray], past: list[np.ndarray], around: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """As `still.residual`, the common change within a flicker of the one known last."""
    shifted = [plane + level for plane, level in zip(past, around, strict=True)]
    energy, light = still.residual(now, shifted)
    return energy, light + around


def _is_cut(energy: np.ndarray, frame: still.Sampled) -> bool:
    own = sum(frame.blocks(k).var(axis=(1, 3)) for k in range(3))
    return bool((energy.sum(axis=0) > 2 * own + 2 * _D0).sum() > own.size / 2)


class Slow:
    """Bits of one frame after the other, as the docstrings of `rate.py` and `inter.py` have it."""

    def __init__(self, patch: int, moved: Moved = moved) -> None:
        """
        Args:
            moved: what takes planes along a motion, instead of the slow form.
        """
        self.patch, self.held, self.aside, self.moved = patch, {}, None, moved

    def _anew(self, frame: still.Sampled) -> None:
        self.held = {
            "before": frame,
            "ground": [plane.copy() for plane in frame.planes],
            "anchor": np.array([frame.blocks(k).mean(axis=(1, 3)) for k in range(3)]),
            "waited": np.zeros(frame.slope(0).shape),
            "lights": [None] * 5 + [np.zeros(3)],
            "shown": np.zeros(3),
        }

    def _past(self, frame: still.Sampled, before: still.Sampled, motion: Motion) -> np.ndarray:
        planes = before.planes if motion is None else self.moved(before.planes, motion, True)
        return still.residual(frame.planes, planes)[0]

    def __call__(self, rgb: np.ndarray, motion: Motion) -> np.ndarray:
        """float [R, C]; the camera's motion since the frame before, None where it stands."""
        frame = still.Sampled(rgb, self.patch)
        side = 8 if self.patch % 8 == 0 else self.patch
        if not self.held:
            self._anew(frame)
            return self.patch**2 * still.picture_bits(rgb, side, self.patch)
        energy = self._past(frame, self.held["before"], motion)
        if _is_cut(energy, frame):
            back = None if self.aside is None else self._past(frame, self.aside["before"], motion)
            if back is None or _is_cut(back, frame):
                self.aside = copy.deepcopy(self.held)
                self._anew(frame)
                return self.patch**2 * still.picture_bits(rgb, side, self.patch)
            energy, self.held = back, self.aside
        self.aside = None
        return self._news(frame, energy, motion)

    def _news(self, frame: still.Sampled, energy: np.ndarray, motion: Motion) -> np.ndarray:
        held, (rows, columns) = self.held, frame.slope(0).shape
        seen = np.ones((rows, columns), bool)
        if motion is not None:
            held["ground"] = self.moved(held["ground"], motion, False)
            seen = _in_view(motion, rows, columns)
            coarse, waited = _of_cells(motion, 4), held["waited"].copy()
            for r, c in np.ndindex(rows, columns):
                x, y = np.rint(coarse @ [c, r, 1]).astype(int)
                held["waited"][r, c] = waited[min(max(y, 0), rows - 1), min(max(x, 0), columns - 1)]
        variance = np.array([frame.blocks(k).var(axis=(1, 3)) for k in range(3)])
        mean = np.array([frame.blocks(k).mean(axis=(1, 3)) for k in range(3)])
        recent = still.rates(energy, still.error_floor(frame, energy))
        energy, light = _residual(frame.planes, held["ground"], held["lights"][-1])
        floor = still.error_floor(frame, energy)
        known = still.rates(energy, floor)
        near, far = (still.half_around(np.where(seen, one, 0.0)) for one in (recent, known))
        bits = np.where(far < near, far, near + 0.4 * (far - near))
        if motion is not None:
            usual = [2 * still.ranked(v.ravel().tolist(), 0.6) + _D0 for v in variance]
            holds = sum(np.vectorize(still.rate)(v / u) for v, u in zip(variance, usual, strict=True))
            bits = np.where(seen, bits, np.minimum(bits, holds))
            held["anchor"] = mean - light[:, None, None]
        dusk = self._dusk(light)
        for r, c in np.ndindex(rows, columns):
            strange, drift = known[r, c] > 1, mean[:, r, c] - light - held["anchor"][:, r, c]
            late = not strange and bool(np.abs(drift).max() > _DRIFT)
            for change in [drift] * late + [dusk] * bool(dusk.any()):
                bits[r, c] = max(bits[r, c], sum(still.rate(change[k] ** 2 / floor[k, r, c]) for k in range(3)))
            waits = held["waited"][r, c]
            waits = waits + (recent[r, c] < 1) if strange else max(waits - 1, 0)
            share = 0.0 if strange else 0.3
            if late or not seen[r, c] or waits >= (8 if motion is None else 6):
                share, waits, held["anchor"][:, r, c] = 1.0, 0, mean[:, r, c] - light
            held["waited"][r, c] = waits
            for k in range(3):
                here = still.in_blocks(held["ground"][k], k)[r, :, c]
                here += share * (frame.blocks(k)[r, :, c] - light[k] - here)
        held["before"] = frame
        return bits.reshape(rows // 2, 2, columns // 2, 2).mean(axis=(1, 3)) * self.patch**2

    def _dusk(self, light: np.ndarray) -> np.ndarray:
        """The common change where six frames long it has had one sign and grown large, beyond what was shown of it."""
        held = self.held
        held["lights"] = [*held["lights"][1:], light]
        steps = [one - held["shown"] for one in held["lights"] if one is not None]
        least = np.zeros(3)
        if len(steps) == 6:
            least = np.maximum(np.min(steps, axis=0), 0) + np.minimum(np.max(steps, axis=0), 0)
        least *= np.abs(least).max() >= _DUSK
        held["shown"] = held["shown"] + least
        return least


def chosen(bits: np.ndarray, pixels: np.ndarray, count: int, patch: int) -> set[tuple[int, ...]]:
    """What `rate` keeps of a video of even light for a budget of patches.

    Raises:
        ValueError: so little says anything that the rest of the budget is spread evenly.
    """
    _, rows, columns = bits.shape
    whole = rows * columns <= 0.35 * count
    spare, scale = 0 if whole else int(0.12 * count), 256 / patch**2
    looks = [still.look(frame, patch) for frame in pixels]
    mask, worth = still.closed_loop(bits * scale, looks, count - spare, scale, whole)
    if worth[~mask].max() < scale:
        raise ValueError("hardly anything says something")
    never = [place for place in still.scattered(rows, columns) if not mask[:, place[0], place[1]].any()][:spare]
    first = mask.copy()
    for place in never:
        first[0][place] = True
        worth[0][place] = np.inf
    if whole:
        worth[0] = np.inf
    return still.exact(worth, count, first)
