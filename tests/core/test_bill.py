"""The bill of an answer: stages add up, fewer patches cost less, selection is charged."""

from __future__ import annotations

import pytest
import torch

from entropy_vision import EntropyTokenizer
from entropy_vision.bill import add_costs, answer_costs
from entropy_vision.cost import CostReport, count_flops, tower_flops
from entropy_vision.packed import PackedPatches
from entropy_vision.policy_cost import Price, meta_decoder
from entropy_vision.question import Answer
from entropy_vision.rl.scenes import Ask, Scored
from entropy_vision.text import prompt_ids
from tests.small_policy import noise_frames, small_policy


@pytest.fixture(scope="module")
def scenes() -> list[Scored]:
    ask = Ask("key", "count", "how many red ?", Answer("integer", 1), "<think> none </think> <answer> 1 </answer>")
    chooser = EntropyTokenizer(patch_size=8, keep=1.0)
    return [Scored(f, chooser.score(f), (ask,), ()) for f in (noise_frames(i, frames=2, size=64) for i in range(3))]


def test_costs_fall_with_keep_and_hold_a_selection_stage(scenes: list[Scored]) -> None:
    model, tokenizer = small_policy()
    costs = answer_costs(model, tokenizer, scenes, [("rate", 1.0), ("rate", 0.25)], repeats=2)
    dense, kept = costs["rate", 1.0], costs["rate", 0.25]
    assert (dense.tokens, kept.tokens) == (3 * 128, 3 * 32)
    assert kept.bytes * 4 == dense.bytes
    stages = ("embed", "tower", "project", "prefill", "decode")
    assert tuple(kept.flops) == stages and tuple(kept.seconds) == ("select", *stages)
    assert all(kept.flops[stage] < dense.flops[stage] for stage in stages)
    assert kept.seconds["select"] > 0 and kept.quartiles.keys() == kept.seconds.keys()
    report = CostReport.compare(dense, kept)
    assert report.flops_ratio == dense.total_flops / kept.total_flops > 1


def test_encoding_is_billed_at_the_towers_closed_form_and_the_projector(scenes: list[Scored]) -> None:
    model, tokenizer = small_policy()
    cost = answer_costs(model, tokenizer, scenes, [("rate", 1.0)], repeats=1)["rate", 1.0]
    tower = tower_flops(model.encoder.config, [64] * 6)
    packed = PackedPatches.pack([EntropyTokenizer(patch_size=8, keep=1.0)(s.frames) for s in scenes])
    tokens = torch.zeros(sum(packed.counts), model.encoder.width)
    projector = sum(count_flops(lambda: model.projector(tokens, torch.zeros(len(tokens), 3))).values())
    assert cost.flops["project"] == projector
    assert cost.flops["embed"] == 2 * len(tokens) * 3 * 8 * 8 * 96
    assert cost.flops["embed"] + cost.flops["tower"] == tower
    model.config.attend = "input"
    cost = answer_costs(model, tokenizer, scenes, [("rate", 1.0)], repeats=1)["rate", 1.0]
    assert cost.flops["embed"] + cost.flops["tower"] == tower_flops(model.encoder.config, [128] * 3) > tower


def test_prefill_and_decode_are_billed_at_the_decoders_closed_form(scenes: list[Scored]) -> None:
    """Pictures, then the prompt behind them but for its last token, then what is said, each token with its logits."""
    model, tokenizer = small_policy()
    cost = answer_costs(model, tokenizer, scenes, [("rate", 0.25)], repeats=1)["rate", 0.25]
    price = Price.of(meta_decoder(model.config.get_text_config()))
    asked = len(prompt_ids(tokenizer, scenes[0].asks[0].question)) - 1
    body = [price(32) - price.head, price(asked, 32) - price.head]
    assert cost.flops["prefill"] == 3 * sum(body)
    assert cost.flops["decode"] >= 3 * price(1, 32 + asked)


def test_bills_add_up(scenes: list[Scored]) -> None:
    model, tokenizer = small_policy()
    cost = answer_costs(model, tokenizer, scenes, [("random", 0.25)], repeats=1)["random", 0.25]
    both = add_costs([cost, cost])
    assert not both.quartiles
    assert both.total_flops == 2 * cost.total_flops and both.tokens == 2 * cost.tokens
