"""Does GRPO teach, or only train longer? Three warm-ups, two GRPO seeds each, beside a control of equal compute.

For each SFT seed: align, SFT to the gate, then (a) GRPO with two seeds and (b) a control that goes on with SFT for
the CPU seconds GRPO took. All are graded on the same held-out questions: greedy accuracy, sampled reward (T = 1) and
pass@8, each beside the SFT start, with paired bootstrap intervals over scenes.

    python tools/demo_seeds.py --out runs/seeds            # about 20 minutes on two cores; resumes
    python tools/demo_seeds.py --out runs/seeds --table    # print the table of what is there
"""

from __future__ import annotations

import argparse
import json
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import torch

from entropy_vision.config import load_config
from entropy_vision.console import say
from entropy_vision.data import World
from entropy_vision.demo import KEEP
from entropy_vision.evaluate import family_source
from entropy_vision.rl.batch import make_batch
from entropy_vision.rl.checkpoint import load
from entropy_vision.rl.evaluate import Graded, grade
from entropy_vision.rl.metrics import read_metrics
from entropy_vision.rl.parallel import in_team
from entropy_vision.rl.recipe import TrainRecipe
from entropy_vision.rl.rubric import Rubric
from entropy_vision.rl.scenes import score_scene
from entropy_vision.rl.train import run_recipes
from entropy_vision.stats import paired_difference, pass_at_k, wilson_interval
from entropy_vision.tokenizer import EntropyTokenizer

SAMPLES = 8


def train(stage: str, out: Path, init: Path | None, videos: Path, *changes: str, processes: int = 2) -> None:
    """One run of a shipped recipe with changes; a run that is done costs nothing."""
    where = [f"out={out}", f"data.video_folder={videos}", *([f"init={init}"] if init else [])]
    with resources.as_file(resources.files("entropy_vision") / "recipes" / f"{stage}.toml") as path:
        recipe = load_config(path, TrainRecipe, (*where, *changes, f"processes={processes}", "data.workers=0"))
    in_team(recipe.processes, run_recipes, [recipe])


def cpu_seconds(run: Path) -> list[float]:
    """CPU seconds of each step of a run."""
    return [m["cpu_seconds"] for m in read_metrics(run)]


def held_out(run: Path, videos: Path, questions: int) -> list[Any]:
    """The same test questions for every run."""
    model, _ = load(run)
    chooser = EntropyTokenizer(patch_size=model.encoder.patch_size, keep=KEEP, selector="rate")
    batches = []
    for family in World.families(shared=True):
        source = family_source(family, model.config.inputs, split="test", seed=1000, folder=str(videos))
        scenes = [score_scene(source.scene(i), chooser) for i in range(questions)]
        batches += [make_batch(scenes[i : i + 64], chooser, KEEP, None) for i in range(0, questions, 64)]
    return batches


def graded(run: Path, batches: list[Any]) -> tuple[Graded, Graded]:
    """(greedy, sampled) answers of a run's newest checkpoint."""
    model, tokenizer = load(run)
    rubric = Rubric(format_when_wrong=True)  # the recipe's
    greedy = grade(model, tokenizer, batches, rubric, temperature=0.0)
    return greedy, grade(model, tokenizer, batches, rubric, temperature=1.0, samples=SAMPLES, seed=7)


def row(name: str, start: tuple[Graded, Graded], end: tuple[Graded, Graded], cpu: float, steps: int) -> dict[str, Any]:
    """One run beside its SFT start."""
    greedy, sampled = end
    right = greedy.accuracy[:, 0]
    low, high = wilson_interval(int(right.sum()), len(right))
    return {
        "run": name,
        "steps": steps,
        "cpu_seconds": round(cpu, 1),
        "n": len(right),
        "greedy": right.mean(),
        "greedy_interval": (low, high),
        "greedy_gain": paired_difference(start[0].accuracy[:, 0], right),
        "sampled_accuracy": sampled.accuracy.mean(),
        "reward": sampled.reward.mean(),
        "reward_gain": paired_difference(start[1].reward.mean(1), sampled.reward.mean(1)),
        "pass_at_8": float(np.mean([pass_at_k(SAMPLES, int(c), SAMPLES) for c in sampled.accuracy.sum(1)])),
    }


def print_table(rows: list[dict[str, Any]]) -> None:
    """Markdown for docs/."""
    print("| run | steps | CPU s | greedy | gain, greedy | reward (T = 1) | gain, reward | pass@8 |")
    print("|---|---|---|---|---|---|---|---|")
    for r in rows:
        spread = "{:+.3f} [{:+.3f}, {:+.3f}]"
        print(
            f"| {r['run']} | {r['steps']} | {r['cpu_seconds']:.0f} "
            f"| {r['greedy']:.3f} [{r['greedy_interval'][0]:.3f}, {r['greedy_interval'][1]:.3f}] "
            f"| {spread.format(*r['greedy_gain'])} | {r['reward']:.3f} | {spread.format(*r['reward_gain'])} "
            f"| {r['pass_at_8']:.3f} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--sft-seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--grpo-seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--questions", type=int, default=250, help="of each family")
    parser.add_argument("--table", action="store_true", help="only print what was measured")
    parser.add_argument("--processes", type=int, default=2, help="that share each training step")
    options = parser.parse_args()
    learn = partial(train, processes=options.processes)
    results = options.out / "rows.json"
    rows: list[dict[str, Any]] = json.loads(results.read_text()) if results.exists() else []
    torch.set_num_threads(1)
    for seed in options.sft_seeds if not options.table else []:
        if any(r["run"] == f"sft {seed}, control" for r in rows):
            continue
        home, videos = options.out / f"seed-{seed}", options.out / "videos"
        learn("align", home / "align", None, videos, f"seed={seed}", f"data.seed={seed}")
        learn("sft", home / "sft", home / "align", videos, f"seed={seed}", f"data.seed={seed}")
        for g in options.grpo_seeds:
            learn("grpo", home / f"grpo-{g}", home / "sft", videos, f"seed={100 * seed + g}", f"data.seed={seed}")
        spent = float(np.mean([sum(cpu_seconds(home / f"grpo-{g}")) for g in options.grpo_seeds]))
        steps = round(spent / float(np.mean(cpu_seconds(home / "sft"))))
        more = (f"steps={steps}", f"seed={500 + seed}", f"data.seed={seed}", "sft.stop_accuracy=0.0", "eval.every=0")
        learn("sft", home / "control", home / "sft", videos, *more)
        say(f"grading SFT seed {seed}")
        batches = held_out(home / "sft", videos, options.questions)
        start = graded(home / "sft", batches)
        mine = [("start", "sft"), *[(f"GRPO {g}", f"grpo-{g}") for g in options.grpo_seeds], ("control", "control")]
        for name, run in mine:
            cpu = cpu_seconds(home / run)
            rows.append(row(f"sft {seed}, {name}", start, graded(home / run, batches), sum(cpu), len(cpu)))
        results.write_text(json.dumps(rows, indent=1))
        print_table(rows[-len(mine) :])
    print_table(rows)


if __name__ == "__main__":
    main()
