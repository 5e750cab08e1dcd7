"""The `bench` verb: what every selector saves beside the dense tower, its own cost included.

One row is one way of encoding the same videos. `seconds_select` is what happens before the tower (score, choose, cut
out the pixels; dense only cuts), `seconds_encode` is the tower with its packing. `stages` is the whole bill, stage by
stage, from the file to the answer. All rows are timed in turns, so that a machine that slows down slows all of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from entropy_vision.answering import Answering
from entropy_vision.attend import read_attend
from entropy_vision.bench_page import DENSE, seconds_of, write_bench
from entropy_vision.bench_videos import draw_videos, read_videos
from entropy_vision.console import as_table, progress, say
from entropy_vision.cost import Cost, count_flops
from entropy_vision.encoder import VisionEncoder
from entropy_vision.energy import measure_joules
from entropy_vision.frames import Frames
from entropy_vision.measure import Chain, Timing, measure_peak_memory, measure_stages
from entropy_vision.options import BenchOptions, EvalOptions
from entropy_vision.packed import PackedPatches
from entropy_vision.patchset import PatchSet
from entropy_vision.projectors import Places
from entropy_vision.reduced import reduced_counts, see
from entropy_vision.reduction import Choice, Reduction
from entropy_vision.selection import selectors
from entropy_vision.tokenizer import EntropyTokenizer
from entropy_vision.tower import Tower

if TYPE_CHECKING:
    from entropy_vision.hf_vision import HFVisionEncoder
    from entropy_vision.policy import EntropyVLM

    Encoder = VisionEncoder | HFVisionEncoder

Embedded = tuple[PackedPatches, Tensor]
_FILES = "decode_video"  # a stage of every row that is measured once a round


def run_bench(options: BenchOptions) -> dict[str, Any]:
    """Encode the same videos densely and with what every selector keeps.

    Returns:
        rows: dense first, then every selector at every keep, then what reduces tokens (`inside`). Of a policy that
        reduces its tokens itself they do so below keep 1; dense is without. selector, keep,
        tokens (that come out), flops (of the tower), bytes (of the pixels it takes), seconds_select, seconds_encode,
        seconds_spread (interquartile range of the two), peak_memory (of the tower, above where it began; None where
        the system does not tell), flops_ratio and wall_ratio (dense / this row), accuracy (None without a checkpoint,
        else with low, high and n). With `language` or a checkpoint also flops_prefill and flops_decode of its reading
        the tokens and answering, and flops_ratio_whole (dense / this row, tower and language model). All are totals
        over the videos. stages is `Cost.stages`: flops, seconds and quartiles (low, high) of each of `cost.STAGES`,
        decode_video where the videos are files (the same in every row), seconds of project, prefill and decode where a
        checkpoint's policy ran them; seconds_whole is of all that was measured, and wall_ratio_whole (dense / this row)
        of it, None where a stage that has FLOPs was not timed, as those of `language` without running it. With `energy`
        joules (of all stages from select on, None where the machine tells none) and beside the rows energy, which
        counters told them.
        Beside them: model, threads, videos, frames, failed, and with `out` the paths report and picture. Without
        `json` also stages, those of all rows as rows of their own.

    Raises:
        UsageError: an unknown selector, model or language model, or names that reduce, below keep 1, over a policy
            that does itself.
        InputError: no video of the folder can be used, or the checkpoint cannot.
    """
    names, threads = options.selectors or selectors(), torch.get_num_threads()
    for name in names:
        EntropyTokenizer(selector=Choice.of(name, 1.0).selector)  # a wrong name must not wait until others are measured
    from entropy_vision.policy_cost import meta_decoder, meta_language

    language = meta_decoder(meta_language(options.language)) if options.language else None
    policy = _policy(options)
    encoder = VisionEncoder(options.model).eval() if policy is None else policy.encoder
    given = (options.frames, encoder.image_size)
    videos = read_videos(options.videos, *given) if options.videos else draw_videos(*given, options.seed)
    jobs = _jobs(encoder, policy, videos.frames, names, options)
    # a policy is timed where its own decoder is what is asked for
    answering = None if language is not None else policy
    chains = {number: _whole(job, answering, options) for number, job in enumerate(jobs)}
    files: Chain = {_FILES: lambda _: videos.decode()} if videos.paths else {}
    laps, peaks = _measure(jobs, chains, files, options.repeats)
    bills = _bills(jobs, encoder, policy, language, options)
    rows = [_row(*one) for one in zip(jobs, bills, laps, peaks, strict=True)]
    told = _add_joules(rows, list(chains.values()), encoder, options.repeats) if options.energy else None
    _compare(rows)
    if policy is not None and policy.config.inputs:
        _add_accuracy(rows, options, names)
        torch.set_num_threads(threads)  # which eval has lowered
    elif policy is not None:
        say(f"no accuracy: {options.checkpoint} does not say what inputs it was trained on, as checkpoints of train do")
    result: dict[str, Any] = {
        "model": options.model if policy is None else str(options.checkpoint),
        "threads": threads,
        "videos": len(videos.frames),
        "frames": sum(one.count for one in videos.frames),
        "failed": dict(videos.failed),
        "rows": rows,
    }
    result |= {} if told is None else {"energy": told}
    if options.json:
        say(as_table({"stages": _stages(rows), "rows": rows}))
    else:
        result = {"stages": _stages(rows)} | result
    if options.out is not None:
        result |= write_bench(options, result)
    return result


def _stages(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The stages of all rows as rows of their own."""
    return [
        {"selector": row["selector"], "keep": row["keep"], "stage": stage} | bill
        for row in rows
        for stage, bill in row["stages"].items()
    ]


