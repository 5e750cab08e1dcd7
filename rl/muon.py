"""Muon where matrices are divided among processes: every matrix has an owner, who updates it as a whole.

Muon (K. Jordan and others, 2024) orthogonalises whole matrices, of which a process holds some rows. So each owner is
sent everybody's rows of the weights and of the summed gradients, steps torch's own Muon, and sends rows of the updated
weights back. The numbers are those of one process; momentum and the work are divided by matrices.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor


class DividedMuon:
    """torch's Muon over matrices of which each process holds a part; all processes step it together.

    Attributes:
        owned: those whose owner this process is, by their place among the matrices. They hold a value during a step
            only; Muon's momentum stays with them.
    """

    def __init__(self, matrices: Sequence[DTensor], lr: float, weight_decay: float) -> None:
        """
        Args:
            matrices: two-dimensional, each divided by rows over the same processes.
        """
        self._matrices = matrices
        mesh = matrices[0].device_mesh
        self._rank, self._owners = mesh.get_local_rank(), owners([m.numel() for m in matrices], mesh.size())
        mine = [i for i, owner in enumerate(self._owners) if owner == self._rank]
        self.owned = {i: nn.Parameter(matrices[i].to_local().new_empty(0, 0)) for i in mine}
        self._muon = torch.optim.Muon(self.owned.values(), lr=lr, weight_decay=weight_decay) if mine else None

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """As an optimiser's, of what is owned here: none where there are fewer matrices than processes."""
        return self._muon.param_groups if self._muon else []

    @property
    def state(self) -> dict[Tensor, dict[str, Tensor]]:
        """As an optimiser's, of what is owned here."""
        return self._muon.state if self._muon else {}

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drop the gradients."""
        for matrix in self._matrices:
            matrix.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """One update of every matrix that has a gradient; the same ones have one in all processes."""
        used = [i for i, matrix in enumerate(self._matrices) if matrix.grad is not None]
        if not used:
            return
        exchange = _Exchange([self._matrices[i] for i in used], [self._owners[i] for i in used], self._rank)
        owned = [self.owned[used[place]] for place in exchange.mine]
        gradients = exchange.collect([matrix.grad for matrix in exchange.matrices])  # type: ignore[misc]
        for p, weight, gradient in zip(owned, exchange.collect(exchange.matrices), gradients, strict=True):
            p.data, p.grad = weight, gradient
        if self._muon:
            self._muon.step()
        exchange.give_back([p.data for p in owned])
        for p in owned:
            p.data, p.grad = p.data.new_empty(0, 0), None


def owners(sizes: Sequence[int], processes: int) -> list[int]:
    """Who owns each of some matrices: the largest first, each to the process that has the least."""
    load, chosen = [0] * processes, [0] * len(sizes)
    for i in sorted(range(len(sizes)), key=lambda i: -sizes[i]):
        chosen[i] = load.index(min(load))
        load[chosen[i]] += sizes[i]
    return chosen


class _Exchange:
    """Matrices on their way between those who hold rows of them and their owners.

    Everybody sends everybody one run of numbers: of each matrix that the other owns, in order, the rows held here.
    """

    def __init__(self, matrices: Sequence[DTensor], matrix_owners: Sequence[int], rank: int) -> None:
        self.matrices = matrices
        mesh = matrices[0].device_mesh
        self._group = mesh.get_group()
        self._held = [_numbers_held(m.shape, mesh.size()) for m in matrices]
        self._of = [[i for i, owner in enumerate(matrix_owners) if owner == r] for r in range(mesh.size())]
        self.mine = self._of[rank]
        self._here = [[self._held[i][rank] for i in of] for of in self._of]
        self._there = [[self._held[i][r] for i in self.mine] for r in range(mesh.size())]

    def collect(self, parts: Sequence[DTensor]) -> list[Tensor]:
        """Those owned here as wholes, from parts of all of them that are laid out as the matrices."""
        sent = [[parts[i].to_local() for i in of] for of in self._of]
        received = self._swap(sent, self._here, self._there)
        rows = zip(*received, strict=True)
        return [torch.cat(run).view(self.matrices[i].shape) for i, run in zip(self.mine, rows, strict=True)]

    def give_back(self, wholes: Sequence[Tensor]) -> None:
        """Write the rows of those owned here into everybody's parts."""
        parted = [whole.flatten().split(self._held[i]) for i, whole in zip(self.mine, wholes, strict=True)]
        sent = [[runs[r] for runs in parted] for r in range(len(self._of))]
        for of, received in zip(self._of, self._swap(sent, self._there, self._here), strict=True):
            for i, run in zip(of, received, strict=True):
                part = self.matrices[i].to_local()
                part.copy_(run.view_as(part))

    def _swap(
        self, sent: Sequence[Sequence[Tensor]], out: Sequence[Sequence[int]], back: Sequence[Sequence[int]]
    ) -> list[Sequence[Tensor]]:
        """Send process r the tensors `sent[r]`, of `out[r]` numbers; gives what each sent here, of `back[r]`."""
        like = self.matrices[0].to_local()
        flat = torch.cat([like.new_empty(0), *(tensor.flatten() for some in sent for tensor in some)])
        sizes = [sum(counts) for counts in back]
        received = like.new_empty(sum(sizes))
        dist.all_to_all_single(received, flat, sizes, [sum(counts) for counts in out], group=self._group)
        return [run.split(counts) for run, counts in zip(received.split(sizes), back, strict=True)]


def _numbers_held(shape: Sequence[int], processes: int) -> list[int]:
    """How many numbers of a matrix each process holds: as many whole rows for each, as long as there are any."""
    rows, width = shape
    most = math.ceil(rows / processes)
    return [len(range(rows)[r * most : (r + 1) * most]) * width for r in range(processes)]
