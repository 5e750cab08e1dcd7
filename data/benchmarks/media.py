"""Pictures and videos of a question that are decoded when they are asked for, not before."""

from __future__ import annotations

import base64
import glob
import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np

from entropy_vision.errors import InputError, InputReason, UsageError
from entropy_vision.frames import Frames, Size, check_size, decode
from entropy_vision.probe import Limits
from entropy_vision.sampling import Sampling, spread
from entropy_vision.still import decode_still
from entropy_vision.visuals import Fit, fitted

from .folder import Folder, Found, check_name, inside

_SIXTEEN = Sampling(frames=16)
_NO_WINDOW = "no frame of the video lies in the seconds {0:g} to {1:g} that the question is about"


@dataclass(frozen=True, kw_only=True)
class View:
    """How media become frames.

    Attributes:
        size: as in `read_video`; None keeps the stored size.
        fit, scaled: how they are brought to `size`, which is (height, width) for all but "stretch"; see
            `visuals.fitted`.
        sampling: which frames of a video.

    Raises:
        UsageError: the size is none, or none that `fit` takes.
    """

    size: Size = 224
    sampling: Sampling = _SIXTEEN
    fit: Fit = "stretch"
    scaled: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        check_size(self.size)
        if self.fit != "stretch" and not isinstance(self.size, tuple):
            raise UsageError(f"fit={self.fit!r} takes a size of (height, width), got {self.size!r}")

    @property
    def decoded(self) -> Size:
        """The size that media are decoded at."""
        return (self.scaled or self.size) if self.fit == "stretch" else None

    def fitted(self, frames: Frames) -> Frames:
        """Decoded frames at `size`."""
        return fitted(frames, self.size, self.fit, self.scaled) if isinstance(self.size, tuple) else frames


class Picture(Protocol):
    """One or more encoded images in one place."""

    @property
    def name(self) -> str: ...

    @property
    def files(self) -> tuple[str, ...]:
        """What tells it from other pictures, whoever names it: a file's real path, or of images in a table the
        `contents` of each."""
        ...

    def read(self) -> Sequence[bytes]: ...

    def missing(self) -> bool: ...


class Medium(Protocol):
    """What a question is about; `moving` where that is a video."""

    @property
    def name(self) -> str: ...

    @property
    def moving(self) -> bool: ...

    @property
    def files(self) -> tuple[str, ...]:
        """What it is in, however that was named: real paths, those of all parts of a video the same, or `contents` of
        images in tables. Looks the files up; of tables it reads the images."""
        ...

    @property
    def span(self) -> tuple[float, float] | None:
        """The seconds of a video that it is a part of."""
        ...

    @property
    def sources(self) -> tuple[str, ...]:
        """What `preprocess` may have called it; nothing where it is no whole file that could be an input."""
        ...

    def frames(self, view: View) -> Frames: ...

    def missing(self) -> list[str]: ...


@dataclass(frozen=True)
class Named:
    """A file that is known by name and looked up when it is needed.

    Attributes:
        names: where it may be, below the folder; messages name the first.

    Raises:
        BadRow: a name that no file can have.
    """

    folder: Folder
    names: tuple[str, ...]

    def __post_init__(self) -> None:
        for name in self.names:
            check_name(name)

    @property
    def name(self) -> str:
        """What messages call it."""
        return f"{self.folder.root}/{self.names[0]}"

    @property
    def files(self) -> tuple[str, ...]:
        """The real path of what is there, or where that would be."""
        found = self.folder.locate(self.names)
        return (_nowhere(self.folder, self.names[0]) if found is None else found.real,)

    @property
    def sources(self) -> tuple[str, ...]:
        """The paths where it may be, as inputs of `preprocess` are called; absolute."""
        return tuple(os.path.abspath(f"{self.folder.root}/{name}") for name in self.names if inside(name))

    def found(self) -> Found:
        """The file.

        Raises:
            InputError: MISSING; the line says where it was looked for.
        """
        found = self.folder.locate(self.names)
        if found is None:
            others = f", or as {', '.join(self.names[1:])}" if len(self.names) > 1 else ""
            raise InputError(self.name, InputReason.MISSING, f"there is no such file{others}, nor in a zip beside it")
        return found

    def read(self) -> list[bytes]:
        """Its bytes."""
        return [self.found().read()]

    def missing(self) -> bool:
        """Whether it is not there."""
        return self.folder.locate(self.names) is None


