"""VisionEncoder: an open_clip tower that looks at the kept patches only.

The tower's weights stay as open_clip loads them. Patch embedding, position rows, blocks and final norm are the
tower's own modules; what differs is that dropped patches are never embedded, projected or attended to. With every
patch kept the result is open_clip's, to rounding.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, cast

import open_clip
import torch
from open_clip.model import _build_vision_tower
from open_clip.transformer import ResidualAttentionBlock, VisionTransformer
from safetensors import SafetensorError
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from entropy_vision.errors import UsageError
from entropy_vision.packed import Attend, Layout, PackedPatches
from entropy_vision.patchset import PatchSet
from entropy_vision.tower import OWN_CONFIGS, check_supported, read_config


class VisionEncoder(nn.Module):
    """An open_clip `VisionTransformer` over packed patches.

    Args:
        model: an open_clip model name ("ViT-B-32"), one of this package's ("ev-tiny-96"), or a local folder with
            open_clip_config.json and weights (open_clip's `local-dir:` layout).
        pretrained: open_clip's tag or a weights file; None leaves open_clip's random initialisation. A folder brings
            its own weights and takes none.

    Raises:
        UsageError: an unknown model, weights that cannot be loaded, or a tower of a class that is not supported
            (timm and ResNet towers, attentional pooling, custom blocks).
        InputError: a folder whose open_clip_config.json is missing or damaged.
    """

    def __init__(self, model: str = "ViT-B-32", pretrained: str | None = None) -> None:
        super().__init__()
        model, config = _find_config(model)
        check_supported(model, config)
        loads = pretrained is not None or ":" in model
        config = config | {"quick_gelu": _wants_quick_gelu(model, pretrained, config)}
        tower = _load_tower(model, pretrained, config["quick_gelu"]) if loads else _build_tower(config)
        self._adopt(tower, config)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> VisionEncoder:
        """The encoder that `config` describes, with fresh weights: what a checkpoint is loaded into.

        Args:
            config: `VisionEncoder.config` of another encoder, or an open_clip model config (its text side is ignored).

        Raises:
            UsageError: no `vision_cfg` and `embed_dim` in it, or a tower of a class that is not supported.
        """
        if not {"vision_cfg", "embed_dim"} <= config.keys():
            raise UsageError(f"an encoder config needs vision_cfg and embed_dim, got {sorted(config)}")
        check_supported("the given config", config)
        self = cls.__new__(cls)
        nn.Module.__init__(self)
        self._adopt(_build_tower(config), config)
        return self

    def _adopt(self, tower: VisionTransformer, config: dict[str, Any]) -> None:
        self.tower = tower
        preprocess = getattr(tower, "preprocess_cfg", None) or {}
        self.mean = tuple(map(float, config.get("mean") or preprocess.get("mean") or open_clip.OPENAI_DATASET_MEAN))
        self.std = tuple(map(float, config.get("std") or preprocess.get("std") or open_clip.OPENAI_DATASET_STD))
        self.config: dict[str, Any] = {
            "embed_dim": int(config["embed_dim"]),
            "quick_gelu": bool(config.get("quick_gelu", False)),
            "vision_cfg": deepcopy(config["vision_cfg"]),
            "mean": list(self.mean),
            "std": list(self.std),
        }

    @property
    def width(self) -> int:
        """D, the width of a visual token."""
        return self.tower.conv1.out_channels

    @property
    def patch_size(self) -> int:
        """Side P in pixels of the patches that the tower takes."""
        return self.tower.patch_size[0]

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) in pixels that the tower was trained at."""
        height, width = self.tower.image_size
        return height, width

    @property
    def layers(self) -> int:
        """Number of blocks."""
        return len(self.tower.transformer.resblocks)

    def forward(self, sets: Sequence[PatchSet] | PackedPatches, attend: Attend = "frame") -> list[torch.Tensor]:
        """Visual tokens of every input.

        Args:
            sets: patch sets of the tower's patch size, or a pack (which carries its own `attend`).
            attend: patches see those of their own "frame", or all of their "input".

        Returns:
            One float [K_i, D] for every input, in the order of its `positions`: the tokens that open_clip gives with
            `output_tokens=True` (after ln_post, class token dropped).

        Raises:
            UsageError: nothing to encode, or patches of another size than the tower's.
        """
        packed = sets if isinstance(sets, PackedPatches) else PackedPatches.pack(sets, attend)
        return packed.split(self.encode(packed))

    def encode(self, packed: PackedPatches) -> torch.Tensor:
        """Visual tokens of a whole pack: float [N, D], in its order. Errors as `forward`."""
        packed = packed.to(self.tower.conv1.weight.device)
        tokens = self._run(packed).index_select(0, packed.layout.patch_rows)
        return tokens if self.tower.final_ln_after_pool else self.tower.ln_post(tokens)

    def pooled(self, sets: Sequence[PatchSet] | PackedPatches, attend: Attend = "frame") -> list[torch.Tensor]:
        """open_clip's image embedding (`encode_image`, not normalised) of every frame that keeps a patch.

        Returns:
            One float [segments, E] for every input; a segment is a frame, or the whole input with attend="input".

        Raises:
            UsageError: as `forward`, and for a tower without pooling.
        """
        packed = sets if isinstance(sets, PackedPatches) else PackedPatches.pack(sets, attend)
        packed = packed.to(self.tower.conv1.weight.device)
        layout, tower = packed.layout, self.tower
        if tower.pool_type == "none":
            raise UsageError("this tower was built without pooling (pool_type 'none'): use its visual tokens")
        rows = self._run(packed)
        if tower.pool_type == "tok":
            pooled = tower.ln_post(rows.index_select(0, layout.class_rows))
        else:
            tokens = rows.index_select(0, layout.patch_rows)
            tokens = tokens if tower.final_ln_after_pool else tower.ln_post(tokens)
            sums = tokens.new_zeros(len(layout.class_rows), tokens.shape[1])
            sums = sums.index_add(0, layout.patch_segments, tokens)
            pooled = sums / torch.bincount(layout.patch_segments)[:, None].to(sums.dtype)
            pooled = tower.ln_post(pooled) if tower.final_ln_after_pool else pooled
        if tower.proj is not None:
            pooled = pooled @ tower.proj
        return list(pooled.split(list(layout.input_segments)))

    def _run(self, packed: PackedPatches) -> torch.Tensor:
        """The residual stream behind the last block, float [T, D], rows as `packed.layout` has them."""
        layout = packed.layout
        hidden = self.embed(packed)
        transformer = self.tower.transformer
        for block in transformer.resblocks:
            if transformer.grad_checkpointing and self.training:
                hidden = checkpoint(_run_block, block, hidden, layout, use_reentrant=False)
            else:
                hidden = _run_block(block, hidden, layout)
        return hidden

    def embed(self, packed: PackedPatches) -> torch.Tensor:
        """What the first block reads: class tokens and patches with their position rows, float [T, D].

        Rows as `packed.layout` has them. Errors as `forward`.
        """
        if packed.patch_size != self.patch_size:
            raise UsageError(
                f"patches of {packed.patch_size} pixels for a tower that takes {self.patch_size}: "
                f"tokenize with EntropyTokenizer(patch_size={self.patch_size})"
            )
        tower, layout = self.tower, packed.layout
        kernel = tower.conv1.weight
        pixels = packed.pixels.to(torch.promote_types(kernel.dtype, torch.float32)) / 255
        pixels = (pixels - pixels.new_tensor(self.mean)) / pixels.new_tensor(self.std)
        # a convolution whose stride is its kernel is a linear map of each patch; the kernel is [D, 3, P, P]
        patches = F.linear(pixels.flatten(1).to(kernel.dtype), kernel.permute(0, 2, 3, 1).flatten(1))
        positions = tower.positional_embedding.to(kernel.dtype)
        tables = torch.cat([_resize_positions(positions[1:], tower.grid_size, shape) for shape in layout.shapes])
        places = F.embedding(layout.place, tables)
        if layout.weights is not None:  # between the rows around the centre of what a merged patch stands for
            places = (places * layout.weights.to(places.dtype)[..., None]).sum(dim=1)
        patches = patches + places
        opening = (tower.class_embedding.to(kernel.dtype) + positions[0]).expand(len(layout.class_rows), -1)
        return cast(torch.Tensor, tower.ln_pre(torch.cat([opening, patches]).index_select(0, layout.order)))


def _resize_positions(table: torch.Tensor, trained: tuple[int, int], shape: tuple[int, int]) -> torch.Tensor:
    """Position rows [R * C, D] of a grid, from the trained ones as open_clip resizes them (bicubic, antialiased)."""
    if shape == trained:
        return table
    plane = table.reshape(1, *trained, -1).permute(0, 3, 1, 2)
    plane = F.interpolate(plane, size=shape, mode="bicubic", antialias=True, align_corners=False)
    return plane.permute(0, 2, 3, 1).flatten(0, 2)


def _run_block(block: ResidualAttentionBlock, hidden: torch.Tensor, layout: Layout) -> torch.Tensor:
    """One pre-norm block by its own modules; projections see all rows at once, attention sees segments."""
    attn = block.attn
    projected = F.linear(block.ln_1(hidden), attn.in_proj_weight, attn.in_proj_bias)
    # the kernel for variable lengths takes half precision only
    varlen = projected.is_cuda and projected.dtype in (torch.float16, torch.bfloat16) and torch.version.hip is None
    attend = _attend_varlen if varlen else _attend_in_groups
    hidden = hidden + block.ls_1(attn.out_proj(attend(projected, layout, attn.num_heads)))
    return hidden + block.ls_2(block.mlp(block.ln_2(hidden)))


def _attend_in_groups(projected: torch.Tensor, layout: Layout, heads: int) -> torch.Tensor:
    """Attention inside segments, [T, 3D] -> [T, D]: one batched call for all segments of a length. Exact."""
    width = projected.shape[1] // 3
    done, start = [], 0
    for segments, length in layout.groups:
        rows = projected[start : start + segments * length]
        query, key, value = rows.view(segments, length, 3, heads, width // heads).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(query, key, value)
        done.append(mixed.transpose(1, 2).reshape(segments * length, width))
        start += segments * length
    return done[0] if len(done) == 1 else torch.cat(done)


def _attend_varlen(projected: torch.Tensor, layout: Layout, heads: int) -> torch.Tensor:
    """The same by one kernel over all segments, where the device has it."""
    from torch.nn.attention.varlen import varlen_attn

    query, key, value = projected.unflatten(1, (3, heads, -1)).unbind(1)
    mixed = varlen_attn(query, key, value, layout.starts, layout.starts, layout.longest, layout.longest)
    return cast(torch.Tensor, mixed).flatten(1)


def _find_config(model: str) -> tuple[str, dict[str, Any]]:
    """The name as open_clip takes it, and its model config. A known name wins over a folder of that name."""
    if model.startswith("ev-") and model not in open_clip.list_models():
        open_clip.add_model_config(OWN_CONFIGS)
    if model in open_clip.list_models():
        return model, cast(dict[str, Any], open_clip.get_model_config(model))
    folder = Path(model.removeprefix("local-dir:"))
    if folder.is_dir():
        return f"local-dir:{folder}", read_config(folder / "open_clip_config.json")
    if model.startswith("hf-hub:"):
        try:
            return model, cast(dict[str, Any], deepcopy(open_clip.get_model_config(model)))
        except (OSError, ValueError) as error:
            raise UsageError(f"open_clip cannot find {model}: {_first_line(error)}") from error
    near = difflib.get_close_matches(model, open_clip.list_models(), n=1, cutoff=0.0)
    raise UsageError(f"no folder and no open_clip model is called {model!r}; the nearest model is {near[0]!r}")


def _build_tower(config: dict[str, Any]) -> VisionTransformer:
    """The vision side alone, randomly initialised: open_clip's public factory would build the text side too."""
    vision = deepcopy(config["vision_cfg"])
    return cast(
        VisionTransformer, _build_vision_tower(int(config["embed_dim"]), vision, config.get("quick_gelu", False))
    )


def _wants_quick_gelu(model: str, pretrained: str | None, config: dict[str, Any]) -> bool:
    """Whether these weights were trained with x * sigmoid(1.702 x): the tag says so where the model's name does not.

    open_clip only warns when a tag such as "openai" meets a plain model name, and computes with the other activation.
    """
    tag = open_clip.get_pretrained_cfg(model, pretrained) if pretrained else {}
    return bool(config.get("quick_gelu", False) or (tag or {}).get("quick_gelu", False))


def _load_tower(model: str, pretrained: str | None, quick_gelu: bool) -> VisionTransformer:
    """A tower with weights, through open_clip's own loader."""
    if ":" in model and pretrained is not None:
        raise UsageError(f"{model} brings its own weights: leave pretrained out")
    try:
        loaded = open_clip.create_model(
            model, pretrained=pretrained, require_pretrained=True, force_quick_gelu=quick_gelu
        )
    except (RuntimeError, OSError, ValueError, UnpicklingError, SafetensorError) as error:
        source = f"weights {pretrained!r} for {model}" if pretrained else f"the weights of {model}"
        tags = ", ".join(open_clip.list_pretrained_tags_by_model(model))
        known = f"; its tags are {tags}, and a weights file works too" if tags else ""
        raise UsageError(f"open_clip cannot load {source}: {_first_line(error)}{known}") from error
    return cast(VisionTransformer, loaded.visual)


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
