"""The same folder by ranks that Ray, submitit and SLURM's own script start."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from media import drifting, tree
from PIL import Image

from entropy_vision.data.preprocess import preprocess
from entropy_vision.errors import TooManyBad, UsageError

TOOLS = Path(__file__).parents[2] / "tools"
FAST: dict[str, Any] = {"size": 32, "selector": "uniform", "shard_samples": 2}
LINE = ["--size", "32", "--selector", "uniform", "--shard-samples", "2", "--max-bad", "1"]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("source")
    for number in range(7):
        Image.fromarray(drifting(1, seed=number)[0]).save(folder / f"{number}.png")
    (folder / "text.mp4").write_text("no video")
    return folder


@pytest.fixture(scope="module")
def whole(source: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    out = tmp_path_factory.mktemp("whole") / "out"
    return out, preprocess([source], out, max_bad=1, **FAST)


def test_ranks_on_ray_make_the_same_tree(
    source: Path, whole: tuple[Path, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ray = pytest.importorskip("ray", reason="the extra [ray] is not installed")
    from entropy_vision.data.ray import preprocess_on_ray

    with pytest.raises(UsageError, match="no Ray cluster"):
        preprocess_on_ray([source], tmp_path / "out", address="auto", **FAST)
    monkeypatch.setenv("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    try:
        result = preprocess_on_ray([source], tmp_path / "out", max_bad=1, **FAST)
        with pytest.raises(TooManyBad):
            preprocess_on_ray([source], tmp_path / "out", max_bad=0, **FAST)
        with pytest.raises(UsageError, match=r"has 2 cores: --workers 3 would wait"):
            preprocess_on_ray([source], tmp_path / "out", workers=3, **FAST)
        with pytest.raises(UsageError, match=r"^\S+ was made with other settings"):
            preprocess_on_ray([source], tmp_path / "out", keep=0.5, **FAST)
        assert preprocess_on_ray([source], tmp_path / "out", dry_run=True, **FAST)["in_shards"] == 7
    finally:
        ray.shutdown()
    assert tree(tmp_path / "out") == tree(whole[0])
    for name in ("inputs", "written", "failed", "tokens_kept", "shards", "reasons"):
        assert result[name] == whole[1][name]


def run(line: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    told = {**os.environ, "PATH": path, "PYTHONPATH": os.pathsep.join(one for one in sys.path if one), **environment}
    return subprocess.run(line, capture_output=True, text=True, timeout=300, env=told)


def test_the_array_script_shares_the_work(source: Path, whole: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    array = {"SLURM_ARRAY_TASK_MIN": "0", "SLURM_ARRAY_TASK_MAX": "1", "SLURM_ARRAY_TASK_COUNT": "2"}
    for task in ("0", "1"):
        line = ["bash", str(TOOLS / "preprocess.sbatch"), str(source), "--out", str(tmp_path / "out"), "--json", *LINE]
        done = run(line, SLURM_ARRAY_TASK_ID=task, SLURM_CPUS_PER_TASK="1", **array)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["inputs"] == 4
    assert tree(tmp_path / "out") == tree(whole[0])
    (tmp_path / "none.mp4").write_text("no video")
    done = run(["bash", str(TOOLS / "preprocess.sbatch"), str(tmp_path / "none.mp4"), "--out", str(tmp_path / "no")])
    assert done.returncode == 3  # the code of the program is the code of the job


def test_the_launcher_prints_its_jobs_and_runs_them(
    source: Path, whole: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    pytest.importorskip("submitit", reason="the extra [slurm] is not installed")
    launcher = [sys.executable, str(TOOLS / "launch_preprocess.py"), "--jobs", "2", "--cpus", "1", "--local"]
    launcher += ["--logs", str(tmp_path / "logs")]
    more = ["--", str(source), "--out", str(tmp_path / "out"), *LINE]
    dry = run([*launcher, "--dry-run", *more])
    assert dry.returncode == 0 and len(dry.stdout.splitlines()) == 3 and "--rank 1" in dry.stdout
    assert not (tmp_path / "out").exists() and not (tmp_path / "logs").exists()
    done = run([*launcher, *more])
    assert done.returncode == 0, done.stderr
    assert sum(json.loads(told)["written"] for told in done.stdout.splitlines()) == 7
    assert tree(tmp_path / "out") == tree(whole[0])
