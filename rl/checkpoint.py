"""Checkpoints: a folder a step, complete or absent; safetensors and JSON, no pickles.

Only the optimiser's state of a policy that is divided among processes is torch's distributed checkpoint, whose index
is a pickle; evaluating or continuing from such a policy on other terms does not read it.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
import torch.distributed as dist
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedTokenizerFast
from transformers.utils import logging

from entropy_vision.atomic import atomic_write, sync_folder
from entropy_vision.errors import InputError, InputReason, UsageError
from entropy_vision.loading import LLAVA, model_type
from entropy_vision.policy import EntropyVLM, load_policy
from entropy_vision.processor import EntropyVLMProcessor
from entropy_vision.text import answer_text, load_tokenizer

from .batch import Batch
from .buffer import Buffer
from .lowrank import has_maps, load_trained, merged, save_trained, train_maps, trained
from .optim import Optimizer
from .refused import refusals_name
from .sharded import gathered_state, is_part, is_sharded, load_divided, save_divided

_NAME = re.compile(r"step-(\d{6})(?:\.(\d+))?")
_DIVIDED = "optimizer"
_BUFFER = "buffer-{}.safetensors"
_FACTS = "state.json"  # it makes a folder count as a checkpoint: the first thing to go where one is removed
REFERENCE = "reference"
"""Folder, inside a run's, of the policy that it began from: GRPO's KL penalty compares with it, and low-rank maps stand
beside its matrices."""


@contextmanager
def _quietly() -> Iterator[None]:
    """transformers without its own progress bars: ours is on the screen already."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def step_folder(run: Path, step: int, turn: int = 0) -> Path:
    """Where the checkpoint after `step` steps lies, and after `turn` updates inside the next."""
    return run / (f"step-{step:06d}.{turn}" if turn else f"step-{step:06d}")


def _in_order(run: Path) -> list[Path]:
    """The folders of a run's checkpoints, oldest first."""
    named = ((_NAME.fullmatch(p.name), p) for p in run.glob("step-*"))
    return [p for *_, p in sorted((int(m[1]), int(m[2] or 0), p) for m, p in named if m)]


def _complete(run: Path) -> list[Path]:
    return [p for p in _in_order(run) if (p / _FACTS).is_file()]


def newest(run: Path) -> Path | None:
    """The newest complete checkpoint of a run, found by looking, never by a pointer file."""
    return next(reversed(_complete(run)), None)


def resolve(path: str | Path) -> Path:
    """A checkpoint folder, or the newest one of a run's folder."""
    folder = Path(path)
    return folder if (folder / "config.json").is_file() else newest(folder) or folder


@dataclass(frozen=True)
class Moment:
    """What a checkpoint is written from: a run as it is at one moment.

    Attributes:
        facts: what is known beside weights, see `write_facts`.
        model: the policy that `weights` are of; its configuration is what is read of it.
        weights: of the policy without low-rank maps, whole; like `maps` and `buffers` of the process that leads alone.
        maps: what is trained where that is not every weight; empty otherwise.
        optimizer: its state as named tensors: whole and of the process that leads alone, or of a divided policy what
            this process holds.
        buffers: every process's completions (`Buffer.packed`), of a checkpoint inside a step.
    """

    facts: dict[str, object]
    model: EntropyVLM
    weights: Mapping[str, Tensor]
    maps: Mapping[str, Tensor]
    optimizer: Mapping[str, Tensor]
    buffers: Sequence[bytes] = ()

    @classmethod
    def of(
        cls,
        model: EntropyVLM,
        optimizer: Optimizer,
        facts: dict[str, object],
        buffers: Sequence[bytes] = (),
        *,
        leads: bool = True,
        copied: bool = False,
    ) -> Moment:
        """What a run is now.

        Args:
            leads: whether this process writes what is written once.
            copied: nothing in it is changed by the steps that follow.
        """
        host = _on_host if copied else dict[str, Tensor]
        plain = merged(model) if leads and has_maps(model) else model
        return cls(
            facts=dict(facts),
            model=plain,
            weights=host(gathered_state(plain)) if leads else {},
            maps=host(trained(model)) if leads and plain is not model else {},
            optimizer=host(optimizer.parts_of_tensors()) if is_sharded(model) else optimizer.tensors() if leads else {},
            buffers=buffers,
        )


