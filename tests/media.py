"""Videos and images for tests, made on the spot, and why one is refused."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from entropy_vision.errors import InputError, InputReason
from entropy_vision.frames import Frames, decode
from entropy_vision.video import has_decord

needs_decord = pytest.mark.skipif(not has_decord(), reason="decord has no wheel here")


def drifting(count: int = 8, height: int = 64, width: int = 64, seed: int = 0) -> np.ndarray:
    """uint8 [F, H, W, 3]: a smooth coloured ground that drifts, and a bright square that moves the other way."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    phase = rng.uniform(0, 6.28, 3)
    frames = np.empty((count, height, width, 3), np.uint8)
    for number in range(count):
        for channel in range(3):
            wave = np.sin((x + 2 * number) / 7 + phase[channel]) * np.cos(y / (5 + channel))
            frames[number, :, :, channel] = 120 + 80 * wave
        side = min(height, width) // 5
        top = (height - side) // 2
        left = max(0, width - side - 3 * number - 4)
        frames[number, top : top + side, left : left + side] = (250, 240, 20)
    return frames


def numbered(count: int, side: int = 64) -> np.ndarray:
    """uint8 [F, side, side, 3]: flat grey frames, each 6 levels brighter than the last, so a wrong frame shows."""
    levels = (20 + 6 * np.arange(count)).astype(np.uint8)
    return np.broadcast_to(levels[:, None, None, None], (count, side, side, 3)).copy()


def blank(grid: tuple[int, ...], patch_size: int = 8) -> Frames:
    """Grey frames of that grid (F, R, C), where a selector chooses by its scores alone."""
    count, rows, columns = grid
    return as_frames(np.full((count, rows * patch_size, columns * patch_size, 3), 90, np.uint8))


def as_frames(pixels: np.ndarray, fps: float = 8.0) -> Frames:
    """Frames at a constant rate, the first at 0 s."""
    return Frames(pixels=pixels, pts_seconds=np.arange(len(pixels)) / fps)


def write(
    path: Path,
    pixels: np.ndarray,
    *,
    fps: float = 8,
    codec: str = "libx264",
    pixel_format: str = "yuv420p",
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
    times: Sequence[int] | None = None,
    rotation: float | None = None,
    container: str | None = None,
    audio: bool = False,
) -> Path:
    """Encode with any setting a real file may have; `times` are pts in thousandths of a second."""
    with av.open(str(path), "w", format=container, options=container_options or {}) as output:
        sound = output.add_stream("aac", rate=8000) if audio else None
        stream = output.add_stream(codec, rate=Fraction(fps).limit_denominator(1000))
        stream.height, stream.width = pixels.shape[1:3]
        stream.pix_fmt, stream.options = pixel_format, options or {}
        stream.codec_context.thread_count = 1
        if rotation is not None:
            stream.set_display_rotation(rotation)
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        for number, picture in enumerate(pixels):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            if times is not None:
                frame.pts, frame.time_base = times[number], Fraction(1, 1000)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
        if sound is not None:
            _silence(output, sound, seconds=len(pixels) / fps)
    return path


def write_audio(path: Path, seconds: float = 1.0) -> Path:
    """A file with sound and no picture."""
    with av.open(str(path), "w") as output:
        _silence(output, output.add_stream("aac", rate=8000), seconds)
    return path


def _silence(output: av.container.OutputContainer, stream: av.AudioStream, seconds: float) -> None:
    for _ in range(max(1, int(seconds * 8000 / 1024))):
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 8000
        output.mux(stream.encode(frame))
    output.mux(stream.encode(None))


def reason_of(path: Path, **arguments: object) -> InputReason:
    """Why a file cannot be decoded, told in one line that crosses process borders."""
    with pytest.raises(InputError) as caught:
        decode(path, **arguments)
    assert "\n" not in caught.value.detail
    assert pickle.loads(pickle.dumps(caught.value)).reason == caught.value.reason
    return caught.value.reason


def tree(folder: Path) -> dict[str, bytes]:
    """Every file of a folder, by its path in it."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
