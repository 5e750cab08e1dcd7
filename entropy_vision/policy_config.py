"""What rebuilds the policy without weights, as transformers saves and reads it (config.json)."""

from __future__ import annotations

from typing import Any, cast

from transformers import AutoConfig, PreTrainedConfig

from entropy_vision.errors import UsageError


class EntropyVLMConfig(PreTrainedConfig):
    """Everything that rebuilds the policy without weights.

    Args:
        vision: `VisionEncoder.config`.
        text: `to_dict()` of a transformers causal LM configuration, `model_type` included.
        image_token_id: the placeholder a kept patch takes in `input_ids`; never sampled.
        unsampled_token_ids: tokens that neither the sampler nor the scorer gives any probability.
        visual_positions: "shared" (all visual tokens at rotary position 0) or "sequential".
        inputs: the sizes the policy was trained on (image_size, video_size, frame_count, difficulty) and whether
            its videos came out of files (video_files), for `eval`.
    """

    model_type = "entropy_vlm"

    def __init__(
        self,
        vision: dict[str, Any] | None = None,
        text: dict[str, Any] | None = None,
        image_token_id: int = 0,
        unsampled_token_ids: list[int] | None = None,
        visual_positions: str = "shared",
        inputs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        if visual_positions not in ("shared", "sequential"):
            raise UsageError(f'visual_positions must be "shared" or "sequential", got {visual_positions!r}')
        self.vision = vision or {}
        self.text = text or {}
        self.image_token_id = image_token_id
        self.unsampled_token_ids = unsampled_token_ids or []
        self.visual_positions = visual_positions
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
