"""Joules of a job, where the machine tells them: Linux's powercap counters of CPUs and memory, NVML's of GPUs.

A counter is of a whole package or device, so whatever else runs there is counted, too. Nothing is estimated: a machine
that tells nothing gives None.

Sources: the kernel's Documentation/power/powercap/powercap.rst (zones, energy_uj, max_energy_range_uj); NVML's
nvmlDeviceGetTotalEnergyConsumption (millijoules since the driver was loaded, Volta and newer).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

POWERCAP = Path("/sys/class/powercap")


@dataclass(frozen=True)
class Zone:
    """A counter of powercap.

    Attributes:
        name: what it counts: "package-0", "package-0 dram".
        path: its file, microjoules since some moment.
        limit: microjoules at which it begins again at 0.
    """

    name: str
    path: Path
    limit: int

    def read(self) -> int:
        """Microjoules. Raises OSError: since 2020 kernels show them to the superuser only, and some drivers have no
        data; or ValueError: what it says is no number."""
        return int(self.path.read_text())


def find_zones(root: Path = POWERCAP) -> tuple[Zone, ...]:
    """The counters that together are all that CPUs and memory take, none of it twice; none where there are none.

    A package's own zone holds its cores, "psys" the packages, so of these only packages are taken, each once however
    many drivers show it, and memory beside them, which is in none. Of two drivers the one that reads the processor's
    registers (intel-rapl) goes before the one that reads its memory (intel-rapl-mmio).

    Raises:
        OSError, ValueError: as of `Zone.read`.
    """
    found: dict[str, Zone] = {}
    for folder in sorted(root.glob("*:*"), key=lambda path: ("mmio" in path.name, path.name)):
        name = _name(folder)
        if name == "dram":  # intel-rapl:0:1 is in intel-rapl:0
            name = f"{_name(folder.with_name(folder.name.rpartition(':')[0]))} dram"
        counter, limit = folder / "energy_uj", folder / "max_energy_range_uj"
        if name.startswith("package-") and name not in found and counter.exists() and limit.exists():
            found[name] = Zone(name, counter, int(limit.read_text()))
    return tuple(found.values())


def _name(zone: Path) -> str:
    """What a zone calls itself, "" where it says nothing."""
    return (zone / "name").read_text().strip() if (zone / "name").exists() else ""


def passed(before: int, after: int, limit: int) -> int:
    """What a counter went on by that begins again at `limit`, at most once: some 20 minutes of a busy server."""
    return after - before if after >= before else after + limit - before


def measure_joules(
    run: Callable[[], object], repeats: int = 1, *, root: Path = POWERCAP, gpus: Sequence[str] = ()
) -> dict[str, float] | None:
    """Joules of one `run()`, the mean of `repeats`: counters go on by milliseconds, so give short jobs many.

    Args:
        root: powercap's folder.
        gpus: UUIDs ("GPU-...") of the devices that it works on; pynvml has to be installed.

    Returns:
        {counter: joules}; None where one of them cannot be read, for the sum would be too low, or there is none.
    """
    untold = (OSError, ValueError)  # of counters alone: the job's own errors are its caller's
    try:
        zones, meters = find_zones(root), _gpu_meters(gpus)
        if meters is None or not (zones or meters):
            return None
        before = [zone.read() for zone in zones]
        started = {name: read() for name, read in meters.items()}
    except untold:
        return None
    for _ in range(repeats):
        run()
    try:
        spent = {name: read() - started[name] for name, read in meters.items()}
        after = [zone.read() for zone in zones]
    except untold:
        return None
    rapl = zip(zones, before, after, strict=True)
    found = {zone.name: passed(first, last, zone.limit) / 1e6 for zone, first, last in rapl}
    found |= {name: energy / 1e3 for name, energy in spent.items()}
    return {name: joules / repeats for name, joules in found.items()}


def _gpu_meters(gpus: Sequence[str]) -> dict[str, Callable[[], int]] | None:
    """What reads the millijoules of each device, or raises OSError; None where there is no way to."""
    if not gpus:
        return {}
    try:
        import pynvml
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
        handles = {uuid: pynvml.nvmlDeviceGetHandleByUUID(uuid) for uuid in gpus}
        for handle in handles.values():
            pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)  # older devices have no such counter
    except pynvml.NVMLError:
        return None

    def meter(handle: object) -> Callable[[], int]:
        def read() -> int:
            try:
                return int(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle))
            except pynvml.NVMLError as error:  # a device that was lost meanwhile
                raise OSError(str(error)) from error

        return read

    return {uuid: meter(handle) for uuid, handle in handles.items()}
