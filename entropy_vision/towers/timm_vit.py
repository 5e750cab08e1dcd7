"""timm's VisionTransformer behind open_clip's TimmModel: SigLIP, SigLIP 2, plain and register ViTs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from open_clip.timm_model import TimmModel
from timm.layers import Attention, PatchEmbed
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from entropy_vision.errors import UsageError
from entropy_vision.tower import Tower
from entropy_vision.towers.base import Adapter, Mix


class TimmVit(Adapter):
    """A class token or none, registers, learned position rows or none, pooled by a token, the mean or an attention.

    Raises:
        UsageError: parts that a patch cannot pass alone, or of a class that is not known here.
    """

    def __init__(self, tower: TimmModel) -> None:
        super().__init__(tower)
        self.trunk: Any = tower.trunk
        if (what := self._unusual()) is not None:
            raise UsageError(f"this timm tower ({type(self.trunk).__name__}) is not supported because of its {what}")
        self.grid = cast(tuple[int, int], self.trunk.patch_embed.grid_size)
        self.prefix = int(self.trunk.num_prefix_tokens)
        self.position = "" if self.trunk.pos_embed is None else "trunk.pos_embed"

    def _unusual(self) -> str | None:
        """What a patch cannot pass alone, or what is not known here."""
        if type(self.trunk.patch_embed) is not PatchEmbed:
            return f"patch embedding ({type(self.trunk.patch_embed).__name__})"
        if type(self.trunk.patch_embed.norm) is not nn.Identity:
            return "norm behind the patch embedding"
        if any(not self._known(block) for block in self.blocks):
            return "blocks"
        if hasattr(self.tower.head, "pool"):
            return "head, which takes the whole picture"
        if getattr(self.trunk.attn_pool, "pos_embed", None) is not None:
            return "pooling by place"
        return None

    def _known(self, block: Any) -> bool:
        attn = block.attn
        return (
            type(block) is Block
            and type(attn) is Attention
            and attn.attn_dim == self.patches.out_channels
            and attn.gate is None
        )

    @property
    def patches(self) -> nn.Conv2d:
        return cast(nn.Conv2d, self.trunk.patch_embed.proj)

    @property
    def blocks(self) -> Sequence[nn.Module]:
        return cast(Sequence[nn.Module], self.trunk.blocks)

    @property
    def checkpoints(self) -> bool:
        return bool(self.trunk.grad_checkpointing)

    def opening(self) -> Tensor:
        trunk = self.trunk
        tokens = [token[0] for token in (trunk.cls_token, trunk.reg_token) if token is not None]
        if not tokens:
            return cast(Tensor, self.patches.weight.new_zeros(0, self.patches.out_channels))
        rows = torch.cat(tokens)
        placed = trunk.pos_embed is not None and not trunk.no_embed_class
        return cast(Tensor, rows + trunk.pos_embed[0, : self.prefix] if placed else rows)

    def positions(self) -> Tensor | None:
        table = self.trunk.pos_embed
        return None if table is None else table[0, 0 if self.trunk.no_embed_class else self.prefix :]

    def enter(self, rows: Tensor) -> Tensor:
        return cast(Tensor, self.trunk.norm_pre(rows))

    def attend(self, block: Any, rows: Tensor, mix: Mix, rotation: Tensor | None) -> Tensor:
        attn = block.attn
        query, key, value = attn.qkv(block.norm1(rows)).unflatten(-1, (3, attn.num_heads, -1)).unbind(-3)
        mixed = attn.norm(mix(attn.q_norm(query), attn.k_norm(key), value))
        return cast(Tensor, rows + block.ls1(attn.proj(mixed)))

    def feed(self, block: Any, rows: Tensor) -> Tensor:
        return cast(Tensor, rows + block.ls2(block.mlp(block.norm2(rows))))

    def finish(self, rows: Tensor) -> Tensor:
        return cast(Tensor, self.trunk.norm(rows))

    def pool(self, rows: Tensor) -> Tensor:
        if not self.trunk.global_pool:
            raise UsageError("this tower was built without pooling: use its visual tokens")
        return cast(Tensor, self.tower.head(self.trunk.forward_head(self.trunk.norm(rows))))

    def sizes(self) -> Tower:
        mlp: Any = cast(Any, self.blocks[0]).mlp
        return Tower(
            name="the tower",
            patch_size=self.trunk.patch_embed.patch_size[0],
            width=self.patches.out_channels,
            layers=len(self.blocks),
            hidden=mlp.fc2.in_features,
            prefix=self.prefix,
            gated=hasattr(mlp, "fc1_g") or mlp.fc1.out_features == 2 * mlp.fc2.in_features,
        )

    @property
    def targets(self) -> str:
        return r".*blocks\.\d+\.(attn\.(qkv|q_proj|k_proj|v_proj|proj)|mlp\.(fc1|fc1_g|fc1_x|fc2))"
