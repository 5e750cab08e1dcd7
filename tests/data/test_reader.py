"""One sequence of samples for any ranks and workers, resumed at any step, in batches or bins; none lost, none twice."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from itertools import chain, pairwise, product
from pathlib import Path

import numpy as np
import oracles_order as oracle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader, IterableDataset

from entropy_vision import Budget, EntropyTokenizer, Frames
from entropy_vision.data import read_shards, write_shards
from entropy_vision.data.archive import locate, read_marker, write_shard
from entropy_vision.data.bins import WINDOW, fill_bins
from entropy_vision.data.order import cut_batches, cut_bins, shuffled
from entropy_vision.errors import InputError, InputReason, UsageError
from entropy_vision.patchset import PatchSet

COUNT = 157  # 40 steps of 4, the last of a single sample
BATCH = 4
TOKENS = 40
WORLDS = (1, 2, 3, 4, 8)
LOADER_WORKERS = (0, 1, 2, 4)
SEEDS = (0, 1, 7)


def patches(number: int) -> PatchSet:
    """1 to 12 patches that show their number."""
    pixels = np.full((3, 16, 16, 3), number % 256, np.uint8)
    frames = Frames(pixels=pixels, pts_seconds=np.arange(3.0))
    return EntropyTokenizer(8, budget=Budget(tokens=1 + number * 5 % 12), selector="uniform")(frames)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("shards")
    write_shards((patches(number) for number in range(COUNT)), out, shard_samples=20)
    return out


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A small folder that a test may damage."""
    write_shards((patches(number) for number in range(9)), tmp_path / "own", shard_samples=4)
    return tmp_path / "own"


def dealt(folder: Path, world: int, workers: int, **options: object) -> list[list[list[int]]]:
    """[step][rank] -> numbers of samples, through what each worker of each rank would read."""
    ranks = []
    for rank in range(world):
        reader = read_shards(folder, rank=rank, world=world, **options)  # type: ignore[arg-type]
        count = max(1, workers)
        queues = [[numbers.tolist() for numbers in reader.numbers(worker, count)] for worker in range(count)]
        ranks.append(oracle.round_robin(queues))
    assert len({len(steps) for steps in ranks}) == 1
    return [list(step) for step in zip(*ranks, strict=True)]  # type: ignore[arg-type]


def flat(steps: list[list[list[int]]]) -> list[int]:
    return [number for step in steps for share in step for number in share]


def keys_of(items: object) -> list[list[str]]:
    return [[sample.key for sample in (item if isinstance(item, list) else [item])] for item in items]  # type: ignore[attr-defined]


def as_keys(numbers: list[int]) -> list[str]:
    return [f"{number:08d}" for number in numbers]


# --- the sequence


@pytest.mark.parametrize("seed", SEEDS)
def test_the_sequence_is_the_same_for_every_world_and_number_of_workers(folder: Path, seed: int) -> None:
    order = oracle.sequence(as_keys(list(range(COUNT))), seed, epoch=2)
    sizes = [1 + number * 5 % 12 for number in order]
    bins = [[order[place] for place in places] for places in oracle.bins_of(sizes, TOKENS, WINDOW)]
    common = {"shuffle": True, "seed": seed, "epoch": 2}
    for world, workers in product(WORLDS, LOADER_WORKERS):
        single = dealt(folder, world, workers, **common)
        assert single == oracle.bin_steps([[number] for number in order], world)
        batched = dealt(folder, world, workers, batch=16, **common)
        assert batched == oracle.batch_steps(order, 16, world)
        binned = dealt(folder, world, workers, tokens=TOKENS, **common)
        assert binned == oracle.bin_steps(bins, world)
        assert flat(single) == flat(batched) == order
        assert flat(binned) == list(chain(*bins)) and sorted(flat(binned)) == list(range(COUNT))
        assert [[*chain(*step)] for step in batched] == [order[at : at + 16] for at in range(0, COUNT, 16)]


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 60), st.integers(1, 12), st.integers(1, 12), st.integers(0, 60))
def test_cuts_lose_nothing_whatever_the_numbers(count: int, batch: int, world: int, start: int) -> None:
    start = min(start, count)
    order = list(range(start, count))
    edges = np.unique(np.array([start, *range(start, count, 3), count]))
    for cuts, wanted in (
        (cut_batches(start, count, batch, world), oracle.batch_steps(order, batch, world)),
        (cut_bins(edges, world), oracle.bin_steps([order[at : at + 3] for at in range(0, len(order), 3)], world)),
    ):
        assert cuts.shape == (len(wanted), world + 1) and cuts.dtype == np.int64
        assert [[list(range(row[r], row[r + 1])) for r in range(world)] for row in cuts.tolist()] == wanted