def _policy(options: BenchOptions) -> EntropyVLM | None:
    """The checkpoint's. A tower's weights do not matter to the bill, a checkpoint's to accuracy."""
    if options.checkpoint is None:
        return None
    from entropy_vision.rl import checkpoint

    return checkpoint.load_model(options.checkpoint).eval()


# --- jobs


@dataclass(frozen=True, kw_only=True, eq=False)
class _Job:
    """One row before it is measured: what its stages up to the tower's tokens are, and what goes in and out of them."""

    selector: str
    keep: float
    chain: Chain
    kept: list[PatchSet]
    counts: tuple[int, ...]
    flops: Mapping[str, int]

    def encode(self) -> None:
        """The tower with its packing."""
        self.chain["tower"](self.chain["embed"](self.kept))


def _jobs(
    encoder: Encoder,
    policy: EntropyVLM | None,
    videos: Sequence[Frames],
    names: Sequence[str],
    options: BenchOptions,
) -> list[_Job]:
    price, attend = Tower.from_config(encoder.config), read_attend(options.attend or "frame")
    if options.attend is None and policy is not None:
        attend = policy.config.attend

    @torch.no_grad()
    def embed(kept: list[PatchSet]) -> Embedded:
        packed = encoder.placed(PackedPatches.pack(kept, attend))
        return packed, encoder.embed(packed)

    def job(selector: str, keep: float, choice: Choice, reduction: Reduction | None) -> _Job:
        tokenizer = EntropyTokenizer(
            patch_size=encoder.patch_size, keep=choice.keep, selector=choice.selector, seed=options.seed
        )

        def select(_: None = None) -> list[PatchSet]:
            return [tokenizer(frames) for frames in videos]

        @torch.no_grad()
        def tower(embedded: Embedded) -> tuple[Tensor, Places]:
            packed, hidden = embedded
            return see(encoder, packed, reduction, hidden)

        kept = select()
        packed = PackedPatches.pack(kept, attend)
        flops = price.block_flops(packed.segments(price.prefix))
        if reduction is not None and reduction.kind == "tome":  # which compares tokens, and has fewer in every block
            flops = sum(count_flops(partial(tower, embed(kept))).values())
        return _Job(
            selector=selector,
            keep=keep,
            chain={"select": select, "embed": embed, "tower": tower},
            kept=kept,
            counts=packed.counts if reduction is None else reduced_counts(packed, reduction, encoder.layers),
            flops={"embed": price.embed_flops(len(packed)), "tower": flops},
        )

    # dense input needs no score: the cheapest selector does nothing but cut it into patches
    cells = [(DENSE, 1.0, Choice("uniform", 1.0))]
    cells += [(name, keep, Choice.of(name, keep)) for name in (*names, *options.inside) for keep in options.keep]
    own = None if policy is None else policy.reduction
    reductions = [choice.reduced_by(own) for _, _, choice in cells]  # refused before anything is selected
    return [job(*cell, reduction) for cell, reduction in zip(cells, reductions, strict=True)]


def _whole(job: _Job, policy: EntropyVLM | None, options: BenchOptions) -> Chain:
    """The stages of a job, and those of the policy's answer behind them."""
    if policy is None:
        return job.chain
    return {**job.chain, **Answering(policy, options.prompt, options.answer).chain}


def _bills(
    jobs: Sequence[_Job], encoder: Encoder, policy: EntropyVLM | None, language: Any, options: BenchOptions
) -> list[dict[str, int]]:
    """FLOPs of every job by stage, in closed form: its tower's, and those of a language model and its projector."""
    from entropy_vision.policy_cost import language_flops, meta_decoder
    from entropy_vision.projectors import Projector, projector_flops

    if policy is None and language is None:
        return [dict(job.flops) for job in jobs]
    if language is None:
        assert policy is not None
        language, projector = meta_decoder(policy.config.get_text_config()), policy.projector
    else:
        with torch.device("meta"):
            projector = Projector(encoder.width, language.config.hidden_size)
    bills = []
    for job in jobs:
        reduced = sum(job.counts) < sum(map(len, job.kept))
        slots = job.counts if policy is None or reduced else policy.projector.slots(PackedPatches.pack(job.kept)).counts
        project = {"project": projector_flops(projector, sum(job.counts))}
        bills.append({**job.flops, **project, **language_flops(language, slots, options.prompt, options.answer)})
    return bills


