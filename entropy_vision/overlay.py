"""Pictures of a selection: bits as heat, kept patches with the dropped ones dimmed, contact sheets.

Everything here takes and gives plain uint8 arrays; nothing is decided here, only drawn.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from entropy_vision.frames import Frames
from entropy_vision.patchset import PatchSet
from entropy_vision.predictors import PREDICTORS

# dark blue -> violet -> red -> orange -> pale yellow; lightness rises evenly, so the map reads in grey too
_ANCHORS = np.array(
    [
        (13, 12, 38),
        (52, 18, 88),
        (112, 28, 110),
        (170, 44, 98),
        (220, 75, 68),
        (246, 126, 48),
        (252, 186, 66),
        (253, 244, 180),
    ],
    np.float64,
)
_PAPER, _INK, _MUTED = (255, 255, 255), (24, 28, 36), (110, 118, 130)
DIM = (10, 12, 18, 208)  # RGBA laid over dropped patches
# of the predictors, in their order: what nothing before explains is warm, what something does is cool
_PREDICTOR_COLORS = np.array(
    [(252, 186, 66), (38, 48, 74), (66, 128, 217), (150, 84, 205), (38, 160, 128), (232, 87, 74)], np.uint8
)


def heat_colors(bits: np.ndarray, top: float) -> np.ndarray:
    """Map bits to colour.

    Args:
        bits: float [...], >= 0.
        top: bits at which the scale ends, > 0. The square root is drawn: bits are heavy-tailed.

    Returns:
        uint8 [..., 3] RGB.
    """
    level = np.sqrt(np.clip(bits / top, 0.0, 1.0)) * (len(_ANCHORS) - 1)
    below = np.minimum(level.astype(np.int64), len(_ANCHORS) - 2)
    share = (level - below)[..., None]
    return np.rint(_ANCHORS[below] * (1 - share) + _ANCHORS[below + 1] * share).astype(np.uint8)


def predictor_colors(predictors: np.ndarray) -> np.ndarray:
    """Places in `predictors.PREDICTORS`, uint8 [...], as colours, uint8 [..., 3]."""
    return _PREDICTOR_COLORS[predictors]


def heat_top(bits: np.ndarray) -> float:
    """The end of the heat scale: the 99th percentile of the scores, so that one patch cannot darken all others."""
    top = float(np.percentile(bits, 99.0))
    return top if top > 0 else max(float(bits.max()), 1.0)


def score_name(kept: PatchSet) -> str:
    """What a selector's scores are called: bits, except where they are only an order to choose by."""
    return "order" if kept.selector in ("random", "uniform") else "bits"


def pick_frames(count: int, limit: int) -> list[int]:
    """At most `limit` frame numbers of `count`, evenly spread, first and last included."""
    if count <= limit:
        return list(range(count))
    return [int(i) for i in np.unique(np.rint(np.linspace(0, count - 1, limit)))]


def spread(grid: np.ndarray, patch_size: int, size: tuple[int, int]) -> np.ndarray:
    """Blow a patch grid [R, C, ...] up to pixels [H, W, ...]; the padded rim of edge patches is cut off."""
    return grid.repeat(patch_size, axis=0).repeat(patch_size, axis=1)[: size[0], : size[1]]


def heat_picture(
    pixels: np.ndarray, bits: np.ndarray, patch_size: int, top: float, opacity: float = 0.82
) -> np.ndarray:
    """Bits as heat over the grey frame.

    Args:
        pixels: uint8 [H, W, 3], the frame.
        bits: float32 [R, C], its scores.
        patch_size: side of a patch in pixels.
        top: end of the heat scale in bits.
        opacity: of the heat, 0..1.

    Returns:
        uint8 [H, W, 3].
    """
    return tinted(pixels, heat_colors(bits, top), patch_size, opacity)


def tinted(pixels: np.ndarray, colors: np.ndarray, patch_size: int, opacity: float) -> np.ndarray:
    """The grey frame uint8 [H, W, 3] under a colour for each patch, uint8 [R, C, 3]."""
    over = spread(colors, patch_size, pixels.shape[:2]).astype(np.float64)
    grey = (pixels @ np.array([0.299, 0.587, 0.114]))[..., None]
    return np.rint(opacity * over + (1 - opacity) * grey).astype(np.uint8)


