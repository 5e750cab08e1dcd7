"""The `demo` verb: the whole job on scenes it draws itself, from pixels to a trained policy, ending in a report."""

from __future__ import annotations

import itertools
import os
import time
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from entropy_vision.console import progress, say

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from entropy_vision.cost import Cost
    from entropy_vision.evaluate import Measured
    from entropy_vision.options import DemoOptions
    from entropy_vision.policy import EntropyVLM
    from entropy_vision.rl.batch import Scored
    from entropy_vision.rl.evaluate import Graded
    from entropy_vision.rl.recipe import TrainRecipe

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
        costed: scenes of each medium behind the bill.
        changes: key.path=value changes to every stage's recipe.
    """

    questions: int = 200
    samples: int = 4
    shard_videos: int = 24
    costed: int = 24
    changes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Learned:
    """What GRPO changed, on held-out questions at KEEP: before and after, greedy and sampled."""

    before: Graded
    after: Graded
    greedy_before: Graded
    greedy_after: Graded


def run_demo(options: DemoOptions, plan: Plan = Plan()) -> dict[str, Any]:
    """Draw, encode, preprocess, train, measure, report. The same call again goes on where it was stopped."""
    import torch

    from entropy_vision import demo_report
    from entropy_vision.report import write_report

    began = time.perf_counter()
    torch.set_num_threads(1)
    out = options.out
    shards = _shards(out, options.seed, plan)
    say(
        f"packed {shards['inputs']} videos: {shards['tokens_total']:,} -> {shards['tokens_kept']:,} patches, "
        f"every hash verified"
    )
    runs = _train(out, options.seed, plan)
    model, tokenizer = _load(out / "grpo")
    with progress("measure", len(SELECTORS) * len(KEEPS) + 12) as bar:
        scenes = _held_out(model, out / "videos", options.seed, plan, lambda note: bar.advance(note=note))
        from entropy_vision.evaluate import measure

        measured = measure(
            model, tokenizer, scenes, keeps=KEEPS, selectors=SELECTORS, on_done=lambda note: bar.advance(note=note)
        )
        learned = _learned(out, scenes, options.seed, plan)
        bar.advance(4, note="before and after")
        costs = _costs(model, tokenizer, scenes, plan)
        bar.advance(1, note="cost")
    result = _result(options, plan, runs, measured, learned, costs)
    result["seconds"] = round(time.perf_counter() - began, 1)
    result["report"] = str(out / "report.html")
    stories, result["skipped"] = demo_report.tell_stories(model, tokenizer, scenes, options.videos)
    page = demo_report.compose(options, result, measured, learned, costs, stories)
    write_report(page, out / "report.html")
    return result


# ---- the job --------------------------------------------------------------------------------------------------


def _shards(out: Path, seed: int, plan: Plan) -> dict[str, Any]:
    """Write some of the World's videos as files, preprocess them into shards, verify the shards."""
    from entropy_vision.data.preprocess import run_preprocess, run_verify
    from entropy_vision.options import PreprocessOptions, VerifyOptions
    from entropy_vision.sources import world_source

    source = world_source(
        "video", split="val", difficulty=0.2, seed=seed, size=64, frame_count=8, folder=out / "videos"
    )
    for i in range(plan.shard_videos):
        source.scene(i)
    paths = tuple(source.path(i) for i in range(plan.shard_videos))  # type: ignore[attr-defined]
    done = run_preprocess(PreprocessOptions(sources=paths, out=out / "shards", keep=KEEP, patch_size=8, size=64))
    run_verify(VerifyOptions(shards=out / "shards"))
    return done


def _train(out: Path, seed: int, plan: Plan) -> dict[str, Any]:
    """The shipped recipes one after the other, in this demo's folder, on as many processes as pay."""
    from entropy_vision.rl.parallel import in_team
    from entropy_vision.rl.train import run_recipes

    recipes = [_recipe(stage, before, out, seed, plan) for before, stage in itertools.pairwise(("", *STAGES))]
    return dict(zip(STAGES, in_team(recipes[0].processes, run_recipes, recipes), strict=True))


def _recipe(stage: str, before: str, out: Path, seed: int, plan: Plan) -> TrainRecipe:
    from entropy_vision.config import load_config
    from entropy_vision.rl.recipe import TrainRecipe

    processes = min(2, os.cpu_count() or 1)
    changes = [f"out={out / stage}", f"seed={seed}", f"data.seed={seed}", f"data.video_folder={out / 'videos'}"]
    # with a core for each process there is none left to deal ahead
    changes += [f"processes={processes}", f"data.workers={0 if processes > 1 else 1}"]
    changes += [f"init={out / before}"] if before else []
    with resources.as_file(resources.files("entropy_vision") / "recipes" / f"{stage}.toml") as path:
        return load_config(path, TrainRecipe, (*changes, *plan.changes))


def _load(run: Path) -> tuple[EntropyVLM, PreTrainedTokenizerFast]:
    from entropy_vision.rl.checkpoint import load

    return load(run)


