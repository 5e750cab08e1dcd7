"""Scenes -> batches: the same step always deals the same scenes, budgets and labels, whoever computes it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from entropy_vision.errors import EntropyVisionError, InputError, InputReason
from entropy_vision.packed import PackedPatches
from entropy_vision.patchset import PatchSet
from entropy_vision.question import SceneObject
from entropy_vision.sources import Words
from entropy_vision.tokenizer import EntropyTokenizer

from .contrast import other_view
from .parallel import Team
from .recipe import ContrastView, Each
from .scenes import Ask, Pool, Scene

# of a patch's area under an object's box: from here on the patch shows the object, up to there it does not;
# in between (a corner of the box may hold no pixel of a circle) it is not asked
_SHOWN, _UNSEEN = 0.4, 0.02


@dataclass(frozen=True)
class Batch:
    """S scenes with Q questions.

    Attributes:
        patches: kept patches of the S scenes.
        owner: int64 [Q], the scene of each question.
        asks: Q questions.
        words: per kept patch the words it should be aligned with: int8 [N, 4] indices into `alignment_groups()`
            (colour, shape, place, time), -1 where a group says nothing about the patch.
        keeps: the budget that each of the S scenes was selected at.
        seconds: what choosing the patches took.
        skipped: scenes that were dealt and left out, because their file cannot be read.
        contrast: some of the questions about another view of their scenes.
    """

    patches: PackedPatches
    owner: Tensor
    asks: tuple[Ask, ...]
    words: Tensor
    keeps: tuple[float, ...]
    seconds: float = 0.0
    skipped: int = 0
    contrast: Contrasted | None = None

    @property
    def keep(self) -> float:
        """The mean budget."""
        return sum(self.keeps) / len(self.keeps)


@dataclass(frozen=True)
class Contrasted:
    """C questions of a batch about another view of their scenes.

    Attributes:
        batch: these questions.
        questions: int64 [C], which of the batch's they are.
    """

    batch: Batch
    questions: Tensor


def alignment_groups(words: Words) -> tuple[tuple[str, ...], ...]:
    """The words patches are aligned with, by group. "none" is the colour of a patch without an object."""
    return (("none", *words.colors), words.shapes, words.places, words.times)


def label_patches(kept: PatchSet, objects: Sequence[SceneObject] | None, groups: Sequence[Sequence[str]]) -> np.ndarray:
    """What each kept patch shows: int8 [K, 4] word indices by group, -1 for nothing to say (all, without `objects`).

    A patch belongs to the object that covers most of it, where that is at least two fifths of its area; patches that
    an object only grazes have no label. The place is that of the object's centre: what a rationale says of it.
    """
    colors, shapes = list(groups[0]), list(groups[1])
    cells, moments = math.isqrt(len(groups[2])), len(groups[3])
    frame_count, rows, columns = kept.grid
    frame, row, column = kept.positions.T
    labels = np.full((len(kept), 4), -1, np.int8)
    if objects is None:
        return labels
    most = np.zeros(len(kept))
    for thing in objects:
        x0, y0, x1, y1 = np.nan_to_num(thing.boxes[frame], nan=-9.0).T
        width = _overlap(x0, x1, column / columns, (column + 1) / columns)
        height = _overlap(y0, y1, row / rows, (row + 1) / rows)
        share = width * height * rows * columns
        mine = (share >= _SHOWN) & (share > most)
        most = np.maximum(most, share)
        labels[mine, 0] = colors.index(thing.color)
        labels[mine, 1] = shapes.index(thing.shape)
        down, right = (((low + high) / 2 * cells).clip(0, cells - 1).astype(int) for low, high in ((y0, y1), (x0, x1)))
        labels[mine, 2] = (down * cells + right)[mine]
    labels[most <= _UNSEEN, 0] = 0
    if frame_count > 1:
        labels[:, 3] = frame * moments // frame_count
    return labels


def _overlap(low: np.ndarray, high: np.ndarray, start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Length shared by [low, high] and [start, end]."""
    return (np.minimum(high, end) - np.maximum(low, start)).clip(0)


def make_batch(
    scenes: Sequence[Scene],
    tokenizer: EntropyTokenizer,
    keep: float | Sequence[float],
    groups: Sequence[Sequence[str]] | None,
) -> Batch:
    """Select `keep` of every scene's patches (one budget for all, or one each) and pack them with their questions and,
    given `groups`, labels."""
    return make_batches(scenes, tokenizer, keep, groups)[0]


