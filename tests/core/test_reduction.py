"""Tokens reduced inside the tower or behind it, as a setting of a policy and by a selector's name."""

from __future__ import annotations

import json
from dataclasses import replace
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from entropy_vision import EntropyTokenizer, UsageError, evaluate
from entropy_vision.arguments import check_arguments
from entropy_vision.bench import run_bench
from entropy_vision.bill import answer_costs
from entropy_vision.budget import Budget
from entropy_vision.cost import count_flops
from entropy_vision.evaluate import measure, reducing, run_eval
from entropy_vision.options import BenchOptions, EvalOptions, ShowOptions
from entropy_vision.packed import PackedPatches
from entropy_vision.policy import EntropyVLM, EntropyVLMConfig, load_policy
from entropy_vision.policy_cost import Price, meta_decoder, policy_flops
from entropy_vision.processor import EntropyVLMProcessor
from entropy_vision.question import Answer
from entropy_vision.reduced import merged, pruned, reduced_counts
from entropy_vision.reduction import Choice, Reduction
from entropy_vision.rl.checkpoint import load_whole
from entropy_vision.rl.prepare import prepare
from entropy_vision.rl.recipe import TrainRecipe
from entropy_vision.rl.scenes import Ask, SceneMemory, Scored
from entropy_vision.text import prompt_ids
from tests.small_policy import noise_frames, small_policy

pytestmark = pytest.mark.usefixtures("steady")
KINDS = ("tome", "evs-features")
VIDEOS = (noise_frames(1, frames=5), noise_frames(2), noise_frames(3, frames=2, size=64))


def packed(keep: float = 0.5, merge: int = 1) -> PackedPatches:
    chooser = EntropyTokenizer(patch_size=8, keep=keep, merge=merge)
    return PackedPatches.pack([chooser(frames) for frames in VIDEOS])


def reducing_policy(kind: str, keep: float = 0.4, **settings: Any) -> tuple[EntropyVLM, Any]:
    return small_policy(reduction={"kind": kind, "keep": keep}, **settings)


@pytest.mark.parametrize("merge", [1, 2])
@pytest.mark.parametrize("attend", ["frame", 2])
@pytest.mark.parametrize("kind", KINDS)
def test_a_policy_reads_what_the_functions_give(kind: str, attend: Any, merge: int) -> None:
    """Same tokens at the same centres, and the counts are known before the tower runs."""
    model, _ = reducing_policy(kind, attend=attend)
    patches = packed(merge=merge)
    with torch.no_grad():
        own = patches.attending(attend)
        if kind == "tome":
            found = merged(model.encoder, own, 0.4)
        else:
            found = pruned(model.encoder.encode(own), own, 0.4)
        pairs = zip(patches.grids, found.counts, strict=True)
        extents = torch.tensor([grid for grid, count in pairs for _ in range(count)])
        expected = model.projector(found.tokens, (found.centres + 0.5) / extents)
        tokens, slots = model.look(patches)
    assert torch.equal(tokens, expected) and torch.equal(tokens, model.embed_patches(patches))
    assert slots.counts == found.counts == model.slot_counts(patches) == model.slots(patches).counts
    assert sum(slots.counts) < sum(patches.counts)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("keep", [0.05, 0.26, 0.5, 1.0])
def test_counts_are_exact_before_the_tower_runs(kind: str, keep: float) -> None:
    """As many as a budget of tokens would keep; of merged ones at least one a frame that has any."""
    patches = packed(0.2)
    frames = [len(set(one[:, 0].tolist())) for one in patches.split(patches.positions)]
    expected = tuple(
        max(1, round(keep * count), least if kind == "tome" else 0)
        for count, least in zip(patches.counts, frames, strict=True)
    )
    assert reduced_counts(patches, Reduction(kind, keep), 12) == expected  # type: ignore[arg-type]


