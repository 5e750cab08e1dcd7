"""The doctor: finds what is broken and names the line that mends it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from entropy_vision import doctor
from entropy_vision.errors import CheckFailed
from entropy_vision.options import DoctorOptions


@pytest.mark.slow
def test_the_doctor_agrees_with_this_machine() -> None:
    # one thread: a machine may be set up with more threads than this process has cores
    done = subprocess.run(
        [sys.executable, "-m", "entropy_vision.cli", "doctor", "--json"],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    result = json.loads(done.stdout)
    assert done.returncode == 0, done.stderr
    assert result["ok"] is True
    assert [set(one) for one in result["checks"]] == [{"name", "ok", "detail", "mend"}] * len(doctor.CHECKS)
    assert all(one["ok"] and one["detail"] and not one["mend"] for one in result["checks"])


def test_a_missing_libgl_is_mended_by_the_headless_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    line = "libGL.so.1: cannot open shared object file: No such file or directory"
    (tmp_path / "cv2.py").write_text(f"raise ImportError({line!r})")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "cv2", raising=False)
    check = doctor.check_cv2()
    assert not check.ok and line in check.detail
    assert check.mend.endswith("pip install opencv-python-headless")


def test_a_torch_that_does_not_fit_torchvision_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "__init__.py").write_text(
        "raise RuntimeError('operator torchvision::nms does not exist')"
    )
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        monkeypatch.delitem(sys.modules, name)
    check = doctor.check_torch_pair()
    assert not check.ok and "torchvision::nms" in check.detail and "torch torchvision" in check.mend


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        if name == "safetensors":
            raise metadata.PackageNotFoundError(name)
        return "1"

    monkeypatch.setattr(doctor.metadata, "version", version)
    check = doctor.check_packages()
    assert (check.ok, check.detail, check.mend) == (False, "missing: safetensors", "python -m pip install safetensors")


@pytest.mark.parametrize("code", ["import sys; sys.exit('decoder died')", "print(5)"])
def test_a_decoder_that_dies_or_loses_frames_is_told(code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = subprocess.run

    def run(line: list[str], **options: object) -> subprocess.CompletedProcess[str]:
        return real([line[0], "-c", code], **options)  # type: ignore[call-overload,no-any-return]

    monkeypatch.setattr(doctor.subprocess, "run", run)
    check = doctor.check_pyav()
    assert not check.ok and ("decoder died" in check.detail or "6 frames were written, 5 came back" in check.detail)
    assert check.mend.endswith("av")


def test_a_decoder_that_hangs_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(line: list[str], **options: object) -> None:
        raise subprocess.TimeoutExpired(line, 60)

    monkeypatch.setattr(doctor.subprocess, "run", run)
    assert not doctor.check_pyav().ok


def test_one_failed_check_fails_the_doctor_and_keeps_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = doctor.Check("opencv", False, "broken", "mend it so")
    monkeypatch.setattr(doctor, "CHECKS", (doctor.check_python, lambda: wrong))
    with pytest.raises(CheckFailed, match="1 of 2 checks failed: opencv: mend it so") as failed:
        doctor.run_doctor(DoctorOptions())
    assert failed.value.result["ok"] is False
    assert [one["ok"] for one in failed.value.result["checks"]] == [True, False]  # type: ignore[attr-defined]


def test_usable_cores_are_at_least_one_and_no_more_than_there_are() -> None:
    assert 1 <= doctor.usable_cores() <= (os.cpu_count() or 1)
