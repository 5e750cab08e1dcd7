"""FSDP2 for the same loop: every process holds and updates its part of the weights, all of them work with the whole.

Sampling is ragged: processes sample different numbers of tokens and learn from different numbers of groups, and a
collective inside a layer would wait for ever. So weights are gathered once an update and gradients scattered once an
update, at the same place everywhere, and nothing in between talks. Divided among the processes are the optimiser's
state (two thirds of the memory of AdamW in single precision), the update, and from it on the gradients; whole while a
step is computed are the weights and one gradient.
"""

from __future__ import annotations

import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import Tensor, nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.planner import SavePlan, SavePlanner
from torch.distributed.checkpoint.storage import WriteResult
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor
from torch.futures import Future

from entropy_vision.policy import EntropyVLM

from .refused import refusals_name


def shard(model: EntropyVLM) -> None:
    """Divide a policy among the processes: tower, layers of the language model and the rest are a unit each."""
    mesh = init_device_mesh(model.device.type, (dist.get_world_size(),))
    layers = cast(Any, model.language.base_model).layers
    for unit in (model.encoder, *layers, model):
        fully_shard(unit, mesh=mesh, reshard_after_forward=False)
    model.touch = types.MethodType(_touch, model)  # type: ignore[assignment]
    register_fsdp_forward_method(model, "touch")
    for part in _units(model):
        # losses are divided by counts of the whole step, so gradients are added; Gloo knows no other way to say so
        part.set_gradient_divide_factor(1.0)
        part.set_force_sum_reduction_for_comms(True)
        part.set_reduce_scatter_unused_params(True)
    _touch_all(model, sync=False)  # the root is who is called first


def is_sharded(model: nn.Module) -> bool:
    """Whether `shard` was here."""
    return isinstance(model, FSDPModule)


def _touch(self: nn.Module, x: Tensor) -> Tensor:
    """The forward pass whose backward pass ends an update: it uses nothing, so that gradients stay what they are."""
    return x * 1.0


def _touch_all(model: EntropyVLM, sync: bool) -> None:
    root = cast(FSDPModule, model)
    root.set_requires_gradient_sync(sync)
    root.set_reshard_after_backward(sync)
    start = torch.zeros((), device=model.device, requires_grad=True)
    model.touch(start).backward()  # type: ignore[operator]
    root.set_requires_gradient_sync(False)
    root.set_reshard_after_backward(False)


def gather(model: EntropyVLM) -> None:
    """Give every process all weights, to sample, learn, measure and save with."""
    for unit in _units(model):
        unit.unshard()


def release(model: EntropyVLM) -> None:
    """Leave every process its part of the weights."""
    for unit in _units(model):
        unit.reshard()


def reduce_gradients(model: EntropyVLM) -> None:
    """Add all processes' gradients and leave each its part of the sum; weights are parts afterwards.

    A parameter that no process used keeps no gradient, as where processes hold copies.
    """
    named = [n for n, p in model.named_parameters() if p.requires_grad]
    whole = dict(model.named_parameters())
    used = torch.tensor([float(whole[n].grad is not None) for n in named], device=model.device)
    dist.all_reduce(used)
    _touch_all(model, sync=True)
    parts = dict(model.named_parameters())
    for name, count in zip(named, used.tolist(), strict=True):
        if not count:
            parts[name].grad = None


class _Writer(dcp.FileSystemWriter):
    """torch's own; but that a disk is full is still known when the other processes are told."""

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> Future[list[WriteResult]]:
        with refusals_name(Path(self.path)):
            return super().write_data(plan, planner)


def save_divided(tensors: Mapping[str, Tensor], folder: Path, group: dist.ProcessGroup | None = None) -> None:
    """Write named tensors, each process its parts, as a distributed checkpoint; all processes of a group call it.

    Raises:
        OSError: the machine refuses to write it, in whichever process.
    """
    try:
        dcp.save(dict(tensors), storage_writer=_Writer(folder), process_group=group)
    except CheckpointException as error:
        for one, _ in error.failures.values():
            if isinstance(one, OSError):
                raise one from error
        raise


def load_divided(folder: Path, shapes: dict[str, Tensor]) -> dict[str, Tensor]:
    """Named tensors of a distributed checkpoint, however many processes wrote it.

    Args:
        shapes: parameter -> a tensor laid out as its moments are to be: whole, or a process's part. Of parameters that
            are not among them nothing is read.
    """
    held = dcp.FileSystemReader(folder).read_metadata().state_dict_metadata
    tensors: dict[str, Tensor] = {}
    for key, known in held.items():
        if (name := key.split(":", 1)[1]) not in shapes:
            continue
        like = shapes[name].detach()
        size = cast(Any, known).size
        tensors[key] = torch.zeros_like(like) if tuple(size) == tuple(like.shape) else torch.zeros(size)
    dcp.load(tensors, checkpoint_id=folder, no_dist=not dist.is_initialized())
    return tensors


def gathered_state(model: EntropyVLM) -> dict[str, Tensor]:
    """What `state_dict` gives of a policy that nobody has divided; `state_dict` itself would hold parts."""
    if not is_sharded(model):
        return model.state_dict()
    named = {name: p.detach() for name, p in model.named_parameters(remove_duplicate=False)}
    for prefix, module in model.named_modules():
        kept = {n: b for n, b in module.named_buffers(recurse=False) if n not in module._non_persistent_buffers_set}
        named |= {f"{prefix}.{name}".lstrip("."): buffer for name, buffer in kept.items()}
    return named


def is_part(x: Tensor) -> bool:
    """Whether a tensor is what a process holds of one that is divided."""
    return isinstance(x, DTensor)


def _units(model: nn.Module) -> list[FSDPModule]:
    return [m for m in model.modules() if isinstance(m, FSDPModule)]