@pytest.mark.parametrize("attend", ["frame", "input"])
def test_a_tower_reaches_whatever_number_of_tokens_it_is_asked_for(attend: Any) -> None:
    """Halving an odd number leaves more than half: the counts say so beforehand, for every length."""
    model, tokenizer = reducing_policy("tome", 0.25, attend=attend)
    processor = EntropyVLMProcessor.for_model(model, tokenizer)
    for tokens in range(1, 73):
        patches = processor(text="<image> ?", images=VIDEOS[1], budget=Budget(tokens=tokens))["patches"]
        (count,) = model.slot_counts(patches)
        assert count == max(round(tokens / 4), -(-tokens // 4)) == processor.placeholders(1, Budget(tokens=tokens))
        with torch.no_grad():
            assert len(model.embed_patches(patches)) == count
        ids = processor(text="<image> ?", images=VIDEOS[1], budget=Budget(tokens=tokens))["input_ids"]
        assert int((ids == model.config.image_token_id).sum()) == count
    for tokens in (5, 61, 179, 250, 360):
        patches = processor(text="<video> ?", videos=VIDEOS[0], budget=Budget(tokens=tokens))["patches"]
        with torch.no_grad():
            assert len(model.embed_patches(patches)) == model.slot_counts(patches)[0]
        assert processor.placeholders(5, Budget(tokens=tokens)) in (None, *model.slot_counts(patches))
    assert processor.placeholders(5, 1.0) == 5 * 36


def test_what_a_tower_never_reaches_is_refused_when_the_policy_is_made() -> None:
    with pytest.raises(UsageError, match=r"at most in each of 2 blocks: keep 0\.25 at the least, not 0\.2"):
        reducing_policy("tome", 0.2)
    _, tokenizer = small_policy()
    processor = EntropyVLMProcessor(tokenizer, 8, (96, 96), reduction={"kind": "tome", "keep": 0.5})
    with pytest.raises(UsageError, match="give the processor its number of blocks="):
        processor(text="<image> ?", images=VIDEOS[1])


@pytest.mark.parametrize(("attend", "least"), [("frame", 5), (2, 3), ("input", 2)])
def test_what_merges_together_keeps_one_at_least(attend: Any, least: int) -> None:
    model, _ = reducing_policy("tome", attend=attend)
    one_a_frame = PackedPatches.pack([EntropyTokenizer(8, budget=Budget(tokens=5))(VIDEOS[0])])
    assert model.slot_counts(one_a_frame) == model.slots(one_a_frame).counts == (least,)


@pytest.mark.parametrize("positions", ["shared", "grid", "sequential"])
@pytest.mark.parametrize("kind", KINDS)
def test_placeholders_fit_and_steps_equal_the_whole(kind: str, positions: str) -> None:
    """Of a processor's prompt; `forward`, `generate` and reading in steps say the same."""
    model, tokenizer = reducing_policy(kind, visual_positions=positions)
    processor = EntropyVLMProcessor.for_model(model, tokenizer, keep=0.5)
    inputs = processor(text="<video> how many red ?", videos=VIDEOS[0])
    ids, patches = inputs["input_ids"], inputs["patches"]
    holes = int((ids == model.config.image_token_id).sum())
    assert holes == model.slot_counts(patches)[0] == processor.placeholders(5) == Budget(keep=0.4).size(360)
    prompt = ids[:, holes:]
    with torch.no_grad():
        whole = model(ids, patches=patches).logits[0, -1]
        logits, _ = model.read(model.read_patches(patches), prompt, torch.ones_like(prompt, dtype=torch.bool))
        given, _ = model.read(
            model.read_patches(patches, model.embed_patches(patches)), prompt, torch.ones_like(prompt, dtype=torch.bool)
        )
    assert torch.allclose(whole, logits[0, -1], atol=1e-4) and torch.equal(logits, given)
    said = model.generate(**inputs, max_new_tokens=1, do_sample=False)
    assert int(said[0, -1]) == int(whole.argmax())
    with pytest.raises(UsageError, match="placeholders"):
        model(ids[:, 1:], patches=patches)


def test_what_is_left_keeps_its_place_among_all() -> None:
    """Rotary positions of "grid" are those of the tokens that stay: as where the others were never kept."""
    model, _ = reducing_policy("evs-features", visual_positions="grid")
    patches = packed()
    with torch.no_grad():
        found = pruned(model.encoder.encode(patches), patches, 0.4)
    ranks = model.slots(patches).ranks.split(list(found.counts))
    places = found.positions.split(list(found.counts))
    for rank, place, grid in zip(ranks, places, patches.grids, strict=True):
        assert rank.tolist() == [int(np.ravel_multi_index(tuple(one), grid)) for one in place.tolist()]
        assert rank.tolist() == sorted(set(rank.tolist()))
    assert model.slots(patches).totals == tuple(int(np.prod(grid)) for grid in patches.grids)


@pytest.mark.parametrize("kind", KINDS)
def test_all_of_them_are_all(kind: str) -> None:
    plain, _ = small_policy()
    model, _ = reducing_policy(kind, 1.0)
    with torch.no_grad():
        torch.testing.assert_close(model.embed_patches(packed()), plain.embed_patches(packed()), rtol=0, atol=1e-5)
    assert torch.equal(model.slots(packed()).ranks, plain.slots(packed()).ranks)


def test_settings_that_came_later_stand_last() -> None:
    """Whoever gives the older ones in their order still can."""
    assert tuple(signature(EntropyVLMConfig.__init__).parameters)[7:10] == ("inputs", "attend", "reduction")
    names = tuple(signature(EntropyVLMProcessor.__init__).parameters)
    assert names[11:16] == ("image_token", "chat_template", "attend", "reduction", "blocks")


def test_it_is_saved_and_goes_with_its_processor(tmp_path: Path) -> None:
    model, tokenizer = reducing_policy("evs-features", 0.5)
    model.save_pretrained(tmp_path)
    EntropyVLMProcessor.for_model(model, tokenizer).save_pretrained(tmp_path)
    again, processor = load_policy(tmp_path), EntropyVLMProcessor.from_pretrained(tmp_path)
    assert again.reduction == Reduction.read(processor.reduction) == Reduction("evs-features", 0.5)
    with torch.no_grad():
        assert torch.equal(again.embed_patches(packed()), model.embed_patches(packed()))
    with pytest.raises(UsageError, match="the policy takes reduction="):
        EntropyVLMProcessor.for_model(model, tokenizer, reduction=None)


def test_a_processor_follows_a_policy_that_came_to_merge() -> None:
    model, tokenizer = reducing_policy("evs-features", 0.5)
    processor = EntropyVLMProcessor.for_model(model, tokenizer)
    model.config.reduction = {"kind": "tome", "keep": 0.5}
    processor.follow(model)
    inputs = processor(text="<image> ?", images=VIDEOS[1])
    assert int((inputs["input_ids"] == model.config.image_token_id).sum()) == model.slot_counts(inputs["patches"])[0]


@pytest.mark.parametrize("blocks", [0, -1, 2.5, "2", True])
def test_a_count_of_blocks_is_one(blocks: Any) -> None:
    with pytest.raises(UsageError, match="blocks must be a whole number"):
        EntropyVLMProcessor(small_policy()[1], 8, (96, 96), blocks=blocks)


def test_a_checkpoints_processor_follows_its_policy(tmp_path: Path) -> None:
    """Whoever writes null into config.json, as training asks for, must not find the processor still reducing."""
    model, tokenizer = reducing_policy("evs-features", 0.5, attend=2)
    model.save_pretrained(tmp_path)
    EntropyVLMProcessor.for_model(model, tokenizer).save_pretrained(tmp_path)
    file = tmp_path / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"reduction": None, "attend": "frame"}))
    again, processor = load_whole(tmp_path)
    assert processor.reduction is None and processor.attend == "frame"
    again.generate(**processor(text="<image> ?", images=VIDEOS[1]), max_new_tokens=1, do_sample=False)
    alone = EntropyVLMProcessor.from_pretrained(tmp_path)
    said = r"processor\.reduction and attend .* differ from those of model\.config \(config\.json\), which are "
    with pytest.raises(UsageError, match=said + "None"):
        again.generate(**alone(text="<image> ?", images=VIDEOS[1]))
    with pytest.raises(UsageError, match=said + ".'kind'"):
        model(**processor(text="<image> ?", images=VIDEOS[1]))
    alone.follow(again)
    again.generate(**alone(text="<image> ?", images=VIDEOS[1]), max_new_tokens=1, do_sample=False)


