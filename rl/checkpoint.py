"""Checkpoints: a folder a step, complete or absent; safetensors and JSON, no pickles."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers import PreTrainedTokenizerFast
from transformers.utils import logging

from entropy_vision.atomic import atomic_write, sync_folder
from entropy_vision.errors import InputError, InputReason, UsageError
from entropy_vision.policy import EntropyVLM, load_policy
from entropy_vision.processor import EntropyVLMProcessor
from entropy_vision.text import load_tokenizer

from .optim import Optimizer

REFERENCE = "reference"
"""Folder, inside a run's, of the policy that GRPO's KL penalty compares with."""


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


def step_folder(run: Path, step: int) -> Path:
    """Where the checkpoint of a step lies."""
    return run / f"step-{step:06d}"


def newest(run: Path) -> Path | None:
    """The newest complete checkpoint of a run, found by looking, never by a pointer file."""
    complete = sorted(p for p in run.glob("step-??????") if (p / "state.json").is_file())
    return complete[-1] if complete else None


def resolve(path: str | Path) -> Path:
    """A checkpoint folder, or the newest one of a run's folder."""
    folder = Path(path)
    return folder if (folder / "config.json").is_file() else newest(folder) or folder


def save(
    run: Path,
    step: int,
    model: EntropyVLM,
    tokenizer: PreTrainedTokenizerFast,
    optimizer: Optimizer,
    facts: dict[str, object],
    keep: int = 2,
) -> Path:
    """Write the checkpoint of `step` beside its final name, then rename; all but the newest `keep` are removed."""
    final = step_folder(run, step)
    with _whole(final) as partial:
        save_policy(partial, model, tokenizer)
        save_file(optimizer.tensors(), partial / "optimizer.safetensors")
        write_facts(partial, facts)
    for old in sorted(run.glob("step-??????"))[:-keep]:
        shutil.rmtree(old)
    return final


def save_policy(folder: Path, model: EntropyVLM, tokenizer: PreTrainedTokenizerFast) -> None:
    """Write what `load` reads, and transformers' AutoProcessor."""
    with _quietly():
        model.save_pretrained(folder)
    EntropyVLMProcessor.for_model(model, tokenizer).save_pretrained(folder)


def save_reference(run: Path, model: EntropyVLM, tokenizer: PreTrainedTokenizerFast) -> None:
    """Keep the policy a run starts from: the run it came from may go on and remove that checkpoint."""
    with _whole(run / REFERENCE) as partial:
        save_policy(partial, model, tokenizer)


@contextmanager
def _whole(final: Path) -> Iterator[Path]:
    """A folder to fill that takes its final name when the block ends, and replaces what had it."""
    partial = final.with_name(final.name + ".tmp")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    yield partial
    for file in partial.iterdir():
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
    """Policy and tokenizer of a checkpoint or of a run's newest one.

    Raises:
        UsageError: nothing is there.
        InputError: what is there is damaged, or not a checkpoint of this program.
    """
    folder = resolve(folder)
    with _quietly(), _damage_named(folder):
        return load_policy(folder), load_tokenizer(folder)


def load_state(folder: Path, optimizer: Optimizer) -> dict[str, object]:
    """Put a checkpoint's optimiser state back; returns the facts saved with it, `step` included."""
    with _damage_named(folder):
        optimizer.load(load_file(folder / "optimizer.safetensors"))
        facts: dict[str, object] = json.loads((folder / "state.json").read_text())
    return facts


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
