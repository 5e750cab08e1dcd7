"""Training on the user's own questions: the same scenes for everybody, in bounded memory, going on bit for bit."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import pytest
import torch
from question_sets import file_recipe, question_set, turns
from small_runs import same, small_recipe, stop_after, untimed, weights

from entropy_vision import EntropyTokenizer
from entropy_vision.config import to_toml
from entropy_vision.dialect import dialect_of
from entropy_vision.errors import InputError, Terminated, UsageError
from entropy_vision.evaluate import inputs_shown
from entropy_vision.options import TrainOptions
from entropy_vision.question import Answer
from entropy_vision.rl import media, verify
from entropy_vision.rl.batch import Batch, Dealer
from entropy_vision.rl.checkpoint import load_whole
from entropy_vision.rl.metrics import read_metrics
from entropy_vision.rl.parallel import Team, in_team
from entropy_vision.rl.recipe import BudgetRecipe, DataRecipe, EvalRecipe, GrpoRecipe, OptimRecipe, TrainRecipe
from entropy_vision.rl.scenes import SceneMemory
from entropy_vision.rl.train import run_recipes, run_train
from entropy_vision.rl.trainer import Trainer

CHOOSER = EntropyTokenizer(patch_size=8, keep=0.5)


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> str:
    return question_set(tmp_path_factory.mktemp("set"), images=12, videos=6)


@pytest.fixture(scope="module")
def started(task: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A policy of the set's words that has seen them a few times."""
    run = tmp_path_factory.mktemp("runs") / "sft"
    Trainer(file_recipe("sft", run, task, steps=25, optim=OptimRecipe(lr=3e-3, warmup=5))).train()
    return run


def _dealer(recipe: TrainRecipe, team: Team = Team()) -> Dealer:  # noqa: B008
    return Dealer(
        media.pools_of(recipe, "train", CHOOSER, SceneMemory()),
        CHOOSER,
        keeps=recipe.budget.keep,
        weights=recipe.budget.weights,
        pool=0,
        seed=3,
        groups=(("none",), (), ("r1c1",), ("t1",)),
        team=team,
    )


def _keys(batches: list[Batch]) -> list[str]:
    return [ask.key for batch in batches for ask in batch.asks]


def test_a_question_of_a_file_demonstrates_what_the_verifier_takes() -> None:
    truths = [
        Answer("choice", "B", options=("a cup", "a lamp")),
        Answer("yesno", False),
        Answer("number", 2.5),
        Answer("box", (1.0, 2.0, 30.0, 40.0)),
        Answer("set", {"red cube", "none"}),
        Answer("ordering", ["red", "blue"]),
        Answer("exact", "hot dog"),
    ]
    for truth in truths:
        question = _Question(truth, "it is so")
        ask = media.as_ask(question)
        assert ask.gold.startswith("<think> it is so </think>") and ask.profile == "robust"
        assert verify(ask.gold, truth).score == 1 and verify(ask.gold, truth).format_ok
    assert media.as_ask(_Question(truths[0], "a </think> in it")).gold.startswith("<think> look </think>")


def test_a_completion_may_be_as_long_as_the_longest_demonstration(tmp_path: Path) -> None:
    """Of the files to learn from; a run, its checkpoints and what goes on from them all know it."""
    task = question_set(tmp_path / "set", images=6)
    talk = tmp_path / "set" / "talk.jsonl"
    talk.write_text(talk.read_text().replace("it looks", "it " + "surely " * 40 + "looks"))
    few = {"steps": 1, "data": {"video_scenes": 0}, "eval": {"share": 0.5}, "grpo": GrpoRecipe()}
    longest = len(f"<think> it {'surely ' * 40} looks red </think> <answer> red </answer> <eos>".split())
    assert Trainer(file_recipe("sft", tmp_path / "sft", task, **few)).train()["steps"] == 1
    model, processor = load_whole(tmp_path / "sft")
    inputs = inputs_shown(model, processor, dialect_of(model, processor), tmp_path / "sft")
    assert inputs["max_new_tokens"] == longest == 49
    assert Trainer(file_recipe("sft", tmp_path / "sft", task, **few | {"steps": 2})).train()["steps"] == 2
    told = file_recipe("sft", tmp_path / "told", task, **few | {"grpo": GrpoRecipe(max_new_tokens=7)})
    assert Trainer(told).context.recipe.grpo.max_new_tokens == 7
    short = question_set(tmp_path / "short", images=6)
    assert Trainer(file_recipe("sft", tmp_path / "word", short, **few)).context.recipe.grpo.max_new_tokens == 28


