"""Names that media have."""

from __future__ import annotations

# In a folder, a file of these names is an input even when it is broken (so that it is counted); any other file is one
# when its first bytes are those of a video or an image.
SUFFIXES = tuple(
    f".{name}"
    for name in (
        *("mp4", "m4v", "mov", "mkv", "webm", "avi", "ts", "m2ts", "mts", "mpg", "mpeg", "flv", "wmv", "asf", "ogv"),
        *("3gp", "gif", "apng", "jpg", "jpeg", "png", "webp", "bmp", "tif", "tiff", "ppm", "pgm", "jp2", "avif"),
    )
)
