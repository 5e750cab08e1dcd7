"""Shards of kept patches: plain tar files that webdataset reads, and that this module reads without trusting them.

    write_shards([kept, ...], "out")             # PatchSets, of whatever origin
    for sample in read_shards("out"): ...        # PatchSets again; exact for store="raw"

`preprocess` writes the same shards from files.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from entropy_vision.errors import InputError, InputReason, UsageError
from entropy_vision.frames import decode
from entropy_vision.merge import shrink
from entropy_vision.patchset import PatchSet
from entropy_vision.sampling import Sampling

from .archive import checksums, markers, pack, read_marker, tars, unpack, write_shard
from .paths import as_path
from .sample import STORES, UNDECODABLE, Sample, blank, from_members, to_members
from .source import by_name, localized, sha256_of

if TYPE_CHECKING:
    from .reader import ShardReader

SHARD_SAMPLES = 1000
SHARD_BYTES = 64 << 20


def write_shards(
    samples: Iterable[PatchSet],
    out: str | Path,
    *,
    store: str = "raw",
    shard_samples: int = SHARD_SAMPLES,
    shard_bytes: int = SHARD_BYTES,
) -> dict[str, int]:
    """Write kept patches to shards in a folder that holds none yet.

    Args:
        samples: PatchSets, or Samples with keys of their own; a plain PatchSet is named by its number.
        out: the folder; made where it is not there.
        store: "raw" keeps the pixels exactly, "mosaic" as JPEG; "index" is for `preprocess`, which knows the files.
        shard_samples, shard_bytes: a shard is closed before it holds more than either.

    Returns:
        {"shards", "samples", "bytes", "tokens_total", "tokens_kept"}

    Raises:
        UsageError: the folder holds shards, a key comes twice, or the store is unknown.
    """
    out = as_path(out)
    if store not in STORES or store == "index":
        raise UsageError(f'store must be "raw" or "mosaic" here, got {store!r}')
    if shard_samples < 1 or shard_bytes < 1:
        raise UsageError("shard_samples and shard_bytes must be at least 1")
    out.mkdir(parents=True, exist_ok=True)
    if tars(out) or markers(out):
        raise UsageError(f"{out} holds shards already: name another folder, or remove them")
    total = {"shards": 0, "samples": 0, "bytes": 0, "tokens_total": 0, "tokens_kept": 0}
    parts: list[bytes] = []
    lines: list[dict[str, Any]] = []
    seen: set[str] = set()

    def close() -> None:
        if parts:
            total["bytes"] += write_shard(out, total["shards"], parts, lines).bytes
            total["shards"] += 1
            parts.clear()
            lines.clear()

    for number, patches in enumerate(samples):
        sample = patches if isinstance(patches, Sample) else _named(patches, f"{number:08d}")
        if sample.key in seen:
            raise UsageError(f"two samples have the key {sample.key!r}")
        seen.add(sample.key)
        members = to_members(sample, store)
        part = pack(sample.key, members)
        if parts and (len(parts) >= shard_samples or sum(map(len, parts)) + len(part) > shard_bytes):
            close()
        parts.append(part)
        lines.append(line(sample, members))
        total["samples"] += 1
        total["tokens_total"] += sample.bits.size
        total["tokens_kept"] += len(sample)
    close()
    return total


def read_shards(
    folder: str | Path,
    *,
    check: bool = True,
    shuffle: bool = False,
    seed: int = 0,
    epoch: int = 0,
    batch: int | None = None,
    tokens: int | None = None,
    rank: int | None = None,
    world: int | None = None,
) -> ShardReader:
    """The samples of a folder: a torch IterableDataset, and an iterable without any DataLoader too.

    Each is a PatchSet with its key, source, times and record. Samples stored as "index" hold no pixels: their source is
    decoded again, as the record says, and must still have the checksum it had. `ShardReader` says how samples are
    ordered, dealt to ranks and workers, and resumed.

    Args:
        check: compare the checksum of every member first (about 1 ms a megabyte).
        shuffle: a permutation of all samples, by `seed` and `epoch`, instead of the order of the shards.
        batch: lists of samples, so many a step on all ranks together.
        tokens: lists of samples with at most so many visual tokens, one list a step for every rank.
        rank, world: this process and how many share the samples; from RANK and WORLD_SIZE where these are set.

    Raises:
        UsageError: at the call, for numbers that cannot work.
        InputError: on reading, no shards here, a marker, shard or sample that is damaged, or a source that is gone or
            changed.
    """
    from .reader import ShardReader  # torch

    return ShardReader(
        folder,
        check=check,
        shuffle=shuffle,
        seed=seed,
        epoch=epoch,
        batch=batch,
        tokens=tokens,
        rank=rank,
        world=world,
    )


def straight_through(folder: Path, *, check: bool) -> Iterator[Sample]:
    """The samples of a folder in the order of its shards, each file read once from its start to its end."""
    for path in finished(folder):
        marker = read_marker(path)
        lines = iter(marker.samples)
        shard = folder / marker.shard
        for key, members in members_of(shard):
            wanted = next(lines, None)
            if wanted is None or wanted["key"] != key:
                raise InputError(shard, InputReason.DAMAGED, f"sample {key} is not the one its marker names")
            if check and wanted["crc32"] != checksums(members):
                raise InputError(shard, InputReason.DAMAGED, f"sample {key}: a checksum does not fit")
            yield decoded(shard, key, members)
        if next(lines, None) is not None:
            raise InputError(shard, InputReason.DAMAGED, "samples are missing at its end")


def line(sample: Sample, members: dict[str, bytes]) -> dict[str, Any]:
    """What the marker says of a sample."""
    return {
        "key": sample.key,
        "source": sample.source,
        "sha256": sample.record.get("sha256", ""),
        "frames": int(sample.grid[0]),
        "tokens_total": int(sample.bits.size),
        "tokens_kept": len(sample),
        "crc32": checksums(members),
    }


def _named(patches: PatchSet, key: str) -> Sample:
    return Sample(
        key=key,
        pixels=patches.pixels,
        positions=patches.positions,
        bits=patches.bits,
        selector=patches.selector,
        spans=patches.spans,
        pts_seconds=np.zeros(patches.grid[0]),
    )


def finished(folder: Path) -> list[Path]:
    """The markers of a folder that must hold some."""
    found = markers(folder)
    if not found:
        reason = InputReason.MISSING if not folder.exists() else InputReason.EMPTY
        raise InputError(folder, reason, "there are no finished shards in this folder: preprocess writes some")
    return found


def members_of(shard: Path) -> Iterator[tuple[str, dict[str, bytes]]]:
    """(key, members) of every sample of a shard; an InputError where the tar is gone."""
    return unpack(existing(shard))


def existing(shard: Path) -> Path:
    """The shard of a marker; an InputError where it is gone."""
    if not shard.is_file():
        raise InputError(shard, InputReason.MISSING, "the shard is gone, its marker is still there")
    return shard


def decoded(shard: Path, key: str, members: dict[str, bytes]) -> Sample:
    """The sample of its members; where they hold no pixels, from its source."""
    try:
        pixels = blank(members)
        sample = from_members(key, members, pixels)
    except UNDECODABLE as error:
        raise InputError(shard, InputReason.DAMAGED, f"sample {key} cannot be decoded ({error})") from None
    return sample if pixels is None else replace(sample, pixels=_from_source(sample))


def _from_source(sample: Sample) -> np.ndarray:
    """The pixels of a sample that stores positions only, decoded from its source as it was then."""
    how = sample.record.get("frames")
    if not how:
        raise InputError(sample.source, InputReason.MISSING, f"sample {sample.key} does not say how it was decoded")
    with tempfile.TemporaryDirectory() as scratch, localized(by_name(sample.source), Path(scratch)) as path:
        if sha256_of(path) != sample.record["sha256"]:
            raise InputError(sample.source, InputReason.CHANGED, "the file has changed since its patches were chosen")
        frames, _ = decode(path, Sampling.read(how), size=how["size"], salvage=how["salvage"])
    if frames.count != sample.grid[0]:
        detail = f"{frames.count} frames decode, the sample has {sample.grid[0]}"
        raise InputError(sample.source, InputReason.DAMAGED, detail)
    spans = np.ones((len(sample), 2), np.int32) if sample.spans is None else sample.spans
    return shrink(frames.pixels, np.hstack([sample.positions, spans]), sample.patch_size)
