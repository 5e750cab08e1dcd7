"""Any questions in a WebDataset tar: for every key a KEY.json {question, answer, options?, rationale?} and media.

Media are KEY.jpg, .png, .webp or .mp4, also numbered as in KEY.0.jpg. The question is put as it stands, with its
options listed. (The form of the JSON is this project's: WebDataset fixes names, not fields.)
"""

from __future__ import annotations

import json
import os
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar

from entropy_vision.errors import InputError, InputReason, UsageError
from entropy_vision.frames import Frames, decode

from .answers import LETTERS, choice, choice_of, lettered, unlettered, word_or_number
from .benchmark import Question, Spec
from .folder import Folder
from .media import Medium, Stills, View
from .rows import BadRow, Row, json_rows
from .scores import family, over_questions

_FIELDS = ("question", "answer")
_STILL = (".jpg", ".jpeg", ".png", ".webp")
_MOVING = (".mp4", ".mkv", ".webm", ".avi", ".mov", ".gif")


@dataclass(frozen=True)
class _Member:
    """Where a member's bytes are in a tar."""

    tar: Path
    member: str
    offset: int
    size: int

    @property
    def name(self) -> str:
        return f"{self.tar}:{self.member}"

    @property
    def files(self) -> tuple[str, ...]:
        return (f"{os.path.realpath(self.tar)}:{self.member}",)

    @property
    def sources(self) -> tuple[str, ...]:
        return (f"tar://{self.member}::{os.path.abspath(self.tar)}",)

    def content(self) -> bytes:
        with self.tar.open("rb") as file:
            file.seek(self.offset)
            content = file.read(self.size)
        if len(content) < self.size:
            raise InputError(self.name, InputReason.DAMAGED, "the tar ends inside this member")
        return content

    def read(self) -> list[bytes]:
        return [self.content()]

    def missing(self) -> bool:
        return False


@dataclass(frozen=True)
class _Video:
    """A video in a tar."""

    member: _Member
    moving: ClassVar[bool] = True
    span: ClassVar[None] = None

    @property
    def name(self) -> str:
        return self.member.name

    @property
    def files(self) -> tuple[str, ...]:
        return self.member.files

    @property
    def sources(self) -> tuple[str, ...]:
        return self.member.sources

    def frames(self, view: View) -> Frames:
        with tempfile.NamedTemporaryFile(suffix=PurePosixPath(self.member.member).suffix) as copy:
            copy.write(self.member.content())
            copy.flush()
            try:
                return view.fitted(decode(copy.name, view.sampling, size=view.decoded)[0])
            except InputError as error:
                raise InputError(self.name, error.reason, error.detail) from None

    def missing(self) -> list[str]:
        return []


def _rows(folder: Folder, split: str) -> Iterator[Row]:
    path = folder.file(split).path
    groups: dict[str, list[_Member]] = {}
    try:
        with tarfile.open(path, "r:") as archive:
            for entry in archive:
                if entry.isreg():
                    stem = PurePosixPath(entry.name).name.split(".")[0]
                    key = str(PurePosixPath(entry.name).parent / stem)
                    groups.setdefault(key, []).append(_Member(path, entry.name, entry.offset_data, entry.size))
    except (tarfile.TarError, OSError, EOFError) as error:
        raise UsageError(f"{path} cannot be read as a tar ({error})") from None
    records: list[Any] = []
    for key, members in groups.items():
        told = next((one for one in members if one.member.endswith(".json")), None)
        try:
            held = json.loads(told.content()) if told else {}
        except (ValueError, RecursionError):
            held = {}
        records.append({**held, "key": key, "members": members} if isinstance(held, dict) else {"key": key})
    return json_rows(records, str(path), _FIELDS)


def _ask(row: Row, folder: Folder, split: str) -> Question:
    question, truth = row.text("question"), row.values.get("answer")
    options = row.texts("options") if row.values.get("options") is not None else []
    bare = [unlettered(option) for option in options]
    if options and isinstance(truth, str):
        answer = choice(truth, bare) if truth.strip("().") in tuple(LETTERS[: len(bare)]) else choice_of(truth, bare)
    else:
        answer = word_or_number(truth)
    return Question(
        key=f"webdataset-{split}-{row.values['key']}",
        text="\n".join([question, *lettered(bare)]),
        answer=answer,
        family=str(row.values.get("category") or "question"),
        medium=_medium(row),
        meta={"profile": "robust", "question": question},
        rationale=str(row.values.get("rationale") or ""),
    )


def _medium(row: Row) -> Medium:
    members: list[_Member] = row.values.get("members", [])
    ends = [(PurePosixPath(one.member).suffix.lower(), one) for one in members]
    videos = [one for end, one in ends if end in _MOVING]
    if videos:
        return _Video(videos[0])
    images = sorted((one for end, one in ends if end in _STILL), key=lambda one: one.member)
    if not images:
        raise BadRow("the sample has no image and no video")
    return Stills(tuple(images))


SPEC = Spec(
    name="webdataset",
    title="Any questions in a WebDataset tar",
    media="any",
    files=("the .tar: KEY.json and KEY.jpg, .png, .webp or .mp4",),
    columns=(*_FIELDS, "options, category, rationale (optional)"),
    splits=(),
    prompt="question ↵ A. … as it stands",
    metric="accuracy over questions; by category beside it",
    licence="that of the file",
    profile="robust",
    rows=_rows,
    ask=_ask,
    aggregate=over_questions(family),
)
