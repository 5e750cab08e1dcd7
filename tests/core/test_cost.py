from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from itertools import accumulate
from typing import Any

import pytest
import torch
from oracles_encoder import images_of, make_patchset, qwen2_flops, qwen2_step_flops, tower_step_flops
from small_tower import FAMILIES
from torch.utils.flop_counter import FlopCounterMode
from transformers import Qwen2Config, Qwen2ForCausalLM

from entropy_vision import cost, measure
from entropy_vision.cost import (
    Cost,
    CostReport,
    UncountedAttention,
    _attention_backward_flops,
    _attention_flops,
    _missing_formulas,
    _varlen_backward_flops,
    _varlen_flops,
    count_flops,
    measure_interleaved,
    measure_peak_memory,
    measure_seconds,
    tower_flops,
)
from entropy_vision.encoder import VisionEncoder
from entropy_vision.errors import UsageError
from entropy_vision.measure import measure_stages
from entropy_vision.packed import PackedPatches
from entropy_vision.policy_cost import meta_language

pytestmark = pytest.mark.usefixtures("steady")


def total(counts: dict[str, int]) -> int:
    return sum(counts.values())


# --- FLOPs


@pytest.mark.parametrize("gradients", [True, False])
@pytest.mark.parametrize("counts", [(144,), (36, 36, 36), (7, 144, 0, 1)], ids=str)
def test_counted_flops_of_the_tower_equal_the_closed_form(counts: tuple[int, ...], gradients: bool) -> None:
    encoder = VisionEncoder("ev-tiny-96").eval()
    kept = make_patchset((len(counts), 12, 12), 8, counts)
    with torch.set_grad_enabled(gradients):
        counted = total(count_flops(lambda: encoder([kept])))
    assert counted == tower_flops(encoder.config, [count for count in counts if count])


