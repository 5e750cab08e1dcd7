"""Is every byte of a folder of shards what was written, and does every sample decode?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from entropy_vision.errors import CheckFailed, InputError

from .archive import Marker, checksums, marker_path, read_marker, tars
from .paths import as_path
from .sample import from_members
from .shards import blank, finished, members_of
from .source import sha256_of


def verify(folder: str | Path) -> dict[str, Any]:
    """Check every hash and decode every sample of a folder (of "index" samples the arrays; their sources are not read).

    Returns:
        {"shards", "samples", "bad"}: bad counts damaged samples, and one for a shard or marker that cannot be read.

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
    result: dict[str, Any] = {"shards": len(marked), "samples": samples, "bad": len(faults)}
    if faults:
        message = (
            f"{len(faults)} bad in {folder}; first: {faults[0]}; remove that shard and its .json, preprocess again"
        )
        raise CheckFailed(message, {**result, "details": faults[:100]})
    return result


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
            except (ValueError, KeyError, TypeError) as error:
                faults.append(f"{shard}: sample {key} cannot be decoded ({error})")
    except InputError as error:
        faults.append(str(error))
    else:
        faults += [f"{shard}: sample {key} is missing" for key in missing]
    if not faults and (sha256_of(shard), shard.stat().st_size) != (marker.sha256, marker.bytes):
        faults.append(f"{shard}: the sha256 of the file does not fit, outside its samples")
    return faults
