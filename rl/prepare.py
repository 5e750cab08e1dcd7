"""What a run begins with: a policy that is new, of a checkpoint or pretrained, and how it is spoken to and shown
pictures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from entropy_vision.dialect import ChatDialect, Dialect, WordDialect, dialect_of
from entropy_vision.errors import UsageError
from entropy_vision.policy import EntropyVLM
from entropy_vision.processor import EntropyVLMProcessor
from entropy_vision.text import UNKNOWN, token_id

from . import checkpoint
from .fresh import inputs_of, new_policy
from .lowrank import train_maps
from .media import Asked, Fitted, asked_of, demonstrations, learned_texts
from .recipe import TrainRecipe
from .recompute import recompute_layers
from .scenes import SceneMemory


@dataclass(frozen=True)
class Prepared:
    """A policy that is ready to be trained, on the CPU.

    Attributes:
        dialect: how it is spoken to.
        fit: how it takes pictures, where it is pretrained; others take those of the recipe's sizes.
        recipe: the recipe, with what it leaves to the policy filled in.
    """

    model: EntropyVLM
    processor: EntropyVLMProcessor
    dialect: Dialect
    fit: Fitted | None
    recipe: TrainRecipe


def prepare(recipe: TrainRecipe, left: Path | None, start: Path | None, memory: SceneMemory) -> Prepared:
    """The recipe's policy, with what of it is trained chosen.

    Args:
        left: the checkpoint that the run goes on from.
        start: that one or the recipe's `init`; None makes a new policy.
    """
    if left is not None and recipe.lora:
        model, processor = checkpoint.load_maps(Path(recipe.out), recipe.lora, left, recipe.frozen_tower)
    elif start is not None:
        model, processor = checkpoint.load_whole(start)
    else:
        asked = asked_of(recipe, memory)
        texts = learned_texts(asked) if asked else ()
        model, processor = new_policy(recipe.policy, recipe.data, recipe.seed, texts)
    if model.config.reduction is not None:
        raise UsageError(
            f"the policy of init = {recipe.init!r} reduces its visual tokens, which is for answering: "
            'train it with "reduction": null in its config.json, which its processor then follows'
        )
    model.float()  # a pretrained one may come in half precision, in which small updates are lost
    dialect = dialect_of(model, processor, recipe.prompt.system, recipe.prompt.instruction)
    if left is None and start is not None and isinstance(dialect, WordDialect):
        check_words(recipe, dialect, memory)
    height, width = processor.image_size
    fit = Fitted(processor.fit, (height, width), processor.scaled) if isinstance(dialect, ChatDialect) else None
    recipe = with_limit(recipe, dialect, asked_of(recipe, memory, fit))
    _make_known(recipe, model, dialect, fit)
    if left is None and recipe.lora:
        torch.manual_seed(recipe.seed)  # the maps are the same in every process
        train_maps(model, recipe.lora, recipe.frozen_tower)
    if recipe.frozen_tower:
        model.encoder.requires_grad_(False)
    if recipe.gradient_checkpointing:
        recompute_layers(model)
    return Prepared(model, processor, dialect, fit, recipe)


def with_limit(recipe: TrainRecipe, dialect: Dialect, asked: Asked | None) -> TrainRecipe:
    """The recipe with the longest completion that its policy needs, where it leaves that open."""
    limit = recipe.grpo.max_new_tokens
    if limit == 0:
        limit = dialect.longest
        for gold in demonstrations(asked) if asked else ():
            if len(gold.encode()) >= limit:  # a token holds a byte at least
                limit = max(limit, len(dialect.demonstration(gold)[0]))
    return replace(recipe, grpo=replace(recipe.grpo, max_new_tokens=limit))


def _make_known(recipe: TrainRecipe, model: EntropyVLM, dialect: Dialect, fit: Fitted | None) -> None:
    """Tell a policy what it will be trained on and how it is asked (its config), and what ends its turn."""
    data, limit = recipe.data, {"max_new_tokens": recipe.grpo.max_new_tokens}
    if fit is not None and isinstance(dialect, ChatDialect):
        model.config.inputs = inputs_of(fit.sized(data)) | asdict(dialect.wording) | limit
        model.generation_config.eos_token_id = list(dialect.ends)
    else:
        model.config.inputs = inputs_of(data) | limit


def check_words(recipe: TrainRecipe, dialect: WordDialect, memory: SceneMemory) -> None:
    """See that a policy of words knows those of the recipe's files.

    Raises:
        UsageError: it lacks some. A word it lacks is `<unk>`, which it can never say: the loss of a demonstration with
            one is infinite.
    """
    asked = asked_of(recipe, memory)
    lacking = unknown_words(dialect, learned_texts(asked)) if asked else []
    if lacking:
        named = ", ".join(lacking[:3]) + (", ..." if len(lacking) > 3 else "")
        raise UsageError(
            f"the vocabulary of init = {recipe.init!r} lacks {len(lacking)} words of data.questions ({named}): train "
            'stage = "sft" on them without init, so that a new policy learns the words, or take as init a pretrained '
            "policy, whose tokenizer knows any word"
        )


def unknown_words(dialect: WordDialect, texts: Iterable[str]) -> list[str]:
    """Words of some texts that a word-level vocabulary lacks, each once, in the order in which they come."""
    unknown = token_id(dialect.tokenizer, UNKNOWN)
    lacking: dict[str, None] = {}
    for text in texts:
        read = dialect.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        places = zip(read["input_ids"], read["offset_mapping"], strict=True)
        lacking |= {text[first:last].lower(): None for token, (first, last) in places if token == unknown}
    return list(lacking)


def word_groups(dialect: Dialect, words: Sequence[Sequence[str]], required: bool) -> tuple[list[Tensor], str]:
    """Token ids of the words that patches are aligned with, by group, and why there are none where there are none.

    Raises:
        UsageError: the tokenizer lacks one, and they are `required`.
    """
    vocabulary = dialect.tokenizer.get_vocab()
    lacking = [word for group in words for word in group if word not in vocabulary]
    if not lacking:
        return [torch.tensor([vocabulary[word] for word in group]) for group in words], ""
    why = f"the tokenizer lacks {len(lacking)} of the World's words ({', '.join(lacking[:3])}, ...) as tokens"
    if required:
        raise UsageError(f'stage = "align" draws visual tokens to words, and {why}: begin with stage = "sft"')
    return [], why
