"""The order of samples and its dealing in plain loops: slow, and easy to see to be right."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence


def sequence(keys: Sequence[str], seed: int, epoch: int) -> list[int]:
    def rank(number: int) -> int:
        text = f"{seed} {epoch} {keys[number]}".encode()
        return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big")

    return sorted(range(len(keys)), key=rank)


def batch_steps(order: Sequence[int], batch: int, world: int) -> list[list[list[int]]]:
    """[step][rank] -> samples: the j-th of a step's m samples goes to the first rank that still has room for it."""
    steps = []
    for start in range(0, len(order), batch):
        step = list(order[start : start + batch])
        shares: list[list[int]] = [[] for _ in range(world)]
        for at, number in enumerate(step):
            rank = 0
            while at >= (rank + 1) * len(step) // world:
                rank += 1
            shares[rank].append(number)
        steps.append(shares)
    return steps


def bin_steps(bins: Sequence[Sequence[int]], world: int) -> list[list[list[int]]]:
    """[step][rank] -> samples: bins to the ranks in turn; nothing where they have run out."""
    steps: list[list[list[int]]] = []
    for number, samples in enumerate(bins):
        if number % world == 0:
            steps.append([[] for _ in range(world)])
        steps[-1][number % world] = list(samples)
    return steps


def bins_of(sizes: Sequence[int], budget: int, window: int) -> list[list[int]]:
    """Windows of at most `window` bins, from the longest run that might fit downwards; samples to the emptiest bin."""

    def spread(run: list[int], count: int) -> list[list[int]] | None:
        bins: list[list[int]] = [[] for _ in range(count)]
        for at in sorted((at for at in run if sizes[at] <= budget), key=lambda at: (-sizes[at], at)):
            emptiest = min(bins, key=lambda members: sum(sizes[m] for m in members)) if bins else None
            if emptiest is None or sum(sizes[m] for m in emptiest) + sizes[at] > budget:
                return None
            emptiest.append(at)
        return [sorted(members) for members in bins if members]

    done: list[list[int]] = []
    start = 0
    while start < len(sizes):
        for end in range(len(sizes), start, -1):
            run = list(range(start, end))
            total = sum(sizes[at] for at in run if sizes[at] <= budget)
            if total > window * budget:
                continue
            tries = range(window + 1) if end == len(sizes) else [window]
            found = next((bins for count in tries if (bins := spread(run, count)) is not None), None)
            if found is not None:
                done += sorted(found + [[at] for at in run if sizes[at] > budget])
                start = end
                break
    return done


def round_robin(queues: Sequence[Sequence[object]]) -> list[object]:
    """What a DataLoader gives back: one item of each worker in turn, those at their end left out."""
    longest = max(len(queue) for queue in queues)
    return [queue[turn] for turn in range(longest) for queue in queues if turn < len(queue)]
