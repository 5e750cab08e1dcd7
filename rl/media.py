"""What a run deals and is measured on: scenes of the World, of the user's own files, or of both."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from statistics import fmean

import numpy as np

from entropy_vision.budget import Budget
from entropy_vision.errors import InputError, InputReason, UsageError
from entropy_vision.frames import Size
from entropy_vision.grid import grid_size
from entropy_vision.patchset import PatchSet
from entropy_vision.question import Answer
from entropy_vision.question_files import Asked, FileQuestion, FileScenes, StoredPatches, read_asked, stored_patches
from entropy_vision.sources import world_families
from entropy_vision.text import TAGS, gold_completion
from entropy_vision.tokenizer import EntropyTokenizer
from entropy_vision.visuals import Fit

from .recipe import DataRecipe, TrainRecipe
from .scenes import Ask, Pool, Remembered, Scene, SceneMemory, Scored
from .verifiers import canonical

Split = str  # "train" or "val"

_NO_FILE = "shards hold whole files, and these are cells of a table, parts of a video, or several pictures"


def as_ask(question: FileQuestion) -> Ask:
    """A question of a file as the trainer needs it. Its demonstration ends with the plainest text of the truth."""
    rationale = "" if any(tag in question.rationale for tag in TAGS) else question.rationale
    return Ask(
        key=question.key,
        family=question.family,
        question=question.text,
        answer=question.answer,
        gold=gold_completion(Answer("exact", canonical(question.answer)), rationale),
        profile=question.meta.get("profile", "strict"),
    )


class FilePool(Remembered):
    """The scenes of one medium in some files; the `most` dealt last stay in memory."""

    def __init__(self, files: FileScenes, tokenizer: EntropyTokenizer, most: int) -> None:
        super().__init__(most)
        self.files, self.tokenizer = files, tokenizer
        self.count: int | None = len(files)

    def asks(self, index: int) -> tuple[Ask, ...]:
        """The questions of a scene; nothing is decoded."""
        return tuple(map(as_ask, self.files.questions(index)))

    @cached_property
    def arms(self) -> tuple[str, ...]:
        """The families of their questions."""
        return tuple(sorted({question.family for i in range(len(self.files)) for question in self.files.questions(i)}))

    @cached_property
    def _asked(self) -> tuple[np.ndarray, np.ndarray]:
        """(int64 [Q], the scene of each question; int64 [Q], its family in `arms`)."""
        number = {family: n for n, family in enumerate(self.arms)}
        asked = [(i, number[q.family]) for i in range(len(self.files)) for q in self.files.questions(i)]
        owner, family = np.array(asked, np.int64).reshape(-1, 2).T
        return owner, family

    def chances(self, weights: Mapping[str, float]) -> np.ndarray:
        """The mean weight of each scene's questions."""
        owner, family = self._asked
        weight = np.array([weights[arm] for arm in self.arms])[family]
        return np.bincount(owner, weight) / np.bincount(owner)

    def make(self, index: int) -> Scene:
        """Scene `index`, decoded and scored; nobody knows what it shows."""
        frames = self.files.frames(index)
        return Scored(frames, self.tokenizer.score(frames), self.asks(index), None)


@dataclass(frozen=True)
class Stored:
    """A scene whose patches were chosen before the run."""

    patches: PatchSet
    asks: tuple[Ask, ...]
    objects: None = None

    def kept(self, tokenizer: EntropyTokenizer, keep: float) -> PatchSet:
        """All of them, or fewer where `tokenizer` can tell which."""
        return tokenizer.narrow(self.patches, Budget(keep=keep))

    def with_asks(self, asks: tuple[Ask, ...]) -> Stored:
        """The same scene with other questions."""
        return replace(self, asks=asks)


class StoredPool(FilePool):
    """The same scenes with their patches from shards: no file is decoded, and none need be there."""

    def __init__(
        self, files: FileScenes, tokenizer: EntropyTokenizer, most: int, stored: StoredPatches, grid: tuple[int, int]
    ) -> None:
        """
        Args:
            grid: (frames, patches of a side) that a scene has at most, and has.
        """
        super().__init__(files, tokenizer, most)
        self.stored, self.grid = stored, grid

    def make(self, index: int) -> Scene:
        """Scene `index`.

        Raises:
            InputError: no shard has it, or it is no whole file.
            UsageError: it was cut in another way than the recipe says.
        """
        sources = self.files.sources(index)
        if not sources:
            raise InputError(self.files.name(index), InputReason.MISSING, f"no shard holds its patches: {_NO_FILE}")
        patches = self.stored[sources]
        frames, rows, columns = patches.grid
        if rows != self.grid[1] or columns != self.grid[1] or frames > self.grid[0]:
            size = self.tokenizer.patch_size
            raise UsageError(
                f"data.shards holds {sources[0]} as {frames} frame(s) of "
                f"{columns * size}x{rows * size} pixels, the recipe asks for {self.grid[0]} of {self.grid[1] * size}: "
                "set data.image_size, data.video_size and data.frame_count to what preprocess was given"
            )
        return Stored(patches, self.asks(index))


