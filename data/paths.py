"""Local paths and addresses such as s3://bucket/folder, both with pathlib's interface."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast
from urllib.parse import unquote

from entropy_vision.errors import UsageError

_LOCAL = "file://"  # a disk of this machine by its address


def as_path(named: str | Path) -> Path:
    """A Path, or for an address with `://` a UPath, which behaves like one (fsspec's file systems beneath).

    Raises:
        UsageError: nothing is installed that reads such an address.
    """
    if isinstance(named, str) and named.startswith(_LOCAL):
        return Path(unquote(named.removeprefix(_LOCAL)))
    if not is_remote(named):
        return Path(named)
    if not isinstance(named, str):
        return named
    from upath import UPath

    try:
        path = UPath(named)
        path.fs  # noqa: B018 - finds out whether its library is there
    except (ImportError, ValueError) as error:
        raise UsageError(f"{named} cannot be opened here: {error}") from None
    return cast(Path, path)  # not its subclass, in all else its equal


def listed(folder: Path, pattern: str) -> list[Path]:
    """What a folder holds now, sorted: a store's library remembers what it held."""
    if is_remote(folder):
        folder.fs.invalidate_cache()  # type: ignore[attr-defined]
    return sorted(folder.glob(pattern))


@contextmanager
def reachable(named: str | Path) -> Iterator[None]:
    """Tell in a line that a store cannot be asked: no credentials, no such bucket, no network."""
    errors: tuple[type[Exception], ...] = (OSError,)
    if "botocore" in sys.modules:
        from botocore.exceptions import BotoCoreError

        errors = (OSError, BotoCoreError)
    try:
        yield
    except errors as error:
        raise UsageError(f"{named} cannot be reached ({type(error).__name__}: {error})") from None


def is_remote(named: str | Path) -> bool:
    """True where the file is not on a disk of this machine."""
    if not isinstance(named, str):
        return not isinstance(named, Path)
    return "://" in named and not named.startswith(_LOCAL)
