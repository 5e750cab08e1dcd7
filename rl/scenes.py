"""Scenes whose bits are known: drawn, encoded, decoded and scored once, whatever reads them afterwards."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar

import numpy as np

from entropy_vision.budget import Budget
from entropy_vision.console import say
from entropy_vision.errors import InputError
from entropy_vision.frames import Frames
from entropy_vision.patchset import PatchSet
from entropy_vision.question import Answer, Item, QuestionSource, SceneObject
from entropy_vision.sources import world_source
from entropy_vision.text import gold_completion
from entropy_vision.tokenizer import EntropyTokenizer

from .recipe import DataRecipe

T = TypeVar("T")


@dataclass(frozen=True)
class Ask:
    """A question as the trainer needs it: text and truth, no pixels; `profile` reads answers as they are published.

    `level` tells questions of a family that a curriculum weighs apart.
    """

    key: str
    family: str
    question: str
    answer: Answer
    gold: str
    profile: str = "strict"
    level: str = ""

    @property
    def arm(self) -> str:
        """The kind of question, as a curriculum weighs it."""
        return self.family + self.level


class Scene(Protocol):
    """What a batch is made of: questions, and patches at the budgets it is asked for.

    `objects` are what is drawn; None where nobody knows.
    """

    @property
    def asks(self) -> tuple[Ask, ...]: ...

    @property
    def objects(self) -> Sequence[SceneObject] | None: ...

    def kept(self, tokenizer: EntropyTokenizer, keep: float) -> PatchSet: ...

    def with_asks(self, asks: tuple[Ask, ...]) -> Scene: ...


@dataclass(frozen=True)
class Scored:
    """A scene whose bits are known, ready to be selected at any budget."""

    frames: Frames
    bits: np.ndarray
    asks: tuple[Ask, ...]
    objects: Sequence[SceneObject] | None

    def kept(self, tokenizer: EntropyTokenizer, keep: float) -> PatchSet:
        """The patches that `tokenizer` chooses."""
        return tokenizer.select(self.frames, self.bits, Budget(keep=keep))

    def with_asks(self, asks: tuple[Ask, ...]) -> Scored:
        """The same scene with other questions."""
        return replace(self, asks=asks)


def score_scene(items: Sequence[Item], tokenizer: EntropyTokenizer) -> Scored:
    """Score the frames all `items` share."""
    frames = items[0].frames
    asks = tuple(
        Ask(
            key=item.key,
            family=item.family,
            question=item.question,
            answer=item.answer,
            gold=gold_completion(item.answer, item.rationale),
            profile=item.meta.get("profile", "strict"),
        )
        for item in items
    )
    return Scored(frames, tokenizer.score(frames), asks, tuple(items[0].objects))


class Pool(Protocol):
    """Scenes by number; `count` of them, None where they never end. A scene that cannot be read is an InputError.

    A curriculum draws among them by `chances`, for weights of its arms: float [count], or where they never end one of
    each level, level l being the numbers from l * pool to (l + 1) * pool.
    """

    @property
    def count(self) -> int | None: ...

    @property
    def arms(self) -> tuple[str, ...]: ...

    def __getitem__(self, index: int) -> Scene: ...

    def chances(self, weights: Mapping[str, float]) -> np.ndarray: ...


class Remembered(ABC):
    """Scenes by number, of which the `most` asked for last are kept in memory (None: all).

    One that cannot be read raises its `InputError` every time, and is said once.
    """

    def __init__(self, most: int | None = None) -> None:
        self.most = most
        self._made: OrderedDict[int, Scene] = OrderedDict()
        self._bad: dict[int, InputError] = {}

    @abstractmethod
    def make(self, index: int) -> Scene:
        """Scene `index` anew."""

    def __getitem__(self, index: int) -> Scene:
        if index in self._bad:
            raise self._bad[index]
        if index not in self._made:
            try:
                self._made[index] = self.make(index)
            except InputError as error:
                self._bad[index] = error
                say(f"left out: {error}")
                raise
        made = self._made[index]
        self._made.move_to_end(index)
        if self.most is not None and len(self._made) > self.most:
            self._made.popitem(last=False)
        return made


class Scenes(Remembered):
    """The scenes of one source, each scored when it is first asked for and kept in memory."""

    count: int | None = None
    arms: tuple[str, ...] = ()

    def __init__(self, source: QuestionSource, tokenizer: EntropyTokenizer) -> None:
        super().__init__()
        self.source, self.tokenizer = source, tokenizer

    def make(self, index: int) -> Scored:
        """Scene `index`, drawn and scored."""
        return score_scene(self.source.scene(index), self.tokenizer)

    def chances(self, weights: Mapping[str, float]) -> np.ndarray:
        """They are of one level."""
        return np.ones(1)


class SceneMemory:
    """What a process has seen of the World and of files, so that the stages it runs one after the other share it."""

    def __init__(self) -> None:
        self._known: dict[tuple[object, ...], Any] = {}

    def once(self, key: tuple[object, ...], make: Callable[[], T]) -> T:
        """What `make` gave when `key` was asked for first."""
        if key not in self._known:
            self._known[key] = make()
        return self._known[key]  # type: ignore[no-any-return]

    def world(self, medium: str, split: str, data: DataRecipe, tokenizer: EntropyTokenizer) -> Scenes:
        """Scenes of the World as `data` describes them, scored by `tokenizer`'s selector."""
        video = medium == "video"
        size = data.video_size if video else data.image_size
        frame_count, folder = (data.frame_count, data.video_folder or None) if video else (None, None)
        # the fingerprint holds the budget too, which no score depends on: one eval.keep for a run's stages
        key = (medium, split, data.difficulty, data.seed, size, frame_count, folder, tokenizer.fingerprint())
        return self.once(
            key,
            lambda: Scenes(
                world_source(
                    medium,
                    split=split,
                    difficulty=data.difficulty,
                    seed=data.seed,
                    size=size,
                    frame_count=frame_count,
                    folder=folder,
                ),
                tokenizer,
            ),
        )
