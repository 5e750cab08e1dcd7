"""Projectors: visual tokens -> the language model's width, and which placeholders of the prompt they fill.

A placeholder is one token of `input_ids` that a visual embedding takes the place of. Most towers fill one a kept
patch; LLaVA-OneVision fills one for four patches of a video and one that closes every picture. `Slots` says how many,
and where each would stand had nothing been dropped: a rotary position that does not move when patches go.
"""

from __future__ import annotations

from dataclasses import dataclass
from inspect import signature
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from transformers.activations import ACT2FN

from entropy_vision.errors import UsageError
from entropy_vision.packed import PackedPatches

_OCTAVES = 5
POOLS = "this projector pools four tokens of a video into one: leave the policy's reduction out"


@dataclass(frozen=True)
class Slots:
    """The placeholders of a pack's B inputs, M in all.

    Attributes:
        counts: placeholders of every input.
        ranks: int64 [M], which of the dense input's placeholders each one is, ascending inside an input where no tokens
            were merged.
        totals: placeholders that every input would have with nothing dropped.
    """

    counts: tuple[int, ...]
    ranks: Tensor
    totals: tuple[int, ...]


class Places(Protocol):
    """Where visual tokens stand: a pack's, or what is left of them (`reduced.Reduced`).

    Attributes:
        counts: tokens of every input.
        grids: (F, R, C) of every input.
        positions: int64 [N, 3], (frame, row, column) of one of the patches that each stands for.
        centres: [N, 3], the same of its centre, which may lie between places.
    """

    @property
    def counts(self) -> tuple[int, ...]: ...

    @property
    def grids(self) -> tuple[tuple[int, int, int], ...]: ...

    @property
    def positions(self) -> Tensor: ...

    @property
    def centres(self) -> Tensor: ...


