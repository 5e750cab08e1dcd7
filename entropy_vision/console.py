"""What the terminal sees: progress and remarks on stderr, results alone on stdout."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol


class Progress(Protocol):
    """A running bar; `note` is shown behind it."""

    def advance(self, n: int = 1, note: str = "") -> None: ...


def say(message: str) -> None:
    """Write one line to stderr."""
    print(message, file=sys.stderr, flush=True)


class _Lines:
    """Progress where nobody watches (a log file): a plain line every ten seconds and one at the end."""

    def __init__(self, label: str, total: int | None) -> None:
        self.label, self.total, self.done, self.note = label, total, 0, ""
        self.next_line = time.monotonic() + 10.0

    def advance(self, n: int = 1, note: str = "") -> None:
        self.done += n
        self.note = note or self.note
        if time.monotonic() >= self.next_line:
            self.next_line = time.monotonic() + 10.0
            self.write()

    def write(self) -> None:
        of = f"/{self.total}" if self.total is not None else ""
        say(f"{self.label} {self.done}{of} {self.note}".rstrip())


class _Bar:
    """Progress on a terminal: a rich bar."""

    def __init__(self, bar: object, task: object) -> None:
        self.bar, self.task = bar, task

    def advance(self, n: int = 1, note: str = "") -> None:
        self.bar.update(self.task, advance=n, note=note)  # type: ignore[attr-defined]


@contextmanager
def progress(label: str, total: int | None = None) -> Iterator[Progress]:
    """Show progress of `total` steps on stderr: a live bar on a terminal, sparse plain lines elsewhere."""
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