@pytest.mark.parametrize(
    ("frames", "attend", "budget", "count"),
    [(1, "frame", 0.5, 29), (4, "frame", Budget(tokens=4), 4), (4, 2, Budget(tokens=4), 2), (4, "input", 0.5, 115)],
)
def test_merged_tokens_are_counted_before_decoding(frames: int, attend: Any, budget: Any, count: int) -> None:
    model, tokenizer = reducing_policy("tome", 0.4, attend=attend)
    processor = EntropyVLMProcessor.for_model(model, tokenizer)
    assert processor.placeholders(frames, budget) == count
    video = noise_frames(5, frames=frames)
    ids = processor(text="<video> ?", videos=video, budget=budget)["input_ids"]
    assert int((ids == model.config.image_token_id).sum()) == count
    known = attend == "input"  # else some frames keep none, and nobody knows which
    assert processor.placeholders(8, Budget(tokens=4)) == (2 if known else None)


# ---- by name ----------------------------------------------------------------------------------------------------


def test_a_name_says_what_goes_in_and_what_comes_out() -> None:
    assert Choice.of("rate", 0.25) == Choice("rate", 0.25, None)
    assert Choice.of("tome", 0.25) == Choice("uniform", 1.0, Reduction("tome", 0.25))
    assert Choice.of("rate+evs-features", 0.25) == Choice("rate", 0.5, Reduction("evs-features", 0.5))
    assert Choice.of("random+tome", 1.0) == Choice("random", 1.0, None)
    for wrong, said in (
        ("rate+evs", "nearest is 'evs-features'"),
        ("tome+evs-features", "write the selector first"),
        ("rate+random", "random is a selector, and behind the plus stands what reduces: tome or evs-features"),
        ("rate+tome+tome", "nearest is 'tome'"),
    ):
        with pytest.raises(UsageError, match=said):
            Choice.of(wrong, 0.5)
    for given in ({"kind": "tome"}, {"kind": "tome", "keep": 0.0}, {"kind": "tom", "keep": 0.5}, "tome"):
        with pytest.raises(UsageError):
            small_policy(reduction=given)


