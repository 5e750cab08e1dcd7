"""Keys and values of continuations that are read side by side, so that the order of sums tells them nothing.

A sampler reads a token at a time and a scorer all of them at once. In single precision both come to the same numbers
only if each sum over keys takes the same terms in the same places. Two things see to that here. What a row has read
lies without gaps behind its prefix, however many lanes other rows have. And attention is given whole vectors of keys:
torch's kernel for CPUs sums a last vector that is not full in another order (2.3 to 2.14; nothing of it is promised).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers.cache_utils import Cache, DynamicLayer

from entropy_vision.prefix import Prefix

_VECTOR = 16  # floats in the widest vector of a CPU


def whole_vectors(sees: Tensor) -> Tensor:
    """A mask bool [..., S] -> [..., S'], S' the next multiple of 16: what is added is seen by nobody."""
    return nn.functional.pad(sees, (0, -sees.shape[-1] % _VECTOR))


class LaneCache(Cache):
    """What a decoder reads lanes into: gives it a prefix and N new slots, and zeros up to a whole number of vectors."""

    def __init__(self, prefix: Prefix, slots: Tensor | None = None) -> None:
        """
        Args:
            slots: int64 [B, N] below S + N, where the keys of each new token go; by default behind the prefix's S, in
                their order. What lies there already is written over.
        """
        super().__init__(layers=[_Lanes(keys, values, slots) for keys, values in prefix.layers])


class _Lanes(DynamicLayer):
    """The cache of one layer."""

    def __init__(self, keys: Tensor, values: Tensor, slots: Tensor | None) -> None:
        super().__init__()
        self.keys, self.values, self.slots = keys, values, slots
        self.dtype, self.device, self.is_initialized = keys.dtype, keys.device, True

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Keys and values of all that was read, [B, heads, S', head_width] each."""
        length = self.keys.shape[2] + key_states.shape[2]
        keys, values = self._put(self.keys, key_states), self._put(self.values, value_states)
        self.keys, self.values = keys[:, :, :length], values[:, :, :length]
        return keys, values

    def _put(self, old: Tensor, new: Tensor) -> Tensor:
        rows, heads, count, width = new.shape
        more = -(old.shape[2] + count) % _VECTOR
        if self.slots is None:
            return torch.cat((old, new, new.new_zeros(rows, heads, more, width)), dim=2)
        whole = torch.cat((old, new.new_zeros(rows, heads, count + more, width)), dim=2)
        return whole.scatter_(2, self.slots[:, None, :, None].expand_as(new), new)
