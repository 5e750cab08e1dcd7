"""The plan of a folder: chunks, ranks, and what becomes of inputs that come, go and change between runs."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import tarfile
import time
from pathlib import Path
from typing import Any

import pytest
from media import drifting, tree, write
from PIL import Image
from pyarrow import parquet

from entropy_vision import EntropyTokenizer
from entropy_vision.data import read_shards, worker
from entropy_vision.data.archive import marker_path
from entropy_vision.data.files import find_inputs
from entropy_vision.data.ledger import Outcome, read_tables, table_path, write_table
from entropy_vision.data.paths import as_path
from entropy_vision.data.plan import ADOPTED, Cuts, Entry, Plan, new_entries, read_plan, settled_anew
from entropy_vision.data.preprocess import preprocess
from entropy_vision.data.ranks import share
from entropy_vision.data.source import Source, by_name, digest, localized
from entropy_vision.data.tars import members
from entropy_vision.data.verify import verify
from entropy_vision.errors import CheckFailed, InputError, InputReason, Terminated, TooManyBad, UsageError

FAST: dict[str, Any] = {"size": 32, "selector": "uniform"}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eleven small inputs: pictures, two of them equal, and two videos, one of them damaged."""
    folder = tmp_path_factory.mktemp("source")
    for number in range(8):
        Image.fromarray(drifting(1, seed=number)[0]).save(folder / f"{number}.png")
    shutil.copy(folder / "3.png", folder / "copy.png")
    write(folder / "film.mp4", drifting(3))
    (folder / "text.mp4").write_text("no video")
    return folder


def rows(out: Path) -> dict[str, dict[str, Any]]:
    """{file name: its row} of the tables, which name each input once beside the samples it had before."""
    found = [row for path in sorted((out / "inputs").iterdir()) for row in parquet.read_table(path).to_pylist()]
    found = [row for row in found if row["status"] != "superseded"]
    assert len({row["source"] for row in found}) == len(found)
    return {Path(row["source"]).name: row for row in found}


def samples(out: Path) -> dict[str, bytes]:
    """{key: the bytes of its records} over all shards."""
    out_of: dict[str, bytes] = {}
    names: set[str] = set()
    for path in sorted(out.glob("shard-*.tar")):
        with tarfile.open(path) as archive:
            for entry in archive:
                content = archive.extractfile(entry)
                assert content is not None
                assert entry.name not in names  # nothing is in two shards
                names.add(entry.name)
                key = entry.name.partition(".")[0]
                out_of[key] = out_of.get(key, b"") + entry.name.encode() + content.read()
    return out_of


# --- ranks


