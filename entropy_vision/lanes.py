"""Keys and values of continuations that are read side by side, so that the order of sums tells them nothing.

A sampler reads a token at a time and a scorer all of them at once. In single precision both come to the same numbers
only if each sum over keys takes the same terms in the same places. Two things see to that here. What a row has read
lies without gaps behind its prefix, however many lanes other rows have. And keys come in numbers that are summed alike
(seen in torch 2.14 with MKL 2024.2). torch's `sdpa` for CPUs takes 512 keys at a time and sums a last vector that is
not full in another order; a product over more than 384 terms is cut into two halves, wherever that is.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer

from entropy_vision.prefix import Prefix

_VECTOR = 16  # floats in the widest vector of a CPU
_BLOCK, _AT_ONCE = 512, 384  # keys that attention takes at a time, terms of a product that are summed in one go


def padded(length: int, most: int) -> int:
    """Keys to give attention where there are `length` and there will be at most `most`, in however many steps."""
    begun = (length - 1) // _BLOCK * _BLOCK
    unit = _BLOCK if most - begun > _AT_ONCE else _VECTOR
    return length + -length % unit


class LaneCache(Cache):
    """What a decoder reads lanes into: it holds a prefix, takes N new slots and gives zeros behind them."""

    def __init__(self, prefix: Prefix, length: int, slots: Tensor | None = None) -> None:
        """
        Args:
            length: keys to give, S + N or more.
            slots: int64 [B, N] below S + N, where the keys of each new token go; by default behind the prefix's S, in
                their order. What lies there already is written over.
        """
        super().__init__(layers=[_Lanes(keys, values, length, slots) for keys, values in prefix.layers])


class _Lanes(DynamicLayer):
    """The cache of one layer."""

    def __init__(self, keys: Tensor, values: Tensor, length: int, slots: Tensor | None) -> None:
        super().__init__()
        self.keys, self.values, self.length, self.slots = keys, values, length, slots
        self.device, self.is_initialized = keys.device, True

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Keys and values of all that was read, [B, heads, length, head_width] each."""
        held = self.keys.shape[2] + key_states.shape[2]
        keys, values = self._put(self.keys, key_states), self._put(self.values, value_states)
        self.keys, self.values = keys[:, :, :held], values[:, :, :held]
        return keys, values

    def _put(self, old: Tensor, new: Tensor) -> Tensor:
        rows, heads, count, width = new.shape
        more = self.length - old.shape[2] - count
        if self.slots is None:
            return torch.cat((old, new, new.new_zeros(rows, heads, more, width)), dim=2)
        whole = torch.cat((old, new.new_zeros(rows, heads, count + more, width)), dim=2)  # of the wider of two types
        return whole.scatter_(2, self.slots[:, None, :, None].expand_as(new), new.to(whole.dtype))
