"""Media inside plain tar files, as WebDataset shards hold them: every member is an input of its own."""

from __future__ import annotations

import tarfile
from dataclasses import replace
from pathlib import Path, PurePosixPath

from .archive import marker_path
from .media import SUFFIXES
from .source import Source, stat


def is_tar(path: Path) -> bool:
    """True for a tar that is not one of ours (those have a marker beside them, and hold no media but patches)."""
    try:
        return path.suffix.lower() == ".tar" and path.is_file() and not marker_path(path).exists()
    except (OSError, ValueError):  # a name that cannot be
        return False


def members(path: Path) -> list[Source]:
    """The media in a tar, by name and in the order of the tar; only headers are read.

    A tar that is broken, or ends early, is an input itself behind those found before: it will fail, and be counted.
    """
    whole = stat(path)
    found: dict[str, Source] = {}
    try:
        with path.open("rb") as file, tarfile.open(fileobj=file, mode="r:") as archive:
            for entry in archive:
                name = PurePosixPath(entry.name)
                if entry.isreg() and name.suffix.lower() in SUFFIXES and not name.name.startswith("."):
                    at, size = entry.offset_data, entry.size
                    found[entry.name] = replace(whole, member=entry.name, offset=at, size=size)
    except (tarfile.TarError, OSError, EOFError):
        return [*found.values(), whole]
    # tarfile does not look whether the last member is there
    cut = any(one.offset + one.size > whole.size for one in found.values())
    return [*found.values(), whole] if cut else list(found.values())
