"""An accelerator that is none: tensors that say they are on "cuda", computed on the CPU.

What it is for: code that moves a policy to an accelerator forgets a tensor here and there, and without the hardware
nobody sees it. Inside `pretend_cuda()` every operation checks that its tensors are all in one place, as the real one
does (tensors of no dimension may be on the CPU), and raises where they are not.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

HERE, THERE = torch.device("cpu"), torch.device("cuda", 0)
_MOVES = {torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default, torch.ops.aten._local_scalar_dense.default}
# reads its index tensors on either side
_ANY = {torch.ops.aten.index.Tensor, torch.ops.aten.index_put_.default, torch.ops.aten._index_put_impl_.default}


class There(torch.Tensor):
    """A tensor on the pretended device; `held` is where its numbers are."""

    held: torch.Tensor

    @staticmethod
    def __new__(cls, held: torch.Tensor) -> There:
        return torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined,no-any-return]
            cls, held.size(), held.stride(), held.storage_offset(), dtype=held.dtype, device=THERE
        )

    def __init__(self, held: torch.Tensor) -> None:
        self.held = held

    def __repr__(self) -> str:  # type: ignore[override]
        return f"There({self.held})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


class _Mode(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


def _run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    tensors = [t for t in tree_flatten((args, kwargs))[0] if isinstance(t, torch.Tensor)]
    there = [t for t in tensors if isinstance(t, There)]
    mixed = [t for t in tensors if not isinstance(t, There) and t.ndim > 0]
    if there and mixed and func not in _MOVES and func not in _ANY:
        raise RuntimeError(f"{func}: tensors of {[tuple(t.shape) for t in mixed]} are on the CPU, others on cuda")
    wanted = kwargs.get("device")
    wanted = torch.device(wanted) if wanted is not None else None
    kwargs = kwargs | ({"device": HERE} if wanted is not None else {})
    if kwargs.get("pin_memory"):
        kwargs["pin_memory"] = False
    unwrapped = tree_map(lambda t: t.held if isinstance(t, There) else t, (args, kwargs))
    given = func(*unwrapped[0], **unwrapped[1])
    if func is torch.ops.aten._local_scalar_dense.default:
        return given
    if func._schema.is_mutable and tensors:  # what was changed in place is what it was
        own = {id(t.held): t for t in there}
        return tree_map(lambda t: own.get(id(t), _put(t, bool(there))) if isinstance(t, torch.Tensor) else t, given)
    to_there = wanted.type == "cuda" if wanted is not None else bool(there)
    return tree_map(lambda t: _put(t, to_there) if isinstance(t, torch.Tensor) else t, given)


def _put(t: torch.Tensor, there: bool) -> torch.Tensor:
    return There(t) if there and not isinstance(t, There) else t


@contextmanager
def pretend_cuda(monkeypatch: Any) -> Iterator[torch.device]:
    """Inside, "cuda" is a device; `torch.cuda.is_available()` stays False, what asks for kernels of its own is off."""
    generator = torch.Generator
    monkeypatch.setattr(torch, "Generator", lambda device="cpu": generator())
    with _Mode():
        yield THERE
