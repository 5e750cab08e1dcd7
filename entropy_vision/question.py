"""Question, answer, item: what data gives and rl verifies; the only types the two share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, get_args

import numpy as np

from entropy_vision.errors import UsageError
from entropy_vision.frames import Frames

AnswerKind = Literal[
    "exact", "choice", "integer", "number", "yesno", "ordering", "point", "box", "boxes", "set", "interval"
]


@dataclass(frozen=True)
class Answer:
    """The truth a completion is verified against. Its kind is checked here, its value by the verifiers before they
    read anything (`rl.verifiers`), so that a bad gold answer is an error and never a zero.

    Attributes:
        kind: what is asked for.
        value: exact str | choice letter | integer int | number float | yesno bool | ordering list[str] |
            point (x, y) | box (x0, y0, x1, y1) | boxes list of those | set set[str] | interval (t0, t1) seconds.
        options: the texts behind the letters A, B, ... of a choice.
        tolerance: how far a number may be off; a fraction of the truth where `relative`.
        mra: score a number by mean relative accuracy instead.
        radius: how far a point may be off, in the units of the point.
        aliases: other texts that are as right as an exact value.
        partial: graded credit where the kind has a measure for it and its default is all or nothing: Kendall's tau for
            an ordering, F1 for a set, mean relative accuracy for an integer or a number (docs/verifiers.md).
    """

    kind: AnswerKind
    value: Any
    options: tuple[str, ...] = ()
    tolerance: float | None = None
    relative: bool = False
    mra: bool = False
    radius: float | None = None
    aliases: tuple[str, ...] = ()
    partial: bool = False

    def __post_init__(self) -> None:
        if self.kind not in get_args(AnswerKind):
            raise UsageError(f"Answer.kind must be one of {', '.join(get_args(AnswerKind))}, got {self.kind!r}")
        for name in ("options", "aliases"):
            texts = tuple(getattr(self, name))
            if not all(isinstance(text, str) for text in texts):
                raise UsageError(f"Answer.{name} must be texts, got {texts!r}")
            object.__setattr__(self, name, texts)


@dataclass(frozen=True, kw_only=True, eq=False)
class SceneObject:
    """One drawn thing and where it is: the World's own truth, for alignment targets and rationales.

    Attributes:
        color, shape: the words the questions use.
        boxes: float32 [F, 4], (x0, y0, x1, y1) as fractions of width and height; NaN where it is not visible.
    """

    color: str
    shape: str
    boxes: np.ndarray


@dataclass(frozen=True, kw_only=True, eq=False)
class Item:
    """One verifiable question about some frames.

    Attributes:
        frames: the picture (one frame) or video.
        question: the text put to the policy; it names the possible answers of a choice in words.
        answer: the truth.
        evidence: bool [F, R, C] at patch size 16 (edge patches padded): patches one must see to answer.
        family: name of the question family.
        key: unique name of the item: family, split, difficulty, seed, index.
        scene: name of the scene; items of one scene share their frames.
        rationale: a true chain of short steps that leads to the answer, without tags ("" where there is none).
        objects: what is drawn (empty for real footage).
    """

    frames: Frames
    question: str
    answer: Answer
    evidence: np.ndarray
    family: str
    key: str
    scene: str
    rationale: str = ""
    objects: Sequence[SceneObject] = ()
    meta: Mapping[str, Any] = field(default_factory=dict)


class QuestionSource(Protocol):
    """Anything that deals scenes with questions: a World, a folder of shards, a benchmark.

    `scene(i)` gives every question about scene i; all its items share one `frames`.
    """

    def scene(self, index: int) -> list[Item]: ...
