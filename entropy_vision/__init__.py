"""entropy_vision: choose visual tokens by the bits they carry, and train the policy that reads them.

The public names below load lazily, so that importing the package costs no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from entropy_vision.auto import watch

__version__ = "0.1.0"

_HOME = {
    "Answer": "question",
    "Budget": "budget",
    "CostReport": "cost",
    "EntropyTokenizer": "tokenizer",
    "EntropyVLM": "policy",
    "EntropyVLMConfig": "policy_config",
    "EntropyVLMProcessor": "processor",
    "Frames": "frames",
    "InputError": "errors",
    "Item": "question",
    "PatchSet": "patchset",
    "UsageError": "errors",
    "VisionEncoder": "encoder",
    "read_image": "frames",
    "read_video": "frames",
    "selectors": "selection",
}

__all__ = sorted(_HOME)

if TYPE_CHECKING:
    from entropy_vision.budget import Budget
    from entropy_vision.cost import CostReport
    from entropy_vision.encoder import VisionEncoder
    from entropy_vision.errors import InputError, UsageError
    from entropy_vision.frames import Frames, read_image, read_video
    from entropy_vision.patchset import PatchSet
    from entropy_vision.policy import EntropyVLM
    from entropy_vision.policy_config import EntropyVLMConfig
    from entropy_vision.processor import EntropyVLMProcessor
    from entropy_vision.question import Answer, Item
    from entropy_vision.selection import selectors
    from entropy_vision.tokenizer import EntropyTokenizer


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'entropy_vision' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"entropy_vision.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


watch()
