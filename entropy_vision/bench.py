"""The `bench` verb: what every selector saves beside the dense tower, its own cost included.

One row is one way of encoding the same videos. `seconds_select` is what happens before the tower (score, choose, cut
out the pixels; dense only cuts), `seconds_encode` is the tower with its packing. All rows are timed in turns, so that
a machine that slows down slows all of them.
"""

from __future__ import annotations

import shlex
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import torch

from entropy_vision.atomic import atomic_file, atomic_write
from entropy_vision.console import as_json, as_table, progress, say
from entropy_vision.cost import Timing, count_flops, measure_interleaved, measure_peak_memory, tower_flops
from entropy_vision.encoder import VisionEncoder
from entropy_vision.errors import InputError, InputReason
from entropy_vision.frames import Frames, decode
from entropy_vision.options import BenchOptions, EvalOptions, Inside
from entropy_vision.packed import PackedPatches
from entropy_vision.patchset import PatchSet
from entropy_vision.reduced import Reduced, merged, pruned
from entropy_vision.sampling import Sampling
from entropy_vision.selection import selectors
from entropy_vision.tokenizer import EntropyTokenizer

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from entropy_vision.hf_vision import HFVisionEncoder

    Encoder = VisionEncoder | HFVisionEncoder

DENSE = "dense"
MADE = 2  # videos that are drawn where none are given
LEAST = 4  # frames that the World needs to tell of a movement


@dataclass(frozen=True, kw_only=True, eq=False)
class Videos:
    """What the bench runs on.

    Attributes:
        names, frames: one each for every video or image.
        failed: name -> why it could not be used.
    """

    names: tuple[str, ...]
    frames: tuple[Frames, ...]
    failed: Mapping[str, str]


def run_bench(options: BenchOptions) -> dict[str, Any]:
    """Encode the same videos densely and with what every selector keeps.

    Returns:
        rows: dense first, then every selector at every keep, then what reduces inside the tower: selector, keep,
        tokens (that come out), flops (of the tower), bytes (of the pixels it takes), seconds_select, seconds_encode,
        seconds_spread (interquartile range of the two), peak_memory (of the tower, above where it began; None where
        the system does not tell), flops_ratio and wall_ratio (dense / this row), accuracy (None without a
        checkpoint). With `language` also flops_prefill and flops_decode of its reading the tokens and answering, and
        flops_ratio_whole (dense / this row, tower included). All are totals over the videos.
        Beside them: model, threads, videos, frames, failed, and with `out` the paths report and picture.

    Raises:
        UsageError: an unknown selector, model or language model.
        InputError: no video of the folder can be used, or the checkpoint cannot.
    """
    names = options.selectors or selectors()
    for name in names:
        EntropyTokenizer(selector=name)  # an unknown name must not wait until the dense rows are measured
    from entropy_vision.policy_cost import add_language, meta_decoder, meta_language

    language = meta_decoder(meta_language(options.language)) if options.language else None
    encoder, model, inputs = _encoder(options)
    videos = (
        read_videos(options.videos, options.frames, encoder.image_size) if options.videos else _drawn(options, encoder)
    )
    jobs = _jobs(encoder, videos.frames, names, options.inside, options.keep, options.seed)
    rows = _measure(encoder, jobs, options.repeats)
    if language is not None:
        add_language(rows, [job.counts for job in jobs], language, options.prompt, options.answer)
    if inputs:
        _add_accuracy(rows, options, names)
    elif options.checkpoint is not None:
        say(f"no accuracy: {options.checkpoint} does not say what inputs it was trained on, as checkpoints of train do")
    result: dict[str, Any] = {
        "model": model,
        "threads": torch.get_num_threads(),
        "videos": len(videos.frames),
        "frames": sum(one.count for one in videos.frames),
        "failed": dict(videos.failed),
        "rows": rows,
    }
    if options.json:
        say(as_table({"rows": rows}))
    if options.out is not None:
        result |= _write(options, result)
    return result


