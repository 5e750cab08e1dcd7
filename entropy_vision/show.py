"""Look at a selection: a contact sheet and a page for one video or image."""

from __future__ import annotations

import shlex
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
    """Draw what is kept of a video or an image.

    Returns:
        frames: number of frames scored; tokens_total: patches of all frames; tokens_kept: those kept;
        predictors: of a video by `rate`, the share of patches that each predictor came closest to;
        picture, report: paths of kept.png and report.html.

    Raises:
        InputError: the file cannot be read.
        UsageError: an unknown selector, a patch larger than the frame, or FLOPs that pay for no patch.
    """
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
    sheet = contact_sheet(frames, kept, options.source.name, predictors)
    picture = _write_picture(sheet, options.out / "kept.png")
    report = write_report(_report(options, frames, kept, predictors), options.out / "report.html")
    return {
        "frames": frames.count,
        "tokens_total": kept[0].bits.size,
        "tokens_kept": len(kept[0]),
        "predictors": None if predictors is None else shares(predictors),
        "picture": picture,
        "report": report,
    }


def _report(options: ShowOptions, frames: Frames, kept: list[PatchSet], predictors: np.ndarray | None) -> Report:
    first = kept[0]
    total, count = float(first.bits.sum()), len(first)
    held = float(first.bits[first.mask].sum())
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
        title=options.source.name,
        lead=f"{100 * first.keep:.3g} % of the patches, chosen by {first.selector}.",
        headlines=headlines,
        stories=[
            Story(title=options.source.name, frames=frames, kept=first, beside=tuple(kept[1:]), predictors=predictors)
        ],
        settings={
            **options.budget().settings(),
            "selector": " ".join(options.selector),
            "patch size": options.patch_size,
            "frame size": f"{frames.size[0]} x {frames.size[1]}",
            "frames": options.sampling().words(),
        },
        command=_command(options),
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
