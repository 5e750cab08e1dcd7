"""What the encoder saves where fewer patches go in: seconds beside FLOPs, everything in one run.

    python tools/bench_encoder.py                                           ViT-B-16, 8 frames of 224 x 224
    python tools/bench_encoder.py --model ViT-L-14-336 --frames 2 --repeats 5
    python tools/bench_encoder.py --device cuda --dtype bf16 --frames 64 --profile

The rows take turns, so a machine that slows down slows all of them.

open_clip      the library's own forward, every patch
dense          the same through VisionEncoder, every patch
NAME keep      what the selector NAME keeps: scored, chosen, cut out, packed and encoded
tome keep      every patch in, merged in every block down to the same number of tokens
rate+tome      `rate` keeps half, merging leaves half of that
ragged         segments of very different lengths: packed (ours), and padded to the longest under a mask
NAME x n       the same with n frames seeing each other (a group of pictures), for `dense` and `rate`; compared with
               NAME, whose frames see themselves only

For each: median and quartiles of its seconds; frames a second; how many times faster than open_clip's forward, or than
what it is compared with; FLOPs likewise (the bound); their quotient, the share of the bound that is reached; peak
memory. Seconds are wall time, or with --clock cpu the process's own, which other work on the machine disturbs less;
take it with one thread only. Frames are drawn by the World; weights are random, which changes no cost.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import cv2
import numpy as np
import torch
from torch.nn import functional as F

import entropy_vision
from entropy_vision import EntropyTokenizer, Frames, PatchSet, VisionEncoder
from entropy_vision.cost import count_flops, measure_peak_memory
from entropy_vision.packed import PackedPatches
from entropy_vision.reduced import merged
from entropy_vision.sources import world_source

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
RAGGED = (0.10, 0.14, 0.18, 0.22, 0.26, 0.32, 0.5, 1.0)  # keeps: as a rate against one threshold for all gives them
Job = Callable[[], object]


def draw(count: int, size: int, seed: int) -> list[Frames]:
    """Videos of 8 frames (the last one shorter) of the World, together `count` frames."""
    source = world_source("video", split="test", difficulty=0.5, seed=seed, size=size, frame_count=8)
    videos = []
    for index in range(-(-count // 8)):
        pixels = source.scene(index)[0].frames.pixels[: count - 8 * index]
        videos.append(Frames(pixels=pixels, pts_seconds=np.arange(len(pixels)) / 8))
    return videos


def library(encoder: VisionEncoder, videos: Sequence[Frames], dtype: torch.dtype) -> torch.Tensor:
    """open_clip's own forward of all frames, pixels normalised on the device."""
    pixels = torch.from_numpy(np.concatenate([one.pixels for one in videos])).to(encoder.device)
    images = pixels.permute(0, 3, 1, 2).float() / 255
    mean, std = (images.new_tensor(values).view(3, 1, 1) for values in (encoder.mean, encoder.std))
    found = encoder.tower(((images - mean) / std).to(dtype))
    return found[0] if isinstance(found, tuple) else found


def select(tokenizer: EntropyTokenizer, videos: Sequence[Frames]) -> list[PatchSet]:
    """What is kept of every video."""
    return [tokenizer(one) for one in videos]