def _encoder(options: BenchOptions) -> tuple[Encoder, str, Mapping[str, Any]]:
    """The tower to measure, what to call it, and what inputs a checkpoint's policy was trained on, where it says so.

    A tower's weights do not matter to the bill, a checkpoint's to accuracy.
    """
    if options.checkpoint is None:
        return VisionEncoder(options.model).eval(), options.model, {}
    from entropy_vision.rl import checkpoint

    policy = checkpoint.load_model(options.checkpoint)
    return policy.encoder.eval(), str(options.checkpoint), policy.config.inputs


# --- videos


def read_videos(folder: Path, count: int, size: tuple[int, int]) -> Videos:
    """Every video and image below a folder, sorted by path, hidden files left out.

    Args:
        folder: searched recursively; a single file is taken as it is.
        count: frames of every video, evenly spread over it; all of them where it has fewer.
        size: (height, width) in pixels that frames are scaled to.

    Raises:
        InputError: not one of them can be used.
    """
    found = [folder] if folder.is_file() else sorted(path for path in folder.rglob("*") if path.is_file())
    frames: dict[str, Frames] = {}
    failed: dict[str, str] = {}
    for path in found:
        name = path.name if path == folder else str(path.relative_to(folder))
        if any(part.startswith(".") for part in Path(name).parts):
            continue
        try:
            frames[name], _ = decode(path, Sampling(frames=count), size=size)
        except InputError as error:
            failed[name] = error.detail
            say(f"left out: {error}")
    if not frames:
        reason = InputReason.EMPTY if found else InputReason.MISSING
        raise InputError(folder, reason, "no video or image here can be used")
    return Videos(names=tuple(frames), frames=tuple(frames.values()), failed=failed)


def _drawn(options: BenchOptions, encoder: Encoder) -> Videos:
    """The World's own videos, through H.264 and back as a user's would be."""
    from entropy_vision.sources import world_source

    with tempfile.TemporaryDirectory() as folder:
        source = world_source(
            "video",
            split="test",
            difficulty=0.5,
            seed=options.seed,
            size=max(encoder.image_size),
            frame_count=max(LEAST, options.frames),
            folder=folder,
        )
        frames = tuple(_first(source.scene(index)[0].frames, options.frames) for index in range(MADE))
    return Videos(names=tuple(f"drawn {index}" for index in range(MADE)), frames=frames, failed={})


def _first(frames: Frames, count: int) -> Frames:
    return Frames(pixels=frames.pixels[:count], pts_seconds=frames.pts_seconds[:count])


# --- measuring


@dataclass(frozen=True, kw_only=True, eq=False)
class _Job:
    """One row before it is measured."""

    selector: str
    keep: float
    select: Callable[[], list[PatchSet]]
    encode: Callable[[], object]
    kept: list[PatchSet]
    counts: tuple[int, ...]
    flops: int


def _jobs(
    encoder: Encoder,
    videos: Sequence[Frames],
    names: Sequence[str],
    inside: Sequence[str],
    keeps: Sequence[float],
    seed: int,
) -> list[_Job]:
    def job(selector: str, name: str, keep: float) -> _Job:
        tokenizer = EntropyTokenizer(patch_size=encoder.patch_size, keep=keep, selector=name, seed=seed)

        def select() -> list[PatchSet]:
            return [tokenizer(frames) for frames in videos]

        kept = select()
        return _Job(
            selector=selector,
            keep=keep,
            select=select,
            encode=partial(_encode, encoder, kept),
            kept=kept,
            counts=tuple(map(len, kept)),
            flops=_flops(encoder, kept),
        )

    # dense input needs no score: the cheapest selector does nothing but cut it into patches
    dense = job(DENSE, "uniform", 1.0)
    return [
        dense,
        *(job(name, name, keep) for name in names for keep in keeps),
        *(_inside_job(encoder, dense, name, keep) for name in inside for keep in keeps),
    ]


