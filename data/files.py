"""Which inputs a user means."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from entropy_vision.errors import UsageError
from entropy_vision.probe import looks_like_video
from entropy_vision.still import is_still

from .lists import is_list, read_list
from .media import SUFFIXES
from .paths import as_path, is_remote, reachable
from .source import Source, stat
from .tars import is_tar, members


def find_inputs(sources: Iterable[str | Path], exclude: Path | None = None) -> list[Source]:
    """The inputs that files, folders (searched recursively), glob patterns, tars and lists name, each once, sorted.

    A named file is an input whatever it is, even where it is missing; in folders, hidden files and files that are
    no media by name or content are passed over (in stores by name alone). Every member of a tar that is media by its
    name is an input of its own, see `tars.members`; `lists.read_list` says what a list is. Addresses (s3://...) may
    stand wherever paths do.

    Args:
        exclude: a folder not to look into (the output, where it lies inside a source).

    Raises:
        UsageError: a list or an address that cannot be read.
    """
    found: dict[tuple[str, int], Source] = {}
    hidden = exclude.resolve() if exclude is not None and not is_remote(exclude) else exclude
    for named in sources:
        with reachable(named) if is_remote(named) else nullcontext():
            for path in _named([named], hidden):
                for source in members(path) if is_tar(path) else [stat(path)]:
                    where = source.path if is_remote(path) else os.path.abspath(source.path)
                    found.setdefault((where, source.offset), source)
    return [found[place] for place in sorted(found)]


def check_named(sources: Iterable[str | Path]) -> None:
    """Refuse a path or pattern that names nothing: on a command line that is a slip. (Of a list, whose files come and
    go, it is an input that failed.)

    Raises:
        UsageError: nothing is there, or an address that cannot be read.
    """
    for named in sources:
        with reachable(named) if is_remote(named) else nullcontext():
            if not _is_there(named):
                raise UsageError(f"{named} is not there: name a file, a folder, a pattern that fits some, or a list")


def _is_there(named: str | Path) -> bool:
    if is_remote(named):
        return glob.has_magic(str(named)) or as_path(named).exists()
    # a link to nothing is there: what it is worth is told where inputs are counted
    return os.path.lexists(named) or next(glob.iglob(str(named), recursive=True), None) is not None


def _named(sources: Iterable[str | Path], hidden: Path | None) -> Iterator[Path]:
    """The files, tars among them, in no particular order."""
    for source in sources:
        path = as_path(source)
        if is_list(path):
            named = read_list(path)
        elif not glob.has_magic(str(source)) or (not is_remote(path) and path.exists()):
            named = [path]
        elif is_remote(path):
            remote: Any = path
            matches = remote.fs.glob(remote.path)
            named = [as_path(remote.fs.unstrip_protocol(name)) for name in matches] or [path]
        else:
            named = [Path(match) for match in glob.glob(str(source), recursive=True)] or [path]
            named = [one for one in named if hidden is None or hidden not in one.resolve().parents]
        for one in named:
            yield from _inside(one, hidden) if _is_folder(one) else [one]


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):  # a name too long, or no name at all: counted as missing
        return False


def _inside(folder: Path, hidden: Path | None) -> Iterator[Path]:
    if is_remote(folder):
        where = "" if hidden is None else f"{str(hidden).rstrip('/')}/"
        for path in folder.rglob("*"):
            inner = str(path)[len(str(folder)) :].split("/")
            out = bool(where) and str(path).startswith(where)
            if path.suffix.lower() in (*SUFFIXES, ".tar") and not out and not any(part[:1] == "." for part in inner):
                yield path
        return
    # links to folders are not followed: they may run in a circle
    for place, folders, names in os.walk(folder, onerror=_refused):
        here = Path(place)
        folders[:] = [name for name in folders if not name.startswith(".") and (here / name).resolve() != hidden]
        if here.resolve() != hidden:
            yield from (here / name for name in names if not name.startswith(".") and _is_input(here / name))


def _refused(error: OSError) -> None:
    """A folder that cannot be listed may hold inputs: nobody would miss them."""
    raise UsageError(f"{error.filename} cannot be listed ({error.strerror}): mend that, or name other sources")


def _is_input(path: Path) -> bool:
    if path.suffix.lower() in SUFFIXES:
        return True
    try:
        return is_tar(path) or (path.is_file() and (is_still(path) or looks_like_video(path)))
    except OSError:
        return False  # not named as media, and not to be read: nothing says it is an input
