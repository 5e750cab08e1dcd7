"""Files that are either complete under their name or not there: temporary name, fsync, rename, fsync of the folder."""

from __future__ import annotations

import os
import secrets
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

TEMPORARY = ".tmp-"
"""What the names of unfinished files start with; `sweep` removes those a killed process left behind."""


@contextmanager
def atomic_file(path: str | Path, *, durable: bool = True) -> Iterator[BinaryIO]:
    """Open a file for writing that takes its name when the block ends, and is removed when the block fails.

    Args:
        path: the name it takes; an older file of that name is replaced. An address in a store (a UPath) is written
            when the block has ended; stores show whole objects only.
        durable: wait until the disk has it. False still never shows half a file to anyone, unless the machine itself
            stops: right for what can be made again.

    Raises:
        OSError: the folder is missing, read-only or full; the older file is untouched then.
    """
    path = Path(path) if isinstance(path, str) else path
    if not isinstance(path, Path):
        with tempfile.NamedTemporaryFile() as file:
            yield file
            file.flush()
            path.fs.put_file(file.name, path.path)
        return
    temporary = path.parent / f"{TEMPORARY}{os.getpid()}-{secrets.token_hex(4)}-{path.name[-40:]}"
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            if durable:
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if durable:
        sync_folder(path.parent)


def atomic_write(path: str | Path, content: bytes | str, *, durable: bool = True) -> None:
    """Write a whole file at once (text as UTF-8); see `atomic_file`."""
    with atomic_file(path, durable=durable) as file:
        file.write(content.encode() if isinstance(content, str) else content)


def sync_folder(folder: Path) -> None:
    """Wait until the disk has the names in a folder."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sweep(folder: Path, older: float = 0.0) -> None:
    """Remove unfinished files from a folder: all where nobody else writes to it, else those older than some seconds."""
    for path in folder.glob(f"{TEMPORARY}*"):
        with suppress(FileNotFoundError):
            if not older or path.stat().st_mtime < time.time() - older:
                path.unlink()
