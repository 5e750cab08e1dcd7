"""The word-level tokenizer of small policies, and the one prompt and completion format all stages share."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import cast

from transformers import PreTrainedTokenizerFast

from entropy_vision.question import Answer

PAD, UNKNOWN, IMAGE, ASSISTANT, END = "<pad>", "<unk>", "<image>", "<assistant>", "<eos>"
TAGS = ("<think>", "</think>", "<answer>", "</answer>")


def word_tokenizer(words: Iterable[str]) -> PreTrainedTokenizerFast:
    """A lower-case word tokenizer over `words` (duplicates and order do not matter) and the format's tags."""
    from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers

    specials = (PAD, UNKNOWN, IMAGE, ASSISTANT, END, *TAGS)
    vocabulary = {word: i for i, word in enumerate((*specials, *sorted({w.lower() for w in words} - set(specials))))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation("isolated")]
    )
    tokenizer.add_special_tokens([AddedToken(s, special=True, normalized=False) for s in specials])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=PAD, unk_token=UNKNOWN, eos_token=END, clean_up_tokenization_spaces=False
    )


def load_tokenizer(folder: str | Path) -> PreTrainedTokenizerFast:
    """The tokenizer saved beside a checkpoint."""
    return cast(PreTrainedTokenizerFast, PreTrainedTokenizerFast.from_pretrained(str(folder)))


def token_id(tokenizer: PreTrainedTokenizerFast, token: str) -> int:
    """The id of one token that must exist.

    Raises:
        KeyError: the tokenizer does not know it.
    """
    vocabulary = tokenizer.get_vocab()
    return int(vocabulary[token])


def prompt_ids(tokenizer: PreTrainedTokenizerFast, question: str) -> list[int]:
    """Token ids of a question, up to and including the mark after which the policy speaks."""
    return list(tokenizer(f"{question} {ASSISTANT}", add_special_tokens=False)["input_ids"])


def completion_ids(tokenizer: PreTrainedTokenizerFast, completion: str) -> list[int]:
    """Token ids of a completion, end mark included."""
    return list(tokenizer(f"{completion} {END}", add_special_tokens=False)["input_ids"])


def decode(tokenizer: PreTrainedTokenizerFast, ids: list[int]) -> str:
    """The text of a completion, up to its end mark and without it; the tags stay."""
    words = tokenizer.convert_ids_to_tokens(ids)
    return " ".join(words[: words.index(END)] if END in words else words)


def answer_text(answer: Answer) -> str:
    """What a right completion writes between the answer tags (kinds a World asks)."""
    match answer.kind:
        case "choice" if answer.options:
            return answer.options[ord(answer.value) - ord("A")]
        case "yesno":
            return "yes" if answer.value else "no"
        case _:
            return str(answer.value)


def gold_completion(answer: Answer, rationale: str) -> str:
    """The demonstration of warm-up training: the rationale between think tags, then the answer."""
    return f"<think> {rationale or 'look'} </think> <answer> {answer_text(answer)} </answer>"
