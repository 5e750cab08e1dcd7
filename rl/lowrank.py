"""A policy of which little is trained: low-rank maps beside the matrices of tower and language model, the projector.

What is saved for others is the policy with the maps put into its matrices, which needs no peft. A run goes on from its
own start and the maps as they are: a product that was added and taken away again would not be the same to the last bit.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from entropy_vision.encoder import VisionEncoder
from entropy_vision.lora import add_maps, merge_maps
from entropy_vision.policy import EntropyVLM

TRAINED = "trained.safetensors"
"""Its name in a checkpoint."""


def train_maps(model: EntropyVLM, rank: int, frozen_tower: bool = False) -> None:
    """Freeze a policy but for its projector and untrained maps of a rank; a frozen tower gets none.

    Raises:
        UsageError: peft is not installed.
    """
    model.requires_grad_(False)
    model.projector.requires_grad_(True)
    if not frozen_tower and isinstance(model.encoder, VisionEncoder):
        model.encoder.train_only("lora", rank=rank)
    elif not frozen_tower:
        _add(model.encoder.tower, rank)
    _add(model.language.base_model, rank)


def _add(module: nn.Module, rank: int) -> None:
    add_maps(module, rank, [name for name, one in module.named_modules() if isinstance(one, nn.Linear)])


def has_maps(model: nn.Module) -> bool:
    """Whether `train_maps` was here."""
    return any("lora_" in name for name, _ in model.named_parameters())


@contextmanager
def maps_off(model: nn.Module) -> Iterator[None]:
    """The policy without its maps while the block runs."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    layers = [module for module in model.modules() if isinstance(module, BaseTunerLayer)]
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)


def merged(model: EntropyVLM) -> EntropyVLM:
    """The same policy without maps, as a copy."""
    twin = copy.deepcopy(model)
    for module in (twin.encoder.tower, twin.language.base_model):
        merge_maps(module)
    return twin


def trained(model: nn.Module) -> dict[str, Tensor]:
    """What is trained, by name."""
    return {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}


def save_trained(tensors: Mapping[str, Tensor], folder: Path) -> None:
    """Write it into a checkpoint."""
    save_file({name: p.cpu().contiguous() for name, p in tensors.items()}, folder / TRAINED)


def load_trained(model: nn.Module, folder: Path) -> None:
    """Put it back.

    Raises:
        KeyError: the checkpoint was made with other maps.
    """
    held = load_file(folder / TRAINED)
    for name, p in trained(model).items():
        p.copy_(held[name])
