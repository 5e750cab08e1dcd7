"""What a command line names, looked up before anything heavy is loaded: a slip is told at once, nothing is written."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from entropy_vision.errors import InputError, InputReason, UsageError
from entropy_vision.reduction import Choice


def check_arguments(options: Any) -> None:
    """Look up what the options of a verb name, as far as that takes no torch.

    Raises:
        UsageError: a selector, tower, task, language model, checkpoint, input or output that cannot be; one line.
        InputError: a folder of videos that is not there.
    """
    for name, check in _CHECKS.items():
        given = getattr(options, name, None)
        if given not in (None, ()):
            check(given)


def check_folder(named: Path | str) -> None:
    """A verb that ends in a folder it cannot make must say so before it works for minutes."""
    if "://" in str(named):
        return
    out = Path(named)
    standing = next(one for one in (out, *out.absolute().parents) if one.exists())
    if not standing.is_dir() or not os.access(standing, os.W_OK):
        raise UsageError(f"--out {out} cannot be used: {standing} is not a folder one may write to; name another")


def check_language(name: str) -> None:
    """A name without a slash is a folder or a model_type; what has one may be on the hub, which is not asked here."""
    if "/" in name or Path(name).is_dir():
        return
    from transformers import CONFIG_MAPPING  # some seconds, where nothing else can tell

    if name not in CONFIG_MAPPING:
        near = difflib.get_close_matches(name, list(CONFIG_MAPPING), n=1, cutoff=0.0)
        raise UsageError(
            f"no language model {name!r}: give a folder with config.json, a name on the hub as OWNER/NAME, or a "
            f"model_type of transformers; the nearest is {near[0]}"
        )


def _check_selector(given: str | Sequence[str]) -> None:
    from entropy_vision.selection import make_selector

    for name in [given] if isinstance(given, str) else given:
        make_selector(name)


def _check_choices(names: Sequence[str]) -> None:
    """Of verbs that run a tower, which may reduce what comes out of it."""
    _check_selector([Choice.of(name, 1.0).selector for name in names])


def _check_tower(model: str) -> None:
    from entropy_vision.tower import find_config

    if not model.startswith("hf-hub:"):
        find_config(model)


def _check_checkpoint(folder: Path) -> None:
    if not any((place / "config.json").is_file() for place in (folder, *folder.glob("step-*"))):
        raise UsageError(f"{folder} holds no checkpoint (no config.json); name the folder that `train` printed")


def _check_videos(folder: Path) -> None:
    if not folder.exists():
        raise InputError(folder, InputReason.MISSING, "there is no such file or folder")


def _check_tasks(tasks: Sequence[str]) -> None:
    from entropy_vision.evaluate import check_tasks

    check_tasks(tasks)


def _check_sources(sources: Sequence[str]) -> None:
    from entropy_vision.data.files import check_named

    check_named(sources)


_CHECKS: Mapping[str, Callable[[Any], None]] = {
    "out": check_folder,
    "selector": _check_selector,
    "selectors": _check_choices,
    "model": _check_tower,
    "tower": _check_tower,
    "videos": _check_videos,
    "sources": _check_sources,
    "checkpoint": _check_checkpoint,
    "tasks": _check_tasks,
    "language": check_language,
}