# --- measuring

Laps = Mapping[str, Sequence[float]]


def _measure(
    jobs: Sequence[_Job], chains: Mapping[int, Chain], files: Chain, repeats: int
) -> tuple[list[Laps], list[int | None]]:
    """Seconds of every stage in every round, of reading the files too, and peak memory, in the order of `jobs`."""
    with progress("bench", len(jobs) * (repeats + 2)) as bar:

        def done(number: int) -> None:
            if number >= 0:
                bar.advance(note=f"{jobs[number].selector} {jobs[number].keep:g}")

        laps = measure_stages({-1: files, **chains}, repeats, on_job=done)
        peaks = []
        for job in jobs:
            peaks.append(measure_peak_memory(job.encode, "cpu"))
            bar.advance(note="memory")
    return [{**laps[-1], **laps[number]} for number in chains], peaks


def _add_joules(rows: Sequence[dict[str, Any]], chains: Sequence[Chain], encoder: Encoder, repeats: int) -> str:
    """Put the joules of each row's stages into it; which counters told them."""

    def run(chain: Chain) -> None:
        given = None
        for stage in chain.values():
            given = stage(given)

    device = next(encoder.parameters()).device
    gpus = (f"GPU-{torch.cuda.get_device_properties(device).uuid}",) if device.type == "cuda" else ()
    names: dict[str, None] = {}
    for row, chain in zip(rows, chains, strict=True):
        told = measure_joules(partial(run, chain), repeats, gpus=gpus)
        row["joules"] = None if told is None else sum(told.values())
        names |= dict.fromkeys(told or ())
    silent = sum(row["joules"] is None for row in rows)
    if silent == len(rows):
        return "not told by this machine"
    return ", ".join(names) + (f"; not told in {silent} of {len(rows)} rows" if silent else "")


def _row(job: _Job, flops: Mapping[str, int], laps: Laps, peak: int | None) -> dict[str, Any]:
    """A row without what compares it with others."""
    select = Timing.of(laps["select"])
    encode = Timing.of([embed + tower for embed, tower in zip(laps["embed"], laps["tower"], strict=True)])
    cost = Cost.of_laps(
        laps,
        tokens=sum(job.counts),
        flops=flops,
        bytes=sum(one.pixels.nbytes for one in job.kept),
        peak_memory=peak,
    )
    row: dict[str, Any] = {
        "selector": job.selector,
        "keep": job.keep,
        "tokens": cost.tokens,
        "flops": flops["embed"] + flops["tower"],
        "bytes": cost.bytes,
        "seconds_select": select.median,
        "seconds_encode": encode.median,
        "seconds_spread": select.spread + encode.spread,
        "peak_memory": peak,
    }
    row |= {f"flops_{stage}": flops[stage] for stage in ("prefill", "decode") if stage in flops}
    return row | {"stages": cost.stages(), "seconds_whole": cost.total_seconds}


def _compare(rows: Sequence[dict[str, Any]]) -> None:
    """Put into the rows how many times less they cost than the first, which is dense."""
    dense = dict(rows[0])
    for row in rows:
        row["flops_ratio"] = dense["flops"] / row["flops"]
        row["wall_ratio"] = seconds_of(dense) / seconds_of(row)
        timed = all(bill["seconds"] is not None for bill in row["stages"].values() if bill["flops"])
        row["wall_ratio_whole"] = dense["seconds_whole"] / row["seconds_whole"] if timed else None
        if "flops_prefill" in row:
            row["flops_ratio_whole"] = _whole_flops(dense) / _whole_flops(row)
        row["accuracy"] = None


def _whole_flops(row: Mapping[str, Any]) -> int:
    """Of tower and language model."""
    return int(row["flops"] + row["flops_prefill"] + row["flops_decode"])


def _add_accuracy(rows: Sequence[dict[str, Any]], options: BenchOptions, names: Sequence[str]) -> None:
    """What `eval` measures of the checkpoint, over all families, put into the rows, with its 95 % interval."""
    from entropy_vision.evaluate import run_eval

    assert options.checkpoint is not None
    keeps = tuple(sorted({1.0, *options.keep}, reverse=True))
    asked = EvalOptions(
        checkpoint=options.checkpoint,
        keep=keeps,
        selectors=(*names, *options.inside),
        attend=options.attend,
        seed=options.seed,
    )
    measured = run_eval(asked)["selectors"]
    for row in rows:
        name = names[0] if row["selector"] == DENSE else row["selector"]
        cell = measured[name]["all"][f"{row['keep']:g}"]
        row |= {key: cell[key] for key in ("accuracy", "low", "high", "n")}
