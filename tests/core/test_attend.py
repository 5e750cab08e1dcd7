"""Groups of frames that see each other, asked for where policies are made, read, trained, priced and measured."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import media
import pytest
import torch

from entropy_vision import EntropyTokenizer, UsageError, evaluate
from entropy_vision.attend import read_attend
from entropy_vision.bench import run_bench
from entropy_vision.bench_page import _command
from entropy_vision.config import load_config
from entropy_vision.cost import count_flops, tower_flops
from entropy_vision.options import BenchOptions, EvalOptions
from entropy_vision.packed import PackedPatches
from entropy_vision.policy import load_policy
from entropy_vision.policy_cost import policy_flops
from entropy_vision.processor import EntropyVLMProcessor
from entropy_vision.rl.flops import Prices
from entropy_vision.rl.fresh import new_policy
from entropy_vision.rl.recipe import DataRecipe, PolicyRecipe
from tests.small_policy import noise_frames, small_policy

pytestmark = pytest.mark.usefixtures("steady")
GROUPS: list[Any] = [2, 3, "input"]
VIDEO = noise_frames(1, frames=5)
KEPT = EntropyTokenizer(patch_size=8, keep=0.25)(VIDEO)


@pytest.mark.parametrize("attend", GROUPS, ids=str)
def test_a_policy_sees_what_its_encoder_sees_of_such_groups(attend: Any) -> None:
    """Its tokens are the encoder's; where they stand and how many there are does not change."""
    plain, _ = small_policy()
    model, tokenizer = small_policy(attend=attend)
    packed = PackedPatches.pack([KEPT])
    with torch.no_grad():
        tokens = model.encoder([KEPT], attend)[0]
        got = model.embed_patches(packed)
        assert torch.equal(got, model.projector.embed(tokens, packed))
        assert (got - plain.embed_patches(packed)).abs().max() > 1e-3
        assert torch.equal(got, model.embed_patches(replace(packed, attend=attend)))
    assert model.slots(packed).counts == plain.slots(packed).counts
    assert torch.equal(model.slots(packed).ranks, plain.slots(packed).ranks)
    inputs = EntropyVLMProcessor.for_model(model, tokenizer)(text="<video> is the circle red ?", videos=VIDEO)
    assert inputs["patches"].attend == attend
    told, own = (model.positions(inputs["input_ids"], patches=one) for one in (inputs["patches"], packed))
    assert torch.equal(told, own) and int((inputs["input_ids"] == model.config.image_token_id).sum()) == len(KEPT)
    with torch.no_grad():
        answers = [model(inputs["input_ids"], patches=one).logits for one in (inputs["patches"], packed)]
    assert torch.equal(*answers)


def test_it_is_saved_with_the_policy_and_its_processor(tmp_path: Path) -> None:
    model, tokenizer = small_policy(attend=2)
    model.save_pretrained(tmp_path)
    EntropyVLMProcessor.for_model(model, tokenizer).save_pretrained(tmp_path)
    again, processor = load_policy(tmp_path), EntropyVLMProcessor.from_pretrained(tmp_path)
    assert (again.config.attend, processor.attend) == (2, 2)
    with torch.no_grad():
        packed = PackedPatches.pack([KEPT])
        assert torch.equal(again.embed_patches(packed), model.embed_patches(packed))
    with pytest.raises(UsageError, match="the policy takes attend=2, not 4"):
        EntropyVLMProcessor.for_model(model, tokenizer, attend=4)


def test_a_pack_that_says_it_itself_keeps_it() -> None:
    model, _ = small_policy(attend=2)
    whole = PackedPatches.pack([KEPT], "input")
    assert whole.attending(2) is whole and PackedPatches.pack([KEPT]).attending(2).attend == 2
    with torch.no_grad():
        tokens = model.encoder([KEPT], "input")[0]
        assert torch.equal(model.embed_patches(whole), model.projector.embed(tokens, whole))


