"""Entropy tokens inside transformers' Qwen2.5-VL and Qwen3-VL, their weights and their code as they are.

pruned = prune(model, processor, keep=0.25)
inputs = pruned.inputs(text=prompt, images=picture)     # the processor's own, with fewer placeholders
out = pruned.generate(**inputs, max_new_tokens=64)

What is kept or dropped is a unit: the merge group of 2 x 2 patches (28 or 32 pixels a side, two frames of a video)
that becomes one token. Only kept units enter the tower. Its attention, inside windows and over whole frames, runs
among them; they keep their rotary positions, their position rows and the decoder's M-RoPE positions, and carry their
DeepStack features along. Nothing is patched: the towers of transformers take positions, segments and windows as
arguments, and the decoder takes visual embeddings that were made outside.

With every unit kept the logits are the model's own; with fewer they are those of its dense forward in which nobody
sees a dropped unit, in the tower or in the decoder. Selection looks at the pixels the tower would get, so one budget
serves whatever the processor was given. A budget is for each picture and video. Gradients flow; training loops and
serving engines that run the dense processor and tower themselves are not reached.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import BatchFeature
from transformers.vision_utils import (
    get_vision_interpolation_indices_and_weights,
    get_vision_position_ids,
    get_vision_window_index,
)

from entropy_vision.budget import Budget, at_least
from entropy_vision.errors import UsageError
from entropy_vision.frames import Frames
from entropy_vision.selection import Selector, make_selector

KINDS = ("qwen2_5_vl", "qwen3_vl")


@dataclass(frozen=True)
class KeptUnits:
    """What the tower gets of one modality, n inputs end to end.

    Attributes:
        pixels: float [4 K, C * 2 * P * P], patches of the kept units, as transformers' processor flattens them.
        grid: int64 [n, 3], (frames / 2, patch rows, patch columns) of the dense inputs.
        mask: bool [U], which of the dense inputs' units are kept; K of them.
    """

    pixels: Tensor
    grid: Tensor
    mask: Tensor


def prune(
    model: Any,
    processor: Any,
    keep: float | None = None,
    selector: str | Selector = "rate",
    budget: Budget | None = None,
    seed: int = 0,
) -> PrunedVL:
    """The model with a budget for what it looks at.

    Args:
        model: a `Qwen2_5_VLForConditionalGeneration` or `Qwen3VLForConditionalGeneration`; shared, not changed.
        processor: its own.
        keep, budget: as in `EntropyTokenizer`, for each picture and video; 0.25 of the units where neither is given.
        selector: a name out of `selectors()`, or an object.

    Raises:
        UsageError: another model, both keep and budget, or a budget in FLOPs.
    """
    kind = getattr(getattr(model, "config", None), "model_type", type(model).__name__)
    if kind not in KINDS:
        raise UsageError(f"prune takes models of {' and '.join(KINDS)}, got {kind!r}")
    if keep is not None and budget is not None:
        raise UsageError("give keep or budget, not both: keep=0.25 is short for budget=Budget(keep=0.25)")
    budget = budget or Budget(keep=0.25 if keep is None else keep)
    if budget.flops is not None:
        raise UsageError("prune counts units, not FLOPs: give a budget in tokens, keep, bits or a threshold")
    chooser = make_selector(selector, seed) if isinstance(selector, str) else selector
    return PrunedVL(model, processor, budget, chooser)


class PrunedVL:
    """A Qwen-VL that looks at some of its units; see `prune`.

    Attributes:
        model, processor: transformers' own.
        budget, selector: of each picture and video.
    """

    def __init__(self, model: Any, processor: Any, budget: Budget, selector: Selector) -> None:
        self.model, self.processor, self.budget, self.selector = model, processor, budget, selector

    def inputs(self, messages: Any = None, budget: Budget | float | None = None, **kwargs: Any) -> BatchFeature:
        """What `generate` takes: the processor's tokens without those of dropped units.

        Args:
            messages: a conversation, for the processor's chat template; or give what the processor takes, `text`,
                `images` and `videos`.
            budget: instead of the one given to `prune`; a number is a share to keep.
        """
        if messages is not None:
            dense = self.processor.apply_chat_template(
                messages,
                tokenize=True,
                return_dict=True,
                return_tensors="pt",
                **({"add_generation_prompt": True} | kwargs),
            )
        else:
            dense = self.processor(return_tensors="pt", **kwargs)
        return self.select(dense, budget)

    def select(self, dense: BatchFeature, budget: Budget | float | None = None) -> BatchFeature:
        """The processor's output for every unit -> input_ids, attention_mask int64 [B, T], position_ids int64
        [3, B, T], and `kept`: {"image" or "video": KeptUnits}. Rows are padded at the left."""
        kept: dict[str, KeptUnits] = {}
        limit = Budget(keep=budget) if isinstance(budget, int | float) else budget or self.budget
        for name, key in (("image", "pixel_values"), ("video", "pixel_values_videos")):
            if dense.get(key) is not None:
                grid = dense[f"{name}_grid_thw"]
                mask = self._masks(name, dense[key], grid, limit)
                merge = self.model.config.vision_config.spatial_merge_size**2
                kept[name] = KeptUnits(dense[key][mask.repeat_interleave(merge)], grid, mask)
        return BatchFeature({**self._rows(dense, kept), "kept": kept})

    def generate(self, kept: dict[str, KeptUnits] | None = None, **inputs: Any) -> Any:
        """transformers' generate, on what `inputs` gave."""
        with torch.no_grad():
            return self.model.generate(**inputs, mm_encoder_outputs=self.encode(kept or {}))

    def __call__(self, kept: dict[str, KeptUnits] | None = None, **inputs: Any) -> Any:
        """transformers' forward pass, on what `inputs` gave."""
        return self.model(**inputs, mm_encoder_outputs=self.encode(kept or {}))

    def encode(self, kept: dict[str, KeptUnits]) -> dict[str, Any]:
        """The tower's output for the kept units of every modality, one tensor an input as transformers has it."""
        return {name: encode_units(self.model.model.visual, units) for name, units in kept.items()}

    # ---- choosing ------------------------------------------------------------------------------------------------

    def _masks(self, name: str, pixels: Tensor, grid: Tensor, budget: Budget) -> Tensor:
        """bool [U], the units kept of all inputs of one modality."""
        vision = self.model.config.vision_config
        source = getattr(self.processor, f"{name}_processor")
        masks, start = [], 0
        for frames, rows, columns in grid.tolist():
            count = frames * rows * columns
            shown = frames_of(
                pixels[start : start + count], (frames, rows, columns), vision, source.image_mean, source.image_std
            )
            shown = shown[:1] if name == "image" else shown  # a picture is there twice
            masks.append(self._choose(shown, frames, vision.spatial_merge_size * vision.patch_size, budget).ravel())
            start += count
        return torch.from_numpy(np.concatenate(masks)).to(pixels.device)

    def _choose(self, pixels: np.ndarray, units: int, side: int, budget: Budget) -> np.ndarray:
        """bool [units, R, C]: what is kept of frames uint8 [F, H, W, 3], F / units of which make one unit."""
        frames = Frames(pixels=pixels, pts_seconds=np.arange(len(pixels), dtype=np.float64))
        shape = (units, pixels.shape[1] // side, pixels.shape[2] // side)
        known = budget.size(int(np.prod(shape)))
        if known == np.prod(shape):
            return np.ones(shape, bool)
        bits = self.selector.score(frames, side)
        bits = bits.reshape(units, -1, *bits.shape[1:]).sum(axis=1, dtype=np.float32)
        if budget.threshold is not None:
            return at_least(bits, budget.threshold)
        last = slice(len(pixels) // units - 1, None, len(pixels) // units)  # what a unit shows at its end
        ends = Frames(pixels=pixels[last], pts_seconds=frames.pts_seconds[last])
        return self.selector.choose(bits, budget.count(bits), ends, side)

    def _rows(self, dense: BatchFeature, kept: dict[str, KeptUnits]) -> dict[str, Tensor]:
        """Tokens and M-RoPE positions that stay, every row at the right end of its padded one."""
        ids, config = dense["input_ids"], self.model.config
        live = dense.get("attention_mask")
        live = torch.ones_like(ids) if live is None else live
        stay = live.bool()
        for name, units in kept.items():
            holes = ids == getattr(config, f"{name}_token_id")
            if int(holes.sum()) != len(units.mask):
                raise UsageError(
                    f"the prompt has {int(holes.sum())} {name} placeholders for {len(units.mask)} units: "
                    "it must come from the model's own processor, untruncated"
                )
            stay = stay.clone()
            stay[holes] = units.mask.to(ids.device)
        positions = self._positions(dense, kept, live)
        counts = stay.sum(1)
        longest = int(counts.max())
        place = torch.arange(longest, device=ids.device) >= longest - counts[:, None]
        pad = config.text_config.pad_token_id
        out = ids.new_full((len(ids), longest), 0 if pad is None else pad)
        out[place] = ids[stay]
        where = positions.new_zeros(3, *out.shape)
        where[:, place] = positions[:, stay]
        return {"input_ids": out, "attention_mask": place.long(), "position_ids": where}

    def _positions(self, dense: BatchFeature, kept: dict[str, KeptUnits], live: Tensor) -> Tensor:
        """int64 [3, B, T], what the model itself gives every token of the dense prompt."""
        ids = dense["input_ids"]
        if not kept:
            return ((live.cumsum(1) - 1) * live).expand(3, -1, -1)
        if dense.get("mm_token_type_ids") is None:
            raise UsageError("the processor must say which tokens are visual: leave return_mm_token_type_ids on")
        extra = {name: dense[name] for name in ("second_per_grid_ts",) if name in dense}
        positions, _ = self.model.model.get_rope_index(
            ids,
            mm_token_type_ids=dense["mm_token_type_ids"],
            image_grid_thw=dense.get("image_grid_thw"),
            video_grid_thw=dense.get("video_grid_thw"),
            attention_mask=live,
            **extra,
        )
        result: Tensor = positions
        return result


def frames_of(
    pixels: Tensor, grid: Sequence[int], vision: Any, mean: Sequence[float], std: Sequence[float]
) -> np.ndarray:
    """The frames that a processor flattened: float [T * R * C, 3 * 2 * P * P] -> uint8 [2 T, R * P, C * P, 3].

    Args:
        grid: (T, R, C), frames by twos, patch rows and columns.
        vision: the vision configuration: patch_size, temporal_patch_size, spatial_merge_size.
        mean, std: what the processor normalised pixels in [0, 1] with.
    """
    frames, rows, columns = grid
    merge, side, pair = vision.spatial_merge_size, vision.patch_size, vision.temporal_patch_size
    split = pixels.float().cpu().reshape(frames, rows // merge, columns // merge, merge, merge, 3, pair, side, side)
    # (T, row unit, column unit, row, column, channel, frame, y, x) -> (T, frame, row unit, row, y, column unit, ...)
    whole = split.permute(0, 6, 1, 3, 7, 2, 4, 8, 5).reshape(frames * pair, rows * side, columns * side, 3)
    whole = (whole * torch.tensor(std) + torch.tensor(mean)) * 255
    return whole.round().clamp(0, 255).to(torch.uint8).numpy()


def encode_units(visual: Any, units: KeptUnits) -> Any:
    """transformers' vision tower on the kept units, its `pooler_output` and DeepStack features split by input."""
    grid, mask = units.grid.cpu(), units.mask.cpu()  # where things go is worked out there, as transformers does
    merge = visual.spatial_merge_size
    where = {name: one.to(visual.device) for name, one in _layout(visual, grid, mask).items()}
    pixels = units.pixels.to(visual.device, visual.dtype)
    output = visual(pixels, grid_thw=units.grid.to(visual.device), return_dict=True, **where)
    totals = (grid.prod(dim=1) // merge**2).tolist()
    counts = [int(one.sum()) for one in mask.split(totals)]
    output.pooler_output = output.pooler_output.split(counts)
    if getattr(output, "deepstack_features", None) is not None:
        output.deepstack_features = [feature.split(counts) for feature in output.deepstack_features]
    return output


def _layout(visual: Any, grid: Tensor, mask: Tensor) -> dict[str, Tensor]:
    """Places, segments and windows of the kept units, by the names under which the tower takes them."""
    merge = visual.spatial_merge_size
    chosen = mask.repeat_interleave(merge**2)
    # each frame is a segment
    areas = torch.repeat_interleave(grid[:, 1] * grid[:, 2] // merge**2, grid[:, 0])
    segment = torch.repeat_interleave(torch.arange(len(areas)), areas)
    where = {
        "position_ids": get_vision_position_ids(grid, merge)[chosen],
        "cu_seqlens": _starts(segment[mask], merge**2),
    }
    if hasattr(visual, "fullatt_block_indexes"):  # Qwen2.5: windows
        index, starts = get_vision_window_index(grid, merge, visual.window_size, visual.patch_size)
        rank, window = torch.empty_like(index), torch.empty_like(index)  # of every unit
        rank[index] = torch.arange(len(index))
        window[index] = torch.searchsorted(starts[1:] // merge**2, torch.arange(len(index)), right=True)
        where["window_index"] = rank[mask].argsort()
        where["cu_window_seqlens"] = _starts(window[mask][where["window_index"]], merge**2)
    else:  # Qwen3: learned position rows
        taps, weights = get_vision_interpolation_indices_and_weights(
            grid,
            num_grid_per_side=visual.num_grid_per_side,
            mode=visual.interpolation_mode,
            align_corners=visual.interpolation_align_corners,
            spatial_merge_size=merge,
        )
        where["interp_indices"], where["interp_weights"] = taps[chosen], weights[chosen]
    return where


def _starts(segment: Tensor, size: int) -> Tensor:
    """int32 [S + 1], where segments begin among patches, of the segment of every unit; empty ones are left out."""
    _, lengths = torch.unique_consecutive(segment, return_counts=True)
    return torch.nn.functional.pad(lengths.cumsum(0) * size, (1, 0)).to(torch.int32)
