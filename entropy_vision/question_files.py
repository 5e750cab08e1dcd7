"""Questions of the user's own files, for the parts that may not know the loaders: rl asks here, data answers lazily."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from entropy_vision.errors import UsageError
from entropy_vision.frames import Frames, Size
from entropy_vision.patchset import PatchSet
from entropy_vision.question import Answer
from entropy_vision.visuals import Fit


class FileQuestion(Protocol):
    """A question whose picture is not decoded; see `data.benchmarks.Question`."""

    @property
    def key(self) -> str: ...

    @property
    def text(self) -> str: ...

    @property
    def answer(self) -> Answer: ...

    @property
    def family(self) -> str: ...

    @property
    def rationale(self) -> str: ...

    @property
    def meta(self) -> Mapping[str, Any]: ...


class FileScenes(Protocol):
    """Pictures or videos with all that is asked about each; see `data.benchmarks.scenes.FileScenes`."""

    def __len__(self) -> int: ...

    def questions(self, index: int) -> Sequence[FileQuestion]: ...

    def frames(self, index: int) -> Frames: ...

    def sources(self, index: int) -> tuple[str, ...]: ...

    def name(self, index: int) -> str: ...


class StoredPatches(Protocol):
    """Kept patches by the file they are of; see `data.by_source.BySource`."""

    def first(self) -> Sequence[Sequence[PatchSet]]: ...

    def __contains__(self, sources: object) -> bool: ...

    def __getitem__(self, sources: Sequence[str]) -> PatchSet: ...


@dataclass(frozen=True)
class Asked:
    """The questions of a run.

    Attributes:
        train, val: scenes to learn from and to be measured on, by medium ("image", "video"); no file is in both.
        skipped: {NAME:FOLDER: a line for every row that is no question}.
    """

    train: Mapping[str, FileScenes]
    val: Mapping[str, FileScenes]
    skipped: Mapping[str, Sequence[str]]


def read_asked(
    train: Sequence[str],
    val: Sequence[str],
    *,
    share: float,
    seed: int,
    image_size: Size,
    video_size: Size,
    frame_count: int,
    fit: Fit = "stretch",
    scaled: tuple[int, int] | None = None,
) -> Asked:
    """Read question files, each `NAME:FOLDER` as `eval --tasks` takes it, or `NAME/SPLIT:FOLDER`.

    Args:
        train: what to learn from; without any, all is the World's but what `val` names.
        val: what to be measured on; without any, a share of the scenes of `train` that are then not learned from.
            Scenes that have a file in common with these are not learned from either.
        share: how much of `train` is held out; in (0, 1).
        seed: of the lot that chooses it.
        image_size, video_size: sides in pixels, or (height, width).
        frame_count: frames of a video, spread evenly.
        fit, scaled: how pictures of other sizes are brought there, see `visuals.fitted`.

    Raises:
        UsageError: a file that is not there or holds no question, or nothing is left to learn from.
    """
    from entropy_vision.data.benchmarks.media import View
    from entropy_vision.data.benchmarks.scenes import FileScenes as Scenes
    from entropy_vision.data.benchmarks.scenes import apart_from, group_scenes, hold_out, read_questions
    from entropy_vision.sampling import Sampling

    questions, skipped = read_questions(train)
    groups = group_scenes(questions)
    if val:
        measured, unread = read_questions(val)
        held = group_scenes(measured)
        learned, skipped = apart_from(groups, held), skipped | unread
    else:
        learned, held = [], []
        for moving in (False, True):  # of each medium its share
            some = [group for group in groups if group[0].medium.moving == moving]
            more, less = hold_out(some, share, seed) if some else ([], [])
            learned, held = learned + more, held + less
        learned = apart_from(learned, held)  # a file may be both, a picture here and a video there
    if train and not learned:
        why = (
            "all are in eval.questions too" if val else "give more, or name others to be measured on in eval.questions"
        )
        raise UsageError(f"data.questions: no scene of {', '.join(train)} is left to learn from: {why}")
    sampling = Sampling(frames=frame_count)
    views = {
        "image": View(size=image_size, sampling=sampling, fit=fit, scaled=scaled),
        "video": View(size=video_size, sampling=sampling, fit=fit, scaled=scaled),
    }

    def by_medium(some: Sequence[Any]) -> dict[str, FileScenes]:
        parts = {name: [g for g in some if g[0].medium.moving == (name == "video")] for name in views}
        return {name: Scenes(part, views[name]) for name, part in parts.items() if part}

    told = {task: [f"{row.where}: {row.reason}" for row in rows] for task, rows in skipped.items()}
    return Asked(by_medium(learned), by_medium(held), told)


def stored_patches(folders: Sequence[str]) -> StoredPatches:
    """The kept patches in folders that `preprocess` wrote.

    Raises:
        InputError: no finished shards there, or a damaged marker.
    """
    from entropy_vision.data.by_source import BySource

    return BySource(folders)
