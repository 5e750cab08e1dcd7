"""The demo, all of it, at a fraction of its size: every stage runs, the JSON has its keys, the page stands alone."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from entropy_vision import Frames
from entropy_vision.demo import Plan, run_demo
from entropy_vision.errors import UsageError
from entropy_vision.options import DemoOptions, EvalOptions
from entropy_vision.video_write import write_video

PLAN = Plan(
    questions=4,
    samples=2,
    shard_videos=3,
    costed=2,
    changes=(
        "steps=3",
        "data.image_scenes=2",
        "data.video_scenes=2",
        "data.pool=10",
        "data.workers=0",
        "eval.scenes=2",
        "eval.every=0",
        "sft.stop_accuracy=0",
        "policy.width=32",
        "policy.heads=2",
    ),
)
KEYS = {
    "report",
    "tokens_dense",
    "tokens_kept",
    "flops_ratio",
    "wall_ratio",
    "accuracy_dense",
    "accuracy_kept",
    "reward_before",
    "reward_after",
    "seconds",
}


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, object]]:
    home = tmp_path_factory.mktemp("demo")
    videos = home / "mine"
    videos.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (4, 48, 64, 3), dtype=np.uint8)
    write_video(videos / "mine <b>&.mp4", Frames(pixels=pixels, pts_seconds=np.arange(4) / 4), fps=4)
    (videos / "broken.mp4").write_text("this is no video")
    return home / "out", run_demo(DemoOptions(out=home / "out", videos=videos), PLAN)


def test_a_folder_that_is_not_there_is_told_before_anything_is_done(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not a folder"):
        run_demo(DemoOptions(out=tmp_path / "out", videos=tmp_path / "nothing"), PLAN)
    assert not (tmp_path / "out").exists()


def test_demo_gives_the_keys_of_the_contract_as_plain_json(demo: tuple[Path, dict[str, object]]) -> None:
    _, result = demo
    assert result.keys() >= KEYS
    again = json.loads(json.dumps(result, allow_nan=False))
    assert again["tokens_kept"] * 4 == again["tokens_dense"]
    assert again["flops_ratio"] > 1
    # the rows of tokens, FLOPs and accuracy are all about the same questions
    assert again["accuracy"]["tasks"]["all"]["0.25"]["n"] == 6 * PLAN.questions


def test_demo_page_stands_alone_and_names_the_users_file(demo: tuple[Path, dict[str, object]]) -> None:
    out, result = demo
    page = (out / "report.html").read_text()
    assert len(page) < 3_000_000
    assert not re.search(r"""(src|href)\s*=\s*["']?(https?:)?//""", page)
    assert "mine &lt;b&gt;&amp;.mp4" in page and "mine <b>" not in page
    assert len(result["skipped"]) == 1 and "broken.mp4" in result["skipped"][0]  # type: ignore[arg-type,index]


def test_demo_leaves_verified_shards_and_checkpoints_that_eval_reads(demo: tuple[Path, dict[str, object]]) -> None:
    from entropy_vision.data import read_shards
    from entropy_vision.evaluate import run_eval

    out, _ = demo
    assert len(list(read_shards(out / "shards"))) == PLAN.shard_videos
    with pytest.raises(UsageError, match="nearest is count"):
        run_eval(EvalOptions(checkpoint=out / "grpo", tasks=("counts",)))
    result = run_eval(EvalOptions(checkpoint=out / "grpo", tasks=("count", "moved"), keep=(0.5, 0.25), questions=3))
    assert result["tasks"].keys() == {"count", "moved", "all"}
    assert result["tasks"]["count"].keys() == {"0.5", "0.25"}
    assert result["tasks"]["count"]["0.5"].keys() == {"accuracy", "low", "high", "n"}
    assert result["blind"]["count"]["n"] == 3


def test_the_same_call_again_trains_nothing_anew(demo: tuple[Path, dict[str, object]]) -> None:
    out, first = demo
    checkpoints = {p: p.stat().st_mtime_ns for p in out.rglob("model.safetensors")}
    second = run_demo(DemoOptions(out=out), PLAN)
    assert {p: p.stat().st_mtime_ns for p in out.rglob("model.safetensors")} == checkpoints
    assert second["accuracy"] == first["accuracy"]
    assert second["reward_after"] == first["reward_after"]
