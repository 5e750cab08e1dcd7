"""Every kind of bad input in one folder: each becomes a sample or a counted reason, named here one by one."""

from __future__ import annotations

import json
import os
from pathlib import Path

import av
import numpy as np
import pytest
from media import drifting, write, write_audio
from PIL import Image

from entropy_vision.data import read_shards
from entropy_vision.data.preprocess import preprocess
from entropy_vision.data.verify import verify
from entropy_vision.frames import Frames

FAST = {"size": 64, "selector": "uniform"}
SAMPLE = "sample"
ROOT = os.geteuid() == 0


def bad_files(folder: Path) -> dict[str, str]:
    """Files that are no media, or hard to name or reach."""
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "byte.mp4").write_bytes(b"x")
    (folder / "text.mp4").write_text("hello\n" * 100)
    (folder / "page.jpg").write_text("<!DOCTYPE html><html></html>")
    (folder / "loop.mp4").symlink_to(folder / "loop.mp4")
    (folder / "gone.mp4").symlink_to(folder / "nowhere")
    os.mkfifo(folder / "pipe.mp4")
    (folder / "folder.mp4").mkdir()
    expected = {"empty.mp4": "empty", "byte.mp4": "not_media", "text.mp4": "not_media", "page.jpg": "not_media"}
    expected |= {"loop.mp4": "unreadable", "gone.mp4": "missing", "pipe.mp4": "not_a_file"}
    plain = write(folder / "plain.mp4", drifting(3)).read_bytes()
    names = [
        "copy.mp4",
        "plain.mkv",
        "folder.mp4/inside.mp4",
        "ünï 写真.mp4",
        "new\nline.mp4",
        'it\'s "so".mp4',
        "--x.mp4",
    ]
    names.append("--x.mp4")
    for name in names:
        (folder / name).write_bytes(plain)  # duplicates, and a stem that is there twice
    if not ROOT:
        (folder / "locked.mp4").write_bytes(plain)
        (folder / "locked.mp4").chmod(0)
        expected["locked.mp4"] = "unreadable"
    return expected | dict.fromkeys(["plain.mp4", *map(_name, names)], SAMPLE)


def bad_videos(folder: Path) -> dict[str, str]:
    """Videos that are damaged, odd, or at the ends of what a selector meets."""
    moving = drifting(24, 96, 96)
    whole = write(folder / "moov_last.mp4", moving)
    (folder / "moov_cut.mp4").write_bytes(whole.read_bytes()[:-300])
    for name in ("no_frames.avi", "no_stream.mp4"):  # the same: MP4 leaves an empty stream out
        with av.open(str(folder / name), "w") as output:
            output.add_stream("mpeg4", rate=8)
            output.start_encoding()
    write(folder / "one.mp4", moving[:1])
    write_audio(folder / "sound.mp4")
    write(folder / "varies.mkv", moving[:5], times=[0, 40, 50, 700, 720])
    write(folder / "turned.mp4", moving[:4], rotation=90)
    # what the header of 8K says is within the limit; 16K is not, and nothing of it is allocated
    write(folder / "8k.mp4", np.zeros((1, 4320, 7680, 3), np.uint8), options={"preset": "ultrafast"})
    (folder / "16k.mp4").write_bytes(b"YUV4MPEG2 W15360 H8640 F8:1 C420\nFRAME\n")
    write(folder / "deep.mp4", moving[:4], pixel_format="yuv420p10le")
    part = write(folder / "part.ts", moving[:4])
    (folder / "back.ts").write_bytes(part.read_bytes() * 2)
    write(folder / "constant.mp4", np.full((6, 64, 64, 3), 77, np.uint8))
    write(folder / "noise.mp4", np.random.default_rng(0).integers(0, 256, (6, 64, 64, 3)).astype(np.uint8))
    taken = "moov_last.mp4 one.mp4 varies.mkv turned.mp4 8k.mp4 deep.mp4 part.ts back.ts constant.mp4 noise.mp4"
    refused = {"moov_cut.mp4": "damaged", "no_frames.avi": "no_frames", "no_stream.mp4": "no_video_stream"}
    refused |= {"sound.mp4": "no_video_stream"}
    return dict.fromkeys(taken.split(), SAMPLE) | refused | {"16k.mp4": "too_large"}


def bad_images(folder: Path) -> dict[str, str]:
    """Images of every mode and of odd sizes, and one that unpacks to more than the limit."""
    picture = Image.fromarray(drifting(1)[0])
    for width, height in ((1, 1), (3, 7), (17, 9)):
        picture.resize((width, height)).save(folder / f"{width}x{height}.png")
    picture.convert("RGBA").save(folder / "alpha.png")
    picture.convert("L").save(folder / "grey.png")
    picture.convert("CMYK").save(folder / "cmyk.jpg")
    for kind in ("gif", "webp"):
        picture.save(folder / f"moving.{kind}", save_all=True, append_images=[picture.rotate(90)], duration=100)
    exif = Image.Exif()
    exif[0x0112] = 6
    picture.save(folder / "turned.jpg", exif=exif)
    Image.fromarray(np.linspace(0, 65535, 4096).astype(np.uint16).reshape(64, 64)).save(folder / "deep.png")
    expected = {path.name: SAMPLE for path in folder.iterdir()}
    Image.new("1", (9000, 9000)).save(folder / "bomb.png")
    return expected | {"bomb.png": "too_large"}


def _name(path: str) -> str:
    return Path(path).name


@pytest.mark.parametrize("make", [bad_files, bad_videos, bad_images])
def test_each_bad_input_is_a_sample_or_a_counted_reason(tmp_path: Path, make: object) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    expected = make(folder)
    result = preprocess([folder], tmp_path / "out", max_bad=1000, deadline=30, **FAST)
    outcomes = {Path(sample.source).name: SAMPLE for sample in read_shards(tmp_path / "out")}
    rows = [json.loads(text) for text in (tmp_path / "out" / "errors.jsonl").read_text().splitlines()]
    assert all(row["detail"] and "\n" not in row["detail"] for row in rows)
    outcomes |= {Path(row["source"]).name: row["reason"] for row in rows}
    assert outcomes == expected
    assert result["inputs"] == result["written"] + result["failed"] == len(expected)
    assert verify(tmp_path / "out") == {"shards": 1, "samples": result["written"], "bad": 0}


def test_a_name_that_is_not_utf8_is_done(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    write(folder / "a.mp4", drifting(3)).rename(folder / os.fsdecode(b"\xff\xfe.mp4"))
    (folder / os.fsdecode(b"\xfd.mp4")).write_bytes(b"")
    result = preprocess([folder], tmp_path / "out", max_bad=1, **FAST)
    assert (result["written"], result["reasons"]) == (1, {"empty": 1})


@pytest.mark.slow
def test_a_sparse_file_of_more_than_4_gib_is_no_media(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    write(folder / "a.mp4", drifting(3))
    with (folder / "sparse.mp4").open("wb") as file:
        file.truncate((4 << 30) + 1000)
    result = preprocess([folder], tmp_path / "out", max_bad=1, **FAST)
    assert (result["written"], result["reasons"]) == (1, {"not_media": 1})


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_frames_refuse_arrays_of_nan_and_infinity(bad: float) -> None:
    with pytest.raises(TypeError):
        Frames(pixels=np.full((1, 4, 4, 3), bad), pts_seconds=np.zeros(1))
    with pytest.raises(ValueError):
        Frames(pixels=np.zeros((1, 4, 4, 3), np.uint8), pts_seconds=np.array([bad]))
