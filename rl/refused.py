"""What the machine refuses while something is written, as the OSError it was: some libraries tell it in words only."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

_IN_WORDS = re.compile(r"os error (\d+)")


@contextmanager
def refusals_name(place: Path) -> Iterator[None]:
    """A disk that is full while the block writes to `place` raises the same OSError, whoever meets it.

    Raises:
        OSError: the machine refused; its file is the one that could not be opened, or `place`.
    """
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        number = _number(error)
        if number is None or getattr(error, "filename", None):
            raise
        raise OSError(number, os.strerror(number), str(place)) from error


def _number(error: BaseException | None) -> int | None:
    """The system's number of an error: its own, in its words, or of what it came up in the handling of."""
    if error is None:
        return None
    if isinstance(error, OSError):
        return error.errno
    told = _IN_WORDS.search(str(error)) if isinstance(error, SafetensorError) else None
    return int(told[1]) if told else _number(error.__context__)
