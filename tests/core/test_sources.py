"""Sources: the World's videos as files, once written, read back as any user's video."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from entropy_vision import read_video
from entropy_vision.sources import FileBacked, world_source


def test_videos_go_through_a_file_once_and_come_back_compressed(tmp_path: Path) -> None:
    plain = world_source("video", split="val", difficulty=0.2, seed=3, size=64, frame_count=8)
    filed = world_source("video", split="val", difficulty=0.2, seed=3, size=64, frame_count=8, folder=tmp_path)
    assert isinstance(filed, FileBacked)
    drawn, first = plain.scene(5), filed.scene(5)
    path = filed.path(5)
    stamp = path.stat().st_mtime_ns
    again = filed.scene(5)
    assert path.stat().st_mtime_ns == stamp and np.array_equal(first[0].frames.pixels, again[0].frames.pixels)
    assert np.array_equal(first[0].frames.pixels, read_video(path, size=64).pixels)
    assert [i.question for i in first] == [i.question for i in drawn]
    assert all(i.frames is first[0].frames for i in first)
    error = np.abs(first[0].frames.pixels.astype(int) - drawn[0].frames.pixels)
    assert 0 < error.mean() < 6  # H.264 changed the pixels, but not the picture


def test_videos_of_another_world_are_other_files(tmp_path: Path) -> None:
    def made(difficulty: float = 0.2, size: int = 64, frame_count: int = 8) -> Path:
        source = world_source(
            "video", split="val", difficulty=difficulty, seed=3, size=size, frame_count=frame_count, folder=tmp_path
        )
        assert isinstance(source, FileBacked)
        return source.path(0)

    assert made() == made()
    assert len({made(), made(difficulty=0.8), made(size=96), made(frame_count=6)}) == 4


def test_splits_share_no_scene(tmp_path: Path) -> None:
    scenes = {
        split: {
            world_source("image", split=split, difficulty=0.2, seed=0, size=32).scene(i)[0].frames.pixels.tobytes()
            for i in range(20)
        }
        for split in ("train", "val", "test")
    }
    assert len(set.union(*scenes.values())) == 3 * 20
