"""A policy that has learned nothing yet."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from transformers import Qwen3Config

from entropy_vision.attend import read_attend
from entropy_vision.encoder import VisionEncoder
from entropy_vision.policy import EntropyVLM, EntropyVLMConfig
from entropy_vision.processor import EntropyVLMProcessor
from entropy_vision.sources import world_words
from entropy_vision.text import ASSISTANT, IMAGE, PAD, UNKNOWN, token_id, word_tokenizer

from .recipe import DataRecipe, PolicyRecipe


def inputs_of(data: DataRecipe) -> dict[str, Any]:
    """What pictures and videos a policy is trained on, for whoever measures it."""
    sizes = {k: getattr(data, k) for k in ("image_size", "video_size", "frame_count", "difficulty")}
    return sizes | {"video_files": bool(data.video_folder)}


def words_of(texts: Iterable[str]) -> set[str]:
    """The words of some texts, as the word-level tokenizer parts them."""
    parts = word_tokenizer(()).backend_tokenizer
    normal = (parts.normalizer.normalize_str(text) for text in texts)
    return {word for text in normal for word, _ in parts.pre_tokenizer.pre_tokenize_str(text)}


def new_policy(
    recipe: PolicyRecipe, data: DataRecipe, seed: int, texts: Iterable[str] = ()
) -> tuple[EntropyVLM, EntropyVLMProcessor]:
    """A fresh policy with a word-level tokenizer over the World's vocabulary and the words of `texts`.

    Its language model is Qwen3's, which is Qwen2's decoder with normalised queries and keys: attention can be sharp
    before the weights have grown, and a small policy learns to look in half the steps (docs/notebook.md).
    """
    tokenizer = word_tokenizer({*world_words().all, *words_of(texts)})
    text = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=recipe.width,
        intermediate_size=recipe.mlp_width,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        num_key_value_heads=recipe.heads,
        head_dim=recipe.width // recipe.heads,
        max_position_embeddings=512,
        initializer_range=0.05,
        tie_word_embeddings=True,
        pad_token_id=token_id(tokenizer, PAD),
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
    )
    torch.manual_seed(seed)
    encoder = VisionEncoder(recipe.tower, pretrained=recipe.pretrained or None)
    config = EntropyVLMConfig(
        vision=encoder.config,
        text=text.to_dict(),
        image_token_id=token_id(tokenizer, IMAGE),
        unsampled_token_ids=[token_id(tokenizer, t) for t in (PAD, UNKNOWN, ASSISTANT)],
        pad_token_id=text.pad_token_id,
        eos_token_id=text.eos_token_id,
        attend=read_attend(recipe.attend),
        inputs=inputs_of(data),
    )
    model = EntropyVLM(config)
    model.encoder.load_state_dict(encoder.state_dict())
    return model, EntropyVLMProcessor.for_model(model, tokenizer)
