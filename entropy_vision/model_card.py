"""The model card (README.md) beside a saved policy: what it is made of, and the lines that use it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from entropy_vision.policy import EntropyVLM

_CARD = """---
library_name: transformers
pipeline_tag: image-text-to-text
tags:
- entropy-vision
---

# EntropyVLM

A vision-language model that looks at the patches that carry information and at no others.

| part | is |
|---|---|
| tower | {tower} |
| projector | {projector}, {projector_weights:,} weights |
| language model | {language}, {language_weights:,} weights |
| patches | {patch} x {patch} pixels of pictures of {height} x {width} |
| rotary positions of visual tokens | {positions} |

```python
import entropy_vision  # makes the names below known to transformers
from transformers import AutoModelForImageTextToText, AutoProcessor

model = AutoModelForImageTextToText.from_pretrained(FOLDER).eval()
processor = AutoProcessor.from_pretrained(FOLDER)
inputs = processor(text="<image> what is this ?", images="picture.jpg", budget=0.25)
out = model.generate(**inputs.to(model.device), max_new_tokens=64)
print(processor.decode(out[0, inputs["input_ids"].shape[1]:], skip_special_tokens=True))
```
"""


def write_card(model: EntropyVLM, folder: Path) -> None:
    """Write README.md into a folder, unless it has one: what its owner wrote there stays."""
    path = folder / "README.md"
    if path.exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(card(model), encoding="utf-8")


def card(model: EntropyVLM) -> str:
    """The text of the model card."""
    encoder = model.encoder
    kind = encoder.config.get("model_type") or f"{type(encoder.tower).__name__} of open_clip"
    weights = sum(p.numel() for p in encoder.parameters())
    height, width = encoder.image_size
    return _CARD.format(
        tower=f"{kind}, {encoder.layers} blocks of width {encoder.width}, {weights:,} weights",
        projector=type(model.projector).__name__,
        projector_weights=sum(p.numel() for p in model.projector.parameters()),
        language=model.config.text.get("model_type"),
        language_weights=sum(p.numel() for p in model.language.parameters()),
        patch=encoder.patch_size,
        height=height,
        width=width,
        positions=model.config.visual_positions,
    )
