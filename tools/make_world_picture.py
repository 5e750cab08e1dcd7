"""Draw docs/images/world.webp: a scene of every family of the World that brings scenes of its own.

    python tools/make_world_picture.py

A row a family: frames from the first to the last (or pictures, for questions about one), then the last of them with
everything but its evidence darkened. The words are grey on a transparent ground, to be read on light and dark pages.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from entropy_vision.data import World
from entropy_vision.question import Item

WORDS = (125, 133, 144, 255)
FAMILIES = ("number", "word", "clock", "change", "cups", "egomotion", "identity", "static_answer")


def shown(family: str, index: int, columns: int) -> tuple[Item, list[np.ndarray]]:
    """The item that is asked about, and `columns` pictures: of a video its frames, of pictures those before it."""
    world = World(family, split="test", difficulty=0.4)
    item = world[index]
    if item.frames.count == 1:
        before = [world[index - columns + 1 + k].frames.pixels[0] for k in range(columns - 1)]
        return item, [*before, item.frames.pixels[0]]
    numbers = np.unique(np.rint(np.linspace(0, item.frames.count - 1, columns)).astype(int))
    return item, [item.frames.pixels[number] for number in numbers]


def lit(item: Item) -> np.ndarray:
    """The last frame, dark where there is no evidence."""
    pixels = item.frames.pixels[-1]
    mask = np.kron(item.evidence[-1], np.ones((16, 16), bool))[: pixels.shape[0], : pixels.shape[1]]
    return np.where(mask[:, :, None], pixels, pixels // 4)


def draw(index: int, columns: int, cell: int) -> Image.Image:
    """The sheet: `columns` pictures of `cell` pixels a row, and the evidence."""
    gap, left, head = 6, 118, 4
    width = left + (columns + 1) * (cell + gap) + gap
    sheet = Image.new("RGBA", (width, head + len(FAMILIES) * (cell + gap)), (0, 0, 0, 0))
    drawn, font, small = ImageDraw.Draw(sheet), ImageFont.load_default(15), ImageFont.load_default(12)
    for row, family in enumerate(FAMILIES):
        item, pictures = shown(family, index, columns)
        y = head + row * (cell + gap)
        drawn.text((4, y + cell // 2 - 18), family, WORDS, font)
        answer = item.answer.options["ABCDEF".index(item.answer.value)] if item.answer.options else item.answer.value
        drawn.text((4, y + cell // 2 + 2), str(answer), WORDS, small)
        places = [*range(len(pictures)), columns]
        for place, picture in zip(places, [*pictures, lit(item)], strict=True):
            image = Image.fromarray(picture).resize((cell, cell), Image.Resampling.LANCZOS)
            sheet.paste(image, (left + place * (cell + gap) + gap * (place == columns), y))
    return sheet


def main() -> None:
    """Write the picture; the defaults are what docs/world_scenes.md shows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "docs/images/world.webp")
    parser.add_argument("--index", type=int, default=17)
    parser.add_argument("--quality", type=int, default=80)
    options = parser.parse_args()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    draw(options.index, columns=4, cell=112).save(options.out, quality=options.quality, method=6)


if __name__ == "__main__":
    main()