def test_a_command_line_is_looked_up_before_anything_is_loaded() -> None:
    """`show` and `preprocess` run no tower: there such a name is none."""
    check_arguments(BenchOptions(selectors=("rate", "tome", "random+evs-features")))
    for wrong, said in (("rate+evs", "nearest is 'evs-features'"), ("rat+tome", "no selector 'rat'")):
        with pytest.raises(UsageError, match=said):
            check_arguments(BenchOptions(selectors=(wrong,)))
    with pytest.raises(UsageError, match=r"no selector 'rat': .*bench and eval also take tome and evs-features"):
        check_arguments(BenchOptions(selectors=("rat",)))
    with pytest.raises(UsageError, match="no selector 'tome': that reduces tokens in a tower, which bench, eval"):
        check_arguments(ShowOptions(source=Path("a.mp4"), out=Path("out"), selector=("tome",)))


def scenes(count: int = 3) -> list[Scored]:
    ask = Ask("key", "count", "how many red ?", Answer("integer", 1), "<think> none </think> <answer> 1 </answer>")
    chooser = EntropyTokenizer(patch_size=8, keep=1.0)
    return [Scored(f, chooser.score(f), (ask,), ()) for f in (noise_frames(i, frames=2, size=64) for i in range(count))]


def test_a_policy_is_measured_by_their_names() -> None:
    """Every cell is what the policy answers that is set so by hand, and its tokens are those that come out."""
    model, tokenizer = small_policy()
    names = ("rate", "tome", "evs-features", "rate+evs-features")
    found = measure(model, tokenizer, {"count": scenes()}, keeps=(1.0, 0.25), selectors=names, max_new_tokens=12)
    assert model.config.reduction is None
    assert {name: found.graded[name, 0.25].tokens.tolist() for name in names} == dict.fromkeys(names, [32] * 3)
    assert [found.graded[name, 1.0] for name in names] == [found.graded["rate", 1.0]] * 4
    for name, keep, kind, left in (
        ("tome", 0.999, "tome", 0.25),  # every patch: at 1 a policy would be dense
        ("evs-features", 0.999, "evs-features", 0.25),
        ("rate+evs-features", 0.5, "evs-features", 0.5),
    ):
        own, _ = reducing_policy(kind, left)
        own.load_state_dict(model.state_dict())
        by_hand = measure(own, tokenizer, {"count": scenes()}, keeps=(keep,), selectors=("rate",), max_new_tokens=12)
        assert by_hand.graded["rate", keep].completions == found.graded[name, 0.25].completions
    told = {found.graded[name, 0.25].completions for name in names} | {found.graded["rate", 1.0].completions}
    assert len(told) > 2  # they do say different things


