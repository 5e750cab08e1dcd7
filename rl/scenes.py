"""Scenes whose bits are known: drawn, encoded, decoded and scored once, whatever reads them afterwards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from entropy_vision.console import say
from entropy_vision.errors import InputError
from entropy_vision.frames import Frames
from entropy_vision.question import Answer, Item, QuestionSource, SceneObject
from entropy_vision.sources import world_source
from entropy_vision.text import gold_completion
from entropy_vision.tokenizer import EntropyTokenizer

from .recipe import DataRecipe


@dataclass(frozen=True)
class Ask:
    """A question as the trainer needs it: text and truth, no pixels; `profile` reads answers as they are published."""

    key: str
    family: str
    question: str
    answer: Answer
    gold: str
    profile: str = "strict"


@dataclass(frozen=True)
class Scored:
    """A scene whose bits are known, ready to be selected at any budget."""

    frames: Frames
    bits: np.ndarray
    asks: tuple[Ask, ...]
    objects: Sequence[SceneObject]


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


class Scenes:
    """The scenes of one source, each scored when it is first asked for and kept in memory.

    A scene whose file cannot be read raises its `InputError` every time, and is said once.
    """

    def __init__(self, source: QuestionSource, tokenizer: EntropyTokenizer) -> None:
        self.source, self.tokenizer = source, tokenizer
        self._scored: dict[int, Scored] = {}
        self._bad: dict[int, InputError] = {}

    def __getitem__(self, index: int) -> Scored:
        if index in self._bad:
            raise self._bad[index]
        if index not in self._scored:
            try:
                self._scored[index] = score_scene(self.source.scene(index), self.tokenizer)
            except InputError as error:
                self._bad[index] = error
                say(f"left out: {error}")
                raise
        return self._scored[index]


class SceneMemory:
    """The World's scenes that a process has seen, so that the stages it runs one after the other share them."""

    def __init__(self) -> None:
        self._known: dict[tuple[object, ...], Scenes] = {}

    def world(self, medium: str, split: str, data: DataRecipe, tokenizer: EntropyTokenizer) -> Scenes:
        """Scenes of the World as `data` describes them, scored by `tokenizer`'s selector."""
        video = medium == "video"
        size = data.video_size if video else data.image_size
        frame_count, folder = (data.frame_count, data.video_folder or None) if video else (None, None)
        # the fingerprint holds the budget too, which no score depends on: one eval.keep for a run's stages
        key = (medium, split, data.difficulty, data.seed, size, frame_count, folder, tokenizer.fingerprint())
        if key not in self._known:
            source = world_source(
                medium,
                split=split,
                difficulty=data.difficulty,
                seed=data.seed,
                size=size,
                frame_count=frame_count,
                folder=folder,
            )
            self._known[key] = Scenes(source, tokenizer)
        return self._known[key]
