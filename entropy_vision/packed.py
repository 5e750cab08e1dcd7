"""PackedPatches: the kept patches of many inputs end to end, and where each of them goes in the tower.

Inputs keep different numbers of patches. Padding them to the longest would pay for patches that nobody kept, so they
stand one behind the other in one tensor, and attention runs inside segments of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import nn

from entropy_vision.attend import Attend as Attend
from entropy_vision.errors import UsageError
from entropy_vision.patchset import PatchSet


@dataclass(frozen=True, kw_only=True, eq=False)
class Layout:
    """Rows of the tower's residual stream for one pack: T = N patches + p prefix tokens for each of S segments.

    Prefix tokens are the tower's class token and registers: one in a CLIP, none in a SigLIP. Segments stand in order
    of length, so those of equal length are one contiguous block and share one batched attention call; a segment's
    prefix comes before its patches, as in the dense tower.

    Attributes:
        prefix: p.
        order: int64 [T], row t takes entry order[t] of the S * p prefix tokens (by segment) followed by the N patches.
        patch_rows: int64 [N], the row of every patch, in the order of the pack.
        first_rows: int64 [S], the row that every segment begins with, in the order of the pack.
        patch_segments: int64 [N], the segment of every patch, ascending.
        place: int64 [N], row of every patch in the position tables of `shapes`, one table behind the other; of a pack
            with merged patches int64 [N, 4], the rows around the centre of each.
        weights: float32 [N, 4], the bilinear weights of those rows; None without merged patches.
        starts: int32 [S + 1], first row of every segment in row order, and T.
        groups: (segments, rows of one segment) of every block, shortest first.
        shapes: distinct (R, C) grids of the pack.
        input_segments: segments of every input.
    """

    prefix: int
    order: torch.Tensor
    patch_rows: torch.Tensor
    first_rows: torch.Tensor
    patch_segments: torch.Tensor
    place: torch.Tensor
    weights: torch.Tensor | None
    starts: torch.Tensor
    groups: tuple[tuple[int, int], ...]
    shapes: tuple[tuple[int, int], ...]
    input_segments: tuple[int, ...]

    @property
    def longest(self) -> int:
        """Rows of the longest segment, its prefix included."""
        return self.groups[-1][1]

    def to(self, device: torch.device | str) -> Layout:
        """The same layout on another device."""
        names = ("order", "patch_rows", "first_rows", "patch_segments", "place", "starts")
        weights = None if self.weights is None else self.weights.to(device)
        return replace(self, weights=weights, **{name: getattr(self, name).to(device) for name in names})


@dataclass(frozen=True, kw_only=True, eq=False)
class PackedPatches:
    """Kept patches of B inputs, concatenated: N = sum of K_i.

    Attributes:
        pixels: uint8 [N, P, P, 3].
        positions: int64 [N, 3], (frame, row, column) inside the patch's own input.
        counts: K_i of every input, >= 1.
        grids: (F, R, C) of every input.
        attend: which patches see each other in the tower: those of one "frame" (what the weights were trained on), of
            so many frames in a row (4: frames 0 to 3, 4 to 7 ...), or all of one "input"; what sees each other shares
            one class token.
        spans: int64 [N, 2], rows and columns of the grid that each patch stands for; None where none is merged.

    Raises:
        ValueError: shapes or counts that do not belong together.
    """

    pixels: torch.Tensor
    positions: torch.Tensor
    counts: tuple[int, ...]
    grids: tuple[tuple[int, int, int], ...]
    attend: Attend = "frame"
    spans: torch.Tensor | None = None

    def __post_init__(self) -> None:
        patches = sum(self.counts)
        if not self.counts or min(self.counts) < 1:
            raise ValueError(f"PackedPatches.counts must name at least one input of at least one patch: {self.counts}")
        if len(self.grids) != len(self.counts):
            raise ValueError(f"PackedPatches has {len(self.counts)} counts but {len(self.grids)} grids")
        side = self.pixels.shape[1] if self.pixels.ndim == 4 else 0
        if self.pixels.dtype != torch.uint8 or self.pixels.shape != (patches, side, side, 3):
            raise ValueError(
                f"PackedPatches.pixels must be uint8 [{patches}, P, P, 3], "
                f"got {self.pixels.dtype} {list(self.pixels.shape)}"
            )
        if self.positions.dtype != torch.int64 or self.positions.shape != (patches, 3):
            raise ValueError(
                f"PackedPatches.positions must be int64 [{patches}, 3], "
                f"got {self.positions.dtype} {list(self.positions.shape)}"
            )
        if self.spans is not None and (self.spans.dtype != torch.int64 or self.spans.shape != (patches, 2)):
            raise ValueError(
                f"PackedPatches.spans must be int64 [{patches}, 2], got {self.spans.dtype} {list(self.spans.shape)}"
            )
        if self.attend not in ("frame", "input") and not (type(self.attend) is int and self.attend > 0):
            raise ValueError(f"PackedPatches.attend must be 'frame', 'input' or a count of frames, got {self.attend!r}")

    @classmethod
    def pack(cls, sets: Sequence[PatchSet], attend: Attend = "frame") -> PackedPatches:
        """Concatenate patch sets, in their order, on the CPU.

        Raises:
            UsageError: no set at all, what is no list of sets, or sets of different patch sizes.
        """
        if isinstance(sets, PatchSet) or not all(isinstance(one, PatchSet) for one in sets):
            found = "one" if isinstance(sets, PatchSet) else ", ".join(sorted({type(one).__name__ for one in sets}))
            raise UsageError(
                f"a pack is made of a list of PatchSet, not of {found}: [kept], of kept = EntropyTokenizer(...)(frames)"
            )
        if not sets:
            raise UsageError("nothing to pack: give at least one PatchSet")
        sizes = sorted({one.patch_size for one in sets})
        if len(sizes) > 1:
            raise UsageError(f"patch sizes {sizes} in one pack: tokenize every input with the same patch_size")
        pixels = sets[0].pixels if len(sets) == 1 else np.concatenate([one.pixels for one in sets])
        positions = np.concatenate([one.positions for one in sets]).astype(np.int64)
        spans = None
        if any(one.spans is not None for one in sets):
            alone = [np.ones((len(one), 2), np.int32) if one.spans is None else one.spans for one in sets]
            spans = torch.from_numpy(np.concatenate(alone).astype(np.int64))
        return cls(
            pixels=torch.from_numpy(np.ascontiguousarray(pixels)),
            positions=torch.from_numpy(positions),
            counts=tuple(len(one) for one in sets),
            grids=tuple(one.grid for one in sets),
            attend=attend,
            spans=spans,
        )

    @property
    def patch_size(self) -> int:
        """Side P of a patch in pixels."""
        return self.pixels.shape[1]

    @property
    def device(self) -> torch.device:
        """Where the tensors are."""
        return self.pixels.device

    @property
    def centres(self) -> torch.Tensor:
        """[N, 3], (frame, row, column) of the centre of what every patch stands for: its position, or float32 between
        positions in a pack with merged patches."""
        if self.spans is None:
            return self.positions
        return self.positions + nn.functional.pad((self.spans - 1) / 2, (1, 0))

    @property
    def layout(self) -> Layout:
        """Where every patch goes in a tower with one class token."""
        return self.lay_out(1)

    def lay_out(self, prefix: int) -> Layout:
        """Where every patch goes in a tower of so many prefix tokens; worked out once for a pack, on its device."""
        if prefix not in self._layouts:
            spans = None if self.spans is None else self.spans.cpu().numpy()
            layout = _lay_out(self.positions.cpu().numpy(), spans, self.counts, self.grids, self.attend, prefix)
            self._layouts[prefix] = layout if self.device.type == "cpu" else layout.to(self.device)
        return self._layouts[prefix]

    def segments(self, prefix: int = 1) -> list[int]:
        """Patches of every attention segment, which a tower's price depends on."""
        counts: list[int] = torch.bincount(self.lay_out(prefix).patch_segments).tolist()
        return counts

    @cached_property
    def _layouts(self) -> dict[int, Layout]:
        return {}

    def to(self, device: torch.device | str) -> PackedPatches:
        """The same pack on another device (itself where it is already there)."""
        if torch.device(device) == self.device:
            return self
        # worked out before the move, for one class token if no tower has asked: afterwards it would wait for the device
        layouts = {p: self.lay_out(p).to(device) for p in (self._layouts or (1,))}
        spans = None if self.spans is None else self.spans.to(device)
        moved = replace(self, pixels=self.pixels.to(device), positions=self.positions.to(device), spans=spans)
        moved._layouts.update(layouts)
        return moved

    def attending(self, attend: Attend) -> PackedPatches:
        """The same pack with another `attend`, where it leaves that at "frame"; itself where it is the same."""
        return self if self.attend != "frame" or attend == "frame" else replace(self, attend=attend)

    def split(self, tensor: torch.Tensor) -> list[torch.Tensor]:
        """[N, ...] back into one [K_i, ...] for every input (views)."""
        return list(tensor.split(list(self.counts)))

    def __len__(self) -> int:
        return len(self.pixels)

    def __repr__(self) -> str:
        return f"PackedPatches(inputs={len(self.counts)}, patches={len(self)}, patch={self.patch_size})"