def test_a_policy_is_reduced_for_a_while_only() -> None:
    model, _ = reducing_policy("tome", 0.5)
    with pytest.raises(RuntimeError), reducing(model, Reduction("evs-features", 0.25)):
        assert model.reduction == Reduction("evs-features", 0.25)
        raise RuntimeError
    with reducing(model, None):
        assert model.reduction is None
    assert model.reduction == Reduction("tome", 0.5)


def test_eval_takes_them_of_a_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = {"image_size": 96, "video_size": 64, "frame_count": 8, "difficulty": 0.3}
    model, tokenizer = small_policy(inputs=inputs)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    asked = EvalOptions(checkpoint=tmp_path, tasks=("count",), questions=2, keep=(1.0, 0.25))
    names = ("rate", "tome", "rate+evs-features")
    result = run_eval(replace(asked, selectors=names))
    assert tuple(result["selectors"]) == names
    assert all(result["selectors"][name]["all"]["0.25"]["n"] == 2 for name in names)
    monkeypatch.setattr(evaluate, "measure", None)  # what cannot be done is told before anything is asked
    with pytest.raises(UsageError, match=r"at most in each of 2 blocks: keep 0\.25 at the least, not 0\.1"):
        run_eval(replace(asked, selectors=("rate", "tome"), keep=(0.1,)))
    with pytest.raises(UsageError, match="nearest is 'evs-features'"):
        run_eval(replace(asked, selectors=("rate", "rate+evs")))


def test_eval_of_a_policy_that_reduces_itself_refuses_them_before_anything_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = {"image_size": 96, "video_size": 64, "frame_count": 8, "difficulty": 0.3}
    model, tokenizer = reducing_policy("evs-features", 0.5, inputs=inputs)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    monkeypatch.setattr(evaluate, "measure", None)
    with pytest.raises(UsageError, match="reduces its tokens itself"):
        run_eval(EvalOptions(checkpoint=tmp_path, tasks=("count",), questions=2, selectors=("rate", "tome")))


def test_bench_bills_them_from_the_first_patch_to_the_answer(tmp_path: Path) -> None:
    model, tokenizer = small_policy()
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    names = ("rate", "rate+evs-features", "evs-features", "tome")
    asked = BenchOptions(checkpoint=tmp_path, selectors=names, keep=(0.25,), frames=4, repeats=1, prompt=4, answer=2)
    dense, rate, both, evs, tome = run_bench(asked)["rows"]
    assert rate["tokens"] == both["tokens"] == evs["tokens"] == tome["tokens"] == dense["tokens"] // 4
    assert rate["bytes"] * 2 == both["bytes"] and evs["bytes"] == tome["bytes"] == dense["bytes"]
    assert rate["flops"] < both["flops"] < tome["flops"] < evs["flops"] == dense["flops"]
    for stage in ("project", "prefill", "decode"):
        bills = [row["stages"][stage]["flops"] for row in (rate, both, evs, tome)]
        assert len(set(bills)) == 1 and bills[0] < dense["stages"][stage]["flops"]
        assert all(row["stages"][stage]["seconds"] > 0 for row in (rate, both, evs, tome))


