"""Training from shards: the patches are those that decoding and selecting give, and what is not in them is told."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from benchmark_files import b64, tsv
from question_sets import file_recipe, question_set
from small_runs import same, untimed, weights

from entropy_vision import EntropyTokenizer
from entropy_vision.data.preprocess import preprocess
from entropy_vision.errors import UsageError
from entropy_vision.rl import media
from entropy_vision.rl.metrics import read_metrics
from entropy_vision.rl.recipe import BudgetRecipe, DataRecipe, TrainRecipe
from entropy_vision.rl.scenes import SceneMemory
from entropy_vision.rl.trainer import Trainer


def _packed(folder: Path, out: Path, selector: str = "rate", keep: float = 0.25, store: str = "raw") -> str:
    """Shards of a set's files as the recipes here decode and select them."""
    settings = {"patch_size": 8, "size": 32, "frames": 4, "store": store}
    preprocess([folder], out, keep=keep, selector=selector, **settings)
    return str(out)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("set")


@pytest.fixture(scope="module")
def task(folder: Path) -> str:
    return question_set(folder, images=8, videos=4)


@pytest.fixture(scope="module")
def shards(folder: Path, task: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    return _packed(folder, tmp_path_factory.mktemp("shards") / "rate")


def _recipe(out: Path, task: str, *shards: str, keep: tuple[float, ...] = (0.25,), **data: object) -> TrainRecipe:
    budget = BudgetRecipe(keep=keep, weights=(1.0,) * len(keep))
    return file_recipe("sft", out, task, data={"shards": shards, **data}, budget=budget, steps=3)


def test_a_run_from_shards_is_the_run_from_files(task: str, shards: str, tmp_path: Path) -> None:
    """Patches, metrics and weights, bit for bit; and without the files, which are not opened."""
    whole = Trainer(_recipe(tmp_path / "files", task))
    stored = Trainer(_recipe(tmp_path / "shards", task, shards))
    for one, two in zip(next(whole._deal(0)), next(stored._deal(0)), strict=True):
        assert one.asks == two.asks
        for name in ("pixels", "positions"):
            assert torch.equal(getattr(one.patches, name), getattr(two.patches, name))
        assert one.patches.counts == two.patches.counts and one.patches.grids == two.patches.grids
    whole.train()
    stored.train()
    assert same(weights(tmp_path / "files"), weights(tmp_path / "shards"))
    assert untimed(tmp_path / "files") == untimed(tmp_path / "shards")


def test_files_that_are_gone_or_elsewhere_are_found_in_shards(tmp_path: Path) -> None:
    task = question_set(tmp_path / "set", images=4)
    shards = _packed(tmp_path / "set", tmp_path / "shards")
    shutil.copytree(tmp_path / "set", tmp_path / "copy")
    moved = f"llava:{tmp_path / 'copy' / 'talk.jsonl'}"  # other names, equal contents
    for path in (tmp_path / "set").glob("*.png"):
        path.unlink()
    for one in (task, moved):
        pools = media.pools_of(_recipe(tmp_path, one, shards), "train", _chooser(), SceneMemory())
        assert [pools[0][0][i].kept(_chooser(), 0.25).pixels.shape for i in range(3)] == [(4, 8, 8, 3)] * 3


def _chooser(selector: str = "rate") -> EntropyTokenizer:
    return EntropyTokenizer(patch_size=8, keep=0.25, selector=selector)


def test_a_picture_in_no_shard_is_skipped_and_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    task = question_set(tmp_path / "set", images=6)
    shards = _packed(tmp_path / "set", tmp_path / "shards")
    question_set(tmp_path / "set", images=8)
    recipe = _recipe(tmp_path / "run", task, shards, image_scenes=6)
    Trainer(replace(recipe, eval=replace(recipe.eval, share=0.01), steps=7)).train()
    said = capsys.readouterr().err
    assert "data.shards: 2 of 8 scenes are not in there by their file" in said
    assert "no shard holds its patches [missing]" in said
    skipped = [m["skipped"] for m in read_metrics(tmp_path / "run")]
    assert sum(skipped) in (6, 12)  # six passes over seven scenes, one or two of which are in no shard


def test_what_is_no_whole_file_is_named_and_cannot_be_in_shards(
    task: str, shards: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A picture in a cell of a table."""
    ask = {"question": "what colour?", "A": "red", "B": "blue", "answer": "B"}
    tsv(tmp_path / "Set.tsv", [{"index": i, "image": b64(i), **ask} for i in range(3)])
    recipe = _recipe(tmp_path / "run", task, shards, image_scenes=9)
    recipe = replace(recipe, data=replace(recipe.data, questions=(task, f"vlmevalkit:{tmp_path / 'Set.tsv'}")))
    Trainer(replace(recipe, steps=2)).train()
    said = capsys.readouterr().err
    assert "data.shards: 3 of them cannot be: shards hold whole files" in said
    assert "Set.tsv:image" in said and "?:" not in said


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (
            {"keep": (0.25, 0.5)},
            r"shards/rate does not serve budget\.keep = 0.5.* more than was kept: 4 of 16",
        ),
        ({"keep": (0.125,)}, None),  # of stills rate tells fewer by their bits, and no video is asked for
        ({"image_size": 64}, r"as 1 frame\(s\) of 32x32 pixels, the recipe asks for 1 of 64: set data\.image_size"),
        ({"frame_count": 2}, r"as 4 frame\(s\) of 32x32 pixels, the recipe asks for 2 of 32"),
    ],
)
def test_recipes_that_shards_cannot_serve_are_refused(
    changes: dict[str, object], told: str | None, task: str, shards: str, tmp_path: Path
) -> None:
    recipe = _recipe(tmp_path / "run", task, shards, video_scenes=0 if told is None else 2, **changes)  # type: ignore[arg-type]
    if told is None:
        Trainer(recipe).train()
        return
    with pytest.raises(UsageError, match=told.replace("shards/", "")):
        Trainer(recipe).train()


def test_the_budget_of_a_measurement_is_named(task: str, shards: str, tmp_path: Path) -> None:
    recipe = _recipe(tmp_path, task, shards)
    with pytest.raises(UsageError, match=r"rate does not serve eval\.keep = 0\.5: "):
        media.stored_of(replace(recipe, eval=replace(recipe.eval, keep=0.5)), _chooser(), SceneMemory())


def test_a_selector_or_patch_size_of_another_recipe_is_refused(task: str, shards: str, tmp_path: Path) -> None:
    recipe = _recipe(tmp_path, task, shards)
    with pytest.raises(UsageError, match="chosen by rate at patch size 8, not by random at 8"):
        media.stored_of(recipe, _chooser("random"), SceneMemory())
    with pytest.raises(UsageError, match=r"not by rate at 16"):
        media.stored_of(recipe, EntropyTokenizer(patch_size=16, keep=0.25), SceneMemory())
    with pytest.raises(UsageError, match=r"data\.shards needs data\.questions"):
        DataRecipe(shards=("x",))


def test_smaller_budgets_of_a_video_are_refused_where_they_need_its_pixels(
    task: str, shards: str, tmp_path: Path
) -> None:
    """By the folder's first video, though stills stand before it: nothing is learned before it is told."""
    told = r"rate does not serve .*: 8 patches cannot be chosen from 16 .* 4 frame\(s\): .*decode the file"
    with pytest.raises(UsageError, match=told):
        Trainer(_recipe(tmp_path / "run", task, shards, keep=(0.25, 0.125))).train()


def test_smaller_budgets_of_what_goes_by_bits_alone_are_those_of_the_files(
    task: str, folder: Path, tmp_path: Path
) -> None:
    shards = _packed(folder, tmp_path / "shards", "gradient", keep=0.5)
    budget = {"keep": (0.5, 0.25, 0.1875)}
    pools = [
        media.pools_of(_recipe(tmp_path, task, *some, **budget), "train", _chooser("gradient"), SceneMemory())  # type: ignore[arg-type]
        for some in ((), (shards,))
    ]
    for (files, _), (stored, _) in zip(*pools, strict=True):
        for index in range(files.count or 0):
            for keep in budget["keep"]:
                one, two = (pool[index].kept(_chooser("gradient"), keep) for pool in (files, stored))
                np.testing.assert_array_equal(one.pixels, two.pixels)
                np.testing.assert_array_equal(one.positions, two.positions)
                np.testing.assert_array_equal(one.bits, two.bits)
