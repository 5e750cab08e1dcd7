"""Where the answer stands in a completion. Every function is linear in the length of the text."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import islice

from .normal import without_preamble
from .verdict import Status

# only what tokenizers put behind the end of a text; anything else there is the policy's own doing
SPECIAL_TOKENS = (
    "<|im_end|>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<|eot_id|>",
    "<|end|>",
    "<end_of_turn>",
    "<eos>",
    "</s>",
    "<pad>",
    "<|pad|>",
    "[PAD]",
)
TAIL_CHARACTERS = 16_384
MAX_TAGS = 64  # a completion with more has fallen into repeating itself
_TAG = re.compile(r"</?(?:think|answer)>")
# read from the end, in one pass
_BEHIND = re.compile(r"(?:" + "|".join(re.escape(token[::-1]) for token in SPECIAL_TOKENS) + r"|\s++)*+")
_WELL_FORMED = ["<think>", "</think>", "<answer>", "</answer>"]


@dataclass(frozen=True)
class Extract:
    """`text` is the raw answer, None where `status` says why there is none (format or ambiguous)."""

    text: str | None
    format_ok: bool
    status: Status = Status.OK


def without_special_tokens(completion: str) -> str:
    """Cut the special tokens and the white space that a decoder leaves behind a finished text."""
    text = completion.rstrip()
    if not text.endswith(SPECIAL_TOKENS):
        return text
    behind = _BEHIND.match(text[::-1])
    return text[: len(text) - len(behind.group())] if behind else text


def extract(completion: str, *, strict: bool) -> Extract:
    """Find the answer of a completion.

    Strict takes it from a well-formed completion only. Robust takes the one block after the last </think>, or,
    where no block is written, the text there: all of it, its one boxed part, or its one line that announces itself
    ("Answer: C").
    """
    text = without_special_tokens(completion)
    tags = list(islice(_TAG.finditer(text), MAX_TAGS + 1))
    if len(tags) > MAX_TAGS:
        return Extract(None, format_ok=False, status=Status.FORMAT)
    body = _well_formed_answer(text, tags)
    if body is not None:
        return Extract(body, format_ok=True)
    if _answers_outside_think(tags) > 1:
        return Extract(None, format_ok=False, status=Status.AMBIGUOUS)
    return Extract(None, format_ok=False, status=Status.FORMAT) if strict else _robust(text, tags)


def _well_formed_answer(text: str, tags: list[re.Match[str]]) -> str | None:
    if [t.group() for t in tags[:5]] != _WELL_FORMED:
        return None
    think_open, think_close, answer_open, answer_close = tags
    outside = (
        text[: think_open.start()],
        text[think_close.end() : answer_open.start()],
        text[answer_close.end() :],
    )
    inside = text[think_open.end() : think_close.start()], text[answer_open.end() : answer_close.start()]
    if any(part.strip() for part in outside) or not all(part.strip() for part in inside):
        return None
    return inside[1]


def _answers_outside_think(tags: list[re.Match[str]]) -> int:
    # a prompt may open the thinking itself: then the completion's first think tag closes it
    first = next((t.group() for t in tags if t.group().endswith("think>")), "<think>")
    count, thinking = 0, first == "</think>"
    for tag in tags:
        if tag.group() in ("<think>", "</think>"):
            thinking = tag.group() == "<think>"
        elif tag.group() == "<answer>" and not thinking:
            count += 1
    return count


def _robust(text: str, tags: list[re.Match[str]]) -> Extract:
    last_close = max((i for i, t in enumerate(tags) if t.group() == "</think>"), default=-1)
    start = tags[last_close].end() if last_close >= 0 else 0
    after = tags[last_close + 1 :]
    names = [t.group() for t in after[:3]]
    if names == ["<answer>", "</answer>"]:
        return Extract(text[after[0].end() : after[1].start()], format_ok=False)
    if names:
        return Extract(None, format_ok=False, status=Status.FORMAT)
    return _free_text(text[start:][-TAIL_CHARACTERS:])


def _free_text(tail: str) -> Extract:
    boxes = tail.count("\\boxed{")
    if boxes > 1:
        return Extract(None, format_ok=False, status=Status.AMBIGUOUS)
    if boxes == 1:
        inside = _boxed(tail)
        return Extract(inside, format_ok=False, status=Status.OK if inside else Status.FORMAT)
    lines = [line.strip() for line in tail.splitlines() if line.strip()]
    if len(lines) > 1:
        announced = [line for line in lines if without_preamble(line.strip("*# ")) != line.strip("*# ")]
        if len(announced) > 1:
            return Extract(None, format_ok=False, status=Status.AMBIGUOUS)
        if announced:
            return Extract(announced[0], format_ok=False)
    if not lines:
        return Extract(None, format_ok=False, status=Status.FORMAT)
    return Extract(tail, format_ok=False)


def _boxed(text: str) -> str | None:
    """What stands in the one \\boxed{}; None where it does not close or is empty."""
    start = text.index("\\boxed{") + len("\\boxed{")
    depth = 1
    for i in range(start, len(text)):
        depth += (text[i] == "{") - (text[i] == "}")
        if depth == 0:
            return text[start:i] or None
    return None