@pytest.mark.parametrize("gradients", [True, False])
@pytest.mark.parametrize("heads", [1, 2])
def test_counted_flops_of_every_patch_equal_open_clips_own_forward(gradients: bool, heads: int) -> None:
    """Without gradients and with an even number of heads, torch runs the whole attention as one kernel."""
    config = VisionEncoder("ev-tiny-96").config
    encoder = VisionEncoder.from_config(config | {"vision_cfg": config["vision_cfg"] | {"head_width": 96 // heads}})
    encoder = encoder.eval()
    kept = make_patchset((2, 12, 12), 8, [144, 144])
    images = images_of(kept, encoder.mean, encoder.std)
    expected = tower_flops(encoder.config, [144, 144]) + 2 * 2 * 96 * 64  # its projection of the class token
    with torch.set_grad_enabled(gradients):
        assert total(count_flops(lambda: encoder.tower(images))) == expected


def test_tower_flops_of_vit_b_32_are_the_published_ones() -> None:
    config = {"vision_cfg": {"image_size": 224, "layers": 12, "width": 768, "patch_size": 32}}
    assert tower_flops(config, [49]) / 2e9 == pytest.approx(4.41, abs=0.005)  # open_clip's profile: 4.41 GMACs


def test_a_tower_is_counted_without_being_computed_on_meta() -> None:
    config = VisionEncoder("ev-tiny-96").config
    with torch.device("meta"):
        encoder = VisionEncoder.from_config(config)
    kept = make_patchset((2, 12, 12), 8, [36, 3])
    assert total(count_flops(lambda: encoder.encode(PackedPatches.pack([kept])))) == tower_flops(config, [36, 3])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("counts", [(1,), (36, 9), (144,)], ids=str)
@pytest.mark.parametrize("family", ["open_clip", "siglip", "class-registers", "eva01", "eva02", "perception"])
def test_counted_flops_of_a_step_equal_the_closed_form(family: str, counts: tuple[int, ...], dtype: Any) -> None:
    encoder = FAMILIES[family]().to(dtype)
    kept = make_patchset((len(counts), 12, 12), 8, counts)
    counted = total(count_flops(lambda: encoder([kept])[0].float().sum().backward()))
    assert counted == tower_step_flops(encoder, counts)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("groups", [4, 2])
@pytest.mark.parametrize("length", [1, 33, 128])
def test_counted_flops_of_a_language_model_equal_the_closed_form(
    attention: str, groups: int, length: int, dtype: Any
) -> None:
    config = Qwen2Config(
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=groups,
        intermediate_size=96,
        vocab_size=100,
        attn_implementation=attention,
    )
    model = Qwen2ForCausalLM(config).eval().to(dtype)
    tokens = torch.zeros(2, length, dtype=torch.long)
    with torch.no_grad():
        assert total(count_flops(lambda: model(tokens, use_cache=False))) == qwen2_flops(config, length, 2)

    def step() -> None:
        model(tokens, use_cache=False).logits.float().sum().backward()

    assert total(count_flops(step)) == qwen2_step_flops(config, length, 2)


def test_the_parts_of_a_count_sum_to_the_whole() -> None:
    encoder = VisionEncoder("ev-tiny-96").eval()
    first, second = make_patchset((1, 12, 12), 8, [30]), make_patchset((2, 12, 12), 8, [9, 80])
    together = count_flops(lambda: encoder([first, second]))
    apart = [count_flops(lambda one=one: encoder([one])) for one in (first, second)]
    assert together == {name: apart[0][name] + apart[1][name] for name in together}


def test_doubling_what_is_kept_doubles_linear_and_quadruples_attention_flops() -> None:
    encoder = VisionEncoder("ev-tiny-96").eval()
    short, long = (
        count_flops(lambda count=count: encoder([make_patchset((1, 12, 12), 8, [count])])) for count in (35, 71)
    )
    assert long["aten.addmm"] == 2 * short["aten.addmm"]
    name = next(name for name in short if "attention" in name)
    assert long[name] == 4 * short[name]


@pytest.mark.parametrize("shape", [(2, 4, 9, 16), (1, 2, 33, 8)], ids=str)
def test_own_attention_formulas_equal_the_counters_where_it_has_them(shape: tuple[int, ...]) -> None:
    query, key, value = (torch.randn(shape, requires_grad=True) for _ in range(3))

    def run() -> None:
        torch.nn.functional.scaled_dot_product_attention(query, key, value).sum().backward()

    forward, backward = cost._attention_flops(shape, shape, shape), cost._attention_backward_flops(*[shape] * 4)
    batch, heads, rows, width = shape
    assert forward == 4 * batch * heads * rows * rows * width
    assert backward == 5 * forward // 2
    counted = {name: flops for name, flops in count_flops(run).items() if "attention" in name}
    assert sorted(counted.values()) == [forward, backward]


def test_an_old_counter_is_completed(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch.utils import flop_counter

    kept = make_patchset((1, 12, 12), 8, [36])
    encoder = VisionEncoder("ev-tiny-96").eval()
    known = {op: formula for op, formula in flop_counter.flop_registry.items() if "for_cpu" not in str(op)}
    monkeypatch.setattr(flop_counter, "flop_registry", known)
    assert len(cost._missing_formulas()) == 3
    assert total(count_flops(lambda: encoder([kept]))) == tower_flops(encoder.config, [36])
    monkeypatch.setattr(cost, "_missing_formulas", dict)
    with pytest.raises(UncountedAttention, match="for_cpu"):
        count_flops(lambda: encoder([kept]))


def test_an_attention_kernel_without_a_formula_is_refused() -> None:
    @torch.library.custom_op("entropy_vision_tests::home_made_attention", mutates_args=())
    def home_made_attention(query: torch.Tensor) -> torch.Tensor:
        return query @ query.T @ query

    with pytest.raises(UncountedAttention, match="home_made_attention"):
        count_flops(lambda: home_made_attention(torch.randn(3, 4)))


@pytest.mark.parametrize("backward", [False, True])
def test_segments_of_any_lengths_count_as_each_alone_does(backward: bool) -> None:
    """The kernel runs on accelerators only; its formula is held to that of the batched one, segment by segment, and to
    torch's own, which versions before 2.14 lack."""
    lengths, heads, width = [3, 1, 7, 7], 4, 16
    starts = torch.tensor([0, *accumulate(lengths)], dtype=torch.int32)
    rows = torch.empty(sum(lengths), heads, width)
    alone = [[1, heads, length, width] for length in lengths]
    if backward:
        given: tuple[Any, ...] = (rows, rows, rows, rows, rows, rows, starts, starts, 7, 7, False)
        mine, kernel = _varlen_backward_flops(*given), "_varlen_attn_backward"
        assert mine == sum(_attention_backward_flops(one, one, one, one) for one in alone)
    else:
        given = (rows, rows, rows, starts, starts, 7, 7)
        mine, kernel = _varlen_flops(*given), "_varlen_attn"
        assert mine == sum(_attention_flops(one, one, one) for one in alone)
    counter = FlopCounterMode(display=False, custom_mapping=_missing_formulas())
    assert counter.flop_registry[getattr(torch.ops.torch_attn, kernel)](*given, out_val=rows) == mine


def test_a_counter_knows_a_kernel_before_it_is_first_used() -> None:
    """The encoder imports it when an accelerator asks; what is counted may be the first time."""
    known = "from entropy_vision.cost import count_flops; import torch; "
    known += "count_flops(lambda: print(hasattr(torch.ops.torch_attn, '_varlen_attn')))"
    assert subprocess.run([sys.executable, "-c", known], capture_output=True, text=True).stdout == "True\n"


def test_experts_are_not_passed_over_in_silence() -> None:
    @torch.library.custom_op("entropy_vision_tests::home_made_grouped_mm", mutates_args=())
    def home_made_grouped_mm(query: torch.Tensor) -> torch.Tensor:
        return query @ query.T

    with pytest.raises(UncountedAttention, match="grouped_mm"):
        count_flops(lambda: home_made_grouped_mm(torch.randn(3, 4)))
    with pytest.raises(UsageError, match="'qwen3_moe' sends its tokens to experts, which is not counted"):
        meta_language("qwen3_moe")
    with pytest.raises(UsageError, match="'deepseek_v3' keeps something else in its memory"):
        meta_language("deepseek_v3")


# --- seconds and memory


def test_seconds_are_the_median_and_quartiles_of_the_repeats(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, lasts = [0.0], iter([50.0, 1.0, 2.0, 4.0, 8.0, 16.0])  # the first one is the warm-up

    def run() -> None:
        clock[0] += next(lasts)

    monkeypatch.setattr(measure.time, "perf_counter", lambda: clock[0])
    timing = measure_seconds(run, repeats=5)
    assert (timing.median, timing.low, timing.high, timing.spread, timing.repeats) == (4.0, 2.0, 8.0, 6.0, 5)


def test_interleaved_jobs_take_turns() -> None:
    order: list[str] = []
    timings = measure_interleaved({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, 2, warmup=1)
    assert order == ["a", "b"] * 3 and set(timings) == {"a", "b"}
    assert measure_seconds(lambda: None, repeats=1).spread == 0
    with pytest.raises(UsageError, match="repeats"):
        measure_seconds(lambda: None, repeats=0)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_peak_memory_sees_what_a_job_takes_for_a_while_every_time() -> None:
    def run() -> None:
        torch.ones(24 * 2**20, dtype=torch.uint8)

    peaks = [measure_peak_memory(run) for _ in range(2)]
    if None in peaks:
        pytest.skip("this system does not reset the high-water mark")
    for peak in peaks:
        assert peak is not None and 23 * 2**20 <= peak < 40 * 2**20
    nothing = measure_peak_memory(lambda: None)
    assert nothing is not None and nothing < 4 * 2**20


# --- the bill


def bill(**changes: Any) -> Cost:
    return Cost(**({"tokens": 400, "flops": {"encode": 8, "prefill": 4}, "seconds": {"encode": 3.0}} | changes))


def test_a_report_gives_ratios_above_one_for_savings_and_charges_the_selection() -> None:
    kept = bill(tokens=100, flops={"encode": 2, "prefill": 1}, seconds={"select": 0.5, "encode": 1.0})
    report = CostReport.compare(bill(), kept)
    assert (report.tokens_dense, report.tokens_kept) == (400, 100)
    assert CostReport.compare(bill(joules=4.5), kept).to_dict()["joules_dense"] == 4.5
    assert report.flops_ratio == 4 and report.wall_ratio == 2
    content = json.loads(json.dumps(report.to_dict()))
    assert content["seconds_kept"] == {"select": 0.5, "encode": 1.0} and content["wall_ratio"] == 2


def test_a_cost_tells_its_stages_in_the_order_of_a_job() -> None:
    cost = bill(
        flops={"decode": 3, "embed": 1, "other": 2},
        seconds={"other": 5.0, "decode_video": 4.0, "select": 1.0, "embed": 2.0},
        quartiles={"select": (0.5, 1.5)},
    )
    unknown = {"low": None, "high": None}
    assert list(cost.stages()) == ["decode_video", "select", "embed", "decode", "other"]
    assert cost.stages()["select"] == {"flops": 0, "seconds": 1.0, "low": 0.5, "high": 1.5}
    assert cost.stages()["embed"] == {"flops": 1, "seconds": 2.0} | unknown
    assert cost.stages()["decode"] == {"flops": 3, "seconds": None} | unknown
    content = json.loads(json.dumps(CostReport.compare(bill(), cost).to_dict()))
    assert content["quartiles_kept"] == {"select": [0.5, 1.5]} and content["quartiles_dense"] == {}


@pytest.mark.parametrize("quartiles", [{"embed": (1.0, 1.0)}, {"encode": (3.1, 4.0)}, {"encode": (1.0, 2.9)}], ids=str)
def test_quartiles_are_around_the_median_of_their_stage(quartiles: dict[str, tuple[float, float]]) -> None:
    with pytest.raises(ValueError, match="quartiles"):
        bill(quartiles=quartiles)


def test_laps_of_a_chain_are_timed_where_they_happen(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, told = [0.0], []
    monkeypatch.setattr(measure.time, "perf_counter", lambda: clock[0])

    def takes(seconds: float, gives: str) -> Callable[[Any], str]:
        def run(given: Any) -> str:
            told.append(given)
            clock[0] += seconds
            return gives

        return run

    laps = measure_stages({"a": {"one": takes(1, "x"), "two": takes(2, "y")}, "b": {"one": takes(4, "z")}}, 2, 1)
    assert laps == {"a": {"one": [1, 1], "two": [2, 2]}, "b": {"one": [4, 4]}}
    assert told == [None, "x", None] * 3


def test_a_report_without_the_price_of_selection_is_refused() -> None:
    with pytest.raises(UsageError, match="select"):
        CostReport.compare(bill(), bill())


@pytest.mark.parametrize(
    "changes", [{"tokens": -1}, {"flops": {}}, {"seconds": {"encode": 0.0}}, {"bytes": -1}, {"joules": -1.0}], ids=str
)
def test_a_cost_without_flops_or_seconds_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="cost"):
        bill(**changes)
