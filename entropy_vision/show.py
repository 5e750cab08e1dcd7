"""Look at a selection: a contact sheet and a page for one video or image, or for a sample that shards hold."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from entropy_vision.atomic import atomic_file
from entropy_vision.errors import UsageError
from entropy_vision.frames import Frames, decode
from entropy_vision.options import ShowOptions
from entropy_vision.overlay import contact_sheet
from entropy_vision.patchset import PatchSet
from entropy_vision.predictors import predictors_of, shares
from entropy_vision.report import Headline, Report, Story, write_report
from entropy_vision.tokenizer import EntropyTokenizer


def run_show(options: ShowOptions) -> dict[str, object]:
    """Draw what is kept of a video or an image, or was kept in a shard.

    Returns:
        frames: number of frames scored; tokens_total: patches of all frames; tokens_kept: those kept;
        predictors: of a video by `rate`, the share of patches that each predictor came closest to; of a sample its key
        and source instead;
        picture, report: paths of kept.png and report.html.

    Raises:
        InputError: the file cannot be read.
        UsageError: an unknown selector, a patch larger than the frame, or FLOPs that pay for no patch.
    """
    from entropy_vision.data.peek import holds_shards

    if holds_shards(options.source):
        return _show_sample(options)
    if options.patch_size > options.size:
        raise UsageError(f"--patch-size {options.patch_size} must not exceed --size {options.size}")
    budget = options.budget()
    tokenizers = [
        EntropyTokenizer(patch_size=options.patch_size, budget=budget, selector=name) for name in options.selector
    ]
    frames, _ = decode(options.source, options.sampling(), size=options.size)
    kept = [tokenizer(frames) for tokenizer in tokenizers]
    predictors = (
        predictors_of(frames.pixels, options.patch_size) if kept[0].selector == "rate" and frames.count > 1 else None
    )
    settings = {
        **budget.settings(),
        "selector": " ".join(options.selector),
        "patch size": options.patch_size,
        "frame size": f"{frames.size[0]} x {frames.size[1]}",
        "frames": options.sampling().words(),
    }
    view = _View(options.source.name, frames, kept, predictors, settings, _command(options))
    return {**_draw(view, options.out), "predictors": None if predictors is None else shares(predictors)}


def _show_sample(options: ShowOptions) -> dict[str, object]:
    from entropy_vision.data.peek import peek

    sample, frames = peek(options.source, options.sample)
    settings = {
        "source": sample.source or "-",
        "key": sample.key,
        "selector": sample.selector,
        "patch size": sample.patch_size,
        "stored as": sample.record.get("store", "-"),
    }
    words = ["entropy-vision", "show", str(options.source), "--sample", options.sample, "--out", str(options.out)]
    title = sample.source.rpartition("/")[2] or sample.key
    view = _View(title, frames, [sample], None, settings, shlex.join(words))
    return {**_draw(view, options.out), "key": sample.key, "source": sample.source}


@dataclass(frozen=True, eq=False)
class _View:
    """What is drawn: frames, what each selector kept of them, and which predictor came closest where."""

    title: str
    frames: Frames
    kept: list[PatchSet]
    predictors: np.ndarray | None
    settings: Mapping[str, object]
    command: str


def _draw(view: _View, out: Path) -> dict[str, object]:
    """Write the sheet and the page, and say what is on them."""
    sheet = contact_sheet(view.frames, view.kept, view.title, view.predictors)
    return {
        "frames": view.frames.count,
        "tokens_total": view.kept[0].bits.size,
        "tokens_kept": len(view.kept[0]),
        "picture": _write_picture(sheet, out / "kept.png"),
        "report": write_report(_report(view), out / "report.html"),
    }


def _report(view: _View) -> Report:
    frames, first = view.frames, view.kept[0]
    total, count = float(first.bits.sum()), len(first)
    held = float(first.bits[first.shown].sum())
    seconds = float(frames.pts_seconds[-1] - frames.pts_seconds[0])
    headlines = [
        Headline(label="patches kept", value=f"{count:,}", note=f"of {first.bits.size:,}, selector {first.selector}"),
        Headline(label="tokens a frame", value=f"{count / frames.count:.3g}", note=f"of {first.bits[0].size:,}"),
        Headline(
            label="frames", value=f"{frames.count:,}", note=f"{seconds:.3g} s" if frames.count > 1 else "an image"
        ),
    ]
    if first.selector != "random" and total > 0:  # the scores of a random selection are lots, not bits
        headlines.insert(
            1, Headline(label="bits held", value=f"{100 * held / total:.0f} %", note="by the kept patches")
        )
    return Report(
        title=view.title,
        lead=f"{100 * first.keep:.3g} % of the patches, chosen by {first.selector}.",
        headlines=headlines,
        stories=[
            Story(
                title=view.title,
                frames=frames,
                kept=first,
                beside=tuple(view.kept[1:]),
                predictors=view.predictors,
            )
        ],
        settings=view.settings,
        command=view.command,
    )


def _command(options: ShowOptions) -> str:
    words = ["entropy-vision", "show", str(options.source), "--out", str(options.out)]
    for name, value in options.budget().settings().items():
        words += [f"--{name}", str(value)]
    words += ["--selector", *options.selector, "--patch-size", str(options.patch_size), "--size", str(options.size)]
    for name, value in options.sampling().settings().items():
        if value is not None:
            words += [f"--{name}"] if value is True else [f"--{name}", f"{value:g}"]
    return shlex.join(words)


def _write_picture(pixels: np.ndarray, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path, durable=False) as file:
        Image.fromarray(pixels).save(file, "png")
    return path