def make_batches(
    scenes: Sequence[Scene],
    tokenizer: EntropyTokenizer,
    keep: float | Sequence[float],
    groups: Sequence[Sequence[str]] | None,
    most: int = 0,
    other: Callable[[int, PatchSet], PatchSet | None] | None = None,
) -> list[Batch]:
    """The same as several batches of at most `most` visual tokens each, in order; a scene of more is one by itself.

    `other` gives another view of a scene by its place and its kept patches, for the batches' `contrast`.
    """
    began = time.perf_counter()
    keeps = [keep] * len(scenes) if isinstance(keep, int | float) else keep
    kept = [scene.kept(tokenizer, one) for scene, one in zip(scenes, keeps, strict=True)]
    views = [other(place, patches) if other else None for place, patches in enumerate(kept)]
    seconds = time.perf_counter() - began
    parts: list[list[int]] = [[]]
    tokens = 0
    for i, one in enumerate(kept):
        if most and parts[-1] and tokens + len(one) > most:
            parts.append([])
            tokens = 0
        parts[-1].append(i)
        tokens += len(one)
    batches = []
    for part in parts:
        some = [scenes[i] for i in part]
        batch = _pack(some, [kept[i] for i in part], [keeps[i] for i in part], groups)
        batches.append(_contrasted(batch, some, [views[i] for i in part]))
    return [replace(batches[0], seconds=seconds), *batches[1:]]


def _pack(
    scenes: Sequence[Scene],
    kept: Sequence[PatchSet],
    keeps: Sequence[float],
    groups: Sequence[Sequence[str]] | None,
) -> Batch:
    labels = [label_patches(k, s.objects, groups) for k, s in zip(kept, scenes, strict=True)] if groups else []
    words = np.concatenate(labels) if labels else np.empty((0, 4), np.int8)
    owner = torch.tensor([i for i, s in enumerate(scenes) for _ in s.asks])
    asks = tuple(ask for s in scenes for ask in s.asks)
    return Batch(PackedPatches.pack(kept), owner, asks, torch.from_numpy(words), tuple(keeps))


def _contrasted(batch: Batch, scenes: Sequence[Scene], views: Sequence[PatchSet | None]) -> Batch:
    """The batch with the questions about scenes that have another view."""
    seen = [place for place, view in enumerate(views) if view is not None]
    if not seen:
        return batch
    shown = [view for view in views if view is not None]
    other = _pack([scenes[i] for i in seen], shown, [batch.keeps[i] for i in seen], None)
    return replace(batch, contrast=Contrasted(other, torch.isin(batch.owner, torch.tensor(seen)).nonzero()[:, 0]))


def whole_scenes(scenes: Pool, indices: Sequence[int]) -> dict[int, Scene]:
    """Those of these scenes whose files can be read, by their place in the list: no other ever takes one's place."""
    whole = {}
    for place, index in enumerate(indices):
        with suppress(InputError):
            whole[place] = scenes[index]
    return whole


