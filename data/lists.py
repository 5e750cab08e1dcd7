"""Lists of inputs: a text file of paths, or a table (CSV, TSV, JSON lines, Parquet) with a column of them."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from entropy_vision.errors import UsageError

from .paths import as_path, is_remote

COLUMNS = ("path", "video", "image", "file", "source")
_SUFFIXES = (".txt", ".csv", ".tsv", ".jsonl", ".parquet")


def is_list(path: Path) -> bool:
    """True where the name is that of a list."""
    try:
        return path.suffix.lower() in _SUFFIXES and path.is_file()
    except (OSError, ValueError):  # a name that cannot be
        return False


def read_list(path: Path) -> list[Path]:
    """The paths and addresses that a list names, in its order; relative ones start at the folder it lies in.

    A text file has a path a line; empty lines and those that begin with # are passed over. A table has them in the
    first of its columns `path`, `video`, `image`, `file`, `source` that there is.

    Raises:
        UsageError: no such column, or a file that is not what its name says.
    """
    read = {".txt": _text, ".jsonl": _json_lines, ".parquet": _parquet}.get(path.suffix.lower(), _separated)
    try:
        named = read(path)
    except (OSError, ValueError, csv.Error) as error:  # UnicodeDecodeError and pyarrow's ArrowInvalid are ValueErrors
        raise UsageError(f"{path} cannot be read as a list of inputs ({_first_line(error)})") from None
    return [as_path(name) if is_remote(name) else path.parent / name for name in named if name]


def _text(path: Path) -> list[str]:
    lines = (line.strip() for line in path.read_text(encoding="utf-8-sig").split("\n"))
    return [line for line in lines if line and not line.startswith("#")]


def _separated(path: Path) -> list[str]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.DictReader(file, delimiter="\t" if path.suffix.lower() == ".tsv" else ",", strict=True)
        column = _column(path, rows.fieldnames or ())
        return [row[column] or "" for row in rows]


def _json_lines(path: Path) -> list[str]:
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8-sig").split("\n") if line.strip()]
    if not all(isinstance(row, dict) for row in rows):
        raise ValueError("a line is not an object")
    column = _column(path, rows[0] if rows else ())
    return [_string(row.get(column)) for row in rows]


def _parquet(path: Path) -> list[str]:
    from pyarrow import parquet

    with path.open("rb") as file:
        table = parquet.ParquetFile(file)
        column = _column(path, table.schema_arrow.names)
        return [_string(name) for name in table.read([column], use_threads=False).column(column).to_pylist()]


def _column(path: Path, names: Sequence[str] | Iterable[str]) -> str:
    names = list(names)
    found = next((name for name in COLUMNS if name in names), None)
    if found is None:
        raise UsageError(f"{path} has no column {', '.join(COLUMNS[:-1])} or {COLUMNS[-1]}: it has {names}")
    return found


def _string(value: object) -> str:
    if value is not None and not isinstance(value, str):
        raise ValueError(f"{value!r} is no path")
    return value or ""


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
