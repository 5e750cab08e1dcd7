"""Whether a checkpoint is what its configuration says: told in one line; transformers prints a table and goes on."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from numbers import Integral
from pathlib import Path
from typing import Any, cast

from safetensors import SafetensorError
from transformers import PreTrainedConfig

from entropy_vision.errors import InputError, InputReason, UsageError
from entropy_vision.policy_config import EntropyVLMConfig

LLAVA = ("llava", "llava_onevision")
"""The kinds of checkpoints that `EntropyVLM.from_llava` reads."""


def model_type(path: str | Path) -> str | None:
    """What kind of model the config.json of a folder, or of a name on the hub, is of."""
    return cast("str | None", PreTrainedConfig.get_config_dict(path)[0].get("model_type"))


def check_kind(path: str | Path) -> None:
    """Raises UsageError: a checkpoint of another model."""
    kind = model_type(path)
    if kind != EntropyVLMConfig.model_type:
        mend = "EntropyVLM.from_llava reads it" if kind in LLAVA else "name one of `train`"
        raise UsageError(f"{path} holds a checkpoint of {kind!r}, not of {EntropyVLMConfig.model_type!r}: {mend}")


def check_loaded(path: str | Path, info: Mapping[str, Any], unexpected: bool = True) -> None:
    """See that all weights of a model came from its checkpoint.

    Args:
        info: what transformers gives for `output_loading_info`.
        unexpected: whether weights that the model does not have count.

    Raises:
        UsageError: they did not. What is missing would be what happens to lie in memory.
    """
    wrong = {
        "missing": sorted(info["missing_keys"]),
        "of another shape": sorted(str(key[0] if isinstance(key, tuple) else key) for key in info["mismatched_keys"]),
        "that the model does not have": sorted(info["unexpected_keys"]) if unexpected else [],
    }
    told = [f"{len(names)} {what} ({names[0]}{', ...' if names[1:] else ''})" for what, names in wrong.items() if names]
    if told:
        raise UsageError(f"{path} holds other weights than its config.json describes: {'; '.join(told)}")


@contextmanager
def told_here(path: str | Path) -> Iterator[None]:
    """transformers reads weights meanwhile: its table of them is kept back, for `check_loaded` says it in one line, and
    a file that cannot be read is bad input."""
    reporter = logging.getLogger("transformers.modeling_utils")
    reporter.addFilter(_is_no_table)
    try:
        yield
    except SafetensorError as error:
        raise InputError(path, InputReason.DAMAGED, f"weights that cannot be read: {error}") from error
    finally:
        reporter.removeFilter(_is_no_table)


def _is_no_table(record: logging.LogRecord) -> bool:
    return "LOAD REPORT" not in record.getMessage()


def check_token_ids(config: EntropyVLMConfig, size: int) -> list[int]:
    """The ids that are never sampled.

    Raises:
        UsageError: one that a vocabulary of `size` does not have; None would stand for all of them.
    """
    named = {"image_token_id": [config.image_token_id], "unsampled_token_ids": config.unsampled_token_ids}
    for name, ids in named.items():
        for one in ids:
            if isinstance(one, bool) or not isinstance(one, Integral) or not 0 <= one < size:
                raise UsageError(
                    f"{name} must be ids of the vocabulary (0 to {size - 1}), got {one!r}: where the tokenizer lacks "
                    "the token, tokenizer.add_special_tokens and language.resize_token_embeddings make room for it"
                )
    return [config.image_token_id, *config.unsampled_token_ids]
