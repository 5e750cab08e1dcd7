"""A step of GRPO on one device, dense beside keep 0.25: seconds and their parts, share of the peak, memory, waiting.

    python tools/bench_accelerator.py --device cuda --size 0.5b --peak-tflops 989 --profile trace.json
    python tools/bench_accelerator.py --device cuda --size 0.5b --peak-tflops 989 --parts      # through FSDP2
    python tools/bench_accelerator.py                                         # the same line, proven on a CPU

0.5b is a language model of Qwen2-0.5B's shape over ViT-L-14-336 and videos of 8 frames, tiny one of 962,432 weights
over pictures of 256 patches; weights are random. A step: choose the patches of 4 scenes, read them and their questions
once, sample groups of 8, verify, learn, update (AdamW). Weights are float32; on an accelerator matrix products are
bfloat16, as `dtype = "bfloat16"` of a recipe has them. The two budgets take turns; `ratio` is of neighbours in time.

`mfu` counts the FLOPs that the step needed (torch's counter, both passes) against --peak-tflops. `waits` are the places
where the host waits for the device in one step and how often, as torch reports them of an accelerator; the end of each
part, where the clock waits, is not among them. --profile writes a trace for chrome://tracing or Perfetto as well, and
what the device spent most on is printed.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import sys
import tempfile
import time
import warnings
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from bench_grpo import KEEPS, WORDS, Ours, sizes, spread
from torch.profiler import ProfilerActivity, profile

from entropy_vision.cost import count_flops
from entropy_vision.device import device_of
from entropy_vision.policy import count_parameters
from entropy_vision.text import word_tokenizer

_TOP = 12


def measured(ours: Ours, rounds: int, peak: float) -> dict[str, Any]:
    """A row for each budget, and dense over kept."""
    cuda = ours.model.device.type == "cuda"
    rows: dict[str, dict[str, Any]] = {}
    for name, keep in KEEPS.items():
        ours.step(keep)
        flops = sum(count_flops(lambda keep=keep: ours.step(keep)).values())
        tokens = sum(ours.batch(keep).patches.counts)
        rows[name] = {
            "visual_tokens": tokens,
            "tflops": flops / 1e12,
            "seconds": [],
            "parts": Counter(),
            "peak_gib": None,
        }
    for _ in range(rounds):
        for name, keep in KEEPS.items():
            ours.clock.take()
            if cuda:
                torch.cuda.reset_peak_memory_stats()
            began = time.perf_counter()
            ours.step(keep)
            if cuda:
                torch.cuda.synchronize()
                rows[name]["peak_gib"] = round(torch.cuda.max_memory_allocated() / 2**30, 2)
            rows[name]["seconds"].append(time.perf_counter() - began)
            rows[name]["parts"].update(ours.clock.take())
    ratios = [a / b for a, b in zip(*(row["seconds"] for row in rows.values()), strict=True)]
    for row in rows.values():
        middle = statistics.median(row["seconds"])
        row["seconds"] = spread(row["seconds"])
        row["parts"] = {name.removeprefix("seconds_"): round(s / rounds, 4) for name, s in row["parts"].items()}
        row["tflops"] = round(row["tflops"], 4)
        row["mfu"] = round(row["tflops"] / middle / peak, 4) if peak else None
    return {**rows, "ratio": spread(ratios)}


def waits(ours: Ours, keep: float) -> dict[str, int]:
    """Where the host waits for the device in one step, and how often."""
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            ours.step(keep)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    places = Counter(f"{Path(w.filename).name}:{w.lineno}" for w in told if re.search("synchroniz", str(w.message)))
    return dict(places.most_common())


def profiled(ours: Ours, keep: float, path: Path) -> list[dict[str, Any]]:
    """Write the trace of one step; what took longest, in milliseconds on the device."""
    cuda = ours.model.device.type == "cuda"
    with profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]) as seen:
        ours.step(keep)
    seen.export_chrome_trace(str(path))
    key = "self_device_time_total" if cuda else "self_cpu_time_total"
    rows = sorted(seen.key_averages(), key=lambda row: -getattr(row, key))[:_TOP]
    return [{"what": r.key, "ms": round(getattr(r, key) / 1e3, 2), "calls": r.count} for r in rows]


def _alone() -> None:
    """A group of this process alone, unless torchrun has made a larger one."""
    os.environ.setdefault("WORLD_SIZE", "1")
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    if int(os.environ["WORLD_SIZE"]) > 1:
        dist.init_process_group(backend)
        return
    store = dist.FileStore(str(Path(tempfile.mkdtemp()) / "store"), 1)
    dist.init_process_group(backend, store=store, rank=0, world_size=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="tiny", choices=("tiny", "0.5b"))
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--questions", type=int, default=4)
    parser.add_argument("--group", type=int, default=8)
    parser.add_argument("--frames", type=int, default=8, help="of a video of the 0.5b size")
    parser.add_argument("--new-tokens", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peak-tflops", type=float, default=0.0, help="of the device in bfloat16, dense, for mfu")
    parser.add_argument("--parts", action="store_true", help="through FSDP2, as parallel = shard of a recipe")
    parser.add_argument("--recompute", action="store_true", help="gradient_checkpointing of a recipe: less memory")
    parser.add_argument("--profile", type=Path, help="where to write the trace of a step at keep 0.25")
    options = parser.parse_args()
    cuda = options.device == "cuda"
    torch.set_num_threads(1)
    device = str(device_of(options.device))
    if options.parts:
        _alone()
    words = word_tokenizer(WORDS)
    size = sizes(words)[options.size]
    ours = Ours(
        replace(size, frames=options.frames) if size.frames > 1 else size,
        words,
        options,
        options.group,
        device=device,
        half=cuda,
        parts=options.parts,
        recompute=options.recompute,
    )
    print(f"{count_parameters(ours.model):,} parameters; the first steps", file=sys.stderr)
    result = {
        "device": torch.cuda.get_device_name() if cuda else "cpu",
        "torch": torch.__version__,
        "parameters": count_parameters(ours.model),
        "parts": options.parts,
        "recompute": options.recompute,
        **measured(ours, options.rounds, options.peak_tflops),
        "waits": waits(ours, KEEPS["keep 0.25"]) if cuda else None,
    }
    if options.profile:
        result["longest"] = profiled(ours, KEEPS["keep 0.25"], options.profile)
    if not options.parts or dist.get_rank() == 0:
        print(json.dumps(result, indent=1))
    if options.parts:
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