class _Question:
    key, text, family, meta = "k", "q?", "f", {"profile": "robust"}

    def __init__(self, answer: Answer, rationale: str) -> None:
        self.answer, self.rationale = answer, rationale


def test_every_pass_deals_each_scene_once_in_another_order(task: str, tmp_path: Path) -> None:
    recipe = file_recipe("sft", tmp_path, task)
    dealer = _dealer(recipe)
    images, videos = (pool.count for pool, _ in dealer.media)
    assert images and (images, videos) == (9, 4)
    dealt = [[batch.asks[::2] for batch in dealer.deal(step)] for step in range(2 * images)]
    orders = [ask.key for step in dealt for ask in step[0]]  # three images a step, two questions each
    passes = [orders[i : i + images] for i in range(0, len(orders), images)]  # three steps each
    assert len(passes) == 6 and all(len(set(one)) == images for one in passes)
    assert len({tuple(one) for one in passes}) > 1
    counts = Counter(ask.key for step in dealt for ask in step[1])
    assert max(counts.values()) - min(counts.values()) <= 1 and len(counts) == videos


def test_a_step_is_dealt_alike_in_any_number_of_processes_and_in_any_memory(task: str, tmp_path: Path) -> None:
    recipe = file_recipe("sft", tmp_path, task)
    whole = _dealer(recipe)
    for memory in (0, 1, 100):
        other = _dealer(replace(recipe, data=replace(recipe.data, memory=memory)))
        for step in (4, 0, 9):
            for one, two in zip(whole.deal(step), other.deal(step), strict=True):
                assert one.asks == two.asks and one.keeps == two.keeps
                assert torch.equal(one.patches.pixels, two.patches.pixels) and bool((two.words == -1).all())
        assert all(len(pool._made) <= memory for pool, _ in other.media)
    parts = [_dealer(recipe, Team(rank, 2)).deal(5) for rank in (0, 1)]
    assert sorted(_keys(parts[0]) + _keys(parts[1])) == sorted(_keys(whole.deal(5)))


def test_what_was_asked_for_last_stays_in_memory(task: str, tmp_path: Path) -> None:
    recipe = file_recipe("sft", tmp_path, task, data={"memory": 2})
    (pool, _), _ = media.pools_of(recipe, "train", CHOOSER, SceneMemory())
    first = pool[0]
    assert pool[1] is pool[1] and pool[0] is first
    pool[2]
    assert pool[0] is first and set(pool._made) == {0, 2}  # type: ignore[attr-defined]


@pytest.mark.parametrize("stage", ["sft", "grpo"])
def test_a_run_on_files_goes_on_bit_for_bit(stage: str, task: str, tmp_path: Path, started: Path) -> None:
    changes: dict[str, object] = {"data": {"workers": 1}, "steps": 6}
    if stage == "grpo":
        grpo = GrpoRecipe(group_size=4, max_new_tokens=12, updates=2, beta=0.05)
        budget = BudgetRecipe(keep=(0.5, 0.25), weights=(0.5, 0.5), each="scene")
        changes |= {"init": str(started), "grpo": grpo, "budget": budget}
    whole = Trainer(file_recipe(stage, tmp_path / "whole", task, **_copied(changes))).train()
    cut = Trainer(file_recipe(stage, tmp_path / "cut", task, **_copied(changes)))
    stop_after(cut, 3)
    with pytest.raises(Terminated):
        cut.train()
    changes["data"] = {"workers": 0, "memory": 256}
    Trainer(file_recipe(stage, tmp_path / "cut", task, **_copied(changes))).train()
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "cut"))
    assert untimed(tmp_path / "whole") == untimed(tmp_path / "cut")
    assert whole["left_out"] == {task: 0}


