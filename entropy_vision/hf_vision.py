"""HFVisionEncoder: a CLIP or SigLIP tower of transformers that looks at the kept patches only.

Checkpoints of LLaVA hold their tower as transformers names it. It is run by its own modules, as `VisionEncoder` runs
open_clip's: a checkpoint loads without renaming, splitting or transposing one weight and can go back the same way.
Mapping the weights to an open_clip tower would cover CLIP only; SigLIP has no class token there and another library.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint
from transformers import AutoConfig, AutoModel, PreTrainedConfig

from entropy_vision.errors import UsageError
from entropy_vision.packed import Attend, PackedPatches
from entropy_vision.patchset import PatchSet

TOWERS = ("clip_vision_model", "siglip_vision_model")


class HFVisionEncoder(nn.Module):
    """The blocks of a `CLIPVisionModel` or `SiglipVisionModel` over packed patches; no norm and no head behind them.

    Args:
        tower: the model; blocks behind the first `layers`, the last norm and the pooling head are taken off it.
        layers: blocks to run, counted as `vision_feature_layer` counts hidden states: -1 all of them, -2 all but one.
        mean, std: what pixels in [0, 1] are normalised with, for each channel.

    Raises:
        UsageError: another model, or a layer that it does not have.
    """

    def __init__(self, tower: nn.Module, layers: int, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        config = cast(PreTrainedConfig, tower.config)
        if config.model_type not in TOWERS:
            raise UsageError(f"a tower of transformers must be one of {', '.join(TOWERS)}, got {config.model_type!r}")
        blocks = cast(Any, tower).encoder.layers
        count = layers if layers >= 0 else len(blocks) + 1 + layers
        if not 0 < count <= len(blocks):
            raise UsageError(f"vision_feature_layer {layers} of a tower that has {len(blocks)} blocks")
        self.tower = cast(Any, tower)
        del blocks[count:]
        self.tower.post_layernorm = nn.Identity()
        if hasattr(self.tower, "head"):
            del self.tower.head
        self.mean, self.std = tuple(map(float, mean)), tuple(map(float, std))
        self._checkpoints = False
        kept = {"num_hidden_layers": count} | ({"vision_use_head": False} if "vision_use_head" in config else {})
        self.config: dict[str, Any] = deepcopy(config.to_dict()) | kept | {"mean": [*self.mean], "std": [*self.std]}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> HFVisionEncoder:
        """The encoder that `HFVisionEncoder.config` describes, with fresh weights: what a checkpoint is loaded into."""
        settings = deepcopy(config)
        kind, mean, std = (settings.pop(name, None) for name in ("model_type", "mean", "std"))
        if kind not in TOWERS or mean is None or std is None:
            raise UsageError(f"an encoder config needs model_type ({', '.join(TOWERS)}), mean and std, got {kind!r}")
        tower = AutoModel.from_config(AutoConfig.for_model(kind, **settings), dtype=torch.get_default_dtype())
        return cls(tower, -1, mean, std)

    @property
    def width(self) -> int:
        """D, the width of a visual token."""
        return int(self.tower.config.hidden_size)

    @property
    def patch_size(self) -> int:
        """Side P in pixels of the patches that the tower takes."""
        return int(self.tower.config.patch_size)

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) in pixels that the tower was trained at, as far as whole patches cover them."""
        side = int(self.tower.config.image_size) // self.patch_size * self.patch_size
        return side, side

    @property
    def scaled(self) -> tuple[int, int] | None:
        """(height, width) that pictures are brought to and then cut to `image_size`; None where that is no other."""
        side = int(self.tower.config.image_size)
        return (side, side) if side % self.patch_size else None

    @property
    def layers(self) -> int:
        """Number of blocks."""
        return len(self.tower.encoder.layers)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Compute every block again in the backward pass instead of remembering it: less memory, a third more time."""
        self._checkpoints = enable

    def forward(self, sets: Sequence[PatchSet] | PackedPatches, attend: Attend = "frame") -> list[Tensor]:
        """Visual tokens of every input: one float [K_i, D] each, in the order of its `positions`."""
        packed = sets if isinstance(sets, PackedPatches) else PackedPatches.pack(sets, attend)
        return packed.split(self.encode(packed))

    def encode(self, packed: PackedPatches) -> Tensor:
        """Visual tokens of a whole pack: float [N, D], in its order.

        Raises:
            UsageError: patches of another size than the tower's.
        """
        packed = self.placed(packed)
        return self.through_blocks(packed, self.embed(packed))

    def through_blocks(self, packed: PackedPatches, hidden: Tensor) -> Tensor:
        """The second half of `encode`: visual tokens float [N, D] of what `embed` gave for the pack."""
        layout = self.placed(packed).lay_out(self._prefix)
        for block in self.tower.encoder.layers:
            if self._checkpoints and self.training:
                hidden = checkpoint(_run_block, block, hidden, layout.groups, use_reentrant=False)
            else:
                hidden = _run_block(block, hidden, layout.groups)
        return hidden.index_select(0, layout.patch_rows)

    @property
    def _prefix(self) -> int:
        """Tokens of every segment before its patches: CLIP's class token, none of SigLIP."""
        return int(hasattr(self.tower.embeddings, "class_embedding"))

    def placed(self, packed: PackedPatches) -> PackedPatches:
        """The pack where the weights are, its layout worked out before it moves."""
        packed.lay_out(self._prefix)
        return packed.to(self.tower.embeddings.patch_embedding.weight.device)

    def embed(self, packed: PackedPatches) -> Tensor:
        """What the first block reads: class tokens and patches with their position rows, float [T, D].

        Rows as `packed.lay_out(prefix)` has them. Errors as `encode`.
        """
        if packed.patch_size != self.patch_size:
            raise UsageError(
                f"patches of {packed.patch_size} pixels for a tower that takes {self.patch_size}: "
                f"tokenize with EntropyTokenizer(patch_size={self.patch_size})"
            )
        embeddings = self.tower.embeddings
        kernel = embeddings.patch_embedding.weight
        opening, packed = self._prefix, self.placed(packed)
        layout = packed.lay_out(opening)
        pixels = packed.pixels.to(torch.promote_types(kernel.dtype, torch.float32)) / 255
        pixels = (pixels - pixels.new_tensor(self.mean)) / pixels.new_tensor(self.std)
        # a convolution whose stride is its kernel is a linear map of each patch; the kernel is [D, 3, P, P]
        flat = kernel.permute(0, 2, 3, 1).flatten(1)
        patches = F.linear(pixels.flatten(1).to(kernel.dtype), flat, embeddings.patch_embedding.bias)
        table = embeddings.position_embedding.weight
        places = F.embedding(layout.place, torch.cat([self._resized(table[opening:], s) for s in layout.shapes]))
        if layout.weights is not None:  # between the rows around the centre of what a merged patch stands for
            places = (places * layout.weights.to(places.dtype)[..., None]).sum(dim=1)
        hidden = patches + places
        if opening:
            first = (embeddings.class_embedding + table[0]).expand(len(layout.first_rows), -1)
            hidden = torch.cat([first, hidden])
        hidden = hidden.index_select(0, layout.order)
        if hasattr(self.tower, "pre_layrnorm"):
            hidden = self.tower.pre_layrnorm(hidden)
        return cast(Tensor, hidden)

    def _resized(self, table: Tensor, shape: tuple[int, int]) -> Tensor:
        """Position rows [R * C, D] of a grid, from the trained ones as transformers resizes them (bicubic)."""
        side = round(len(table) ** 0.5)
        if shape == (side, side):
            return table
        plane = table.reshape(1, side, side, -1).permute(0, 3, 1, 2)
        plane = F.interpolate(plane, size=shape, mode="bicubic", align_corners=False)
        return plane.permute(0, 2, 3, 1).flatten(0, 2)


def _run_block(block: Any, hidden: Tensor, groups: Sequence[tuple[int, int]]) -> Tensor:
    """One pre-norm block by its own modules; projections see all rows at once, attention sees segments."""
    attn, normed = block.self_attn, block.layer_norm1(hidden)
    query, key, value = attn.q_proj(normed), attn.k_proj(normed), attn.v_proj(normed)
    done, start = [], 0
    for segments, length in groups:
        mine = slice(start, start + segments * length)
        q, k, v = (
            rows[mine].view(segments, length, attn.num_heads, attn.head_dim).transpose(1, 2)
            for rows in (query, key, value)
        )
        done.append(F.scaled_dot_product_attention(q, k, v, scale=attn.scale).transpose(1, 2).flatten(2).flatten(0, 1))
        start += segments * length
    hidden = hidden + attn.out_proj(torch.cat(done))
    return cast(Tensor, hidden + block.mlp(block.layer_norm2(hidden)))
