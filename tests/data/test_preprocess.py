"""preprocess: every input accounted for, the same tree however it was made, and workers that may die."""

from __future__ import annotations

import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from media import drifting, needs_decord, tree, write
from PIL import Image

from entropy_vision import Budget, cli, selectors
from entropy_vision.data import read_shards
from entropy_vision.data.files import find_inputs
from entropy_vision.data.pool import Pool
from entropy_vision.data.preprocess import allowed_failures, preprocess, run_preprocess, run_verify
from entropy_vision.data.source import stat
from entropy_vision.data.verify import verify
from entropy_vision.data.worker import _warm_up, memory_limit
from entropy_vision.errors import InputError, TooManyBad, UsageError
from entropy_vision.frames import read_image, read_media, read_video
from entropy_vision.options import PreprocessOptions, VerifyOptions
from entropy_vision.tokenizer import EntropyTokenizer

FAST = {"size": 64, "selector": "uniform"}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four videos, an image and a copy."""
    folder = tmp_path_factory.mktemp("source")
    for number in range(4):
        write(folder / f"video{number}.mp4", drifting(4 + number, seed=number))
    Image.fromarray(drifting(1)[0]).save(folder / "image.png")
    shutil.copy(folder / "video2.mp4", folder / "copy.mp4")
    return folder


@pytest.fixture
def spoilt(source: Path, tmp_path: Path) -> Path:
    """The same with four files that are no good, and two that are none of ours."""
    folder = tmp_path / "spoilt"
    shutil.copytree(source, folder)
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "text.mp4").write_text("hello\n")
    whole = (folder / "video0.mp4").read_bytes()
    (folder / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0abc")
    (folder / "README.md").write_text("about")
    (folder / ".hidden.mp4").write_bytes(b"")
    return folder


def test_preprocess_writes_what_the_tokenizer_keeps(source: Path, tmp_path: Path) -> None:
    result = preprocess([source], tmp_path / "out", size=64, keep=0.5, store="raw")
    assert {name: result[name] for name in ("inputs", "written", "resumed", "failed", "shards")} == {
        "inputs": 6,
        "written": 6,
        "resumed": 0,
        "failed": 0,
        "shards": 1,
    }
    samples = list(read_shards(tmp_path / "out"))
    tokenizer = EntropyTokenizer(keep=0.5)
    for sample in samples:
        path = Path(sample.source)
        frames = read_image(path, size=64) if path.suffix == ".png" else read_video(path, size=64)
        kept = tokenizer(frames)
        np.testing.assert_array_equal(sample.pixels, kept.pixels)
        np.testing.assert_array_equal(sample.positions, kept.positions)
        np.testing.assert_array_equal(sample.bits, kept.bits)
        np.testing.assert_array_equal(sample.pts_seconds, frames.pts_seconds)
        assert sample.record["decoder"]["frames_decoded"] == frames.count
    assert [Path(sample.source).name for sample in samples] == sorted(path.name for path in source.iterdir())
    assert result["tokens_total"] == sum(sample.bits.size for sample in samples)
    assert result["tokens_kept"] == sum(map(len, samples))
    assert verify(tmp_path / "out")["bad"] == 0


def test_the_same_line_again_resumes(source: Path, tmp_path: Path) -> None:
    first = preprocess([source], tmp_path / "out", **FAST)
    before = tree(tmp_path / "out")
    again = preprocess([source], tmp_path / "out", **FAST)
    assert (again["written"], again["resumed"]) == (0, 6)
    assert again["tokens_kept"] == first["tokens_kept"]
    assert tree(tmp_path / "out") == before


def test_new_files_are_added_and_renamed_ones_are_known(source: Path, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    shutil.copytree(source, folder)
    preprocess([folder], tmp_path / "out", **FAST)
    (folder / "video0.mp4").rename(folder / "zero.mp4")
    write(folder / "new.mp4", drifting(3, seed=9))
    again = preprocess([folder], tmp_path / "out", **FAST)
    assert (again["written"], again["resumed"], again["shards"]) == (1, 6, 2)


def test_bad_inputs_are_counted_by_reason_and_skipped(spoilt: Path, tmp_path: Path) -> None:
    missing = spoilt / "gone.mp4"
    result = preprocess([spoilt, missing], tmp_path / "out", max_bad=10, **FAST)
    assert (result["inputs"], result["written"], result["failed"]) == (11, 6, 5)
    rows = [json.loads(text) for text in (tmp_path / "out" / "errors.jsonl").read_text().splitlines()]
    assert {Path(row["source"]).name: row["reason"] for row in rows} == {
        "empty.mp4": "empty",
        "text.mp4": "not_media",
        "cut.mp4": "damaged",
        "broken.jpg": "damaged",
        "gone.mp4": "missing",
    }
    assert all(row["detail"] and "\n" not in row["detail"] for row in rows)
    again = preprocess([spoilt, missing], tmp_path / "out", max_bad=10, **FAST)
    assert (again["resumed"], again["failed"]) == (6, 5)


def test_too_many_bad_inputs_are_told_after_the_work_is_done(spoilt: Path, tmp_path: Path) -> None:
    with pytest.raises(TooManyBad, match="4 of 10 inputs failed") as caught:
        preprocess([spoilt], tmp_path / "out", max_bad=3, **FAST)
    assert caught.value.code == 3
    assert caught.value.result["written"] == 6
    assert verify(tmp_path / "out")["samples"] == 6


@pytest.mark.parametrize(
    ("max_bad", "inputs", "allowed"),
    [(0, 100, 0), (0.05, 100, 5), (0.05, 3, 1), (0.05, 1, 0), (0.5, 5, 2), (1, 10, 1), (10, 3, 10)],
)
def test_allowed_failures_are_a_count_or_a_share(max_bad: float, inputs: int, allowed: int) -> None:
    assert allowed_failures(max_bad, inputs) == allowed


def test_the_tree_does_not_depend_on_workers_or_order(source: Path, tmp_path: Path) -> None:
    for name, sources, workers in (("one", [source], 1), ("three", sorted(source.iterdir(), reverse=True), 3)):
        preprocess(sources, tmp_path / name, workers=workers, shard_samples=2, **FAST)
    assert tree(tmp_path / "one") == tree(tmp_path / "three")
    assert len(list((tmp_path / "one").glob("*.tar"))) == 3


def test_other_settings_are_refused_unless_told_to_overwrite(source: Path, tmp_path: Path) -> None:
    preprocess([source], tmp_path / "out", **FAST)
    with pytest.raises(UsageError, match=r"budget was keep 0.25, is keep 0.5.*--overwrite"):
        preprocess([source], tmp_path / "out", keep=0.5, **FAST)
    result = preprocess([source], tmp_path / "out", keep=0.5, overwrite=True, **FAST)
    assert result["written"] == 6
    assert all(sample.keep == 0.5 for sample in read_shards(tmp_path / "out"))


def test_a_dry_run_writes_nothing_and_tells_what_comes(spoilt: Path, tmp_path: Path) -> None:
    told = preprocess([spoilt, tmp_path / "gone.mp4"], tmp_path / "out", dry_run=True, **FAST)
    assert not (tmp_path / "out").exists()
    result = preprocess([spoilt, tmp_path / "gone.mp4"], tmp_path / "out", max_bad=9, salvage=True, **FAST)
    assert (told["inputs"], told["missing"], told["in_shards"]) == (result["inputs"], 1, 0)
    assert told["probed"] == told["inputs"] - 1
    preprocess([spoilt], tmp_path / "whole", max_bad=9, **FAST)
    again = preprocess([spoilt], tmp_path / "whole", dry_run=True, **FAST)
    assert again["in_shards"] == 6
    with pytest.raises(UsageError, match="size was 64, is 32"):
        preprocess([spoilt], tmp_path / "whole", dry_run=True, size=32, selector="uniform")


def test_the_estimate_of_whole_files_is_what_comes(source: Path, tmp_path: Path) -> None:
    told = preprocess([source], tmp_path / "out", dry_run=True, size=64, fps=10.0)
    result = preprocess([source], tmp_path / "out", size=64, fps=10.0)
    assert {name: told[name] for name in ("inputs", "tokens_total", "tokens_kept")} == {
        name: result[name] for name in ("inputs", "tokens_total", "tokens_kept")
    }
    assert told["unreadable"] == 0 and told["bytes"] == sum(path.stat().st_size for path in source.iterdir())
    assert preprocess([source], tmp_path / "b", dry_run=True, budget=Budget(bits=900))["tokens_kept"] is None


@pytest.mark.parametrize("limit", [{"tokens": 20}, {"threshold": 40.0}, {"bits": 900.0}, {"flops": 3e9}])
def test_any_budget_limits_every_input(source: Path, tmp_path: Path, limit: dict[str, float]) -> None:
    budget = Budget(**limit)
    preprocess([source], tmp_path / "out", size=64, budget=budget, store="raw")
    tok = EntropyTokenizer(16, budget=budget)
    for sample in read_shards(tmp_path / "out"):
        frames = read_media(sample.source, size=64)
        np.testing.assert_array_equal(sample.positions, tok(frames).positions)


@pytest.mark.parametrize("store", ["raw", "index"])
def test_merged_patches_are_in_the_shards_and_read_again(source: Path, tmp_path: Path, store: str) -> None:
    preprocess([source], tmp_path / "out", size=64, keep=0.5, merge=2, store=store)
    tok = EntropyTokenizer(16, keep=0.5, merge=2)
    for sample in read_shards(tmp_path / "out"):
        expected = tok(read_media(sample.source, size=64))
        assert expected.spans is not None and sample.spans is not None
        np.testing.assert_array_equal(sample.spans, expected.spans)
        np.testing.assert_array_equal(sample.pixels, expected.pixels)


def test_a_budget_too_small_to_cover_an_input_ends_the_run_in_a_line(source: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"^\S+(video|copy|image)\S*: 2 tokens cannot cover"):
        preprocess([source], tmp_path / "out", size=64, budget=Budget(tokens=2), patch_size=8, merge=2)
    # nothing was made, so other settings are no others
    assert preprocess([source], tmp_path / "out", size=64, keep=0.5, patch_size=8, merge=2)["written"] == 6


def test_another_rule_of_frames_is_told_in_words(source: Path, tmp_path: Path) -> None:
    preprocess([source], tmp_path / "out", **FAST)
    with pytest.raises(UsageError, match=r"settings \(sampling was every frame, is frames 2\)"):
        preprocess([source], tmp_path / "out", **FAST, frames=2)


def test_settings_of_another_version_are_told_by_what_changed(source: Path, tmp_path: Path) -> None:
    preprocess([source], tmp_path / "out", **FAST)
    path = tmp_path / "out" / "settings.json"
    settings = json.loads(path.read_text())
    path.write_text(json.dumps({**settings, "selector_version": 0, "fingerprint": "0"}))
    with pytest.raises(UsageError, match=r"settings \(selector_version was 0, is \d\)"):
        preprocess([source], tmp_path / "out", **FAST)


def test_index_samples_are_decoded_again_from_an_unchanged_source(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "in"
    shutil.copytree(source, folder)
    preprocess([folder], tmp_path / "raw", store="raw", fps=4, **FAST)
    monkeypatch.chdir(tmp_path)
    preprocess(["in"], tmp_path / "index", store="index", fps=4, **FAST)
    monkeypatch.chdir("/")
    assert verify(tmp_path / "index")["bad"] == 0
    for one, other in zip(read_shards(tmp_path / "raw"), read_shards(tmp_path / "index"), strict=True):
        np.testing.assert_array_equal(one.pixels, other.pixels)
        np.testing.assert_array_equal(one.positions, other.positions)
    write(folder / "copy.mp4", drifting(4, seed=77))
    with pytest.raises(InputError, match="has changed"):
        list(read_shards(tmp_path / "index"))


def test_damaged_videos_are_taken_only_when_asked_for(tmp_path: Path) -> None:
    whole = write(tmp_path / "a.mp4", drifting(40), options={"g": "8"}, container_options={"movflags": "faststart"})
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "cut.mp4").write_bytes(whole.read_bytes()[: whole.stat().st_size * 7 // 10])
    shutil.copy(whole, folder / "whole.mp4")
    assert preprocess([folder], tmp_path / "strict", **FAST)["reasons"] == {"damaged": 1}
    assert preprocess([folder], tmp_path / "salvage", salvage=True, **FAST)["written"] == 2
    salvaged, whole_sample = read_shards(tmp_path / "salvage")
    assert salvaged.record["decoder"]["salvaged"] and not whole_sample.record["decoder"]["salvaged"]


def test_shards_that_are_gone_or_cut_are_made_again(source: Path, tmp_path: Path) -> None:
    preprocess([source], tmp_path / "out", shard_samples=2, **FAST)
    before = tree(tmp_path / "out")
    cut = tmp_path / "out" / "shard-000002.tar"
    cut.write_bytes(cut.read_bytes()[:-700])
    assert preprocess([source], tmp_path / "out", shard_samples=2, **FAST)["written"] == 2
    assert tree(tmp_path / "out") == before
    (tmp_path / "out" / "shard-000002.json").unlink()
    assert preprocess([source], tmp_path / "out", shard_samples=2, **FAST)["written"] == 2
    assert tree(tmp_path / "out") == before


def test_no_input_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "README.md").write_text("about")
    with pytest.raises(UsageError, match="no videos or images"):
        preprocess([tmp_path / "in"], tmp_path / "out")
    for bad in ({"store": "zip"}, {"selector": "nonsense"}, {"keep": 0.0}, {"workers": 0}):
        with pytest.raises(UsageError):
            preprocess([tmp_path], tmp_path / "out", **bad)


def test_the_folder_that_is_read_is_no_place_for_shards(source: Path, tmp_path: Path) -> None:
    before = tree(source)
    out = source / ".." / source.name
    (listed := tmp_path / "videos.txt").write_text(str(next(path for path in source.iterdir() if path.is_file())))
    (loop := tmp_path / "loop").symlink_to(loop)
    for named in ([source], [listed], [loop, source]):
        with pytest.raises(UsageError, match=r"is the folder that is read: name another, \S+/shards"):
            preprocess(named, out, **FAST)
    assert tree(source) == before
    assert preprocess([loop], tmp_path / "out", max_bad=1, **FAST)["failed"] == 1


def test_a_worker_is_ready_when_nothing_is_left_to_compile(tmp_path: Path) -> None:
    """An input's deadline is not for that. In a process of its own, which has compiled nothing else."""
    code = """
import sys
from numba.core.dispatcher import Dispatcher
from entropy_vision import EntropyTokenizer
from entropy_vision.frames import read_media
from entropy_vision.data.worker import _warm_up
def forms():
    modules = [module for name, module in sys.modules.items() if name.startswith("entropy_vision.")]
    every = [thing for module in modules for thing in vars(module).values() if isinstance(thing, Dispatcher)]
    return {thing.__name__: len(thing.signatures) for thing in every}
_warm_up(16, "rate")
before = forms()
tokenizer = EntropyTokenizer()
for path in sys.argv[1:]:
    tokenizer(read_media(path, size=224))
after = forms()
print({key: count for key, count in after.items() if count > before.get(key, 0)}, before["walk"], before["owners"])
"""
    pan = np.kron(np.random.default_rng(0).integers(0, 256, (60, 60, 3), np.uint8), np.ones((8, 8, 1), np.uint8))
    moving = np.stack([pan[4 * t : 4 * t + 300, 6 * t : 6 * t + 320] for t in range(12)])
    nearer = moving.copy()
    for t in range(12):
        nearer[t, 100:200] = np.roll(pan, -5 * t, axis=1)[100:200, :320]
    paths = [write(tmp_path / "pan.mp4", moving), write(tmp_path / "rests.mp4", moving[:1].repeat(9, axis=0))]
    paths.append(write(tmp_path / "nearer.mp4", nearer))
    Image.fromarray(pan).save(tmp_path / "a.png")
    line = [sys.executable, "-c", code, *map(str, paths), str(tmp_path / "a.png")]
    done = subprocess.run(line, capture_output=True, text=True, timeout=300)
    assert done.stdout.strip() == "{} 1 1", done.stdout + done.stderr