def _inside_job(encoder: Encoder, dense: _Job, name: str, keep: float) -> _Job:
    """Every patch goes into the tower, and fewer tokens come out of it."""
    assert isinstance(encoder, VisionEncoder)  # options refuse a checkpoint here
    reduce = {
        "tome": lambda packed: merged(encoder, packed, keep),
        "evs-features": lambda packed: pruned(encoder.encode(packed), packed, keep),
    }[name]

    @torch.no_grad()
    def encode() -> Reduced:
        return reduce(PackedPatches.pack(dense.kept))

    flops = sum(count_flops(encode).values())
    return replace(dense, selector=name, keep=keep, encode=encode, counts=encode().counts, flops=flops)


@torch.no_grad()
def _encode(encoder: Encoder, kept: list[PatchSet]) -> None:
    encoder(kept)


def _flops(encoder: Encoder, kept: Sequence[PatchSet]) -> int:
    """Of the tower."""
    segments = torch.bincount(PackedPatches.pack(kept).layout.patch_segments)
    return tower_flops(encoder.config, segments.tolist())


def _measure(encoder: Encoder, jobs: Sequence[_Job], repeats: int) -> list[dict[str, Any]]:
    """Rows without accuracy, in the order of `jobs`, whose first one is dense."""
    with progress("bench", len(jobs) * (repeats + 2)) as bar:

        def counted(run: Callable[[], object], note: str) -> None:
            run()
            bar.advance(note=note)

        calls: dict[str, Callable[[], object]] = {}
        for number, job in enumerate(jobs):
            calls[f"select {number}"] = job.select
            calls[f"encode {number}"] = partial(counted, job.encode, f"{job.selector} {job.keep:g}")
        timings = measure_interleaved(calls, repeats)
        peaks = []
        for job in jobs:
            peaks.append(measure_peak_memory(job.encode, "cpu"))
            bar.advance(note="memory")
    rows = [
        _row(job, timings[f"select {number}"], timings[f"encode {number}"], peaks[number])
        for number, job in enumerate(jobs)
    ]
    for row in rows:
        row["flops_ratio"] = rows[0]["flops"] / row["flops"]
        row["wall_ratio"] = _seconds(rows[0]) / _seconds(row)
        row["accuracy"] = None
    return rows


def _row(job: _Job, select: Timing, encode: Timing, peak: int | None) -> dict[str, Any]:
    return {
        "selector": job.selector,
        "keep": job.keep,
        "tokens": sum(job.counts),
        "flops": job.flops,
        "bytes": sum(one.pixels.nbytes for one in job.kept),
        "seconds_select": select.median,
        "seconds_encode": encode.median,
        "seconds_spread": select.spread + encode.spread,
        "peak_memory": peak,
    }


def _seconds(row: Mapping[str, Any]) -> float:
    return float(row["seconds_select"] + row["seconds_encode"])


def _add_accuracy(rows: Sequence[dict[str, Any]], options: BenchOptions, names: Sequence[str]) -> None:
    """What `eval` measures of the checkpoint, over all families, put into the rows."""
    from entropy_vision.evaluate import run_eval

    assert options.checkpoint is not None
    keeps = tuple(sorted({1.0, *options.keep}, reverse=True))
    asked = EvalOptions(checkpoint=options.checkpoint, keep=keeps, selectors=tuple(names), seed=options.seed)
    measured = run_eval(asked)["selectors"]
    for row in rows:
        name = names[0] if row["selector"] == DENSE else row["selector"]
        row["accuracy"] = measured[name]["all"][f"{row['keep']:g}"]["accuracy"]


# --- what is written


