"""Prefix: what rows of a policy have read so far."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Prefix:
    """What B rows have read so far.

    Attributes:
        layers: (keys, values), each [B, heads, S, head_width], of every layer of the language model.
        live: bool [B, S], False where a slot is padding.
        next_position: int64 [B], rotary position of each row's next token.
        pending: int64 [B], the token that each row reads next and whose successor it says first; None where nothing
            has been asked yet.
    """

    layers: tuple[tuple[Tensor, Tensor], ...]
    live: Tensor
    next_position: Tensor
    pending: Tensor | None = None

    def rows(self, index: Tensor) -> Prefix:
        """Rows `index` [B'] of this prefix: one picture for many questions, one question for a group."""
        layers = tuple((k.index_select(0, index), v.index_select(0, index)) for k, v in self.layers)
        pending = None if self.pending is None else self.pending.index_select(0, index)
        return Prefix(layers, self.live.index_select(0, index), self.next_position.index_select(0, index), pending)
