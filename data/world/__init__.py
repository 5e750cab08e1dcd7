"""World: procedural images and videos with questions that have exact answers."""

from __future__ import annotations

from .families import vocabulary
from .source import World
from .words import tokens

__all__ = ["World", "tokens", "vocabulary"]
