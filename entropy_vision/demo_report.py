"""The demo's page: what was kept, what that saved, what GRPO changed, in the words of someone who sees it first."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from entropy_vision.console import say
from entropy_vision.demo import KEEP, KEEPS, SELECTORS, Learned
from entropy_vision.errors import InputError, UsageError
from entropy_vision.frames import Frames, read_media
from entropy_vision.report import AccuracyRow, CurvePoint, Headline, Report, Sample, Story
from entropy_vision.text import answer_text
from entropy_vision.tokenizer import EntropyTokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from entropy_vision.bill import Cell
    from entropy_vision.cost import Cost
    from entropy_vision.evaluate import Measured
    from entropy_vision.options import DemoOptions
    from entropy_vision.policy import EntropyVLM
    from entropy_vision.rl.scenes import Scored

_STORY_FRAMES = 16
_CURVE = ("reward", "accuracy", "format", "kl", "length", "entropy")


def tell_stories(
    model: EntropyVLM,
    tokenizer: PreTrainedTokenizerFast,
    scenes: dict[str, list[Scored]],
    videos: Path | None,
) -> tuple[list[Story], list[str]]:
    """One story a family with the policy's own completion, then the user's files; and the files that were skipped."""
    from entropy_vision.rl.batch import make_batch
    from entropy_vision.rl.evaluate import grade
    from entropy_vision.rl.rubric import Rubric

    chooser = EntropyTokenizer(patch_size=model.encoder.patch_size, keep=KEEP, selector=SELECTORS[0])
    stories = []
    for family in ("direction", "relation", "appearance", "count"):
        scene = scenes[family][0]
        graded = grade(model, tokenizer, [make_batch([scene], chooser, KEEP, None)], Rubric())
        ask = scene.asks[0]
        kept = chooser.select(scene.frames, scene.bits)
        stories.append(
            Story(
                title=family,
                frames=scene.frames,
                kept=kept,
                note=f"A held-out scene; the policy saw {len(kept)} of {kept.bits.size} patches.",
                question=ask.question,
                answer=answer_text(ask.answer),
                completion=graded.completions[0],
                right=bool(graded.accuracy[0, 0]),
            )
        )
    found, skipped = _own_files(videos) if videos else ([], [])
    return [*stories, *found], skipped


def _own_files(folder: Path) -> tuple[list[Story], list[str]]:
    """The user's videos and images at 224 pixels and patch 16; what cannot be read is named, not hidden."""
    if not folder.is_dir():
        raise UsageError(f"--videos {folder} is not a folder")
    chooser = EntropyTokenizer(patch_size=16, keep=KEEP, selector=SELECTORS[0])
    stories, skipped = [], []
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        try:
            frames = _at_most(read_media(path, fps=2.0, size=224), _STORY_FRAMES)
        except InputError as error:
            say(f"skipped {error}")
            skipped.append(str(error))
            continue
        kept = chooser(frames)
        note = f"{len(kept):,} of {kept.bits.size:,} patches kept over {frames.count} frames."
        stories.append(Story(title=path.name, frames=frames, kept=kept, note=note))
    return stories, skipped


def _at_most(frames: Frames, count: int) -> Frames:
    """Evenly spread frames, at most `count`, first and last among them."""
    if frames.count <= count:
        return frames
    chosen = np.linspace(0, frames.count - 1, count).round().astype(int)
    return Frames(pixels=frames.pixels[chosen], pts_seconds=frames.pts_seconds[chosen])


