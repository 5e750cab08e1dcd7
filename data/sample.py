"""One sample of a shard: a PatchSet that knows where it came from, and its form as members of a tar."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
from numpy.lib import format as npy

from entropy_vision.errors import UsageError
from entropy_vision.patchset import PatchSet

from .archive import canonical

STORES = ("mosaic", "raw", "index")
# At equal bytes 4:4:4 at 92 lies 1 to 7 dB above 4:2:0 at 95 on real videos, and halved chroma bleeds from one patch
# into the next when it is scaled up again.
QUALITY = 92
_SHEET = 65536  # patches of one JPEG: 256 x 256 of 16 pixels are 4096 x 4096
_SHEET_PIXELS = 178_956_970  # more are refused by Pillow
_HIGHEST = 2**34  # bytes of patches that a sample without pixels may speak of

_HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}

UNDECODABLE = (ValueError, KeyError, TypeError, OverflowError, RecursionError)
"""What `from_members` and `json` raise of what is no sample."""
_BLOCK = 8  # JPEG with full chroma codes 8 x 8 pixels at a time: a patch on that raster bleeds into no other


@dataclass(frozen=True, kw_only=True, eq=False)
class Sample(PatchSet):
    """Kept patches as they stand in a shard; everything that takes a PatchSet takes one.

    Attributes:
        key: unique name in its folder: letters, digits, "-", "_".
        source: path of the file it was made from; "" where there was none.
        pts_seconds: float64 [F], the time of every frame; zeros where unknown.
        record: everything else that `key.json` says (checksum of the source, settings, decoder).
    """

    key: str
    source: str = ""
    pts_seconds: np.ndarray = field(default_factory=lambda: np.zeros(0))
    record: Mapping[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"Sample({self.key}, {super().__repr__()})"


def to_members(sample: Sample, store: str = "mosaic") -> dict[str, bytes]:
    """The members of a sample: {kind: content}.

    Args:
        store: "mosaic" keeps the patches as one JPEG (quality 92, full chroma), "raw" exactly, "index" not at all.
    """
    if store not in STORES:
        raise UsageError(f"store must be one of {', '.join(STORES)}, got {store!r}")
    small = max(sample.grid) <= 65536
    record = {
        **sample.record,
        "source": sample.source,
        "pts": [float(time) for time in sample.pts_seconds],
        "grid": list(sample.grid),
        "kept": len(sample),
        "patch_size": sample.patch_size,
        "selector": sample.selector,
        "store": store,
    }
    members = {
        "json": canonical(record).encode(),
        "idx.npy": _npy(sample.positions.astype("<u2" if small else "<i4")),
        "bits.npy": _npy(sample.bits.astype("<f4")),
    }
    if sample.spans is not None:
        members["span.npy"] = _npy(sample.spans.astype("<u2"))
    if store == "raw":
        members["patch.npy"] = _npy(sample.pixels)
    elif store == "mosaic":
        most = _most(sample.patch_size)
        for number, start in enumerate(range(0, len(sample), most)):
            members[f"patch{number or ''}.jpg"] = encode_mosaic(sample.pixels[start : start + most])
    return members


def from_members(key: str, members: Mapping[str, bytes], pixels: np.ndarray | None = None) -> Sample:
    """The sample that members hold.

    Args:
        pixels: uint8 [K, P, P, 3] for store="index", which holds none.

    Raises:
        ValueError, KeyError: the members do not make a sample.
    """
    record = json.loads(members["json"])
    positions = _array(members["idx.npy"]).astype(np.int32)
    side = int(record["patch_size"])
    if "patch.npy" in members:
        pixels = _array(members["patch.npy"])
    elif "patch.jpg" in members:
        most = _most(side)
        sheets = -(-len(positions) // most)
        parts = [
            decode_mosaic(members[f"patch{number or ''}.jpg"], min(most, len(positions) - number * most), side)
            for number in range(sheets)
        ]
        pixels = np.concatenate(parts)
    if pixels is None:
        raise ValueError("no pixels are stored and none were given")
    sample = Sample(
        key=key,
        pixels=pixels,
        positions=positions,
        bits=_array(members["bits.npy"]).astype(np.float32),
        selector=record["selector"],
        spans=_array(members["span.npy"]).astype(np.int32) if "span.npy" in members else None,
        source=record["source"],
        pts_seconds=np.array(record["pts"], np.float64),
        record=record,
    )
    if list(sample.grid) != record["grid"] or len(sample) != record["kept"] or sample.patch_size != side:
        raise ValueError("the record contradicts the arrays")
    return sample


def encode_mosaic(pixels: np.ndarray, quality: int = QUALITY) -> bytes:
    """Patches side by side as one JPEG.

    Args:
        pixels: uint8 [K, P, P, 3]. Each is padded by its own edge to a multiple of 8 pixels.
    """
    count, side = pixels.shape[:2]
    cell, columns, rows = _layout(count, side)
    if cell > side:
        pixels = np.pad(pixels, [(0, 0), (0, cell - side), (0, cell - side), (0, 0)], mode="edge")
    lines = cv2.cvtColor(pixels.reshape(count * cell, cell, 3), cv2.COLOR_RGB2BGR)
    # the lines of a patch are taken as one value each: their bytes would take several times as long
    lines = lines.reshape(count, cell, 3 * cell).view(f"V{3 * cell}")[..., 0]
    sheet = np.empty((rows * cell, columns * cell, 3), np.uint8)
    cells = sheet.reshape(rows, cell, columns, 3 * cell).view(f"V{3 * cell}")[..., 0]
    whole, rest = divmod(count, columns)  # rows of cells
    cells[:whole] = lines[: count - rest].reshape(whole, columns, cell).swapaxes(1, 2)
    if rest:
        sheet[whole * cell :] = 128
        cells[whole:, :, :rest] = lines[count - rest :].swapaxes(0, 1)
    full = [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    _, content = cv2.imencode(".jpg", sheet, [cv2.IMWRITE_JPEG_QUALITY, quality, *full])
    return content.tobytes()


def decode_mosaic(content: bytes, count: int, side: int) -> np.ndarray:
    """The patches of a mosaic: uint8 [K, P, P, 3]; the inverse of `encode_mosaic` up to JPEG's loss.

    Raises:
        ValueError: not a JPEG of that many patches.
    """
    from PIL import Image

    cell, columns, rows = _layout(count, side)
    try:
        with Image.open(io.BytesIO(content), formats=("JPEG",)) as image:
            # the header is checked before a pixel is decoded
            if image.size != (columns * cell, rows * cell) or image.mode != "RGB":
                raise ValueError(f"the mosaic is {image.size}, not {(columns * cell, rows * cell)}")
            sheet = np.asarray(image)
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"the mosaic cannot be decoded ({error})") from None
    cells = sheet.reshape(rows, cell, columns, cell, 3).swapaxes(1, 2).reshape(rows * columns, cell, cell, 3)
    return np.ascontiguousarray(cells[:count, :side, :side])


def _most(side: int) -> int:
    """Patches of one mosaic."""
    cell = -(-side // _BLOCK) * _BLOCK
    most = min(_SHEET, max(1, _SHEET_PIXELS // cell**2))
    while most > 1 and math.prod(_layout(most, side)[1:]) * cell**2 > _SHEET_PIXELS:
        most -= 1
    return most


def blank(members: Mapping[str, bytes]) -> np.ndarray | None:
    """Black patches for a sample that stores none, so that its arrays can be checked; None where it stores them.

    Raises:
        ValueError, KeyError: the members do not say how many and how large.
    """
    record = json.loads(members["json"])
    if record["store"] != "index":
        return None
    count, side = len(_array(members["idx.npy"])), int(record["patch_size"])
    if side < 1 or 3 * count * side**2 > _HIGHEST:
        raise ValueError(f"{count} patches of {side} pixels are no sample")
    return np.zeros((count, side, side, 3), np.uint8)


def _layout(count: int, side: int) -> tuple[int, int, int]:
    """(side of a cell, columns, rows) of the mosaic of so many patches: nearly square."""
    columns = max(1, int(np.ceil(np.sqrt(count))))
    return -(-side // _BLOCK) * _BLOCK, columns, max(1, -(-count // columns))


def _npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.ascontiguousarray(array), allow_pickle=False)
    return buffer.getvalue()


def _array(content: bytes) -> np.ndarray:
    """An array, never an object: numpy would run code out of a pickle. Its header must fit its length, for numpy makes
    room for what the header says."""
    stream = io.BytesIO(content)
    version = npy.read_magic(stream)
    if version not in _HEADERS:
        raise ValueError(f"an array of version {version}")
    shape, _, kind = _HEADERS[version](stream)
    if math.prod(shape) * kind.itemsize != len(content) - stream.tell():
        raise ValueError(f"an array of {shape} in {len(content)} bytes")
    array: np.ndarray = np.load(io.BytesIO(content), allow_pickle=False)
    return array
