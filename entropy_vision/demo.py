"""The `demo` verb: the whole job on scenes it draws itself, from pixels to a trained policy, ending in a report."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from entropy_vision.console import progress, say
from entropy_vision.errors import UsageError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from entropy_vision.bill import Cell
    from entropy_vision.cost import Cost
    from entropy_vision.evaluate import Measured
    from entropy_vision.options import DemoOptions
    from entropy_vision.policy import EntropyVLM
    from entropy_vision.rl.evaluate import Graded
    from entropy_vision.rl.recipe import TrainRecipe
    from entropy_vision.rl.scenes import Scored

KEEP = 0.25
KEEPS = (1.0, 0.5, 0.25, 0.125)
SELECTORS = ("rate", "random")
STAGES = ("align", "sft", "grpo")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How much the demo does; the tests do less of everything.

    Attributes:
        questions: held-out questions of each family.
        samples: completions a question behind reward_before and reward_after.
        shard_videos: videos that go through `preprocess`.
        costed: questions of each family behind the bill.
        processes: processes that share training and measuring; 0 takes two where there are two cores.
        changes: key.path=value changes to every stage's recipe.
    """

    questions: int = 150
    samples: int = 4
    shard_videos: int = 24
    costed: int = 4
    processes: int = 0
    changes: tuple[str, ...] = ()

    @property
    def team(self) -> int:
        """Number of processes."""
        return self.processes or min(2, os.cpu_count() or 1)


FULL = Plan()


@dataclass(frozen=True)
class Learned:
    """What GRPO changed, on held-out questions at KEEP: before and after, sampled and greedy."""

    before: Graded
    after: Graded
    greedy_before: Graded
    greedy_after: Graded


def run_demo(options: DemoOptions, plan: Plan = FULL) -> dict[str, Any]:
    """Draw, encode, preprocess, train, measure, report. The same call again trains only what is not trained yet."""
    import torch

    from entropy_vision import demo_report
    from entropy_vision.report import write_report
    from entropy_vision.rl.checkpoint import load, newest
    from entropy_vision.rl.parallel import in_team
    from entropy_vision.rl.train import run_recipes

    began, out = time.perf_counter(), options.out
    if options.videos is not None and not options.videos.is_dir():
        raise UsageError(f"--videos {options.videos} is not a folder")
    torch.set_num_threads(1)
    shards = _shards(out, options.seed, plan)
    say(
        f"packed {shards['inputs']} videos: {shards['tokens_total']:,} -> {shards['tokens_kept']:,} patches, "
        "every hash verified"
    )
    if newest(out / STAGES[0]) is not None:
        say(f"{out} holds stages that are trained already: they are not trained again, and seconds are this call's")
    recipes = [_recipe(stage, before, out, options.seed, plan) for before, stage in itertools.pairwise(("", *STAGES))]
    runs = dict(zip(STAGES, in_team(plan.team, run_recipes, recipes), strict=True))
    measured, learned = in_team(plan.team, _measure, out, options.seed, plan)
    model, tokenizer = load(out / "grpo")
    scenes = _held_out(model, out, options.seed, range(plan.costed))
    costs = _costs(model, tokenizer, scenes)
    result = _result(options, plan, runs, measured, learned, costs)
    stories, result["skipped"] = demo_report.tell_stories(model, tokenizer, scenes, options.videos)
    result["seconds"] = round(time.perf_counter() - began, 1)
    result["report"] = str(out / "report.html")
    page = demo_report.compose(options, result, measured, learned, costs, stories)
    write_report(page, out / "report.html")
    say(f"open {out / 'report.html'} in a browser")
    return result


# ---- the job --------------------------------------------------------------------------------------------------


