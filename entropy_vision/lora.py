"""Low-rank training: W + B A in every linear map of a tower's blocks or a decoder's layers, by peft.

E. J. Hu, Y. Shen, P. Wallis and others, "LoRA: Low-Rank Adaptation of Large Language Models", arXiv 2106.09685. peft's
layers stand in the module's own, so weights have other names until `merge_maps` puts B A into W.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from entropy_vision.errors import UsageError

if TYPE_CHECKING:
    from entropy_vision.encoder import VisionEncoder


def add_lora(encoder: VisionEncoder, rank: int) -> None:
    """`add_maps` to every linear map of a tower's blocks. Errors as there."""
    add_maps(encoder.tower, rank, encoder.adapter.targets)


def add_maps(module: nn.Module, rank: int, targets: str | list[str]) -> None:
    """Put untrained B A of a rank into the linear maps of a module; B is 0, so nothing changes yet.

    Args:
        targets: names of the maps, or a pattern for them, as peft's `target_modules`.

    Raises:
        UsageError: peft is not installed, a rank below 1, or the module has them already.
    """
    if rank < 1:
        raise UsageError(f"a low-rank map needs a rank of at least 1, got {rank}")
    peft = _peft()
    if any(isinstance(one, peft.tuners.lora.LoraLayer) for one in module.modules()):
        raise UsageError("this module has low-rank maps already: merge_lora() first")
    config = peft.LoraConfig(r=rank, lora_alpha=rank, lora_dropout=0.0, target_modules=targets)
    peft.inject_adapter_in_model(config, module)


def merge_lora(encoder: VisionEncoder) -> None:
    """`merge_maps` of a tower. Errors as there."""
    merge_maps(encoder.tower)


def merge_maps(module: nn.Module) -> None:
    """Put every B A into its W and the module's own maps back in place: weights have their own names again.

    Raises:
        UsageError: peft is not installed.
    """
    layer = _peft().tuners.lora.LoraLayer
    done: tuple[str, ...] = ()
    for name, one in list(module.named_modules()):
        # a wrapped attention comes before the wrapped map of its output, and unwraps it
        if isinstance(one, layer) and not name.startswith(done):
            parent, _, last = name.rpartition(".")
            setattr(module.get_submodule(parent), last, _unwrapped(one))
            done += (f"{name}.",)
    if hasattr(module, "peft_config"):
        del module.peft_config


def _unwrapped(layer: Any) -> Any:
    base = layer.get_base_layer()
    if not hasattr(base, "in_proj_weight"):
        layer.merge()
        return base
    with torch.no_grad():  # peft 0.21 merges the output's map of a whole attention twice
        for adapter in layer.active_adapters:
            base.in_proj_weight += layer.get_delta_weight(adapter)
    base.out_proj = _unwrapped(base.out_proj)
    return base


def _peft() -> Any:
    try:
        import peft
    except ImportError as error:
        raise UsageError("low-rank training needs peft: pip install 'entropy-vision[lora]'") from error
    return peft
