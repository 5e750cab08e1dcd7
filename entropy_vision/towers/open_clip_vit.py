"""open_clip's own VisionTransformer: OpenAI's and LAION's CLIP, CLIPA, MetaCLIP, CoCa."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from open_clip.transformer import ResidualAttentionBlock, VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F

from entropy_vision.errors import UsageError
from entropy_vision.tower import Tower
from entropy_vision.towers.base import Adapter, Mix


class OpenClipVit(Adapter):
    """A class token, learned or fixed position rows, pre-norm blocks of `nn.MultiheadAttention`.

    Raises:
        UsageError: blocks of another class, or pooling of a kind that open_clip calls untested.
    """

    prefix = 1
    position = "positional_embedding"

    def __init__(self, tower: VisionTransformer) -> None:
        super().__init__(tower)
        self.grid = cast(tuple[int, int], tower.grid_size)
        if any(type(block) is not ResidualAttentionBlock for block in self.blocks):
            raise UsageError("this tower has custom attention blocks, which are not supported: use a plain ViT")
        if tower.attn_pool is not None and tower.attn_pool_contrastive is not None:
            raise UsageError("this tower pools by two attentions, which is not supported")

    @property
    def patches(self) -> nn.Conv2d:
        return cast(nn.Conv2d, self.tower.conv1)

    @property
    def blocks(self) -> Sequence[nn.Module]:
        return cast(Sequence[nn.Module], self.tower.transformer.resblocks)

    @property
    def checkpoints(self) -> bool:
        return bool(self.tower.transformer.grad_checkpointing)

    def opening(self) -> Tensor:
        return cast(Tensor, (self.tower.class_embedding + self.tower.positional_embedding[0])[None])

    def positions(self) -> Tensor:
        return cast(Tensor, self.tower.positional_embedding[1:])

    def enter(self, rows: Tensor) -> Tensor:
        return cast(Tensor, self.tower.ln_pre(rows))

    def attend(self, block: Any, rows: Tensor, mix: Mix, rotation: Tensor | None) -> Tensor:
        attn, weight = _parts(block.attn)
        projected = F.linear(block.ln_1(rows), weight, attn.in_proj_bias)
        query, key, value = projected.unflatten(-1, (3, attn.num_heads, -1)).unbind(-3)
        return cast(Tensor, rows + block.ls_1(attn.out_proj(mix(query, key, value))))

    def feed(self, block: Any, rows: Tensor) -> Tensor:
        return cast(Tensor, rows + block.ls_2(block.mlp(block.ln_2(rows))))

    def finish(self, rows: Tensor) -> Tensor:
        """After ln_post, as `output_tokens=True` gives them. Where open_clip gives no token a patch (attentional
        pooling), what its pooling reads."""
        plain = self.tower.final_ln_after_pool or self.tower.attn_pool is not None
        return rows if plain else cast(Tensor, self.tower.ln_post(rows))

    def pool(self, rows: Tensor) -> Tensor:
        if self.tower.pool_type == "none":
            raise UsageError("this tower was built without pooling (pool_type 'none'): use its visual tokens")
        pooled, _ = self.tower._pool(rows)
        return cast(Tensor, pooled if self.tower.proj is None else pooled @ self.tower.proj)

    def sizes(self) -> Tower:
        first: Any = self.blocks[0]
        return Tower(
            name="the tower",
            patch_size=self.tower.patch_size[0],
            width=self.patches.out_channels,
            layers=len(self.blocks),
            hidden=first.mlp.c_fc.out_features,
        )

    @property
    def targets(self) -> str:
        return r".*resblocks\.\d+\.(attn|mlp\.c_fc|mlp\.c_proj)"


def _parts(attn: Any) -> tuple[Any, Tensor]:
    """The attention itself and its input weight. peft's wrapper adds to the weight in its own forward only, which the
    packed run does not call."""
    if not hasattr(attn, "get_base_layer"):
        return attn, attn.in_proj_weight
    base = attn.get_base_layer()
    added = [] if attn.merged or attn.disable_adapters else [attn.get_delta_weight(a) for a in attn.active_adapters]
    return base, torch.stack([base.in_proj_weight, *added]).sum(dim=0) if added else base.in_proj_weight