@dataclass(frozen=True)
class Fitted:
    """How a pretrained policy takes pictures, by `fit` and `scaled` to `size` (height, width); see `visuals.fitted`."""

    fit: Fit
    size: tuple[int, int]
    scaled: tuple[int, int] | None = None

    def sized(self, data: DataRecipe) -> DataRecipe:
        """The recipe's data with the World's pictures, which are squares, of that size."""
        return replace(data, image_size=min(self.size), video_size=min(self.size))


class Levels:
    """The World's scenes of one medium at several difficulties, as a curriculum draws them."""

    count: int | None = None

    def __init__(self, levels: Sequence[tuple[str, Pool]], families: Sequence[str], pool: int) -> None:
        """
        Args:
            levels: scenes, and what the arms of their questions end with.
            families: of the questions that every scene is asked.
            pool: how many scenes of each.
        """
        self.levels, self.families, self.pool = tuple(levels), tuple(families), pool

    @property
    def arms(self) -> tuple[str, ...]:
        """Families by difficulties."""
        return tuple(family + level for level, _ in self.levels for family in self.families)

    def __getitem__(self, index: int) -> Scene:
        number, place = divmod(index, self.pool)
        level, scenes = self.levels[number]
        scene = scenes[place]
        return scene.with_asks(tuple(replace(ask, level=level) for ask in scene.asks))

    def chances(self, weights: Mapping[str, float]) -> np.ndarray:
        """The mean weight of each level's families."""
        return np.array([fmean(weights[family + level] for family in self.families) for level, _ in self.levels])


def asked_of(recipe: TrainRecipe, memory: SceneMemory, fitted: Fitted | None = None) -> Asked | None:
    """The questions of the recipe's files; None where it names none. Pictures come as `fitted`, or at its sizes.

    Raises:
        UsageError: as `read_asked`, or shards beside a policy that takes pictures in another way than they were cut.
    """
    data, measured = recipe.data, recipe.eval
    if not data.questions and not measured.questions:
        return None
    if data.shards and fitted is not None and (fitted.fit != "stretch" or fitted.scaled):
        raise UsageError(
            f"data.shards holds stretched pictures, and this policy takes them by {fitted.fit!r}: leave data.shards out"
        )
    key = ("asked", data.questions, measured.questions, measured.share, data.seed)
    fit: Fit = "stretch" if fitted is None else fitted.fit
    scaled = None if fitted is None else fitted.scaled
    sizes: tuple[Size, Size] = (data.image_size, data.video_size) if fitted is None else (fitted.size, fitted.size)
    return memory.once(
        (*key, fit, scaled, *sizes, data.frame_count),
        lambda: read_asked(
            data.questions,
            measured.questions,
            share=measured.share,
            seed=data.seed,
            image_size=sizes[0],
            video_size=sizes[1],
            frame_count=data.frame_count,
            fit=fit,
            scaled=scaled,
        ),
    )


def stored_of(recipe: TrainRecipe, tokenizer: EntropyTokenizer, memory: SceneMemory) -> StoredPatches | None:
    """The patches in the recipe's shards; None where it names none.

    Raises:
        UsageError: they were not chosen as the recipe would, or are fewer than a budget of it asks for.
    """
    folders = recipe.data.shards
    if not folders:
        return None
    stored = memory.once(("stored", folders), lambda: stored_patches(folders))
    first = [(folder, one) for folder, some in zip(folders, stored.first(), strict=True) for one in some]
    for folder, patches in first:
        dealt = recipe.data.video_scenes if patches.grid[0] > 1 else recipe.data.image_scenes
        if not dealt and not recipe.eval.questions:
            continue  # nobody is shown these
        for name, keep in (*(("budget.keep", keep) for keep in recipe.budget.keep), ("eval.keep", recipe.eval.keep)):
            try:
                tokenizer.narrow(patches, Budget(keep=keep))
            except UsageError as error:
                raise UsageError(f"{folder} does not serve {name} = {keep:g}: {error}") from None
    return stored


def learned_texts(asked: Asked) -> Iterator[str]:
    """Questions to learn from and their demonstrations."""
    for ask in _learned(asked):
        yield from (ask.question, ask.gold)


def demonstrations(asked: Asked) -> Iterator[str]:
    """What is to be learned to say."""
    return (ask.gold for ask in _learned(asked))


def _learned(asked: Asked) -> Iterator[Ask]:
    """The questions to learn from."""
    for scenes in asked.train.values():
        for index in range(len(scenes)):
            yield from map(as_ask, scenes.questions(index))


def fingerprint(asked: Asked) -> str:
    """16 hex digits that change with any question, truth or side of the split: a run goes on with the same."""
    content = hashlib.sha256()
    for split in (asked.train, asked.val):
        for medium, scenes in split.items():
            for index in range(len(scenes)):
                told = [(ask.key, ask.question, ask.gold) for ask in map(as_ask, scenes.questions(index))]
                content.update(repr((medium, told)).encode())
    return content.hexdigest()[:16]


