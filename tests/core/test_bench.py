from __future__ import annotations

import base64
import json
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import media
import numpy as np
import pytest
import torch
from PIL import Image

from entropy_vision import bench, bench_page
from entropy_vision.answering import Answering
from entropy_vision.bench import read_videos, run_bench
from entropy_vision.console import as_json
from entropy_vision.cost import STAGES, count_flops
from entropy_vision.encoder import VisionEncoder
from entropy_vision.errors import InputError, UsageError
from entropy_vision.evaluate import run_eval
from entropy_vision.options import BenchOptions, EvalOptions
from entropy_vision.packed import PackedPatches
from entropy_vision.selection import selectors
from entropy_vision.tokenizer import EntropyTokenizer
from tests.small_policy import small_policy

pytestmark = pytest.mark.usefixtures("steady")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two videos, an image, a file that is none, a hidden one."""
    root = tmp_path_factory.mktemp("videos")
    (root / "deeper").mkdir()
    media.write(root / "b.mp4", media.drifting(12, seed=1))
    media.write(root / "deeper" / "a.mp4", media.drifting(3, seed=2))
    Image.fromarray(media.drifting(1, seed=3)[0]).save(root / "c.png")
    (root / "notes.txt").write_text("no video")
    (root / ".hidden.mp4").write_bytes(b"no video")
    return root


def options(**changes: Any) -> BenchOptions:
    small: dict[str, Any] = {"model": "ev-tiny-96", "keep": (0.5, 0.125), "selectors": ("random", "uniform")}
    return BenchOptions(**(small | {"frames": 4, "repeats": 1} | changes))


def test_rows_hold_every_selector_at_every_keep_with_dense_first(folder: Path, tmp_path: Path) -> None:
    result = run_bench(options(videos=folder, out=tmp_path, repeats=3))
    page = result["report"].read_text()
    assert "Left out" in page and "notes.txt" in page and "faster as a whole" in page
    for row in result["rows"]:
        bill = row["stages"]["decode_video"]
        assert f"{bill['seconds']:.3g} ({bill['low']:.3g} to {bill['high']:.3g})" in page
        assert f"<td class=n>{row['wall_ratio_whole']:.2f}</td>" in page
    rows = result["rows"]
    assert [(row["selector"], row["keep"]) for row in rows] == [
        ("dense", 1.0),
        ("random", 0.5),
        ("random", 0.125),
        ("uniform", 0.5),
        ("uniform", 0.125),
    ]
    frames = 4 + 3 + 1
    assert (result["videos"], result["frames"], list(result["failed"])) == (3, frames, ["notes.txt"])
    assert [row["tokens"] for row in rows] == [frames * n for n in (144, 72, 18, 72, 18)]
    for row in rows:
        assert row["bytes"] == row["tokens"] * 8 * 8 * 3
        assert row["seconds_select"] > 0 and row["seconds_encode"] > 0 and row["seconds_spread"] >= 0
        assert row["accuracy"] is None
        dense = rows[0]["seconds_select"] + rows[0]["seconds_encode"]
        assert row["wall_ratio"] == dense / (row["seconds_select"] + row["seconds_encode"])
        assert row["flops_ratio"] == rows[0]["flops"] / row["flops"]
        assert tuple(row["stages"]) == ("decode_video", "select", "embed", "tower")
        assert row["stages"]["embed"]["flops"] + row["stages"]["tower"]["flops"] == row["flops"]
    assert len(result["stages"]) == 5 * 4 and result["stages"][1] == (
        {"selector": "dense", "keep": 1.0, "stage": "select"} | rows[0]["stages"]["select"]
    )
    json.loads(as_json(result))


def test_flops_of_a_row_are_those_that_the_tower_runs(folder: Path) -> None:
    row = run_bench(options(videos=folder, selectors=("random",), keep=(0.3,)))["rows"][1]
    videos = read_videos(folder, 4, (96, 96))
    tokenizer = EntropyTokenizer(patch_size=8, keep=0.3, selector="random", seed=0)
    kept = [tokenizer(frames) for frames in videos.frames]
    encoder = VisionEncoder("ev-tiny-96")
    assert row["flops"] == sum(count_flops(lambda: encoder(kept)).values())
    assert row["tokens"] == sum(map(len, kept))


def test_what_reduces_inside_the_tower_takes_all_and_gives_fewer(folder: Path) -> None:
    result = run_bench(options(videos=folder, selectors=("random",), inside=("tome", "evs-features"), keep=(0.3,)))
    dense, random, tome, evs = result["rows"]
    assert [row["selector"] for row in result["rows"]] == ["dense", "random", "tome", "evs-features"]
    assert tome["tokens"] == evs["tokens"] == random["tokens"]
    assert tome["bytes"] == evs["bytes"] == dense["bytes"]
    assert evs["flops"] == dense["flops"] > tome["flops"] > random["flops"]


def test_selection_that_takes_long_is_charged(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rounds = iter(range(1, 100))

    def measured(chains: dict[int, Any], repeats: int, on_job: Any) -> dict[int, dict[str, list[float]]]:
        assert [list(chain) for chain in chains.values()] == [["decode_video"], *[["select", "embed", "tower"]] * 2]
        return {
            number: {stage: [lap + 0.0, lap + 3.0, lap + 30.0] for stage, lap in zip(chain, rounds, strict=False)}
            for number, chain in chains.items()
        }

    monkeypatch.setattr(bench, "measure_stages", measured)
    dense, kept = run_bench(options(videos=folder, selectors=("random",), keep=(0.5,)))["rows"]
    stages = {stage: bill["seconds"] for stage, bill in dense["stages"].items()}
    assert stages == {"decode_video": 4, "select": 5, "embed": 6, "tower": 7}
    assert (dense["seconds_select"], dense["seconds_encode"]) == (5, 6 + 7)
    assert kept["wall_ratio"] == (5 + 13) / (8 + 19) and kept["wall_ratio_whole"] == 22 / 31
    assert dense["stages"]["select"] == {"flops": 0, "seconds": 5, "low": 3.5, "high": 18.5}
    assert dense["seconds_spread"] == 15 + 30


def test_a_bill_goes_from_the_file_to_the_answer_of_a_policy(folder: Path, tmp_path: Path) -> None:
    """FLOPs in closed form equal what is counted as each stage runs; every stage has its seconds and quartiles."""
    from entropy_vision.bill import flops_of

    model, tokenizer = small_policy()
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    asked = options(videos=folder, checkpoint=tmp_path, selectors=("random",), keep=(0.25,), repeats=3)
    asked = replace(asked, prompt=6, answer=3)
    for row in run_bench(asked)["rows"]:
        assert tuple(row["stages"]) == STAGES
        for bill in row["stages"].values():
            assert 0 < bill["low"] <= bill["seconds"] <= bill["high"]
        tokenizer = EntropyTokenizer(8, keep=row["keep"], selector="uniform" if row["keep"] == 1 else "random", seed=0)
        packed = PackedPatches.pack([tokenizer(frames) for frames in read_videos(folder, 4, (96, 96)).frames])
        answering = Answering(model, 6, 3)
        chain = {
            "embed": lambda _, packed=packed: model.encoder.embed(packed),
            "tower": partial(model.see, packed),
            **answering.chain,
        }
        counted = {"decode_video": 0, "select": 0, **flops_of(chain)}
        assert {stage: bill["flops"] for stage, bill in row["stages"].items()} == counted
        assert row["seconds_whole"] == sum(bill["seconds"] for bill in row["stages"].values())
        assert (row["flops_prefill"], row["flops_decode"]) == (counted["prefill"], counted["decode"])


def test_joules_are_those_of_the_machine_or_told_to_be_none(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = options(videos=folder, selectors=("random",), keep=(0.5,), energy=True, repeats=2)

    def measured(run: Any, repeats: int, gpus: Any) -> dict[str, float]:
        run()
        return {"package-0": 3.0 * repeats, "package-0 dram": 0.5}

    monkeypatch.setattr(bench, "measure_joules", measured)
    result = run_bench(asked)
    assert result["energy"] == "package-0, package-0 dram" and [row["joules"] for row in result["rows"]] == [6.5, 6.5]
    monkeypatch.setattr(bench, "measure_joules", lambda *_, **__: None)
    result = run_bench(asked)
    assert result["energy"] == "not told by this machine" and [row["joules"] for row in result["rows"]] == [None] * 2
    assert "energy" not in run_bench(replace(asked, energy=False))
    told = iter([{"package-0": 1.0}, None])
    monkeypatch.setattr(bench, "measure_joules", lambda *_, **__: next(told))
    assert run_bench(asked)["energy"] == "package-0; not told in 1 of 2 rows"


def test_videos_are_drawn_where_none_are_given_and_every_selector_runs(tmp_path: Path) -> None:
    result = run_bench(options(selectors=(), keep=(0.25,), frames=3, out=tmp_path / "new"))
    assert [row["selector"] for row in result["rows"]] == ["dense", *selectors()]
    assert result["frames"] == 3 * result["videos"] > 0
    assert json.loads((tmp_path / "new" / "bench.json").read_text())["rows"] == json.loads(as_json(result))["rows"]
    assert "faster than dense" in result["report"].read_text()
    with Image.open(result["picture"]) as picture:
        assert picture.format == "PNG" and picture.width > 400


@pytest.mark.parametrize("keeps", [(0.25,), (0.5, 0.25)])
def test_savings_are_drawn_as_bars_of_one_keep_and_lines_over_several(keeps: tuple[float, ...]) -> None:
    from matplotlib.figure import Figure

    rows = [
        {"selector": name, "keep": keep, "wall_ratio": wall, "flops_ratio": wall + 1}
        for name, wall in (("rate", 3.0), ("random", 5.0))
        for keep in keeps
    ]
    axes = Figure().subplots()
    bench_page._draw_savings(axes, rows)
    drawn = {line.get_label(): line for line in axes.lines}
    if len(keeps) == 1:
        assert [bar.get_width() for bar in axes.patches] == [3.0, 5.0]
        assert drawn["FLOPs of the tower"].get_xdata().tolist() == [4.0, 6.0]
    else:
        assert not axes.patches and list(drawn["random"].get_ydata()) == [5.0, 5.0]
        assert list(drawn["FLOPs of the tower"].get_ydata()) == [5.0, 5.0]


def test_frames_are_spread_evenly_over_a_video(tmp_path: Path) -> None:
    media.write(tmp_path / "long.mp4", media.numbered(39))
    (frames,) = read_videos(tmp_path, 3, (32, 64)).frames
    assert frames.size == (32, 64)
    gaps = np.diff(frames.pixels[:, 16, 32, 0].astype(int)) / 6  # numbered frames are 6 levels apart
    assert frames.count == 3 and (np.abs(gaps - 13) <= 2).all()
    assert read_videos(tmp_path / "long.mp4", 100, (32, 64)).frames[0].count == 39


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"keep": (0.5, 1.5)}, "--keep"),
        ({"keep": ()}, "--keep"),
        ({"frames": 0}, "--frames"),
        ({"repeats": 0}, "--repeats"),
        ({"selectors": ("rat",)}, "'rate'"),
        ({"model": "ViT-B32"}, "ViT-B-32"),
        ({"inside": ("tome",), "keep": (0.1,)}, "at the least"),
        ({"inside": ("tomee",)}, "--inside takes tome"),
        ({"inside": ("tome", "tome")}, "each once"),
        ({"selectors": ("random", "tome"), "inside": ("tome",)}, "tome is named twice"),
        ({"selectors": ("random", "random")}, "random is named twice"),
        ({"selectors": ("rate+tom",)}, "nearest is 'tome'"),
        ({"selectors": ("tome+rate",)}, "write the selector first, such as rate[+]tome"),
    ],
    ids=str,
)
def test_wrong_options_say_what_to_mend(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        run_bench(options(**changes))


def test_a_folder_without_a_video_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no video"):
        run_bench(options(videos=tmp_path))
    (tmp_path / "notes.txt").write_text("no video")
    with pytest.raises(InputError, match="no video"):
        run_bench(options(videos=tmp_path))


@pytest.mark.usefixtures("steady")
def test_a_checkpoint_adds_the_accuracy_that_eval_measures(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = {"image_size": 96, "video_size": 64, "frame_count": 8, "difficulty": 0.3}
    model, tokenizer = small_policy(inputs=inputs)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    threads = 2  # eval takes one
    torch.set_num_threads(threads)
    few = partial(EvalOptions, tasks=("quadrant", "count"), questions=4)
    monkeypatch.setattr(bench, "EvalOptions", few)
    result = run_bench(options(videos=folder, checkpoint=tmp_path, keep=(0.25,), out=tmp_path / "out"))
    assert (result["threads"], torch.get_num_threads()) == (threads, threads)
    measured = run_eval(few(checkpoint=tmp_path, keep=(1.0, 0.25), selectors=("random", "uniform")))["selectors"]
    assert [row["accuracy"] for row in result["rows"]] == [
        measured["random"]["all"]["1"]["accuracy"],
        measured["random"]["all"]["0.25"]["accuracy"],
        measured["uniform"]["all"]["0.25"]["accuracy"],
    ]
    assert [(row["low"], row["n"]) for row in result["rows"][1:]] == [
        (measured[name]["all"]["0.25"]["low"], 8) for name in ("random", "uniform")
    ]
    assert result["model"] == str(tmp_path)


def test_a_language_model_is_billed_for_the_tokens_that_come_out(folder: Path, tmp_path: Path) -> None:
    from transformers import Qwen2Config

    from entropy_vision.policy_cost import language_flops, meta_decoder

    small = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 2, "num_key_value_heads": 2}
    config = Qwen2Config(num_hidden_layers=2, **small)
    config.save_pretrained(folder / "language")
    reader = {"language": str(folder / "language"), "prompt": 7, "answer": 3}
    asked = options(videos=folder / "deeper", keep=(0.5,), inside=("tome",), **reader)
    result = run_bench(replace(asked, out=tmp_path))
    dense, *rows = result["rows"]
    assert all(row["wall_ratio_whole"] is None for row in result["rows"])  # prefill and decode were not run
    page = result["report"].read_text()
    for said in (
        "Seconds of every stage",
        "FLOPs of every stage",
        "<th class=n>prefill</th>",
        "fewer FLOPs as a whole",
    ):
        assert said in page
    assert all(f"<td class=n>{row['flops_ratio_whole']:.2f}</td>" in page for row in rows)
    assert page.count("whole, dense / this") == 1 and "faster as a whole" not in page
    assert base64.b64encode(result["picture"].read_bytes()).decode() in page
    told = json.loads((tmp_path / "bench.json").read_text())["options"]
    assert told["language"] == reader["language"] and told["keep"] == [0.5] and told["prompt"] == 7
    assert told.keys() == {one.name for one in fields(BenchOptions)}
    decoder = meta_decoder(config)
    for row, kept in [(dense, 3 * 144), *((one, one["tokens"]) for one in rows)]:
        bill = language_flops(decoder, [kept], 7, 3)
        assert (row["flops_prefill"], row["flops_decode"]) == (bill["prefill"], bill["decode"])
        whole = row["flops"] + sum(bill.values())
        assert row["flops_ratio_whole"] == (dense["flops"] + dense["flops_prefill"] + dense["flops_decode"]) / whole
    with pytest.raises(UsageError, match="no language model 'nothing'"):
        run_bench(options(videos=folder, language="nothing"))
