"""What users hand a processor as a picture or a video -> Frames of the size that a tower takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from entropy_vision.errors import UsageError
from entropy_vision.frames import Frames, read_image, read_video

Fit = Literal["stretch", "stretch_bicubic", "crop_bicubic"]
FITS: tuple[Fit, ...] = ("stretch", "stretch_bicubic", "crop_bicubic")


def load_image(image: Any, size: tuple[int, int], fit: Fit, scaled: tuple[int, int] | None = None) -> Frames:
    """One frame of a picture: a path, a PIL image, uint8 [H, W, 3], or Frames. `size`, `fit`, `scaled` as in `fitted`.

    Raises:
        UsageError: something else.
        InputError: a file that cannot be read.
    """
    image = _undone(image)
    if isinstance(image, str | Path):
        frames = read_image(image, size=(scaled or size) if fit == "stretch" else None)
    elif isinstance(image, Frames):
        frames = image
    else:
        frames = _of_pixels(_pixels(image)[None])
    if frames.count != 1:
        raise UsageError(f"a picture has one frame, got {frames.count}: give it as a video")
    return fitted(frames, size, fit, scaled)


def load_video(
    video: Any,
    size: tuple[int, int],
    fit: Fit,
    num_frames: int | None = None,
    fps: float | None = None,
    scaled: tuple[int, int] | None = None,
) -> Frames:
    """The frames of a video: a path, uint8 [F, H, W, 3], a list of pictures, or Frames.

    Args:
        size, fit, scaled: as in `fitted`.
        num_frames, fps: which frames of a file to take, see `read_video`; what is no file is taken as it is.
    """
    video = _undone(video)
    if isinstance(video, str | Path):
        frames = read_video(video, fps=fps, frames=num_frames, size=(scaled or size) if fit == "stretch" else None)
    elif isinstance(video, Frames):
        frames = video
    elif isinstance(video, np.ndarray) or (isinstance(video, Sequence) and len(video)):
        pixels = [_pixels(frame) for frame in video]
        if len({frame.shape for frame in pixels}) > 1:
            raise UsageError("the frames of a video must be of one size")
        frames = _of_pixels(np.stack(pixels))
    else:
        raise UsageError(
            f"a video is a path, uint8 [F, H, W, 3], a list of pictures or Frames, got {type(video).__name__}"
        )
    return fitted(frames, size, fit, scaled)


def fitted(frames: Frames, size: tuple[int, int], fit: Fit, scaled: tuple[int, int] | None = None) -> Frames:
    """Frames of (height, width) `size`; themselves where they have it.

    Where no whole patch covers the end of what a tower takes (384 pixels, patches of 14), its library passes over
    those rows and columns: frames are then brought to `scaled`, 384, and cut at the bottom and right to `size`, 378.

    "stretch" resizes without regard to the aspect ratio, bilinear, as this package's readers do; "stretch_bicubic" as
    transformers does for LLaVA-OneVision; "crop_bicubic" scales the shorter side and cuts the middle out, as it does
    for CLIP and LLaVA-1.5.
    """
    if frames.size == size:
        return frames
    whole = scaled or size
    shape = _covering(frames.size, whole) if fit == "crop_bicubic" else whole
    kernel = Image.Resampling.BILINEAR if fit == "stretch" else Image.Resampling.BICUBIC
    larger = [np.asarray(Image.fromarray(frame).resize((shape[1], shape[0]), kernel)) for frame in frames.pixels]
    top, left = (shape[0] - whole[0]) // 2, (shape[1] - whole[1]) // 2
    pixels = np.stack(larger)[:, top : top + size[0], left : left + size[1]]
    return Frames(pixels=np.ascontiguousarray(pixels), pts_seconds=frames.pts_seconds)


def _covering(have: tuple[int, int], want: tuple[int, int]) -> tuple[int, int]:
    """`have` scaled until its shorter side is that of `want`, the longer one rounded down."""
    height, width = have
    side = min(want)
    return (side, int(side * width / height)) if height <= width else (int(side * height / width), side)


def _undone(value: Any) -> Any:
    """Frames again where transformers has turned them into a dictionary, as it does with what stands in a chat."""
    if isinstance(value, Mapping) and value.keys() == {"pixels", "pts_seconds"}:
        return Frames(**value)
    return value


def _pixels(image: Any) -> np.ndarray:
    if isinstance(image, Image.Image):
        return np.asarray(image.convert("RGB"))
    if isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3:
        return image
    got = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
    raise UsageError(f"a picture is a path, a PIL image, uint8 [H, W, 3] or Frames, got {got}")


def _of_pixels(pixels: np.ndarray) -> Frames:
    return Frames(pixels=np.ascontiguousarray(pixels), pts_seconds=np.arange(len(pixels), dtype=np.float64))