def padded(encoder: VisionEncoder, packed: PackedPatches) -> torch.Tensor:
    """The pack's tokens, its segments padded to the longest and the padding hidden by a mask."""
    adapter, packed = encoder.adapter, packed.to(encoder.device)
    layout = packed.lay_out(adapter.prefix)
    rows, turns = encoder.embed(packed), encoder.rotations(layout)
    lengths = layout.starts.diff().long()
    here = torch.arange(layout.longest, device=rows.device) < lengths[:, None]
    hidden = rows.new_zeros(*here.shape, rows.shape[1])
    hidden[here] = rows
    turned = None if turns is None else turns.new_zeros(*here.shape, turns.shape[1])
    if turned is not None and turns is not None:
        turned[here] = turns
    bias = torch.zeros(here.shape, dtype=rows.dtype, device=rows.device).masked_fill(~here, -torch.inf)[:, None, None]

    def mix(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        query, key, value = (part.transpose(1, 2) for part in (query, key, value))
        return F.scaled_dot_product_attention(query, key, value, attn_mask=bias).transpose(1, 2).flatten(2)

    for block in adapter.blocks:
        hidden = adapter.feed(block, adapter.attend(block, hidden, mix, turned))
    return adapter.finish(hidden[here].index_select(0, layout.patch_rows))


def ragged(frames: Frames, patch_size: int) -> list[PatchSet]:
    """One image after the other, each with another keep."""
    count = frames.count
    return [
        EntropyTokenizer(patch_size, keep=keep, selector="random")(
            Frames(pixels=frames.pixels[n % count : n % count + 1], pts_seconds=np.zeros(1))
        )
        for n, keep in enumerate(RAGGED)
    ]


def jobs_of(options: argparse.Namespace, encoder: VisionEncoder, videos: list[Frames]) -> dict[str, tuple[Job, str]]:
    """Name -> (what runs, the row that it is compared with)."""
    size, dtype = encoder.patch_size, DTYPES[options.dtype]

    def chosen(tokenizer: EntropyTokenizer, attend: Any = "frame") -> Job:
        return lambda: encoder.encode(PackedPatches.pack(select(tokenizer, videos), attend))

    def inside(tokenizer: EntropyTokenizer, keep: float) -> Job:
        return lambda: merged(encoder, PackedPatches.pack(select(tokenizer, videos)), keep)

    whole = EntropyTokenizer(size, keep=1.0, selector="uniform")
    jobs: dict[str, tuple[Job, str]] = {
        "open_clip": (partial(library, encoder, videos, dtype), "open_clip"),
        "dense": (chosen(whole), "open_clip"),
    }
    for keep in options.keep:
        for name in options.selectors:
            jobs[f"{name} {keep:g}"] = chosen(EntropyTokenizer(size, keep=keep, selector=name)), "open_clip"
        if keep in options.tome:
            jobs[f"tome {keep:g}"] = inside(whole, keep), "open_clip"
    if options.tome:
        jobs["rate+tome 0.25"] = inside(EntropyTokenizer(size, keep=0.5), 0.5), "open_clip"
    for frames in options.group:
        jobs[f"dense x {frames}"] = chosen(whole, frames), "dense"
        for keep in options.keep if "rate" in options.selectors else ():
            jobs[f"rate {keep:g} x {frames}"] = chosen(EntropyTokenizer(size, keep=keep), frames), f"rate {keep:g}"
    if options.ragged:
        packed = PackedPatches.pack(ragged(videos[0], size))
        jobs["ragged padded"] = partial(padded, encoder, packed), "ragged padded"
        jobs["ragged packed"] = lambda: encoder.encode(packed), "ragged padded"
    return jobs


def seconds_of(jobs: dict[str, tuple[Job, str]], repeats: int, clock: Callable[[], float]) -> dict[str, list[float]]:
    """Seconds of every job in every round; counting their FLOPs has warmed them up."""
    found: dict[str, list[float]] = {name: [] for name in jobs}
    for turn in range(1, repeats + 1):
        for name, (job, _) in jobs.items():
            wait()
            start = clock()
            job()
            wait()
            found[name].append(clock() - start)
        print(f"round {turn} of {repeats}", file=sys.stderr)
    return found


def wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def run(options: argparse.Namespace) -> list[dict[str, Any]]:
    """One row for every job."""
    encoder = VisionEncoder(options.model).eval().to(options.device, DTYPES[options.dtype])
    if options.compile:
        for block in encoder.adapter.blocks:
            block.mlp.compile()
    videos = draw(options.frames, max(encoder.image_size), options.seed)
    jobs = jobs_of(options, encoder, videos)
    with torch.no_grad():
        if options.ragged:
            left, right = (jobs[f"ragged {way}"][0]() for way in ("padded", "packed"))
            apart = (left - right).abs().max().item()  # type: ignore[operator]
            assert apart < (1e-4 if options.dtype == "fp32" else 0.5), f"padded and packed differ by {apart}"
        flops = {name: sum(count_flops(job).values()) for name, (job, _) in jobs.items()}
        seconds = seconds_of(jobs, options.repeats, time.perf_counter if options.clock == "wall" else time.process_time)
        peaks = {
            name: measure_peak_memory(job, options.device) if options.memory else None
            for name, (job, _) in jobs.items()
        }
        if options.profile:
            for name in list(jobs)[:3]:
                profile(name, jobs[name][0])
    rows = []
    for name, (_, against) in jobs.items():
        low, median, high = statistics.quantiles(seconds[name], n=4, method="inclusive")
        faster = statistics.median(a / b for a, b in zip(seconds[against], seconds[name], strict=True))
        fewer = flops[against] / flops[name]
        rows.append(
            {"row": name, "against": against, "seconds": median, "low": low, "high": high, "flops": flops[name]}
            | {"faster": faster, "fewer_flops": fewer, "share": faster / fewer, "peak_memory": peaks[name]}
            | {"flops_per_second": flops[name] / median}
        )
    return rows


def profile(name: str, job: Job) -> None:
    """The operations that take longest, to standard error."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as record

    kinds = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * torch.cuda.is_available()
    with record(activities=kinds) as found:
        job()
        wait()
    by = "self_cuda_time_total" if torch.cuda.is_available() else "self_cpu_time_total"
    print(f"{name}\n{found.key_averages().table(sort_by=by, row_limit=15)}", file=sys.stderr)


def _rate(row: dict[str, Any], frames: int) -> str:
    """Frames a second; of `ragged`, which takes images of its own, nothing."""
    return "" if row["row"].startswith("ragged") else f"{frames / row['seconds']:.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="ViT-B-16")
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--keep", type=float, nargs="+", default=[0.25, 0.125])
    parser.add_argument("--selectors", nargs="+", default=["rate", "apt", "random"])
    parser.add_argument(
        "--tome", type=float, nargs="*", default=[0.25], help="keeps to merge down to; none leaves it out"
    )
    parser.add_argument("--group", type=int, nargs="*", default=[], help="groups of frames that see each other")
    parser.add_argument("--no-ragged", dest="ragged", action="store_false")
    parser.add_argument("--repeats", type=int, default=7, help="at least 2")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", choices=DTYPES, default="fp32")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--compile", action="store_true", help="torch.compile for the MLPs")
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    cv2.setNumThreads(options.threads)
    torch.manual_seed(0)
    rows = run(options)
    if options.json:
        print(json.dumps({"options": vars(options), "torch": torch.__version__, "rows": rows}))
        return
    print(f"{entropy_vision.__file__}: {options.model}, {options.frames} frames, {options.device}, {options.dtype}")
    print(
        f"{'row':<16}{'ms':>10}{'quartiles':>20}{'frames/s':>10}{'GFLOPs':>10}"
        f"{'faster':>9}{'bound':>8}{'share':>8}{'peak MB':>9}"
    )
    for row in rows:
        spread = f"{1000 * row['low']:.0f} to {1000 * row['high']:.0f}"
        peak = "" if row["peak_memory"] is None else f"{row['peak_memory'] / 1e6:.0f}"
        print(
            f"{row['row']:<16}{1000 * row['seconds']:>10.1f}{spread:>20}{_rate(row, options.frames):>10}"
            f"{row['flops'] / 1e9:>10.1f}{row['faster']:>9.2f}{row['fewer_flops']:>8.2f}{row['share']:>8.2f}{peak:>9}"
        )


if __name__ == "__main__":
    main()
