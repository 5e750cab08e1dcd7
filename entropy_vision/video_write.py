"""Frames to a video file."""

from __future__ import annotations

import io
from fractions import Fraction
from pathlib import Path
from typing import Any

from entropy_vision.atomic import atomic_write
from entropy_vision.errors import UsageError
from entropy_vision.frames import Frames

# the macroblock tree reads memory nobody wrote when frames are fewer than its lookahead has room for; at this constant
# quality the default preset takes twice the time for as many bytes
_X264 = {"mbtree": "0", "preset": "veryfast"}


def write_video(path: str | Path, frames: Frames, fps: float, codec: str = "libx264", crf: int = 18) -> None:
    """Encode frames at a constant rate into a file that is whole or not there; equal frames give equal bytes.

    Args:
        path: the file; its ending names the container (.mp4, .mkv, ...).
        fps: frames a second, above 0; `frames.pts_seconds` is not used.
        codec: FFmpeg's name of an encoder.
        crf: constant rate factor of x264 and x265, 0 (lossless) to 51; 18 is visually transparent. Other encoders use
            it as they understand it.

    Raises:
        UsageError: a rate, encoder or container that does not exist.
        OSError: the file cannot be written.
    """
    import av

    path = Path(path)
    if not 0 < fps <= 1000:
        raise UsageError(f"fps must be in (0, 1000], got {fps!r}")
    height, width = frames.size
    # chroma at half resolution needs even sides; odd ones keep it whole
    pixel_format = "yuv420p" if height % 2 == 0 and width % 2 == 0 else "yuv444p"
    buffer = io.BytesIO()
    container_format = {".mkv": "matroska"}.get(path.suffix.lower(), path.suffix.lower().lstrip("."))
    try:
        with av.open(buffer, "w", format=container_format, options={"fflags": "+bitexact"}) as container:
            stream: Any = container.add_stream(codec, rate=Fraction(fps).limit_denominator(1_000_000))
            stream.width, stream.height, stream.pix_fmt = width, height, pixel_format
            x264 = stream.codec_context.codec.name == "libx264"  # "h264" means it too
            stream.options = {"crf": str(crf), **(_X264 if x264 else {})}
            # one thread: x264 cuts frames into slices by the number of threads, which would change the bytes
            stream.codec_context.thread_count = 1
            for pixels in frames.pixels:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
            container.mux(stream.encode(None))
    except (av.error.LookupError, ValueError) as error:
        raise UsageError(
            f"{path}: no video can be written with encoder {codec!r} in this container ({error})"
        ) from None
    atomic_write(path, buffer.getvalue(), durable=False)
