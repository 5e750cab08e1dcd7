"""show: what it writes for videos and images, and what it says about files that are none."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from media import drifting, write
from PIL import Image

from entropy_vision import cli
from entropy_vision.budget import Budget
from entropy_vision.frames import read_media
from entropy_vision.options import ShowOptions
from entropy_vision.show import run_show
from entropy_vision.tokenizer import EntropyTokenizer
from entropy_vision.tower import find_tower


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("show") / "drift.mp4", drifting(6, 64, 96))


def test_a_video_gives_a_picture_and_a_page(video: Path, tmp_path: Path) -> None:
    result = run_show(ShowOptions(source=video, out=tmp_path / "a" / "b", keep=0.25, size=64))
    assert result["frames"] == 6
    assert result["tokens_total"] == 6 * 16
    assert result["tokens_kept"] == 24
    picture, report = Path(str(result["picture"])), Path(str(result["report"]))
    assert picture.parent == report.parent == tmp_path / "a" / "b"
    with Image.open(picture) as opened:
        assert opened.width > 3 * 224 and opened.height > 6 * 224
    page = report.read_text()
    assert "drift.mp4" in page and 'type="range"' in page
    assert page.count('class="predicted"') == 1 and "frame before, " in page
    told = result["predictors"]
    assert isinstance(told, dict) and sum(told.values()) == pytest.approx(1, abs=1e-3)


def test_only_rate_has_predictors(video: Path, tmp_path: Path) -> None:
    result = run_show(ShowOptions(source=video, out=tmp_path, size=64, selector=("gradient", "rate")))
    assert result["predictors"] is None
    assert 'class="predicted"' not in Path(str(result["report"])).read_text()


def test_an_image_gives_a_page_without_a_slider(tmp_path: Path) -> None:
    Image.fromarray(drifting(1, 50, 70)[0]).save(tmp_path / "still.png")
    result = run_show(ShowOptions(source=tmp_path / "still.png", out=tmp_path, keep=0.5, size=72, patch_size=16))
    assert (result["frames"], result["tokens_total"], result["tokens_kept"]) == (1, 25, 12)
    assert 'type="range"' not in Path(str(result["report"])).read_text()
    assert result["predictors"] is None


def test_two_selectors_stand_side_by_side(video: Path, tmp_path: Path) -> None:
    one = run_show(ShowOptions(source=video, out=tmp_path / "one", size=64))
    two = run_show(ShowOptions(source=video, out=tmp_path / "two", size=64, selector=("rate", "random")))
    assert one["tokens_kept"] == two["tokens_kept"]
    widths = [Image.open(str(result["picture"])).width for result in (one, two)]
    assert widths[1] - widths[0] == 2 * (224 + 12)
    page = Path(str(two["report"])).read_text()
    assert page.count('class="heat"') == page.count('class="kept"') == 2


def test_the_same_line_gives_the_same_page(video: Path, tmp_path: Path) -> None:
    options = ShowOptions(source=video, out=tmp_path, size=64)
    first = {name: Path(str(run_show(options)[name])).read_bytes() for name in ("picture", "report")}
    assert first == {name: Path(str(run_show(options)[name])).read_bytes() for name in ("picture", "report")}


def test_the_command_line_prints_one_json_object(
    video: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["show", str(video), "--out", str(tmp_path), "--size", "64", "--json"]) == 0
    result = json.loads(capfd.readouterr().out)
    assert set(result) >= {"frames", "tokens_total", "tokens_kept", "picture", "report"}


def broken(folder: Path, kind: str) -> Path:
    path = folder / f"{kind}.mp4"
    if kind == "empty":
        path.touch()
    elif kind == "text":
        path.write_text("not a video\n" * 50)
    elif kind == "truncated":
        rng = np.random.default_rng(0)
        whole = write(folder / "whole.mp4", rng.integers(0, 256, (12, 64, 64, 3), dtype=np.uint8)).read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
    elif kind == "folder":
        path.mkdir()
    return path


@pytest.mark.parametrize("kind", ["missing", "empty", "text", "truncated", "folder"])
def test_a_file_that_is_no_video_is_told_in_one_line(
    kind: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = broken(tmp_path, kind)
    assert cli.main(["show", str(path), "--out", str(tmp_path / "out"), "--json"]) == 2
    out, err = capfd.readouterr()
    assert err.count("\n") == 1 and list(json.loads(out)) == ["error"]
    assert err.startswith(f"entropy-vision show: {path}: ")
    assert not (tmp_path / "out").exists()


def test_a_patch_larger_than_the_frame_is_wrong_use(video: Path, tmp_path: Path) -> None:
    assert cli.main(["show", str(video), "--out", str(tmp_path), "--size", "8"]) == 2


def test_a_real_video_is_shown(shared_data: Path, tmp_path: Path) -> None:
    source = shared_data / "videos" / "bottle.mp4"
    result = run_show(ShowOptions(source=source, out=tmp_path, fps=4, size=112, selector=("rate", "uniform")))
    assert result["tokens_kept"] == round(0.25 * int(str(result["tokens_total"])))
    assert Path(str(result["report"])).stat().st_size < 3_000_000


def test_a_budget_in_flops_is_met_and_told(video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    limit = 0.2 * find_tower("ev-tiny-96").flops([64] * 6)
    line = ["show", str(video), "--out", str(tmp_path), "--size", "64", "--patch-size", "8"]
    assert cli.main([*line, "--flops", f"{limit:g}", "--tower", "ev-tiny-96", "--json"]) == 0
    kept = json.loads(capsys.readouterr().out)["tokens_kept"]
    frames = read_media(video, size=64)
    assert kept == len(EntropyTokenizer(8, budget=Budget(flops=float(f"{limit:g}"), tower="ev-tiny-96"))(frames))
    page = (tmp_path / "report.html").read_text()
    assert f"--flops {float(f'{limit:g}')} --tower ev-tiny-96" in page and "--keep" not in page


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["--flops", "1e9", "--keep", "0.5"], "give one limit, not --keep and --flops"),
        (["--tower", "ViT-B-16"], "give --flops as well"),
        (["--flops", "0"], "--flops must be above 0, got 0"),
        (["--flops", "1e6"], "pay for no patch of ViT-B-16: one takes 341065728"),
        (["--flops", "1e9", "--tower", "ViT-B-32"], "count its FLOPs with patch_size=32"),
    ],
)
def test_flops_that_cannot_be_met_are_told_in_a_line(
    video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], given: list[str], told: str
) -> None:
    assert cli.main(["show", str(video), "--out", str(tmp_path), *given]) == 2
    error = capsys.readouterr().err
    assert told in error and error.count("\n") == 1