def _copied(changes: dict[str, object]) -> dict[str, object]:
    return {k: dict(v) if isinstance(v, dict) else v for k, v in changes.items()}


def test_two_processes_compute_the_step_of_one(task: str, tmp_path: Path) -> None:
    for processes in (1, 2):
        recipe = file_recipe("sft", tmp_path / str(processes), task, processes=processes, steps=2)
        in_team(processes, run_recipes, [recipe])
    one, two = (read_metrics(tmp_path / str(n))[0] for n in (1, 2))
    assert one["loss"] == pytest.approx(two["loss"], rel=1e-5)
    assert (one["visual_tokens"], one["keep"]) == (two["visual_tokens"], two["keep"])


def test_pictures_that_cannot_be_read_are_skipped_and_rows_that_are_no_question_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    task = question_set(tmp_path, images=8)
    with (tmp_path / "talk.jsonl").open("a") as lines:
        lines.write(json.dumps(turns("image", "gone.png", "red", 8)) + "\n{}\n")
    recipe = file_recipe("sft", tmp_path / "run", task, steps=4, data={"image_scenes": 2}, eval={"share": 0.1})
    config = tmp_path / "run.toml"
    config.write_text(to_toml(recipe))
    result = run_train(TrainOptions(config=config))
    assert result["left_out"] == {task: 1}
    told = capsys.readouterr().err
    assert "8 images to learn from, 1 image held out" in told
    assert f"{task}: 1 left out, the first: " in told and "gone.png" in told
    assert sum(m["skipped"] for m in read_metrics(tmp_path / "run")) == 1  # in one pass over eight scenes


def test_files_that_have_changed_do_not_go_on(tmp_path: Path) -> None:
    task = question_set(tmp_path, images=8)
    recipe = file_recipe("sft", tmp_path / "run", task, steps=1)
    Trainer(recipe).train()
    question_set(tmp_path, images=9)
    with pytest.raises(UsageError, match=r"the files of data\.questions have changed"):
        Trainer(replace(recipe, steps=2))


def test_what_cannot_be_dealt_is_told(task: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r'"align" learns what each patch shows.*leave out data\.questions'):
        file_recipe("align", tmp_path, task)
    with pytest.raises(UsageError, match=r"world_share needs data\.questions"):
        DataRecipe(world_share=0.5)
    few = question_set(tmp_path / "few", images=2)
    recipe = file_recipe("sft", tmp_path, few, data={"image_scenes": 0})
    with pytest.raises(UsageError, match="no picture and no video"):
        media.pools_of(recipe, "train", CHOOSER, SceneMemory())
    with pytest.raises(UsageError, match="2 processes are too many: a step has 1 scenes of a medium of the files"):
        media.pools_of(file_recipe("sft", tmp_path, few), "train", CHOOSER, SceneMemory(), processes=2)
    pictures = file_recipe("sft", tmp_path, few, data={"image_scenes": 3, "video_scenes": 1}, eval={"scenes": 3})
    pictures.check_team(3)  # of videos there are none, so one a step is not too few
    nothing = file_recipe("sft", tmp_path / "none", few)
    for path in (tmp_path / "few").glob("*.png"):
        path.unlink()
    with pytest.raises(UsageError, match="not one scene of the validation split can be read"):
        Trainer(nothing).train()
    with pytest.raises(InputError):
        media.pools_of(nothing, "train", CHOOSER, SceneMemory())[0][0][0]


def test_the_world_takes_its_share_of_every_step(task: str, tmp_path: Path) -> None:
    recipe = file_recipe("sft", tmp_path / "run", task, data={"world_share": 0.5, "pool": 4}, steps=2)
    pools = media.pools_of(recipe, "train", CHOOSER, SceneMemory())
    assert [(pool.count is None, count) for pool, count in pools] == [(False, 1), (True, 2), (False, 1), (True, 1)]
    assert [pool.count is None for pool, _ in media.pools_of(recipe, "val", CHOOSER, SceneMemory())] == [False] * 2
    Trainer(recipe).train()
    labelled = [bool((batch.words >= 0).any()) for batch in next(Trainer(recipe)._deal(0))]
    assert labelled == [False, True, False, True]
    assert read_metrics(tmp_path / "run")[0]["align_accuracy"] > 0


