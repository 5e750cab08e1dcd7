"""Is every byte of a folder of shards what was written, does every sample decode, and is every input told once?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from entropy_vision.errors import CheckFailed, InputError

from .archive import Marker, checksums, marker_path, read_marker, tars
from .ledger import SUPERSEDED, Outcome, read_tables
from .paths import as_path
from .plan import read_plan, settled_anew
from .sample import UNDECODABLE, blank, from_members
from .shards import finished, members_of
from .source import sha256_of


def verify(folder: str | Path) -> dict[str, Any]:
    """Check every hash and decode every sample of a folder (of "index" samples the arrays; their sources are not read).

    Returns:
        {"shards", "samples", "bad"}: bad counts damaged samples, one for a shard or marker that cannot be read, and
        inputs that the tables tell wrongly; "superseded" where samples are of what an input held before; and
        "unfinished", inputs of a plan that a run has not come to yet: the same line goes on.

    Raises:
        CheckFailed: something is bad; the message names the first, `result` holds the counts and "details".
        InputError: there are no shards here.
    """
    folder = as_path(folder)
    marked = finished(folder)
    faults: list[str] = []
    samples = 0
    keys: dict[str, str] = {}
    for path in marked:
        try:
            marker = read_marker(path)
            samples += len(marker.samples)
            held = [str(entry["key"]) for entry in marker.samples]
            faults += [f"{folder / marker.shard}: sample {key} is in {keys[key]} too" for key in held if key in keys]
            keys |= dict.fromkeys(held, marker.shard)
            faults += _faults(folder / marker.shard, marker)
        except InputError as error:
            faults.append(str(error))
    known = {marker_path(folder / path.name).name for path in marked}
    faults += [f"{tar}: a shard without a marker" for tar in tars(folder) if marker_path(tar).name not in known]
    mend = "remove that shard and its .json, preprocess again" if faults else "preprocess again, if need be --overwrite"
    tables = read_tables(folder)
    plan = read_plan(folder)
    tables |= settled_anew(plan, tables)  # as the end of a run that was stopped would have left them
    faults += _told_wrongly(folder, tables, keys)
    result: dict[str, Any] = {"shards": len(marked), "samples": samples, "bad": len(faults)}
    if old := sum(row.status == SUPERSEDED for rows in tables.values() for row in rows):
        result[SUPERSEDED] = old
    if waiting := sum(len(entries) for chunk, entries in plan.chunks.items() if chunk not in tables):
        result["unfinished"] = waiting
    if faults:
        message = f"{len(faults)} bad in {folder}; first: {faults[0]}; {mend}"
        raise CheckFailed(message, {**result, "details": faults[:100]})
    return result


def _told_wrongly(folder: Path, tables: Mapping[int, Sequence[Outcome]], keys: Mapping[str, str]) -> Iterator[str]:
    """A line for every input that the tables tell twice, or whose sample is not in the shard they name."""
    told: set[str] = set()
    for row in (row for rows in tables.values() for row in rows):
        if row.status != SUPERSEDED and row.source in told:
            yield f"{folder / 'inputs'}: {row.source} is told twice"
        told |= {row.source} if row.status != SUPERSEDED else set()
        if row.shard and keys.get(row.key) != row.shard:
            yield f"{folder / 'inputs'}: sample {row.key} of {row.source} is not in {row.shard}"


def _faults(shard: Path, marker: Marker) -> list[str]:
    """What is wrong with one shard, a line for every bad sample."""
    faults = []
    wanted = {str(entry["key"]): entry["crc32"] for entry in marker.samples}
    missing = dict.fromkeys(wanted)
    try:
        for key, members in members_of(shard):
            if key not in missing:
                faults.append(f"{shard}: sample {key} is unknown to the marker")
                continue
            del missing[key]
            if wanted[key] != checksums(members):
                faults.append(f"{shard}: sample {key}: a checksum does not fit")
                continue
            try:
                from_members(key, members, pixels=blank(members))
            except UNDECODABLE as error:
                faults.append(f"{shard}: sample {key} cannot be decoded ({error})")
    except InputError as error:
        faults.append(str(error))
    else:
        faults += [f"{shard}: sample {key} is missing" for key in missing]
    if not faults and (sha256_of(shard), shard.stat().st_size) != (marker.sha256, marker.bytes):
        faults.append(f"{shard}: the sha256 of the file does not fit, outside its samples")
    return faults