def _shards(out: Path, seed: int, plan: Plan) -> dict[str, Any]:
    """Write some of the World's videos as files, preprocess them into shards, verify the shards."""
    from entropy_vision.data.preprocess import run_preprocess, run_verify
    from entropy_vision.options import PreprocessOptions, VerifyOptions
    from entropy_vision.sources import FileBacked, world_source

    source = world_source("video", split="val", difficulty=0.2, seed=seed, size=64, frame_count=8, folder=_videos(out))
    assert isinstance(source, FileBacked)
    for i in range(plan.shard_videos):
        source.scene(i)
    paths = tuple(str(source.path(i)) for i in range(plan.shard_videos))
    shards = out / "shards"
    done = run_preprocess(PreprocessOptions(sources=paths, out=str(shards), keep=KEEP, patch_size=8, size=64))
    run_verify(VerifyOptions(shards=str(shards)))
    return done


def _videos(out: Path) -> Path:
    """Where the World's videos lie as H.264 files."""
    return out / "videos"


def _recipe(stage: str, before: str, out: Path, seed: int, plan: Plan) -> TrainRecipe:
    """A shipped recipe in this demo's folder."""
    from entropy_vision.config import load_config
    from entropy_vision.rl.recipe import TrainRecipe

    changes = [f"out={out / stage}", f"seed={seed}", f"data.seed={seed}", f"data.video_folder={_videos(out)}"]
    # with a core for each process there is none left to deal ahead
    changes += [f"processes={plan.team}", f"data.workers={0 if plan.team > 1 else 1}"]
    changes += [f"init={out / before}"] if before else []
    with resources.as_file(resources.files("entropy_vision") / "recipes" / f"{stage}.toml") as path:
        return load_config(path, TrainRecipe, (*changes, *plan.changes))


def _measure(out: Path, seed: int, plan: Plan) -> tuple[Measured, Learned]:
    """Every measurement of accuracy and reward; each process of a team answers its share of the questions."""
    from entropy_vision.evaluate import Measured, measure
    from entropy_vision.rl.checkpoint import load
    from entropy_vision.rl.parallel import current_team

    team = current_team()
    model, tokenizer = load(out / "grpo")
    with progress("measure", len(SELECTORS) * len(KEEPS) + 6, shown=team.leads) as bar:
        mine = team.share(list(range(plan.questions)))
        scenes = _held_out(model, out, seed, mine)
        bar.advance(note="questions")
        measured = measure(
            model, tokenizer, scenes, keeps=KEEPS, selectors=SELECTORS, on_done=lambda note: bar.advance(note=note)
        )
        learned = Learned(
            before=_grade(out / "sft", scenes, temperature=1.0, samples=plan.samples, seed=seed + team.rank),
            after=_grade(out / "grpo", scenes, temperature=1.0, samples=plan.samples, seed=seed + team.rank),
            greedy_before=_grade(out / "sft", scenes, temperature=0.0),
            greedy_after=measured.graded[SELECTORS[0], KEEP],
        )
        bar.advance(5, note="before and after GRPO")
    parts = team.gather((measured, learned))
    return Measured.joined([m for m, _ in parts]), _joined([part for _, part in parts])


def _held_out(model: EntropyVLM, out: Path, seed: int, indices: Sequence[int]) -> dict[str, list[Scored]]:
    """Questions of every family from the test split, videos through files; answers are balanced over indices."""
    from entropy_vision.data import World
    from entropy_vision.evaluate import family_source
    from entropy_vision.rl.scenes import score_scene
    from entropy_vision.tokenizer import EntropyTokenizer

    chooser = EntropyTokenizer(patch_size=model.encoder.patch_size, keep=1.0, selector=SELECTORS[0])
    inputs, folder = model.config.inputs, str(_videos(out))
    sources = {f: family_source(f, inputs, split="test", seed=seed, folder=folder) for f in World.families(shared=True)}
    return {f: [score_scene(source.scene(i), chooser) for i in indices] for f, source in sources.items()}


def _grade(
    run: Path, scenes: dict[str, list[Scored]], *, temperature: float, samples: int = 1, seed: int = 0
) -> Graded:
    """A run's answers at KEEP."""
    from entropy_vision.evaluate import batches_of
    from entropy_vision.rl.checkpoint import load
    from entropy_vision.rl.evaluate import grade
    from entropy_vision.rl.rubric import Rubric
    from entropy_vision.tokenizer import EntropyTokenizer

    model, tokenizer = load(run)
    chooser = EntropyTokenizer(patch_size=model.encoder.patch_size, keep=KEEP, selector=SELECTORS[0])
    batches = batches_of(scenes.values(), chooser, KEEP)
    rubric = Rubric(format_when_wrong=True)  # the recipe's
    return grade(model, tokenizer, batches, rubric, temperature=temperature, samples=samples, seed=seed)


