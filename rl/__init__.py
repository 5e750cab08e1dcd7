"""What learns: verifiable rewards, group-relative advantages, policy losses. The names load lazily."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_HOME = {
    "Answer": "entropy_vision.question",
    "Rubric": ".rubric",
    "Verdict": ".verifiers",
    "grpo_advantages": ".advantage",
    "policy_loss": ".loss",
    "verify": ".verifiers",
}

__all__ = ["Answer", "Rubric", "Verdict", "grpo_advantages", "policy_loss", "verify"]

if TYPE_CHECKING:
    from entropy_vision.question import Answer

    from .advantage import grpo_advantages
    from .loss import policy_loss
    from .rubric import Rubric
    from .verifiers import Verdict, verify


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'entropy_vision.rl' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name], __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
