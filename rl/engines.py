"""Where completions come from: one protocol, whoever samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from entropy_vision.dialect import Dialect
from entropy_vision.policy import EntropyVLM, Prefix

from .batch import Batch
from .rollout import Rollouts, sample


@dataclass(frozen=True)
class Wanted:
    """A group of completions for each of Q questions.

    Attributes:
        batch, questions: which of its questions; Q places in `batch.asks`.
        read: what the policy has read of them, Q rows.
        group: completions a question.
        temperature: what logits are divided by.
        max_new_tokens: longest completion.
        generator: of the policy's device; the same state draws the same.
    """

    batch: Batch
    questions: Sequence[int]
    read: Prefix
    group: int
    temperature: float
    max_new_tokens: int
    generator: torch.Generator


class Engine(Protocol):
    """Q * group completions, those of one question one behind the other, with the log-probabilities that they were
    sampled with over the support and at the temperature that `score` reads them at."""

    def __call__(self, wanted: Wanted) -> Rollouts: ...


@dataclass(frozen=True)
class Own:
    """The policy's own sampling: it goes on from what was read already and from all that completions share."""

    model: EntropyVLM
    dialect: Dialect

    def __call__(self, wanted: Wanted) -> Rollouts:
        return sample(
            self.model,
            self.dialect,
            wanted.read,
            group=wanted.group,
            temperature=wanted.temperature,
            max_new_tokens=wanted.max_new_tokens,
            generator=wanted.generator,
        )
