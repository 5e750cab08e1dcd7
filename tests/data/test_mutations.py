"""Damaged videos by the hundred: no hang, no crash, and no frame that goes missing in silence."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from media import drifting, write

from entropy_vision.data import read_shards
from entropy_vision.data.preprocess import preprocess

COUNT = 24
KINDS = ("cut", "bytes", "header", "noise")


@pytest.fixture(scope="module")
def seeds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same 24 frames in five containers and three codecs, three groups of pictures each."""
    folder = tmp_path_factory.mktemp("seeds")
    pixels = drifting(COUNT, 96, 96)
    groups = {"g": "8"}
    write(folder / "seed.mp4", pixels, options=groups, container_options={"movflags": "faststart"})
    write(folder / "seed.mkv", pixels, options=groups)
    write(folder / "seed.webm", pixels, codec="libvpx-vp9", options={**groups, "deadline": "realtime", "cpu-used": "8"})
    write(folder / "seed.avi", pixels, codec="mpeg4", options=groups)
    write(folder / "seed.ts", pixels, options=groups)
    return folder


def mutant(whole: bytes, kind: str, rng: np.random.Generator) -> bytes:
    """The file cut off, with some bytes overwritten, some bits of its first kilobyte flipped, or a block of noise."""
    content = np.frombuffer(whole, np.uint8).copy()
    if kind == "cut":
        return content[: rng.integers(1, len(content))].tobytes()
    if kind == "bytes":
        at = rng.integers(0, len(content), rng.choice([1, 4, 16, 64]))
        content[at] = rng.integers(0, 256, len(at))
    elif kind == "header":
        for _ in range(rng.choice([1, 3, 9])):
            content[rng.integers(0, 1024)] ^= 1 << rng.integers(0, 8)
    else:
        start, length = rng.integers(0, len(content) - 64), rng.choice([64, 512, 4096])
        block = content[start : start + length]
        block[:] = rng.integers(0, 256, len(block))
    return content.tobytes()


@dataclass(frozen=True)
class Taken:
    """A sample: its frames, all patches of them, and what the decoder says."""

    frames: int
    pixels: np.ndarray
    decoder: dict[str, object]


def taken(folder: Path, out: Path, *, salvage: bool) -> tuple[dict[str, Taken], dict[str, str]]:
    """({name: sample}, {name: reason}) of a run over the folder, every input in one of the two."""
    options = {"size": 48, "selector": "uniform", "keep": 1.0, "store": "raw", "salvage": salvage}
    result = preprocess([folder], out, max_bad=10_000, deadline=20, **options)
    samples = {
        Path(sample.source).name: Taken(len(sample.pts_seconds), sample.pixels, sample.record["decoder"])
        for sample in read_shards(out)
    }
    rows = [json.loads(text) for text in (out / "errors.jsonl").read_text().splitlines()]
    refused = {Path(row["source"]).name: row["reason"] for row in rows}
    assert result["inputs"] == result["written"] + result["failed"]
    assert (len(samples), len(refused)) == (result["written"], result["failed"])
    assert not samples.keys() & refused.keys()
    assert samples.keys() | refused.keys() == {path.name for path in folder.iterdir()}
    return samples, refused


@pytest.mark.parametrize("count", [60, pytest.param(1000, marks=pytest.mark.slow)])
def test_no_frame_of_a_damaged_video_goes_missing_in_silence(seeds: Path, tmp_path: Path, count: int) -> None:
    rng = np.random.default_rng(0)
    folder = tmp_path / "in"
    shutil.copytree(seeds, folder)
    paths = sorted(seeds.iterdir())
    for number in range(count):
        seed, kind = paths[number % 5], KINDS[number // 5 % 4]
        (folder / f"{number:04d}-{kind}{seed.suffix}").write_bytes(mutant(seed.read_bytes(), kind, rng))
    strict, refused = taken(folder, tmp_path / "strict", salvage=False)
    salvaged, hopeless = taken(folder, tmp_path / "salvage", salvage=True)

    table: Counter[tuple[str, str]] = Counter()
    for name, one in strict.items():
        assert not one.decoder["salvaged"] and one.frames == COUNT, (name, one.decoder)
        np.testing.assert_array_equal(one.pixels, salvaged[name].pixels)
        assert salvaged[name].decoder == one.decoder
        same = np.array_equal(one.pixels, strict[f"seed{Path(name).suffix}"].pixels)
        table[Path(name).suffix, "whole, equal pixels" if same else "whole, other pixels"] += 1
    for name, reason in refused.items():
        assert reason in ("damaged", "no_frames", "no_video_stream", "not_media"), (name, reason)
        table[Path(name).suffix, f"refused: {reason}"] += 1
    for name in refused.keys() - hopeless.keys():
        one = salvaged[name]
        counts = one.decoder["frames_decoded"], one.decoder["frames_expected"], one.decoder["packet_errors"]
        assert one.decoder["salvaged"] and (counts[0] < counts[1] or counts[2] > 0), (name, one.decoder)
        assert one.frames == counts[0]
        table[Path(name).suffix, "of those salvaged"] += 1
    assert hopeless.keys() <= refused.keys()
    assert sum(number for (_, what), number in table.items() if what != "of those salvaged") == count + 5
    assert {what for _, what in table} >= {"whole, equal pixels", "refused: damaged", "of those salvaged"}
    for what in sorted({what for _, what in table}):
        print(what, {kind: table[kind, what] for kind in (".avi", ".mkv", ".mp4", ".ts", ".webm")})
