"""Checkpoints: a folder a step, complete or absent; safetensors and JSON, no pickles.

Only the optimiser's state of a policy that is divided among processes is torch's distributed checkpoint, whose index
is a pickle; evaluating or continuing from such a policy on other terms does not read it.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import torch
import torch.distributed as dist
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers import PreTrainedTokenizerFast
from transformers.utils import logging

from entropy_vision.atomic import atomic_write, sync_folder
from entropy_vision.errors import InputError, InputReason, UsageError
from entropy_vision.policy import LLAVA, EntropyVLM, load_policy, model_type
from entropy_vision.processor import EntropyVLMProcessor
from entropy_vision.text import answer_text, load_tokenizer

from .batch import Batch
from .buffer import Buffer
from .lowrank import has_maps, load_trained, merged, save_trained, train_maps
from .optim import Optimizer
from .sharded import divided, gathered_state, is_sharded, load_divided, save_divided

_NAME = re.compile(r"step-(\d{6})(?:\.(\d+))?")
_DIVIDED = "optimizer"
_BUFFER = "buffer-{}.safetensors"
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


def newest(run: Path) -> Path | None:
    """The newest complete checkpoint of a run, found by looking, never by a pointer file."""
    complete = [p for p in _in_order(run) if (p / "state.json").is_file()]
    return complete[-1] if complete else None


def resolve(path: str | Path) -> Path:
    """A checkpoint folder, or the newest one of a run's folder."""
    folder = Path(path)
    return folder if (folder / "config.json").is_file() else newest(folder) or folder


def save(
    run: Path,
    step: int,
    model: EntropyVLM,
    processor: EntropyVLMProcessor,
    optimizer: Optimizer,
    facts: dict[str, object],
    buffers: Sequence[bytes] = (),
    keep: int = 2,
) -> Path:
    """Write the checkpoint of `step` beside its final name, then rename; all but the newest `keep` are removed.

    `buffers` are every process's completions (`Buffer.packed`), of a checkpoint inside a step.
    """
    final = step_folder(run, step, int(facts.get("turn", 0)))  # type: ignore[call-overload]
    with _whole(final) as partial:
        for rank, packed in enumerate(buffers):
            (partial / _BUFFER.format(rank)).write_bytes(packed)
        save_policy(partial, model, processor)
        if has_maps(model):
            save_trained(model, partial)
        if is_sharded(model):
            os.replace(run / _DIVIDED, partial / _DIVIDED)
        else:
            save_file(optimizer.tensors(), partial / "optimizer.safetensors")
        write_facts(partial, facts)
    for old in _in_order(run)[:-keep]:
        shutil.rmtree(old)
    return final


def save_parts(run: Path, model: EntropyVLM, optimizer: Optimizer, leads: bool) -> None:
    """What each process holds of the optimiser's state, for the `save` that follows; all processes call it."""
    if leads:
        shutil.rmtree(run / _DIVIDED, ignore_errors=True)
    dist.barrier()
    with divided(model):
        save_divided(optimizer.parts_of_tensors(), run / _DIVIDED)


def save_policy(folder: Path, model: EntropyVLM, processor: EntropyVLMProcessor) -> None:
    """Write what `load` reads, and transformers' AutoProcessor."""
    model = merged(model) if has_maps(model) else model
    with _quietly():
        model.save_pretrained(folder, state_dict=gathered_state(model))
    processor.save_pretrained(folder)


def save_reference(run: Path, model: EntropyVLM, processor: EntropyVLMProcessor) -> None:
    """Keep the policy a run starts from: the run it came from may go on and remove that checkpoint."""
    with _whole(run / REFERENCE) as partial:
        save_policy(partial, model, processor)


@contextmanager
def _whole(final: Path) -> Iterator[Path]:
    """A folder to fill that takes its final name when the block ends, and replaces what had it."""
    partial = final.with_name(final.name + ".tmp")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    yield partial
    for file in partial.rglob("*"):
        if file.is_file():
            with file.open("rb") as handle:
                os.fsync(handle.fileno())
    if final.exists():
        (final / "state.json").unlink(missing_ok=True)  # it makes a checkpoint count: half a folder must not
        shutil.rmtree(final)
    os.replace(partial, final)
    sync_folder(final.parent)


def write_facts(folder: Path, facts: dict[str, object]) -> None:
    """What a checkpoint knows about its run beside weights: `step`, rewards, whether a gate ended it."""
    atomic_write(folder / "state.json", json.dumps(facts))


def load(folder: Path) -> tuple[EntropyVLM, PreTrainedTokenizerFast]:
    """Policy and tokenizer of a checkpoint or of a run's newest one. Raises as `load_whole`."""
    model, processor = load_whole(folder)
    return model, processor.tokenizer


def load_whole(folder: Path) -> tuple[EntropyVLM, EntropyVLMProcessor]:
    """Policy and processor of a checkpoint, of a run's newest one, or of a LLaVA checkpoint of transformers.

    A folder with a tokenizer alone beside the policy gets the processor that fits.

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
            return model, cast(EntropyVLMProcessor, EntropyVLMProcessor.from_pretrained(folder))
        return model, EntropyVLMProcessor.for_model(model, load_tokenizer(folder))


def load_model(folder: Path) -> EntropyVLM:
    """The policy alone, also one that `save_pretrained` wrote without a tokenizer. Raises as `load_whole`."""
    folder = resolve(folder)
    with _quietly(), _damage_named(folder):
        return EntropyVLM.from_llava(folder) if _is_llava(folder) else load_policy(folder)


def _is_llava(folder: Path) -> bool:
    return (folder / "config.json").is_file() and model_type(folder) in LLAVA


def load_maps(run: Path, rank: int, left: Path) -> tuple[EntropyVLM, EntropyVLMProcessor]:
    """Policy and processor of a run that trains low-rank maps, as it was when the checkpoint `left` was made.

    Raises:
        InputError: the run's start or the checkpoint is damaged.
    """
    model, processor = load_whole(run / REFERENCE)
    train_maps(model, rank)
    with _damage_named(left):
        load_trained(model, left)
    return model, processor


def load_state(folder: Path, optimizer: Optimizer) -> dict[str, object]:
    """Put a checkpoint's optimiser state back; returns the facts saved with it, `step` included."""
    with _damage_named(folder):
        if (folder / _DIVIDED).is_dir():
            optimizer.load(load_divided(folder / _DIVIDED, optimizer.shapes()))
        else:
            optimizer.load(load_file(folder / "optimizer.safetensors"))
        facts: dict[str, object] = json.loads((folder / "state.json").read_text())
    return facts


def check_buffers(folder: Path, turn: int, processes: int) -> None:
    """A checkpoint inside a step holds a buffer of every process, and goes on on as many.

    Raises:
        UsageError: it was made by another number of processes.
    """
    saved = len(list(folder.glob(_BUFFER.format("*")))) if turn else processes
    if saved != processes:
        raise UsageError(
            f"{folder} was saved inside a step by {saved} processes and cannot go on with {processes}: "
            f"take {saved}, or remove that folder to go on from the one before it"
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
