"""The tar layer of a shard: bytes that repeat, members that cannot escape or run code, a marker beside each shard.

A shard `shard-000000.tar` is done when `shard-000000.json` is beside it: the tar is written under a temporary name,
synced and renamed first, its marker after it. The marker holds the tar's size and sha256, the crc32 of every member,
and a digest of itself. A tar without a marker is not read.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import tarfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from entropy_vision.atomic import atomic_file, atomic_write
from entropy_vision.errors import InputError, InputReason

from .paths import is_remote

VERSION = 1
_END = bytes(1024)  # two empty blocks end a tar
_SHARD = re.compile(r"shard-(?P<number>\d{6,})(?:_(?P<part>\d{3,}))?\.(?:tar|json)")
# A key has no dot, because readers split a name at its first dot. What may follow is all that is ever decoded.
_MEMBER = re.compile(r"(?P<key>[A-Za-z0-9_-]{1,128})\.(?P<kind>json|(?:idx|bits|span|patch)\.npy|patch\d{0,4}\.jpg)")

Members = Mapping[str, bytes]


@dataclass(frozen=True, kw_only=True)
class Marker:
    """What the marker beside a shard says.

    Attributes:
        shard: file name of the tar.
        bytes: its size.
        sha256: its checksum.
        samples: for every sample, in order: key, source checksum, tokens, and {member kind: crc32}.
    """

    shard: str
    bytes: int
    sha256: str
    samples: tuple[dict[str, Any], ...]


def pack(key: str, members: Members) -> bytes:
    """One sample as tar records (without the end of an archive), so that samples can be joined to a shard.

    Args:
        key: letters, digits, "-" and "_".
        members: {kind: content}; kinds as in `_MEMBER`.
    """
    records = []
    for kind, content in members.items():
        name = f"{key}.{kind}"
        if not _MEMBER.fullmatch(name):
            raise ValueError(f"{name!r} cannot be a member of a shard")
        # owner, mode and time are fixed: the same sample gives the same bytes everywhere
        head = tarfile.TarInfo(name)
        head.size, head.mtime, head.mode = len(content), 0, 0o644
        records += [head.tobuf(tarfile.USTAR_FORMAT), content, bytes(-len(content) % tarfile.BLOCKSIZE)]
    return b"".join(records)


def unpack(path: Path, records: bytes | None = None) -> Iterator[tuple[str, dict[str, bytes]]]:
    """(key, members) of every sample, in the order of the file.

    Args:
        records: a part of the file, already read, as `locate` finds it; None for the file itself.

    Raises:
        InputError: DAMAGED, for a cut or broken archive, and for anything this format does not hold: links, devices,
            folders, names with a path, unknown endings, a member or key that comes twice.
    """
    done: set[str] = set()
    key, members = "", dict[str, bytes]()
    try:
        with (
            path.open("rb") if records is None else io.BytesIO(records) as file,
            tarfile.open(fileobj=file, mode="r:") as archive,
        ):
            for entry in archive:
                match = _MEMBER.fullmatch(entry.name)
                if not entry.isreg() or entry.issparse() or entry.pax_headers or match is None:
                    raise _damaged(path, f"member {entry.name!r} does not belong into a shard")
                if match["key"] != key:
                    if key:
                        yield key, members
                    done.add(key)
                    key, members = match["key"], {}
                    if key in done:
                        raise _damaged(path, f"sample {key} comes twice")
                if match["kind"] in members:
                    raise _damaged(path, f"member {entry.name} comes twice")
                content = archive.extractfile(entry)
                members[match["kind"]] = content.read() if content is not None else b""
                if len(members[match["kind"]]) != entry.size:
                    raise _damaged(path, f"member {entry.name} is cut off")
    except (tarfile.TarError, EOFError) as error:
        raise _damaged(path, f"the archive is broken ({error})") from None
    if key:
        yield key, members


def locate(path: Path) -> dict[str, tuple[int, int]]:
    """Where each sample's records begin and end in a shard, in order.

    Reads names and sizes of the headers alone, ten times as fast as `tarfile`; all else is for `unpack` to judge.

    Raises:
        InputError: DAMAGED, for a header without a name or size, a key that comes twice, or a file that is cut off.
    """
    places: dict[str, tuple[int, int]] = {}
    at, last = 0, ""
    # headers lie far apart: what a buffer reads ahead is thrown away, but a store is asked for whole blocks
    with path.open("rb") if is_remote(path) else path.open("rb", buffering=0) as file:
        while (head := file.read(tarfile.BLOCKSIZE)).strip(b"\0"):
            try:
                key = head[:100].decode("ascii").partition(".")[0]
                size = int(head[124:136].rstrip(b"\0 "), 8)
            except ValueError:
                raise _damaged(path, f"the archive is broken (no header at byte {at})") from None
            if size < 0 or (key != last and key in places):
                raise _damaged(path, f"the archive is broken (size or name at byte {at})")
            start, last = places.get(key, (at, at))[0], key
            at += tarfile.BLOCKSIZE - (-size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
            places[key] = start, at
            file.seek(at)
    if at > path.stat().st_size:
        raise _damaged(path, "the archive is cut off")
    return places


def checksums(members: Members) -> dict[str, int]:
    """{kind: crc32} of the members."""
    return {kind: zlib.crc32(content) for kind, content in members.items()}


def shard_name(number: int, part: int = 0) -> str:
    """File name of a shard; names sort as (number, part) do, up to a thousand parts."""
    return f"shard-{number:06d}_{part:03d}.tar" if part else f"shard-{number:06d}.tar"


def write_shard(
    folder: Path, number: int, parts: Iterable[bytes], samples: Iterable[dict[str, Any]], part: int = 0
) -> Marker:
    """Join packed samples to the shard of a number, then write its marker; each is whole or not there.

    Args:
        part: which of the number's shards, where one is not enough.
        parts: what `pack` gave, in order; read one at a time.
        samples: what the marker says of each.
    """
    name = shard_name(number, part)
    digest, size = hashlib.sha256(), 0
    with atomic_file(folder / name) as file:
        for records in chain(parts, (_END,)):
            file.write(records)
            digest.update(records)
            size += len(records)
    marker = Marker(shard=name, bytes=size, sha256=digest.hexdigest(), samples=tuple(samples))
    body = {"version": VERSION, **vars(marker), "samples": list(marker.samples)}
    atomic_write(marker_path(folder / name), canonical({**body, "digest": _digest(body)}) + "\n")
    return marker


def marker_path(shard: Path) -> Path:
    """The marker beside a shard."""
    return shard.with_suffix(".json")


def read_marker(path: Path) -> Marker:
    """The marker at `path`.

    Raises:
        InputError: DAMAGED, where it is not exactly what was written.
    """
    try:
        content = path.read_bytes()
        body = json.loads(content)
        written = canonical(body)  # JSON has several spellings of a name; one was written
        claimed = body.pop("digest")
        if _digest(body) != claimed or body["version"] != VERSION or not _SHARD.fullmatch(body["shard"]):
            raise ValueError("its digest does not fit")
        if content.decode().rstrip("\n") != written:
            raise ValueError("it is not as it was written")
        return Marker(shard=body["shard"], bytes=body["bytes"], sha256=body["sha256"], samples=tuple(body["samples"]))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _damaged(path, f"the marker of a shard is damaged ({error})") from None


def markers(folder: Path) -> list[Path]:
    """The markers of a folder, in the order of their shards."""
    return _ours(folder.glob("shard-*.json"))


def tars(folder: Path, number: int | None = None) -> list[Path]:
    """The shards of a folder, marked or not, in order; those of one number where it is given."""
    found = _ours(folder.glob("shard-*.tar" if number is None else f"shard-{number:06d}*.tar"))
    return [path for path in found if number is None or re.match(rf"shard-{number:06d}[_.]", path.name)]


def _ours(paths: Iterable[Path]) -> list[Path]:
    """Of these those that are named as shards are, in order."""
    found = {path: match for path in paths if (match := _SHARD.fullmatch(path.name))}
    return sorted(found, key=lambda path: (int(found[path]["number"]), int(found[path]["part"] or 0)))


def canonical(value: Any) -> str:
    """JSON with one spelling: keys sorted, no spaces, ASCII."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _digest(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(canonical(body).encode()).hexdigest()


def _damaged(path: Path, detail: str) -> InputError:
    return InputError(path, InputReason.DAMAGED, detail)
