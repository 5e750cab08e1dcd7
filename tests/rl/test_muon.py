"""Muon over divided matrices: bit for bit torch's own over whole ones, whoever holds what."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Shard, distribute_tensor

from entropy_vision.rl.muon import DividedMuon, owners
from entropy_vision.rl.parallel import current_team, in_team

_SHAPES = [(8, 6), (7, 5), (1, 9), (12, 3), (2, 2)]
_UNUSED = {1: {3}, 2: {0, 1, 2, 3, 4}}  # step -> matrices without a gradient


def _gradients(step: int, shapes: list[tuple[int, int]]) -> list[torch.Tensor | None]:
    made = [
        torch.randn(shape, generator=torch.Generator().manual_seed(100 * step + i)) for i, shape in enumerate(shapes)
    ]
    return [None if i in _UNUSED.get(step, ()) else gradient for i, gradient in enumerate(made)]


def _start(shapes: list[tuple[int, int]]) -> list[torch.Tensor]:
    return [torch.randn(shape, generator=torch.Generator().manual_seed(i)) for i, shape in enumerate(shapes)]


def _stepped(shapes: list[tuple[int, int]]) -> tuple[list[list[list[float]]], list[int]]:
    """(matrices after four updates, how many of them each process keeps a momentum of)"""
    team = current_team()
    mesh = init_device_mesh("cpu", (team.size,))
    parts = [nn.Parameter(distribute_tensor(matrix, mesh, [Shard(0)])) for matrix in _start(shapes)]
    muon = DividedMuon([p for p in parts if isinstance(p, DTensor)], lr=0.02, weight_decay=0.1)
    for step in range(4):
        for p, gradient in zip(parts, _gradients(step, shapes), strict=True):
            p.grad = None if gradient is None else distribute_tensor(gradient, mesh, [Shard(0)])
        for group in muon.param_groups:
            group["lr"] = 0.02 / (step + 1)
        muon.step()
        muon.zero_grad()
    kept = sum(state["momentum_buffer"].numel() for state in muon.state.values())
    return [p.full_tensor().tolist() for p in parts if isinstance(p, DTensor)], team.gather(kept)


@pytest.mark.parametrize(("processes", "count"), [(2, 5), (3, 5), (3, 2)])
def test_divided_matrices_are_updated_as_whole_ones(processes: int, count: int) -> None:
    """Rows that cannot be shared evenly, matrices without a gradient, fewer matrices than processes."""
    shapes = _SHAPES[:count]
    whole = [nn.Parameter(matrix) for matrix in _start(shapes)]
    muon = torch.optim.Muon(whole, lr=0.02, weight_decay=0.1)
    for step in range(4):
        for p, gradient in zip(whole, _gradients(step, shapes), strict=True):
            p.grad = gradient
        for group in muon.param_groups:
            group["lr"] = 0.02 / (step + 1)
        muon.step()
    divided, kept = in_team(processes, _stepped, shapes)
    assert [matrix.tolist() for matrix in whole] == divided
    assert sum(kept) == sum(rows * width for rows, width in shapes)
    assert sum(held > 0 for held in kept) == min(processes, count)


def test_matrices_are_shared_out_by_their_size() -> None:
    assert owners([4, 9, 4, 4, 1], 2) == [1, 0, 1, 1, 0]
    assert owners([3], 4) == [0]