def test_the_permutation_follows_seed_epoch_and_keys_and_nothing_else(tmp_path: Path) -> None:
    keys = as_keys(list(range(200)))
    first = shuffled(keys, 0, 0)
    assert sorted(first.tolist()) == list(range(200)) and first.dtype == np.int64
    np.testing.assert_array_equal(first, shuffled(keys, 0, 0))
    others = [shuffled(keys, *to) for to in ((1, 0), (0, 1), (1, 1), (10, 0))]
    others.append(shuffled([f"b{key}" for key in keys], 0, 0))
    for other in others:
        assert (first == other).sum() < 20  # one in 200 stays where it is by chance
    assert first[:6].tolist() == [65, 178, 84, 44, 83, 5]  # on every machine
    # how samples are spread over shards does not matter
    for name, size in (("one", 3), ("two", 5)):
        write_shards((patches(number) for number in range(11)), tmp_path / name, shard_samples=size)
    one, two = (keys_of(read_shards(tmp_path / name, shuffle=True)) for name in ("one", "two"))
    assert one == two and one != sorted(one)


def test_samples_arrive_whole_in_any_order(folder: Path) -> None:
    plain = {sample.key: sample for sample in read_shards(folder)}
    assert list(plain) == as_keys(list(range(COUNT)))
    for sample in read_shards(folder, shuffle=True):
        wanted = plain.pop(sample.key)
        for name in ("pixels", "positions", "bits", "pts_seconds"):
            np.testing.assert_array_equal(getattr(sample, name), getattr(wanted, name))
        assert (sample.pixels == int(sample.key) % 256).all()
    assert not plain


def test_a_loader_gives_the_steps_in_order(folder: Path) -> None:
    order = oracle.sequence(as_keys(list(range(COUNT))), 3, 0)
    wanted = [as_keys(step[1]) for step in oracle.batch_steps(order, 32, 2)]
    for workers in (0, 2):
        reader = read_shards(folder, shuffle=True, seed=3, batch=32, rank=1, world=2)
        assert isinstance(reader, IterableDataset)
        loader = DataLoader(reader, batch_size=None, num_workers=workers)
        assert keys_of(loader) == wanted
        state = reader.state_dict(2)
        reader.load_state_dict(state)
        assert keys_of(loader) == wanted[2:]
        reader.set_epoch(1)
        assert sorted(chain(*keys_of(loader))) != sorted(chain(*wanted))


def test_workers_share_the_plain_order_and_end_unevenly(own: Path) -> None:
    loader = DataLoader(read_shards(own), batch_size=None, num_workers=2)
    assert keys_of(loader) == [[key] for key in as_keys(list(range(9)))]


def test_persistent_workers_are_refused_at_the_second_epoch(own: Path) -> None:
    loader = DataLoader(read_shards(own), batch_size=None, num_workers=1, persistent_workers=True)
    assert len(list(loader)) == 9
    with pytest.raises(UsageError, match="persistent_workers=False"):
        list(loader)


def test_next_begins_a_pass_that_a_loop_goes_on_with(own: Path) -> None:
    samples = read_shards(own)
    assert next(samples).key == "00000000"
    assert len(list(samples)) == 8
    assert len(list(samples)) == 9