class Dealer:
    """Deals the batches of a step: a pure function of (seed, step).

    Each step has one batch for each medium, or several of at most `most` visual tokens, at one keep drawn for the
    step, or for each scene (`each`). Scenes without end are drawn without order from a pool of `pool` a medium, so that
    memory and video files stay bounded; of those that have an end every pass takes each one once. Each process of a
    team gets its share of the same scenes.
    """

    def __init__(
        self,
        media: Sequence[tuple[Pool, int]],
        tokenizer: EntropyTokenizer,
        *,
        keeps: Sequence[float],
        weights: Sequence[float],
        pool: int,
        seed: int,
        groups: Sequence[Sequence[str]],
        most: int = 0,
        each: Each = "step",
        contrast: ContrastView = "none",
        team: Team = Team(),  # noqa: B008  (frozen)
    ) -> None:
        self.team, self.most, self.each, self.contrast = team, most, each, contrast
        self.media, self.tokenizer, self.groups = media, tokenizer, groups
        self.keeps, self.weights = list(keeps), np.asarray(weights, float) / sum(weights)
        self.pool, self.seed = pool, seed

    def deal(self, step: int, weights: Mapping[str, float] | None = None) -> list[Batch]:
        """The batches of step `step`. A scene whose file is damaged is left out and counted.

        Args:
            weights: of a curriculum's arms: scenes are drawn in proportion to the mean weight of their questions, and
                each of these is asked as often as its weight is of the greatest in its scene.

        Raises:
            InputError: nothing of this process's share is left.
        """
        rng = np.random.Generator(np.random.Philox(key=self.seed, counter=[0, 0, 0, step]))
        keep = float(rng.choice(self.keeps, p=self.weights))
        batches: list[Batch] = []
        lost = 0
        for medium, (scenes, count) in enumerate(self.media):
            if count:
                if weights is not None:
                    chosen = self._drawn(rng, scenes, count, weights)
                elif scenes.count is None:
                    chosen = rng.choice(self.pool, size=count, replace=False)
                else:
                    chosen = self._next(medium, scenes.count, step * count, count)
                keeps = np.full(count, keep)
                if self.each == "scene":
                    keeps = rng.choice(self.keeps, size=count, p=self.weights)
                # in order, so that most scenes come to the same process each time and are scored by it alone
                mine = np.array_split(np.sort(chosen), self.team.size)[self.team.rank].tolist()
                budgets = np.array_split(keeps, self.team.size)[self.team.rank].tolist()
                whole = whole_scenes(scenes, mine)
                lost += len(mine) - len(whole)
                lots = [self._stream(medium, step, mine[place]) for place in whole]
                batches += self._shown(list(whole.values()), [budgets[place] for place in whole], lots, weights)
        if not batches:
            raise InputError(f"step {step + 1}", InputReason.DAMAGED, f"none of its {lost} scenes can be read")
        return [replace(batches[0], skipped=lost), *batches[1:]]

    def _shown(
        self,
        scenes: list[Scene],
        budgets: Sequence[float],
        lots: Sequence[np.random.Generator],
        weights: Mapping[str, float] | None,
    ) -> list[Batch]:
        """Some scenes of a medium as batches; `lots` are what is drawn with for each of them."""
        if not scenes:
            return []
        if weights is not None:
            scenes = [thinned(scene, weights, lot) for scene, lot in zip(scenes, lots, strict=True)]

        def other(place: int, kept: PatchSet) -> PatchSet | None:
            return other_view(scenes[place], kept, self.contrast, lots[place], self.tokenizer, budgets[place])

        seen_otherwise = other if self.contrast != "none" else None
        return make_batches(scenes, self.tokenizer, budgets, self.groups, self.most, seen_otherwise)

    def _drawn(self, rng: np.random.Generator, scenes: Pool, count: int, weights: Mapping[str, float]) -> np.ndarray:
        """Different scenes by their chances."""
        chances = scenes.chances(weights)
        if scenes.count is not None:
            return rng.choice(scenes.count, size=count, replace=False, p=chances / chances.sum())
        levels = rng.choice(len(chances), size=count, p=chances / chances.sum())
        return levels * self.pool + rng.choice(self.pool, size=count, replace=False)

    def _stream(self, medium: int, step: int, index: int) -> np.random.Generator:
        """What is drawn for one scene of a step, whichever process has it; a step's own stream has 0 for the scene."""
        return np.random.Generator(np.random.Philox(key=self.seed, counter=[0, index + 1, medium + 1, step]))

    def _next(self, medium: int, scenes: int, first: int, count: int) -> np.ndarray:
        """The places `first` .. `first + count` of an endless row of passes over all scenes, each in its own order."""
        parts = []
        while count:
            turn, at = divmod(first, scenes)
            # the streams of steps have 0 where these have the medium
            rng = np.random.Generator(np.random.Philox(key=self.seed, counter=[0, 0, medium + 1, turn]))
            parts.append(rng.permutation(scenes)[at : at + count])
            first, count = first + len(parts[-1]), count - len(parts[-1])
        return np.concatenate(parts)


def thinned(scene: Scene, weights: Mapping[str, float], lots: np.random.Generator) -> Scene:
    """The scene with each question left in as often as its arm's weight is of the greatest among them."""
    heavy = [weights[ask.arm] for ask in scene.asks]
    drawn = lots.random(len(heavy)) * max(heavy)
    return scene.with_asks(tuple(a for a, w, lot in zip(scene.asks, heavy, drawn, strict=True) if lot < w))


Order = int | tuple[int, Mapping[str, float]]
"""Which step, counted from the first, and by what weights of a curriculum."""


class Steps(torch.utils.data.Dataset[list[Batch] | EntropyVisionError]):
    """The dealer as a map-style dataset over steps, so that a worker process deals ahead.

    An error that the user can mend is a value here: one that a worker raises comes as a text of its traceback.
    """

    def __init__(self, dealer: Dealer, first: int, last: int) -> None:
        self.dealer, self.first, self.last = dealer, first, last

    def __len__(self) -> int:
        return self.last - self.first

    def __getitem__(self, order: Order) -> list[Batch] | EntropyVisionError:
        try:
            if isinstance(order, int):
                return self.dealer.deal(self.first + order)
            index, weights = order
            return self.dealer.deal(self.first + index, weights)
        except EntropyVisionError as error:
            return error


class Planned(torch.utils.data.Sampler[Order]):
    """Steps with their weights, which are asked for no earlier than the loader wants a step."""

    def __init__(self, first: int, last: int, weights: Callable[[int], Mapping[str, float]]) -> None:
        self.first, self.last, self.weights = first, last, weights

    def __iter__(self) -> Iterator[Order]:
        return ((step - self.first, self.weights(step)) for step in range(self.first, self.last))