@pytest.fixture(scope="module")
def whole(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "out"
    result = preprocess([source], out, shard_samples=2, max_bad=1, **FAST)
    assert (result["inputs"], result["written"], result["failed"], result["shards"]) == (11, 10, 1, 5)
    return out


@pytest.mark.parametrize("world", [2, 3])
def test_any_number_of_ranks_makes_the_same_tree(source: Path, whole: Path, tmp_path: Path, world: int) -> None:
    out = tmp_path / "out"
    results = [
        preprocess([source], out, rank=rank, world=world, shard_samples=2, max_bad=1, **FAST) for rank in range(world)
    ]
    assert tree(out) == tree(whole)
    for name in ("inputs", "written", "failed", "tokens_kept"):
        assert (
            sum(result[name] for result in results)
            == preprocess([source], whole, max_bad=1, **FAST)[{"written": "resumed"}.get(name, name)]
        )
    assert all(result["written"] for result in results)


def test_any_world_goes_on_with_what_another_began(source: Path, whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = preprocess([source], out, rank=0, world=3, shard_samples=2, max_bad=1, **FAST)
    second = preprocess([source], out, rank=1, world=2, shard_samples=2, max_bad=1, **FAST)
    assert 0 < first["written"] < 10 and 0 < second["written"] < 10
    last = preprocess([source], out, shard_samples=2, max_bad=1, **FAST)
    assert last["inputs"] == last["written"] + last["resumed"] + last["failed"] == 11
    assert last["resumed"] >= first["written"] and last["written"] > 0
    assert tree(out) == tree(whole)


def test_other_ranks_wait_for_the_plan(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("entropy_vision.data.preprocess._PATIENCE", 0.1)
    with pytest.raises(UsageError, match="rank 0 has planned nothing"):
        preprocess([source], tmp_path / "out", rank=1, world=2, **FAST)
    with pytest.raises(UsageError, match="for one process"):
        preprocess([source], tmp_path / "out", rank=0, world=2, overwrite=True, **FAST)


def test_every_rank_compares_its_settings(source: Path, tmp_path: Path) -> None:
    preprocess([source], tmp_path / "out", rank=0, world=2, max_bad=1, keep=0.25, **FAST)
    with pytest.raises(UsageError, match=r"budget was keep 0.25, is keep 0.75"):
        preprocess([source], tmp_path / "out", rank=1, world=2, max_bad=1, keep=0.75, **FAST)


def test_a_rank_leaves_what_others_are_writing(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (out / "inputs").mkdir(parents=True)
    fresh, old = (out / "inputs" / f".tmp-1-{name}" for name in ("fresh", "old"))
    for path in (fresh, old):
        path.write_bytes(b"")
    os.utime(old, (0, 0))
    preprocess([source], out, rank=0, world=2, max_bad=1, **FAST)
    assert fresh.exists() and not old.exists()
    preprocess([source], out, max_bad=1, **FAST)
    assert not fresh.exists()


def test_a_plan_is_made_in_parts_that_stay(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("entropy_vision.data.plan._PIECE", 4)
    preprocess([source], tmp_path / "whole", shard_samples=3, max_bad=1, **FAST)
    assert read_plan(tmp_path / "whole").files == 3
    digested: list[str] = []

    def count(one: Source) -> str:
        digested.append(one.name)
        if len(digested) == 7:
            os.kill(os.getpid(), signal.SIGTERM)
        return digest(one)

    monkeypatch.setattr("entropy_vision.data.plan.digest", count)
    with pytest.raises(Terminated, match="while the plan was made"):
        preprocess([source], tmp_path / "out", shard_samples=3, max_bad=1, **FAST)
    assert read_plan(tmp_path / "out").files == 1
    before = len(digested)
    preprocess([source], tmp_path / "out", shard_samples=3, max_bad=1, **FAST)
    assert len(digested) == before + 7  # the first four stand in the plan
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, (0, 1)),
        ({"RANK": "2", "WORLD_SIZE": "4", "SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "2"}, (2, 4)),
        ({"SLURM_PROCID": "3", "SLURM_STEP_NUM_TASKS": "8"}, (3, 8)),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "8"}, (0, 1)),  # a batch script without srun
        ({"SLURM_ARRAY_TASK_ID": "7", "SLURM_ARRAY_TASK_MIN": "5", "SLURM_ARRAY_TASK_MAX": "8"}, (2, 4)),
        (
            {
                "SLURM_ARRAY_TASK_ID": "1",
                "SLURM_ARRAY_TASK_MIN": "0",
                "SLURM_ARRAY_TASK_MAX": "3",
                "SLURM_PROCID": "1",
                "SLURM_STEP_NUM_TASKS": "2",
            },
            (3, 8),
        ),
    ],
)
def test_ranks_are_told_by_torchrun_and_slurm(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], expected: tuple[int, int]
) -> None:
    for name in [name for name in os.environ if name.startswith("SLURM_") or name in ("RANK", "WORLD_SIZE")]:
        monkeypatch.delenv(name)
    if "SLURM_ARRAY_TASK_ID" in environment:
        low, high = (int(environment[f"SLURM_ARRAY_TASK_{end}"]) for end in ("MIN", "MAX"))
        monkeypatch.setenv("SLURM_ARRAY_TASK_COUNT", str(high - low + 1))
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert share(None, None, slurm=True) == expected
    assert share(1, 5, slurm=True) == (1, 5)


def test_an_array_with_gaps_has_no_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"ID": "7", "MIN": "3", "MAX": "7", "COUNT": "2"}.items():
        monkeypatch.setenv(f"SLURM_ARRAY_TASK_{name}", value)
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(UsageError, match="gaps"):
        share(None, None, slurm=True)
    assert share(None, None) == (0, 1)


