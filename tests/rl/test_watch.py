"""The view of a run in progress: what it says of a folder, and that it goes on by itself until the run is done."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from entropy_vision import cli
from entropy_vision.errors import InputError
from entropy_vision.rl.watch import curve, frame_of


def _begin(run: Path, steps: int = 4, rows: int = 0) -> Path:
    run.mkdir()
    (run / "config.toml").write_text(f'stage = "grpo"\nout = "{run}"\nsteps = {steps}\n')
    for step in range(1, rows + 1):
        _log(run, step)
    return run


def _log(run: Path, step: int) -> None:
    row = {"step": step, "loss": 2.0 / step, "reward": step / 10, "flops": 4e9, "seconds": 2.0}
    row |= {"seconds_generate": 1.5, "seconds_sync": 0.5}
    with (run / "metrics.jsonl").open("a") as lines:
        lines.write(json.dumps(row) + "\n")


def _grade(run: Path, step: int) -> None:
    folder = run / f"step-{step:06d}"
    folder.mkdir()
    (folder / "state.json").write_text(json.dumps({"step": step, "graded": step}))


def test_a_frame_says_how_far_a_run_is_how_it_does_and_where_its_seconds_go(tmp_path: Path) -> None:
    frame = frame_of(_begin(tmp_path / "run", steps=10, rows=4))
    reward, loss, *_ = frame["metrics"]
    assert (reward["metric"], reward["last"], reward["mean of 20"]) == ("reward", 0.4, pytest.approx(0.25))
    assert (loss["metric"], loss["least"], loss["greatest"]) == ("loss", 0.5, 2.0)
    assert reward["since the start"] == "▁▃▆█" and loss["since the start"][0] == "█"
    assert frame["step"] == "4 of 10" and frame["seconds left"] == 12.0 and frame["GFLOP a second"] == 2.0
    assert frame["seconds go to"] == "generate 75%, sync 25%"
    assert not {"step", "seconds", "seconds_sync"} & {row["metric"] for row in frame["metrics"]}


def test_what_workers_do_beside_the_steps_is_no_part_of_them(tmp_path: Path) -> None:
    run = _begin(tmp_path / "run")
    row = {"step": 1, "loss": 1.0, "seconds": 2.0, "seconds_generate": 1.5, "seconds_sync": 0.5, "seconds_select": 6.0}
    (run / "metrics.jsonl").write_text(json.dumps(row) + "\n")
    assert frame_of(run)["seconds go to"] == "select 75%, generate 19%, sync 6%"
    with (run / "config.toml").open("a") as config:
        config.write("[data]\nworkers = 1\n")
    assert frame_of(run)["seconds go to"] == "generate 75%, sync 25%"


def test_a_run_is_done_at_its_last_step_or_where_its_gate_ended_it(tmp_path: Path) -> None:
    run = _begin(tmp_path / "run", steps=10, rows=4)
    state = run / "step-000004" / "state.json"
    state.parent.mkdir()
    state.write_text(json.dumps({"step": 4}))
    assert frame_of(run)["step"] == "4 of 10"
    state.write_text(json.dumps({"step": 4, "graded": 4}))
    assert frame_of(run)["step"] == "4 of 10, done"
    last = _begin(tmp_path / "other", steps=4, rows=4)
    assert frame_of(last)["step"] == "4 of 4"  # it is measuring what it has learned
    _grade(last, 4)
    assert frame_of(last)["step"] == "4 of 4, done"


def test_what_is_no_number_or_no_step_is_left_out_of_a_curve(tmp_path: Path) -> None:
    run = _begin(tmp_path / "run", steps=10, rows=2)
    with (run / "metrics.jsonl").open("a") as lines:
        lines.write('{"step": 3, "loss": NaN, "reward": Infinity}\n[4]\n5\n')
    reward, loss = frame_of(run)["metrics"]
    assert (loss["least"], loss["greatest"], loss["since the start"]) == (1.0, 2.0, "█▁")
    assert loss["last"] != loss["last"] and reward["greatest"] == 0.2
    (run / "config.toml").write_text('steps = "x"')
    with pytest.raises(InputError, match="how many steps"):
        frame_of(run)


def test_a_curve_has_room_for_any_run(tmp_path: Path) -> None:
    assert curve([]) == "" and curve([3.0]) == "▁" and curve([0.0, 1.0]) == "▁█"
    assert curve([float(i) for i in range(1000)], 8) == "▁▂▃▄▅▆▇█"


def test_json_is_the_last_step_and_once_a_table(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run = _begin(tmp_path / "run", rows=2)
    (run / "metrics.jsonl").open("a").write('{"step": 3, "los')  # a line that is being written
    assert cli.main(["watch", str(run), "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["step"] == 2
    assert cli.main(["watch", str(run), "--once"]) == 0
    out = capfd.readouterr().out
    assert "2 of 4" in out and "since the start" in out
    empty = _begin(tmp_path / "empty")
    assert cli.main(["watch", str(empty), "--once"]) == 0 and "0 of 4" in capfd.readouterr().out
    assert cli.main(["watch", str(empty), "--json"]) == 0
    assert json.loads(capfd.readouterr().out) == {"step": 0}


def test_a_folder_without_a_run_is_one_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["watch", str(tmp_path)]) == 2
    assert "no config.toml" in capfd.readouterr().err
    (tmp_path / "config.toml").write_text("stage = ")
    assert cli.main(["watch", str(tmp_path), "--json"]) == 2
    assert "not TOML" in capfd.readouterr().err


def test_on_a_terminal_it_goes_on_until_the_run_is_done(tmp_path: Path) -> None:
    run = _begin(tmp_path / "run", steps=3, rows=1)
    line = [sys.executable, "-m", "entropy_vision.cli", "watch", str(run), "--every", "0.1"]
    ours, theirs = pty.openpty()
    seen = bytearray()

    def read() -> None:  # all of it, or the one who writes would wait
        with contextlib.suppress(OSError):  # the other end is closed
            while part := os.read(ours, 4096):
                seen.extend(part)

    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=theirs, env={**os.environ, "TERM": "xterm"}) as watch:
        os.close(theirs)
        reader = threading.Thread(target=read)
        reader.start()
        end = time.monotonic() + 60
        for step in (1, 2):
            while f"{step} of 3".encode() not in seen:
                if watch.poll() is not None or time.monotonic() > end:
                    watch.kill()
                    pytest.fail(f"no step {step} on its screen: {bytes(seen[-300:])!r}")
                time.sleep(0.05)
            _log(run, step + 1)
        _grade(run, 3)
        out, _ = watch.communicate(timeout=60)
    reader.join()
    os.close(ours)
    assert watch.returncode == 0 and "3 of 3, done" in out.decode()