@pytest.mark.parametrize("patch_size", [1, 3, 14, 32])
def test_a_worker_warms_up_for_every_selector_and_patch_size(patch_size: int) -> None:
    for selector in selectors():
        _warm_up(patch_size, selector)


def test_the_verbs_take_their_options(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    options = PreprocessOptions(sources=(source / "image.png",), out=out, selector="uniform", size=32, json=True)
    result = run_preprocess(options)
    assert result["written"] == 1
    assert run_verify(VerifyOptions(shards=out)) == {"shards": 1, "samples": 1, "bad": 0}


def test_find_inputs_takes_files_folders_and_patterns_once(spoilt: Path) -> None:
    (spoilt / "deep").mkdir()
    write(spoilt / "deep" / "no-suffix.mp4", drifting(2)).rename(spoilt / "deep" / "film")
    (spoilt / "loop").symlink_to(spoilt)
    found = find_inputs([spoilt, spoilt / "video0.mp4", str(spoilt / "*.png"), spoilt / "none*.mp4"], spoilt / "out")
    names = [str(Path(one.path).relative_to(spoilt)) for one in found]
    assert names == sorted(names) and len(names) == len(set(names)) == 12
    assert "deep/film" in names and "none*.mp4" in names
    assert not {"README.md", ".hidden.mp4"} & set(names)


# --- processes


def test_an_input_that_takes_too_long_is_ended(source: Path, tmp_path: Path) -> None:
    with pytest.raises(TooManyBad) as caught:
        preprocess([source / "video0.mp4"], tmp_path / "out", deadline=1e-4, **FAST)
    assert caught.value.result["reasons"] == {"timeout": 1}


MISCHIEF = """
import json, os, signal, sys, time
sys.stdin.readline()
print(json.dumps({"ready": True}), flush=True)
for line in sys.stdin:
    task = json.loads(line)
    if task["do"] == "sleep": time.sleep(60)
    if task["do"] == "crash": os.kill(os.getpid(), signal.SIGSEGV)
    if task["do"] == "raise": raise KeyError("a bug")
    if task["do"] == "flood":
        for _ in range(40): os.write(2, b"noise " * 50_000 + b"\\n")
        sys.exit("the last word")
    print(json.dumps({"index": task["index"]}), flush=True)
"""


def test_workers_that_hang_or_die_cost_their_own_task_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mischief.py").write_text(MISCHIEF)
    monkeypatch.syspath_prepend(str(tmp_path))
    deeds = ["", "sleep", "", "crash", "raise", "flood", ""]
    tasks = [{"index": index, "do": deed} for index, deed in enumerate(deeds)]
    with Pool("mischief", {}, count=2, deadline=1.0) as pool:
        replies = {}
        for reply in pool.run(tasks, lambda: False):
            replies[reply["index"]] = reply
            assert all(len(worker.said) <= 4000 for worker in pool.workers)
        ids = [worker.process.pid for worker in pool.workers]
    assert sorted(replies) == list(range(7))
    reasons = {index: reply.get("reason") for index, reply in replies.items()}
    assert reasons == {0: None, 1: "timeout", 2: None, 3: "killed", 4: "killed", 5: "killed", 6: None}
    assert "SIGSEGV" in replies[3]["detail"] and "a bug" in replies[4]["detail"]
    assert "the last word" in replies[5]["detail"] and len(replies[5]["detail"]) < 400
    for pid in ids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


FULL = """
import errno, sys
from entropy_vision.data import worker
write = worker.atomic_write
def write_some(path, content, durable):
    if path.suffix == ".part" and written: raise OSError(errno.ENOSPC, "full")
    written.append(path.suffix)
    write(path, content, durable=durable)
written = []
worker.atomic_write = write_some
sys.exit(worker.main())
"""


def test_a_full_disk_ends_the_run_and_is_no_fault_of_the_input(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "full.py").write_text(FULL)
    out = tmp_path / "out"
    line = ["preprocess", str(source), "--out", str(out), "--size", "64", "--selector", "uniform", "--json"]
    with monkeypatch.context() as patch:
        patch.syspath_prepend(str(tmp_path))
        patch.setattr("entropy_vision.data.preprocess._WORKER", "full")
        assert cli.main(line) == 2
    told = f"{out / '.staging'}: No space left on device"
    result, err = capfd.readouterr()
    assert json.loads(result) == {"error": told} and err.endswith(f"\nentropy-vision preprocess: {told}\n")
    assert not (out / "errors.jsonl").exists() and len(list((out / ".staging").glob("*/*.note"))) == 1
    done = preprocess([source], out, **FAST)
    assert (done["written"], done["failed"]) == (6, 0)


SMALL = """
import sys
from entropy_vision.data import worker
lines = open("/proc/self/status").read().splitlines()
used = next(int(line.split()[1]) for line in lines if line.startswith("VmData")) << 10
worker.memory_limit = lambda: used + (200 << 20)
sys.exit(worker.main())
"""


@pytest.mark.skipif(platform.system() != "Linux", reason="only Linux counts what a process asks for")
def test_an_input_that_takes_too_much_memory_is_refused_and_the_run_goes_on(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert memory_limit() <= os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    (tmp_path / "small.py").write_text(SMALL)
    folder = tmp_path / "in"
    shutil.copytree(source, folder)
    Image.new("RGB", (7000, 7000)).save(folder / "huge.png")  # 147 MB of pixels, and again as an array
    write(folder / "long.mp4", np.zeros((1200, 64, 64, 3), np.uint8))  # 300 MB at 288 x 288
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr("entropy_vision.data.preprocess._WORKER", "small")
    result = preprocess([folder], tmp_path / "out", max_bad=2, size=288, selector="uniform")
    assert (result["written"], result["reasons"]) == (6, {"too_large": 2})
    rows = [json.loads(text) for text in (tmp_path / "out" / "errors.jsonl").read_text().splitlines()]
    assert all("MiB a worker may use" in row["detail"] for row in rows)


@pytest.mark.slow
def test_a_worker_takes_at_most_350_mb_at_1080p(tmp_path: Path) -> None:
    pixels = np.repeat(drifting(90, 270, 480), 4, axis=1).repeat(4, axis=2)
    path = write(tmp_path / "a.mp4", pixels, fps=30)
    del pixels
    settings = {"patch_size": 16, "budget": {"keep": 0.25}, "selector": "rate", "merge": 1}
    settings |= {
        "size": 224,
        "sampling": {"fps": None},
        "salvage": False,
        "store": "mosaic",
        "mark": "",
        "fingerprint": "",
    }
    settings |= {"scratch": str(tmp_path), "parent": os.getpid()}
    task = {"index": 0, "source": vars(stat(path)), "name": "a", "key": "a", "digest": "0" * 64}
    task |= {name: str(tmp_path / name) for name in ("part", "note")}
    line = [sys.executable, "-m", "entropy_vision.data.worker"]
    with subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as worker:
        assert worker.stdin is not None and worker.stdout is not None
        worker.stdin.write(json.dumps(settings).encode() + b"\n" + json.dumps(task).encode() + b"\n")
        worker.stdin.flush()
        assert [json.loads(worker.stdout.readline()) for _ in range(2)] == [{"ready": True}, {"index": 0}]
        status = Path(f"/proc/{worker.pid}/status").read_text().splitlines()
        worker.stdin.close()
    peak = next(int(text.split()[1]) for text in status if text.startswith("VmHWM")) / 1024
    print(f"{peak:.0f} MiB at most")
    assert peak <= 350


def test_a_worker_that_cannot_start_is_a_crash_of_the_program(tmp_path: Path) -> None:
    with Pool("entropy_vision.no_such_module", {}, count=1, deadline=1.0) as pool, pytest.raises(RuntimeError):
        list(pool.run([{"index": 0}], lambda: False))


def start(source: Path, out: Path, *more: str) -> subprocess.Popen[bytes]:
    line = [sys.executable, "-m", "entropy_vision.cli", "preprocess", str(source), "--out", str(out), "--json"]
    options = ["--size", "64", "--selector", "uniform", *more]
    return subprocess.Popen([*line, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE)


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("many")
    pixels = drifting(50, 160, 160)
    for number in range(8):
        write(folder / f"{number:02d}.mp4", pixels[number:])
    return folder


def test_sigterm_keeps_what_is_done_and_the_same_line_ends_in_the_same_tree(many: Path, tmp_path: Path) -> None:
    preprocess([many], tmp_path / "whole", **FAST)
    run = start(many, tmp_path / "out")
    staging = tmp_path / "out" / ".staging"
    until = time.monotonic() + 30
    while not list(staging.glob("*/*.note")) and time.monotonic() < until:
        time.sleep(0.005)
    run.send_signal(signal.SIGTERM)
    told, _ = run.communicate(timeout=30)
    assert run.returncode == 143
    assert json.loads(told)["waiting"] >= 1
    kept = set(staging.glob("*/*.note"))
    times = {path: path.stat().st_mtime_ns for path in staging.glob("*/*.part")}
    assert kept and times
    result = preprocess([many], tmp_path / "out", **FAST)
    assert result["written"] == 8
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")


def test_two_runs_do_not_write_to_one_folder(many: Path, tmp_path: Path) -> None:
    run = start(many, tmp_path / "out")
    until = time.monotonic() + 30
    while not (tmp_path / "out" / "settings.json").exists() and time.monotonic() < until:
        time.sleep(0.005)
    try:
        with pytest.raises(UsageError, match="another run"):
            preprocess([many], tmp_path / "out", **FAST)
    finally:
        run.communicate(timeout=60)
    assert run.returncode == 0


# --- real files


@needs_decord
def test_real_files_become_shards_by_either_decoder(shared_data: Path, tmp_path: Path) -> None:
    videos = [path for path in sorted((shared_data / "videos").iterdir()) if path.stat().st_size < 180_000]
    result = preprocess([shared_data / "images", *videos], tmp_path / "out", fps=2, size=112)
    assert (result["inputs"], result["written"], result["failed"]) == (25 + len(videos), 25 + len(videos), 0)
    assert result["tokens_kept"] / result["tokens_total"] == pytest.approx(0.25, abs=0.01)
    assert verify(tmp_path / "out")["bad"] == 0
    tokenizer = EntropyTokenizer()
    compared = 0
    for sample in read_shards(tmp_path / "out"):
        if sample.record["decoder"]["decoder"] == "pyav":
            try:
                frames = read_video(sample.source, fps=2, size=112, decoder="decord")
            except UsageError:
                continue
            compared += 1
            np.testing.assert_array_equal(tokenizer(frames).positions, sample.positions)
    assert compared >= 5
