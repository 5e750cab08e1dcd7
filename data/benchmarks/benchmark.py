"""What a benchmark is: its questions in order, decoded one by one, and what its published number is made of."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import numpy as np

from entropy_vision.errors import UsageError
from entropy_vision.frames import Frames
from entropy_vision.grid import grid_size
from entropy_vision.question import Answer, Item

from .folder import Folder
from .media import Medium, View
from .rows import BadRow, Row

_PATCH = 16  # of evidence masks


class Asked(Protocol):
    """What the aggregation of scores reads of a question: an `Item` or a `Question`."""

    @property
    def family(self) -> str: ...

    @property
    def scene(self) -> str: ...

    @property
    def meta(self) -> Mapping[str, Any]: ...


@dataclass(frozen=True, kw_only=True, eq=False)
class Question:
    """One question whose pictures are not decoded yet: `open` decodes them and gives the `Item`.

    Attributes:
        key: its name, unique within the benchmark and split.
        text: what is put to the policy, the official prompt around it; `meta["question"]` is without.
        answer: the truth.
        family: the benchmark's own kind of question.
        medium: what it is about.
        meta: `profile`, the name under which `verify` scores it, and what the aggregation needs.
        mask: evidence, bool [F, R, C] at patch size 16 of the frames it is given, where the truth is known.
        rationale: the thoughts that the file demonstrates before its answer, without tags; "" where it has none.
    """

    key: str
    text: str
    answer: Answer
    family: str
    medium: Medium
    meta: Mapping[str, Any] = field(default_factory=dict)
    mask: Callable[[Frames], np.ndarray] | None = None
    rationale: str = ""

    @property
    def scene(self) -> str:
        """The name of what it is about; questions about the same pictures share it."""
        return self.medium.name

    def open(self, view: View, frames: Frames | None = None) -> Item:
        """Decode the pictures, unless they are given.

        `Item.evidence` of footage is True everywhere: nobody says which patches hold the answer. The array takes no
        memory.

        Raises:
            InputError: a file is missing or damaged.
        """
        frames = self.medium.frames(view) if frames is None else frames
        return Item(
            frames=frames,
            question=self.text,
            answer=self.answer,
            evidence=everywhere(frames) if self.mask is None else self.mask(frames),
            family=self.family,
            key=self.key,
            scene=self.scene,
            rationale=self.rationale,
            meta=self.meta,
        )


@dataclass(frozen=True)
class Skipped:
    """A row that gave no question.

    Attributes:
        where: file and row.
        reason: one line.
    """

    where: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Spec:
    """A benchmark as it is published, and how its files become questions. One small file a benchmark.

    Attributes:
        name: what users call it.
        title: its full name and paper.
        media: "image", "images" (several to a question), "video", or "any" where the container holds them all.
        files: the files it wants, below the folder.
        columns: the columns or fields that are read.
        splits: their names, the usual one first.
        prompt: the text put around the question, and where it is from.
        metric: how the published number is made.
        faults: what is known to be wrong with the official metric; "" where nothing is.
        licence: of data and footage, as their owners state it.
        profile: the name under which `verify` scores an answer as published.
        rows: the rows of a split.
        ask: one row's question. It raises BadRow for what is none.
        aggregate: the published numbers, as fractions, from a score in [0, 1] for every question.
    """

    name: str
    title: str
    media: str
    files: tuple[str, ...]
    columns: tuple[str, ...]
    splits: tuple[str, ...]
    prompt: str
    metric: str
    licence: str
    profile: str
    rows: Callable[[Folder, str], Iterator[Row]]
    ask: Callable[[Row, Folder, str], Question]
    aggregate: Callable[[Sequence[float], Sequence[Asked]], dict[str, float]]
    faults: str = ""


class Benchmark:
    """The questions of one split; a `QuestionSource`. Every row of the files is a question or is in `skipped`.

    Attributes:
        spec: the benchmark.
        split: the name of the split.
        view: how pictures are decoded.
        questions: in the order of the files.
        skipped: rows that are no question, with reasons.
    """

    def __init__(self, spec: Spec, folder: Folder, split: str, view: View) -> None:
        self.spec, self.split, self.view = spec, split, view
        self.questions: list[Question] = []
        self.skipped: list[Skipped] = []
        self._last: tuple[str, Frames] | None = None
        keys: set[str] = set()
        for row in spec.rows(folder, split):
            try:
                question = spec.ask(row, folder, split)
                if question.key in keys:
                    raise BadRow(f"the identifier {question.key} was there before")
            except BadRow as error:
                self.skipped.append(Skipped(row.where, str(error)))
                continue
            keys.add(question.key)
            self.questions.append(question)
        if not self.questions and not self.skipped:
            raise UsageError(f"{folder.root} holds no question of {spec.name} {split}")

    def __getstate__(self) -> dict[str, Any]:
        # for other processes: a spec holds functions and goes by its name, frames are decoded there
        return {**self.__dict__, "spec": self.spec.name, "_last": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        from .catalogue import spec_of

        self.__dict__ |= {**state, "spec": spec_of(state["spec"])}

    @property
    def rows(self) -> int:
        """Rows read: questions and skipped ones."""
        return len(self.questions) + len(self.skipped)

    def __repr__(self) -> str:
        return f"Benchmark({self.spec.name!r}, {self.split!r}: {len(self)} questions, {len(self.skipped)} rows skipped)"

    def __len__(self) -> int:
        return len(self.questions)

    def __getitem__(self, index: int) -> Item:
        """Question `index`, its pictures decoded now (those of the question before are kept).

        Raises:
            InputError: a file is missing or damaged; it names the file.
        """
        question = self.questions[index]
        if self._last is None or self._last[0] != question.scene:
            self._last = question.scene, question.medium.frames(self.view)
        return question.open(self.view, self._last[1])

    @cached_property
    def scenes(self) -> list[tuple[int, ...]]:
        """For every picture or video, in order of appearance, the places of its questions."""
        named: dict[str, list[int]] = {}
        for place, question in enumerate(self.questions):
            named.setdefault(question.scene, []).append(place)
        return [tuple(places) for places in named.values()]

    def scene(self, index: int) -> list[Item]:
        """Every question about picture or video `index`; all share one `frames`.

        Raises:
            InputError: as for one question.
        """
        asked = [self.questions[place] for place in self.scenes[index]]
        frames = asked[0].medium.frames(self.view)
        return [question.open(self.view, frames) for question in asked]

    def seen(self, view: View) -> Benchmark:
        """The same questions, with their pictures decoded another way."""
        other = copy(self)
        other.view, other._last = view, None
        return other

    def missing(self) -> list[str]:
        """Names of files that questions need and that are not there; nothing is decoded."""
        seen: dict[str, None] = {}
        for places in self.scenes:
            seen.update(dict.fromkeys(self.questions[places[0]].medium.missing()))
        return list(seen)

    def without(self, left_out: Callable[[Question], bool], reason: str) -> Benchmark:
        """The same benchmark without some questions: scenes that were trained on, for one. They count as skipped.

        Args:
            left_out: whether to leave a question out.
            reason: why, for `skipped`.
        """
        fewer = copy(self)
        fewer.__dict__.pop("scenes", None)  # of all questions
        gone = [question for question in self.questions if left_out(question)]
        keys = {question.key for question in gone}
        fewer.questions = [question for question in self.questions if question.key not in keys]
        fewer.skipped = [*self.skipped, *(Skipped(question.key, reason) for question in gone)]
        return fewer

    def aggregate(self, scores: Sequence[float], items: Sequence[Asked] | None = None) -> dict[str, float]:
        """The published numbers, as fractions; `overall` is the headline.

        Args:
            scores: what `verify(..., profile=item.meta["profile"])` gave, in [0, 1].
            items: whose scores they are; all questions in order where not given.

        Raises:
            UsageError: not one score a question, or one outside 0..1.
        """
        asked = self.questions if items is None else items
        if len(scores) != len(asked):
            raise UsageError(f"aggregate takes one score a question: {len(asked)} questions, {len(scores)} scores")
        wrong = next((score for score in scores if not 0.0 <= score <= 1.0), None)
        if wrong is not None:
            raise UsageError(f"aggregate takes scores of 0 to 1, as verify gives them, got {wrong!r}")
        return self.spec.aggregate(scores, asked)


def everywhere(frames: Frames) -> np.ndarray:
    """Evidence where no truth is known: bool [F, R, C], all True, read-only, of no size in memory."""
    rows, columns = grid_size(*frames.size, _PATCH)
    return np.broadcast_to(np.True_, (frames.count, rows, columns))
