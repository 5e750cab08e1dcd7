"""Shards: what goes in comes out, the same bytes each time, and nothing but what was put in."""

from __future__ import annotations

import io
import json
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from media import as_frames, drifting
from PIL import Image

from entropy_vision import EntropyTokenizer
from entropy_vision.data import read_shards, write_shards
from entropy_vision.data.archive import checksums, markers, pack, read_marker, unpack, write_shard
from entropy_vision.data.peek import holds_shards, peek
from entropy_vision.data.sample import (
    Sample,
    _layout,
    _most,
    decode_mosaic,
    encode_mosaic,
    from_members,
    to_members,
)
from entropy_vision.data.verify import verify
from entropy_vision.errors import CheckFailed, InputError, InputReason, UsageError
from entropy_vision.frames import Frames
from entropy_vision.options import ShowOptions
from entropy_vision.patchset import PatchSet
from entropy_vision.show import run_show


def patch_set(seed: int = 0, grid: tuple[int, int, int] = (3, 4, 5), side: int = 16, kept: int = 11) -> PatchSet:
    rng = np.random.default_rng(seed)
    chosen = np.sort(rng.choice(np.prod(grid), kept, replace=False))
    smooth = rng.integers(0, 200, (kept, 1, 1, 3)) + np.arange(side)[None, :, None, None]
    return PatchSet(
        pixels=np.broadcast_to(smooth, (kept, side, side, 3)).astype(np.uint8),
        positions=np.stack(np.unravel_index(chosen, grid), 1).astype(np.int32),
        bits=rng.gamma(2.0, 10.0, grid).astype(np.float32),
        selector="rate",
    )


def assert_equal(one: PatchSet, other: PatchSet) -> None:
    for name in ("pixels", "positions", "bits"):
        left, right = getattr(one, name), getattr(other, name)
        assert left.dtype == right.dtype
        np.testing.assert_array_equal(left, right)
    assert one.selector == other.selector
    assert (one.spans is None) == (other.spans is None)
    if one.spans is not None and other.spans is not None:
        np.testing.assert_array_equal(one.spans, other.spans)


def test_merged_patches_keep_what_they_stand_for(tmp_path: Path) -> None:
    frames = as_frames(drifting(3, 48, 72))
    merged = EntropyTokenizer(8, keep=0.3, merge=4)(frames)
    assert merged.spans is not None
    write_shards([merged, EntropyTokenizer(8)(frames)], tmp_path)
    one, other = read_shards(tmp_path)
    assert_equal(merged, one)
    assert other.spans is None


def test_raw_shards_give_back_exactly_what_was_written(tmp_path: Path) -> None:
    written = [patch_set(seed) for seed in range(7)]
    told = write_shards(written, tmp_path, shard_samples=3)
    assert told["shards"] == 3 and told["samples"] == 7
    assert told["tokens_total"] == 7 * 60 and told["tokens_kept"] == 7 * 11
    again = list(read_shards(tmp_path))
    assert [sample.key for sample in again] == [f"{number:08d}" for number in range(7)]
    for one, other in zip(written, again, strict=True):
        assert isinstance(other, PatchSet)
        assert_equal(one, other)


def test_samples_keep_their_key_source_times_and_record(tmp_path: Path) -> None:
    patches = patch_set()
    sample = Sample(
        key="film-1",
        pixels=patches.pixels,
        positions=patches.positions,
        bits=patches.bits,
        source="/films/ü.mp4",
        pts_seconds=np.array([0.1, 0.2, 1 / 3]),
        record={"sha256": "abc"},
    )
    write_shards([sample], tmp_path)
    (again,) = read_shards(tmp_path)
    assert (again.key, again.source, again.record["sha256"]) == ("film-1", "/films/ü.mp4", "abc")
    np.testing.assert_array_equal(again.pts_seconds, sample.pts_seconds)


