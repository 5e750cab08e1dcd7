"""Bring an answer text to the form the parsers read. Inputs are short: callers cap them first."""

from __future__ import annotations

import unicodedata

_PAIRS = (
    ("\\boxed{", "}"),
    ("\\text{", "}"),
    ("\\mathrm{", "}"),
    ("\\mathbf{", "}"),
    ("\\(", "\\)"),
    ("\\[", "\\]"),
    ("$$", "$$"),
    ("$", "$"),
    ("```", "```"),
    ("`", "`"),
    ("**", "**"),
    ("__", "__"),
    ("*", "*"),
    ('"', '"'),
    ("'", "'"),
    ("“", "”"),
    ("‘", "’"),
)
_WRAPS = tuple(opening for opening, _ in _PAIRS)
_MAX_WRAPS = 8
_ANNOUNCEMENTS = (
    "so the final answer is",
    "the final answer is",
    "the correct answer is",
    "the correct option is",
    "the correct choice is",
    "my final answer is",
    "so the answer is",
    "the answer is",
    "my answer is",
    "answer is",
    "the final answer",
    "final answer",
    "the answer",
    "answer",
)
_OPENINGS = ("i think it is", "i think it's", "i think", "i believe it is", "it is", "it's", "there are", "there is")
_ARTICLES = ("the ", "a ", "an ")
_END_MARKS = " \t\r\n.,;:!?\"'"


def nfkc(text: str) -> str:
    """The NFKC form; ASCII is in it already."""
    return text if text.isascii() else unicodedata.normalize("NFKC", text)


def tidy(raw: str) -> str:
    """NFKC, then without surrounding white space, one final full stop, and markup that wraps the whole text."""
    text = nfkc(raw).strip()
    for _ in range(_MAX_WRAPS):
        inner = _unwrap(text.removesuffix(".").strip())
        if inner is None:
            break
        text = inner.strip()
    return text.removesuffix(".").strip()


def _unwrap(text: str) -> str | None:
    if not text.startswith(_WRAPS):
        return None
    for opening, closing in _PAIRS:
        if len(text) <= len(opening) + len(closing) or not (text.startswith(opening) and text.endswith(closing)):
            continue
        inner = text[len(opening) : -len(closing)]
        if closing == "}" and not _balanced(inner):
            continue
        if closing != "}" and closing in inner:
            continue
        return inner
    return None


def _balanced(text: str) -> bool:
    depth = 0
    for character in text:
        depth += (character == "{") - (character == "}")
        if depth < 0:
            return False
    return depth == 0


def without_preamble(text: str) -> str:
    """Cut one announcement ("The answer is", "Answer:") from the front; the text itself where there is none.

    The bare nouns need a colon behind them: "answer C" is not an announcement, "Answer: C" is.
    """
    lowered = text.lower()
    if not lowered.startswith(_ANNOUNCEMENTS):
        return text
    for words in _ANNOUNCEMENTS:
        if not lowered.startswith(words):
            continue
        rest = text[len(words) :].lstrip("* ")
        if rest.startswith((":", "=")):
            return rest[1:].lstrip("* ")
        if words.endswith(" is") and text[len(words) : len(words) + 1] in (" ", "\n"):
            return rest
    return text


def without_opening(text: str) -> str:
    """Like `without_preamble`, and cut the openings of a plain sentence ("It is", "There are", "I think") too."""
    rest = without_preamble(text)
    lowered = rest.lower()
    if not lowered.startswith(_OPENINGS):
        return rest
    for words in _OPENINGS:
        if lowered.startswith(words + " "):
            return rest[len(words) + 1 :].strip()
    return rest


def plain(text: str) -> str:
    """The form in which two texts are compared: NFKC, case, inner white space, end marks and a leading article."""
    folded = " ".join(nfkc(text).casefold().split())
    bare = folded.strip(_END_MARKS) or folded
    for article in _ARTICLES:
        if bare.startswith(article) and len(bare) > len(article):
            return bare[len(article) :]
    return bare
