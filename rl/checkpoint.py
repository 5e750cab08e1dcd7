"""Checkpoints: a folder a step, complete or absent, never overwritten; safetensors and JSON, no pickles."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors.torch import load_file, save_file
from transformers import PreTrainedTokenizerFast
from transformers.utils import logging

from entropy_vision.policy import EntropyVLM, load_policy
from entropy_vision.text import load_tokenizer

from .optim import Optimizer


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
    partial = final.with_name(final.name + ".tmp")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    with _quietly():
        model.save_pretrained(partial)
    tokenizer.save_pretrained(partial)
    save_file(optimizer.tensors(), partial / "optimizer.safetensors")
    (partial / "state.json").write_text(json.dumps({"step": step, **facts}))
    for file in partial.iterdir():
        with file.open("rb") as handle:
            os.fsync(handle.fileno())
    if final.exists():
        shutil.rmtree(final)
    os.replace(partial, final)
    for old in sorted(run.glob("step-??????"))[:-keep]:
        shutil.rmtree(old)
    return final


def load(folder: Path) -> tuple[EntropyVLM, PreTrainedTokenizerFast]:
    """Policy and tokenizer of a checkpoint or of a run's newest one."""
    folder = resolve(folder)
    with _quietly():
        return load_policy(folder), load_tokenizer(folder)


def load_state(folder: Path, optimizer: Optimizer) -> dict[str, object]:
    """Put a checkpoint's optimiser state back; returns the facts saved with it, `step` included."""
    optimizer.load(load_file(folder / "optimizer.safetensors"))
    facts: dict[str, object] = json.loads((folder / "state.json").read_text())
    return facts