@settings(deadline=None, max_examples=40)
@given(count=st.integers(1, 40), side=st.sampled_from([1, 7, 8, 14, 16, 17, 28, 32]), seed=st.integers(0, 99))
def test_mosaic_gives_back_close_patches_of_any_size(count: int, side: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    flat = rng.integers(0, 256, (count, 1, 1, 3), dtype=np.uint8)
    pixels = np.broadcast_to(flat, (count, side, side, 3))
    again = decode_mosaic(encode_mosaic(pixels), count, side)
    assert again.shape == pixels.shape and again.dtype == np.uint8
    assert np.abs(again.astype(int) - pixels).max() <= 4  # no patch bleeds into its neighbour


def test_cells_of_a_mosaic_without_a_patch_are_grey() -> None:
    content = encode_mosaic(np.zeros((3, 16, 16, 3), np.uint8))
    sheet = np.asarray(Image.open(io.BytesIO(content))).astype(int)
    assert sheet.shape == (32, 32, 3) and np.abs(sheet[16:, 16:] - 128).max() <= 2


def test_mosaic_of_another_count_is_refused() -> None:
    content = encode_mosaic(patch_set().pixels)
    with pytest.raises(ValueError, match="mosaic"):
        decode_mosaic(content, 30, 16)
    with pytest.raises(ValueError, match="mosaic"):
        decode_mosaic(content[:100], 11, 16)


def test_many_patches_are_spread_over_several_sheets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("entropy_vision.data.sample._SHEET", 4)
    sample = Sample(key="a", **{name: getattr(patch_set(), name) for name in ("pixels", "positions", "bits")})
    members = to_members(sample, "mosaic")
    assert [kind for kind in members if kind.endswith(".jpg")] == ["patch.jpg", "patch1.jpg", "patch2.jpg"]
    again = from_members("a", members)
    assert np.abs(again.pixels.astype(int) - sample.pixels).mean() < 3


def test_equal_samples_give_equal_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_shards((patch_set(seed) for seed in range(3)), tmp_path / name, store="mosaic")
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()


def test_webdataset_reads_the_shards(tmp_path: Path) -> None:
    webdataset = pytest.importorskip("webdataset")
    written = [patch_set(seed) for seed in range(3)]
    write_shards(written, tmp_path)
    shard = str(next(tmp_path.glob("*.tar")))
    seen = list(webdataset.WebDataset(shard, shardshuffle=False))
    assert [sample["__key__"] for sample in seen] == ["00000000", "00000001", "00000002"]
    for one, other in zip(written, seen, strict=True):
        assert json.loads(other["json"])["grid"] == list(one.grid)
        np.testing.assert_array_equal(np.load(io.BytesIO(other["patch.npy"])), one.pixels)
        np.testing.assert_array_equal(np.load(io.BytesIO(other["idx.npy"])), one.positions)


def test_a_shard_is_an_archive_that_tar_itself_reads(tmp_path: Path) -> None:
    write_shards([patch_set()], tmp_path)
    with tarfile.open(tmp_path / "shard-000000.tar") as archive:
        entries = archive.getmembers()
    assert {entry.name for entry in entries} == {
        f"00000000.{kind}" for kind in ("json", "idx.npy", "bits.npy", "patch.npy")
    }
    assert all(entry.mtime == 0 and entry.uid == 0 and entry.isreg() for entry in entries)


def test_write_shards_refuses_what_cannot_be_told_apart(tmp_path: Path) -> None:
    write_shards([patch_set()], tmp_path)
    with pytest.raises(UsageError, match="holds shards"):
        write_shards([patch_set()], tmp_path)
    twice = Sample(key="a", **{name: getattr(patch_set(), name) for name in ("pixels", "positions", "bits")})
    with pytest.raises(UsageError, match="key"):
        write_shards([twice, twice], tmp_path / "b")
    with pytest.raises(UsageError, match="store"):
        write_shards([patch_set()], tmp_path / "c", store="index")


def test_reading_a_folder_without_shards_says_so(tmp_path: Path) -> None:
    for folder, reason in ((tmp_path, InputReason.EMPTY), (tmp_path / "gone", InputReason.MISSING)):
        for read in (lambda where: list(read_shards(where)), verify):
            with pytest.raises(InputError) as caught:
                read(folder)
            assert caught.value.reason is reason


# --- damage


def test_every_flipped_bit_is_found(tmp_path: Path) -> None:
    write_shards([patch_set(seed, side=8) for seed in range(2)], tmp_path)
    assert verify(tmp_path) == {"shards": 1, "samples": 2, "bad": 0}
    rng = np.random.default_rng(0)
    for path in (tmp_path / "shard-000000.tar", tmp_path / "shard-000000.json"):
        whole = path.read_bytes()
        for at in rng.integers(0, len(whole), 150):
            broken = bytearray(whole)
            broken[at] ^= 1 << int(rng.integers(8))
            path.write_bytes(broken)
            with pytest.raises(CheckFailed, match=r"shard-000000") as caught:
                verify(tmp_path)
            assert caught.value.result["bad"] >= 1 and "\n" not in caught.value.message
        path.write_bytes(whole)
    assert verify(tmp_path)["bad"] == 0


def test_every_truncation_is_found_and_never_read_as_whole(tmp_path: Path) -> None:
    write_shards([patch_set(seed, side=8) for seed in range(2)], tmp_path)
    path = tmp_path / "shard-000000.tar"
    whole = path.read_bytes()
    for length in np.random.default_rng(1).integers(0, len(whole), 400):
        path.write_bytes(whole[:length])
        with pytest.raises(CheckFailed):
            verify(tmp_path)
        if length < len(whole) - 1024:  # what follows is the end of the archive, of which nothing is needed
            with pytest.raises(InputError):
                list(read_shards(tmp_path))


def test_a_marker_that_says_the_same_in_other_words_is_not_what_was_written(tmp_path: Path) -> None:
    named = Sample(key="a", source="é.mp4", **{n: getattr(patch_set(), n) for n in ("pixels", "positions", "bits")})
    write_shards([named], tmp_path)
    marker = tmp_path / "shard-000000.json"
    content = marker.read_bytes()
    assert b"\\u00e9" in content
    marker.write_bytes(content.replace(b"\\u00e9", b"\\u00E9"))
    with pytest.raises(CheckFailed, match="not as it was written"):
        verify(tmp_path)


def test_a_damaged_sample_is_named_and_not_given_out(tmp_path: Path) -> None:
    write_shards([patch_set(seed) for seed in range(3)], tmp_path)
    path = tmp_path / "shard-000000.tar"
    with tarfile.open(path) as archive:
        at = archive.getmember("00000001.patch.npy").offset_data + 500
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckFailed, match="00000001") as caught:
        verify(tmp_path)
    assert caught.value.result["bad"] == 1
    samples = read_shards(tmp_path)
    assert next(samples).key == "00000000"
    with pytest.raises(InputError, match="00000001"):
        next(samples)


