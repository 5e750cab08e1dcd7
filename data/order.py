"""The order of samples in an epoch, and how it is dealt: pure functions of numbers, no files, no torch.

An epoch is one global sequence of positions 0 ... n-1. A table of cuts deals it: in step s, rank r takes the positions
from cuts[s, r] up to cuts[s, r + 1]. A row ends where the next one begins, so nothing is lost or doubled, and the ranks
of a step, one behind the other, are the global sequence again. Of a rank's steps, worker w of n takes every n-th.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b

import numpy as np


def shuffled(keys: Iterable[str], seed: int, epoch: int) -> np.ndarray:
    """A permutation of samples: they are sorted by a hash of (seed, epoch, key).

    It depends on nothing else: not on the shards they lie in, nor on a random generator that may change its stream.

    Returns:
        int64 [n]: which sample stands at each position.
    """
    hashes = [blake2b(f"{seed} {epoch} {key}".encode(), digest_size=8).digest() for key in keys]
    return np.frombuffer(b"".join(hashes), ">u8").argsort(kind="stable")


def cut_batches(start: int, count: int, batch: int, world: int) -> np.ndarray:
    """Steps of `batch` positions each, the last one shorter; every step is cut into `world` runs, equal to within one.

    Args:
        start: the first position that is left; `count`: behind the last one.

    Returns:
        int64 [S, world + 1]
    """
    first = np.arange(start, count, batch)[:, None]
    return first + np.minimum(batch, count - first) * np.arange(world + 1) // world


def cut_bins(edges: np.ndarray, world: int) -> np.ndarray:
    """Steps of `world` bins, one for every rank; in the last step the last ranks may have none.

    Args:
        edges: int64 [M + 1]: bin m holds the positions from edges[m] up to edges[m + 1].

    Returns:
        int64 [S, world + 1]
    """
    bins = len(edges) - 1
    first = np.arange(0, bins, world)[:, None]
    return edges[np.minimum(first + np.arange(world + 1), bins)]