def test_bench_of_a_policy_that_reduces_itself_is_dense_where_it_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, tokenizer = reducing_policy("evs-features", 0.5)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    asked = BenchOptions(checkpoint=tmp_path, selectors=("random",), keep=(1.0, 0.5), frames=4, repeats=1, answer=2)
    dense, all_of_them, half = run_bench(asked)["rows"]
    assert dense["tokens"] == all_of_them["tokens"] == 4 * half["tokens"]  # half of the patches, half of their tokens
    assert dense["bytes"] == 2 * half["bytes"] and dense["flops_prefill"] > 3 * half["flops_prefill"]
    monkeypatch.setattr(EntropyTokenizer, "__call__", None)  # refused before anything is selected
    for names in ({"selectors": ("random", "tome")}, {"inside": ("evs-features",)}):
        with pytest.raises(
            UsageError, match=r"reduces its tokens itself .evs-features, keep 0\.5.*\"reduction\": null"
        ):
            run_bench(replace(asked, **names))


def test_dense_answers_of_a_policy_that_reduces_itself_are_those_without(tmp_path: Path) -> None:
    plain, tokenizer = small_policy()
    model, _ = reducing_policy("evs-features", 0.25)
    model.load_state_dict(plain.state_dict())
    asked: dict[str, Any] = {"keeps": (1.0, 0.5), "selectors": ("rate",), "max_new_tokens": 12}
    own = measure(model, tokenizer, {"count": scenes()}, **asked)
    without = measure(plain, tokenizer, {"count": scenes()}, **asked)
    assert own.graded["rate", 1.0].completions == without.graded["rate", 1.0].completions
    assert (
        own.graded["rate", 0.5].tokens.tolist() == [16] * 3 and without.graded["rate", 0.5].tokens.tolist() == [64] * 3
    )
    with pytest.raises(UsageError, match="reduces its tokens itself"):
        measure(model, tokenizer, {"count": scenes()}, keeps=(0.5,), selectors=("tome",))


@pytest.mark.parametrize("positions", ["shared", "grid", "sequential"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_policy_is_billed_for_what_is_left(kind: str, positions: str) -> None:
    model, tokenizer = reducing_policy(kind, visual_positions=positions)
    cost = answer_costs(model, tokenizer, scenes(2), [("rate", 0.5)], repeats=1)["rate", 0.5]
    assert cost.tokens == 2 * 26  # .4 of .5 of 128
    dense = answer_costs(model, tokenizer, scenes(2), [("rate", 1.0)], repeats=1)["rate", 1.0]
    assert dense.tokens == 2 * 128 and dense.flops["prefill"] > 3 * cost.flops["prefill"]
    with pytest.raises(UsageError, match="reduces its tokens itself"):
        answer_costs(model, tokenizer, scenes(2), [("rate+tome", 0.5)], repeats=1)
    chooser = EntropyTokenizer(patch_size=8, keep=0.5, selector="rate")
    patches = PackedPatches.pack([chooser(one.frames) for one in scenes(2)])
    bill = policy_flops(model, patches, len(prompt_ids(tokenizer, "how many red ?")), 1)
    for stage in ("embed", "tower", "project"):
        assert bill[stage] == cost.flops[stage]
    price = Price.of(meta_decoder(model.config.get_text_config()))
    asked = len(prompt_ids(tokenizer, "how many red ?")) - 1  # the last token is the answer's first step
    assert cost.flops["prefill"] == 2 * (price(26) + price(asked, 26) - 2 * price.head)
    with torch.no_grad():
        hidden = model.encoder.embed(patches)
        assert bill["tower"] == sum(count_flops(lambda: model.see(patches, hidden)).values())


def test_training_refuses_a_policy_that_reduces(tmp_path: Path) -> None:
    model, tokenizer = reducing_policy("evs-features")
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(UsageError, match=r'train it with "reduction": null in its config\.json'):
        prepare(TrainRecipe(stage="grpo", init=str(tmp_path), out=str(tmp_path / "run")), None, tmp_path, SceneMemory())