def test_a_shard_without_its_marker_or_a_marker_without_its_shard_is_bad(tmp_path: Path) -> None:
    write_shards([patch_set(seed) for seed in range(4)], tmp_path, shard_samples=2)
    (tmp_path / "shard-000000.json").rename(tmp_path / "aside")
    with pytest.raises(CheckFailed, match="without a marker"):
        verify(tmp_path)
    assert len(list(read_shards(tmp_path))) == 2
    (tmp_path / "aside").rename(tmp_path / "shard-000000.json")
    (tmp_path / "shard-000001.tar").unlink()
    with pytest.raises(CheckFailed, match="is gone"):
        verify(tmp_path)


# --- hostile archives


class Harm:
    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[object, tuple[str, ...]]:
        return (eval, (f"open({str(self.canary)!r}, 'w')",))


def plant(folder: Path, entries: list[tuple[tarfile.TarInfo, bytes]]) -> None:
    """A shard with a valid marker around any tar at all."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for entry, content in entries:
            entry.size = len(content) if entry.isreg() else 0
            archive.addfile(entry, io.BytesIO(content))
    write_shard(folder, 0, [buffer.getvalue()], [{"key": "a", "crc32": {}}])


def entry(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


@pytest.mark.parametrize(
    "info",
    [
        entry("a.pkl"),
        entry("a.pyd"),
        entry("a.pth"),
        entry("a.pickle"),
        entry("../a.json"),
        entry("/tmp/a.json"),
        entry("b/a.json"),
        entry("a.json", tarfile.SYMTYPE, "/etc/passwd"),
        entry("a.json", tarfile.LNKTYPE, "a.json"),
        entry("a.json", tarfile.CHRTYPE),
        entry("a.json", tarfile.FIFOTYPE),
        entry("a.json", tarfile.DIRTYPE),
        entry("pipe:touch x.json"),
        entry("ü.json"),
    ],
    ids=lambda info: f"{info.name}-{info.type!r}",
)
def test_members_that_do_not_belong_are_refused(tmp_path: Path, info: tarfile.TarInfo) -> None:
    canary = tmp_path / "canary"
    plant(tmp_path, [(info, pickle.dumps(Harm(canary)))])
    with pytest.raises(InputError):
        list(read_shards(tmp_path, check=False))
    with pytest.raises(CheckFailed):
        verify(tmp_path)
    assert not canary.exists()


def _huge(*shape: int) -> bytes:
    """An array whose header asks for more than it brings."""
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return stream.getvalue() + bytes(8)


def _bomb() -> bytes:
    """A JPEG's header of 60000 x 60000 pixels."""
    stream = io.BytesIO()
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(stream, "JPEG")
    content = bytearray(stream.getvalue())
    at = content.index(b"\xff\xc0") + 5
    content[at : at + 4] = (60000).to_bytes(2, "big") * 2
    return bytes(content)