@pytest.mark.parametrize("attend", GROUPS, ids=str)
def test_prices_are_those_of_the_groups(attend: Any) -> None:
    model, _ = small_policy(attend=attend)
    packed = PackedPatches.pack([KEPT])
    counted = sum(count_flops(lambda: model.encoder([KEPT], attend)).values())
    bill = policy_flops(model, packed, 3, 2)
    assert bill["embed"] + bill["tower"] == counted > sum(count_flops(lambda: model.encoder([KEPT])).values())
    assert Prices.of(model).encode(packed) == counted + bill["project"]


def test_bench_measures_them(tmp_path: Path) -> None:
    media.write(tmp_path / "a.mp4", media.drifting(12, seed=1))
    asked = BenchOptions(model="ev-tiny-96", videos=tmp_path, selectors=("random",), keep=(0.25,), frames=5, repeats=1)
    frames, groups = (run_bench(replace(asked, attend=attend))["rows"] for attend in ("frame", "3"))
    config = small_policy()[0].encoder.config
    assert groups[0]["flops"] == tower_flops(config, [3 * 144, 2 * 144])
    assert frames[0]["flops"] == tower_flops(config, [144] * 5)
    assert groups[1]["tokens"] == frames[1]["tokens"] and groups[1]["flops"] > frames[1]["flops"]


def test_a_checkpoint_is_benched_and_trained_as_it_says(tmp_path: Path) -> None:
    model, tokenizer = small_policy(attend="input")
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    media.write(tmp_path / "a.mp4", media.drifting(12, seed=1))
    asked = BenchOptions(checkpoint=tmp_path, videos=tmp_path / "a.mp4", selectors=("random",), keep=(0.5,))
    dense = run_bench(replace(asked, frames=4, repeats=1, prompt=2, answer=1))["rows"][0]
    assert dense["flops"] == tower_flops(model.encoder.config, [4 * 144])
    frames = run_bench(replace(asked, frames=4, repeats=1, prompt=2, answer=1, attend="frame"))["rows"][0]
    assert frames["flops"] == tower_flops(model.encoder.config, [144] * 4)
    assert "--attend frame" in _command(replace(asked, attend="frame")) and "--attend" not in _command(asked)
    fresh, processor = new_policy(PolicyRecipe(width=32, layers=1, heads=2, attend="4"), DataRecipe(), 0)
    assert fresh.config.attend == processor.attend == 4


def test_eval_asks_a_policy_to_see_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = {"image_size": 96, "video_size": 64, "frame_count": 8, "difficulty": 0.3}
    model, tokenizer = small_policy(inputs=inputs, attend=2)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    asked: list[Any] = []

    class Asked(Exception):
        pass

    def measure(policy: Any, *_: Any, **__: Any) -> None:
        asked.append(policy.config.attend)
        raise Asked

    monkeypatch.setattr(evaluate, "measure", measure)
    for attend in ("frame", "4", None):
        with pytest.raises(Asked):
            evaluate.run_eval(EvalOptions(checkpoint=tmp_path, tasks=("count",), questions=1, attend=attend))
    assert asked == ["frame", 4, 2]


def test_a_recipe_that_forgets_the_quotes_is_shown_them(tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text("attend = 4\n")
    with pytest.raises(UsageError, match=r'attend must be a text, got a whole number .4.; write it in quotes, "4"'):
        load_config(tmp_path / "run.toml", PolicyRecipe)


@pytest.mark.parametrize("wrong", [0, "0", -1, "frames", True, "2.5"], ids=repr)
def test_what_is_no_group_is_refused_where_it_is_given(wrong: Any) -> None:
    with pytest.raises(UsageError, match='attend must be "frame", "input" or a count of frames'):
        small_policy(attend=wrong)
    if isinstance(wrong, str):
        for options in (BenchOptions, lambda attend: EvalOptions(checkpoint=Path(), attend=attend), PolicyRecipe):
            with pytest.raises(UsageError, match=r"attend must be"):
                options(attend=wrong)
    assert [read_attend(one) for one in ("frame", "input", "4", 4)] == ["frame", "input", 4, 4]
