"""Joules out of counters: a powercap tree that the test writes, and a library for GPUs that it makes up."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from entropy_vision.energy import Zone, find_zones, measure_joules, passed

TREE = {
    "intel-rapl": None,  # the driver itself counts nothing
    "intel-rapl:0": ("package-0", 262_143_000_000),
    "intel-rapl:0:0": ("core", 262_143_000_000),
    "intel-rapl:0:1": ("dram", 65_712_999_613),
    "intel-rapl:1": ("package-1", 262_143_000_000),
    "intel-rapl:2": ("psys", 262_143_000_000),
    "intel-rapl-mmio:0": ("package-0", 262_143_000_000),  # the same package once more
    "intel-rapl-mmio:0:0": ("dram", 65_712_999_613),
    "dtpm": None,
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for folder, zone in TREE.items():
        (tmp_path / folder).mkdir()
        if zone is not None:
            (tmp_path / folder / "name").write_text(f"{zone[0]}\n")
            (tmp_path / folder / "max_energy_range_uj").write_text(f"{zone[1]}\n")
            put(tmp_path, folder, 1_000_000)
    return tmp_path


def put(root: Path, folder: str, microjoules: int) -> None:
    (root / folder / "energy_uj").write_text(f"{microjoules}\n")


def test_packages_and_their_memory_are_counted_once_each(root: Path) -> None:
    assert find_zones(root) == (
        Zone("package-0", root / "intel-rapl:0" / "energy_uj", 262_143_000_000),
        Zone("package-0 dram", root / "intel-rapl:0:1" / "energy_uj", 65_712_999_613),
        Zone("package-1", root / "intel-rapl:1" / "energy_uj", 262_143_000_000),
    )


def test_a_job_is_told_the_mean_of_its_runs(root: Path) -> None:
    runs: list[int] = []

    def run() -> None:
        runs.append(len(runs))
        put(root, "intel-rapl:0", 1_000_000 + 3_000_000 * len(runs))
        put(root, "intel-rapl:0:1", 1_000_000 + 500_000 * len(runs))
        put(root, "intel-rapl:0:0", 900_000_000)  # cores are inside their package
        put(root, "intel-rapl:2", 900_000_000)

    assert measure_joules(run, 4, root=root) == {"package-0": 3.0, "package-0 dram": 0.5, "package-1": 0.0}
    assert len(runs) == 4


def test_a_counter_that_begins_again_goes_on(root: Path) -> None:
    assert passed(7, 19, 100) == 12 and passed(90, 19, 100) == 29 and passed(5, 5, 100) == 0
    put(root, "intel-rapl:1", 262_142_000_000)
    found = measure_joules(lambda: put(root, "intel-rapl:1", 2_000_000), root=root)
    assert found is not None and found["package-1"] == 3.0


def test_a_machine_that_tells_nothing_is_not_asked_twice(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not one of several counters may be missing from a sum; the job runs in none of these cases."""

    def never() -> None:
        raise AssertionError("nothing would come of it")

    assert measure_joules(never, root=tmp_path / "nowhere") is None

    def refused(zone: Zone) -> int:
        if zone.name == "package-1":
            raise PermissionError(13, "Permission denied")
        return 5

    with monkeypatch.context() as context:
        context.setattr(Zone, "read", refused)
        assert measure_joules(never, root=root) is None
    monkeypatch.setitem(sys.modules, "pynvml", None)  # not installed
    assert measure_joules(never, root=root, gpus=("GPU-1",)) is None


def test_a_counter_that_fails_is_not_told_and_a_job_that_fails_says_so(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = Zone.read
    for error in (OSError(61, "No data available"), ValueError("no number")):
        times: list[str] = []

        def failing(zone: Zone, error: Exception = error, times: list[str] = times) -> int:
            times.append(zone.name)
            if len(times) > 3:  # in mid-run
                raise error
            return read(zone)

        with monkeypatch.context() as context:
            context.setattr(Zone, "read", failing)
            assert measure_joules(lambda: None, root=root) is None and len(times) == 4
    put(root, "intel-rapl:1", 5)
    (root / "intel-rapl:1" / "max_energy_range_uj").write_text("")
    assert measure_joules(lambda: None, root=root) is None

    def job() -> None:
        raise OSError("the job's own")

    (root / "intel-rapl:1" / "max_energy_range_uj").write_text("100")
    with pytest.raises(OSError, match="the job's own"):
        measure_joules(job, root=root)


class Nvml(SimpleNamespace):
    """NVML with one device that counts and one that cannot."""

    class NVMLError(Exception):
        pass

    counter = 7_000

    def nvmlInit(self) -> None:
        pass

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:
        return uuid

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: str) -> int:
        if handle != "GPU-1":
            raise self.NVMLError("not supported")
        return self.counter


def test_devices_that_count_are_told_beside_the_cpu(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nvml = Nvml()
    monkeypatch.setitem(sys.modules, "pynvml", nvml)

    def run() -> None:
        nvml.counter += 2_500

    found: Any = measure_joules(run, 2, root=root, gpus=("GPU-1",))
    assert found["GPU-1"] == 2.5 and found["package-0"] == 0.0
    assert measure_joules(run, root=root / "none", gpus=("GPU-1",)) == {"GPU-1": 2.5}
    assert measure_joules(run, root=root, gpus=("GPU-1", "GPU-2")) is None

    def gone(handle: str) -> int:
        raise nvml.NVMLError("GPU is lost")

    assert (
        measure_joules(
            lambda: setattr(nvml, "nvmlDeviceGetTotalEnergyConsumption", gone), root=root / "none", gpus=("GPU-1",)
        )
        is None
    )
