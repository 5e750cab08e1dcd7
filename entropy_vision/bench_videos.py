"""What `bench` runs on: the user's videos, or some of the World's."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from entropy_vision.console import say
from entropy_vision.errors import InputError, InputReason
from entropy_vision.frames import Frames, decode
from entropy_vision.sampling import Sampling

MADE = 2  # videos that are drawn where none are given
LEAST = 4  # frames that the World needs to tell of a movement


@dataclass(frozen=True, kw_only=True, eq=False)
class Videos:
    """What the bench runs on.

    Attributes:
        names, frames: one each for every video or image.
        failed: name -> why it could not be used.
        paths: the files that `frames` came out of; none where they were drawn.
        count, size: how they were read: at most so many frames of each, scaled to (height, width) in pixels.
    """

    names: tuple[str, ...]
    frames: tuple[Frames, ...]
    failed: Mapping[str, str]
    paths: tuple[Path, ...] = ()
    count: int = 1
    size: tuple[int, int] = (1, 1)

    def decode(self) -> list[Frames]:
        """The frames once more, out of their files. Errors as `read_videos`."""
        return [decode(path, Sampling(frames=self.count), size=self.size)[0] for path in self.paths]


def read_videos(folder: Path, count: int, size: tuple[int, int]) -> Videos:
    """Every video and image below a folder, sorted by path, hidden files left out.

    Args:
        folder: searched recursively; a single file is taken as it is.
        count: frames of every video, evenly spread over it; all of them where it has fewer.
        size: (height, width) in pixels that frames are scaled to.

    Raises:
        InputError: not one of them can be used.
    """
    found = [folder] if folder.is_file() else sorted(path for path in folder.rglob("*") if path.is_file())
    frames: dict[str, Frames] = {}
    paths: list[Path] = []
    failed: dict[str, str] = {}
    for path in found:
        name = path.name if path == folder else str(path.relative_to(folder))
        if any(part.startswith(".") for part in Path(name).parts):
            continue
        try:
            frames[name], _ = decode(path, Sampling(frames=count), size=size)
            paths.append(path)
        except InputError as error:
            failed[name] = error.detail
            say(f"left out: {error}")
    if not frames:
        reason = InputReason.EMPTY if found else InputReason.MISSING
        raise InputError(folder, reason, "no video or image here can be used")
    return Videos(
        names=tuple(frames),
        frames=tuple(frames.values()),
        failed=failed,
        paths=tuple(paths),
        count=count,
        size=size,
    )


def draw_videos(count: int, size: tuple[int, int], seed: int) -> Videos:
    """The World's own videos, through H.264 and back as a user's would be. Arguments as of `read_videos`."""
    from entropy_vision.sources import world_source

    with tempfile.TemporaryDirectory() as folder:
        source = world_source(
            "video",
            split="test",
            difficulty=0.5,
            seed=seed,
            size=max(size),
            frame_count=max(LEAST, count),
            folder=folder,
        )
        frames = tuple(_first(source.scene(index)[0].frames, count) for index in range(MADE))
    return Videos(names=tuple(f"drawn {index}" for index in range(MADE)), frames=frames, failed={})


def _first(frames: Frames, count: int) -> Frames:
    return Frames(pixels=frames.pixels[:count], pts_seconds=frames.pts_seconds[:count])
