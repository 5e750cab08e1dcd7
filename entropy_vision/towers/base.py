"""What a tower is to the packed run: its own modules, by the part they play.

An adapter holds no weights and changes none. Rows have any leading shape: [T, D] of a whole pack, or [S, L, D] of
segments of one length.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from entropy_vision.tower import Tower

Mix = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Attention: queries, keys and values [..., H, d] -> [..., H * d]."""


class Adapter(ABC):
    """A pre- or post-norm ViT whose patches are embedded one by one.

    Attributes:
        prefix: tokens of every segment before its patches: a class token, registers.
        grid: (rows, columns) of patches that the position rows were trained at.
        position: name of the position rows' parameter below the tower; "" where it has none.
    """

    prefix: int
    grid: tuple[int, int]
    position: str

    def __init__(self, tower: nn.Module) -> None:
        self.tower: Any = tower

    @property
    @abstractmethod
    def patches(self) -> nn.Conv2d:
        """The patch embedding, a convolution whose stride is its kernel."""

    @property
    @abstractmethod
    def blocks(self) -> Sequence[nn.Module]:
        """The blocks, first to last."""

    @property
    @abstractmethod
    def checkpoints(self) -> bool:
        """Whether a training step computes each block again instead of remembering it."""

    @abstractmethod
    def opening(self) -> Tensor:
        """Prefix tokens with their position rows, [p, D]."""

    @abstractmethod
    def positions(self) -> Tensor | None:
        """Position rows of the trained grid, [R * C, D]; None where the tower adds none."""

    def rotation(self, shape: tuple[int, int]) -> Tensor | None:
        """Sines and cosines by which queries and keys are rotated at every place of a grid, [R * C, 2 * d]; None where
        the tower rotates nothing."""
        return None

    @abstractmethod
    def enter(self, rows: Tensor) -> Tensor:
        """What stands between the sum of embedding and position and the first block."""

    @abstractmethod
    def attend(self, block: nn.Module, rows: Tensor, mix: Mix, rotation: Tensor | None) -> Tensor:
        """The first half of a block: rows plus their attention. `rotation` [..., 2 * d] is that of every row."""

    @abstractmethod
    def feed(self, block: nn.Module, rows: Tensor) -> Tensor:
        """The second half of a block: rows plus their MLP."""

    @abstractmethod
    def finish(self, rows: Tensor) -> Tensor:
        """Visual tokens of the rows behind the last block."""

    @abstractmethod
    def pool(self, rows: Tensor) -> Tensor:
        """The library's embedding [S, E] of whole segments [S, p + L, D] behind the last block.

        Raises:
            UsageError: a tower without pooling.
        """

    @abstractmethod
    def sizes(self) -> Tower:
        """What its price depends on."""

    @property
    @abstractmethod
    def targets(self) -> str:
        """Names of the blocks' linear maps, as a regular expression: what low-rank training adapts."""


def resize_positions(table: Tensor, trained: tuple[int, int], shape: tuple[int, int]) -> Tensor:
    """Position rows [R * C, D] of a grid, from the trained ones as open_clip and timm resize them (bicubic,
    antialiased, in single precision)."""
    if shape == trained:
        return table
    plane = table.float().reshape(1, *trained, -1).permute(0, 3, 1, 2)
    plane = F.interpolate(plane, size=shape, mode="bicubic", antialias=True, align_corners=False)
    return plane.permute(0, 2, 3, 1).flatten(0, 2).to(table.dtype)


def rotation_at(tables: Tensor, place: Tensor, weights: Tensor | None) -> Tensor:
    """Rows of a rotation table, or the rotations between four of them.

    A rotation by the mean of two angles is the mean of their unit vectors, made a unit vector again; that is exact half
    way between two places, where `merge` puts centres.

    Args:
        tables: [places, 2 * d], sines and cosines.
        place: int64 [...], or [..., 4] with `weights`.
        weights: float [..., 4], bilinear.

    Returns:
        [..., 2 * d].
    """
    rows = F.embedding(place, tables)
    if weights is None:
        return rows
    rows = (rows * weights.to(rows.dtype)[..., None]).sum(dim=-2)
    sine, cosine = rows.chunk(2, dim=-1)
    return rows / torch.hypot(sine, cosine).tile(2)
