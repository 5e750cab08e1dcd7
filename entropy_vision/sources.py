"""Where questions come from, for the parts that may not know the World: rl asks here, the World answers lazily."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from entropy_vision.errors import InputError, InputReason
from entropy_vision.frames import read_video
from entropy_vision.question import Item, QuestionSource


class FileBacked:
    """A source of videos whose frames go to an H.264 file and come back through `read_video`.

    So training and evaluation see what a user's videos look like: compressed, scaled, decoded. A file that is
    there is not written again, so a folder belongs to one source: name it by the source's fingerprint.
    """

    def __init__(self, source: QuestionSource, folder: str | Path, *, size: int, fps: int = 8) -> None:
        self.source, self.folder, self.size, self.fps = source, Path(folder), size, fps
        self.folder.mkdir(parents=True, exist_ok=True)

    def path(self, index: int) -> Path:
        """The file of scene `index`."""
        return self.folder / f"{index:06d}.mp4"

    def scene(self, index: int) -> list[Item]:
        """The scene's questions about the decoded frames."""
        from entropy_vision.video_write import write_video

        items, path = self.source.scene(index), self.path(index)
        if not path.exists():
            write_video(path, items[0].frames, fps=self.fps)
        frames = read_video(path, size=self.size)
        if frames.count != items[0].frames.count:
            told = f"wrote {items[0].frames.count} frames, read {frames.count}; remove it and it is written again"
            raise InputError(path, InputReason.DAMAGED, told)
        return [replace(item, frames=frames) for item in items]


def world_source(
    medium: str,
    *,
    split: str,
    difficulty: float,
    seed: int,
    size: int,
    frame_count: int | None = None,
    folder: str | Path | None = None,
) -> QuestionSource:
    """The World's image or video scenes, all families of a medium asked of each.

    Args:
        medium: "image" or "video".
        split: "train", "val" or "test": disjoint scenes.
        folder: where videos are written as files; None keeps the drawn frames.
    """
    from entropy_vision.data import World

    world = World(family=medium, split=split, difficulty=difficulty, seed=seed, size=size, frame_count=frame_count)
    if medium == "video" and folder is not None:
        return FileBacked(world, Path(folder) / f"{split}-{seed}-{world.fingerprint()}", size=size)
    return world


def world_families(medium: str) -> tuple[str, ...]:
    """The families that are asked of the World's "image" or "video" scenes."""
    from entropy_vision.data.world.families import SHARED

    return tuple(name for name, family in SHARED.items() if family.media == medium)


@dataclass(frozen=True)
class Words:
    """The World's language.

    Attributes:
        all: every word of questions, rationales and answers.
        colors, shapes: what things are called.
        places: the cells of a square grid, row by row.
        times: equal parts of a video.
    """

    all: tuple[str, ...]
    colors: tuple[str, ...]
    shapes: tuple[str, ...]
    places: tuple[str, ...]
    times: tuple[str, ...]


def world_words() -> Words:
    """The words that a policy of the World needs."""
    from entropy_vision.data.world import World, vocabulary
    from entropy_vision.data.world.words import COLORS, SHAPES, place_words, time_words

    return Words(vocabulary(World.families(shared=True)), COLORS, SHAPES, place_words(), time_words())
