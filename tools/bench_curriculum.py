"""Does GRPO learn faster where it asks more of what can be learned? Each curriculum beside none, at equal CPU time.

    python tools/bench_curriculum.py --init runs/demo/sft --out runs/curriculum      # about half an hour on one core

From one warm-up (`entropy-vision demo` leaves one) and for each seed: `none` takes the recipe's steps; `families` asks
the World's families by learnability, `levels` those of three difficulties each. A curriculum asks fewer questions a
step, so it takes as many steps as the CPU seconds of `none` pay for, by what a short run of it costs. All are graded on
the same held-out questions at the recipe's difficulty: greedy accuracy and the sampled reward, beside `none` by paired
bootstrap over questions.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from demo_seeds import cpu_seconds, graded, held_out, train

from entropy_vision.stats import mean_interval, paired_difference

CURRICULA: dict[str, tuple[str, ...]] = {
    "none": (),
    "families": ("curriculum.by=learnability",),
    "levels": ("curriculum.by=learnability", "curriculum.difficulties=[0.0, 0.2, 0.5]"),
}
_PILOT, _AFTER = 60, 20  # steps of a short run, and those before its curriculum has settled
_BEFORE_COOLDOWN = 45  # steps at the full rate, as in recipes/grpo.toml


def run(name: str, seed: int, steps: int, out: Path, init: Path) -> Path:
    """One run of the recipe with a curriculum; a run that is done costs nothing."""
    changes = (*CURRICULA[name], f"seed={seed}", f"data.seed={seed}", f"steps={steps}")
    changes += (f"optim.cooldown={max(steps - _BEFORE_COOLDOWN, 0)}",)
    train("grpo", out, init, out.parent / "videos", *changes, processes=1)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--init", type=Path, required=True, help="the run of a warm-up")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=220, help="of the runs without a curriculum")
    parser.add_argument("--questions", type=int, default=300, help="of each family")
    options = parser.parse_args()
    torch.set_num_threads(1)
    costs = {
        name: float(np.mean(cpu_seconds(run(name, 1000, _PILOT, options.out / f"pilot-{name}", options.init))[_AFTER:]))
        for name in CURRICULA
    }
    steps = {name: round(options.steps * costs["none"] / cost) for name, cost in costs.items()}
    batches = held_out(options.init, options.out / "videos", options.questions)
    ends: dict[str, list[Any]] = {name: [] for name in CURRICULA}
    spent: dict[str, list[float]] = {name: [] for name in CURRICULA}
    for seed in options.seeds:
        for name in CURRICULA:
            folder = run(name, seed, steps[name], options.out / f"{name}-{seed}", options.init)
            ends[name].append(graded(folder, batches))
            spent[name].append(sum(cpu_seconds(folder)))
    plain = ends["none"]
    rows = []
    for name, held in ends.items():
        greedy, reward = (np.mean([get(g) for g in held], axis=0) for get in (_greedy, _reward))
        row = {"curriculum": name, "steps": steps[name], "cpu_seconds": round(float(np.mean(spent[name])), 1)}
        row |= {"n": len(greedy), "seeds": len(held), "greedy": mean_interval(greedy), "reward": mean_interval(reward)}
        if name != "none":
            row["greedy_gain"] = paired_difference(np.mean([_greedy(g) for g in plain], axis=0), greedy)
            row["reward_gain"] = paired_difference(np.mean([_reward(g) for g in plain], axis=0), reward)
            row["reward_gain_by_seed"] = [
                float((_reward(b) - _reward(a)).mean()) for a, b in zip(plain, held, strict=True)
            ]
        rows.append(row)
    print(json.dumps(rows, indent=1))


def _greedy(graded: Any) -> np.ndarray:
    return np.asarray(graded[0].accuracy[:, 0])


def _reward(graded: Any) -> np.ndarray:
    return np.asarray(graded[1].reward.mean(1))


if __name__ == "__main__":
    main()
