"""An accelerator that is none: tensors that say they are on "cuda", computed on the CPU.

What it is for: code that moves a policy to an accelerator forgets a tensor here and there, and without the hardware
nobody sees it. Inside `pretend_cuda` every operation checks that its tensors are all in one place, as the real one
does (tensors of no dimension may be on the CPU), and raises where they are not. Kernels, speed and numbers of the real
one are not pretended.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

HERE, THERE = torch.device("cpu"), torch.device("cuda", 0)
_ATEN = torch.ops.aten
_MOVES = {_ATEN._to_copy.default, _ATEN.copy_.default, _ATEN._local_scalar_dense.default}
# the host goes on when it knows what they give
_ASKS = {_ATEN._local_scalar_dense.default, _ATEN.nonzero.default, _ATEN.masked_select.default, _ATEN.equal.default}
# these take index tensors from either side
_INDEX = {_ATEN.index.Tensor, _ATEN.index_put_.default, _ATEN._index_put_impl_.default}
# backward passes of indexing: they make their zeros in C++, where the pretence does not reach
_SCATTER = {_ATEN.index_put.default, _ATEN.index_add.default, _ATEN.scatter_add.default}


class There(torch.Tensor):
    """A tensor on the pretended device; `held` has its numbers. To torch's own C++ it is on the CPU."""

    held: torch.Tensor
    waits: ClassVar[int] = 0
    __torch_function__ = torch._C._disabled_torch_function_impl  # what is overridden here is what Python finds

    @staticmethod
    def __new__(cls, held: torch.Tensor) -> There:
        return torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined,no-any-return]
            cls, held.size(), held.stride(), held.storage_offset(), dtype=held.dtype, device=HERE
        )

    def __init__(self, held: torch.Tensor) -> None:
        self.held = held

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})

    device = property(lambda self: THERE)  # type: ignore[assignment]
    is_cuda = property(lambda self: True)  # type: ignore[assignment]

    def __repr__(self) -> str:  # type: ignore[override]
        return f"There({self.held})"

    def to(self, *args: Any, **kwargs: Any) -> torch.Tensor:  # type: ignore[override]
        device, dtype, *_ = torch._C._nn._parse_to(*args, **kwargs)  # type: ignore[attr-defined]
        if device is None or device.type == "cuda":
            return self if dtype in (None, self.dtype) else _ATEN._to_copy(self, dtype=dtype)
        return _ATEN._to_copy(self, dtype=dtype, device=HERE)  # type: ignore[no-any-return]

    def cpu(self, *_: Any) -> torch.Tensor:  # type: ignore[override]
        return self.to(HERE)

    def tolist(self) -> Any:
        There.waits += 1
        return self.held.tolist()

    def new_tensor(self, data: Any, **kwargs: Any) -> torch.Tensor:
        return There(self.held.new_tensor(data, **kwargs))

    def storage(self) -> Any:
        return self.held.storage()

    def untyped_storage(self) -> Any:
        return self.held.untyped_storage()

    def data_ptr(self) -> int:
        return self.held.data_ptr()

    def numpy(self, **_: Any) -> Any:
        raise TypeError("can't convert a tensor on cuda to numpy: .cpu() first")


class _Mode(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


def _run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    tensors = [t for t in tree_flatten((args, kwargs))[0] if isinstance(t, torch.Tensor)]
    there = [t for t in tensors if isinstance(t, There)]
    left = [t for t in tensors if not isinstance(t, There) and t.ndim > 0]
    allowed = func in _MOVES | _SCATTER or (func in _INDEX and isinstance(args[0], There))
    if there and left and not allowed:
        raise RuntimeError(f"{func}: tensors of {[tuple(t.shape) for t in left]} are on the CPU, others on cuda")
    wanted = kwargs.get("device")
    places = [t for t in tree_flatten(args[1:2])[0] if isinstance(t, There)] if func in _INDEX else []
    asks = func in _ASKS or (func is _ATEN._to_copy.default and wanted == HERE)
    if there and (asks or any(t.dtype == torch.bool for t in places)):  # how many places a mask has is a number of it
        There.waits += 1
    if wanted is not None:
        kwargs = kwargs | {"device": HERE}
    held_args, held_kwargs = tree_map(lambda t: t.held if isinstance(t, There) else t, (args, kwargs))
    given = func(*held_args, **held_kwargs)
    own = {id(t.held): t for t in there}  # what was changed in place is what it was
    name = func.overloadpacket.__name__  # of these C++ names the device of the first argument, as it sees it
    like = name.endswith("_like") or name.startswith("new_")
    is_there = torch.device(wanted).type == "cuda" if wanted is not None and not like else bool(there)
    if func is _ATEN.copy_.default:
        return args[0]

    def put(t: Any) -> Any:
        if not isinstance(t, torch.Tensor) or not is_there:
            return t
        return own[id(t)] if func._schema.is_mutable and id(t) in own else There(t)

    return tree_map(put, given)


@contextmanager
def pretend_cuda(patch: pytest.MonkeyPatch) -> Iterator[torch.device]:
    """Inside, "cuda" is a device, and modules that are moved there keep their parameters' identity."""
    generator, tensor = torch.Generator, torch.tensor

    def made(data: Any, *, device: Any = HERE, requires_grad: bool = False, **kwargs: Any) -> torch.Tensor:
        given = tensor(data, **kwargs)  # torch's own guards the device before anybody is asked
        return (There(given) if torch.device(device).type == "cuda" else given).requires_grad_(requires_grad)

    patch.setattr(torch, "tensor", made)
    patch.setattr(torch, "Generator", lambda device="cpu": generator())
    patch.setattr(torch.cuda, "_lazy_init", lambda: None)  # torch asks for the driver when it reads "cuda"
    patch.setattr(torch.__future__, "get_swap_module_params_on_conversion", lambda: True)
    with _Mode():
        yield THERE
