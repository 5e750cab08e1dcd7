"""What goes in: shards of kept patches, and questions with exact answers. The names load lazily."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_HOME = {"World": "world", "write_shards": "shards", "read_shards": "shards"}

__all__ = sorted(_HOME)

if TYPE_CHECKING:
    from .shards import read_shards as read_shards
    from .shards import write_shards as write_shards
    from .world import World as World


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
