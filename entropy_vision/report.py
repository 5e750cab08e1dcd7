"""One self-contained page: what was kept, what that saved, what was learned.

No external address, no network, a content policy that runs only the page's own script, all text escaped.
The demo, `show` and `bench` fill a `Report`; `write_report` makes the file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from entropy_vision.atomic import atomic_write
from entropy_vision.frames import Frames
from entropy_vision.page import render
from entropy_vision.patchset import PatchSet


@dataclass(frozen=True, kw_only=True, eq=False)
class Story:
    """One video or image and what was kept of it.

    Attributes:
        title: a few words.
        frames: what was scored; up to 16 frames are shown, evenly spread.
        kept: the selection; its grid has one layer a frame.
        beside: other selections of the same frames, shown next to it.
        note: a sentence below the title.
        predictors: uint8 [F, R, C], the predictor closest to each patch of `kept`, as `predictors_of` has it.
        question, answer, completion: what was asked, the truth, what the policy said ("" where there is none).
        right: whether the completion was verified as right; None where it was not verified.
    """

    title: str
    frames: Frames
    kept: PatchSet
    beside: tuple[PatchSet, ...] = ()
    note: str = ""
    predictors: np.ndarray | None = None
    question: str = ""
    answer: str = ""
    completion: str = ""
    right: bool | None = None

    def __post_init__(self) -> None:
        for kept in (self.kept, *self.beside):
            if kept.grid[0] != self.frames.count:
                raise ValueError(
                    f"Story.kept must have a grid layer a frame: {self.frames.count} frames, grid {kept.grid}"
                )
        if self.predictors is not None and self.predictors.shape != self.kept.grid:
            raise ValueError(f"Story.predictors {self.predictors.shape} must have the grid {self.kept.grid}")


@dataclass(frozen=True, kw_only=True)
class AccuracyRow:
    """Accuracy of a policy that sees what a selector keeps.

    Attributes:
        selector: name; "blind" (no visual token) is drawn as a line across.
        keep: fraction of patches kept; 1.0 is dense; 0.0 for blind.
        accuracy, low, high: share of right answers and its 95 % interval, in [0, 1]; None where not measured.
        n: questions.
        tokens: visual tokens a question.
        flops: FLOPs a question.
        seconds: seconds a question, selection included.
    """

    selector: str
    keep: float
    accuracy: float | None = None
    low: float | None = None
    high: float | None = None
    n: int = 0
    tokens: float = 0.0
    flops: float = 0.0
    seconds: float = 0.0


@dataclass(frozen=True, kw_only=True)
class CurvePoint:
    """What was measured at a training step: name -> value, such as reward, accuracy, kl, length."""

    step: int
    values: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class Headline:
    """One number of the first screen: `value` is text as it is shown, `note` says against what or over what."""

    label: str
    value: str
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One question with the completion before and after training; `right_*` where they were verified."""

    question: str
    answer: str
    before: str
    after: str
    right_before: bool | None = None
    right_after: bool | None = None


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows of text under a heading; the first column names them.

    Attributes:
        title, note: the heading and the sentence below it.
        head: names of the columns.
        rows: as many cells each.
    """

    title: str
    note: str = ""
    head: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A drawing, held by the page itself.

    Attributes:
        title, note: the heading and the sentence below it.
        png: the file's content.
        described: what it shows, for those who do not see it.
    """

    title: str
    note: str = ""
    png: bytes
    described: str


@dataclass(frozen=True, kw_only=True, eq=False)
class Report:
    """Everything a page shows; an empty part is left out.

    Attributes:
        title, lead: first line and the sentence below it.
        headlines: up to six numbers.
        stories: videos and images.
        accuracy: rows of every selector and keep, dense and blind among them.
        accuracy_note: what was asked of whom.
        curve: training, in the order of steps.
        curve_note: what was trained, on what, how many completions a step.
        samples: completions before and after.
        samples_note: how these were chosen.
        pictures, tables: what else there is, in this order, before the settings.
        settings: name -> value, as text.
        command: the line that made all this.
    """

    title: str
    lead: str = ""
    headlines: Sequence[Headline] = ()
    stories: Sequence[Story] = ()
    accuracy: Sequence[AccuracyRow] = ()
    accuracy_note: str = ""
    curve: Sequence[CurvePoint] = ()
    curve_note: str = ""
    samples: Sequence[Sample] = ()
    samples_note: str = "The same questions before and after."
    pictures: Sequence[Picture] = ()
    tables: Sequence[Table] = ()
    settings: Mapping[str, object] = field(default_factory=dict)
    command: str = ""


def render_report(report: Report) -> str:
    """The page as one string of HTML."""
    return render(report)


def write_report(report: Report, path: str | Path) -> Path:
    """Write the page, making its folder; the file appears whole or not at all.

    Returns:
        The path written.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, render_report(report), durable=False)
    return path
