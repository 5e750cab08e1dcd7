"""What every stage of training works with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

from torch import Tensor
from transformers import PreTrainedTokenizerFast

from entropy_vision.dialect import Dialect, spoken
from entropy_vision.policy import EntropyVLM

from .clock import Clock
from .engines import Engine, Own
from .flops import Prices
from .parallel import Team
from .recipe import TrainRecipe
from .reference import Reference
from .rubric import Rubric

Metrics = dict[str, float]


@dataclass(frozen=True)
class Context:
    """What a stage needs beside its batches.

    Attributes:
        groups: token ids of the words that patches are aligned with; empty where the tokenizer lacks them.
        speech: how the policy is spoken to; None where its word-level tokenizer says it.
        sampler: who samples completions; None leaves it to the policy itself.
    """

    model: EntropyVLM
    tokenizer: PreTrainedTokenizerFast
    recipe: TrainRecipe
    groups: Sequence[Tensor]
    rubric: Rubric
    reference: Reference | None = None
    arms: tuple[str, ...] = ()
    """Kinds of questions whose learnability a curriculum wants to know."""
    team: Team = field(default_factory=Team)
    clock: Clock = field(default_factory=Clock)
    speech: Dialect | None = None
    sampler: Engine | None = None

    @cached_property
    def engine(self) -> Engine:
        """Who samples completions."""
        return self.sampler or Own(self.model, self.dialect)

    @cached_property
    def dialect(self) -> Dialect:
        """How the policy is spoken to."""
        return self.speech or spoken(self.tokenizer)

    @cached_property
    def prices(self) -> Prices:
        """What the policy's passes cost, and the reference's, which is of the same shape."""
        return Prices.of(self.model, backward=1 if self.recipe.lora else 2, frozen=self.recipe.frozen_tower)
