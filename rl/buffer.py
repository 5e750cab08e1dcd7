"""Completions learned from more than once, and how far that has come: what a checkpoint inside a step holds."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from entropy_vision.policy import Prefix

from .batch import Batch
from .context import Metrics
from .rollout import Rollouts

_ROLLOUTS = ("ids", "mask", "logp", "entropy", "truncated")


@dataclass(frozen=True)
class Rolled:
    """One batch's completions, verified: Q questions with G completions each.

    Attributes:
        read: what the policy has read of the Q questions, with gradients: sampling and the first update share it, so
            the graphs of all of a step's batches are alive together. None where the sampling was another process's, or
            memory holds one part of a step at a time.
        rewards: float64 [Q, G].
        sums: metrics of all completions as sums, with their counts, so that parts of a step add up.
    """

    batch: Batch
    read: Prefix | None
    rollouts: Rollouts
    rewards: Tensor
    sums: Metrics

    @property
    def differ(self) -> Tensor:
        """bool [Q]: questions whose rewards are not all exactly equal; the others carry no advantage."""
        return (self.rewards != self.rewards[:, :1]).any(1)


@dataclass(frozen=True)
class Buffer:
    """The completions of a process in one step and its place in them.

    Attributes:
        turn: updates that were made on them.
        rolled: one a batch of the step.
        sums: what those updates add to the step's metrics.
        norm: the last gradient's norm.
    """

    turn: int
    rolled: Sequence[Rolled]
    sums: Metrics
    norm: float = 0.0

    def tensors(self) -> dict[str, Tensor]:
        """What is in tensors, for a file."""
        named: dict[str, Tensor] = {}
        for i, rolled in enumerate(self.rolled):
            named |= {f"{i}.{name}": getattr(rolled.rollouts, name).cpu().contiguous() for name in _ROLLOUTS}
            named[f"{i}.rewards"] = rolled.rewards.contiguous()
        return named

    def facts(self) -> dict[str, str]:
        """What is not, for the same file; floats keep every bit."""
        parts = [{"texts": rolled.rollouts.texts, "sums": rolled.sums} for rolled in self.rolled]
        return {"buffer": json.dumps({"turn": self.turn, "sums": self.sums, "norm": self.norm, "parts": parts})}

    def packed(self) -> bytes:
        """The buffer as one safetensors file."""
        return save(self.tensors(), self.facts())

    @classmethod
    def read(cls, path: str, batches: Sequence[Batch], device: torch.device) -> Buffer:
        """The buffer that such a file holds, over the batches its step dealt."""
        with safe_open(path, "pt") as file:
            facts = json.loads(file.metadata()["buffer"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a dict)
        rolled = []
        for i, (batch, part) in enumerate(zip(batches, facts["parts"], strict=True)):
            ids, mask, logp, entropy, truncated = (tensors[f"{i}.{name}"].to(device) for name in _ROLLOUTS)
            rollouts = Rollouts(ids, mask, logp, entropy, truncated, part["texts"])
            rolled.append(Rolled(batch, None, rollouts, tensors[f"{i}.rewards"], part["sums"]))
        return cls(facts["turn"], rolled, facts["sums"], facts["norm"])


def _go_on(buffer: Buffer) -> None:
    pass


@dataclass(frozen=True)
class Turns:
    """What a stage that updates more than once a step asks of who runs it.

    Attributes:
        left: where the step was left by the process that began it; it goes on from there.
        between: called between two updates on the same completions; it may save, and may stop the run.
    """

    left: Callable[[Sequence[Batch]], Buffer | None] = field(default=lambda batches: None)
    between: Callable[[Buffer], None] = _go_on


class NotFinite(ArithmeticError):
    """A loss or a gradient is nan or infinite; `buffer` are the completions it came from, where there are any."""

    def __init__(self, what: str, buffer: Buffer | None = None) -> None:
        super().__init__(what)
        self.buffer = buffer


def finite(loss: Tensor) -> float:
    """The value of a loss.

    Raises:
        NotFinite: it is nan or infinite, and a gradient of it would mean nothing even where it is finite.
    """
    value = float(loss.detach())
    if not math.isfinite(value):
        raise NotFinite(f"the loss is {value}")
    return value