def _write(options: BenchOptions, result: Mapping[str, Any]) -> dict[str, Path]:
    """The table as JSON, a page, and the plot of savings, into `options.out`."""
    from entropy_vision.report import AccuracyRow, Headline, Report, write_report

    assert options.out is not None
    options.out.mkdir(parents=True, exist_ok=True)
    atomic_write(options.out / "bench.json", as_json(result) + "\n")
    rows, videos = result["rows"], result["videos"]
    names = list(dict.fromkeys(row["selector"] for row in rows[1:]))
    mine = [row for row in rows[1:] if row["selector"] == ("rate" if "rate" in names else names[0])]
    shown = min(mine, key=lambda row: abs(row["keep"] - 0.25))
    threads = f"{result['threads']} thread{'s' if result['threads'] != 1 else ''}"
    judged = "" if shown["accuracy"] is not None else " What the patches are worth is not measured here."
    report = Report(
        title="Compute savings of every selector",
        lead=f"{videos} videos, {result['frames']} frames, tower {result['model']}, {threads}.{judged}",
        headlines=[
            Headline(
                label="faster than dense",
                value=f"{shown['wall_ratio']:.2f}×",
                note=f"{shown['selector']} at keep {shown['keep']:g}, selection included",
            ),
            Headline(label="fewer FLOPs", value=f"{shown['flops_ratio']:.2f}×", note="in the tower, same row"),
        ],
        accuracy=[
            AccuracyRow(
                selector=row["selector"],
                keep=row["keep"],
                accuracy=row["accuracy"],
                tokens=row["tokens"] / videos,
                flops=row["flops"] / videos,
                seconds=_seconds(row) / videos,
            )
            for row in rows
        ],
        accuracy_note="Tokens, FLOPs of the tower and seconds of selection and tower, for one video.",
        settings={"model": result["model"], "videos": options.videos or "drawn", "repeats": options.repeats},
        command=_command(options),
    )
    page = write_report(report, options.out / "report.html")
    return {"report": page, "picture": _draw(rows, options.out / "savings.png")}


def _command(options: BenchOptions) -> str:
    words = ["entropy-vision", "bench", "--model", options.model, "--keep", *(f"{keep:g}" for keep in options.keep)]
    for name in ("videos", "checkpoint", "out"):
        if getattr(options, name) is not None:
            words += [f"--{name}", str(getattr(options, name))]
    words += ["--selectors", *options.selectors] if options.selectors else []
    words += ["--inside", *options.inside] if options.inside else []
    if options.language:
        words += ["--language", options.language, "--prompt", str(options.prompt), "--answer", str(options.answer)]
    words += ["--frames", str(options.frames), "--repeats", str(options.repeats), "--seed", str(options.seed)]
    return shlex.join(words)


def _draw(rows: Sequence[Mapping[str, Any]], path: Path) -> Path:
    """How much faster than dense (left), and accuracy against seconds where it was measured (right)."""
    measured = rows[0]["accuracy"] is not None
    with _axes(path, 2 if measured else 1) as axes:
        for name in dict.fromkeys(row["selector"] for row in rows[1:]):
            mine = [row for row in rows if row["selector"] == name]
            axes[0].plot([r["keep"] for r in mine], [r["wall_ratio"] for r in mine], "o-", label=name)
            if measured:
                axes[1].plot([_seconds(r) for r in mine], [r["accuracy"] for r in mine], "o-", label=name)
        # selectors spread the same number of patches differently over frames, so their FLOPs differ by some per cent
        selected = [row for row in rows[1:] if row["selector"] not in get_args(Inside)]
        keeps = sorted({row["keep"] for row in selected})
        flops = [np.mean([row["flops_ratio"] for row in selected if row["keep"] == keep]) for keep in keeps]
        axes[0].plot(keeps, flops, "k--", linewidth=1, label="FLOPs of the tower")
        axes[0].axhline(1.0, color="grey", linewidth=1, label=DENSE)
        axes[0].set(xlabel="keep", ylabel="dense / kept", title="seconds saved, selection included")
        axes[0].legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))  # inside, so many lines leave no room
        if measured:
            axes[1].plot(_seconds(rows[0]), rows[0]["accuracy"], "k*", markersize=11, label=DENSE)
            axes[1].set(xlabel="seconds, selection included", ylabel="accuracy", title="accuracy against seconds")
    return path


@contextmanager
def _axes(path: Path, columns: int) -> Iterator[list[Axes]]:
    """Axes side by side; the picture is written when the block ends."""
    from matplotlib import colormaps
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.5 * columns + 1.5, 4), layout="constrained")
    axes = figure.subplots(1, columns, squeeze=False)[0]
    for one in axes:
        one.set_prop_cycle(color=colormaps["tab20"](range(20)))  # more colours than there are selectors
    yield list(axes)
    with atomic_file(path) as file:
        FigureCanvasAgg(figure).print_png(file)
