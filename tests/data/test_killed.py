"""A run that is killed anywhere, told to stop anywhere, or meets a full or closed disk goes on by the same line.

Points are exact: a hook on Python's audit events counts every file of the output that is opened, renamed or removed,
and sends the signal at the one that a test names, in the run itself or in one of its workers.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from media import drifting, tree, write
from PIL import Image
from pyarrow import parquet

from entropy_vision.data.archive import markers, read_marker, tars
from entropy_vision.data.plan import read_plan
from entropy_vision.data.source import sha256_of
from entropy_vision.data.verify import verify

_HOOK = """
import os, sys, time

def watch(event, given, seen=[0]):
    if event not in ("open", "os.rename", "os.remove", "os.rmdir", "os.mkdir"):
        return
    if not given or not str(given[0]).startswith(out):
        return
    seen[0] += 1
    if count:
        with os.fdopen(os.open(count, os.O_WRONLY | os.O_CREAT), "w") as file:
            file.write(str(seen[0]))
    if seen[0] == at and not os.path.exists(once):
        os.close(os.open(once, os.O_CREAT | os.O_WRONLY))
        os.kill(os.getpid(), number) if number else time.sleep(60)

told = os.environ.get("KILL_AT", "")
if told:
    whom, at, number, out, once, count = told.split("|")
    at, number = int(at), int(number)
    if ("entropy_vision.data.worker" in " ".join(sys.orig_argv)) == (whom == "worker"):
        sys.addaudithook(watch)
"""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dozen pictures, four videos, and a file that is none: five chunks."""
    folder = tmp_path_factory.mktemp("source")
    for number in range(12):
        Image.fromarray(drifting(1, seed=number)[0]).save(folder / f"{number:02d}.png")
    pixels = drifting(16, 96, 96)
    for number in range(4):
        write(folder / f"film{number}.mp4", pixels[number:])
    (folder / "text.mp4").write_text("no video")
    return folder


