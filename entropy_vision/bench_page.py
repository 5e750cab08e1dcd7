"""What `bench` leaves in its folder: the table as JSON, a page, and the plot of savings."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, get_args

import numpy as np

from entropy_vision.atomic import atomic_file, atomic_write
from entropy_vision.charts import number
from entropy_vision.console import as_json
from entropy_vision.cost import STAGES
from entropy_vision.options import BenchOptions
from entropy_vision.reduction import Inside
from entropy_vision.report import AccuracyRow, Headline, Picture, Report, Table, write_report

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DENSE = "dense"
_BESIDE: Final[Mapping[str, Any]] = {"frameon": False, "loc": "upper left", "bbox_to_anchor": (1, 1)}
"""Where legends stand: inside, so many lines leave no room."""


def seconds_of(row: Mapping[str, Any]) -> float:
    """Seconds of a row's selection and tower."""
    return float(row["seconds_select"] + row["seconds_encode"])


def write_bench(options: BenchOptions, result: Mapping[str, Any]) -> dict[str, Path]:
    """The table as JSON, a page, and the plot of savings, into `options.out`."""
    assert options.out is not None
    options.out.mkdir(parents=True, exist_ok=True)
    # what was asked stands beside what was found: two runs can be told apart
    atomic_write(options.out / "bench.json", as_json({"options": asdict(options), **result}) + "\n")
    rows, videos = result["rows"], result["videos"]
    names = list(dict.fromkeys(row["selector"] for row in rows[1:]))
    mine = [row for row in rows[1:] if row["selector"] == ("rate" if "rate" in names else names[0])]
    shown = min(mine, key=lambda row: abs(row["keep"] - 0.25))
    threads = f"{result['threads']} thread{'s' if result['threads'] != 1 else ''}"
    judged = "" if shown["accuracy"] is not None else " What the patches are worth is not measured here."
    picture = _draw(rows, shown["keep"], options.out / "savings.png")
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
            *_whole(shown),
        ],
        accuracy=[
            AccuracyRow(
                selector=row["selector"],
                keep=row["keep"],
                accuracy=row["accuracy"],
                low=row.get("low"),
                high=row.get("high"),
                n=row.get("n", 0),
                tokens=row["tokens"] / videos,
                flops=row["flops"] / videos,
                seconds=seconds_of(row) / videos,
            )
            for row in rows
        ],
        accuracy_note="Tokens, FLOPs of the tower and seconds of selection and tower, for one video.",
        pictures=[
            Picture(
                title="Savings and where the seconds go",
                png=picture.read_bytes(),
                described="dense / kept of every selector, accuracy where it was measured, and the seconds of each "
                "stage; the tables have the numbers",
            )
        ],
        tables=_tables(rows, result["failed"]),
        settings={"model": result["model"], "videos": options.videos or "drawn", "repeats": options.repeats},
        command=_command(options),
    )
    return {"report": write_report(report, options.out / "report.html"), "picture": picture}


def _whole(row: Mapping[str, Any]) -> list[Headline]:
    """What a row saves from the file to the answer, where that was measured."""
    found = []
    if row["wall_ratio_whole"] is not None and row["stages"].keys() > {"select", "embed", "tower"}:
        found.append(Headline(label="faster as a whole", value=f"{row['wall_ratio_whole']:.2f}×", note="all stages"))
    if "flops_ratio_whole" in row:
        value = f"{row['flops_ratio_whole']:.2f}×"
        found.append(Headline(label="fewer FLOPs as a whole", value=value, note="tower and language model"))
    return found


def _tables(rows: Sequence[Mapping[str, Any]], failed: Mapping[str, str]) -> list[Table]:
    """Seconds and FLOPs of every stage, and what could not be used."""
    stages = [stage for stage in STAGES if any(stage in row["stages"] for row in rows)]
    timed = [stage for stage in stages if _bill(rows[0], stage).get("seconds") is not None]
    costed = [stage for stage in stages if any(_bill(row, stage).get("flops") for row in rows)]
    named = [([row["selector"], f"{row['keep']:g}"], row) for row in rows]
    seconds = [[*name, *(_seconds(_bill(row, one)) for one in timed)] for name, row in named]
    flops = [[*name, *(number(_bill(row, one)["flops"]) for one in costed)] for name, row in named]
    return [
        Table(
            title="Seconds of every stage",
            note="Of all videos together: medians, quartiles in brackets. The last column is dense / this row over all "
            "of these stages; there is none where a stage that costs FLOPs was not timed.",
            **_with_ratios(["selector", "keep", *timed], seconds, [row.get("wall_ratio_whole") for row in rows]),
        ),
        Table(
            title="FLOPs of every stage",
            note="Of all videos together. The last column is dense / this row, tower and language model, where there "
            "is one.",
            **_with_ratios(["selector", "keep", *costed], flops, [row.get("flops_ratio_whole") for row in rows]),
        ),
        Table(title="Left out", head=["file", "why"], rows=[[name, why] for name, why in failed.items()]),
    ]