@dataclass(frozen=True)
class Inline:
    """Images whose bytes are at hand."""

    name: str
    images: tuple[bytes, ...]

    @property
    def files(self) -> tuple[str, ...]:
        """By their bytes."""
        return contents(self.images) or (self.name,)

    def read(self) -> tuple[bytes, ...]:
        """The bytes."""
        return self.images

    def missing(self) -> bool:
        """Whether there are none."""
        return not self.images


@dataclass(frozen=True)
class Stills:
    """One or more images: a frame each, a second apart, in the order the question counts them.

    Images of one question that differ in size need a `View.size`, since frames share one.
    """

    pictures: tuple[Picture, ...]
    moving: ClassVar[bool] = False
    span: ClassVar[None] = None

    @property
    def name(self) -> str:
        """The same for questions of one file about the same images."""
        return "|".join(picture.name for picture in self.pictures)

    @property
    def files(self) -> tuple[str, ...]:
        """Those of its images."""
        return tuple(file for picture in self.pictures for file in picture.files)

    @property
    def sources(self) -> tuple[str, ...]:
        """Of a single image that is a file, or a member of a tar."""
        return getattr(self.pictures[0], "sources", ()) if len(self.pictures) == 1 else ()

    def frames(self, view: View) -> Frames:
        """Decode them.

        Raises:
            InputError: an image is missing or damaged.
            UsageError: images of several sizes and no size to bring them to.
        """
        stills = [
            view.fitted(self._decode(picture.name, content, view)).pixels
            for picture in self.pictures
            for content in picture.read()
        ]
        if not stills:
            raise InputError(self.name, InputReason.EMPTY, "the question has no image")
        if len({still.shape for still in stills}) > 1:
            sizes = ", ".join(f"{still.shape[2]}x{still.shape[1]}" for still in stills)
            raise UsageError(f"{self.name}: the question's images have several sizes ({sizes}): give a size")
        return Frames(pixels=np.concatenate(stills), pts_seconds=np.arange(len(stills), dtype=np.float64))

    @staticmethod
    def _decode(name: str, content: bytes, view: View) -> Frames:
        size = (view.decoded, view.decoded) if isinstance(view.decoded, int) else view.decoded
        pixels = decode_still(Path(name), size=size, limits=Limits(), content=content)[0]
        return Frames(pixels=pixels, pts_seconds=np.zeros(len(pixels)))

    def missing(self) -> list[str]:
        """Names of the images that are not there."""
        return [picture.name for picture in self.pictures if picture.missing()]


@dataclass(frozen=True)
class Clip:
    """A video, or the part of one between two times.

    Attributes:
        span: seconds from the video's first frame; None for all of it.
    """

    file: Named
    span: tuple[float, float] | None = None
    moving: ClassVar[bool] = True

    @property
    def name(self) -> str:
        """The same for questions about the same seconds of the same file."""
        return self.file.name if self.span is None else f"{self.file.name}@{self.span[0]:g}-{self.span[1]:g}"

    @property
    def files(self) -> tuple[str, ...]:
        """That of the whole video."""
        return self.file.files

    @property
    def sources(self) -> tuple[str, ...]:
        """Of a whole file."""
        return self.file.sources if self.span is None else ()

    def frames(self, view: View) -> Frames:
        """Decode it.

        Raises:
            InputError: the file is missing or damaged, or holds no frame in the span.
        """
        found = self.file.found()
        with found.local() as path:
            try:
                return view.fitted(decode(path, view.sampling, size=view.decoded, span=self.span)[0])
            except InputError as error:  # of a copy it would name a file that is gone
                raise InputError(found.name, error.reason, error.detail) from None

    def missing(self) -> list[str]:
        """The name of the file where it is not there."""
        return [self.file.name] if self.file.missing() else []


