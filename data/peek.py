"""One sample of a folder of shards, and the frames that its patches make up."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from entropy_vision.errors import InputError, InputReason
from entropy_vision.frames import Frames

from .archive import marker_path, markers, read_marker
from .index import Access, read_index
from .paths import as_path
from .sample import Sample

_PAPER = 128  # where no patch was kept


def holds_shards(named: str | Path) -> bool:
    """True for a folder of shards, and for one shard of it."""
    path = as_path(named)
    return bool(markers(path)) if path.is_dir() else path.suffix == ".tar" and marker_path(path).is_file()


def peek(named: str | Path, which: str) -> tuple[Sample, Frames]:
    """A sample by its number, its key, or the end of its source's name, and its patches where they stood, on grey.

    Args:
        named: a folder of shards, or one shard; numbers count its samples from 0.

    Raises:
        InputError: there is no such sample, or it is damaged.
    """
    path = as_path(named)
    folder, shard = (path, None) if path.is_dir() else (path.parent, path)
    lines = [(folder / marker.shard, line) for marker in map(read_marker, markers(folder)) for line in marker.samples]
    numbers = [number for number, (where, _) in enumerate(lines) if shard in (None, where)]
    if which.isdecimal() and int(which) < len(numbers):
        chosen: int | None = numbers[int(which)]
    else:
        keys = (number for number in numbers if lines[number][1]["key"] == which)
        names = (number for number in numbers if lines[number][1]["source"].endswith(which))
        chosen = next(iter((*keys, *names)), None)
    if chosen is None:
        detail = f"there is no sample {which}: name a number from 0 to {len(numbers) - 1}, a key or a source"
        raise InputError(str(named), InputReason.MISSING, detail)
    sample = Access(read_index(folder))[chosen]
    return sample, laid_out(sample)


def laid_out(sample: Sample) -> Frames:
    """Kept patches where they stood, enlarged to what they stand for, on grey where nothing was kept."""
    frames, rows, columns = sample.grid
    side = sample.patch_size
    pixels = np.full((frames, rows * side, columns * side, 3), _PAPER, np.uint8)
    spans = np.ones((len(sample), 2), int) if sample.spans is None else sample.spans
    for (t, row, column), (high, wide), patch in zip(sample.positions, spans, sample.pixels, strict=True):
        area = patch.repeat(high, axis=0).repeat(wide, axis=1)
        there = pixels[t, row * side : (row + high) * side, column * side : (column + wide) * side]
        there[:] = area[: there.shape[0], : there.shape[1]]
    height, width = sample.record.get("size", pixels.shape[1:3])
    return Frames(pixels=pixels[:, :height, :width], pts_seconds=sample.pts_seconds)