def _joined(parts: Sequence[Learned]) -> Learned:
    graded = type(parts[0].before)
    return Learned(
        graded.joined([p.before for p in parts]),
        graded.joined([p.after for p in parts]),
        graded.joined([p.greedy_before for p in parts]),
        graded.joined([p.greedy_after for p in parts]),
    )


def _costs(model: EntropyVLM, tokenizer: PreTrainedTokenizerFast, scenes: dict[str, list[Scored]]) -> dict[Cell, Cost]:
    """The bill of one question of each of `scenes`, images and videos together."""
    from entropy_vision.bill import add_costs, answer_costs

    by_media: dict[int, list[Scored]] = {}
    for family in scenes.values():
        by_media.setdefault(family[0].frames.count, []).extend(family)
    cells = [("rate", 1.0), *((selector, keep) for selector in SELECTORS for keep in KEEPS[1:])]
    parts = [answer_costs(model, tokenizer, some, cells, repeats=3) for some in by_media.values()]
    return {cell: add_costs([part[cell] for part in parts]) for cell in cells}


# ---- what it says ---------------------------------------------------------------------------------------------


def _result(
    options: DemoOptions,
    plan: Plan,
    runs: dict[str, dict[str, Any]],
    measured: Measured,
    learned: Learned,
    costs: dict[Cell, Cost],
) -> dict[str, Any]:
    """The numbers of the demo's JSON."""
    from entropy_vision.cost import CostReport
    from entropy_vision.evaluate import BLIND, as_json
    from entropy_vision.stats import paired_difference

    bill = CostReport.compare(costs["rate", 1.0], costs["rate", KEEP])
    reward = (learned.before.reward.mean(1), learned.after.reward.mean(1))
    greedy = (learned.greedy_before.accuracy[:, 0], learned.greedy_after.accuracy[:, 0])

    def gain(name: str, before: Any, after: Any, samples: int) -> dict[str, Any]:
        mean, low, high = paired_difference(before, after)
        interval = {"mean": mean, "low": low, "high": high, "n": len(before), "samples": samples}
        return {
            f"{name}_before": float(before.mean()),
            f"{name}_after": float(after.mean()),
            f"{name}_gain": interval,
        }

    return {
        "tokens_dense": bill.tokens_dense,
        "tokens_kept": bill.tokens_kept,
        "flops_ratio": bill.flops_ratio,
        "wall_ratio": bill.wall_ratio,
        "accuracy_dense": measured.cell("rate", 1.0)["accuracy"],
        "accuracy_kept": measured.cell("rate", KEEP)["accuracy"],
        "accuracy_random": measured.cell("random", KEEP)["accuracy"],
        "accuracy_blind": measured.cell(BLIND, 0.0)["accuracy"],
        "accuracy_constant": sum(measured.majority.values()) / len(measured.majority),
        "accuracy": as_json(measured, KEEPS, SELECTORS)
        | {
            "against_random": _paired(measured, ("rate", KEEP), ("random", KEEP)),
            "against_dense": _paired(measured, ("rate", KEEP), ("rate", 1.0)),
            "against_blind": _paired(measured, ("rate", KEEP), (BLIND, 0.0)),
        },
        **gain("reward", *reward, plan.samples),
        **gain("greedy", *greedy, 1),
        "cost": bill.to_dict(),
        "costed_questions": plan.costed * len(measured.families),
        "train": runs,
        "seed": options.seed,
    }


def _paired(measured: Measured, one: tuple[str, float], other: tuple[str, float]) -> dict[str, float]:
    """Accuracy of `one` minus that of `other` on the same questions, with its 95 % interval."""
    from entropy_vision.stats import paired_difference

    mean, low, high = paired_difference(measured.correct(*other), measured.correct(*one))
    return {"mean": mean, "low": low, "high": high}