@dataclass(frozen=True)
class Unfolded:
    """A video that was published as a folder of images, frame by frame.

    Attributes:
        names: folders that may hold it.
        rate: frames a second.
        span: as in `Clip`.

    Raises:
        BadRow: a name that no folder can have.
    """

    folder: Folder
    names: tuple[str, ...]
    rate: float
    span: tuple[float, float] | None = None
    moving: ClassVar[bool] = True
    sources: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        for name in self.names:
            check_name(name)

    @property
    def name(self) -> str:
        """The same for questions about the same seconds of the same folder."""
        at = "" if self.span is None else f"@{self.span[0]:g}-{self.span[1]:g}"
        return f"{self.folder.root}/{self.names[0]}{at}"

    @property
    def files(self) -> tuple[str, ...]:
        """The real paths of its folder and of its images, or where the folder would be."""
        images = self._images()
        if not images:
            return (_nowhere(self.folder, self.names[0]),)
        return (os.path.dirname(images[0].file.real), *(image.file.real for image in images))

    def frames(self, view: View) -> Frames:
        """Decode those that `view` takes.

        Raises:
            InputError: no such folder, or an image is damaged.
        """
        images = self._images()
        if not images:
            raise InputError(self.name, InputReason.MISSING, "there is no folder of images of that name")
        times = np.arange(len(images)) / self.rate
        start, end = self.span or (0.0, float(times[-1]))
        inside = [i for i, time in enumerate(times) if start - 1e-6 <= time <= end + 1e-6]
        if not inside:
            raise InputError(self.name, InputReason.NO_FRAMES, _NO_WINDOW.format(start, end))
        kept = _sampled([float(times[i]) for i in inside], view.sampling)
        chosen = [inside[i] for i in kept]
        stills = Stills(tuple(images[i] for i in chosen)).frames(view)
        return Frames(pixels=stills.pixels, pts_seconds=times[chosen])

    def missing(self) -> list[str]:
        """The name of the folder where it is not there or empty."""
        return [] if self._images() else [self.name]

    def _images(self) -> list[_FoundPicture]:
        names = [glob.escape(name) for name in self.names if inside(name)]
        found = (self.folder.matches(f"{name}/*.jpg") or self.folder.matches(f"{name}/*.png") for name in names)
        return [_FoundPicture(one) for one in next((some for some in found if some), [])]


@dataclass(frozen=True)
class _FoundPicture:
    file: Found

    @property
    def name(self) -> str:
        return self.file.name

    @property
    def files(self) -> tuple[str, ...]:
        return (self.file.real,)

    def read(self) -> list[bytes]:
        return [self.file.read()]

    def missing(self) -> bool:
        return False


def contents(images: Sequence[bytes]) -> tuple[str, ...]:
    """What tells images by their bytes alone: "sha256:" and 64 hex digits for each."""
    return tuple(f"sha256:{hashlib.sha256(one).hexdigest()}" for one in images)


def cell_files(read: Callable[[], Sequence[bytes]], name: str) -> tuple[str, ...]:
    """The `contents` of a table's cell, which many rows may hold; of one without an image that can be read its name."""
    try:
        return contents(read()) or (name,)
    except InputError:
        return (name,)


def _nowhere(folder: Folder, name: str) -> str:
    """Where a file would be that is not there. (Of its name nothing is looked up: no file can have every name.)"""
    return os.path.normpath(f"{os.path.realpath(folder.root)}/{name}")


def image_bytes(cell: Any, name: str) -> list[bytes]:
    """The images in a cell of a table: bytes, base64 text, a {bytes, path} of the `datasets` library, or a list of
    these; none where it is empty.

    Raises:
        InputError: it holds something else, or only a path.
    """
    if cell is None:
        return []
    if isinstance(cell, list | tuple):
        return [content for one in cell for content in image_bytes(one, name)]
    if isinstance(cell, dict):
        if cell.get("bytes") is None and cell.get("path"):
            raise InputError(name, InputReason.MISSING, f"the table names {cell['path']} and does not hold it")
        return image_bytes(cell.get("bytes"), name)
    if isinstance(cell, str):
        try:
            return [base64.b64decode(cell, validate=True)]
        except ValueError:  # letters outside ASCII are no binascii.Error
            raise InputError(name, InputReason.NOT_MEDIA, "the cell is text, but not base64") from None
    if isinstance(cell, bytes):
        return [cell]
    raise InputError(name, InputReason.NOT_MEDIA, f"the cell holds {type(cell).__name__}, not an image")


def _sampled(times: Sequence[float], sampling: Sampling) -> list[int]:
    if sampling.frames is not None:
        return spread(times, sampling.frames)
    if sampling.fps is None:
        return list(range(len(times)))
    wanted = np.arange(times[0], times[-1] + 1e-6, 1 / sampling.fps)
    nearest = {int(np.argmin(np.abs(np.asarray(times) - time))) for time in wanted}
    return sorted(nearest)