def _bill(row: Mapping[str, Any], stage: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = row["stages"].get(stage) or {}
    return found


def _seconds(bill: Mapping[str, Any]) -> str:
    return f"{bill['seconds']:.3g} ({bill['low']:.3g} to {bill['high']:.3g})"


def _with_ratios(head: list[str], rows: list[list[str]], ratios: Sequence[float | None]) -> dict[str, Any]:
    """Head and rows of a table, dense / this row behind them where any row has it."""
    if all(ratio is None for ratio in ratios):
        return {"head": head, "rows": rows}
    cells = ["" if ratio is None else f"{ratio:.2f}" for ratio in ratios]
    return {
        "head": [*head, "whole, dense / this"],
        "rows": [[*row, cell] for row, cell in zip(rows, cells, strict=True)],
    }


def _command(options: BenchOptions) -> str:
    words = ["entropy-vision", "bench", "--model", options.model, "--keep", *map(str, options.keep)]
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
    """How much faster than dense, accuracy against seconds where it was measured, and where the seconds of dense and of
    `keep` go, from left to right."""
    measured = rows[0]["accuracy"] is not None
    compared = [row for row in rows if row["keep"] in (1.0, keep)]
    with _axes(path, 3 if measured else 2, most=len(compared)) as axes:
        _draw_savings(axes[0], rows[1:])
        _draw_stages(axes[-1], compared)
        if measured:
            for name in dict.fromkeys(row["selector"] for row in rows[1:]):
                mine = [row for row in rows if row["selector"] == name]
                axes[1].plot([seconds_of(r) for r in mine], [r["accuracy"] for r in mine], "o-", label=name)
            axes[1].plot(seconds_of(rows[0]), rows[0]["accuracy"], "k*", markersize=11, label=DENSE)
            axes[1].set(xlabel="seconds, selection included", ylabel="accuracy", title="accuracy against seconds")
            axes[1].legend(**_BESIDE)
    return path


def _draw_savings(axes: Axes, rows: Sequence[Mapping[str, Any]]) -> None:
    """Lines over keep; of one keep, which makes no line, bars."""
    names, keeps = list(dict.fromkeys(row["selector"] for row in rows)), sorted({row["keep"] for row in rows})
    if len(keeps) == 1:
        axes.barh(names, [row["wall_ratio"] for row in rows], color=_selector_colours())
        axes.plot([row["flops_ratio"] for row in rows], names, "kD", markersize=5, label="FLOPs of the tower")
        axes.axvline(1.0, color="grey", linewidth=1, label=DENSE)
        axes.invert_yaxis()
        axes.set(xlabel="dense / kept", title=f"seconds saved at keep {keeps[0]:g}, selection included")
    else:
        for name in names:
            mine = [row for row in rows if row["selector"] == name]
            axes.plot([r["keep"] for r in mine], [r["wall_ratio"] for r in mine], "o-", label=name)
        # selectors spread the same number of patches differently over frames, so their FLOPs differ by some per cent
        selected = [row for row in rows if not row["selector"].endswith(get_args(Inside))]
        at = sorted({row["keep"] for row in selected})
        flops = [np.mean([row["flops_ratio"] for row in selected if row["keep"] == keep]) for keep in at]
        axes.plot(at, flops, "kD--", linewidth=1, markersize=4, label="FLOPs of the tower")
        axes.axhline(1.0, color="grey", linewidth=1, label=DENSE)
        axes.set(xlabel="keep", ylabel="dense / kept", title="seconds saved, selection included")
    axes.legend(**_BESIDE)


def _draw_stages(axes: Axes, rows: Sequence[Mapping[str, Any]]) -> None:
    """A bar for every row, its measured stages one behind the other, first row on top."""
    from matplotlib import colormaps

    colours = colormaps["Dark2"]  # others than those of the selectors
    names = [f"{row['selector']} {row['keep']:g}" for row in rows]
    ends = np.zeros(len(rows))
    for place, stage in enumerate(STAGES):
        if any(_bill(row, stage).get("seconds") for row in rows):
            seconds = np.array([row["stages"][stage]["seconds"] for row in rows])
            axes.barh(names, seconds, left=ends, label=stage, color=colours(place))
            ends += seconds
    axes.invert_yaxis()
    axes.set(xlabel="seconds", title="where they go, medians")
    axes.locator_params(axis="x", nbins=5)  # numbers of many digits run into each other
    axes.legend(**_BESIDE)


def _selector_colours() -> Any:
    """[20, 4], more than there are selectors, the same in every panel that tells them apart."""
    from matplotlib import colormaps

    return colormaps["tab20"](range(20))


@contextmanager
def _axes(path: Path, columns: int, most: int) -> Iterator[list[Axes]]:
    """Axes side by side, room for `most` bars in each; the picture is written when the block ends."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.5 * columns, max(4.0, 0.3 * most + 1.2)), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.15, h_pad=0.15)  # type: ignore[union-attr,call-arg]
    axes = figure.subplots(1, columns, squeeze=False)[0]
    for one in axes:
        one.set_prop_cycle(color=_selector_colours())
    yield list(axes)
    with atomic_file(path) as file:
        FigureCanvasAgg(figure).print_png(file)