@pytest.fixture(scope="module")
def hook(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hook")
    (folder / "sitecustomize.py").write_text(_HOOK)
    return folder


class Line:
    """One command line, and the same again."""

    def __init__(self, source: Path, hook: Path, out: Path, workers: int = 2) -> None:
        self.hook, self.out, self.once = hook, out, hook / "-".join(out.parts[1:])
        self.line = [sys.executable, "-m", "entropy_vision.cli", "preprocess", str(source), "--out", str(out), "--json"]
        self.line += ["--size", "64", "--selector", "uniform", "--max-bad", "1", "--shard-samples", "4"]
        self.line += ["--workers", str(workers)]

    def start(self, whom: str, at: int, number: int, count: Path | None = None) -> subprocess.Popen[str]:
        """`whom` ("run" or "worker") gets the signal at its event `at`, for 0 it falls asleep."""
        self.once.unlink(missing_ok=True)
        told = "|".join([whom, str(at), str(number), str(self.out), str(self.once), str(count or "")])
        path = os.pathsep.join([str(self.hook), *(one for one in sys.path if one)])
        environment = {**os.environ, "PYTHONPATH": path, "KILL_AT": told if whom else ""}
        pipe = subprocess.PIPE
        return subprocess.Popen(self.line, stdout=pipe, stderr=pipe, text=True, env=environment)

    def run(self, whom: str = "", at: int = 0, number: int = 0, count: Path | None = None) -> tuple[int, str]:
        """(exit code, stdout) of a run that was started so."""
        run = self.start(whom, at, number, count)
        out, err = run.communicate(timeout=300)
        assert "Traceback" not in err, err
        return run.returncode, out


@pytest.fixture(scope="module")
def whole(source: Path, hook: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int, int]:
    """(the tree of a run that nobody stopped, events of the run, of a worker)"""
    events = []
    for whom in ("run", "worker"):
        folder = tmp_path_factory.mktemp("whole")
        line = Line(source, hook, folder / "out", workers=1)
        code, told = line.run(whom, count=folder / "count")
        assert code == 0 and json.loads(told)["written"] == 16
        events.append(int((folder / "count").read_text()))
    assert events[0] > 60 and events[1] > 60
    return folder / "out", *events


def is_sound(out: Path) -> None:
    """What a killed run leaves: everything under a final name is whole."""
    for path in markers(out):
        marker = read_marker(path)
        shard = out / marker.shard
        assert not shard.exists() or shard.stat().st_size == marker.bytes
    if markers(out) and all((path.with_suffix(".json")).exists() for path in tars(out)):
        assert verify(out)["bad"] == 0
    read_plan(out)
    for path in (out / "inputs").glob("[0-9]*.parquet"):
        parquet.read_table(path)


def ends_whole(line: Line, expected: Path) -> None:
    """The same line again makes the tree of a run in one piece, with every key once."""
    code, told = line.run()
    result = json.loads(told)
    assert code == 0 and result["inputs"] == 17 == result["written"] + result["resumed"] + result["failed"]
    assert tree(line.out) == tree(expected)
    keys = [entry["key"] for path in markers(line.out) for entry in read_marker(path).samples]
    assert len(keys) == len(set(keys)) == 16


@pytest.mark.parametrize("sequence", range(5))
def test_a_run_killed_again_and_again_ends_in_the_same_tree(
    source: Path, hook: Path, whole: tuple[Path, int, int], tmp_path: Path, sequence: int
) -> None:
    expected, events, of_worker = whole
    rng = random.Random(f"killed {sequence}")
    line = Line(source, hook, tmp_path / "out")
    for _ in range(4):
        whom = rng.choice(["run", "run", "worker"])
        code, _ = line.run(whom, rng.randint(1, events if whom == "run" else of_worker // 2), signal.SIGKILL)
        assert code == (-signal.SIGKILL if whom == "run" and line.once.exists() else 0)
        is_sound(line.out)
    ends_whole(line, expected)


@pytest.mark.slow
@pytest.mark.parametrize("point", range(200))
def test_a_run_killed_at_any_point_goes_on(
    source: Path, hook: Path, whole: tuple[Path, int, int], tmp_path: Path, point: int
) -> None:
    expected, events, of_worker = whole
    rng = random.Random(f"point {point}")
    line = Line(source, hook, tmp_path / "out", workers=1 + point % 2)
    whom = "worker" if point % 4 == 3 else "run"
    code, _ = line.run(whom, rng.randint(1, events if whom == "run" else of_worker // 2), signal.SIGKILL)
    assert line.once.exists() and code == (-signal.SIGKILL if whom == "run" else 0)
    is_sound(line.out)
    ends_whole(line, expected)
    shutil.rmtree(tmp_path)


_LAST = 24  # events


def test_sigterm_when_all_is_done_but_the_sums_ends_as_a_run_that_is_done(
    source: Path, hook: Path, whole: tuple[Path, int, int], tmp_path: Path
) -> None:
    expected, events, _ = whole
    line = Line(source, hook, tmp_path / "out")
    code, told = line.run("run", events - 3, signal.SIGTERM)
    assert code == 0 and line.once.exists() and json.loads(told)["written"] == 16
    assert tree(line.out) == tree(expected)


@pytest.mark.parametrize("points", [pytest.param(3, id="3"), pytest.param(20, id="20", marks=pytest.mark.slow)])
def test_sigterm_in_any_phase_ends_with_143_and_the_same_line_goes_on(
    source: Path, hook: Path, whole: tuple[Path, int, int], tmp_path: Path, points: int
) -> None:
    expected, events, _ = whole
    for point in range(points):
        line = Line(source, hook, tmp_path / f"{point}")
        # the last events clear away and write the sums of a run that is done: it ends as one
        code, told = line.run("run", 1 + (events - _LAST) * point // points, signal.SIGTERM)
        assert code == 143 and line.once.exists(), (point, code)
        json.loads(told)
        is_sound(line.out)
        ends_whole(line, expected)


def test_what_waited_for_a_chunk_goes_with_it(
    source: Path, hook: Path, whole: tuple[Path, int, int], tmp_path: Path
) -> None:
    """Killed behind the last table, and before its samples are cleaned away."""
    line = Line(source, hook, tmp_path / "out")
    shutil.copytree(whole[0], line.out)
    folder = line.out / ".staging" / "000001"
    folder.mkdir(parents=True)
    (folder / "a.part").write_bytes(b"in a shard by now")
    ends_whole(line, whole[0])


def test_workers_end_with_the_run(source: Path, hook: Path, tmp_path: Path) -> None:
    """Nobody writes to the folder of a run that was killed: who resumes it is alone."""
    line = Line(source, hook, tmp_path / "out")
    run = line.start("worker", 5, 0)
    while not line.once.exists() and run.poll() is None:
        time.sleep(0.01)
    assert _processes_of(line.out)
    run.kill()
    run.communicate()
    until = time.monotonic() + 5  # the kernel tells them within moments
    while (left := _processes_of(line.out)) and time.monotonic() < until:
        time.sleep(0.05)
    assert not left


def _processes_of(out: Path) -> list[str]:
    """Processes whose environment names the folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            if str(out).encode() in path.read_bytes():
                found.append(path.parent.name)
    return found


# --- disks


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of half a megabyte."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k", "none", folder], capture_output=True).returncode:
        pytest.skip("mounting a small file system needs root")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def test_a_full_disk_is_a_line_and_more_room_goes_on(
    source: Path, hook: Path, whole: tuple[Path, int, int], small_disk: Path
) -> None:
    line = Line(source, hook, small_disk / "out")
    page = 4096
    sizes = [-(-len(content) // page) * page for content in tree(whole[0]).values()]
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(os.statvfs(small_disk).f_bavail * page - int(0.7 * sum(sizes))))
    for _ in range(2):
        code, told = line.run()
        assert code == 2 and "No space left on device" in json.loads(told)["error"]
        assert markers(line.out)
        for path in markers(line.out):  # what stands under its name is whole, and stays
            marker = read_marker(path)
            assert sha256_of(line.out / marker.shard) == marker.sha256
    ballast.unlink()
    ends_whole(line, whole[0])


def test_a_disk_that_cannot_be_written_to_is_a_line(
    source: Path, hook: Path, whole: tuple[Path, int, int], small_disk: Path
) -> None:
    subprocess.run(["mount", "-o", "remount,size=8m", small_disk], check=True)
    line = Line(source, hook, small_disk / "out")
    assert line.run("run", whole[1] // 2, signal.SIGTERM)[0] == 143
    before = tree(line.out)
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    code, told = line.run()
    assert code == 2 and "\n" not in json.loads(told)["error"]
    assert tree(line.out) == before
    subprocess.run(["mount", "-o", "remount,rw", small_disk], check=True)
    ends_whole(line, whole[0])
