"""What `bench` leaves in its folder: the table as JSON, a page, and the plot of savings."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from entropy_vision.atomic import atomic_file, atomic_write
from entropy_vision.console import as_json
from entropy_vision.cost import STAGES
from entropy_vision.options import BenchOptions
from entropy_vision.reduction import Inside
from entropy_vision.report import AccuracyRow, Headline, Report, write_report

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DENSE = "dense"


def seconds_of(row: Mapping[str, Any]) -> float:
    """Seconds of a row's selection and tower."""
    return float(row["seconds_select"] + row["seconds_encode"])


def write_bench(options: BenchOptions, result: Mapping[str, Any]) -> dict[str, Path]:
    """The table as JSON, a page, and the plot of savings, into `options.out`."""
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
                seconds=seconds_of(row) / videos,
            )
            for row in rows
        ],
        accuracy_note="Tokens, FLOPs of the tower and seconds of selection and tower, for one video.",
        settings={"model": result["model"], "videos": options.videos or "drawn", "repeats": options.repeats},
        command=_command(options),
    )
    page = write_report(report, options.out / "report.html")
    return {"report": page, "picture": _draw(rows, shown["keep"], options.out / "savings.png")}


def _command(options: BenchOptions) -> str:
    words = ["entropy-vision", "bench", "--model", options.model, "--keep", *(f"{keep:g}" for keep in options.keep)]
    for name in ("videos", "checkpoint", "out"):
        if getattr(options, name) is not None:
            words += [f"--{name}", str(getattr(options, name))]
    words += ["--selectors", *options.selectors] if options.selectors else []
    words += ["--inside", *options.inside] if options.inside else []
    words += ["--language", options.language] if options.language else []
    if options.language or options.checkpoint:
        words += ["--prompt", str(options.prompt), "--answer", str(options.answer)]
    words += ["--attend", options.attend] if options.attend is not None else []
    words += ["--energy"] if options.energy else []
    words += ["--frames", str(options.frames), "--repeats", str(options.repeats), "--seed", str(options.seed)]
    return shlex.join(words)


def _draw(rows: Sequence[Mapping[str, Any]], keep: float, path: Path) -> Path:
    """How much faster than dense, where the seconds of dense and of `keep` go, and accuracy against seconds where it
    was measured, from left to right."""
    measured = rows[0]["accuracy"] is not None
    with _axes(path, 3 if measured else 2) as axes:
        _draw_stages(axes[-1], [row for row in rows if row["keep"] in (1.0, keep)])
        for name in dict.fromkeys(row["selector"] for row in rows[1:]):
            mine = [row for row in rows if row["selector"] == name]
            axes[0].plot([r["keep"] for r in mine], [r["wall_ratio"] for r in mine], "o-", label=name)
            if measured:
                axes[1].plot([seconds_of(r) for r in mine], [r["accuracy"] for r in mine], "o-", label=name)
        # selectors spread the same number of patches differently over frames, so their FLOPs differ by some per cent
        selected = [row for row in rows[1:] if not row["selector"].endswith(get_args(Inside))]
        keeps = sorted({row["keep"] for row in selected})
        flops = [np.mean([row["flops_ratio"] for row in selected if row["keep"] == keep]) for keep in keeps]
        axes[0].plot(keeps, flops, "k--", linewidth=1, label="FLOPs of the tower")
        axes[0].axhline(1.0, color="grey", linewidth=1, label=DENSE)
        axes[0].set(xlabel="keep", ylabel="dense / kept", title="seconds saved, selection included")
        axes[0].legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))  # inside, so many lines leave no room
        if measured:
            axes[1].plot(seconds_of(rows[0]), rows[0]["accuracy"], "k*", markersize=11, label=DENSE)
            axes[1].set(xlabel="seconds, selection included", ylabel="accuracy", title="accuracy against seconds")
    return path


def _draw_stages(axes: Axes, rows: Sequence[Mapping[str, Any]]) -> None:
    """A bar for every row, its measured stages one behind the other, first row on top."""
    names = [f"{row['selector']} {row['keep']:g}" for row in rows]
    ends = np.zeros(len(rows))
    for stage in (one for one in STAGES if any((row["stages"].get(one) or {}).get("seconds") for row in rows)):
        seconds = np.array([row["stages"][stage]["seconds"] for row in rows])
        axes.barh(names, seconds, left=ends, label=stage)
        ends += seconds
    axes.invert_yaxis()
    axes.set(xlabel="seconds", title="where they go, medians")
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))


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