@pytest.mark.parametrize(
    ("store", "changes"),
    [
        ("raw", {"patch.npy": _huge(10**5, 700, 700, 3)}),
        ("raw", {"idx.npy": _huge(10**13, 3)}),
        ("index", {"idx.npy": _huge(10**13, 3)}),
        ("raw", {"json": b"[" * 100_000}),
        ("raw", {"json": b'{"patch_size": Infinity, "kept": 11}'}),
        ("index", {"json": b'{"store": "index", "patch_size": 1000000, "kept": 11}'}),
        ("mosaic", {"patch.jpg": _bomb()}),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(f"{n}-{len(c)}" for n, c in value.items()),
)
def test_what_asks_for_more_than_it_brings_is_refused(store: str, changes: dict[str, bytes], tmp_path: Path) -> None:
    sample = Sample(key="a", **{name: getattr(patch_set(), name) for name in ("pixels", "positions", "bits")})
    hostile = {**to_members(sample, store), **changes}
    write_shard(tmp_path, 0, [pack("a", hostile)], [{"key": "a", "crc32": checksums(hostile)}])
    with pytest.raises(InputError, match="cannot be decoded"):
        list(read_shards(tmp_path))
    with pytest.raises(CheckFailed, match="cannot be decoded"):
        verify(tmp_path)


def test_a_sparse_member_is_refused(tmp_path: Path) -> None:
    """Two kilobytes that unfold to a terabyte."""
    entry = tarfile.TarInfo("a.json")
    entry.type = tarfile.GNUTYPE_SPARSE
    buffer = bytearray(entry.tobuf(tarfile.GNU_FORMAT))
    buffer[386:410] = b"%011o\0%011o\0" % (0, 0)
    buffer[483:495] = b"%011o\0" % (2**33 - 1)
    buffer[148:156] = b" " * 8
    buffer[148:156] = b"%06o\0 " % sum(buffer[:512])
    write_shard(tmp_path, 0, [bytes(buffer)], [{"key": "a", "crc32": {}}])
    with pytest.raises(InputError, match="does not belong"):
        list(read_shards(tmp_path, check=False))


def test_a_mosaic_is_no_larger_than_its_reader_takes() -> None:
    for side in (8, 16, 48, 64, 224):
        most = _most(side)
        _, columns, rows = _layout(most, side)
        assert columns * rows * side**2 <= 178_956_970 and (most == 65536 or side > 48)
        assert most == 65536 or np.prod(_layout(most + 1, side)[1:]) * side**2 > 178_956_970


def test_an_array_of_objects_runs_no_code(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    buffer = io.BytesIO()
    np.save(buffer, np.array([Harm(canary)], object), allow_pickle=True)
    members = to_members(
        Sample(key="a", **{name: getattr(patch_set(), name) for name in ("pixels", "positions", "bits")}), "raw"
    )
    hostile = {**members, "patch.npy": buffer.getvalue()}
    write_shard(tmp_path, 0, [pack("a", hostile)], [{"key": "a", "crc32": checksums(hostile)}])
    with pytest.raises(InputError, match="cannot be decoded"):
        list(read_shards(tmp_path))
    with pytest.raises(CheckFailed):
        verify(tmp_path)
    assert not canary.exists()


def test_a_member_or_key_that_comes_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    for parts in ([("a", "json"), ("a", "json")], [("a", "json"), ("b", "json"), ("a", "idx.npy")]):
        path.write_bytes(b"".join(pack(key, {kind: b"{}"}) for key, kind in parts) + bytes(1024))
        with pytest.raises(InputError, match="twice"):
            list(unpack(path))


@pytest.mark.parametrize("key", ["", "a.b", "../a", "a/b", "ü", "a" * 129])
def test_a_key_that_readers_would_split_is_never_written(key: str) -> None:
    with pytest.raises(ValueError, match="cannot be a member"):
        pack(key, {"json": b"{}"})


def test_a_failing_write_leaves_no_shard_behind(tmp_path: Path) -> None:
    def parts() -> object:
        yield pack("a", {"json": b"{}"})
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        write_shard(tmp_path, 0, parts(), [])
    assert list(tmp_path.iterdir()) == []


def test_markers_are_read_in_order_and_only_as_written(tmp_path: Path) -> None:
    write_shards([patch_set(seed) for seed in range(3)], tmp_path, shard_samples=1)
    assert [read_marker(path).shard for path in markers(tmp_path)] == [f"shard-{n:06d}.tar" for n in range(3)]
    path = markers(tmp_path)[0]
    body = json.loads(path.read_bytes())
    body["samples"][0]["tokens_kept"] = 1
    path.write_text(json.dumps(body))
    with pytest.raises(InputError, match="marker"):
        read_marker(path)


# --- looking at a sample


@pytest.mark.parametrize(("which", "number"), [("1", 1), ("00000002", 2)])
def test_a_sample_is_shown_where_its_patches_stood(tmp_path: Path, which: str, number: int) -> None:
    frames = [Frames(pixels=drifting(3, 64, 96, seed=seed), pts_seconds=np.arange(3.0)) for seed in range(3)]
    tok = EntropyTokenizer(patch_size=16, keep=0.5)
    write_shards([tok(one) for one in frames], tmp_path / "out")
    sample, shown = peek(tmp_path / "out", which)
    assert sample.key == f"{number:08d}"
    for t, row, column in np.ndindex(*sample.grid):
        place = shown.pixels[t, 16 * row : 16 * row + 16, 16 * column : 16 * column + 16]
        was = frames[number].pixels[t, 16 * row : 16 * row + 16, 16 * column : 16 * column + 16]
        np.testing.assert_array_equal(place, was if sample.mask[t, row, column] else 128)
    result = run_show(ShowOptions(source=tmp_path / "out", sample=which, out=tmp_path / "look"))
    assert result["key"] == sample.key and result["tokens_kept"] == len(sample)
    assert Path(str(result["picture"])).stat().st_size > 1000
    shard = tmp_path / "out" / "shard-000000.tar"
    assert holds_shards(shard) and peek(shard, which)[0].key == sample.key
    with pytest.raises(InputError, match="no sample 7: name a number from 0 to 2"):
        peek(tmp_path / "out", "7")


def test_merged_patches_are_shown_as_large_as_what_they_stand_for(tmp_path: Path) -> None:
    frames = Frames(pixels=np.full((1, 64, 64, 3), 9, np.uint8), pts_seconds=np.zeros(1))
    write_shards([EntropyTokenizer(patch_size=8, keep=0.25, merge=4)(frames)], tmp_path)
    assert (peek(tmp_path, "0")[1].pixels == 9).all()