def told(asked: Asked, stored: StoredPatches | None = None) -> list[str]:
    """What there is to learn from and to be measured on, and what is left out, a line each."""

    def counted(split: str, scenes: dict[str, FileScenes]) -> str:
        parts = [f"{len(some):,} {medium}{'s' if len(some) > 1 else ''}" for medium, some in scenes.items()]
        return f"{' and '.join(parts) or 'nothing'} {split}"

    lines = [f"questions about {counted('to learn from', dict(asked.train))}, {counted('held out', dict(asked.val))}"]
    skipped = ((task, rows) for task, rows in asked.skipped.items() if rows)
    lines += [f"{task}: {len(rows)} left out, the first: {rows[0]}" for task, rows in skipped]
    if stored is not None:
        scenes = [
            some.sources(i) for side in (asked.train, asked.val) for some in side.values() for i in range(len(some))
        ]
        lacking, no_file = sum(sources not in stored for sources in scenes), scenes.count(())
        if lacking:
            lines.append(f"data.shards: {lacking} of {len(scenes)} scenes are not in there by their file's name")
        if no_file:
            lines.append(f"data.shards: {no_file} of them cannot be: {_NO_FILE}")
    return lines


def pools_of(
    recipe: TrainRecipe,
    split: Split,
    tokenizer: EntropyTokenizer,
    memory: SceneMemory,
    processes: int = 1,
    fitted: Fitted | None = None,
) -> list[tuple[Pool, int]]:
    """The scenes of each medium and how many of them a step takes, or of "val" a measurement.

    Args:
        fitted: how a pretrained policy takes them; by default they have the recipe's sizes.

    Raises:
        UsageError: files hold no scene of a medium that is asked for, or fewer than there are processes.
    """
    asked = asked_of(recipe, memory, fitted)
    if fitted is not None:
        recipe = replace(recipe, data=fitted.sized(recipe.data))
    data = recipe.data
    from_files = {} if asked is None else asked.train if split == "train" else asked.val
    own = bool(data.questions or (split == "val" and recipe.eval.questions))
    pools: list[tuple[Pool, int]] = []
    for medium, count in {"image": data.image_scenes, "video": data.video_scenes}.items():
        drawn = _share(data.world_share, count) if own else count
        files = from_files.get(medium)
        if split == "val":
            drawn = 0 if own or not count else recipe.eval.scenes
            count = recipe.eval.scenes if count or recipe.eval.questions else 0
        if files is not None and count > drawn:
            key = (split, medium, id(files), data.memory, data.shards, tokenizer.fingerprint())
            pool = memory.once(key, partial(_file_pool, files, medium, recipe, tokenizer, memory))
            pools.append((pool, min(count - drawn, len(files))))
        if drawn or not own:
            weighed = recipe.curriculum.by != "none" and split == "train"
            world = (
                _levels(medium, recipe, tokenizer, memory) if weighed else memory.world(medium, split, data, tokenizer)
            )
            pools.append((world, drawn))
    _check_enough(split, pools, processes)
    return pools


def _levels(medium: str, recipe: TrainRecipe, tokenizer: EntropyTokenizer, memory: SceneMemory) -> Levels:
    data, told_apart = recipe.data, recipe.curriculum.difficulties
    levels = [
        (f"@{one:g}" if told_apart else "", memory.world(medium, "train", replace(data, difficulty=one), tokenizer))
        for one in told_apart or (data.difficulty,)
    ]
    return Levels(levels, world_families(medium), data.pool)


def _file_pool(
    files: FileScenes, medium: str, recipe: TrainRecipe, tokenizer: EntropyTokenizer, memory: SceneMemory
) -> FilePool:
    data, stored = recipe.data, stored_of(recipe, tokenizer, memory)
    if stored is None:
        return FilePool(files, tokenizer, data.memory)
    video = medium == "video"
    size = data.video_size if video else data.image_size
    side, _ = grid_size(size, size, tokenizer.patch_size)
    return StoredPool(files, tokenizer, data.memory, stored, (data.frame_count if video else 1, side))


def _share(share: float, count: int) -> int:
    """How many of `count` scenes are the World's; some of both where both are asked for and there is room."""
    return min(max(round(share * count), 1), count - 1) if 0 < share < 1 and count > 1 else round(share * count)


def spread(count: int, of: int | None) -> list[int]:
    """The numbers of `count` scenes: the first where they never end, else evenly over all of them."""
    return [i if of is None else i * of // count for i in range(count)]


def _check_enough(split: Split, pools: list[tuple[Pool, int]], processes: int) -> None:
    taken = [count for _, count in pools if count]
    if not taken:
        raise UsageError(
            "data.questions and eval.questions hold no picture and no video of the media that are asked for: "
            "data.image_scenes and data.video_scenes say how many of each a step takes"
        )
    if split == "train" and min(taken) < processes:
        least = f"a step has {min(taken)} scenes of a medium of the files, or of the World beside them"
        raise UsageError(f"{processes} processes are too many: {least}")
