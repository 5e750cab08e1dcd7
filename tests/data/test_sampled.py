"""Frames taken by one rule or another, from the command line into the shards and back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from media import drifting, write
from PIL import Image

from entropy_vision.cli import parse
from entropy_vision.data import read_shards
from entropy_vision.data.preprocess import preprocess
from entropy_vision.errors import UsageError
from entropy_vision.frames import read_media
from entropy_vision.sampling import Sampling

RULES: list[dict[str, Any]] = [{}, {"fps": 2.0}, {"frames": 3}, {"packets": 4}, {"keyframes": True}, {"scenes": 1.0}]
SMALL = {"size": 64, "selector": "uniform"}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video of two shots with three keyframes, a shorter one, and an image."""
    folder = tmp_path_factory.mktemp("sampled")
    two = np.concatenate([drifting(10), 255 - drifting(10, seed=5)[:, ::-1]])
    write(folder / "a.mp4", two, options={"g": "8", "sc_threshold": "0"})
    write(folder / "b.mkv", drifting(2))
    Image.fromarray(drifting(1)[0]).save(folder / "c.png")
    return folder


@pytest.mark.parametrize("rule", RULES[2:], ids=str)
def test_each_rule_reaches_the_shards_and_is_read_back(source: Path, tmp_path: Path, rule: dict[str, Any]) -> None:
    told = preprocess([source], tmp_path / "raw", dry_run=True, **rule, **SMALL)
    result = preprocess([source], tmp_path / "raw", store="raw", **rule, **SMALL)
    preprocess([source], tmp_path / "index", store="index", **rule, **SMALL)
    raw, index = list(read_shards(tmp_path / "raw")), list(read_shards(tmp_path / "index"))
    frames = [read_media(path, size=64, **rule) for path in sorted(source.iterdir())]
    assert [sample.grid[0] for sample in raw] == [one.count for one in frames]
    for sample, again, expected in zip(raw, index, frames, strict=True):
        np.testing.assert_array_equal(sample.pts_seconds, expected.pts_seconds)
        np.testing.assert_array_equal(sample.pixels, again.pixels)
        assert sample.record["frames"] == {**Sampling(**rule).settings(), "size": 64, "salvage": False}
    known = "scenes" not in rule  # how many shots there are, no header tells
    assert told["frames"] == (sum(one.count for one in frames) if known else None)
    assert told["tokens_total"] == (result["tokens_total"] if known else None)
    assert told["tokens_kept"] == (result["tokens_kept"] if known else None)
    assert told["unreadable"] == 0
    assert preprocess([source], tmp_path / "raw", store="raw", **rule, **SMALL)["resumed"] == 3


def test_the_video_of_two_shots_gives_what_each_rule_says(source: Path) -> None:
    counts = [read_media(source / "a.mp4", **rule).count for rule in RULES]
    assert counts == [20, 5, 3, 4, 3, 4]
    times = read_media(source / "a.mp4", scenes=1.0).pts_seconds
    np.testing.assert_allclose(times, [0, 1, 1.25, 2.25], atol=1e-6)


@pytest.mark.parametrize("other", [rule for rule in RULES if rule != {"frames": 3}], ids=str)
def test_another_rule_is_another_setting(source: Path, tmp_path: Path, other: dict[str, Any]) -> None:
    preprocess([source], tmp_path, frames=3, **SMALL)
    with pytest.raises(UsageError, match="sampling was frames 3, is"):
        preprocess([source], tmp_path, **other, **SMALL)


def test_a_folder_of_before_there_were_plans_is_read_and_not_continued(source: Path, tmp_path: Path) -> None:
    preprocess([source], tmp_path, fps=2.0, **SMALL)
    path = tmp_path / "settings.json"
    settings = json.loads(path.read_text())
    path.write_text(json.dumps({**settings, "layout": 1}))
    with pytest.raises(UsageError, match="not continued by this version: give --overwrite"):
        preprocess([source], tmp_path, fps=2.0, **SMALL)
    assert len(list(read_shards(tmp_path))) == 3
    assert preprocess([source], tmp_path, fps=2.0, overwrite=True, **SMALL)["written"] == 3


def test_records_of_before_there_were_other_rules_are_as_they_are_now(source: Path, tmp_path: Path) -> None:
    preprocess([source], tmp_path, fps=2.0, **SMALL)
    for sample in read_shards(tmp_path):
        assert sample.record["frames"] == {"fps": 2.0, "size": 64, "salvage": False}


@pytest.mark.parametrize("verb", ["show", "preprocess"])
def test_the_command_line_takes_one_rule(verb: str) -> None:
    line = ["a.mp4", "--out", "out"]
    for words, rule in zip(
        ([], ["--fps", "2"], ["--frames", "3"], ["--packets", "4"], ["--keyframes"], ["--scenes", "1"]),
        RULES,
        strict=True,
    ):
        assert parse(verb, [*line, *words]).sampling() == Sampling(**rule)
    with pytest.raises(UsageError, match="not fps and keyframes"):
        parse(verb, [*line, "--fps", "2", "--keyframes"])
    with pytest.raises(UsageError, match="frames must be"):
        parse(verb, [*line, "--frames", "0"])
