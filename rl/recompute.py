"""Gradient checkpointing of the policy: a layer's activations are computed again when its gradient is due.

transformers' own switches the cache of keys and values off, which is what training here continues from (`Prefix`).
So each decoder layer is wrapped for itself: what it takes from the cache goes in as tensors and what it adds comes
out as tensors, and the cache is touched outside, once.

Chen et al., "Training Deep Nets with Sublinear Memory Cost", 2016 (arXiv:1604.06174).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from transformers.cache_utils import Cache

from entropy_vision.policy import EntropyVLM


class _Behind(Cache):
    """A cache of one layer over given keys and values: what it was given last is kept as tensors."""

    def __init__(self, past: tuple[Tensor, ...]) -> None:
        self.past, self.whole = past, cast(tuple[Tensor, Tensor], ())

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Keys and values of all that was read, [B, heads, S, head_width] each."""
        if self.past:
            keys, values = self.past
            key_states, value_states = torch.cat((keys, key_states), -2), torch.cat((values, value_states), -2)
        self.whole = key_states, value_states
        return self.whole


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
        index = layer.self_attn.layer_idx
        past = _held(held, index)

        def run(hidden: Tensor, *before: Tensor) -> tuple[Any, Tensor, Tensor]:
            cache = _Behind(before)
            return (forward(hidden, *args, **{name: cache}, **kwargs), *cache.whole)

        given, keys, values = checkpoint(run, hidden_states, *past, use_reentrant=False)
        if past:
            layers = cast(Any, held).layers
            layers[index].keys, layers[index].values = keys, values
        else:
            held.update(keys, values, index)
        return given

    layer.forward = again


def _held(cache: Cache, index: int) -> tuple[Tensor, ...]:
    """Keys and values that a layer's part of a cache holds; () where it holds none."""
    layers = cast(Any, cache).layers
    if index >= len(layers) or not layers[index].is_initialized or not layers[index].keys.numel():
        return ()
    return layers[index].keys, layers[index].values
