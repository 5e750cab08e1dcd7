"""Any sample of a folder by its number: markers say what there is, the headers of a shard where it lies."""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from entropy_vision.errors import InputError, InputReason

from .archive import canonical, checksums, locate, read_marker, unpack
from .sample import Sample
from .shards import decoded, existing, finished


@dataclass(frozen=True, kw_only=True)
class Index:
    """What the markers of a folder say, small enough for every process to hold (some 200 bytes a sample).

    Attributes:
        shards: the tars, in order.
        first: the number of each shard's first sample.
        keys: of all n samples, in the order of the shards.
        tokens: int64 [n], the visual tokens of each (`len(sample)`).
        seals: a digest of the checksums of each one's members.
        fingerprint: of all markers: another one means another content.
    """

    shards: tuple[Path, ...]
    first: tuple[int, ...]
    keys: tuple[str, ...]
    tokens: np.ndarray
    seals: tuple[bytes, ...]
    fingerprint: str


def read_index(folder: Path) -> Index:
    """The index of a folder; no shard is opened.

    Raises:
        InputError: no shards here, or a marker that is damaged.
    """
    shards, first, keys, tokens, seals = [], [], list[str](), list[int](), list[bytes]()
    content = hashlib.sha256()
    for path in finished(folder):
        marker = read_marker(path)
        content.update(canonical([marker.shard, marker.sha256, marker.samples]).encode())
        shards.append(folder / marker.shard)
        first.append(len(keys))
        try:
            keys += [str(line["key"]) for line in marker.samples]
            tokens += [int(line["tokens_kept"]) for line in marker.samples]
            seals += [_seal(line["crc32"]) for line in marker.samples]
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(path, InputReason.DAMAGED, f"the marker of a shard is damaged ({error!r})") from None
    return Index(
        shards=tuple(shards),
        first=tuple(first),
        keys=tuple(keys),
        tokens=np.array(tokens, np.int64),
        seals=tuple(seals),
        fingerprint=content.hexdigest(),
    )


@dataclass(frozen=True)
class Access:
    """Reads single samples; what it has learned of a shard's headers it keeps (16 bytes a sample)."""

    index: Index
    check: bool = True
    _places: dict[int, np.ndarray] = field(default_factory=dict)

    def __getitem__(self, number: int) -> Sample:
        """Sample `number` in the order of the shards.

        Raises:
            InputError: its shard is gone or not what the marker says, or the sample is damaged.
        """
        key, at = self.index.keys[number], bisect_right(self.index.first, number) - 1
        shard = self.index.shards[at]
        if at not in self._places:
            self._places[at] = self._located(at)
        start, end = self._places[at][number - self.index.first[at]].tolist()
        with existing(shard).open("rb") as file:
            file.seek(start)
            found = list(unpack(shard, file.read(end - start)))
        if [name for name, _ in found] != [key]:
            raise InputError(shard, InputReason.DAMAGED, f"sample {key} is not the one its marker names")
        members = found[0][1]
        if self.check and _seal(checksums(members)) != self.index.seals[number]:
            raise InputError(shard, InputReason.DAMAGED, f"sample {key}: a checksum does not fit")
        return decoded(shard, key, members)

    def _located(self, at: int) -> np.ndarray:
        """int64 [samples of the shard, 2]: where each begins and ends."""
        shard = existing(self.index.shards[at])
        places = locate(shard)
        bounds = (*self.index.first, len(self.index.keys))
        if tuple(places) != self.index.keys[bounds[at] : bounds[at + 1]]:
            raise InputError(shard, InputReason.DAMAGED, "its samples are not those its marker names")
        return np.array(list(places.values()), np.int64)


def _seal(crc32: dict[str, Any]) -> bytes:
    return hashlib.blake2b(canonical(crc32).encode(), digest_size=16).digest()
