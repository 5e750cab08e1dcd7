"""Where torch computes: this process's accelerator where there is one, else the CPU."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Literal

from entropy_vision.errors import UsageError

if TYPE_CHECKING:
    import torch

Device = Literal["auto", "cpu", "cuda"]


def device_of(name: Device = "auto") -> torch.device:
    """The device of a name; "auto" is the accelerator of this process where there is one.

    Of several on a machine a process takes that of its place there, which torchrun calls LOCAL_RANK. A scheduler that
    shows each process its own shows one, and that is it.

    Raises:
        UsageError: "cuda" where there is none, or fewer than there are processes.
    """
    import torch

    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    count = torch.cuda.device_count()
    if not count:
        raise UsageError('device = "cuda": torch sees no accelerator here; `entropy-vision doctor` says why')
    place = int(os.environ.get("LOCAL_RANK", "0"))
    if place >= count > 1:
        raise UsageError(f"process {place} of this machine has no accelerator: it has {count}, start at most {count}")
    device = torch.device("cuda", place if place < count else 0)
    torch.cuda.set_device(device)
    return device
