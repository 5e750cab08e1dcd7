"""Inputs and shards in an object store, through fsspec: an S3 server on this machine."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from media import drifting, tree, write
from PIL import Image
from torch.utils.data import DataLoader

from entropy_vision import cli
from entropy_vision.data import read_shards, write_shards
from entropy_vision.data.paths import as_path
from entropy_vision.data.plan import plan_files
from entropy_vision.data.preprocess import preprocess
from entropy_vision.data.verify import verify
from entropy_vision.errors import InputError, UsageError

pytest.importorskip("s3fs", reason="the extra [s3] is not installed")
moto = pytest.importorskip("moto.server", reason="moto stands in for the store")

FAST: dict[str, Any] = {"size": 32, "selector": "uniform", "shard_samples": 2, "max_bad": 1}


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    store = moto.ThreadedMotoServer(port=0, verbose=False)
    store.start()
    host, port = store.get_host_and_port()
    yield f"http://{host}:{port}"
    store.stop()


@pytest.fixture
def bucket(server: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    for name, value in {
        "AWS_ENDPOINT_URL": server,
        "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "b",
        "AWS_DEFAULT_REGION": "us-east-1",
        "TMPDIR": str(tmp_path),
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("tempfile.tempdir", None)
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()
    store = s3fs.S3FileSystem()
    store.mkdir("box")
    yield "s3://box"
    store.invalidate_cache()
    store.rm("box", recursive=True)
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(4):
        Image.fromarray(drifting(1, seed=number)[0]).save(folder / f"{number}.png")
    write(folder / "film.mp4", drifting(4))
    (folder / "text.mp4").write_text("no video")
    return folder


def upload(source: Path, address: str) -> None:
    for path in source.iterdir():
        as_path(f"{address}/{path.name}").write_bytes(path.read_bytes())


def listed(address: str) -> dict[str, bytes]:
    """Every object under an address, by its name in it."""
    store: Any = as_path(address)
    store.fs.invalidate_cache()
    return {name.removeprefix(f"{store.path}/"): store.fs.cat_file(name) for name in store.fs.find(store.path)}


def test_shards_in_a_store_are_those_on_a_disk(source: Path, bucket: str, tmp_path: Path) -> None:
    here, there = tmp_path / "out", f"{bucket}/out"
    first = preprocess([source], here, **FAST)
    assert preprocess([source], there, **FAST) == {**first, "seconds": pytest.approx(0, abs=600), "out": there}
    assert listed(there) == tree(here)
    assert verify(there) == verify(here)
    again = preprocess([source], there, **FAST)
    assert (again["written"], again["resumed"], again["failed"]) == (0, 5, 1)
    for one, other in zip(read_shards(here), read_shards(there), strict=True):
        np.testing.assert_array_equal(one.pixels, other.pixels)
    mixed = [sample.key for sample in read_shards(there, shuffle=True, seed=3)]
    assert mixed == [sample.key for sample in read_shards(here, shuffle=True, seed=3)]
    as_path(f"{there}/shard-000001.tar").unlink()
    assert preprocess([source], there, **FAST)["written"] == 2
    assert listed(there) == tree(here)


def test_workers_of_a_loader_read_from_a_store(source: Path, bucket: str) -> None:
    there = f"{bucket}/out"
    preprocess([source], there, **FAST)
    keys = [sample.key for sample in read_shards(there)]
    reader = read_shards(there)
    next(iter(reader))  # the connection of this process, which a fork must not use
    for workers in (1, 2):
        loader = DataLoader(read_shards(there, shuffle=True, seed=1), batch_size=None, num_workers=workers)
        assert sorted(sample.key for sample in loader) == sorted(keys)


def test_what_another_process_has_written_is_seen(bucket: str) -> None:
    """The store's library remembers what a folder held."""
    address = f"{bucket}/out"
    as_path(f"{address}/plan/000000.parquet").write_bytes(b"a")
    assert plan_files(as_path(address)) == 1
    line = "import sys; from entropy_vision.data.paths import as_path; as_path(sys.argv[1]).write_bytes(b'b')"
    subprocess.run([sys.executable, "-c", line, f"{address}/plan/000001.parquet"], check=True)
    assert plan_files(as_path(address)) == 2