def _on_host(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies in host memory; what is one tensor under two names stays one. Parts stay parts, where they are."""
    copies: dict[object, Tensor] = {}
    copied = {}
    for name, tensor in tensors.items():
        place = name if is_part(tensor) else (tensor.data_ptr(), tensor.shape, tensor.stride())
        if place not in copies:
            copies[place] = tensor.clone() if is_part(tensor) else tensor.to("cpu", copy=True)
        copied[name] = copies[place]
    return copied


def save(run: Path, moment: Moment, processor: EntropyVLMProcessor, keep: int = 2) -> Path:
    """Write a checkpoint beside its final name, then rename; of whole ones all but the newest `keep` are removed.

    Raises:
        OSError: the disk is full, or the machine refuses otherwise; the checkpoints there are stay.
    """
    step, turn = (int(moment.facts.get(name, 0)) for name in ("step", "turn"))  # type: ignore[call-overload]
    final = step_folder(run, step, turn)
    with _whole(final) as partial:
        for rank, packed in enumerate(moment.buffers):
            (partial / _BUFFER.format(rank)).write_bytes(packed)
        _save_weights(partial, moment.model, moment.weights, processor)
        if moment.maps:
            save_trained(moment.maps, partial)
        if is_sharded(moment.model):
            os.replace(run / _DIVIDED, partial / _DIVIDED)
        else:
            save_file(dict(moment.optimizer), partial / "optimizer.safetensors")
        write_facts(partial, moment.facts)
    kept = _complete(run)[-keep:]
    for folder in _in_order(run):
        if folder not in kept:
            _remove(folder)
    return final


def save_parts(run: Path, moment: Moment, leads: bool, group: dist.ProcessGroup | None = None) -> None:
    """What each process holds of the optimiser's state, for the `save` that follows; all processes call it.

    Args:
        group: what they talk over meanwhile; a thread beside the steps needs one that the steps do not use.
    """
    if leads:
        shutil.rmtree(run / _DIVIDED, ignore_errors=True)
    dist.barrier(group)
    save_divided(moment.optimizer, run / _DIVIDED, group)


def save_reference(run: Path, model: EntropyVLM, processor: EntropyVLMProcessor) -> None:
    """Keep the policy a run starts from: the run it came from may go on and remove that checkpoint."""
    model = merged(model) if has_maps(model) else model
    with _whole(run / REFERENCE) as partial:
        _save_weights(partial, model, gathered_state(model), processor)


def _save_weights(
    folder: Path, model: EntropyVLM, weights: Mapping[str, Tensor], processor: EntropyVLMProcessor
) -> None:
    """Write what `load` reads, and transformers' AutoProcessor."""
    with _quietly():
        model.save_pretrained(folder, state_dict=dict(weights))
    processor.save_pretrained(folder)


@contextmanager
def _whole(final: Path) -> Iterator[Path]:
    """A folder to fill that takes its final name when the block ends, and replaces what had it."""
    partial = final.with_name(final.name + ".tmp")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    with refusals_name(final):
        yield partial
    for file in partial.rglob("*"):
        if file.is_file():
            with file.open("rb") as handle:
                os.fsync(handle.fileno())
    if final.exists():
        _remove(final)
    os.replace(partial, final)
    sync_folder(final.parent)


def _remove(folder: Path) -> None:
    """Remove a checkpoint, which counts no more from the first moment on: half a folder must not."""
    (folder / _FACTS).unlink(missing_ok=True)
    shutil.rmtree(folder)


def write_facts(folder: Path, facts: dict[str, object]) -> None:
    """What a checkpoint knows about its run beside weights: `step`, rewards, whether a gate ended it."""
    atomic_write(folder / _FACTS, json.dumps(facts))


def load(folder: Path) -> tuple[EntropyVLM, PreTrainedTokenizerFast]:
    """Policy and tokenizer of a checkpoint or of a run's newest one. Raises as `load_whole`."""
    model, processor = load_whole(folder)
    return model, processor.tokenizer


def load_whole(folder: Path) -> tuple[EntropyVLM, EntropyVLMProcessor]:
    """Policy and processor of a checkpoint, of a run's newest one, or of a LLaVA checkpoint of transformers.

    A folder with a tokenizer alone beside the policy gets the processor that fits. What patches see in the tower and
    how many tokens are left of them stands in both files of a checkpoint: here config.json holds.

    Raises:
        UsageError: nothing is there, or a LLaVA checkpoint that `from_llava` refuses.
        InputError: what is there is damaged, or not a checkpoint of this program.
    """
    model = load_model(folder)
    folder = resolve(folder)
    with _damage_named(folder):
        if _is_llava(folder):
            return model, EntropyVLMProcessor.from_llava(folder)
        if (folder / "processor_config.json").is_file():
            processor = cast(EntropyVLMProcessor, EntropyVLMProcessor.from_pretrained(folder))
            processor.follow(model)
            return model, processor
        return model, EntropyVLMProcessor.for_model(model, load_tokenizer(folder))


def load_model(folder: Path) -> EntropyVLM:
    """The policy alone, also one that `save_pretrained` wrote without a tokenizer. Raises as `load_whole`."""
    folder = resolve(folder)
    with _quietly(), _damage_named(folder):
        return EntropyVLM.from_llava(folder) if _is_llava(folder) else load_policy(folder)


def _is_llava(folder: Path) -> bool:
    return (folder / "config.json").is_file() and model_type(folder) in LLAVA


def load_maps(run: Path, rank: int, left: Path, frozen_tower: bool = False) -> tuple[EntropyVLM, EntropyVLMProcessor]:
    """Policy and processor of a run that trains low-rank maps, as it was when the checkpoint `left` was made.

    Raises:
        InputError: the run's start or the checkpoint is damaged.
    """
    model, processor = load_whole(run / REFERENCE)
    train_maps(model, rank, frozen_tower)
    with _damage_named(left):
        load_trained(model, left)
    return model, processor


def projector_of(folder: Path) -> dict[str, Tensor]:
    """A checkpoint's projector, by its own names, in single precision.

    Raises:
        InputError: the checkpoint is damaged.
    """
    with _damage_named(folder):
        held = load_model(folder).projector.state_dict()
    return {name: tensor.float() for name, tensor in held.items()}


def load_state(folder: Path, optimizer: Optimizer) -> dict[str, object]:
    """Put a checkpoint's optimiser state back; returns the facts saved with it, `step` included."""
    with _damage_named(folder):
        if (folder / _DIVIDED).is_dir():
            optimizer.load(load_divided(folder / _DIVIDED, optimizer.shapes()))
        else:
            optimizer.load(load_file(folder / "optimizer.safetensors"))
        facts: dict[str, object] = json.loads((folder / _FACTS).read_text())
    return facts


def check_buffers(folder: Path, turn: int, processes: int) -> None:
    """A checkpoint inside a step holds a buffer of every process, and goes on on as many.

    Raises:
        UsageError: it was made by another number of processes.
    """
    saved = len(list(folder.glob(_BUFFER.format("*")))) if turn else processes
    if saved != processes:
        others = [one for one in _complete(folder.parent) if one != folder]
        mend = f"remove that folder to go on from {others[-1].name}" if others else "begin again in another out"
        raise UsageError(
            f"{folder} was saved inside a step by {saved} processes and cannot go on with {processes}: "
            f"take {saved}, or {mend}"
        )


def load_buffer(folder: Path, rank: int, batches: Sequence[Batch], device: torch.device) -> Buffer:
    """A process's buffer of a checkpoint inside a step, over the batches that step dealt it."""
    with _damage_named(folder):
        return Buffer.read(str(folder / _BUFFER.format(rank)), batches, device)


def save_evidence(path: Path, batches: Sequence[Batch], buffer: Buffer | None) -> None:
    """Keep what a step stumbled over: pixels and places of each batch, its questions, its completions."""
    tensors = dict(buffer.tensors()) if buffer else {}
    for i, batch in enumerate(batches):
        pack = {"pixels": batch.patches.pixels, "positions": batch.patches.positions, "owner": batch.owner}
        tensors |= {f"{i}.{name}": tensor.cpu().contiguous() for name, tensor in pack.items()}
    asked = [[{"key": a.key, "question": a.question, "answer": answer_text(a.answer)} for a in b.asks] for b in batches]
    facts = {"asks": json.dumps(asked), "counts": json.dumps([b.patches.counts for b in batches])}
    save_file(tensors, path, facts | (buffer.facts() if buffer else {}))


@contextmanager
def _damage_named(folder: Path) -> Iterator[None]:
    """Files that cannot be read as what they should be are bad input: one line that names the folder."""
    try:
        yield
    except UsageError:
        raise
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        said = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise InputError(folder, InputReason.DAMAGED, f"not a whole checkpoint of train: {said}") from error
