"""A file is whole under its name or not there, whatever happens while it is written."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from entropy_vision.atomic import TEMPORARY, atomic_file, atomic_write, sweep


def test_atomic_write_replaces_the_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    atomic_write(path, "ü")
    assert path.read_bytes() == "ü".encode()
    atomic_write(path, b"second", durable=False)
    assert path.read_bytes() == b"second"
    assert list(tmp_path.iterdir()) == [path]


def test_a_failure_leaves_the_older_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    atomic_write(path, b"old")
    with pytest.raises(RuntimeError), atomic_file(path) as file:
        file.write(b"new")
        raise RuntimeError("in the middle")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_missing_folder_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(OSError):
        atomic_write(tmp_path / "gone" / "a.bin", b"x")


def test_a_killed_writer_never_leaves_half_a_file_and_sweep_removes_its_litter(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom entropy_vision.atomic import atomic_write\nnumber = 0\n"
        "while True:\n    number += 1\n    atomic_write(sys.argv[1], bytes([number % 256]) * 3_000_000)"
    )
    path = tmp_path / "a.bin"
    for _ in range(4):
        writer = subprocess.Popen([sys.executable, "-c", code, str(path)])
        until = time.monotonic() + 20
        while not path.exists() and time.monotonic() < until:
            time.sleep(0.01)
        time.sleep(0.05)
        writer.kill()
        writer.wait()
        content = path.read_bytes()
        assert len(content) == 3_000_000 and len(set(content)) == 1
    sweep(tmp_path)
    assert [other for other in tmp_path.iterdir() if other.name.startswith(TEMPORARY)] == []
