"""Which files a user means, and what they hold by checksum."""

from __future__ import annotations

import glob
import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

from entropy_vision.probe import looks_like_video
from entropy_vision.still import is_still

from .lists import is_list, read_list

# In a folder, a file of these names is an input even when it is broken (so that it is counted); any other file is one
# when its first bytes are those of a video or an image.
_SUFFIXES = tuple(
    f".{name}"
    for name in (
        *("mp4", "m4v", "mov", "mkv", "webm", "avi", "ts", "m2ts", "mts", "mpg", "mpeg", "flv", "wmv", "asf", "ogv"),
        *("3gp", "gif", "apng", "jpg", "jpeg", "png", "webp", "bmp", "tif", "tiff", "ppm", "pgm", "jp2", "avif"),
    )
)


def find_inputs(sources: Iterable[str | Path], exclude: Path | None = None) -> list[Path]:
    """The files that files, folders (searched recursively), glob patterns and lists name, each once, sorted by path.

    A named file is an input whatever it is, even where it is missing; in folders, hidden files and files that are
    no media by name or content are passed over. `lists.read_list` says what a list is.

    Args:
        exclude: a folder not to look into (the output, where it lies inside a source).

    Raises:
        UsageError: a list that cannot be read.
    """
    found: dict[str, Path] = {}
    hidden = exclude.resolve() if exclude is not None else None
    for source in sources:
        path = Path(source)
        if path.is_dir():
            files = _inside(path, hidden)
        elif is_list(path):
            files = read_list(path)
        elif not path.exists() and glob.has_magic(str(source)):
            matches = sorted(Path(match) for match in glob.glob(str(source), recursive=True))
            files = [file for match in matches for file in (_inside(match, hidden) if match.is_dir() else [match])]
            files = files or [path]
        else:
            files = [path]
        found.update({os.path.abspath(file): file for file in files})
    return [found[name] for name in sorted(found)]


def sha256_of(path: Path) -> str:
    """Checksum of a file's content, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _inside(folder: Path, hidden: Path | None) -> list[Path]:
    files = []
    for where, folders, names in os.walk(folder):  # links to folders are not followed: they may run in a circle
        here = Path(where)
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith(".") and (hidden is None or (here / name).resolve() != hidden)
        )
        if here.resolve() != hidden:
            files += [here / name for name in sorted(names) if not name.startswith(".") and _is_input(here / name)]
    return files


def _is_input(path: Path) -> bool:
    if path.suffix.lower() in _SUFFIXES:
        return True
    try:
        return path.is_file() and (is_still(path) or looks_like_video(path))
    except OSError:
        return False  # not named as media, and not to be read: nothing says it is an input


def bytes_digest(content: bytes) -> str:
    """Checksum of bytes, in hex."""
    return hashlib.sha256(content).hexdigest()
