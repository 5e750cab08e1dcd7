"""Budgets in FLOPs: what is promised of the price of what is chosen."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from entropy_vision import Budget, EntropyTokenizer, Frames, InputError, UsageError, selectors
from entropy_vision.budget import afford
from entropy_vision.cost import count_flops, tower_flops
from entropy_vision.encoder import VisionEncoder
from entropy_vision.selection import Selector
from entropy_vision.tower import Tower, find_tower
from entropy_vision.towers.sizes import SIZES

TINY = find_tower("ev-tiny-96")


def _frames(*shape: int, seed: int = 0) -> Frames:
    pixels = np.random.default_rng(seed).integers(0, 256, (*shape, 3), dtype=np.uint8)
    return Frames(pixels=pixels, pts_seconds=np.arange(len(pixels)) / 8)


def _price(tower: Tower, mask: np.ndarray) -> int:
    return tower.flops([int(frame.sum()) for frame in mask if frame.any()])


class Jumps(Selector):
    """A choice of K + 1 may cost less than one of K: odd counts crowd into one frame, even ones spread."""

    name, version = "jumps", 1

    def score(self, frames: Frames, patch_size: int) -> np.ndarray:
        return np.ones((frames.count, *(side // patch_size for side in frames.size)), np.float32)

    def choose(self, bits: np.ndarray, count: int, frames: Frames, patch_size: int) -> np.ndarray:
        order = np.arange(bits.size).reshape(bits.shape)
        if count % 2 == 0:
            order = order.reshape(len(bits), -1).T.ravel().argsort().reshape(bits.shape)
        return order < count


# --- the promise


@pytest.mark.parametrize("selector", selectors())
def test_the_price_of_the_choice_fits_and_that_of_one_more_does_not(selector: str) -> None:
    tok, frames = EntropyTokenizer(8, selector=selector), _frames(6, 48, 40)
    bits = tok.score(frames)
    dense = TINY.flops([30] * 6)
    for share in (0.025, 0.11, 0.34, 0.77, 0.999):
        mask = tok.select(frames, bits, Budget(flops=share * dense, tower="ev-tiny-96")).mask
        assert _price(TINY, mask) <= share * dense
        assert _price(TINY, tok.selector.choose(bits, int(mask.sum()) + 1, frames, 8)) > share * dense
    for enough in (dense, 2 * dense):
        assert tok.select(frames, bits, Budget(flops=enough, tower="ev-tiny-96")).keep == 1


def test_what_the_tower_really_does_is_within_the_budget() -> None:
    encoder, frames = VisionEncoder("ev-tiny-96"), _frames(4, 96, 96)
    limit = 0.3 * TINY.flops([144] * 4)
    kept = EntropyTokenizer(8, budget=Budget(flops=limit, tower="ev-tiny-96"))(frames)
    done = sum(count_flops(lambda: encoder([kept])).values())
    assert 0.99 * limit < done <= limit


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 99), low=st.floats(0.05, 1), high=st.floats(0.05, 1))
@pytest.mark.parametrize("selector", ["rate", "uniform", "rlt", Jumps()], ids=["rate", "uniform", "rlt", "jumps"])
def test_a_larger_budget_never_keeps_fewer(selector: Any, seed: int, low: float, high: float) -> None:
    tok, frames = EntropyTokenizer(8, selector=selector), _frames(4, 32, 32, seed=seed)
    bits, dense = tok.score(frames), TINY.flops([16] * 4)
    few, many = (
        tok.select(frames, bits, Budget(flops=share * dense, tower="ev-tiny-96")) for share in sorted((low, high))
    )
    assert len(few) <= len(many)
    assert _price(TINY, few.mask) <= min(low, high) * dense and _price(TINY, many.mask) <= max(low, high) * dense


@settings(max_examples=200, deadline=None)
@given(data=st.data(), least=st.integers(1, 5), more=st.integers(0, 30))
def test_bisection_keeps_its_promise_for_any_price(data: st.DataObject, least: int, more: int) -> None:
    prices = data.draw(st.lists(st.integers(0, 50), min_size=more + 1, max_size=more + 1))
    tried: list[int] = []

    def price(count: int) -> int:
        tried.append(count)
        return prices[count - least]

    found = [afford(limit, price, least, least + more) for limit in range(prices[0], 52)]
    for limit, count in enumerate(found, start=prices[0]):
        assert prices[count - least] <= limit
        assert count == least + more or prices[count + 1 - least] > limit
    assert found == sorted(found)
    assert not tried or (min(tried) > least and max(tried) <= least + more)


def test_one_patch_is_paid_for_by_exactly_its_price() -> None:
    frames, least = _frames(2, 32, 32), TINY.flops([1])
    tok = EntropyTokenizer(8, budget=Budget(flops=least, tower="ev-tiny-96"))
    assert len(tok(frames)) == 1
    with pytest.raises(UsageError, match=f"no patch of ev-tiny-96: one takes {least}"):
        EntropyTokenizer(8, budget=Budget(flops=least - 1, tower="ev-tiny-96"))


# --- the tower


def test_a_budget_without_a_tower_counts_a_vit_b_of_the_patch_size() -> None:
    frames = _frames(2, 64, 64)
    for side, model in ((16, "ViT-B-16"), (32, "ViT-B-32")):
        limit = 0.5 * find_tower(model).flops([(64 // side) ** 2] * 2)
        named = EntropyTokenizer(side, budget=Budget(flops=limit, tower=model))(frames)
        plain = EntropyTokenizer(side, budget=Budget(flops=limit))(frames)
        assert plain.positions.tolist() == named.positions.tolist()


def test_every_model_is_found_as_open_clip_and_the_encoder_find_it() -> None:
    found = 0
    for name in open_clip.list_models():
        config = open_clip.get_model_config(name)
        vision = config["vision_cfg"]
        timm = vision.get("timm_model_name")
        if timm not in SIZES if timm else isinstance(vision["layers"], list):
            with pytest.raises(UsageError, match="not supported"):
                find_tower(name)
            continue
        assert find_tower(name).flops([7, 1]) == tower_flops(config, [7, 1])
        found += 1
    assert found > 90


def test_a_local_folder_is_a_tower(tmp_path: Path) -> None:
    config = {"embed_dim": 16, "vision_cfg": {"layers": 2, "width": 32, "patch_size": 8, "mlp_ratio": 2.0}}
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}))
    budget = Budget(flops=1e6, tower=str(tmp_path))
    first = EntropyTokenizer(8, budget=budget).fingerprint()
    assert find_tower(str(tmp_path)).hidden == 64
    config["vision_cfg"] = {"layers": 3, "width": 32, "patch_size": 8}
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}))
    assert EntropyTokenizer(8, budget=budget).fingerprint() != first
    (tmp_path / "open_clip_config.json").write_text("{")
    with pytest.raises(InputError, match=r"open_clip_config\.json"):
        EntropyTokenizer(8, budget=budget)


# --- wrong use


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"flops": 0}, "above 0"),
        ({"flops": -1e9}, "above 0"),
        ({"flops": float("inf")}, "finite"),
        ({"flops": "2e9"}, "number"),
        ({"flops": 2e9, "keep": 0.5}, "exactly one of tokens, keep, bits, threshold, flops"),
        ({"tower": "ViT-B-32"}, "exactly one"),
        ({"tower": "ViT-B-32", "keep": 0.5}, "flops= counts, got 'ViT-B-32', keep="),
        ({"tower": 32, "flops": 2e9}, "name of the model"),
    ],
)
def test_budget_refuses_what_it_cannot_mean(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Budget(**given)


@pytest.mark.parametrize(
    ("patch_size", "tower", "message"),
    [
        (16, "ViT-B-32", "ViT-B-32 takes patches of 32 pixels, not 16: count its FLOPs with patch_size=32"),
        (32, "ViT-B32", "nearest model is 'ViT-B-32'"),
        (32, "RN50", "ResNet"),
        (16, "convnext_tiny", "timm"),
        (16, "../model_configs/ViT-B-16", "no open_clip model"),
    ],
)
def test_a_tower_that_cannot_be_counted_is_refused_before_there_are_frames(
    patch_size: int, tower: str, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        EntropyTokenizer(patch_size, budget=Budget(flops=1e12, tower=tower))
    with pytest.raises(UsageError, match=message):
        tok, frames = EntropyTokenizer(patch_size), _frames(1, 32, 32)
        tok.select(frames, tok.score(frames), Budget(flops=1e12, tower=tower))


def test_flops_are_no_count_before_the_choice() -> None:
    budget = Budget(flops=1e9)
    assert budget.size(100) is None
    with pytest.raises(UsageError, match="flops"):
        budget.count(np.ones((1, 2, 2), np.float32))


def test_fingerprint_and_repr_tell_budget_and_tower() -> None:
    tokens = [
        EntropyTokenizer(8),
        EntropyTokenizer(8, budget=Budget(flops=1e9)),
        EntropyTokenizer(8, budget=Budget(flops=2e9)),
        EntropyTokenizer(8, budget=Budget(flops=1e9, tower="ev-tiny-96")),
    ]
    assert len({tok.fingerprint() for tok in tokens}) == 4
    assert "flops=1000000000.0, tower=ev-tiny-96" in repr(tokens[-1])


def test_choosing_by_flops_imports_no_torch() -> None:
    code = (
        "import sys, numpy as np, entropy_vision as ev;"
        "frames = ev.Frames(pixels=np.zeros((2, 64, 64, 3), np.uint8), pts_seconds=np.zeros(2));"
        "ev.EntropyTokenizer(32, budget=ev.Budget(flops=2e9, tower='ViT-B-32'))(frames);"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
