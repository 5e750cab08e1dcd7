"""One story of the page: frames behind a slider, bits as heat, kept patches, tokens over time.

A frame is stored once and laid under every panel; heat and mask are one pixel a patch, enlarged by the browser.
"""

from __future__ import annotations

import html
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from entropy_vision.charts import bars, number
from entropy_vision.overlay import (
    DIM,
    heat_colors,
    heat_top,
    jpeg_uri,
    pick_frames,
    png_uri,
    predictor_colors,
    score_name,
)
from entropy_vision.patchset import PatchSet
from entropy_vision.predictors import PREDICTORS

if TYPE_CHECKING:
    from entropy_vision.report import Story


@dataclass(frozen=True)
class _Quality:
    frames: int
    side: int
    jpeg: int


# from best to smallest; the first that fits a story's share of the page is taken
_LADDER = (
    _Quality(16, 448, 84),
    _Quality(16, 320, 80),
    _Quality(16, 224, 74),
    _Quality(12, 224, 66),
    _Quality(8, 192, 60),
    _Quality(6, 160, 50),
    _Quality(4, 128, 40),
)
_PIXEL_SIDE = 128  # frames this small are shown as the pixels they are


def story_section(story: Story, share: int) -> str:
    """A story as HTML of at most about `share` bytes; its pictures shrink until they fit."""
    for quality in _LADDER:
        section = _section(story, quality)
        if len(section) <= share:
            break
    return section


def _section(story: Story, quality: _Quality) -> str:
    selections = (story.kept, *story.beside)
    numbers = pick_frames(story.frames.count, quality.frames)
    data = _data(story, selections, numbers, quality)
    predictors = None if story.predictors is None else story.predictors[numbers]
    if predictors is not None:
        data |= _predicted(predictors)
    first = len(numbers) // 2
    height, width = story.frames.size
    # "<" may not appear inside a script element, whatever a selector is called
    blob = json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")
    return (
        f'<article class="story"><header><h3>{_text(story.title)}</h3>{_counts(selections)}</header>'
        + (f'<p class="note">{_text(story.note)}</p>' if story.note else "")
        + f'<div class="panels">{_panels(selections, data, predictors, first, width, height)}</div>'
        + (_player(story, numbers, first) if len(numbers) > 1 else "")
        + '<p class="readout">Point at a patch to read its score.</p>'
        + _asked(story)
        + f'<script type="application/json">{blob}</script></article>'
    )


def _data(story: Story, selections: tuple[PatchSet, ...], numbers: list[int], quality: _Quality) -> dict[str, Any]:
    height, width = story.frames.size
    # small frames are enlarged pixel by pixel, which shows what JPEG smears
    small = max(height, width) <= _PIXEL_SIDE
    jpeg = max(quality.jpeg, 88) if small else quality.jpeg
    pictures = [_scaled(story.frames.pixels[i], quality.side) for i in numbers]
    return {
        "width": width,
        "height": height,
        "numbers": numbers,
        "seconds": [round(float(story.frames.pts_seconds[i]), 3) for i in numbers],
        "frames": [jpeg_uri(one, jpeg, full_color=small) for one in pictures],
        "kept": [_selection(kept, numbers) for kept in selections],
    }


def _predicted(predictors: np.ndarray) -> dict[str, Any]:
    return {
        "predicted": [png_uri(predictor_colors(one)) for one in predictors],
        "predictors": ["".join(map(str, one.ravel())) for one in predictors],  # a digit a patch
        "predictorNames": PREDICTORS,
    }


def _scaled(pixels: np.ndarray, side: int) -> np.ndarray:
    height, width = pixels.shape[:2]
    if max(height, width) <= side:
        return pixels
    scale = side / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS))


def _selection(kept: PatchSet, numbers: list[int]) -> dict[str, Any]:
    top, mask, shown = heat_top(kept.bits), kept.mask, kept.shown
    return {
        "selector": kept.selector,
        "score": score_name(kept),
        "patch": kept.patch_size,
        "rows": kept.grid[1],
        "columns": kept.grid[2],
        "count": [int(mask[i].sum()) for i in numbers],
        "heat": [png_uri(heat_colors(kept.bits[i], top)) for i in numbers],
        "mask": [png_uri(_dimming(shown[i])) for i in numbers],
        "bits": [[_score(one) for one in kept.bits[i].ravel()] for i in numbers],
        "bitmap": ["".join("1" if one else "0" for one in mask[i].ravel()) for i in numbers],
    }


