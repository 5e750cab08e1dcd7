"""What the terminal sees: progress and remarks on stderr, results alone on stdout."""

from __future__ import annotations

import json
import math
import os
import sys
import textwrap
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any, Protocol


class Progress(Protocol):
    """A running bar; `note` is shown behind it."""

    def advance(self, n: int = 1, note: str = "") -> None: ...


def say(message: str) -> None:
    """Write one line to stderr."""
    print(message, file=sys.stderr, flush=True)


class _Silent:
    """Progress of a process that is not the one to speak."""

    def advance(self, n: int = 1, note: str = "") -> None:
        pass


class _Lines:
    """Progress where nobody watches (a log file): a plain line every ten seconds and one at the end."""

    def __init__(self, label: str, total: int | None) -> None:
        self.label, self.total, self.done, self.note = label, total, 0, ""
        self.said = ""
        self.next_line = time.monotonic() + 10.0

    def advance(self, n: int = 1, note: str = "") -> None:
        self.done += n
        self.note = note or self.note
        if time.monotonic() >= self.next_line:
            self.next_line = time.monotonic() + 10.0
            self.write()

    def write(self) -> None:
        of = f"/{self.total}" if self.total is not None else ""
        line = f"{self.label} {self.done}{of} {self.note}".rstrip()
        if line != self.said:  # the last line of all may have been due anyway
            say(line)
        self.said = line


class _Bar:
    """Progress on a terminal: a rich bar."""

    def __init__(self, bar: object, task: object) -> None:
        self.bar, self.task = bar, task

    def advance(self, n: int = 1, note: str = "") -> None:
        self.bar.update(self.task, advance=n, note=note)  # type: ignore[attr-defined]


@contextmanager
def progress(label: str, total: int | None = None, shown: bool = True) -> Iterator[Progress]:
    """Show progress of `total` steps on stderr: a live bar on a terminal, sparse plain lines elsewhere."""
    if not shown:
        yield _Silent()
        return
    if not sys.stderr.isatty():
        lines = _Lines(label, total)
        yield lines
        lines.write()
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as RichProgress

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with RichProgress(*columns, console=Console(stderr=True)) as bar:
        yield _Bar(bar, bar.add_task(label, total=total, note=""))


@contextmanager
def stdout_kept_clean() -> Iterator[None]:
    """Send everything that is printed inside to stderr, prints of C libraries and child processes included."""
    sys.stdout.flush()
    saved = os.dup(1)
    os.dup2(2, 1)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        os.dup2(saved, 1)
        os.close(saved)


_SCREEN = 60  # rows


def plain(value: object) -> Any:
    """A result as JSON's own types: paths become text, numpy numbers plain ones, NaN and infinities null.

    Raises:
        TypeError: something a result must not hold.
    """
    if isinstance(value, Mapping):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, Path | str):
        return str(value)
    if isinstance(value, Sequence):
        return [plain(one) for one in value]
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:  # a numpy number
        value = value.item()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int):
        return value
    raise TypeError(f"a result must hold JSON's types, got {type(value).__name__}")


def as_json(result: Mapping[str, object]) -> str:
    """A result as one line of strict JSON."""
    return json.dumps(plain(result), allow_nan=False, ensure_ascii=False)


def as_table(result: Mapping[str, object]) -> str:
    """A result for people: small tables of the rows it holds, then one line a value, so that these stand last.

    More rows than a screen holds are counted and left to `--json`. A table that another holds is printed there alone.
    """
    lines, tables = [], []
    flat = plain(result)
    width = max((len(key) for key in flat), default=0)
    parts = [part for value in flat.values() if isinstance(value, dict) for part in value.values()]
    for key, value in flat.items():
        rows = _rows(value)
        if rows and value in parts:
            continue
        if len(rows) == 1 and _nested(rows[0]):
            tables.append(f"{key}\n{_record(rows[0])}")
        elif len(rows) > _SCREEN:
            lines.append(f"{key:<{width}}  {len(rows)} rows: --json prints them")
        elif rows:
            tables.append(f"{key}\n{_table(rows)}")
        else:
            lines.append(f"{key:<{width}}  {_cell(value)}")
    return "\n\n".join(tables + ["\n".join(lines)] * bool(lines))


def _rows(value: object, path: tuple[str, ...] = ()) -> list[dict[str, object]]:
    """Lists of mappings are rows; nested mappings become rows whose first columns are the keys that lead there."""
    if isinstance(value, list) and value and all(isinstance(one, dict) for one in value):
        return value
    if not isinstance(value, dict) or not value:
        return []
    if all(isinstance(one, dict) for one in value.values()):
        return [row for key, one in value.items() for row in _rows(one, (*path, key))]
    names: dict[str, object] = {" " * i: key for i, key in enumerate(path)}  # columns with blank headings
    return [names | value]


def _nested(row: Mapping[str, object]) -> dict[str, dict[str, object]]:
    return {key: value for key, value in row.items() if isinstance(value, dict) and value}


def _record(row: Mapping[str, object]) -> str:
    """One row with mappings in it, read downwards: a line a value, then the mappings side by side, a row a key."""
    nested = _nested(row)
    alone = {key.strip(): value for key, value in row.items() if key not in nested and value not in ({}, [], None, "")}
    width = max((len(key) for key in alone), default=0)
    lines = [f"  {key:<{width}}  {_cell(value)}" for key, value in alone.items()]
    keys = dict.fromkeys(key for part in nested.values() for key in part)
    beside = [{"": key} | {name: part.get(key) for name, part in nested.items()} for key in keys]
    return "\n".join([*lines, "", _table(beside)]).lstrip("\n")


def _table(rows: Sequence[Mapping[str, object]], wrap: int = 72) -> str:
    keys = dict.fromkeys(key for row in rows for key in row)
    filled = (key for key in keys if any(row.get(key) not in (None, "") for row in rows))
    columns = [key for key in filled if not any(_rows(row.get(key), (key,))[1:] for row in rows)]  # tables of their own
    cells = [[[str(key).strip()] for key in columns]]
    cells += [[textwrap.wrap(_cell(row.get(key)), wrap) or [""] for key in columns] for row in rows]
    widths = [max(len(text) for line in cells for text in line[i]) for i in range(len(columns))]
    right = [all(isinstance(row.get(key), int | float | None) for row in rows) for key in columns]
    lines = []
    for line in cells:
        for part in range(max(map(len, line))):
            texts = [cell[part] if part < len(cell) else "" for cell in line]
            padded = [
                text.rjust(width) if to_right else text.ljust(width)
                for text, width, to_right in zip(texts, widths, right, strict=True)
            ]
            lines.append(("  " + "  ".join(padded)).rstrip())
    return "\n".join(lines)


def _cell(value: object) -> str:
    if value is None or value in ({}, [], ""):
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, int):
        return f"{value:,}" if abs(value) < 10**9 else f"{value:.4g}"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if isinstance(value, dict):
        return ", ".join(f"{key} {_cell(one)}" for key, one in value.items())
    return str(value)
