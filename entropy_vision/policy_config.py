"""What rebuilds the policy without weights, as transformers saves and reads it (config.json)."""

from __future__ import annotations

import difflib
from typing import Any, cast

from transformers import CONFIG_MAPPING, AutoConfig, PreTrainedConfig

from entropy_vision.attend import Attend, read_attend
from entropy_vision.errors import UsageError
from entropy_vision.reduction import Reduction

POSITIONS = ("shared", "grid", "sequential")
_PARTS = ("vision", "text", "image_token_id", "unsampled_token_ids", "visual_positions", "projector")
_OWN = (*_PARTS, "attend", "reduction", "inputs")


class EntropyVLMConfig(PreTrainedConfig):
    """Everything that rebuilds the policy without weights.

    Args:
        vision: `VisionEncoder.config`, or `HFVisionEncoder.config`, which has a `model_type`.
        text: `to_dict()` of a transformers causal LM configuration, `model_type` included.
        image_token_id: the placeholder a kept patch takes in `input_ids`; never sampled.
        unsampled_token_ids: tokens that neither the sampler nor the scorer gives any probability.
        visual_positions: where visual tokens stand for the decoder's rotary positions: "shared" (all of a picture at
            that of the text before it), "grid" (each where it stands when nothing is dropped) or "sequential".
        projector: its kind and options: {} is this package's own, {"kind": "llava", ...} that of LLaVA; see
            `projectors`.
        attend: which patches see each other in the tower: those of one "frame", of so many frames in a row (a group of
            pictures), or of an "input"; a pack that says another than "frame" itself keeps it.
        reduction: tokens that are left of those that go into the tower, {"kind": "tome" or "evs-features", "keep":
            fraction}, see `reduced`; None: all. It is for answering, training refuses it.
        inputs: the sizes the policy was trained on (image_size, video_size, frame_count, difficulty) and whether
            its videos came out of files (video_files), how long its answers may be (max_new_tokens), and of a policy
            with a chat template what is said around a question (system, instruction): for `eval`.
    """

    model_type = "entropy_vlm"

    def __init__(
        self,
        vision: dict[str, Any] | None = None,
        text: dict[str, Any] | None = None,
        image_token_id: int = 0,
        unsampled_token_ids: list[int] | None = None,
        visual_positions: str = "shared",
        projector: dict[str, Any] | None = None,
        inputs: dict[str, Any] | None = None,
        attend: Attend = "frame",
        reduction: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        if visual_positions not in POSITIONS:
            raise UsageError(f"visual_positions must be one of {', '.join(POSITIONS)}, got {visual_positions!r}")
        for name in kwargs:
            near = difflib.get_close_matches(name, _OWN, n=1, cutoff=0.9)
            if near:
                raise UsageError(f"the configuration has no {name!r}; did you mean {near[0]!r}?")
        kind = str((text or {}).get("model_type"))
        if text and kind not in CONFIG_MAPPING:
            near = difflib.get_close_matches(kind, list(CONFIG_MAPPING.keys()), n=1, cutoff=0.0)
            raise UsageError(f"transformers has no decoder {kind!r}; the nearest model_type is {near[0]!r}")
        self.vision = vision or {}
        self.text = text or {}
        self.image_token_id = image_token_id
        self.unsampled_token_ids = unsampled_token_ids or []
        self.visual_positions = visual_positions
        self.projector = projector or {}
        self.attend = read_attend(attend)
        Reduction.read(reduction)  # refuses a wrong one now
        self.reduction = reduction
        self.inputs = inputs or {}
        kwargs.setdefault("tie_word_embeddings", False)
        super().__init__(**kwargs)

    def get_text_config(self, *args: Any, **kwargs: Any) -> PreTrainedConfig:
        """The language model's own configuration: what caches and generation ask for."""
        if not self.text:
            return cast(PreTrainedConfig, super().get_text_config(*args, **kwargs))
        text = dict(self.text)
        return cast(PreTrainedConfig, AutoConfig.for_model(text.pop("model_type"), **text))


AutoConfig.register("entropy_vlm", EntropyVLMConfig, exist_ok=True)