def test_a_small_share_of_the_world_is_still_some(task: str, tmp_path: Path) -> None:
    """And a large one leaves some of the files: where there is room for both."""
    for share, scenes, counts in [(0.1, 3, (2, 1)), (0.9, 3, (1, 2)), (0.1, 1, (1,)), (0.9, 1, (1,)), (1.0, 3, (3,))]:
        data = {"world_share": share, "image_scenes": scenes, "video_scenes": 0}
        dealt = media.pools_of(file_recipe("sft", tmp_path, task, data=data), "train", CHOOSER, SceneMemory())
        assert tuple(count for _, count in dealt) == counts


def test_a_scene_weighs_as_much_as_its_questions_do_on_average(task: str, tmp_path: Path) -> None:
    (pool, _), _ = media.pools_of(file_recipe("grpo", tmp_path, task, init="."), "train", CHOOSER, SceneMemory())
    assert isinstance(pool, media.FilePool)
    weights = {arm: 0.3 * (1 + n) for n, arm in enumerate(pool.arms)}
    plain = [fmean(weights[ask.family] for ask in pool.asks(i)) for i in range(len(pool.files))]
    assert pool.chances(weights).tolist() == pytest.approx(plain)


def test_a_run_of_the_world_can_be_measured_on_files(task: str, tmp_path: Path) -> None:
    data = DataRecipe(image_scenes=2, video_scenes=0, pool=4, workers=0)
    recipe = small_recipe("sft", tmp_path / "run", steps=1, data=data, eval=EvalRecipe(scenes=3, questions=(task,)))
    trainer = Trainer(recipe)
    assert all(ask.key.startswith("llava-") for batch in trainer.validation() for ask in batch.asks)
    assert sum(len(batch.keeps) for batch in trainer.validation()) == 6
    assert trainer.train()["reward_after"] is not None


def test_a_policy_learns_what_files_ask_and_says_at_what_sizes(task: str, tmp_path: Path, started: Path) -> None:
    """Colours of pictures that were held out, by chance right one time in three (four colours, or red: yes or no)."""
    optim = OptimRecipe(lr=3e-3, warmup=5)
    recipe = file_recipe("sft", tmp_path / "sft", task, steps=60, optim=optim, grpo=GrpoRecipe(max_new_tokens=12))
    trainer = Trainer(recipe)
    trainer.train()
    assert trainer.grade(0.0)[0] > 0.85
    assert trainer.model.config.inputs["image_size"] == 32
    assert "align_accuracy" not in read_metrics(tmp_path / "sft")[0]  # files do not say what a patch shows
    grpo = file_recipe(
        "grpo", tmp_path / "grpo", task, init=recipe.out, grpo=GrpoRecipe(max_new_tokens=12, group_size=4), steps=2
    )
    learned = Trainer(grpo)
    assert learned.grade(0.0) == trainer.grade(0.0)
    learned.train()
    assert all(m["reward"] > 0.2 for m in read_metrics(tmp_path / "grpo"))


def test_a_policy_of_words_is_not_trained_on_files_whose_words_it_lacks(task: str, tmp_path: Path) -> None:
    """The World's policy has none of these: each would be a mark that is never said."""
    data = DataRecipe(image_scenes=1, video_scenes=0, pool=2, workers=0)
    world = small_recipe("align", tmp_path / "world", steps=1, data=data, eval=EvalRecipe(scenes=1))
    Trainer(world).train()
    lacks = r"init = .*world.* lacks \d+ words of data\.questions \(colour, it, looks, \.\.\.\): .* without init"
    for stage in ("sft", "grpo"):
        with pytest.raises(UsageError, match=lacks):
            Trainer(file_recipe(stage, tmp_path / stage, task, init=world.out))
