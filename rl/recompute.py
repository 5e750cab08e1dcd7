"""Gradient checkpointing of the policy: a layer's activations are computed again when its gradient is due.

transformers' own switches the cache of keys and values off, which is what training here continues from (`Prefix`).
So each decoder layer is wrapped for itself: what it takes from the cache goes in as tensors and what it adds comes
out as tensors, and the cache is touched outside, once.

Chen et al., "Training Deep Nets with Sublinear Memory Cost", 2016 (arXiv:1604.06174).
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from transformers.cache_utils import Cache, DynamicLayer

from entropy_vision.policy import EntropyVLM


class _Behind(Cache):
    """A cache of one layer."""

    def __init__(self, layer: Any) -> None:
        self.layer = layer

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Keys and values of all that was read, as the layer's own cache gives them."""
        return cast(tuple[Tensor, Tensor], self.layer.update(key_states, value_states))


def recompute_layers(model: EntropyVLM) -> None:
    """From now on no activation inside a layer of tower or language model is kept for the backward pass."""
    cast(Any, model.encoder).set_grad_checkpointing(True)
    for layer in cast(Any, model.language.base_model).layers:
        _wrap(layer)


def _wrap(layer: Any) -> None:
    forward: Callable[..., Any] = layer.forward

    def again(hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
        name = next((n for n in ("cache", "past_key_values") if kwargs.get(n) is not None), None)
        if not torch.is_grad_enabled() or name is None:
            return forward(hidden_states, *args, **kwargs)
        held = kwargs.pop(name)
        layers, index = held.layers, layer.self_attn.layer_idx
        if index == len(layers):
            layers.append(DynamicLayer())
        mine = layers[index]
        blank = copy.copy(mine)  # as it was, for whoever runs again
        past = (mine.keys, mine.values) if mine.is_initialized else ()

        after = blank  # and as it is behind its first run

        def run(hidden: Tensor, *before: Tensor) -> tuple[Any, Tensor, Tensor]:
            nonlocal after
            part = copy.copy(blank)
            if before:
                part.keys, part.values = before
            given = forward(hidden, *args, **{name: _Behind(part)}, **kwargs)
            after = part
            return given, part.keys, part.values

        given, keys, values = checkpoint(run, hidden_states, *past, use_reentrant=False)
        vars(mine).update(vars(after), keys=keys, values=values)
        after = blank  # whose tensors would be held until the backward pass
        return given

    layer.forward = again