class Projector(nn.Module):
    """Visual token and its place -> the language model's width.

    The place enters as sines and cosines of y, x in [0, 1] (fractions of the frame) and t in [0, 1] (fraction of the
    video) at octave frequencies, so that grids of any size share one meaning of "top left".
    """

    def __init__(self, vision_width: int, text_width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(vision_width)
        self.look = nn.Linear(vision_width, text_width)
        self.place = nn.Linear(6 * _OCTAVES, text_width, bias=False)
        self.mix = nn.Sequential(nn.GELU(), nn.Linear(text_width, text_width))

    def forward(self, tokens: Tensor, places: Tensor) -> Tensor:
        """tokens [N, D_vision], places [N, 3] as (t, y, x) in [0, 1] -> [N, D_text]."""
        octaves = 2.0 ** torch.arange(_OCTAVES, device=places.device, dtype=places.dtype) * torch.pi
        angles = (places[:, :, None] * octaves).flatten(1)
        waves = torch.cat((angles.sin(), angles.cos()), dim=1).to(tokens.dtype)
        joined = self.look(self.norm(tokens)) + self.place(waves)
        return joined + self.mix(joined)

    def embed(self, tokens: Tensor, places: Places) -> Tensor:
        """tokens [N, D_vision] of some inputs -> what fills their placeholders, [N, D_text]."""
        extents = torch.from_numpy(np.repeat(np.array(places.grids), places.counts, axis=0))
        fractions = (places.centres.to(tokens.device) + 0.5) / extents.to(tokens.device)
        out: Tensor = self(tokens, fractions.float())
        return out

    def slots(self, places: Places) -> Slots:
        """One placeholder a token."""
        return _slot_a_token(places)


class LlavaProjector(nn.Module):
    """The two layers of LLaVA and LLaVA-OneVision, under transformers' names.

    Of OneVision (`newline`) a picture of one tile is followed by a learned token, and the frames of a video are pooled
    to half their side before (`pool`): bilinear, as transformers does it, so that four patches make one token. A pooled
    token is there if and only if its four patches are; each has a patch of its own, so which were meant can be told
    from the patches alone. One frame is a picture.
    """

    def __init__(
        self,
        vision_width: int,
        text_width: int,
        activation: str = "gelu",
        bias: bool = True,
        newline: bool = False,
    ) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(vision_width, text_width, bias=bias)
        self.act = ACT2FN[activation]
        self.linear_2 = nn.Linear(text_width, text_width, bias=bias)
        self.image_newline = nn.Parameter(torch.zeros(text_width)) if newline else None

    def forward(self, tokens: Tensor) -> Tensor:
        """[N, D_vision] -> [N, D_text]."""
        out: Tensor = self.linear_2(self.act(self.linear_1(tokens)))
        return out

    def embed(self, tokens: Tensor, places: Places) -> Tensor:
        """tokens [N, D_vision] of some inputs -> what fills their placeholders, [M, D_text].

        Raises:
            UsageError: tokens to pool that are not those of a pack.
        """
        projected: Tensor = self(tokens)
        if self.image_newline is None:
            return projected
        patches = _whole(places)
        parts: list[Tensor] = []
        for mine, positions, grid in _inputs(projected, patches):
            if grid[0] > 1:
                index, weights, _ = pooled_units(positions, grid)
                taps = mine[torch.from_numpy(index).to(mine.device)]
                mine = (taps * torch.from_numpy(weights).to(mine)[..., None]).sum(dim=1)
            parts += [mine, self.image_newline[None].to(mine.dtype)]
        return torch.cat(parts)

    def slots(self, places: Places) -> Slots:
        """One placeholder a token, or one a pooled one, and one behind every input that ends in `newline`. Errors as
        `embed`."""
        if self.image_newline is None:
            return _slot_a_token(places)
        patches = _whole(places)
        counts, ranks, totals = [], [], []
        for _, positions, (frames, rows, columns) in _inputs(patches.positions, patches):
            if frames > 1:
                _, _, rank = pooled_units(positions, (frames, rows, columns))
                rows, columns = half(rows), half(columns)
            else:
                rank = positions[:, 1] * columns + positions[:, 2]
            total = frames * rows * columns
            ranks.append(np.append(rank, total))
            counts.append(len(rank) + 1)
            totals.append(total + 1)
        return Slots(tuple(counts), torch.from_numpy(np.concatenate(ranks)), tuple(totals))


def half(side: int) -> int:
    """Units along a side of a grid that is pooled."""
    return -(-side // 2)


def _taps(side: int) -> tuple[np.ndarray, np.ndarray]:
    """(int64 [half, 2], float32 [half, 2]): what a bilinear resize of `side` values to half as many takes, how much."""
    source = ((np.arange(half(side)) + 0.5) * (side / half(side)) - 0.5).clip(min=0)
    low = np.floor(source).astype(np.int64)
    share = (source - low).astype(np.float32)
    return np.stack([low, np.minimum(low + 1, side - 1)], axis=1), np.stack([1 - share, share], axis=1)


def unit_patches(rows: int, columns: int) -> tuple[np.ndarray, np.ndarray]:
    """The four patches of every pooled token of one frame.

    Returns:
        (int64 [U, 4] places in the grid's reading order, float32 [U, 4] weights), U = ceil(R / 2) * ceil(C / 2).
    """
    (down, tall), (along, wide) = _taps(rows), _taps(columns)
    place = down[:, None, :, None] * columns + along[None, :, None, :]
    weight = tall[:, None, :, None] * wide[None, :, None, :]
    return place.reshape(-1, 4), weight.reshape(-1, 4)


def pooled_units(positions: np.ndarray, grid: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The pooled tokens of one video that all have their patches.

    Args:
        positions: int [K, 3], the kept patches.
        grid: (F, R, C).

    Returns:
        (int64 [U, 4] which of the K patches each takes, float32 [U, 4] how much, int64 [U] rank of each among all).
    """
    frames, rows, columns = grid
    place, weight = unit_patches(rows, columns)
    known = np.full((frames, rows * columns), -1, np.int64)
    known[positions[:, 0], positions[:, 1] * columns + positions[:, 2]] = np.arange(len(positions))
    index = known[:, place]
    frame, unit = np.nonzero((index >= 0).all(axis=2))
    return index[frame, unit], weight[unit], frame * len(place) + unit


def _inputs(values: Tensor, patches: PackedPatches) -> list[tuple[Tensor, np.ndarray, tuple[int, int, int]]]:
    """(its rows of `values`, positions int [K, 3], grid) of every input."""
    positions = np.split(patches.positions.cpu().numpy(), np.cumsum(patches.counts)[:-1])
    return list(zip(patches.split(values), positions, patches.grids, strict=True))


def _whole(places: Places) -> PackedPatches:
    """Raises UsageError: tokens of which some are gone."""
    if not isinstance(places, PackedPatches):
        raise UsageError(POOLS)
    return places


def _slot_a_token(places: Places) -> Slots:
    grids = np.repeat(np.array(places.grids), places.counts, axis=0)
    frame, row, column = places.positions.cpu().numpy().T
    ranks = (frame * grids[:, 1] + row) * grids[:, 2] + column
    totals = tuple(frames * rows * columns for frames, rows, columns in places.grids)
    return Slots(places.counts, torch.from_numpy(ranks), totals)


def projector_flops(projector: nn.Module, tokens: int) -> int:
    """FLOPs of projecting so many visual tokens, 2 for every multiply and add; equals `cost.count_flops` exactly."""
    return 2 * tokens * sum(map_.weight.numel() for map_ in projector.modules() if isinstance(map_, nn.Linear))


def make_projector(settings: dict[str, Any], vision_width: int, text_width: int) -> Projector | LlavaProjector:
    """The projector that `EntropyVLMConfig.projector` describes.

    Raises:
        UsageError: an unknown kind or option.
    """
    options = dict(settings)
    kind = options.pop("kind", "place")
    made = {"place": Projector, "llava": LlavaProjector}.get(kind)
    if made is None:
        raise UsageError(f'projector must be of kind "place" or "llava", got {kind!r}')
    unknown = options.keys() - signature(made).parameters.keys()
    if unknown:
        raise UsageError(f"a projector of kind {kind!r} has no option {min(unknown)!r}")
    return made(vision_width, text_width, **options)
