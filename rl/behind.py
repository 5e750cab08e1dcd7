"""Work that goes on behind the steps: one piece at a time, in a thread, and its errors are not lost."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType


class Behind:
    """Does one piece of work at a time in a thread of its own; `with` ends when the last piece has."""

    def __init__(self) -> None:
        self._piece: Future[None] | None = None

    def __enter__(self) -> Behind:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="behind")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown()

    def start(self, work: Callable[[], None]) -> None:
        """Begin a piece once the one before it has ended. Raises as `wait`."""
        self.wait()
        self._piece = self._pool.submit(work)

    def wait(self) -> None:
        """Until there is nothing to do.

        Raises:
            Exception: what ended the piece; it is raised once.
        """
        piece, self._piece = self._piece, None
        if piece:
            piece.result()
