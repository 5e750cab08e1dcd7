"""One process at a time writes to a run's folder."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from entropy_vision.errors import UsageError


@contextmanager
def alone(run: Path) -> Iterator[None]:
    """Hold a folder while the block runs. A process that is killed lets go of it, whatever it has started lives on.

    Raises:
        UsageError: another process holds it, or it cannot be made.
    """
    try:
        run.mkdir(parents=True, exist_ok=True)
        file = (run / ".lock").open("ab")
    except FileNotFoundError as error:
        raise UsageError(f"out = {str(run)!r} cannot be made ({error.strerror}): name another") from error
    with file:
        try:
            # a lock of the process: what it forks does not inherit it, as it would inherit flock's
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            raise UsageError(f"another process is training in {run}: wait for it, or name another out") from None
        except OSError:  # a network file system without locks: whoever uses one must not start a run twice
            pass
        yield
