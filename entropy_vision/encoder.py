"""VisionEncoder: an open_clip tower that looks at the kept patches only.

The tower's weights stay as open_clip loads them. Patch embedding, position rows, blocks and final norm are the
tower's own modules, which an adapter for its class tells apart (`towers`); what differs is that dropped patches are
never embedded, projected or attended to. With every patch kept the result is open_clip's, to rounding.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import asdict
from functools import partial
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Literal, cast

import open_clip
import timm.models.eva as timm_eva
import timm.models.vision_transformer as timm_vit
import torch
from open_clip.model import _build_vision_tower
from open_clip.timm_model import TimmModel
from open_clip.transformer import VisionTransformer
from safetensors import SafetensorError
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from entropy_vision.errors import UsageError
from entropy_vision.lora import add_lora, merge_lora
from entropy_vision.packed import Attend, Layout, PackedPatches
from entropy_vision.patchset import PatchSet
from entropy_vision.tower import OWN_CONFIGS, check_supported, read_config
from entropy_vision.towers.base import Adapter, resize_positions, rotation_at
from entropy_vision.towers.open_clip_vit import OpenClipVit
from entropy_vision.towers.sizes import SIZES
from entropy_vision.towers.timm_eva import TimmEva
from entropy_vision.towers.timm_vit import TimmVit


class VisionEncoder(nn.Module):
    """An open_clip tower over packed patches: open_clip's own ViTs, and timm's ViT and EVA behind them.

    Args:
        model: an open_clip model name ("ViT-B-32"), one of this package's ("ev-tiny-96"), or a local folder with
            open_clip_config.json and weights (open_clip's `local-dir:` layout).
        pretrained: open_clip's tag or a weights file; None leaves open_clip's random initialisation. A folder brings
            its own weights and takes none.

    Raises:
        UsageError: an unknown model, weights that cannot be loaded, or a tower of a class that is not supported
            (ConvNeXt, ResNet and other towers without patches, custom blocks).
        InputError: a folder whose open_clip_config.json is missing or damaged.
    """

    def __init__(self, model: str = "ViT-B-32", pretrained: str | None = None) -> None:
        super().__init__()
        model, config = _find_config(model)
        _check(model, config)
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
        _check("the given config", config)
        self = cls.__new__(cls)
        nn.Module.__init__(self)
        self._adopt(_build_tower(config), config)
        return self

    def _adopt(self, tower: nn.Module, config: dict[str, Any]) -> None:
        self.tower: Any = tower
        self.adapter = _adapter(tower)
        self._fixed = {f"tower.{name}" for name, parameter in tower.named_parameters() if not parameter.requires_grad}
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
        if config["vision_cfg"].get("timm_model_name"):  # its name does not tell what it costs
            sizes = asdict(self.adapter.sizes())
            self.config["tower"] = {name: size for name, size in sizes.items() if name != "name"}

    @property
    def width(self) -> int:
        """D, the width of a visual token."""
        return self.adapter.patches.out_channels

    @property
    def patch_size(self) -> int:
        """Side P in pixels of the patches that the tower takes."""
        return self.adapter.patches.kernel_size[0]

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) in pixels that the tower was trained at, as far as whole patches cover them."""
        rows, columns = self.adapter.grid
        return rows * self.patch_size, columns * self.patch_size

    @property
    def layers(self) -> int:
        """Number of blocks."""
        return len(self.adapter.blocks)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.adapter.patches.weight.device

    def train_only(self, what: Literal["none", "lora", "all"], *, rank: int = 16) -> None:
        """Choose what of the tower an optimiser may change.

        Args:
            what: "none" freezes it; "lora" freezes it and trains a low-rank map beside every linear map of its blocks
                (`merge_lora` puts them into the weights afterwards); "all" trains every weight that is not fixed by
                design, as sine-cosine position rows are.
            rank: of the low-rank maps.

        Raises:
            UsageError: another word, or what `lora.add_lora` says.
        """
        if what not in ("none", "lora", "all"):
            raise UsageError(f"train_only takes 'none', 'lora' or 'all', got {what!r}")
        if what == "lora":
            add_lora(self, rank)
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(
                (what == "all" and name not in self._fixed) or (what == "lora" and "lora_" in name)
            )

    def merge_lora(self) -> None:
        """Put what `train_only("lora")` trained into the tower's weights. Errors as `lora.merge_lora`."""
        merge_lora(self)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Compute every block again in the backward pass instead of remembering it: less memory, a third more time."""
        self.tower.set_grad_checkpointing(enable)

    def forward(self, sets: Sequence[PatchSet] | PackedPatches, attend: Attend = "frame") -> list[torch.Tensor]:
        """Visual tokens of every input.

        Args:
            sets: patch sets of the tower's patch size, or a pack (which carries its own `attend`).
            attend: patches see those of their own "frame", of so many frames in a row, or all of their "input".

        Returns:
            One float [K_i, D] for every input, in the order of its `positions`: behind the tower's last norm, class
            token and registers dropped. That is what open_clip gives with `output_tokens=True`, and timm's
            `forward_features` without its prefix; a tower with attentional pooling gives what that pooling reads.

        Raises:
            UsageError: nothing to encode, or patches of another size than the tower's.
        """
        packed = sets if isinstance(sets, PackedPatches) else PackedPatches.pack(sets, attend)
        return packed.split(self.encode(packed))

    def encode(self, packed: PackedPatches) -> torch.Tensor:
        """Visual tokens of a whole pack: float [N, D], in its order. Errors as `forward`."""
        packed = self.placed(packed)
        return self.through_blocks(packed, self.embed(packed))

    def through_blocks(self, packed: PackedPatches, hidden: torch.Tensor) -> torch.Tensor:
        """The second half of `encode`: visual tokens float [N, D] of what `embed` gave for the pack."""
        packed = self.placed(packed)
        rows = self._run(packed, hidden)
        return self.adapter.finish(rows.index_select(0, packed.lay_out(self.adapter.prefix).patch_rows))

    def pooled(self, sets: Sequence[PatchSet] | PackedPatches, attend: Attend = "frame") -> list[torch.Tensor]:
        """open_clip's image embedding (`encode_image`, not normalised) of every frame that keeps a patch.

        Returns:
            One float [segments, E] for every input; a segment is what sees each other: a frame, a group of frames, or
            the whole input.

        Raises:
            UsageError: as `forward`, and for a tower without pooling.
        """
        packed = sets if isinstance(sets, PackedPatches) else PackedPatches.pack(sets, attend)
        packed = self.placed(packed)
        layout, rows = packed.lay_out(self.adapter.prefix), self._run(packed, self.embed(packed))
        sizes = [segments * length for segments, length in layout.groups]
        parts = [
            self.adapter.pool(part.unflatten(0, group))
            for part, group in zip(rows.split(sizes), layout.groups, strict=True)
        ]
        ranks = torch.searchsorted(layout.starts[:-1].contiguous(), layout.first_rows.to(layout.starts.dtype))
        return list(torch.cat(parts).index_select(0, ranks).split(list(layout.input_segments)))

    def placed(self, packed: PackedPatches) -> PackedPatches:
        """The pack where the weights are, its layout worked out before it moves."""
        packed.lay_out(self.adapter.prefix)
        return packed.to(self.device)

    def _run(self, packed: PackedPatches, hidden: torch.Tensor) -> torch.Tensor:
        """The residual stream behind the last block by the rows of the pack's layout, float [T, D]."""
        adapter, layout = self.adapter, packed.lay_out(self.adapter.prefix)
        rotation, mix = self.rotations(layout), partial(_mix, layout)

        def run(block: nn.Module, rows: torch.Tensor) -> torch.Tensor:
            return adapter.feed(block, adapter.attend(block, rows, mix, rotation))

        for block in adapter.blocks:
            if adapter.checkpoints and self.training:
                hidden = checkpoint(run, block, hidden, use_reentrant=False)
            else:
                hidden = run(block, hidden)
        return hidden

    def embed(self, packed: PackedPatches) -> torch.Tensor:
        """What the first block reads: prefix tokens and patches with their position rows, float [T, D].

        Rows as `packed.lay_out(prefix)` has them. Errors as `forward`.
        """
        if packed.patch_size != self.patch_size:
            raise UsageError(
                f"patches of {packed.patch_size} pixels for a tower that takes {self.patch_size}: "
                f"tokenize with EntropyTokenizer(patch_size={self.patch_size})"
            )
        adapter, packed = self.adapter, self.placed(packed)
        layout = packed.lay_out(adapter.prefix)
        kernel, bias = adapter.patches.weight, adapter.patches.bias
        pixels = packed.pixels.to(torch.promote_types(kernel.dtype, torch.float32)) / 255
        pixels = (pixels - pixels.new_tensor(self.mean)) / pixels.new_tensor(self.std)
        # a convolution whose stride is its kernel is a linear map of each patch; the kernel is [D, 3, P, P]
        patches = F.linear(pixels.flatten(1).to(kernel.dtype), kernel.permute(0, 2, 3, 1).flatten(1), bias)
        if (rows := adapter.positions()) is not None:
            rows = rows.to(kernel.dtype)
            places = F.embedding(
                layout.place, torch.cat([resize_positions(rows, adapter.grid, shape) for shape in layout.shapes])
            )
            if layout.weights is not None:  # between the rows around the centre of what a merged patch stands for
                places = (places * layout.weights.to(places.dtype)[..., None]).sum(dim=1)
            patches = patches + places
        if adapter.prefix:
            opening = adapter.opening().to(kernel.dtype).repeat(len(layout.first_rows), 1)
            patches = torch.cat([opening, patches])
        return adapter.enter(patches.index_select(0, layout.order))

    def rotations(self, layout: Layout) -> torch.Tensor | None:
        """Sines and cosines of every row, float [T, 2 * d]: 0 and 1 for prefix tokens, which stand nowhere. None where
        the tower rotates nothing."""
        tables = [self.adapter.rotation(shape) for shape in layout.shapes]
        found = [table for table in tables if table is not None]
        if not found:
            return None
        rows = rotation_at(torch.cat(found).to(self.device), layout.place, layout.weights)
        still = rows.new_zeros(len(layout.first_rows) * layout.prefix, rows.shape[1])
        still[:, rows.shape[1] // 2 :] = 1
        return torch.cat([still, rows]).index_select(0, layout.order)


def _mix(layout: Layout, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """Attention inside segments, [T, H, d] -> [T, H * d]. Exact."""
    # the kernel for variable lengths takes half precision only, on Ampere and newer
    half = query.is_cuda and query.dtype in (torch.float16, torch.bfloat16) and torch.version.hip is None
    varlen = half and torch.cuda.get_device_capability(query.device) >= (8, 0)
    mixed = _mix_varlen(layout, query, key, value) if varlen else _mix_groups(layout, query, key, value)
    return mixed.flatten(1)


def _mix_groups(layout: Layout, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """One batched call for all segments of a length, on views."""
    done, start = [], 0
    for group in layout.groups:
        stop = start + group[0] * group[1]
        q, k, v = (rows[start:stop].unflatten(0, group).transpose(1, 2) for rows in (query, key, value))
        done.append(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(0, 1))
        start = stop
    return done[0] if len(done) == 1 else torch.cat(done)


def _mix_varlen(layout: Layout, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """One kernel over all segments, where the device has it."""
    from torch.nn.attention.varlen import varlen_attn

    found = varlen_attn(query, key, value, layout.starts, layout.starts, layout.longest, layout.longest)
    return cast(torch.Tensor, found)


def _adapter(tower: nn.Module) -> Adapter:
    """What runs a tower of this class.

    Raises:
        UsageError: none does.
    """
    if isinstance(tower, VisionTransformer):
        return OpenClipVit(tower)
    trunk = getattr(tower, "trunk", None)
    if type(trunk) is timm_vit.VisionTransformer:
        return TimmVit(cast(TimmModel, tower))
    if type(trunk) is timm_eva.Eva:
        return TimmEva(cast(TimmModel, tower))
    name = type(tower if trunk is None else trunk).__name__
    raise UsageError(f"a tower of class {name} is not supported: use a ViT, such as ViT-B-32 or ViT-B-16-SigLIP")


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


def _check(model: str, config: dict[str, Any]) -> None:
    """Refuse a tower of a class that no adapter runs, before any weight is made or loaded."""
    check_supported(model, config)
    name = config["vision_cfg"].get("timm_model_name")
    if name is not None and name not in SIZES:
        with torch.device("meta"):
            _adapter(_build_tower(config))


def _build_tower(config: dict[str, Any]) -> nn.Module:
    """The vision side alone, randomly initialised: open_clip's public factory would build the text side too."""
    vision = deepcopy(config["vision_cfg"])
    vision["timm_model_pretrained"] = False  # weights come from a checkpoint, never from a model's name alone
    return cast(nn.Module, _build_vision_tower(int(config["embed_dim"]), vision, config.get("quick_gelu", False)))


def _wants_quick_gelu(model: str, pretrained: str | None, config: dict[str, Any]) -> bool:
    """Whether these weights were trained with x * sigmoid(1.702 x): the tag says so where the model's name does not.

    open_clip only warns when a tag such as "openai" meets a plain model name, and computes with the other activation.
    """
    tag = open_clip.get_pretrained_cfg(model, pretrained) if pretrained else {}
    return bool(config.get("quick_gelu", False) or (tag or {}).get("quick_gelu", False))


def _load_tower(model: str, pretrained: str | None, quick_gelu: bool) -> nn.Module:
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
    return cast(nn.Module, loaded.visual)


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
