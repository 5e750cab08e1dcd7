"""Elastic discs of one size and mass on a torus: their contacts in closed form, no steps in time.

Between contacts every disc moves straight and evenly, so the distance of two of them is the root of a quadratic of
time; the earliest root of all pairs is the next contact, at which the parts of the two velocities along the line of
centres change hands. A time unit is one frame step, a length unit one side of the frame.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

_IMAGES = np.array([(x, y) for x in (-1, 0, 1) for y in (-1, 0, 1)], float)
_MOST_CONTACTS = 16


@dataclass(frozen=True, eq=False)
class Run:
    """What happened.

    Attributes:
        tracks: float64 [n, F, 2] modulo 1.
        contacts: (time, i, j) of every collision.
        closest: float64 [n, n], the least distance between the centres of every two.
    """

    tracks: np.ndarray
    contacts: tuple[tuple[float, int, int], ...]
    closest: np.ndarray


@lru_cache
def _pairs(n: int) -> tuple[np.ndarray, np.ndarray]:
    first, second = np.triu_indices(n, 1)
    return first, second


def run(places: np.ndarray, velocities: np.ndarray, diameter: float, frame_count: int) -> Run | None:
    """Follow discs [n, 2] for F - 1 frame steps; None where two overlap at the start, or collide without end."""
    place, velocity = places.astype(float), velocities.astype(float)
    i, j = _pairs(len(place))
    tracks = np.empty((len(place), frame_count, 2))
    closest = np.full((len(place), len(place)), np.inf)
    contacts: list[tuple[float, int, int]] = []
    now, end, frame = 0.0, float(frame_count - 1), 0
    while True:
        away = place[i] - place[j]
        away = (away - np.rint(away))[:, None] + _IMAGES
        course = (velocity[i] - velocity[j])[:, None]
        a = np.maximum((course**2).sum(axis=2), 1e-18)
        b = (away * course).sum(axis=2)
        c = (away**2).sum(axis=2)
        if not contacts and c.min() < diameter**2:
            return None
        inside = b * b - a * (c - diameter**2)
        times = np.where((b < 0) & (inside > 0), (-b - np.sqrt(np.maximum(inside, 0))) / a, np.inf)
        soonest = int(times.argmin())
        left = min(float(times.flat[soonest]), end - now)
        nearest = np.clip(-b / a, 0, left)
        least = np.sqrt((c + (2 * b + a * nearest) * nearest).min(axis=1))
        closest[i, j] = np.minimum(closest[i, j], least)
        while frame < frame_count and frame <= now + left + 1e-9:
            tracks[:, frame] = (place + velocity * (frame - now)) % 1.0
            frame += 1
        if now + left >= end:
            return Run(tracks, tuple(contacts), np.minimum(closest, closest.T))
        if len(contacts) == _MOST_CONTACTS:
            return None
        pair, image = divmod(soonest, len(_IMAGES))
        now += left
        place = place + velocity * left
        one, other = int(i[pair]), int(j[pair])
        normal = away[pair, image] + course[pair, 0] * left
        normal /= np.hypot(*normal)
        exchanged = (velocity[one] - velocity[other]) @ normal * normal
        velocity[one] -= exchanged
        velocity[other] += exchanged
        contacts.append((now, one, other))
