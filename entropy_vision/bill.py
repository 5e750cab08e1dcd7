"""What answering a question costs a policy, dense and kept, by stage: those of `cost.STAGES`, from select on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from entropy_vision.cost import Cost, count_flops
from entropy_vision.measure import Chain, measure_stages
from entropy_vision.packed import PackedPatches
from entropy_vision.patchset import PatchSet
from entropy_vision.projectors import Places, Slots
from entropy_vision.reduction import Choice, reducing
from entropy_vision.text import prompt_ids
from entropy_vision.tokenizer import EntropyTokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from entropy_vision.policy import EntropyVLM, Prefix
    from entropy_vision.rl.scenes import Scored


Cell = tuple[str, float]  # (selector, keep)


class _Job:
    """The stages of answering one question a scene at one budget, each given what the one before it gave."""

    def __init__(
        self,
        model: EntropyVLM,
        tokenizer: PreTrainedTokenizerFast,
        scenes: Sequence[Scored],
        cell: Cell,
    ) -> None:
        self.model, self.tokenizer, self.scenes = model, tokenizer, scenes
        choice = Choice.of(*cell)
        # dense input needs no score: cutting it into patches is all that "select" does then
        selector = "uniform" if choice.keep == 1.0 else choice.selector
        self.chooser = EntropyTokenizer(patch_size=model.encoder.patch_size, keep=choice.keep, selector=selector)
        self.reduction = choice.reduced_by(model.reduction)

    @property
    def chain(self) -> Chain:
        """The stages by name."""
        stages = (self.select, self.embed, self.tower, self.project, self.prefill, self.decode)
        return {stage.__name__: partial(self._reduced, stage) for stage in stages}

    def _reduced(self, stage: Callable[[Any], Any], given: Any = None) -> Any:
        with reducing(self.model, self.reduction):
            return stage(given)

    def select(self, _: None = None) -> list[PatchSet]:
        return [self.chooser(s.frames) for s in self.scenes]

    @torch.no_grad()
    def embed(self, kept: list[PatchSet]) -> tuple[PackedPatches, Tensor]:
        packed = self.model.encoder.placed(PackedPatches.pack(kept, self.model.config.attend))
        return packed, self.model.encoder.embed(packed)

    @torch.no_grad()
    def tower(self, embedded: tuple[PackedPatches, Tensor]) -> tuple[PackedPatches, tuple[Tensor, Places]]:
        return embedded[0], self.model.see(*embedded)

    @torch.no_grad()
    def project(self, seen: tuple[PackedPatches, tuple[Tensor, Places]]) -> tuple[PackedPatches, Tensor, Slots]:
        packed, (tokens, places) = seen
        return packed, self.model.projector.embed(tokens, places), self.model.projector.slots(places)

    @torch.no_grad()
    def prefill(self, projected: tuple[PackedPatches, Tensor, Slots]) -> Prefix:
        """Pictures and prompts; a prompt's last token is the first that the answer reads."""
        from entropy_vision.rl.rollout import read_prompts

        packed, tokens, slots = projected
        pictures = self.model.read_patches(packed, tokens, slots=slots)
        prompts = [prompt_ids(self.tokenizer, s.asks[0].question) for s in self.scenes]
        return read_prompts(self.model, self.tokenizer, pictures, torch.arange(len(prompts)), prompts)

    def decode(self, prefix: Prefix) -> None:
        from entropy_vision.rl.rollout import sample

        sample(self.model, self.tokenizer, prefix, temperature=0.0)


def answer_costs(
    model: EntropyVLM,
    tokenizer: PreTrainedTokenizerFast,
    scenes: Sequence[Scored],
    cells: Sequence[Cell],
    repeats: int = 5,
) -> dict[Cell, Cost]:
    """Cost of one question about each of `scenes` (one medium) by each (selector, keep), timed in turns.

    Seconds, their quartiles and FLOPs are of all scenes together; divide by their number for one question. A selector's
    name may say what reduces tokens, see `Choice.of`. keep 1.0 is the dense policy, which selects and reduces nothing.
    FLOPs are counted as it runs, padding of unequal prompts included.

    Raises:
        UsageError: an unknown name, or one that reduces the tokens of a policy that does so itself.
    """
    jobs = {cell: _Job(model, tokenizer, scenes, cell) for cell in cells}
    laps = measure_stages({cell: job.chain for cell, job in jobs.items()}, repeats)
    return {cell: _cost(job, laps[cell]) for cell, job in jobs.items()}


def _cost(job: _Job, laps: Mapping[str, Sequence[float]]) -> Cost:
    kept = job.select()
    with reducing(job.model, job.reduction):
        tokens = sum(job.model.slot_counts(PackedPatches.pack(kept))) if job.reduction else sum(map(len, kept))
    return Cost.of_laps(
        laps,
        tokens=tokens,
        flops={stage: flops for stage, flops in flops_of(job.chain).items() if stage != "select"},
        bytes=sum(one.pixels.nbytes for one in kept),
    )


def flops_of(chain: Chain) -> dict[str, int]:
    """FLOPs of every stage of a chain, counted as it runs once."""
    found: dict[str, int] = {}
    given: list[Any] = [None]

    def run(stage: Callable[[Any], Any]) -> None:
        given.append(stage(given.pop()))

    for name, stage in chain.items():
        found[name] = sum(count_flops(partial(run, stage)).values())
    return found


def add_costs(parts: Sequence[Cost]) -> Cost:
    """The bill of several jobs together. Quartiles are left out: those of a sum are no sum of theirs."""
    return Cost(
        tokens=sum(p.tokens for p in parts),
        flops={s: sum(p.flops[s] for p in parts) for s in parts[0].flops},
        seconds={s: sum(p.seconds[s] for p in parts) for s in parts[0].seconds},
        bytes=sum(p.bytes for p in parts),
    )
