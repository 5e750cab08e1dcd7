"""Frames: what every later stage takes, and the ways to read them from videos and images."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from entropy_vision.errors import InputError, InputReason, UsageError
from entropy_vision.probe import Limits, check_path
from entropy_vision.sampling import EVERY, Sampling, Span

if TYPE_CHECKING:
    from entropy_vision.video import DecodeInfo

Size = int | tuple[int, int] | None
DECODERS = ("auto", "decord", "pyav")


@dataclass(frozen=True, kw_only=True, eq=False)
class Frames:
    """Decoded RGB frames in presentation order. An image is one frame at pts 0.

    Attributes:
        pixels: uint8 [F, H, W, 3], RGB, F, H, W >= 1. They stay as they are once they were scored: a choice that
            follows takes what the score has seen of them.
        pts_seconds: float64 [F], presentation times, finite and not decreasing.

    Raises:
        TypeError: an array of the wrong type (a float image must be scaled to 0..255 by its owner).
        ValueError: a wrong shape, an empty axis, or times that are not finite and ascending.
    """

    pixels: np.ndarray
    pts_seconds: np.ndarray

    def __post_init__(self) -> None:
        pixels, pts = self.pixels, self.pts_seconds
        if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8:
            got = getattr(pixels, "dtype", type(pixels).__name__)
            raise TypeError(f"Frames.pixels must be uint8 [F, H, W, 3] in 0..255, got {got}")
        if pixels.ndim != 4 or pixels.shape[3] != 3 or 0 in pixels.shape:
            raise ValueError(f"Frames.pixels must be [F, H, W, 3] with no empty axis, got {pixels.shape}")
        if not isinstance(pts, np.ndarray) or pts.dtype != np.float64:
            got = getattr(pts, "dtype", type(pts).__name__)
            raise TypeError(f"Frames.pts_seconds must be float64 [F], got {got}")
        if pts.shape != (pixels.shape[0],):
            raise ValueError(
                f"Frames.pts_seconds must hold one time a frame: {pixels.shape[0]} frames, got {pts.shape}"
            )
        if not np.isfinite(pts).all() or (np.diff(pts) < 0).any():
            raise ValueError("Frames.pts_seconds must be finite and not decreasing")

    @property
    def count(self) -> int:
        """Number of frames F."""
        return self.pixels.shape[0]

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.pixels.shape[1], self.pixels.shape[2]

    def __repr__(self) -> str:
        (height, width), first, last = self.size, self.pts_seconds[0], self.pts_seconds[-1]
        return f"Frames({self.count} x {height}x{width}, {first:.3f}..{last:.3f} s)"


def read_video(
    path: str | Path,
    fps: float | None = None,
    size: Size = 224,
    decoder: str = "auto",
    *,
    frames: int | None = None,
    packets: int | None = None,
    keyframes: bool = False,
    scenes: float | None = None,
    salvage: bool = False,
    limits: Limits | None = None,
) -> Frames:
    """Read a video (or an animated GIF) in one sequential pass.

    Args:
        path: the file. What it is, its content decides, not its name.
        fps: take the frames nearest to the times first + i / fps; None takes every frame. In (0, 1000].
        frames, packets, keyframes, scenes: instead of fps, so many frames spread evenly over the time or over the bytes
            of the video, the keyframes, or by its shots; see `Sampling`. Damage in what need not be decoded for these
            stays unseen.
        size: one side gives a square, resized without regard to the aspect ratio (as CLIP is used without training);
            (height, width) gives exactly that; None keeps the stored size. Scaling is bilinear and anti-aliased.
        decoder: "auto" and "pyav" read by PyAV, "decord" by decord; the same pixels, to 2 of 255 for MPEG-4 part 2.
        salvage: take what decodes of a damaged or truncated video; without it, such a video is an InputError, because
            frames that are silently missing are worse than a file that is.
        limits: how many pixels a file may ask for.

    Returns:
        Frames upright (the rotation in the header is applied), transparency over white, pts_seconds as the container
        states them: the first may be above 0.

    Raises:
        InputError: the file cannot be used; `reason` says why.
        UsageError: size, decoder or what to take is wrong, or decoder="decord" for a file that decord gets wrong.
    """
    sampling = Sampling(fps=fps, frames=frames, packets=packets, keyframes=keyframes, scenes=scenes)
    return decode(path, sampling, size=size, decoder=decoder, salvage=salvage, limits=limits, kind="video")[0]


def read_image(path: str | Path, size: Size = 224, *, limits: Limits | None = None) -> Frames:
    """Read a still image as one frame at 0 s; of an animation, its first picture.

    EXIF rotation is applied, transparency laid over white, 16-bit greys scaled to 8, palettes, CMYK and greys turned
    into RGB; colour profiles are not applied. `size` as in `read_video`, with the same kernel.

    Raises:
        InputError: the file cannot be used; `reason` says why.
        UsageError: the size is wrong.
    """
    return decode(path, size=size, limits=limits, kind="image")[0]


def read_media(
    path: str | Path,
    fps: float | None = None,
    size: Size = 224,
    decoder: str = "auto",
    *,
    frames: int | None = None,
    packets: int | None = None,
    keyframes: bool = False,
    scenes: float | None = None,
    salvage: bool = False,
    limits: Limits | None = None,
) -> Frames:
    """Read an image or a video, whichever the file's first bytes say it is. A GIF is a video."""
    sampling = Sampling(fps=fps, frames=frames, packets=packets, keyframes=keyframes, scenes=scenes)
    return decode(path, sampling, size=size, decoder=decoder, salvage=salvage, limits=limits)[0]


