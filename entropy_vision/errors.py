"""The errors a user can meet. Bad input is data: it carries a typed reason and can be counted."""

from __future__ import annotations

import errno
from enum import StrEnum
from pathlib import Path


class InputReason(StrEnum):
    """Why an input could not be used. The ledger counts inputs by these names."""

    MISSING = "missing"
    NOT_A_FILE = "not_a_file"
    UNREADABLE = "unreadable"
    EMPTY = "empty"
    NOT_MEDIA = "not_media"
    NO_VIDEO_STREAM = "no_video_stream"
    NO_FRAMES = "no_frames"
    DAMAGED = "damaged"
    CHANGED = "changed"
    TOO_LARGE = "too_large"
    TIMEOUT = "timeout"
    KILLED = "killed"


# what the machine refuses: not a defect of this program, and the user can mend it
_ENVIRONMENT = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EFBIG}
_ENVIRONMENT |= {errno.EEXIST, errno.ENOTDIR, errno.ENAMETOOLONG}  # a name that cannot be used


def refused_by_machine(error: BaseException) -> bool:
    """Whether an error is a full disk, a place one may not write to, a name that cannot be: told in one line. (Of a
    store, a PermissionError has no number.)"""
    return isinstance(error, PermissionError) or (isinstance(error, OSError) and error.errno in _ENVIRONMENT)


class EntropyVisionError(Exception):
    """Base of every error this package raises on purpose."""


class InputError(EntropyVisionError, ValueError):
    """A file or array from outside cannot be used; `reason` says why in one word, `detail` in one line."""

    def __init__(self, path: str | Path, reason: InputReason, detail: str) -> None:
        super().__init__(path, reason, detail)  # all three in args: the error crosses process borders
        self.path = str(path)
        self.reason = InputReason(reason)
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.path}: {self.detail} [{self.reason.value}]"


class UsageError(EntropyVisionError, ValueError):
    """The call itself is wrong: an option, a configuration key, a combination. The message names the mend."""


class Outcome(EntropyVisionError):
    """A verb ended with a result, but not with exit code 0. The command line prints `result` and exits `code`."""

    code = 1

    def __init__(self, message: str, result: dict[str, object]) -> None:
        super().__init__(message, result)
        self.message = message
        self.result = result

    def __str__(self) -> str:
        return self.message


class CheckFailed(Outcome):
    """A check that the verb makes did not hold (exit code 1)."""

    code = 1


class TooManyBad(Outcome):
    """More bad inputs than the user allows (exit code 3)."""

    code = 3


class Terminated(Outcome):
    """Ended by SIGTERM after its state was saved (exit code 143)."""

    code = 143