def _score(bits: float) -> float:
    return round(float(bits)) if bits >= 10 else round(float(bits), 2)


def _dimming(mask: np.ndarray) -> np.ndarray:
    picture = np.zeros((*mask.shape, 4), np.uint8)
    picture[~mask] = DIM
    return picture


def _counts(selections: tuple[PatchSet, ...]) -> str:
    told = [
        f"{_text(kept.selector)} keeps <b>{len(kept):,}</b> of {kept.bits.size:,} patches ({100 * kept.keep:.3g} %)"
        for kept in selections
    ]
    return f'<span class="count">{" · ".join(told)}</span>'


def _panels(
    selections: tuple[PatchSet, ...],
    data: dict[str, Any],
    predictors: np.ndarray | None,
    first: int,
    width: int,
    height: int,
) -> str:
    pixel = " pixel" if max(width, height) <= _PIXEL_SIDE else ""
    frame = f'<img class="frame" alt="frame" src="{data["frames"][first]}">'
    stage = f'<div class="stage{pixel}" style="aspect-ratio:{width}/{height}"'
    panels = [f"<figure>{stage}>{frame}</div><figcaption>frame</figcaption></figure>"]
    for index, kept in enumerate(selections):
        drawn, several = data["kept"][index], len(selections) > 1
        titles = (score_name(kept), "kept") if several else (f"{score_name(kept)} a patch", "kept patches")
        name = f"{_text(kept.selector)}: " if several else ""
        grid = _grid(kept, width, height)
        scale = f'<span class="scale">0 <i></i> {number(heat_top(kept.bits))}</span>'
        panels.append(
            f'<figure class="heat">{stage} data-kept="{index}">{frame}{grid} src="{drawn["heat"][first]}"></div>'
            f"<figcaption>{name}{titles[0]} {scale}</figcaption></figure>"
        )
        panels.append(
            f'<figure class="kept">{stage} data-kept="{index}">{frame}{grid} src="{drawn["mask"][first]}"></div>'
            f"<figcaption>{name}{titles[1]}</figcaption></figure>"
        )
    if predictors is not None:
        grid = _grid(selections[0], width, height)
        panels.append(
            f'<figure class="predicted">{stage} data-kept="0">{frame}{grid} src="{data["predicted"][first]}"></div>'
            f"<figcaption>closest predictor{_legend(np.unique(predictors))}</figcaption></figure>"
        )
    return "".join(panels)


def _grid(kept: PatchSet, width: int, height: int) -> str:
    """The beginning of an image tag for what is one pixel a patch.

    Edge patches reach over the rim of the frame: the grid is as large as its patches, the stage cuts it off.
    """
    across, down = 100 * kept.grid[2] * kept.patch_size / width, 100 * kept.grid[1] * kept.patch_size / height
    return f'<img class="grid" alt="" style="width:{across:.4f}%;height:{down:.4f}%"'


def _legend(places: np.ndarray) -> str:
    chips = (
        f'<li><i style="background:rgb({r},{g},{b})"></i>{_text(PREDICTORS[place])}</li>'
        for place, (r, g, b) in zip(places.tolist(), predictor_colors(places).tolist(), strict=True)
    )
    return f'<ul class="chips">{"".join(chips)}</ul>'


def _player(story: Story, numbers: list[int], first: int) -> str:
    counts = story.kept.mask.sum(axis=(1, 2)).tolist()
    last = len(numbers) - 1
    return (
        '<div class="player"><button type="button" aria-label="play or pause">'
        '<svg viewBox="0 0 14 14"><path d="M2 1l11 6-11 6z"/></svg></button>'
        f'<input type="range" min="0" max="{last}" value="{first}" step="1" aria-label="frame">'
        "<output></output>"
        f'<div class="sparkline">{bars(counts, "kept patches of every frame")}'
        f"<small>kept patches of every frame, at most {max(counts):,}</small></div></div>"
    )


def _asked(story: Story) -> str:
    pairs = (("question", story.question), ("truth", story.answer), ("the policy", story.completion))
    rows = "".join(f"<dt>{name}</dt><dd>{_text(text)}</dd>" for name, text in pairs if text)
    if story.right is not None:
        word = "right" if story.right else "wrong"
        rows += f'<dt>verified</dt><dd class="{word}">{word}</dd>'
    return f'<dl class="asked">{rows}</dl>' if rows else ""


def _text(text: str) -> str:
    return html.escape(text, quote=True)
