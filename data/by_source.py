"""Kept patches by the file they are of, from one or several folders of shards."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from entropy_vision.errors import InputError, InputReason

from .archive import read_marker
from .index import Access, read_index
from .paths import as_path, is_remote
from .sample import Sample
from .shards import finished
from .source import sha256_of

_TAR = "tar://"


class BySource:
    """The samples of some folders, each found by the name or, where the file was moved, by the content of its source.

    What a name finds are the patches of the file as it was when `preprocess` read it; the file itself need not be
    there. Of two samples of one file the later counts.
    """

    def __init__(self, folders: Sequence[str | Path]) -> None:
        """
        Raises:
            InputError: no finished shards in a folder, or a damaged marker.
        """
        self._folders: list[Access] = []
        self._names: dict[str, tuple[int, int]] = {}
        self._contents: dict[str, tuple[int, int]] = {}
        self._first: list[dict[bool, int]] = []  # the places of a folder's first still (False) and video (True)
        for number, folder in enumerate(map(as_path, folders)):
            self._folders.append(Access(read_index(folder)))
            lines = (line for marker in finished(folder) for line in read_marker(marker).samples)
            self._first.append({})
            for place, line in enumerate(lines):
                self._names[_absolute(str(line.get("source", "")))] = number, place
                self._contents[str(line.get("sha256", ""))] = number, place
                self._first[number].setdefault(line["frames"] > 1, place)
        for held in (self._names, self._contents):
            held.pop("", None)  # of no file

    def first(self) -> list[list[Sample]]:
        """Of every folder the first still and the first video, where it has both."""
        pairs = zip(self._folders, self._first, strict=True)
        return [[folder[place] for place in places.values()] for folder, places in pairs]

    def __contains__(self, sources: object) -> bool:
        """Whether one of these names has patches; no file is opened."""
        return isinstance(sources, tuple) and any(_absolute(name) in self._names for name in sources)

    def __getitem__(self, sources: Sequence[str]) -> Sample:
        """The patches of the first of these files that has some.

        Raises:
            InputError: MISSING where none has, and whatever reading a sample raises.
        """
        place = next((self._names[name] for name in map(_absolute, sources) if name in self._names), None)
        if place is None:
            contents = (sha256_of(Path(name)) for name in sources if Path(name).is_file())
            place = next((self._contents[one] for one in contents if one in self._contents), None)
        if place is None:
            raise InputError(sources[0], InputReason.MISSING, "no shard holds its patches")
        folder, number = place
        return self._folders[folder][number]


def _absolute(name: str) -> str:
    """A source's name with the path in it absolute, however it was written when the shards were made."""
    if name.startswith(_TAR):
        member, _, path = name.removeprefix(_TAR).partition("::")
        return f"{_TAR}{member}::{_absolute(path)}"
    return name if not name or name.startswith("bytes:") or is_remote(name) else os.path.abspath(name)
