"""The parts of a Matroska file by name: a cluster whose name is damaged is skipped by demuxers without a word.

They must skip what they do not know, for it could be of a later standard. But names of four bytes are those of the
parts listed here and of nothing else, so one that is not known was one of these before it was damaged.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO

_SEGMENT = 0x18538067
_PARTS = {
    _SEGMENT,
    0x1A45DFA3,  # EBML header
    0x114D9B74,  # SeekHead
    0x1549A966,  # Info
    0x1654AE6B,  # Tracks
    0x1F43B675,  # Cluster
    0x1C53BB6B,  # Cues
    0x1941A469,  # Attachments
    0x1043A770,  # Chapters
    0x1254C367,  # Tags
}


def unknown_part(path: Path) -> str:
    """Where a part stands whose name is damaged; "" where none does, or sizes no longer lead from part to part."""
    with path.open("rb") as file:
        end = file.seek(0, os.SEEK_END)
        at = file.seek(0)
        while at < end:
            name, _ = _number(file)
            size, unknown = _number(file)
            if name >= 1 << 28 and name not in _PARTS:
                return f"an unknown part at byte {at}"
            if name == _SEGMENT:  # it holds the others
                at = file.tell()
            elif size == unknown:  # a recording that was never closed
                return ""
            else:
                at = file.seek(min(end, file.tell() + size - unknown // 2 - 1))
    return ""


def _number(file: BinaryIO) -> tuple[int, int]:
    """(a number whose first bit tells its length, the largest of that length); 0, 0 where there is none.

    The bit is part of a name, but not of a size.
    """
    first = file.read(1)
    length = 9 - (first[0].bit_length() if first else 0)
    if length > 8:
        return 0, 0
    return int.from_bytes(first + file.read(length - 1)), (1 << 7 * length + 1) - 1
