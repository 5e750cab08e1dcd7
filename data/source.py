"""An input: a file, an object of a store, or a member of a tar, and what tells whether it has changed."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote, unquote

from entropy_vision.errors import InputError, InputReason
from entropy_vision.probe import check_path

from .paths import as_path, is_remote

_CHUNK = 1 << 20


class NoRoom(Exception):
    """An input cannot be copied to this machine, which is not its fault; the argument is the errno."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where an input is.

    Attributes:
        path: of the file, or the address of the object.
        member: its name inside the tar that `path` is; "" for the file itself.
        offset: where the member begins in the tar.
        size: bytes; -1 where there is no such file.
        stamp: differs when the content was changed: the time of the last change, or the tag of the store.
    """

    path: str
    member: str = ""
    offset: int = 0
    size: int = -1
    stamp: str = ""

    @property
    def name(self) -> str:
        """What it is called everywhere: its path, for a member fsspec's `tar://member::path`; where that is no UTF-8,
        `bytes:` and what a URL would write."""
        name = f"tar://{self.member}::{self.path}" if self.member else self.path
        try:
            name.encode()
        except UnicodeEncodeError:
            return f"bytes:{quote(name, errors='surrogatepass')}"
        return name

    @property
    def stands_alone(self) -> bool:
        """True for a file on a disk of this machine, which decoders open where it is."""
        return not self.member and not is_remote(self.path)


def stat(path: Path) -> Source:
    """The source that a path names, there or not."""
    try:
        status = path.stat()
    except (OSError, ValueError):  # ValueError: a NUL byte in the name, or what is no text at all
        return Source(path=str(path))
    if is_remote(path):
        stamp = str(path.fs.ukey(path.path))  # type: ignore[attr-defined]
    else:
        stamp = str(status.st_mtime_ns)
    return Source(path=str(path), size=status.st_size, stamp=stamp)


def by_name(name: str) -> Source:
    """The source of a name as `Source.name` gives it, as it is today.

    Raises:
        InputError: a member that its tar does not hold any more.
    """
    if name.startswith("bytes:"):
        name = unquote(name.removeprefix("bytes:"), errors="surrogatepass")
    if not name.startswith("tar://"):
        return stat(as_path(name))
    from .tars import members

    member, path = _split(name.removeprefix("tar://"))
    found = next((one for one in members(as_path(path)) if one.member == member), None)
    if found is None:
        raise InputError(path, InputReason.MISSING, f"the tar holds no {member}")
    return found


def _split(name: str) -> tuple[str, str]:
    """`member::path`, where either may hold `::` itself: the longest path that is there, or the longest there is."""
    parts = name.split("::")
    splits = [("::".join(parts[:i]), "::".join(parts[i:])) for i in range(1, len(parts))]
    return next((one for one in splits if len(splits) > 1 and as_path(one[1]).exists()), splits[0])


def digest(source: Source) -> str:
    """What tells contents apart, in hex: the sha256 of what this machine holds; of an object elsewhere, one of its
    address, size and tag, so that nothing is loaded twice. "" where it cannot be read.
    """
    if is_remote(source.path):
        told = f"{source.name}\n{source.size}\n{source.stamp}"
        return hashlib.sha256(told.encode()).hexdigest() if source.size >= 0 else ""
    try:
        if not source.member:
            return sha256_of(check_path(source.path))
        taken = hashlib.sha256()
        for piece in _pieces(source):
            taken.update(piece)
    except (OSError, InputError):  # whoever does the work meets it again, and says what it is
        return ""
    return taken.hexdigest()


def sha256_of(path: Path) -> str:
    """Checksum of a file's content, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def bytes_digest(content: bytes) -> str:
    """Checksum of bytes, in hex."""
    return hashlib.sha256(content).hexdigest()


@contextmanager
def localized(source: Source, scratch: Path) -> Iterator[Path]:
    """A file on this machine that holds the source: itself, or a copy for as long as the block runs.

    Raises:
        InputError: there is no such file, or it cannot be read.
        NoRoom: the copy cannot be written.
    """
    if source.stands_alone:
        path = check_path(source.path)
        if stat(path) != source:
            raise InputError(source.name, InputReason.CHANGED, "the file has changed since the run began: run it again")
        yield path
        return
    with tempfile.NamedTemporaryFile(dir=scratch, suffix=Path(source.member or source.path).suffix[:16]) as copy:
        for piece in _fetched(source):
            try:
                copy.write(piece)
                copy.flush()
            except OSError as error:
                raise NoRoom(error.errno) from None
        yield check_path(copy.name)


def _fetched(source: Source) -> Iterator[bytes]:
    pieces = _pieces(source)
    while True:
        try:
            piece = next(pieces, b"")
        except FileNotFoundError:
            raise InputError(source.name, InputReason.MISSING, "there is no such file") from None
        except OSError as error:
            raise InputError(source.name, InputReason.UNREADABLE, f"the file cannot be read ({error})") from None
        if not piece:
            return
        yield piece


def _pieces(source: Source) -> Iterator[bytes]:
    with as_path(source.path).open("rb") as file:
        if not source.member:
            while piece := file.read(_CHUNK):
                yield piece
            return
        file.seek(source.offset)
        yield from _exactly(file, source)


def _exactly(file: BinaryIO, source: Source) -> Iterator[bytes]:
    left = source.size
    while left:
        piece = file.read(min(_CHUNK, left))
        if not piece:
            raise InputError(source.name, InputReason.DAMAGED, "the tar ends inside this member")
        left -= len(piece)
        yield piece
