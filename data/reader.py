"""Shards as a torch dataset: one order of samples for any number of ranks and workers, resumed exactly.

reader = read_shards("out", shuffle=True, seed=0, batch=64)
reader.load_state_dict(state)                                       # or not
for step, samples in enumerate(DataLoader(reader, batch_size=None, num_workers=4), 1):
    ...
    state = reader.state_dict(step)
reader.set_epoch(1)
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import IterableDataset, get_worker_info

from entropy_vision.errors import UsageError

from .bins import fill_bins
from .index import Access, Index, read_index
from .order import cut_batches, cut_bins, shuffled
from .paths import as_path, is_remote
from .ranks import share
from .shards import straight_through


class ShardReader(IterableDataset[Any]):
    """The samples of a folder in one global sequence for each epoch; `read_shards` makes one.

    **The sequence** is the order of the shards, or with `shuffle` a permutation by (seed, epoch, keys of the samples).
    With `tokens` its samples then move a little, to fill bins (`fill_bins`). It never depends on ranks or workers.

    **Steps.** Every rank gets one item a step:
      - neither `batch` nor `tokens`: one sample. Step s holds the next `world` samples of the sequence, in the order of
        the ranks. Behind the end there is none: the last ranks may get one sample less than the first.
      - `batch`: a list. Step s holds the next `batch` samples, cut into `world` runs that differ by at most one sample.
        The last step holds what is left, and where that is less than `world`, lists of some ranks are empty.
      - `tokens`: a list of at most that many visual tokens, or of one longer sample. Step s holds the next `world`
        bins; in the last, lists of the last ranks may be empty. Bin b is in step b // world of rank b % world, so m
        bins together are the same samples for every world that divides m.
    With `batch` and `tokens` all ranks thus make the same number of steps, `steps`.

    **Workers** of a DataLoader(reader, batch_size=None, num_workers=n) take the steps of their rank in turn, as the
    loader asks them: it gives back the steps in order. An InputError of a worker arrives as torch's RuntimeError that
    quotes it. Persistent workers would not hear of a new epoch, and are refused.

    **Resuming.** `state_dict` says how many samples of the sequence all ranks have consumed together. Any number of
    ranks and workers, and another `batch`, goes on with exactly the rest of the sequence.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        check: bool = True,
        shuffle: bool = False,
        seed: int = 0,
        epoch: int = 0,
        batch: int | None = None,
        tokens: int | None = None,
        rank: int | None = None,
        world: int | None = None,
    ) -> None:
        super().__init__()
        self.rank, self.world = share(rank, world)
        if batch is not None and tokens is not None:
            raise UsageError("give batch or tokens, not both")
        if batch is not None and batch < self.world:
            raise UsageError(f"batch counts samples on all ranks together: give at least {self.world}, got {batch}")
        if tokens is not None and tokens < 1:
            raise UsageError(f"tokens must be at least 1, got {tokens}")
        self.folder, self.check, self.batch, self.tokens = as_path(folder), check, batch, tokens
        self.shuffle, self.seed, self.epoch, self.consumed = shuffle, seed, epoch, 0
        self._planned: tuple[tuple[int, int, int], tuple[np.ndarray, np.ndarray]] | None = None
        self._given = 0
        self._process: int | None = None  # that made a pass of its own
        self._begun: Iterator[Any] | None = None

    def _opened_here(self) -> None:
        """A store's connection is that of the process that made it: a worker makes its own."""
        if get_worker_info() is not None and is_remote(self.folder):
            self.folder = as_path(str(self.folder))
            shards = tuple(self.folder / shard.name for shard in self.index.shards)
            self.__dict__["index"] = replace(self.index, shards=shards)
            self.__dict__.pop("_samples", None)

    @cached_property
    def index(self) -> Index:
        """What the markers say, read at first use."""
        return read_index(self.folder)

    @cached_property
    def _samples(self) -> Access:
        return Access(self.index, self.check)

    @property
    def steps(self) -> int:
        """How many steps are left in the epoch from where a pass begins."""
        return len(self._plan()[1])

    def numbers(self, worker: int = 0, workers: int = 1) -> Iterator[np.ndarray]:
        """int64 [samples] of each step of this rank that falls to a worker: which samples it gets; nothing is read."""
        order, cuts = self._plan()
        for step in range(worker, len(cuts), workers):
            yield order[cuts[step, self.rank] : cuts[step, self.rank + 1]]

    def __iter__(self) -> Iterator[Any]:
        """A pass from `consumed` to the end of the epoch: Samples, or lists of them; what `next` began goes on."""
        if self._begun is not None and get_worker_info() is None:
            begun, self._begun = self._begun, None
            return begun
        return self._pass()

    def __next__(self) -> Any:
        """The next item of one pass over the samples."""
        if self._begun is None:
            self._begun = self._pass()
        return next(self._begun)

    def set_epoch(self, epoch: int) -> None:
        """Begin another epoch, from its start; before the loader is iterated again."""
        self.epoch, self.consumed = epoch, 0
        self._process = self._begun = None

    def state_dict(self, steps: int | None = None) -> dict[str, Any]:
        """Where to go on, as JSON could hold it; the same on every rank.

        Args:
            steps: how many steps of the pass are done. None: those that this object has given out; it does not know
                what workers have, so with a loader that has some, it must be said.

        Raises:
            UsageError: more steps than there are, or not said and not known.
        """
        done = self._given if steps is None else steps
        if steps is None and self._process != os.getpid():
            raise UsageError("no pass was made in this process: say how many steps are done, state_dict(steps)")
        order, cuts = self._plan()
        if not 0 <= done <= len(cuts):
            raise UsageError(f"steps must be from 0 to {len(cuts)}, got {done}")
        consumed = int(cuts[done, 0]) if done < len(cuts) else len(order)
        return {
            "fingerprint": self.index.fingerprint,
            "shuffle": self.shuffle,
            "tokens": self.tokens,
            "seed": self.seed,
            "epoch": self.epoch,
            "consumed": consumed,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Begin passes behind what a state has consumed, in its epoch and with its seed.

        Raises:
            UsageError: not a state, or one of another folder, or of another sequence (`shuffle`, `tokens`).
        """
        try:
            told = {name: state[name] for name in ("fingerprint", "shuffle", "tokens")}
            seed, epoch, consumed = (int(state[name]) for name in ("seed", "epoch", "consumed"))
        except (KeyError, TypeError, ValueError) as error:
            raise UsageError(f"this is no state of a reader of shards ({error!r})") from None
        if told["fingerprint"] != self.index.fingerprint:
            raise UsageError(
                f"the state is of other shards than those in {self.folder}: name its folder, or begin anew"
            )
        for name, mine in (("shuffle", self.shuffle), ("tokens", self.tokens)):
            if told[name] != mine:
                raise UsageError(f"the state is of {name}={told[name]}, not {mine}: end its epoch with what it had")
        before = self.seed, self.epoch, self.consumed
        self.seed, self.epoch, self.consumed = seed, epoch, consumed
        try:
            self._plan()
        except UsageError:
            self.seed, self.epoch, self.consumed = before
            raise
        self._process = self._begun = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_begun": None}  # a pass that was begun stays in its process

    def _plan(self) -> tuple[np.ndarray, np.ndarray]:
        """(order, cuts): which sample stands where in the sequence, int64 [n], and the cuts of what is left of it."""
        settled = self.seed, self.epoch, self.consumed
        if self._planned is None or self._planned[0] != settled:
            self._planned = settled, self._made_plan()
        return self._planned[1]

    def _made_plan(self) -> tuple[np.ndarray, np.ndarray]:
        count = len(self.index.keys)
        order = shuffled(self.index.keys, self.seed, self.epoch) if self.shuffle else np.arange(count)
        edges = np.arange(count + 1)
        if self.tokens is not None:
            places, edges = fill_bins(self.index.tokens[order], self.tokens)
            order = order[places]
        if self.consumed not in edges:
            raise UsageError(f"no step ends behind {self.consumed} of these {count} samples: the state was altered")
        if self.batch is not None:
            return order, cut_batches(self.consumed, count, self.batch, self.world)
        return order, cut_bins(edges[edges >= self.consumed], self.world)

    def _pass(self) -> Iterator[Any]:
        info = get_worker_info()
        worker, workers = (0, 1) if info is None else (info.id, info.num_workers)
        if info is not None and self._process == os.getpid():
            raise UsageError("persistent workers keep the epoch they began with: give persistent_workers=False")
        self._given, self._process = 0, os.getpid()
        self._opened_here()
        plain = not self.shuffle and self.batch is None and self.tokens is None and self.consumed == 0
        if plain and self.world == workers == 1:
            items: Iterator[Any] = straight_through(self.folder, check=self.check)
        else:
            items = self._items(worker, workers)
        for item in items:
            self._given += 1
            yield item

    def _items(self, worker: int, workers: int) -> Iterator[Any]:
        single = self.batch is None and self.tokens is None
        for numbers in self.numbers(worker, workers):
            if not single:
                yield [self._samples[number] for number in numbers.tolist()]
            elif len(numbers):
                yield self._samples[int(numbers[0])]
