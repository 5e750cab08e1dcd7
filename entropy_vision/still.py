"""Still images to pixels, through Pillow: header first, upright, eight bits, RGB, alpha over white."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from entropy_vision.errors import InputError, InputReason
from entropy_vision.probe import Limits, check_pixels, check_total
from entropy_vision.scale import on_white
from entropy_vision.video import Decoded, DecodeInfo, Size

_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "PPM", "GIF", "AVIF", "TGA", "ICO", "JPEG2000")
# the first bytes of the formats that are stills; an animated GIF or a video is not among them
_MAGIC = (
    (0, b"\x89PNG\r\n\x1a\n"),
    (0, b"\xff\xd8\xff"),
    (8, b"WEBP"),
    (0, b"BM"),
    (0, b"II*\0"),
    (0, b"MM\0*"),
    (0, b"\0\0\0\x0cjP  "),
    (8, b"avif"),
)


def is_still(path: Path) -> bool:
    """True where the first bytes are those of a still image format, whatever the file is called."""
    with path.open("rb") as file:
        return _still_begins(file.read(16))


def _still_begins(head: bytes) -> bool:
    netpbm = len(head) > 2 and head[:1] == b"P" and head[1:2] in b"123456" and head[2:3].isspace()
    return netpbm or any(head[at : at + len(magic)] == magic for at, magic in _MAGIC)


def decode_still(path: Path, *, size: Size | None, limits: Limits, content: bytes | None = None) -> Decoded:
    """Decode an image: (uint8 [1, H, W, 3], float64 [1] = 0, what happened). `frames.read_image` says the rest.

    Args:
        content: the bytes of an image that is no file of its own, such as a cell of a table; `path` then names it.

    Raises:
        InputError: NOT_MEDIA, DAMAGED or TOO_LARGE.
    """
    with warnings.catch_warnings():
        # of size, where `limits` is stricter, and of odd metadata, which changes no pixel
        warnings.simplefilter("ignore")
        return _decode(path, size, limits, content)


def _decode(path: Path, size: Size | None, limits: Limits, content: bytes | None) -> Decoded:
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        image = Image.open(path if content is None else io.BytesIO(content), formats=_FORMATS)
    except Image.DecompressionBombError:
        raise InputError(path, InputReason.TOO_LARGE, f"more pixels than the limit of {limits.max_pixels}") from None
    except UnidentifiedImageError:
        if is_still(path) if content is None else _still_begins(content[:16]):
            raise InputError(path, InputReason.DAMAGED, "an image file whose header cannot be read") from None
        raise InputError(path, InputReason.NOT_MEDIA, "not an image in any known format") from None
    except (OSError, ValueError, SyntaxError, RuntimeError) as error:  # the last is what AVIF's decoder raises
        raise InputError(path, InputReason.DAMAGED, f"the image's header is damaged ({error})") from None
    with image:
        codec = (image.format or "image").lower()
        check_pixels(path, image.width, image.height, limits)
        check_total(path, 1, size or (image.height, image.width), limits)
        try:
            image.load()
            turn = {3: 180, 6: 270, 8: 90}.get(image.getexif().get(0x0112, 1), 0)
            upright = ImageOps.exif_transpose(image)
        except (OSError, ValueError, SyntaxError, EOFError, RuntimeError) as error:
            raise InputError(path, InputReason.DAMAGED, f"the image cannot be decoded ({error})") from None
        pixels = _resize(_eight_bits(path, upright), size)
    return pixels[None], np.zeros(1), DecodeInfo(decoder="pillow", codec=codec, rotation=turn)


def _eight_bits(path: Path, image: Any) -> Any:
    """The image in mode RGB or RGBA, deep greys scaled from 0..65535."""
    from PIL import Image

    if image.mode == "F":
        raise InputError(path, InputReason.NOT_MEDIA, "floating-point pixels have no fixed white: convert it to 8 bits")
    if image.mode.startswith("I"):
        # 16-bit greys; the 32-bit mode holds them as well, because older files announce no depth of their own
        deep = np.clip(np.asarray(image).astype(np.int64), 0, 65535)
        return Image.fromarray(((deep * 255 + 32767) // 65535).astype(np.uint8)).convert("RGB")
    return image.convert("RGBA" if image.has_transparency_data else "RGB")


def _resize(image: Any, size: Size | None) -> np.ndarray:
    """Scale with the kernel that videos are scaled with (bilinear, widened when it shrinks), then drop the alpha."""
    from PIL import Image

    if size is not None and (image.height, image.width) != size:
        image = image.resize((size[1], size[0]), Image.Resampling.BILINEAR)
    pixels = np.array(image)
    return on_white(pixels) if image.mode == "RGBA" else pixels
