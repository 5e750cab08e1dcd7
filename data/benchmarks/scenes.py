"""Question files to train on: every picture or video with all that is asked about it, and a part held out."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Iterable, Sequence

from entropy_vision.errors import UsageError
from entropy_vision.frames import Frames

from .benchmark import Question, Skipped
from .catalogue import load
from .media import View

Group = tuple[Question, ...]


class FileScenes:
    """Some pictures or videos with their questions; decoded when they are asked for, and not kept.

    Attributes:
        groups: for every scene its questions, which share what they are about.
        view: how it is decoded.
    """

    def __init__(self, groups: Sequence[Group], view: View) -> None:
        self.groups, self.view = tuple(groups), view

    def __len__(self) -> int:
        return len(self.groups)

    def questions(self, index: int) -> Group:
        """All that is asked about scene `index`."""
        return self.groups[index]

    def name(self, index: int) -> str:
        """What scene `index` is called where it is told of."""
        return str(self.groups[index][0].medium.name)

    def frames(self, index: int) -> Frames:
        """Decode scene `index`.

        Raises:
            InputError: a file is missing or damaged; it names the file.
        """
        return self.groups[index][0].medium.frames(self.view)

    def sources(self, index: int) -> tuple[str, ...]:
        """What `preprocess` may have called scene `index`; nothing where it is no whole file."""
        return self.groups[index][0].medium.sources


def read_questions(tasks: Iterable[str]) -> tuple[list[Question], dict[str, list[Skipped]]]:
    """The questions of some files, each named as `load` takes it (`NAME:FOLDER`), and by name the rows that are none.

    Raises:
        UsageError: no such benchmark, file or column, or not one row is a question.
    """
    questions: list[Question] = []
    skipped: dict[str, list[Skipped]] = {}
    for task in tasks:
        held = load(task)
        if not held.questions:
            first = held.skipped[0]
            raise UsageError(
                f"{task}: none of its {held.rows} rows is a question ({first.where}: {first.reason}); "
                f"entropy-vision benchmarks {task} lists them"
            )
        questions += held.questions
        skipped[task] = held.skipped
    return questions, skipped


def group_scenes(questions: Iterable[Question]) -> list[Group]:
    """Questions about the same pictures together, whichever files they are from and however these name them; in order
    of appearance."""
    about: dict[Hashable, list[Question]] = {}
    for question in questions:
        medium = question.medium
        about.setdefault((medium.moving, medium.files, medium.span), []).append(question)
    return [tuple(group) for group in about.values()]


def hold_out(groups: Sequence[Group], share: float, seed: int) -> tuple[list[Group], list[Group]]:
    """(to train on, held out): about a `share` of the scenes, at least one, chosen by lot.

    Scenes that have a file in common (parts of one video, pairs of pictures that share one) stay together, so that
    nothing held out was seen in training. The lot of a scene depends on `seed` and on the names of its questions, so
    rows added to a file later change few sides.
    """
    linked = _linked(groups)
    lots = {link: _lot(seed, min(group[0].key for group in groups_of)) for link, groups_of in linked.items()}
    wanted, held = max(1, round(share * len(groups))), set[int]()
    taken = 0
    for link in sorted(linked, key=lambda link: lots[link]):
        if taken >= wanted:
            break
        held.add(link)
        taken += len(linked[link])
    train = [group for link, some in linked.items() if link not in held for group in some]
    return train, [group for link, some in linked.items() if link in held for group in some]


def apart_from(groups: Sequence[Group], others: Iterable[Group]) -> list[Group]:
    """The scenes that have no file in common with the others."""
    seen = {name for group in others for name in group[0].medium.files}
    return [group for group in groups if seen.isdisjoint(group[0].medium.files)]


def _linked(groups: Sequence[Group]) -> dict[int, list[Group]]:
    """Scenes by what they hang together with through files (union-find); each is called by its first scene."""
    parent = list(range(len(groups)))

    def root(place: int) -> int:
        while parent[place] != place:
            parent[place] = parent[parent[place]]
            place = parent[place]
        return place

    owner: dict[str, int] = {}
    for place, group in enumerate(groups):
        for name in group[0].medium.files:
            one, other = sorted((root(owner.setdefault(name, place)), root(place)))
            parent[other] = one
    linked: dict[int, list[Group]] = {}
    for place, group in enumerate(groups):
        linked.setdefault(root(place), []).append(group)
    return linked


def _lot(seed: int, key: str) -> bytes:
    return hashlib.sha256(f"{seed} {key}".encode(errors="surrogatepass")).digest()