def _held_out(model: EntropyVLM, folder: Path, seed: int, plan: Plan, on_done: Any) -> dict[str, list[Scored]]:
    """Questions of every family from the test split, answers exactly balanced, videos through files."""
    from entropy_vision.data import World
    from entropy_vision.evaluate import family_source
    from entropy_vision.rl.batch import score_scene
    from entropy_vision.tokenizer import EntropyTokenizer

    chooser = EntropyTokenizer(patch_size=model.encoder.patch_size, keep=1.0, selector=SELECTORS[0])
    scenes = {}
    for family in World.families():
        source = family_source(family, model.config.inputs, split="test", seed=seed, folder=str(folder))
        scenes[family] = [score_scene(source.scene(i), chooser) for i in range(plan.questions)]
        on_done(family)
    return scenes


def _learned(out: Path, scenes: dict[str, list[Scored]], seed: int, plan: Plan) -> Learned:
    from entropy_vision.rl.batch import make_batch
    from entropy_vision.rl.evaluate import grade
    from entropy_vision.rl.rubric import Rubric
    from entropy_vision.tokenizer import EntropyTokenizer

    found = {}
    for run in ("sft", "grpo"):
        model, tokenizer = _load(out / run)
        chooser = EntropyTokenizer(patch_size=model.encoder.patch_size, keep=KEEP, selector=SELECTORS[0])
        batches = [
            make_batch(f[i : i + 64], chooser, KEEP, None) for f in scenes.values() for i in range(0, len(f), 64)
        ]
        for name, temperature, samples in (("sampled", 1.0, plan.samples), ("greedy", 0.0, 1)):
            found[run, name] = grade(
                model, tokenizer, batches, Rubric(), temperature=temperature, samples=samples, seed=seed
            )
    return Learned(found["sft", "sampled"], found["grpo", "sampled"], found["sft", "greedy"], found["grpo", "greedy"])


def _costs(
    model: EntropyVLM, tokenizer: PreTrainedTokenizerFast, scenes: dict[str, list[Scored]], plan: Plan
) -> dict[float, Cost]:
    """The bill of one question about each of some images and as many videos."""
    from entropy_vision.bill import add_costs, answer_costs

    by_media: dict[int, list[Scored]] = {}
    for family in scenes.values():
        by_media.setdefault(family[0].frames.count, []).extend(family[: plan.costed // 3])
    parts = [answer_costs(model, tokenizer, some, KEEPS, SELECTORS[0]) for some in by_media.values()]
    return {keep: add_costs([part[keep] for part in parts]) for keep in KEEPS}


# ---- what it says ---------------------------------------------------------------------------------------------


def _result(
    options: DemoOptions,
    plan: Plan,
    runs: dict[str, dict[str, Any]],
    measured: Measured,
    learned: Learned,
    costs: dict[float, Cost],
) -> dict[str, Any]:
    """The numbers of the demo's JSON."""
    from entropy_vision.cost import CostReport
    from entropy_vision.evaluate import BLIND, as_json
    from entropy_vision.stats import paired_difference

    bill = CostReport.compare(costs[1.0], costs[KEEP])
    reward = (learned.before.reward.mean(1), learned.after.reward.mean(1))
    greedy = (learned.greedy_before.accuracy[:, 0], learned.greedy_after.accuracy[:, 0])
    kept, dense = measured.cell("rate", KEEP), measured.cell("rate", 1.0)
    gain, gain_low, gain_high = paired_difference(*reward)
    skill, skill_low, skill_high = paired_difference(*greedy)
    return {
        "tokens_dense": bill.tokens_dense,
        "tokens_kept": bill.tokens_kept,
        "flops_ratio": bill.flops_ratio,
        "wall_ratio": bill.wall_ratio,
        "accuracy_dense": dense["accuracy"],
        "accuracy_kept": kept["accuracy"],
        "accuracy_random": measured.cell("random", KEEP)["accuracy"],
        "accuracy_blind": measured.cell(BLIND, 0.0)["accuracy"],
        "accuracy": as_json(measured, KEEPS, SELECTORS)
        | {"against_random": _paired(measured, ("rate", KEEP), ("random", KEEP))}
        | {"against_dense": _paired(measured, ("rate", KEEP), ("rate", 1.0))},
        "reward_before": float(reward[0].mean()),
        "reward_after": float(reward[1].mean()),
        "reward_gain": {"mean": gain, "low": gain_low, "high": gain_high, "n": len(reward[0]), "samples": plan.samples},
        "greedy_before": float(greedy[0].mean()),
        "greedy_after": float(greedy[1].mean()),
        "greedy_gain": {"mean": skill, "low": skill_low, "high": skill_high, "n": len(greedy[0])},
        "cost": bill.to_dict(),
        "costed_questions": 2 * (plan.costed // 3) * 3,
        "train": runs,
        "seed": options.seed,
    }


def _paired(measured: Measured, one: tuple[str, float], other: tuple[str, float]) -> dict[str, float]:
    """Accuracy of `one` minus that of `other` on the same questions, with its 95 % interval."""
    from entropy_vision.stats import paired_difference

    mean, low, high = paired_difference(measured.correct(*other), measured.correct(*one))
    return {"mean": mean, "low": low, "high": high}
