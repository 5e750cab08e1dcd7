"""Where the files of a benchmark are: a folder, the zips that lie in it as they were published, or one zip."""

from __future__ import annotations

import io
import os
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from entropy_vision.errors import InputError, InputReason, UsageError
from entropy_vision.probe import check_path

_DEPTH = 3  # folders that are looked into: the named one and two below it
_CHUNK = 1 << 20
_LONGEST_NAME, _LONGEST_PATH = 255, 4000  # bytes
# of a member: cut, overwritten, or packed with a password or by a method that Python lacks
_UNREADABLE = (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError)


class BadRow(ValueError):
    """A row that is no question; its text is the reason. It is counted, not passed over in silence."""


@dataclass(frozen=True)
class Found:
    """A file that is there: on the disk, or a member of a zip."""

    folder: Folder
    path: Path
    member: str = ""

    @property
    def name(self) -> str:
        """What messages call it."""
        return f"{self.path}:{self.member}" if self.member else str(self.path)

    @property
    def real(self) -> str:
        """The same however its folder was spelled and whatever links lead to it."""
        path = os.path.realpath(self.path)
        return f"{path}:{self.member}" if self.member else path

    @property
    def stem(self) -> str:
        """The file's own name without its last suffix."""
        return PurePosixPath(self.member or self.path.as_posix()).stem

    def read(self) -> bytes:
        """All of its bytes.

        Raises:
            InputError: it cannot be read.
        """
        if not self.member:
            return check_path(self.path).read_bytes()
        try:
            return self.folder.archive(self.path).read(self.member)
        except (*_UNREADABLE, OSError) as error:
            raise InputError(self.name, InputReason.DAMAGED, f"the zip cannot give it ({error})") from None

    def open(self) -> BinaryIO:
        """Its bytes as a file that can seek; a member of a zip is read into memory for it."""
        return io.BytesIO(self.read()) if self.member else check_path(self.path).open("rb")

    @contextmanager
    def local(self) -> Iterator[Path]:
        """A path that decoders can open, for as long as the block runs; a member of a zip is copied for it."""
        if not self.member:
            yield self.path
            return
        with tempfile.NamedTemporaryFile(suffix=PurePosixPath(self.member).suffix[:16]) as copy:
            try:
                with self.folder.archive(self.path).open(self.member) as source:
                    while piece := source.read(_CHUNK):
                        copy.write(piece)
            except _UNREADABLE as error:
                raise InputError(self.name, InputReason.DAMAGED, f"the zip cannot give it ({error})") from None
            copy.flush()
            yield Path(copy.name)


class Folder:
    """A benchmark's files, found by name. Nothing is listed that need not be: media are looked up one by one.

    Raises:
        UsageError: there is neither a folder nor a zip of that name.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        self._open: dict[tuple[int, Path], zipfile.ZipFile] = {}
        if not self.root.is_dir() and not zipfile.is_zipfile(self.root):
            what = "is neither a folder nor a zip" if self.root.exists() else "is not there"
            raise UsageError(f"{self.root} {what}: name the folder that holds the benchmark's files")

    def __getstate__(self) -> dict[str, Any]:
        return {"root": self.root, "_open": {}}  # a process that it is sent to opens the zips again

    @cached_property
    def zips(self) -> list[Path]:
        """The zips that may hold files, in order."""
        if not self.root.is_dir():
            return [self.root]
        return sorted(path for level in range(_DEPTH) for path in self.root.glob("*/" * level + "*.zip"))

    def archive(self, path: Path) -> zipfile.ZipFile:
        """A zip, opened once in every process: one that was forked would move its parent's place in the file."""
        key = os.getpid(), path
        if key not in self._open:
            try:
                self._open[key] = zipfile.ZipFile(path)
            except (zipfile.BadZipFile, OSError) as error:
                raise UsageError(f"{path} is not a zip that can be read ({error})") from None
        return self._open[key]

    def find(self, patterns: Sequence[str], what: str) -> list[Found]:
        """The files of the first pattern that any file has, by name.

        Patterns are shell patterns of a path's end, such as `val/*.parquet`.

        Raises:
            UsageError: no file has one; the line says what was looked for, and where.
        """
        for pattern in patterns:
            found = self.matches(pattern)
            if found:
                return found
        zips = f" and in {len(self.zips)} zip(s)" if self.zips and self.root.is_dir() else ""
        raise UsageError(f"{self.root} holds no {what}: looked for {' or '.join(patterns)} there{zips}")

    def file(self, name: str) -> Found:
        """The file of exactly that name in the folder, there or not."""
        return Found(self, self.root / name)

    def matches(self, pattern: str) -> list[Found]:
        """The files of a pattern, by name; those on the disk before those in zips."""
        if self.root.is_dir():
            for level in range(_DEPTH):
                paths = sorted(path for path in self.root.glob("*/" * level + pattern) if path.is_file())
                if paths:
                    return [Found(self, path) for path in paths]
        return [
            Found(self, path, name)
            for path in self.zips
            for name in sorted(self.archive(path).namelist())
            if not name.endswith("/") and PurePosixPath(name).match(pattern)
        ]

    def locate(self, names: Sequence[str]) -> Found | None:
        """The first of several files that is there: each is looked for on the disk first, then in the zips.

        Args:
            names: paths below the folder; in a zip a member may have further folders in front.
        """
        if self.root.is_dir():
            for name in names:
                path = self.root / name
                if inside(name) and _is_file(path):
                    return Found(self, path)
        for name in names:
            for path, member in self._members.get(PurePosixPath(name).name, ()):
                if member == name or member.endswith(f"/{name}"):
                    return Found(self, path, member)
        return None

    @cached_property
    def _members(self) -> dict[str, list[tuple[Path, str]]]:
        named: dict[str, list[tuple[Path, str]]] = {}
        for path in self.zips:
            for member in self.archive(path).namelist():
                named.setdefault(PurePosixPath(member).name, []).append((path, member))
        return named


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a path too long, or a folder that may not be looked into
        return False


def check_name(name: str) -> str:
    """A path that a data file names, unless no file has one: half a surrogate pair, a part of more than 255 bytes, or
    4000 in all (systems take 4096, the folder's own path among them).

    Raises:
        BadRow: it is no name of a file.
    """
    try:
        size, parts = len(os.fsencode(name)), [len(os.fsencode(part)) for part in PurePosixPath(name).parts]
    except UnicodeEncodeError:
        raise BadRow(f"the file name {name[:20]!r} is no text") from None
    if size > _LONGEST_PATH or max(parts, default=0) > _LONGEST_NAME:
        bounds = f"{_LONGEST_NAME} bytes a part, {_LONGEST_PATH} in all"
        raise BadRow(f"the file name {name[:20]!r}… is too long for a file ({bounds})")
    return name


def inside(name: str) -> bool:
    """Whether a path that a data file names stays below the folder it is looked for in."""
    path = PurePosixPath(name)
    return bool(name) and not path.is_absolute() and ".." not in path.parts
