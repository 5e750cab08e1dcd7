"""A policy of some ten thousand random weights and pictures to show it: shared by the tests of what uses one."""

from __future__ import annotations

import numpy as np
import torch
from transformers import CONFIG_MAPPING, PreTrainedTokenizerFast

from entropy_vision import EntropyTokenizer, Frames
from entropy_vision.encoder import VisionEncoder
from entropy_vision.packed import PackedPatches
from entropy_vision.policy import EntropyVLM, EntropyVLMConfig
from entropy_vision.text import ASSISTANT, IMAGE, PAD, UNKNOWN, token_id, word_tokenizer

WORDS = ["is", "the", "red", "blue", "circle", "left", "of", "right", "or", "above", "?", "how", "many", "none"]
WORDS += ["0", "1", "2", "r1", "r2", "c1", "c2"]


def small_policy(seed: int = 0, decoder: str = "qwen2", **config: object) -> tuple[EntropyVLM, PreTrainedTokenizerFast]:
    """A random policy with weights large enough that its answers are not all alike."""
    torch.manual_seed(seed)
    tokenizer = word_tokenizer(WORDS)
    text = CONFIG_MAPPING[decoder](
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=0.2,
        tie_word_embeddings=True,
        pad_token_id=token_id(tokenizer, PAD),
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
    )
    settings = EntropyVLMConfig(
        vision=VisionEncoder("ev-tiny-96").config,
        text=text.to_dict(),
        image_token_id=token_id(tokenizer, IMAGE),
        unsampled_token_ids=[token_id(tokenizer, t) for t in (PAD, UNKNOWN, ASSISTANT)],
        pad_token_id=text.pad_token_id,
        eos_token_id=text.eos_token_id,
        **config,
    )
    return EntropyVLM(settings).eval(), tokenizer


def noise_frames(seed: int, frames: int = 1, size: int = 96) -> Frames:
    """Random pixels."""
    pixels = np.random.default_rng(seed).integers(0, 256, (frames, size, size, 3), dtype=np.uint8)
    return Frames(pixels=pixels, pts_seconds=np.arange(frames) / 8.0)


def pack(*frames: Frames, keep: float = 0.25) -> PackedPatches:
    """What `rate` keeps of each input."""
    chooser = EntropyTokenizer(patch_size=8, keep=keep)
    return PackedPatches.pack([chooser(f) for f in frames])