def _lay_out(
    positions: np.ndarray,
    spans: np.ndarray | None,
    counts: tuple[int, ...],
    grids: tuple[tuple[int, int, int], ...],
    attend: Attend,
    prefix: int,
) -> Layout:
    """The layout of N patches, in whole-array steps: this runs once for every batch of training."""
    total = len(positions)
    source = np.repeat(np.arange(len(counts)), counts)
    new = np.ones(total, bool)
    new[1:] = source[1:] != source[:-1]
    if attend != "input":
        group = positions[:, 0] // (1 if attend == "frame" else attend)
        new[1:] |= group[1:] != group[:-1]
    first = np.flatnonzero(new)
    segment = np.cumsum(new) - 1
    segments = len(first)
    lengths = np.diff(np.append(first, total)) + prefix

    ranked = np.argsort(lengths, kind="stable")
    starts = np.concatenate([[0], np.cumsum(lengths[ranked])])
    first_rows = np.empty(segments, np.int64)
    first_rows[ranked] = starts[:-1]
    patch_rows = first_rows[segment] + prefix + np.arange(total) - first[segment]
    order = np.empty(total + segments * prefix, np.int64)
    order[first_rows[:, None] + np.arange(prefix)] = np.arange(segments * prefix).reshape(segments, prefix)
    order[patch_rows] = segments * prefix + np.arange(total)
    sizes, repeats = np.unique(lengths, return_counts=True)

    shapes = tuple(dict.fromkeys((rows, columns) for _, rows, columns in grids))
    areas = [rows * columns for rows, columns in shapes]
    offset_of = dict(zip(shapes, np.cumsum([0, *areas]).tolist(), strict=False))
    offsets = np.array([offset_of[grid[1:]] for grid in grids])
    widths = np.array([columns for _, _, columns in grids])
    place = offsets[source] + positions[:, 1] * widths[source] + positions[:, 2]
    weights = None
    if spans is not None:
        place, weights = _around(place, widths[source], spans)
    return Layout(
        prefix=prefix,
        order=torch.from_numpy(order),
        patch_rows=torch.from_numpy(patch_rows),
        first_rows=torch.from_numpy(first_rows),
        patch_segments=torch.from_numpy(segment),
        place=torch.from_numpy(place),
        weights=None if weights is None else torch.from_numpy(weights),
        starts=torch.from_numpy(starts.astype(np.int32)),
        groups=tuple(zip(repeats.tolist(), sizes.tolist(), strict=True)),
        shapes=shapes,
        input_segments=tuple(np.bincount(source[first], minlength=len(counts)).tolist()),
    )


def _around(place: np.ndarray, widths: np.ndarray, spans: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The four position rows around the centre of every patch and their bilinear weights, [N, 4] each.

    Spans end inside the grid, so a centre lies on a row or half way to one that exists. Where it lies on one, that row
    weighs 1 and stands four times: what is not merged gets exactly its own.

    Args:
        place: position row of the first place that each patch stands for.
        widths: columns of its grid.
        spans: int [N, 2].
    """
    (down, along), (half_down, half_along) = (spans.T - 1) // 2, (spans.T - 1) % 2
    first = place + down * widths + along
    below, right = half_down * widths, half_along
    corners = np.stack([first, first + right, first + below, first + below + right], axis=1)
    y, x = half_down / 2, half_along / 2
    weights = np.stack([(1 - y) * (1 - x), (1 - y) * x, y * (1 - x), y * x], axis=1)
    return corners, weights.astype(np.float32)