@pytest.mark.parametrize("store", ["mosaic", "index"])
def test_objects_are_inputs(source: Path, bucket: str, tmp_path: Path, store: str) -> None:
    upload(source, f"{bucket}/in")
    with tarfile.open(tmp_path / "more.tar", "w") as archive:
        archive.add(source / "2.png", "two.png")
    upload_to = as_path(f"{bucket}/in/more.tar")
    upload_to.write_bytes((tmp_path / "more.tar").read_bytes())
    out = tmp_path / "out"
    result = preprocess([f"{bucket}/in"], out, store=store, **FAST)
    assert (result["inputs"], result["written"], result["reasons"]) == (7, 6, {"not_media": 1})
    preprocess([source], tmp_path / "local", store=store, **FAST)
    local = {sample.record["sha256"]: sample for sample in read_shards(tmp_path / "local")}
    for sample in read_shards(out):
        np.testing.assert_array_equal(sample.pixels, local[sample.record["sha256"]].pixels)
        assert sample.source.startswith((f"{bucket}/in/", "tar://two.png::s3://box/in/more.tar"))
    again = preprocess([f"{bucket}/in/*.png", f"{bucket}/in/more.tar"], out, store=store, **FAST)
    assert (again["inputs"], again["resumed"]) == (5, 5)
    Image.fromarray(drifting(1, seed=50)[0]).save(source / "1.png")
    upload(source, f"{bucket}/in")
    changed = preprocess([f"{bucket}/in/1.png"], out, store=store, **FAST)
    assert (changed["written"], changed["resumed"]) == (1, 0)
    if store == "index":
        with pytest.raises(InputError, match="has changed"):
            list(read_shards(out))


def test_lists_and_the_line_take_addresses(
    source: Path, bucket: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    upload(source, f"{bucket}/in")
    (tmp_path / "list.txt").write_text(f"{bucket}/in/0.png\n{bucket}/in/none.png\nin/1.png\n")
    line = ["preprocess", str(tmp_path / "list.txt"), "--out", f"{bucket}/made", "--size", "32", "--max-bad", "1"]
    assert cli.main([*line, "--json"]) == 0
    assert '"missing": 1' in capfd.readouterr().out
    assert cli.main(["verify", f"{bucket}/made", "--json"]) == 0
    assert len(list(read_shards(f"{bucket}/made"))) == 2


def test_patches_are_written_to_a_store(bucket: str, tmp_path: Path) -> None:
    from entropy_vision import EntropyTokenizer, Frames

    kept = EntropyTokenizer(keep=0.5)(Frames(pixels=drifting(3), pts_seconds=np.arange(3.0)))
    write_shards([kept, kept], f"{bucket}/own")
    for sample in read_shards(f"{bucket}/own"):
        np.testing.assert_array_equal(sample.pixels, kept.pixels)
    with pytest.raises(UsageError, match="holds shards already"):
        write_shards([kept], f"{bucket}/own")


@pytest.mark.parametrize("verb", ["preprocess in", "preprocess out", "verify", "show"])
def test_no_credentials_are_a_line(
    verb: str, server: str, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a process of its own: a store's library keeps what it has once found."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ENDPOINT_URL", server)
    arguments = {
        "preprocess in": ["preprocess", "s3://nobodys/in", "--out", str(tmp_path / "out")],
        "preprocess out": ["preprocess", str(source), "--out", "s3://nobodys/out"],
        "verify": ["verify", "s3://nobodys/out"],
        "show": ["show", "s3://nobodys/out/a.tar", "--out", str(tmp_path / "pictures")],
    }[verb]
    done = subprocess.run([sys.executable, "-m", "entropy_vision.cli", *arguments], capture_output=True, text=True)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert ("credentials" in last) or (verb == "show" and "no such file" in last)


def _as_rank(source: Path, out: str, rank: int) -> subprocess.Popen[bytes]:
    code = "import sys; from entropy_vision.data.preprocess import preprocess; "
    code += "preprocess([sys.argv[1]], sys.argv[2], size=32, selector='uniform', shard_samples=2, max_bad=1, "
    code += "rank=int(sys.argv[3]), world=2)"
    return subprocess.Popen([sys.executable, "-c", code, str(source), out, str(rank)])


def test_two_ranks_write_into_a_store_what_one_writes(source: Path, bucket: str, tmp_path: Path) -> None:
    """Both at once; then one is lost with a shard of its own, and the other's line mends nothing of it twice."""
    there = f"{bucket}/both"
    ranks = [_as_rank(source, there, rank) for rank in (0, 1)]
    assert [rank.wait() for rank in ranks] == [0, 0]
    preprocess([source], tmp_path / "alone", **FAST)
    members = [
        {sample.key: sample.pixels.tobytes() for sample in read_shards(out)} for out in (there, tmp_path / "alone")
    ]
    assert members[0] == members[1] and len(members[0]) == 5
    before = listed(there)
    assert verify(there)["samples"] == 5
    lost = sorted(name for name in before if name.endswith(".tar"))[-1]
    as_path(f"{there}/{lost}").unlink()
    assert [rank.wait() for rank in [_as_rank(source, there, rank) for rank in (1, 0)]] == [0, 0]
    assert listed(there) == before


def test_an_address_that_nothing_opens_is_a_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be opened here"):
        preprocess(["nosuch://box/in"], tmp_path / "out", **FAST)
    shutil.rmtree(tmp_path)
