"""FLOPs of a policy by stage, on meta: the closed forms, and what a policy that computes is counted at."""

from __future__ import annotations

import pytest
import torch
from transformers import LlamaConfig, Qwen2Config
from transformers.cache_utils import DynamicCache

from entropy_vision import UsageError
from entropy_vision.cost import count_flops, tower_flops
from entropy_vision.packed import PackedPatches
from entropy_vision.policy_cost import language_flops, meta_decoder, meta_language, meta_policy, policy_flops
from tests.oracles_encoder import make_patchset, qwen2_flops
from tests.small_policy import noise_frames, pack, small_policy


def test_stages_are_what_running_the_policy_counts() -> None:
    model, _ = small_policy()
    patches = pack(noise_frames(0, frames=2, size=96))
    count, prompt, answer = patches.counts[0], 5, 4
    bill = policy_flops(model, patches, prompt, answer)
    assert bill["embed"] == sum(count_flops(lambda: model.encoder.embed(patches)).values())
    hidden = model.encoder.embed(patches)
    assert bill["tower"] == sum(count_flops(lambda: model.encoder.through_blocks(patches, hidden)).values())
    segments = torch.bincount(patches.layout.patch_segments).tolist()
    assert bill["embed"] + bill["tower"] == tower_flops(model.encoder.config, segments)
    tokens = model.encoder.encode(patches)
    assert bill["project"] == sum(count_flops(lambda: model.projector.embed(tokens, patches)).values())

    def run(steps: int) -> None:
        language, cache = model.language, DynamicCache()
        for length in [count + prompt, *[1] * steps]:
            embeds = torch.zeros(1, length, 32)
            out = language.base_model(inputs_embeds=embeds, cache=cache, use_cache=True)
            language.get_output_embeddings()(out.last_hidden_state[:, -1:])

    with torch.no_grad():
        one, all_of_it = (sum(count_flops(lambda s=steps: run(s)).values()) for steps in (0, answer - 1))
    assert bill["prefill"] == one and bill["decode"] == all_of_it - one


def test_prefill_is_the_closed_form_and_rows_add_up() -> None:
    config = Qwen2Config(hidden_size=64, intermediate_size=96, num_hidden_layers=3, num_attention_heads=4,
                         num_key_value_heads=2, vocab_size=50)  # fmt: skip
    language = meta_decoder(config)
    bill = language_flops(language, [7], prompt=4, answer=1)
    assert bill == {"prefill": qwen2_flops(config, 11, 1) - 10 * 2 * 64 * 50, "decode": 0}
    several = language_flops(language, [7, 30, 7], 4, 6)
    alone = [language_flops(language, [count], 4, 6) for count in (7, 7, 30)]
    assert several == {stage: sum(one[stage] for one in alone) for stage in several}


def test_a_model_that_would_not_fit_is_counted() -> None:
    model = meta_policy("ViT-L-14-336", LlamaConfig())
    assert sum(p.numel() for p in model.language.parameters()) > 6.7e9
    patches = PackedPatches.pack([make_patchset((1, 24, 24), 14, [144])])
    few = policy_flops(model, patches, prompt=64, answer=32)
    assert few["embed"] + few["tower"] == tower_flops(model.encoder.config, [144])
    assert few["embed"] == 2 * 144 * 3 * 14 * 14 * 1024
    # 2 FLOPs a weight of the blocks and a token, and attention; the head once
    blocks = 32 * (4 * 4096**2 + 3 * 4096 * 11008)
    assert few["prefill"] == 2 * 208 * blocks + 32 * 4 * 208**2 * 4096 + 2 * 4096 * 32000
    full = language_flops(model.language, [576], prompt=64, answer=32)
    assert 3.0 < full["prefill"] / few["prefill"] < 3.2 and full["decode"] > few["decode"]


def test_names_that_are_not_known_are_told() -> None:
    assert meta_language("qwen2").model_type == "qwen2"
    with pytest.raises(UsageError, match=r"no language model '\./nowhere'"):
        meta_language("./nowhere")
    with pytest.raises(UsageError, match="decoder 'gemma2' scales"):
        meta_language("gemma2")
    with pytest.raises(UsageError, match="at least one token of prompt"):
        language_flops(meta_decoder(meta_language(Qwen2Config(num_hidden_layers=1))), [3], 0, 1)
