"""Draw docs/images/kept.webp, the picture of "How it works" in the README, from a scene of the World.

    python tools/make_readme_picture.py

Frames of one generated video in columns; below each its bits as heat and the patches that are kept.
The ground is transparent and the words grey, so that it reads on light and dark pages.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from entropy_vision.data import World
from entropy_vision.overlay import heat_picture, heat_top, kept_picture
from entropy_vision.tokenizer import EntropyTokenizer

WORDS = (125, 133, 144, 255)


def draw(index: int, keep: float, shown: int, cell: int) -> Image.Image:
    """The picture for scene `index`: `shown` frames of it, each `cell` pixels wide."""
    item = World(family="direction", split="test", size=224, difficulty=0.5)[index]
    frames = item.frames
    kept = EntropyTokenizer(patch_size=16, keep=keep)(frames)
    top, mask = heat_top(kept.bits), kept.mask
    columns = np.unique(np.rint(np.linspace(0, frames.count - 1, shown)).astype(int))
    gap, left, head = 10, 132, 8
    size = (left + len(columns) * (cell + gap), head + 3 * (cell + gap) + 34)
    sheet = Image.new("RGBA", size, (0, 0, 0, 0))
    drawn, font, small = ImageDraw.Draw(sheet), ImageFont.load_default(19), ImageFont.load_default(16)
    for row, (name, about) in enumerate(
        (("frames", ""), ("bits", "what cannot be\npredicted"), ("kept", "all that is\nencoded"))
    ):
        y = head + row * (cell + gap) + cell // 2 - 24
        drawn.text((4, y), name, WORDS, font)
        drawn.multiline_text((4, y + 26), about, WORDS, small)
    for column, number in enumerate(columns):
        x, pixels = left + column * (cell + gap), frames.pixels[number]
        pictures = (
            pixels,
            heat_picture(pixels, kept.bits[number], 16, top),
            kept_picture(pixels, mask[number], 16),
        )
        for row, picture in enumerate(pictures):
            image = Image.fromarray(picture).resize((cell, cell), Image.Resampling.LANCZOS)
            sheet.paste(image, (x, head + row * (cell + gap)))
        told = f"{mask[number].sum()} of {mask[number].size} patches"
        drawn.text((x + cell / 2, head + 3 * (cell + gap) + 4), told, WORDS, small, anchor="ma")
    return sheet


def main() -> None:
    """Write the picture; the defaults are what the README shows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "docs/images/kept.webp")
    parser.add_argument("--index", type=int, default=59)
    parser.add_argument("--keep", type=float, default=0.1)
    options = parser.parse_args()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    draw(options.index, options.keep, shown=5, cell=176).save(options.out, quality=92, method=6)


if __name__ == "__main__":
    main()