def decode(
    path: str | Path,
    sampling: Sampling = EVERY,
    *,
    size: Size = 224,
    decoder: str = "auto",
    salvage: bool = False,
    limits: Limits | None = None,
    kind: str = "media",
    span: Span | None = None,
) -> tuple[Frames, DecodeInfo]:
    """Read a file and say what happened on the way: `read_video`, `read_image` and `read_media` are this.

    `kind` is "video", "image", or "media" for whichever the content is. Of a video with a `span`, `sampling` (fps,
    frames or packets) takes those between these seconds from its first frame only, and little else is decoded.
    """
    from entropy_vision.still import decode_still, is_still
    from entropy_vision.video import decode_video

    shape = _check_arguments(size, decoder)
    if span is not None and (
        sampling.keyframes or sampling.scenes is not None or not 0 <= span[0] <= span[1] < math.inf
    ):
        raise UsageError(
            f"span takes seconds, 0 <= start <= end, with fps, frames or packets; got {span}, {sampling.words()}"
        )
    limits = limits or Limits()
    path = check_path(path)
    still = is_still(path)
    if kind == "image" or (kind == "media" and still):
        pixels, times, info = decode_still(path, size=shape, limits=limits)
    elif still:
        raise InputError(path, InputReason.NO_VIDEO_STREAM, "this is a still image: read_image reads it")
    else:
        pixels, times, info = decode_video(
            path, sampling=sampling, size=shape, decoder=decoder, salvage=salvage, limits=limits, span=span
        )
    return Frames(pixels=pixels, pts_seconds=times), info


def _check_arguments(size: Size, decoder: str) -> tuple[int, int] | None:
    """The size as (height, width), or None for the stored one."""
    if decoder not in DECODERS:
        raise UsageError(f"decoder must be one of {', '.join(DECODERS)}, got {decoder!r}")
    return check_size(size)


def check_size(size: Size) -> tuple[int, int] | None:
    """A size that `read_video` takes, as (height, width), or None for the stored one.

    Raises:
        UsageError: it is no size.
    """
    if size is None:
        return None
    pair = size if isinstance(size, tuple | list) else (size, size)
    if len(pair) != 2 or not all(isinstance(one, int) and one is not True and 1 <= one <= 16384 for one in pair):
        raise UsageError(f"size must be pixels of a side, (height, width) in 1..16384, or None, got {size!r}")
    return pair[0], pair[1]