def test_rank_and_world_come_from_the_environment(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert keys_of(read_shards(own)) == [["00000001"], ["00000005"]]
    assert len(keys_of(read_shards(own, rank=0, world=1))) == 9


# --- resuming


@pytest.mark.parametrize("options", [{"batch": BATCH}, {"tokens": 12}, {}], ids=["batch", "tokens", "single"])
def test_any_step_goes_on_with_another_world(folder: Path, options: dict[str, int]) -> None:
    common = {"shuffle": True, "seed": 5, "epoch": 1, **options}
    whole = dealt(folder, 2, 2, **common)
    assert len(whole) >= 40
    for done in range(len(whole) + 1):
        state = json.loads(json.dumps(read_shards(folder, rank=1, world=2, **common).state_dict(done)))
        assert state["consumed"] == len(flat(whole[:done]))
        world = (1, 3, 4)[done % 3]
        rest = []
        for rank in range(world):
            reader = read_shards(folder, rank=rank, world=world, shuffle=True, **options)
            reader.load_state_dict(state)
            assert (reader.seed, reader.epoch) == (5, 1)
            rest.append([numbers.tolist() for numbers in reader.numbers()])
        assert flat([list(step) for step in zip(*rest, strict=True)]) == flat(whole[done:])


def test_an_epoch_of_nothing_but_resumes_is_the_epoch(folder: Path) -> None:
    order = oracle.sequence(as_keys(list(range(COUNT))), 0, 0)
    state, seen, worlds = None, list[str](), iter((1, 2, 3, 4) * 10)
    while len(seen) < COUNT:
        world = next(worlds)
        for rank in range(world):
            reader = read_shards(folder, shuffle=True, batch=BATCH, rank=rank, world=world)
            if state is not None:
                reader.load_state_dict(state)
            seen += [sample.key for sample in next(reader)]
        state = reader.state_dict()
        assert state["consumed"] == len(seen)
    assert next(worlds, None) is None and seen == as_keys(order)


def test_the_batch_may_change_with_a_resume_but_not_the_sequence(folder: Path) -> None:
    reader = read_shards(folder, shuffle=True, batch=10)
    first = list(chain(*keys_of(next(reader) for _ in range(3))))
    state = reader.state_dict()
    other = read_shards(folder, shuffle=True, batch=7)
    other.load_state_dict(state)
    assert first + list(chain(*keys_of(other))) == as_keys(oracle.sequence(as_keys(list(range(COUNT))), 0, 0))
    for options in ({"batch": 10}, {"shuffle": True, "tokens": 30}):
        with pytest.raises(UsageError, match="not "):
            read_shards(folder, **options).load_state_dict(state)  # type: ignore[arg-type]


def test_a_state_of_other_shards_or_of_none_is_refused_in_one_line(folder: Path, own: Path) -> None:
    reader = read_shards(folder, shuffle=True, tokens=TOKENS)
    state = reader.state_dict(3)
    bad = [{}, None, {**state, "consumed": "x"}, {**state, "consumed": -1}, {**state, "consumed": COUNT + 1}]
    bad.append({**state, "consumed": 1})  # inside a bin
    for wrong in bad:
        with pytest.raises(UsageError) as caught:
            reader.load_state_dict(wrong)  # type: ignore[arg-type]
        assert "\n" not in str(caught.value)
        assert reader.consumed == 0
    with pytest.raises(UsageError, match="other shards") as caught:
        read_shards(own, shuffle=True, tokens=TOKENS).load_state_dict(state)
    assert "\n" not in str(caught.value)
    # the same keys, one pixel another
    again = [patches(number) for number in range(9)]
    again[3].pixels[0, 0, 0, 0] ^= 1
    write_shards(again, own.parent / "other", shard_samples=4)
    with pytest.raises(UsageError, match="other shards"):
        read_shards(own.parent / "other").load_state_dict(read_shards(own).state_dict(1))


def test_a_state_that_cannot_be_known_is_not_made_up(own: Path) -> None:
    reader = read_shards(own)
    with pytest.raises(UsageError, match="how many steps"):
        reader.state_dict()
    assert len(list(DataLoader(reader, batch_size=None, num_workers=1))) == 9
    with pytest.raises(UsageError, match="how many steps"):
        reader.state_dict()
    with pytest.raises(UsageError, match="from 0 to 9"):
        reader.state_dict(10)
    assert reader.state_dict(9)["consumed"] == 9
    next(reader)
    assert reader.state_dict()["consumed"] == 1


@pytest.mark.parametrize(
    "options",
    [
        {"batch": 4, "tokens": 9},
        {"batch": 0},
        {"batch": 3, "rank": 0, "world": 4},
        {"tokens": 0},
        {"rank": 1},
        {"rank": 2, "world": 2},
        {"rank": -1, "world": 2},
    ],
    ids=str,
)
def test_numbers_that_cannot_work_are_refused_at_the_call(own: Path, options: dict[str, int]) -> None:
    with pytest.raises(UsageError) as caught:
        read_shards(own, **options)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


# --- bins


@settings(deadline=None, max_examples=80)
@given(st.integers(0, 120), st.integers(1, 80), st.integers(0, 99))
def test_bins_are_those_of_the_loops(count: int, budget: int, seed: int) -> None:
    sizes = np.random.default_rng(seed).integers(1, 61, count).tolist()
    places, edges = fill_bins(np.array(sizes, np.int64), budget)
    bins = [places[start:end].tolist() for start, end in pairwise(edges)]
    assert bins == oracle.bins_of(sizes, budget, WINDOW)
    assert sorted(chain(*bins)) == list(range(len(sizes)))
    for members in bins:
        assert members and (sum(sizes[at] for at in members) <= budget or len(members) == 1)


def test_bins_are_full_and_nearly_equal_and_near_their_place() -> None:
    sizes = np.random.default_rng(0).gamma(2.0, 200.0, 20_000).astype(np.int64) + 1  # mean 401
    places, edges = fill_bins(sizes, 8192)
    load = np.add.reduceat(sizes[places], edges[:-1])
    assert load.max() <= 8192
    assert load.mean() / 8192 > 0.99  # measured 0.9945; in order without a window 0.963
    steps = load[: len(load) // 8 * 8].reshape(-1, 8)
    assert (steps.min(1) / steps.max(1)).min() > 0.98  # measured 0.992
    assert np.abs(places - np.arange(len(places))).max() < 2 * WINDOW * 8192 / sizes.mean()


def test_lists_of_a_budget_hold_at_most_that_many_tokens(folder: Path) -> None:
    items = list(read_shards(folder, shuffle=True, tokens=9))
    assert all(sum(map(len, item)) <= 9 or len(item) == 1 for item in items)
    assert any(sum(map(len, item)) > 9 for item in items)
    assert sorted(chain(*keys_of(items))) == as_keys(list(range(COUNT)))


def test_the_last_step_may_leave_ranks_without_samples_but_not_without_a_step(own: Path) -> None:
    for options in ({"batch": 4}, {"tokens": 12}):
        readers = [read_shards(own, rank=rank, world=4, **options) for rank in range(4)]  # type: ignore[arg-type]
        given = [keys_of(reader) for reader in readers]
        assert {len(items) for items in given} == {readers[0].steps}
        assert sorted(key for items in given for item in items for key in item) == as_keys(list(range(9)))
        assert any(items[-1] == [] for items in given)


# --- damage


def spoil(shard: Path, key: str, offset: int = 600) -> None:
    content = bytearray(shard.read_bytes())
    content[locate(shard)[key][0] + offset] ^= 1
    shard.write_bytes(content)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_sample_is_named_and_the_others_are_given_out(own: Path, workers: int) -> None:
    spoil(own / "shard-000001.tar", "00000005")
    loader = DataLoader(read_shards(own, shuffle=True), batch_size=None, num_workers=workers)
    seen: list[str] = []

    def drain() -> Iterator[None]:
        for sample in loader:
            seen.append(sample.key)
            yield

    with pytest.raises((InputError, RuntimeError), match="sample 00000005: a checksum does not fit"):
        list(drain())
    order = as_keys(oracle.sequence(as_keys(list(range(9))), 0, 0))
    assert seen == order[: order.index("00000005")]


def test_samples_are_located_as_tar_itself_finds_them(own: Path) -> None:
    for shard in sorted(own.glob("*.tar")):
        with tarfile.open(shard) as archive:
            entries = archive.getmembers()
        starts = {}
        for entry in reversed(entries):
            starts[entry.name.partition(".")[0]] = entry.offset
        places = locate(shard)
        assert {key: start for key, (start, _) in places.items()} == starts
        assert [start for start, _ in places.values()][1:] == [end for _, end in places.values()][:-1]
        assert shard.stat().st_size - [end for _, end in places.values()][-1] == 1024


@pytest.mark.parametrize(
    "size", [b"-0000001000\0", b"77777777777\0", b"x" * 12, bytes(12), b"\x80" + bytes(10) + b"\1"]
)
def test_a_header_with_a_size_that_cannot_be_is_damage(own: Path, size: bytes) -> None:
    shard = own / "shard-000000.tar"
    for key in ("00000001", "00000003"):
        content = bytearray(shard.read_bytes())
        at = locate(shard)[key][0]
        content[at + 124 : at + 136] = size
        (own / "shard-000001.tar").write_bytes(content)
        with pytest.raises(InputError) as caught:
            locate(own / "shard-000001.tar")
        assert caught.value.reason is InputReason.DAMAGED


def test_shards_that_are_cut_gone_exchanged_or_hostile_are_named(own: Path) -> None:
    shard, marker = own / "shard-000001.tar", own / "shard-000001.json"
    whole = shard.read_bytes()

    def refused(reason: InputReason) -> None:
        with pytest.raises(InputError) as caught:
            list(read_shards(own, shuffle=True))
        assert caught.value.reason is reason and "\n" not in str(caught.value)

    for length in np.random.default_rng(0).integers(0, len(whole) - 1024, 20):
        shard.write_bytes(whole[:length])
        refused(InputReason.DAMAGED)
    shard.write_bytes((own / "shard-000000.tar").read_bytes())
    refused(InputReason.DAMAGED)
    shard.unlink()
    refused(InputReason.MISSING)
    lines = read_marker(marker).samples
    for wrong in ([{"key": "a", "crc32": {}}], [{**lines[0], "tokens_kept": None}], [1]):
        write_shard(own, 1, [whole[:-1024]], wrong)  # type: ignore[arg-type]
        refused(InputReason.DAMAGED)
    write_shard(own, 1, [whole[:-1024]], lines)
    assert len(list(read_shards(own, shuffle=True))) == 9
