"""Batches of nearly equal cost: samples of different length put in bins of at most so many visual tokens."""

from __future__ import annotations

from heapq import heapreplace

import numpy as np

# Bins filled together. More fill better and keep more ranks level, fewer disturb the order of the samples less.
WINDOW = 16


def fill_bins(tokens: np.ndarray, budget: int) -> tuple[np.ndarray, np.ndarray]:
    """Put a sequence of samples in bins, a window after the other; every sample in exactly one bin.

    A window is the longest run of samples found to fit `WINDOW` bins. Its samples, the longest first, each go to the
    bin that holds least so far (Graham 1969: "longest processing time"), which makes bins of a window nearly equal.
    A sample above the budget is a bin of its own. The last window takes as few bins as do.

    Args:
        tokens: int64 [n], at least 1: the visual tokens of each sample, in the order of the sequence.
        budget: the most that a bin may hold.

    Returns:
        places: int64 [n]: the places in the sequence, bin after bin, ascending in each.
        edges: int64 [M + 1]: bin m holds places[edges[m] : edges[m + 1]].
    """
    sizes: list[int] = tokens.tolist()
    bins: list[list[int]] = []
    start = 0
    while start < len(sizes):
        end, window = _window(sizes, start, budget)
        bins += sorted(sorted(places) for places in window)
        start = end
    edges = np.cumsum([0, *map(len, bins)])
    return np.array([place for places in bins for place in places], np.int64), edges


def _window(sizes: list[int], start: int, budget: int) -> tuple[int, list[list[int]]]:
    """(end, bins) of the window that begins at `start`."""
    end, total = start, 0
    while end < len(sizes) and (sizes[end] > budget or total + sizes[end] <= WINDOW * budget):
        total += sizes[end] if sizes[end] <= budget else 0
        end += 1
    while True:
        fitting = sorted((n for n in range(start, end) if sizes[n] <= budget), key=lambda n: -sizes[n])
        fewest = -(-total // budget) if end == len(sizes) else WINDOW
        for count in range(fewest, WINDOW + 1):
            bins = _spread(fitting, sizes, budget, count)
            if bins is not None:
                return end, bins + [[n] for n in range(start, end) if sizes[n] > budget]
        end -= 1  # comes to an end: so many samples as there are bins always fit


def _spread(places: list[int], sizes: list[int], budget: int, count: int) -> list[list[int]] | None:
    """Each place, in turn, to the emptiest of `count` bins; None where one does not fit there, hence nowhere."""
    bins: list[list[int]] = [[] for _ in range(count)]
    held = [(0, number) for number in range(count)]
    for place in places:
        load, number = held[0]
        if load + sizes[place] > budget:
            return None
        heapreplace(held, (load + sizes[place], number))
        bins[number].append(place)
    return [places for places in bins if places]
