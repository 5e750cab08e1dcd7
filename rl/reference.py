"""The policy that a run started from, which the KL penalty compares with: a copy, or the policy without its maps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Protocol

import torch
from torch import Tensor

from entropy_vision.policy import EntropyVLM

from .lowrank import maps_off


class Reference(Protocol):
    """Gives the start while a block runs; nobody else uses the policy meanwhile."""

    def __call__(self) -> AbstractContextManager[EntropyVLM]: ...


class Copy:
    """A policy of its own."""

    def __init__(self, model: EntropyVLM) -> None:
        self.model = model.requires_grad_(False)

    def __call__(self) -> AbstractContextManager[EntropyVLM]:
        """The copy."""
        return nullcontext(self.model)


class WithoutMaps:
    """The policy that is trained, its low-rank maps off and its projector as it was: no copy of the rest is held."""

    def __init__(self, model: EntropyVLM, projector: Mapping[str, Tensor]) -> None:
        """
        Args:
            projector: the start's, by the projector's own names.
        """
        named = dict(model.projector.named_parameters())
        self.model = model
        self.projector = {name: projector[name].detach().clone().to(p) for name, p in named.items()}

    @contextmanager
    def __call__(self) -> Iterator[EntropyVLM]:
        """The policy as it was, without gradients."""
        own = {name: p.data for name, p in self.model.projector.named_parameters()}
        with torch.no_grad(), maps_off(self.model):
            self._show(self.projector)
            try:
                yield self.model
            finally:
                self._show(own)

    def _show(self, tensors: Mapping[str, Tensor]) -> None:
        for name, p in self.model.projector.named_parameters():
            p.data = tensors[name]