def kept_picture(pixels: np.ndarray, mask: np.ndarray, patch_size: int) -> np.ndarray:
    """The frame uint8 [H, W, 3] with every patch that mask bool [R, C] drops dimmed."""
    kept = spread(mask, patch_size, pixels.shape[:2])[..., None]
    opacity = DIM[3] / 255
    dimmed = np.rint((1 - opacity) * pixels + opacity * np.array(DIM[:3])).astype(np.uint8)
    return np.where(kept, pixels, dimmed)


def contact_sheet(
    frames: Frames,
    kept: Sequence[PatchSet],
    title: str,
    predictors: np.ndarray | None = None,
    limit: int = 6,
    cell: int = 224,
) -> np.ndarray:
    """One row a frame: the frame, bits and kept patches of every selection, the predictor closest to each patch.

    Args:
        frames: what was scored.
        kept: one or more selections of these frames.
        title: one line of text at the top.
        predictors: uint8 [F, R, C], places in `PREDICTORS`, on the grid of the first selection.
        limit: at most this many frames, evenly spread.
        cell: height of a picture on the sheet in pixels.

    Returns:
        uint8 [height, width, 3].
    """
    shown = pick_frames(frames.count, limit)
    height, width = frames.size
    cell_width = max(1, round(cell * width / height))
    gap, head, left = 12, 78, 92
    columns = 1 + 2 * len(kept) + (predictors is not None)
    names = [] if predictors is None else [(place, PREDICTORS[place]) for place in np.unique(predictors[shown])]
    foot = 24 * len(names)
    sheet = Image.new(
        "RGB", (left + columns * (cell_width + gap) + gap, head + len(shown) * (cell + gap) + foot + gap), _PAPER
    )
    draw, small, large = ImageDraw.Draw(sheet), ImageFont.load_default(14), ImageFont.load_default(20)
    draw.text((gap, 14), title, _INK, large)
    tops = [heat_top(one.bits) for one in kept]
    labels = ["frame"]
    for one, top in zip(kept, tops, strict=True):
        labels += [
            f"{one.selector} {score_name(one)} (0 to {top:.3g})",
            f"{one.selector} keeps {len(one):,} of {one.bits.size:,}",
        ]
    if predictors is not None:
        labels.append("closest predictor")
    for column, label in enumerate(labels):
        draw.text((left + gap + column * (cell_width + gap), 52), label, _MUTED, small)
    for row, index in enumerate(shown):
        y = head + row * (cell + gap)
        draw.text((gap, y + 4), f"{frames.pts_seconds[index]:.2f} s", _INK, small)
        draw.text((gap, y + 24), f"{' / '.join(str(int(one.mask[index].sum())) for one in kept)}", _MUTED, small)
        pictures = [frames.pixels[index]]
        for one, top in zip(kept, tops, strict=True):
            pictures.append(heat_picture(frames.pixels[index], one.bits[index], one.patch_size, top))
            pictures.append(kept_picture(frames.pixels[index], one.shown[index], one.patch_size))
        if predictors is not None:
            colors = predictor_colors(predictors[index])
            pictures.append(tinted(frames.pixels[index], colors, kept[0].patch_size, 0.7))
        for column, picture in enumerate(pictures):
            image = Image.fromarray(picture).resize((cell_width, cell), _filter(height, cell))
            sheet.paste(image, (left + gap + column * (cell_width + gap), y))
    for number, (place, name) in enumerate(names):
        x, y = left + gap + (columns - 1) * (cell_width + gap), head + len(shown) * (cell + gap) + 24 * number
        draw.rectangle((x, y + 2, x + 12, y + 14), tuple(_PREDICTOR_COLORS[place].tolist()))
        draw.text((x + 20, y), name, _MUTED, small)
    return np.asarray(sheet)


def _filter(size: int, cell: int) -> Image.Resampling:
    # small frames are shown as the pixels they are; smoothing would hide what the patch really holds
    return Image.Resampling.NEAREST if cell >= 2 * size else Image.Resampling.LANCZOS


def jpeg_uri(pixels: np.ndarray, quality: int = 82, *, full_color: bool = False) -> str:
    """uint8 [H, W, 3] as a JPEG data URI; `full_color` keeps chroma at the resolution of luma."""
    return _uri(Image.fromarray(pixels), "jpeg", quality=quality, subsampling=0 if full_color else 2)


def png_uri(pixels: np.ndarray) -> str:
    """uint8 [H, W, 3 or 4] as a PNG data URI."""
    return _uri(Image.fromarray(pixels), "png", optimize=True)


def _uri(image: Image.Image, kind: str, **options: Any) -> str:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