def compose(
    options: DemoOptions,
    result: dict[str, Any],
    measured: Measured,
    learned: Learned,
    costs: dict[Cell, Cost],
    stories: Sequence[Story],
) -> Report:
    """The page from the demo's numbers."""
    cell, dense = measured.cell("rate", KEEP), measured.cell("rate", 1.0)
    gain = result["reward_gain"]
    return Report(
        title="entropy_vision demo",
        lead=(
            "A small policy was trained on this machine, from random weights, to answer questions about drawn scenes "
            f"and H.264 videos. It sees {KEEP:.0%} of the patches: the ones that carry the most bits."
        ),
        headlines=[
            Headline(
                label="visual tokens",
                value=f"{result['tokens_dense'] / result['tokens_kept']:.1f}x fewer",
                note=f"{result['tokens_dense']:,} to {result['tokens_kept']:,} over the costed questions",
            ),
            Headline(
                label="FLOPs",
                value=f"{result['flops_ratio']:.1f}x fewer",
                note="patch embedding, tower, projector, prefill and answer",
            ),
            Headline(label="seconds", value=f"{result['wall_ratio']:.1f}x fewer", note="selection included, one core"),
            Headline(
                label="accuracy",
                value=f"{100 * cell['accuracy']:.0f} %",
                note=f"at {KEEP:.0%} of the patches; dense {100 * dense['accuracy']:.0f} %, n = {cell['n']}",
            ),
            Headline(
                label="random patches",
                value=f"{100 * result['accuracy_random']:.0f} %",
                note=(
                    f"same budget; blind {100 * result['accuracy_blind']:.0f} %, "
                    f"best constant answers {100 * result['accuracy_constant']:.0f} %"
                ),
            ),
            Headline(
                label="reward by GRPO",
                value=f"{result['reward_before']:.2f} to {result['reward_after']:.2f}",
                note=f"sampled; gain {gain['mean']:.2f} [{gain['low']:.2f}, {gain['high']:.2f}], n = {gain['n']}",
            ),
        ],
        stories=stories,
        accuracy=_accuracy_rows(measured, costs, result["costed_questions"]),
        accuracy_note=(
            f"Greedy accuracy on {cell['n']} held-out questions, six families, 95 % Wilson intervals. The same "
            "questions for every row; blind is the policy without visual tokens; the best constant answer of each "
            f"family would reach {100 * result['accuracy_constant']:.0f} %."
        ),
        curve=_curve(options.out / "grpo"),
        curve_note="Means over a step's completions, sampled at temperature 1 on training scenes.",
        samples=_samples(learned),
        samples_note=_samples_note(learned),
        settings=_settings(result),
        command=_command(options),
    )


def _accuracy_rows(measured: Measured, costs: dict[Cell, Cost], costed: int) -> list[AccuracyRow]:
    rows = []
    for (selector, keep), graded in measured.graded.items():
        if keep == 1.0 and selector != SELECTORS[0]:
            continue
        cell = measured.cell(selector, keep)
        cost = costs.get((selector, keep))
        rows.append(
            AccuracyRow(
                selector=selector,
                keep=keep,
                accuracy=cell["accuracy"],
                low=cell["low"],
                high=cell["high"],
                n=int(cell["n"]),
                tokens=float(graded.tokens.mean()),
                flops=cost.total_flops / costed if cost else 0.0,
                seconds=cost.total_seconds / costed if cost else 0.0,
            )
        )
    return rows


def _curve(run: Path) -> list[CurvePoint]:
    from entropy_vision.rl.metrics import read_metrics

    return [CurvePoint(step=int(m["step"]), values={k: m[k] for k in _CURVE if k in m}) for m in read_metrics(run)]


def _samples(learned: Learned, count: int = 8) -> list[Sample]:
    """Questions whose greedy answer changed first, then others: both directions are shown."""
    before, after = learned.greedy_before, learned.greedy_after
    changed = np.flatnonzero(before.accuracy[:, 0] != after.accuracy[:, 0])
    rest = np.setdiff1d(np.arange(len(before.keys)), changed)
    step = max(1, len(changed) // (count - 2))
    return [
        Sample(
            question=before.questions[i],
            answer=before.answers[i],
            before=before.completions[i],
            after=after.completions[i],
            right_before=bool(before.accuracy[i, 0] == 1),
            right_after=bool(after.accuracy[i, 0] == 1),
        )
        for i in [*changed[::step][: count - 2].tolist(), *rest[:: max(1, len(rest) // 2)][:2].tolist()]
    ]


def _samples_note(learned: Learned) -> str:
    change = learned.greedy_after.accuracy[:, 0] - learned.greedy_before.accuracy[:, 0]
    return (
        "The same questions before and after GRPO, six of those that changed and two that did not. Of all "
        f"{len(change)} greedy answers {int((change > 0).sum())} became right, {int((change < 0).sum())} became wrong."
    )


def _settings(result: dict[str, Any]) -> dict[str, object]:
    train = result["train"]
    greedy = result["greedy_gain"]
    return {
        "keep": f"{KEEP:g} (also measured: {', '.join(f'{k:g}' for k in KEEPS)})",
        "stages": ", ".join(f"{stage} {run['steps']} steps" for stage, run in train.items()),
        "sampled completions a question": result["reward_gain"]["samples"],
        "greedy accuracy by GRPO": (
            f"{result['greedy_before']:.3f} to {result['greedy_after']:.3f}, "
            f"gain {greedy['mean']:.3f} [{greedy['low']:.3f}, {greedy['high']:.3f}]"
        ),
        "seed": result["seed"],
        "seconds": f"{result['seconds']:.0f}",
    }


def _command(options: DemoOptions) -> str:
    words = ["entropy-vision", "demo", "--out", str(options.out), "--seed", str(options.seed)]
    if options.videos:
        words += ["--videos", str(options.videos)]
    return shlex.join(words)
