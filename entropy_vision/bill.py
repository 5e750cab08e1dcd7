"""What answering a question costs a policy, dense and kept, by stage: select, encode, project, prefill, answer."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import torch

from entropy_vision.cost import Cost, count_flops, measure_interleaved
from entropy_vision.packed import PackedPatches
from entropy_vision.patchset import PatchSet
from entropy_vision.text import prompt_ids
from entropy_vision.tokenizer import EntropyTokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from entropy_vision.policy import EntropyVLM, Prefix
    from entropy_vision.rl.scenes import Scored


Cell = tuple[str, float]  # (selector, keep)


class _Job:
    """The stages of answering one question a scene at one budget, each a call that can be counted and timed."""

    def __init__(
        self,
        model: EntropyVLM,
        tokenizer: PreTrainedTokenizerFast,
        scenes: Sequence[Scored],
        chooser: EntropyTokenizer | None,
    ) -> None:
        self.model, self.tokenizer, self.scenes = model, tokenizer, scenes
        # dense input needs no score: cutting it into patches is all that "select" does then
        self.chooser = chooser or EntropyTokenizer(patch_size=model.encoder.patch_size, keep=1.0, selector="uniform")
        self.packed = PackedPatches.pack(self.select())
        with torch.no_grad():
            self.encoded = self.model.encoder.encode(self.packed)
            self.tokens = self.model.projector.embed(self.encoded, self.packed)
            self.pictures: Prefix = self.model.read_patches(self.packed, self.tokens)

    def select(self) -> list[PatchSet]:
        return [self.chooser(s.frames) for s in self.scenes]

    @torch.no_grad()
    def encode(self) -> None:
        self.model.encoder.encode(self.packed)

    @torch.no_grad()
    def project(self) -> None:
        self.model.projector.embed(self.encoded, self.packed)

    @torch.no_grad()
    def prefill(self) -> None:
        self.model.read_patches(self.packed, self.tokens)

    @torch.no_grad()
    def answer(self) -> None:
        from entropy_vision.rl.rollout import read_prompts, sample

        prompts = [prompt_ids(self.tokenizer, s.asks[0].question) for s in self.scenes]
        prefix = read_prompts(self.model, self.tokenizer, self.pictures, torch.arange(len(prompts)), prompts)
        sample(self.model, self.tokenizer, prefix, temperature=0.0)


def answer_costs(
    model: EntropyVLM,
    tokenizer: PreTrainedTokenizerFast,
    scenes: Sequence[Scored],
    cells: Sequence[Cell],
    repeats: int = 5,
) -> dict[Cell, Cost]:
    """Cost of one question about each of `scenes` (one medium) by each (selector, keep), timed in turns.

    Seconds and FLOPs are totals over the scenes; divide by their number for one question. keep 1.0 is the dense
    policy, which selects nothing.
    """
    size = model.encoder.patch_size
    jobs = {
        (selector, keep): _Job(
            model,
            tokenizer,
            scenes,
            None if keep == 1.0 else EntropyTokenizer(patch_size=size, keep=keep, selector=selector),
        )
        for selector, keep in cells
    }
    stages = ("select", "encode", "project", "prefill", "answer")
    timings = measure_interleaved(
        {f"{cell} {stage}": getattr(job, stage) for cell, job in jobs.items() for stage in stages}, repeats
    )
    return {
        cell: Cost(
            tokens=sum(job.packed.counts),
            flops={s: sum(count_flops(partial(getattr(job, s))).values()) for s in stages[1:]},
            seconds={s: timings[f"{cell} {s}"].median for s in stages},
            bytes=job.packed.pixels.nbytes,
        )
        for cell, job in jobs.items()
    }


def add_costs(parts: Sequence[Cost]) -> Cost:
    """The bill of several jobs together."""
    return Cost(
        tokens=sum(p.tokens for p in parts),
        flops={s: sum(p.flops[s] for p in parts) for s in parts[0].flops},
        seconds={s: sum(p.seconds[s] for p in parts) for s in parts[0].seconds},
        bytes=sum(p.bytes for p in parts),
    )
