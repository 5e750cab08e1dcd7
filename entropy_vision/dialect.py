"""Dialect: how a policy is spoken to, in token ids, whatever its tokenizer and chat template.

A prompt is what stands before the picture, the picture, and what stands behind it up to where the policy speaks. What
stands before is the same for all questions, so it is read once for all of them.

Two ways to make one: `WordDialect` is the format of small policies with a word-level tokenizer (`text`), `ChatDialect`
writes what `EntropyVLMProcessor` would, by the chat template. `dialect_of` decides by what the tokenizer brings.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any, ClassVar

from transformers import PreTrainedTokenizerFast

from entropy_vision.errors import UsageError
from entropy_vision.processor import EntropyVLMProcessor, without_marks
from entropy_vision.text import ASSISTANT, END, IMAGE, PAD, TAGS, completion_ids, decode, prompt_ids, token_id

if TYPE_CHECKING:
    from entropy_vision.policy import EntropyVLM

INSTRUCTION = (
    "First think about what you see between <think> and </think>, "
    "then write the answer alone between <answer> and </answer>."
)
_THINK = "<think>"
_SAID = "entropy"  # a word that no template changes


@dataclass(frozen=True)
class Wording:
    """What is said around a question.

    Attributes:
        system: the system message; "" leaves it to the template.
        instruction: stands behind every question, on a line of its own; "" for none.
    """

    system: str = ""
    instruction: str = INSTRUCTION


@dataclass(frozen=True)
class Dialect(ABC):
    """How a policy is spoken to.

    Attributes:
        tokenizer: the policy's.
        before: ids in front of the picture.
        start: the id that completions follow where no question was read.
        ends: ids that end a completion; demonstrations end in the first.
        pad: the id of padding; any will do, nobody sees it.
        longest: tokens that a completion may have where nobody says.
    """

    longest: ClassVar[int]
    tokenizer: PreTrainedTokenizerFast
    before: tuple[int, ...]
    start: int
    ends: tuple[int, ...]
    pad: int

    @abstractmethod
    def prompt(self, question: str) -> list[int]:
        """Ids behind the picture, at least one; the completion follows the last."""

    @abstractmethod
    def demonstration(self, completion: str) -> tuple[list[int], int]:
        """(ids of a completion, its end included; how many of them belong to the thinking, tags included)."""

    @abstractmethod
    def text(self, ids: Sequence[int]) -> str:
        """What sampled ids say, up to their end and without it; tags stay."""


@dataclass(frozen=True)
class WordDialect(Dialect):
    """Picture, question, the mark `<assistant>`; completions end in `<eos>`. See `text`."""

    longest = 28

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerFast) -> WordDialect:
        """That of a word-level tokenizer.

        Raises:
            UsageError: the tokenizer does not know the format's marks.
        """
        if not _knows_marks(tokenizer):
            raise UsageError(
                f"this tokenizer lacks marks of the word-level format ({ASSISTANT}, {END}, ...): "
                "speak to its policy by dialect_of(model, processor)"
            )
        end = token_id(tokenizer, END)
        return cls(tokenizer, (), token_id(tokenizer, ASSISTANT), (end,), token_id(tokenizer, PAD))

    def prompt(self, question: str) -> list[int]:
        return prompt_ids(self.tokenizer, question)

    def demonstration(self, completion: str) -> tuple[list[int], int]:
        ids = completion_ids(self.tokenizer, completion)
        return ids, ids.index(token_id(self.tokenizer, "</think>")) + 1

    def text(self, ids: Sequence[int]) -> str:
        return decode(self.tokenizer, list(ids))


@dataclass(frozen=True)
class ChatDialect(Dialect):
    """What `processor.apply_chat_template` writes for one picture and one question.

    Attributes:
        processor: holds the template.
        wording: what is said around the question.
        lead: how completions begin that the template itself begins: "<think>" of some, mostly "".
    """

    longest = 256
    processor: EntropyVLMProcessor
    wording: Wording
    lead: str = ""

    @classmethod
    def of(cls, model: EntropyVLM, processor: EntropyVLMProcessor, wording: Wording) -> ChatDialect:
        """That of a policy and its processor.

        Raises:
            UsageError: the template refuses such a conversation or shows no picture in it, or nothing ends a turn.
        """
        tokenizer = processor.tokenizer
        text = render(processor, wording, "?")
        before, behind = _around_picture(processor, text)
        ends = _ends(model, processor, wording)
        pad = ends[0] if tokenizer.pad_token_id is None else tokenizer.pad_token_id
        lead = _THINK if text.rstrip().endswith(_THINK) else ""
        return cls(tokenizer, tuple(before), behind[-1], ends, pad, processor, wording, lead)

    def prompt(self, question: str) -> list[int]:
        return list(self._behind(question))

    @cached_property
    def _behind(self) -> Callable[[str], tuple[int, ...]]:
        """Of the questions asked last: one is rendered once for all that a step does with it."""

        @lru_cache(maxsize=1024)
        def behind(question: str) -> tuple[int, ...]:
            before, behind = _around_picture(self.processor, render(self.processor, self.wording, question))
            if tuple(before) != self.before:
                raise UsageError("the chat template says something else before the picture for every question")
            return tuple(behind)

        return behind

    def demonstration(self, completion: str) -> tuple[list[int], int]:
        said = completion.removeprefix(self.lead).lstrip() if self.lead else completion
        thought = said.find("</think>") + len("</think>") if "</think>" in said else 0
        encoded = self.tokenizer(said, add_special_tokens=False, return_offsets_mapping=True)
        thinking = sum(first < thought for first, _ in encoded["offset_mapping"])
        return [*encoded["input_ids"], self.ends[0]], thinking

    def text(self, ids: Sequence[int]) -> str:
        said = list(ids)
        stop = next((i for i, token in enumerate(said) if token in self.ends), len(said))
        return self.lead + str(self.tokenizer.decode(said[:stop], clean_up_tokenization_spaces=False))


def dialect_of(
    model: EntropyVLM, processor: EntropyVLMProcessor, system: str | None = None, instruction: str | None = None
) -> Dialect:
    """How a policy is spoken to: word-level where its tokenizer knows the marks of that format and no other template.

    Args:
        system, instruction: as in `Wording`. By default those that the policy was trained with (its config's
            `inputs`), and where it was not trained here the defaults of `Wording`.

    Raises:
        UsageError: a wording for a word-level policy, whose vocabulary has no words for it; as `ChatDialect.of`.
    """
    if not (_knows_marks(processor.tokenizer) and processor.is_plain):
        known = {"system": system, "instruction": instruction}
        told = {name: model.config.inputs.get(name) if text is None else text for name, text in known.items()}
        return ChatDialect.of(model, processor, Wording(**{name: t for name, t in told.items() if t is not None}))
    if system or instruction:
        raise UsageError(
            "a policy with the word-level tokenizer knows no system message and no instruction: leave them out"
        )
    return WordDialect.of(processor.tokenizer)


def spoken(known: Dialect | PreTrainedTokenizerFast) -> Dialect:
    """A dialect; a word-level tokenizer is one by itself. Raises as `WordDialect.of`."""
    return known if isinstance(known, Dialect) else WordDialect.of(known)


def render(processor: EntropyVLMProcessor, wording: Wording, question: str, said: str | None = None) -> str:
    """The text of a conversation with one `<image>` in it, up to where the policy speaks, or with what it said.

    Raises:
        UsageError: the template refuses it.
    """
    from jinja2 import TemplateError

    asked = "\n".join(part for part in (without_marks(question), wording.instruction) if part)
    messages = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": asked}]}]
    if wording.system:
        messages.insert(0, {"role": "system", "content": [{"type": "text", "text": wording.system}]})
    if said is not None:
        messages.append({"role": "assistant", "content": [{"type": "text", "text": said}]})
    try:
        return str(processor.apply_chat_template(messages, add_generation_prompt=said is None, tokenize=False))
    except TemplateError as error:
        raise UsageError(f"the policy's chat template refuses the prompt: {error}") from error


def _around_picture(processor: EntropyVLMProcessor, text: str) -> tuple[list[int], list[int]]:
    """Ids before and behind the one placeholder of a text, tokenized as a whole: merges are those of the processor.

    Raises:
        UsageError: there is not exactly one, or nothing behind it.
    """
    ids = processor.encode_text(text.replace(IMAGE, processor.image_token))
    at = [i for i, token in enumerate(ids) if token == processor.image_token_id]
    if len(at) != 1 or at[0] == len(ids) - 1:
        raise UsageError(
            f"the policy's chat template makes {len(at)} placeholders of one picture and one question: "
            "it must write <image> once, and the question behind it"
        )
    return ids[: at[0]], ids[at[0] + 1 :]


def _ends(model: EntropyVLM, processor: EntropyVLMProcessor, wording: Wording) -> tuple[int, ...]:
    """What ends a turn by the template (first), the tokenizer, and what the policy's own `generate` stops at."""
    tokenizer: Any = processor.tokenizer
    tail = render(processor, wording, "?", _SAID).rpartition(_SAID)[2]
    behind = tokenizer(tail, add_special_tokens=False)["input_ids"][:1] if tail else []
    closing = [token for token in behind if token in tokenizer.added_tokens_decoder]
    config = model.config  # one made of parts has it in the decoder's part alone
    stops = model.generation_config.eos_token_id, getattr(config, "eos_token_id", None), config.text.get("eos_token_id")
    known = (closing, tokenizer.eos_token_id, *stops)
    ids = [i for some in known if some is not None for i in (some if isinstance(some, list | tuple) else [some])]
    if not ids:
        raise UsageError("nothing ends a turn of this policy: give its tokenizer an eos_token")
    return tuple(dict.fromkeys(map(int, ids)))


def _knows_marks(tokenizer: PreTrainedTokenizerFast) -> bool:
    return {PAD, IMAGE, ASSISTANT, END, *TAGS} <= tokenizer.get_vocab().keys()