# --- inputs that come, go and change


@pytest.fixture
def changing(source: Path, tmp_path: Path) -> Path:
    return shutil.copytree(source, tmp_path / "in")  # with the times of the files


def test_a_plan_grows_by_what_is_new_or_changed(changing: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    preprocess([changing], out, max_bad=1, **FAST)
    before = samples(out)
    assert read_plan(out).files == 1
    preprocess([changing], out, max_bad=1, **FAST)
    assert read_plan(out).files == 1
    Image.fromarray(drifting(1, seed=99)[0]).save(changing / "0.png")
    Image.fromarray(drifting(1, seed=98)[0]).save(changing / "new.png")
    result = preprocess([changing], out, max_bad=1, **FAST)
    assert (result["inputs"], result["written"], result["resumed"], result["failed"]) == (12, 2, 9, 1)
    assert read_plan(out).files == 2
    after = samples(out)
    assert before.items() < after.items() and len(after) == 12  # what was made of the older 0.png stays
    assert verify(out)["bad"] == 0


def test_a_renamed_input_is_not_done_twice_and_a_copy_is(changing: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    preprocess([changing], out, max_bad=1, **FAST)
    before = samples(out)
    (changing / "5.png").rename(changing / "five.png")
    (changing / "3.png").rename(changing / "three.png")  # copy.png, equal, keeps the sample it has
    for _ in range(2):
        result = preprocess([changing], out, max_bad=1, **FAST)
        assert (result["inputs"], result["written"], result["resumed"], result["failed"]) == (11, 0, 10, 1)
        assert samples(out) == before
    entry = read_plan(out).current[str(changing / "five.png")]
    assert entry.chunk == ADOPTED and entry.key in before
    shutil.copy(changing / "five.png", changing / "six.png")
    assert preprocess([changing], out, max_bad=1, **FAST)["written"] == 1
    assert len(samples(out)) == 11


def test_only_other_content_is_other_content(changing: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    preprocess([changing], out, max_bad=1, **FAST)
    before = samples(out)
    for path in changing.iterdir():
        os.utime(path, (1, 1))
    result = preprocess([changing], out, max_bad=1, **FAST)
    assert (result["written"], result["resumed"]) == (0, 10) and samples(out) == before
    was = (changing / "0.png").read_bytes()
    shutil.copy(changing / "1.png", changing / "0.png")  # equal to another now
    assert preprocess([changing], out, max_bad=1, **FAST)["written"] == 1
    (changing / "0.png").write_bytes(was)  # and as it was again
    result = preprocess([changing], out, max_bad=1, **FAST)
    assert (result["written"], result["resumed"]) == (0, 10)
    assert len(samples(out)) == 11 and verify(out)["bad"] == 0
    stats = json.loads((out / "stats.json").read_text())
    assert (stats["inputs"], stats["done"], stats["failed"]) == (11, 10, 1)


def test_samples_without_pixels_do_not_follow_a_renamed_file(changing: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    preprocess([changing], out, max_bad=1, store="index", **FAST)
    (changing / "5.png").rename(changing / "five.png")
    assert preprocess([changing], out, max_bad=1, store="index", **FAST)["written"] == 1
    assert rows(out)["five.png"]["status"] == "done"


def test_many_equal_inputs_are_planned_in_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("entropy_vision.data.plan.digest", lambda source: "0" * 64)
    sources = [Source(path=f"{number}.png", size=1, stamp="1") for number in range(20_000)]
    began = time.process_time()
    entries = [one for part in new_entries(Plan(), sources, {}, Cuts(inputs=1000, bytes=1 << 30)) for one in part]
    assert time.process_time() - began < 10
    assert len({entry.key for entry in entries}) == 20_000 and max(entry.chunk for entry in entries) == 23


def test_failures_are_tried_again_when_told_to_or_when_the_file_has_changed(changing: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    preprocess([changing], out, max_bad=1, **FAST)
    errors = (out / "errors.jsonl").read_bytes()
    chunks = len(read_plan(out).chunks)
    preprocess([changing], out, max_bad=1, **FAST)
    assert len(read_plan(out).chunks) == chunks
    again = preprocess([changing], out, max_bad=1, retry=True, **FAST)
    assert (again["resumed"], again["failed"], len(read_plan(out).chunks)) == (10, 1, chunks + 1)
    assert (out / "errors.jsonl").read_bytes() == errors and b"text.mp4" in errors
    shutil.copy(changing / "film.mp4", changing / "text.mp4")
    result = preprocess([changing], out, **FAST)
    assert (result["written"], result["failed"]) == (1, 0)
    assert (out / "errors.jsonl").read_bytes() == b""


def test_a_replaced_input_is_told_once(changing: Path, tmp_path: Path) -> None:
    out, clock = tmp_path / "out", iter(range(1, 9))

    def replaced(path: Path, by: Path, **options: Any) -> int:
        shutil.copy(by, path)
        os.utime(path, (next(clock), 0))
        result = preprocess([changing], out, max_bad=2, **FAST, **options)
        told = verify(out)
        found = rows(out)
        assert result["inputs"] == result["written"] + result["resumed"] + result["failed"] == len(found) == 11
        assert told["samples"] == result["written"] + result["resumed"] + told.get("superseded", 0)
        assert found[path.name]["status"] == ("failed" if by.suffix == ".txt" else "done")
        return int(told.get("superseded", 0))

    preprocess([changing], out, max_bad=1, **FAST)
    was, junk = tmp_path / "was.png", tmp_path / "junk.txt"
    shutil.copy(changing / "0.png", was)
    junk.write_text("no picture")
    assert replaced(changing / "text.mp4", changing / "film.mp4", retry=True) == 0  # it had no sample
    assert replaced(changing / "0.png", changing / "7.png") == 1
    assert replaced(changing / "0.png", was) == 1  # it takes its sample back, the other one is left
    assert rows(out)["0.png"]["shard"] == "shard-000000.tar"
    assert replaced(changing / "0.png", junk) == 2
    assert replaced(changing / "0.png", was, retry=True) == 1


def test_an_input_that_was_replaced_in_a_run_that_was_stopped_is_no_damage(changing: Path, tmp_path: Path) -> None:
    out, table = tmp_path / "out", tmp_path / "out" / "inputs" / "000000.parquet"
    preprocess([changing], out, max_bad=1, **FAST)
    before, plan = table.read_bytes(), read_plan(out)
    shutil.copy(changing / "7.png", changing / "0.png")
    preprocess([changing], out, max_bad=1, **FAST)
    settled = table.read_bytes()
    assert settled != before
    table.write_bytes(before)  # the new chunk is done, the end of the run is not
    assert verify(out)["superseded"] == 1 and table.read_bytes() == before
    preprocess([changing], out, max_bad=1, **FAST)
    assert table.read_bytes() == settled and verify(out)["superseded"] == 1
    # a plan that does not know an input says nothing of it
    tables = read_tables(out)
    assert not settled_anew(read_plan(out), tables) and not settled_anew(Plan(plan.entries[:1]), {0: tables[0][1:]})


def test_verify_tells_inputs_that_are_told_twice(changing: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    preprocess([changing], out, max_bad=1, **FAST)
    shutil.copy(out / "inputs" / "000000.parquet", out / "inputs" / "000001.parquet")
    with pytest.raises(CheckFailed, match=r"is told twice; preprocess again") as caught:
        verify(out)
    assert caught.value.result["bad"] == 11


def test_missing_inputs_are_asked_again_every_time_and_planned_once(source: Path, tmp_path: Path) -> None:
    out, gone = tmp_path / "out", tmp_path / "gone.png"
    for _ in range(3):
        result = preprocess([source, gone], out, max_bad=2, **FAST)
        assert result["reasons"] == {"not_media": 1, "missing": 1}
        assert read_plan(out).files == 1
    shutil.copy(source / "0.png", gone)
    result = preprocess([source, gone], out, max_bad=1, **FAST)
    assert (result["written"], result["resumed"], result["failed"]) == (1, 10, 1)


def test_inputs_left_out_of_a_run_are_done_by_a_later_one(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    preprocess([source], out, rank=0, world=2, shard_samples=2, max_bad=1, **FAST)  # plans all, does half
    some = preprocess([source / "2.png", source / "4.png"], out, shard_samples=2, **FAST)
    assert (some["inputs"], some["failed"]) == (2, 0)
    result = preprocess([source], out, shard_samples=2, max_bad=1, **FAST)
    assert result["inputs"] == 11 == result["written"] + result["resumed"] + result["failed"]
    assert sorted(rows(out)) == sorted(path.name for path in source.iterdir())
    assert len(samples(out)) == 10 and verify(out)["bad"] == 0


def test_a_file_that_changes_during_the_run_is_told(
    changing: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    from entropy_vision.data import preprocess as module

    entries = module.new_entries

    def change(*given: Any, **more: Any) -> Any:
        yield from entries(*given, **more)
        Image.fromarray(drifting(1, seed=77)[0]).save(changing / "1.png")

    with monkeypatch.context() as patch:
        patch.setattr(module, "new_entries", change)
        result = preprocess([changing], out, max_bad=2, **FAST)
    assert result["reasons"] == {"changed": 1, "not_media": 1}
    result = preprocess([changing], out, max_bad=1, **FAST)
    assert (result["written"], result["failed"]) == (1, 1)


# --- shards


def test_a_chunk_of_many_bytes_is_cut_into_shards(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    settings = {**FAST, "store": "raw", "keep": 1.0}
    pictures = sorted(source.glob("[0-7].png"))
    sizes = [path.stat().st_size for path in pictures]
    preprocess(pictures, tmp_path / "one", **settings)
    assert len(list((tmp_path / "one").glob("shard-*.tar"))) == 1
    result = preprocess(pictures, out, shard_bytes=sum(sizes), **settings)
    names = [path.name for path in sorted(out.glob("shard-*.tar"))]
    assert result["shards"] == len(names) > 1 and names[:2] == ["shard-000000.tar", "shard-000000_001.tar"]
    assert [sample.key for sample in read_shards(out)] == [sample.key for sample in read_shards(tmp_path / "one")]
    assert samples(out) == samples(tmp_path / "one") and verify(out)["bad"] == 0
    assert {row["shard"] for row in rows(out).values()} == set(names)


def test_a_shard_that_is_lost_is_made_again_and_only_its_chunk(source: Path, whole: Path, tmp_path: Path) -> None:
    out = shutil.copytree(whole, tmp_path / "out")
    (out / "shard-000001.tar").unlink()
    (out / "shard-000002.json").unlink()
    shard = out / "shard-000003.tar"
    shard.write_bytes(shard.read_bytes()[:-512])
    result = preprocess([source], out, shard_samples=2, max_bad=1, **FAST)
    assert (result["written"], result["resumed"]) == (6, 4)
    assert tree(out) == tree(whole)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_lost_shard_is_made_again_whichever_rank_begins(
    order: tuple[int, int], source: Path, whole: Path, tmp_path: Path
) -> None:
    out = shutil.copytree(whole, tmp_path / "out")
    for number in (0, 1):
        (out / f"shard-{number:06d}.tar").unlink()
    for rank in order:
        preprocess([source], out, shard_samples=2, max_bad=1, rank=rank, world=2, **FAST)
    assert tree(out) == tree(whole)


def test_a_table_that_is_damaged_is_bad_input(whole: Path, tmp_path: Path) -> None:
    out = shutil.copytree(whole, tmp_path / "out")
    for path in (out / "inputs" / "000001.parquet", out / "plan" / "000000.parquet"):
        content = path.read_bytes()
        path.write_bytes(content[:-30])
        with pytest.raises(InputError, match="the table cannot be read"):
            verify(out)
        path.write_bytes(content)


def test_until_it_is_settled_anew_the_last_of_several_outcomes_stands() -> None:
    """An input that was replaced twice, and the run stopped before the second was made."""
    entries = tuple(
        Entry(source=Source(path="a.png", size=n, stamp=str(n)), chunk=n, digest=str(n), key=f"k{n}") for n in range(3)
    )
    row = {"source": "a.png", "status": "done"}
    tables = {n: [Outcome(**row, key=f"k{n}", shard=f"shard-00000{n}.tar", chunk=n, digest=str(n))] for n in range(2)}
    told = {**tables, **settled_anew(Plan(entries), tables)}
    assert [told[n][0].status for n in range(2)] == ["superseded", "done"]


# --- tars


def pack(path: Path, files: list[Path], cut: int | None = None) -> Path:
    with tarfile.open(path, "w") as archive:
        for file in files:
            archive.add(file, f"sub/{file.name}")
        info = tarfile.TarInfo("sub/0.json")
        info.size = 2
        archive.addfile(info, io.BytesIO(b"{}"))
    if cut is not None:
        path.write_bytes(path.read_bytes()[:cut])
    return path


def test_verify_counts_what_a_stopped_run_has_not_come_to(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    preprocess([source], out, max_bad=1, shard_samples=3, **FAST)
    assert "unfinished" not in verify(out)
    last = sorted((out / "inputs").iterdir())[-1]
    waiting = len(read_tables(out)[max(read_tables(out))])
    shard = sorted(out.glob("shard-*.tar"))[-1]
    for path in (last, shard, marker_path(shard)):
        path.unlink()
    assert verify(out)["unfinished"] == waiting > 0
    preprocess([source], out, max_bad=1, shard_samples=3, **FAST)
    assert "unfinished" not in verify(out)


@pytest.mark.parametrize("between", ["::", "a::b", ":::"])
def test_a_name_holds_what_parts_it(between: str, source: Path, tmp_path: Path) -> None:
    """`tar://member::path`, where a member or a folder has `::` in its own name."""
    held = tmp_path / f"in{between}side"
    held.mkdir()
    path = held / "in.tar"
    with tarfile.open(path, "w") as tar:
        tar.add(source / "5.png", f"x{between}y.png")
    (one,) = find_inputs([path])
    assert one.member == f"x{between}y.png" and by_name(one.name) == one


@pytest.mark.parametrize("store", ["mosaic", "index"])
def test_members_of_a_tar_are_inputs(source: Path, tmp_path: Path, store: str) -> None:
    path = pack(tmp_path / "in.tar", sorted(source.iterdir()))
    out = tmp_path / "out"
    result = preprocess([path], out, max_bad=1, store=store, **FAST)
    assert (result["inputs"], result["written"], result["failed"]) == (11, 10, 1)
    preprocess([source], tmp_path / "plain", max_bad=1, store=store, **FAST)
    one, other = list(read_shards(out)), list(read_shards(tmp_path / "plain"))
    assert {sample.key for sample in one} == {sample.key for sample in other}  # they are known by their content
    pixels = {sample.key: sample.pixels.tobytes() for sample in other}
    assert all(sample.pixels.tobytes() == pixels[sample.key] for sample in one)
    name = next(sample.source for sample in one if sample.source.startswith("tar://sub/5.png"))
    assert name == f"tar://sub/5.png::{path}" and by_name(name).size == (source / "5.png").stat().st_size
    with pytest.raises(InputError, match="holds no sub/none"):
        by_name(f"tar://sub/none.png::{path}")
    again = preprocess([path], out, max_bad=1, store=store, **FAST)
    assert (again["written"], again["resumed"]) == (0, 10)
    # shards of kept patches are no inputs
    with pytest.raises(UsageError, match="no videos or images"):
        preprocess([out], tmp_path / "none", **FAST)


def test_a_tar_that_changes_between_plan_and_work_is_told(source: Path, tmp_path: Path) -> None:
    tar = pack(tmp_path / "a.tar", [source / "0.png"])
    (member, *_) = [one for one in members(tar) if one.member.endswith("0.png")]
    task = {"source": vars(member), "name": member.name, "key": "a", "digest": digest(member)}
    settings = {"sampling": {"fps": None}, "size": 32, "salvage": False, "store": "raw", "mark": "", "fingerprint": ""}
    worker.make(task, settings, EntropyTokenizer(), tmp_path)
    with pytest.raises(InputError, match="the tar has changed") as told:  # it was planned with another content
        worker.make({**task, "digest": "0" * 64}, settings, EntropyTokenizer(), tmp_path)
    assert told.value.reason is InputReason.CHANGED


def test_an_address_of_this_disk_is_a_path(source: Path, tmp_path: Path) -> None:
    out = f"file://{tmp_path}/a%20b"
    assert preprocess([source / "0.png"], out, **FAST)["written"] == 1
    assert tree(tmp_path / "a b") and as_path(out) == tmp_path / "a b"


def test_a_tar_that_ends_early_is_counted(source: Path, tmp_path: Path) -> None:
    files = [source / "0.png", source / "1.png"]
    last = members(pack(tmp_path / "cut.tar", files))[-1]
    path = pack(tmp_path / "cut.tar", files, cut=last.offset + last.size // 2)
    with pytest.raises(TooManyBad) as caught:
        preprocess([path], tmp_path / "out", max_bad=0, **FAST)
    assert caught.value.result["written"] == 1
    assert caught.value.result["reasons"] == {"damaged": 1, "not_media": 1}  # the member, and the tar it is cut in


def test_copies_of_members_are_gone_with_the_run(source: Path, tmp_path: Path) -> None:
    path = pack(tmp_path / "in.tar", [source / "0.png"])
    left = tmp_path / "out" / ".staging" / "copies-0-of-1"
    left.mkdir(parents=True)
    (left / "tmpabc").write_bytes(b"of a worker that was killed")
    preprocess([path], tmp_path / "out", **FAST)
    assert not (tmp_path / "out" / ".staging").exists()


# --- names


def test_no_two_names_are_told_as_one(tmp_path: Path) -> None:
    """Bytes that are no UTF-8, the text that would stand for them, names no disk takes: each is an input."""
    strange = [os.fsdecode(b"\xff.png"), "\\udcff.png", "bytes.png"]
    for number, name in enumerate(strange):
        Image.fromarray(drifting(1, seed=number)[0]).save(tmp_path / "plain.png")
        (tmp_path / "plain.png").rename(tmp_path / name)
    (tmp_path / "list.jsonl").write_text(json.dumps({"path": "bad\ud800.png"}) + "\n" + json.dumps({"path": "x" * 300}))
    result = preprocess([tmp_path], tmp_path / "out", **FAST)
    assert (result["inputs"], result["written"]) == (3, 3)
    listed = preprocess([tmp_path, tmp_path / "list.jsonl"], tmp_path / "out", max_bad=2, **FAST)
    assert listed["reasons"] == {"unreadable": 2}
    assert listed["inputs"] == 5 == listed["resumed"] + listed["failed"]
    name = next(sample.source for sample in read_shards(tmp_path / "out") if sample.source.startswith("bytes:"))
    with localized(by_name(name), tmp_path) as path:
        assert os.fsencode(path).endswith(b"/\xff.png")


def test_a_table_that_is_taken_away_while_tables_are_read_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By another rank, which found a shard of its chunk gone; it was there when the folder was listed."""
    write_table(tmp_path, 0, [])
    both = [table_path(tmp_path, 0), table_path(tmp_path, 1)]
    monkeypatch.setattr("entropy_vision.data.ledger.listed", lambda *asked: both)
    assert read_tables(tmp_path) == {0: []}
