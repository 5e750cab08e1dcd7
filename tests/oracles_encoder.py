"""Slow truths of the encoder and of the bill: open_clip's own dense forward, and FLOPs counted by hand."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from open_clip.model import _build_vision_tower, resize_pos_embed
from torch import nn

from entropy_vision.cost import tower_flops
from entropy_vision.patchset import PatchSet


def same(left: torch.Tensor, right: torch.Tensor, within: float = 1e-6) -> None:
    """Equal to rounding: the norm of the difference is at most `within` of the norm of the right side.

    A product of matrices is summed in another order for another number of rows, so single elements near 0 may differ
    by more than that share of themselves.
    """
    assert left.shape == right.shape
    apart = float((left.double() - right.double()).norm() / right.double().norm())
    assert apart <= within, f"{apart:.2g} of the norm apart, {within:g} may be"


def make_patchset(grid: tuple[int, int, int], patch_size: int, counts: Sequence[int], seed: int = 0) -> PatchSet:
    """Random pixels; counts[f] patches kept at random in frame f."""
    rng = np.random.default_rng(seed)
    frames, rows, columns = grid
    positions: list[tuple[int, int, int]] = []
    for frame, count in zip(range(frames), counts, strict=True):
        places = sorted(rng.choice(rows * columns, count, replace=False).tolist())
        positions += [(frame, place // columns, place % columns) for place in places]
    kept = np.array(positions, np.int32).reshape(-1, 3)
    pixels = rng.integers(0, 256, (len(kept), patch_size, patch_size, 3), dtype=np.uint8)
    return PatchSet(pixels=pixels, positions=kept, bits=np.zeros(grid, np.float32))


def images_of(kept: PatchSet, mean: Sequence[float], std: Sequence[float]) -> torch.Tensor:
    """float [F, 3, H, W], normalised: kept patches in their places, noise everywhere else."""
    frames, rows, columns = kept.grid
    side = kept.patch_size
    canvas = np.random.default_rng(99).integers(0, 256, (frames, rows * side, columns * side, 3), dtype=np.uint8)
    for patch, (frame, row, column) in zip(kept.pixels, kept.positions.tolist(), strict=True):
        canvas[frame, row * side : (row + 1) * side, column * side : (column + 1) * side] = patch
    images = torch.from_numpy(canvas).permute(0, 3, 1, 2).float() / 255
    return (images - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)


def dense_tokens(tower: nn.Module, kept: PatchSet, mean: Sequence[float], std: Sequence[float]) -> torch.Tensor:
    """float [K, D]: the library's dense forward of every frame, a mask hiding the patches that were dropped."""
    _, rows, columns = kept.grid
    mask = torch.from_numpy(kept.mask).flatten(1)
    trunk = getattr(tower, "trunk", None)
    prefix = 1 if trunk is None else trunk.num_prefix_tokens
    found = []
    for frame, image in enumerate(images_of(kept, mean, std)):
        if not mask[frame].any():
            continue
        bias = torch.zeros(rows * columns + prefix, rows * columns + prefix)
        bias[:, prefix:][:, ~mask[frame]] = -torch.inf
        if trunk is not None:
            hidden = trunk.forward_features(image[None], attn_mask=bias)
        else:
            hidden = tower.transformer(tower._embeds(image[None]), attn_mask=bias)
            hidden = hidden if tower.attn_pool is not None else tower.ln_post(hidden)
        found.append(hidden[0, prefix:][mask[frame]])
    return torch.cat(found)


def resized_tower(config: dict[str, Any], tower: nn.Module, size: tuple[int, int]) -> nn.Module:
    """The same tower for images of another size, its position rows resized by its own library."""
    if hasattr(tower, "trunk"):
        larger = deepcopy(tower)
        larger.set_input_size(size)
        return larger
    other = deepcopy(config["vision_cfg"])
    other["image_size"] = size
    larger = _build_vision_tower(config["embed_dim"], other, config["quick_gelu"])
    state = {f"visual.{name}": tensor.clone() for name, tensor in tower.state_dict().items()}
    resize_pos_embed(state, SimpleNamespace(visual=larger))
    larger.load_state_dict({name.removeprefix("visual."): tensor for name, tensor in state.items()})
    return larger.eval()


def tower_step_flops(encoder: Any, segments: Sequence[int]) -> int:
    """FLOPs of a forward and backward pass of a tower: every matrix product once more for its input and once for its
    weight, but nothing for pixels; five products a head for attention, which scores anew, where the forward has two."""
    first, width = encoder.adapter.patches, encoder.width
    embedding = 2 * sum(segments) * first.weight[0].numel() * width
    attention = sum(2 * 2 * (count + encoder.adapter.prefix) ** 2 * width for count in segments) * encoder.layers
    products = tower_flops(encoder.config, segments) - embedding - attention
    return 2 * embedding + 3 * products + attention * 7 // 2


def qwen2_step_flops(config: Any, length: int, batch: int) -> int:
    """The same for a Qwen2 language model; eager attention remembers its weights, so its backward has four products."""
    heads, head = config.num_attention_heads, config.hidden_size // config.num_attention_heads
    attention = 2 * 2 * batch * heads * length * length * head * config.num_hidden_layers
    fused = config._attn_implementation == "sdpa"
    return 3 * (qwen2_flops(config, length, batch) - attention) + (attention * 7 // 2 if fused else 3 * attention)


def qwen2_flops(config: Any, length: int, batch: int) -> int:
    """Forward FLOPs of a Qwen2 language model with logits for every position; 2 per multiply and add, full attention
    squares although the mask is causal."""
    width, heads, groups = config.hidden_size, config.num_attention_heads, config.num_key_value_heads
    head = width // heads
    tokens = batch * length
    total = 0
    for _ in range(config.num_hidden_layers):
        total += 2 * tokens * width * heads * head  # queries
        total += 2 * 2 * tokens * width * groups * head  # keys, values
        total += 2 * 2 * batch * heads * length * length * head  # scores, mixing
        total += 2 * tokens * heads * head * width  # output
        total += 3 * 2 * tokens * width * config.intermediate_size  # gate, up, down
    return total + 2 * tokens * width * config.vocab_size
