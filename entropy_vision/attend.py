"""Which patches see each other in the tower: those of a frame, of a group of frames, or of a whole input."""

from __future__ import annotations

from typing import Final, Literal

from entropy_vision.errors import UsageError

Attend = Literal["frame", "input"] | int
"""Which patches see each other: those of one frame, of so many frames in a row, or of a whole input."""


_WORDS: Final[tuple[Literal["frame"], Literal["input"]]] = ("frame", "input")


def read_attend(given: str | int, name: str = "attend") -> Attend:
    """What a setting says, numbers written as text, too.

    Raises:
        UsageError: another word, or no frame at all; the line begins with `name`.
    """
    for word in _WORDS:
        if given == word:
            return word
    frames = int(given) if isinstance(given, str) and given.isdecimal() else given
    if not isinstance(frames, int) or isinstance(frames, bool) or frames < 1:
        raise UsageError(f'{name} must be "frame", "input" or a count of frames such as 4, got {given!r}')
    return frames
