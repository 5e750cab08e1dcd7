"""timm's Eva behind open_clip's TimmModel: EVA-CLIP, EVA02-CLIP, the Perception Encoder.

Next to a plain ViT: queries and keys are rotated by their (row, column), the attention's output and the MLP's middle
have norms of their own, the MLP is gated, keys have no bias; the largest one norms what a block adds instead of what it
reads.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any, cast

import torch
from open_clip.timm_model import TimmModel
from timm.layers import AttentionRope, RotaryEmbeddingCat, apply_rot_embed_cat
from timm.models.eva import EvaAttention, EvaBlock, EvaBlockPostNorm
from torch import Tensor

from entropy_vision.errors import UsageError
from entropy_vision.towers.base import Mix
from entropy_vision.towers.timm_vit import TimmVit


class TimmEva(TimmVit):
    """As `TimmVit`, with what the module's text says.

    Raises:
        UsageError: as `TimmVit`; also rotations of another kind than timm's axial ones.
    """

    def __init__(self, tower: TimmModel) -> None:
        super().__init__(tower)
        rope = self.trunk.rope
        if rope is not None and (type(rope) is not RotaryEmbeddingCat or rope.aug_active):
            raise UsageError(f"this timm tower rotates by {type(rope).__name__}, which is not supported")

    def _known(self, block: Any) -> bool:
        attn = block.attn
        return (
            type(block) in (EvaBlock, EvaBlockPostNorm)
            and type(attn) in (EvaAttention, AttentionRope)
            and attn.head_dim * attn.num_heads == self.patches.out_channels
            and getattr(attn, "num_kv_groups", 1) == 1
            and attn.gate is None
        )

    def rotation(self, shape: tuple[int, int]) -> Tensor | None:
        rope = self.trunk.rope
        if rope is None:
            return None
        if shape != tuple(rope.feat_shape or ()):
            rope = deepcopy(rope)  # the tower keeps its own grid
            rope.update_feat_shape(shape)
        return cast(Tensor, rope.get_embed(shape))

    def attend(self, block: Any, rows: Tensor, mix: Mix, rotation: Tensor | None) -> Tensor:
        attn, after = block.attn, type(block) is EvaBlockPostNorm
        query, key, value = _project(attn, rows if after else block.norm1(rows))
        query, key = attn.q_norm(query), attn.k_norm(key)
        if rotation is not None:
            at = rotation[..., None, :]  # the same for every head
            query = apply_rot_embed_cat(query, at, half=attn.rotate_half).type_as(value)
            key = apply_rot_embed_cat(key, at, half=attn.rotate_half).type_as(value)
        added = attn.proj(attn.norm(mix(query, key, value)))
        if after:
            return rows + block.norm1(added)
        return cast(Tensor, rows + (added if block.gamma_1 is None else block.gamma_1 * added))

    def feed(self, block: Any, rows: Tensor) -> Tensor:
        if type(block) is EvaBlockPostNorm:
            return cast(Tensor, rows + block.norm2(block.mlp(rows)))
        added = block.mlp(block.norm2(rows))
        return cast(Tensor, rows + (added if block.gamma_2 is None else block.gamma_2 * added))


def _project(attn: Any, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values, [..., H, d] each."""
    if attn.qkv is None:
        parts = [project(rows) for project in (attn.q_proj, attn.k_proj, attn.v_proj)]
    else:
        projected = attn.qkv(rows)
        if getattr(attn, "q_bias", None) is not None:
            projected = projected + torch.cat((attn.q_bias, attn.k_bias, attn.v_bias))
        parts = list(projected.chunk(3, dim=-1))
    query, key, value = (part.unflatten(-1, (attn.num_heads, -1)) for part in parts)
    return query, key, value
