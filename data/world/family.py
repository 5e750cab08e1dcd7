"""What a family of questions is. One small file a family; `families.py` lists them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from entropy_vision.question import Answer

from .layout import Layout, Media, Wish
from .stage import Setting, Stage

T = TypeVar("T")


@dataclass(frozen=True)
class Ask:
    """A question that a layout answers with the target that was drawn for it.

    Attributes:
        question, answer, rationale: as in `Item`.
        needs: (index of a sprite, first frame that matters), and where it matters no longer the frame after the last
            one, for everything one must see to answer.
    """

    question: str
    answer: Answer
    rationale: str
    needs: tuple[tuple[int, int] | tuple[int, int, int], ...]


@dataclass(frozen=True)
class Family:
    """A kind of question.

    Attributes:
        name: what users call it.
        media: what its questions are about.
        targets: the equally frequent answers (or answer positions); drawn before the scene.
        templates: paraphrases with {a}, {b} and {c} for nouns.
        words: words of answers and rationales beside colours, shapes and the grid.
    """

    name: str
    media: Media
    targets: tuple[Any, ...]
    templates: tuple[str, ...]
    words: tuple[str, ...] = ()

    def question(self, rng: np.random.Generator, a: str, b: str = "", c: str = "") -> str:
        """One of the paraphrases, each as likely as any other."""
        return pick(rng, self.templates).format(a=a, b=b, c=c)


@dataclass(frozen=True, kw_only=True)
class LayoutFamily(Family):
    """A kind of question that is asked of the layouts which several families share.

    Attributes:
        pose: finds in a layout a question whose answer is the target; None where the layout has none.
        wish: what the target needs of a layout, to throw few away.
        twice: whether scenes of several families are asked two questions of this one, with different answers.
        held_out: the paraphrase that only the split "template" uses, in words of the others.
        splits: which of the splits beside those of `IID` it has.
        twin: changes a layout so that the question has another answer; None where there is no such change.
    """

    pose: Callable[[LayoutFamily, Layout, Any, np.random.Generator], Ask | None]
    wish: Callable[[Any], Wish] = lambda target: Wish()
    twice: bool = True
    held_out: str
    splits: tuple[str, ...] = ("cogent_a", "cogent_b", "template", "more", "background")
    twin: Callable[[Layout, Ask], tuple[Layout, Ask]] | None = None


@dataclass(frozen=True, kw_only=True)
class StagedFamily(Family):
    """A kind of question that brings scenes of its own.

    Attributes:
        stage: draws a scene in which the answer is the target; None where the draw does not fit, then it is
            called again with the same stream.
        held_out: the paraphrase that only the split "template" uses.
        splits: which of the splits "template", "more" and "background" change its scenes.
        twin: the target of the twin: the same stream then gives the same question with another answer. None where
            the question's words depend on the answer.
    """

    stage: Callable[[StagedFamily, Any, Setting, np.random.Generator], Stage | None]
    held_out: str
    splits: tuple[str, ...] = ("template", "more", "background")
    twin: Callable[[Any], Any] | None = None

    def worded(self, setting: Setting, rng: np.random.Generator, a: str = "", b: str = "", c: str = "") -> str:
        """A paraphrase of those that the split uses."""
        text = self.question(rng, a, b, c)
        return self.held_out.format(a=a, b=b, c=c) if setting.split == "template" else text


def pick(rng: np.random.Generator, things: Sequence[T]) -> T:
    """One of several things, each as likely as any other."""
    return things[int(rng.integers(len(things)))]


def branch(rng: np.random.Generator) -> np.random.Generator:
    """Another stream, for what takes more or fewer draws from answer to answer: all else stays the same in a twin."""
    return np.random.Generator(np.random.Philox(key=int(rng.integers(2**63))))


def letter(options: Sequence[str], option: str) -> str:
    """The letter behind which an option stands: A for the first."""
    return "ABCDEFGHIJ"[options.index(option)]
