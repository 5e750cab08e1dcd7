"""Low-rank training of a tower: W + B A in every linear map of its blocks, by peft.

E. J. Hu, Y. Shen, P. Wallis and others, "LoRA: Low-Rank Adaptation of Large Language Models", arXiv 2106.09685. peft's
layers stand in the tower's own modules, so weights have other names until `merge_lora` puts B A into W.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from entropy_vision.errors import UsageError

if TYPE_CHECKING:
    from entropy_vision.encoder import VisionEncoder


def add_lora(encoder: VisionEncoder, rank: int) -> None:
    """Put untrained B A of a rank into every linear map of the blocks; B is 0, so nothing changes yet.

    Raises:
        UsageError: peft is not installed, a rank below 1, or the tower has them already.
    """
    if rank < 1:
        raise UsageError(f"a low-rank map needs a rank of at least 1, got {rank}")
    peft = _peft()
    if any(isinstance(module, peft.tuners.lora.LoraLayer) for module in encoder.tower.modules()):
        raise UsageError("this tower has low-rank maps already: merge_lora() first")
    config = peft.LoraConfig(r=rank, lora_alpha=rank, lora_dropout=0.0, target_modules=encoder.adapter.targets)
    peft.inject_adapter_in_model(config, encoder.tower)


def merge_lora(encoder: VisionEncoder) -> None:
    """Put every B A into its W and the tower's own modules back in place: weights have their own names again.

    Raises:
        UsageError: peft is not installed.
    """
    layer = _peft().tuners.lora.LoraLayer
    done: tuple[str, ...] = ()
    for name, module in list(encoder.tower.named_modules()):
        # a wrapped attention comes before the wrapped map of its output, and unwraps it
        if isinstance(module, layer) and not name.startswith(done):
            parent, _, last = name.rpartition(".")
            setattr(encoder.tower.get_submodule(parent), last, _unwrapped(module))
            done += (f"{name}.",)
    if hasattr(encoder.tower, "peft_config"):
        del encoder.tower.peft_config


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
