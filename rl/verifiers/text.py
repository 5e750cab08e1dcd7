"""Answers in words: exact, choice, yesno."""

from __future__ import annotations

import re
from itertools import pairwise

from entropy_vision.question import Answer

from .normal import plain, tidy, without_opening, without_preamble
from .verdict import Reading, ambiguous, graded, unparsable

# a letter, bare or bracketed, then nothing or a mark and the option's own text
_LETTER = re.compile(
    r"(?:(?:option|choice|answer)\s+)?(?:\(([A-Za-z])\)|\[([A-Za-z])\]|([A-Za-z]))(?:\s*[.):,-]\s*(.*)|\s+(.*))?",
    re.DOTALL | re.IGNORECASE,
)
_WORD = re.compile(r"[a-z']+")
# the word, a mark that ends it, and ordinary prose behind
_VERDICT_WORD = re.compile(r"(yes|no|true|false)(?:([.,;:!–—-]+)(?=\s|$))?((?:\s[a-z0-9\s.,;:!'\"()–—-]*)?)")
_TRUTHS = {"yes": True, "true": True, "no": False, "false": False}
_HEDGES = {"maybe", "perhaps", "possibly", "probably", "unsure", "unclear", "unknown", "uncertain", "know", "idea"}
_HEDGES |= {"clue", "guess", "either", "or", "if", "cannot"}
# what may follow yes or no without a mark between: the start of a sentence ("no it is not"), never "no idea"
_SENTENCE_STARTS = {"it", "its", "it's", "they", "there", "he", "she", "that", "this", "the"}


def read_exact(text: str, answer: Answer) -> Reading:
    """Equality with the value or one of the aliases after `plain`; never a part of a text."""
    accepted = {plain(t) for t in (answer.value, *answer.aliases)}
    tidied = tidy(text)
    given = [plain(t) for t in (tidied, without_preamble(tidied)) if t]
    if not given:
        return unparsable()
    hit = next((g for g in given if g in accepted), None)
    return graded(1.0, hit) if hit is not None else graded(0.0, given[-1])


def read_choice(text: str, answer: Answer) -> Reading:
    """A letter, the text of one option, or both where they agree."""
    tidied = without_opening(tidy(text))
    letter, tail = _split_letter(tidied)
    by_text = _letters_of(tidied, answer.options)
    if letter is not None and tail == "":
        found = {letter, *by_text}
    elif by_text:
        found = set(by_text)
    elif letter is not None:  # a letter and more: the text has to say the same, or it is a hedge
        found = {letter, *(_letters_of(tail, answer.options) or ("",))}
    else:
        return unparsable()
    if len(found) != 1:
        return ambiguous()
    given = found.pop()
    if answer.options and ord(given) - ord("A") >= len(answer.options):
        return unparsable()
    return graded(float(given == answer.value.upper()), given)


def _split_letter(text: str) -> tuple[str | None, str]:
    match = _LETTER.fullmatch(text)
    if match is None:
        return None, ""
    tail = (match.group(4) or match.group(5) or "").strip()
    return (match.group(1) or match.group(2) or match.group(3)).upper(), tail


def _letters_of(text: str, options: tuple[str, ...]) -> tuple[str, ...]:
    wanted = plain(text)
    return tuple(chr(ord("A") + i) for i, option in enumerate(options) if wanted and plain(option) == wanted)


def read_yesno(text: str, answer: Answer) -> Reading:
    """The first word is yes, no, true or false, and nothing behind it takes it back."""
    lowered = without_opening(tidy(text)).lower().replace("’", "'")
    match = _VERDICT_WORD.fullmatch(lowered)
    if match is None:
        return unparsable()
    words = [match.group(1), *_WORD.findall(match.group(3))]
    if not match.group(2) and words[1:] and words[1] not in _SENTENCE_STARTS:
        return ambiguous() if set(words[1:]) & (_HEDGES | set(_TRUTHS)) else unparsable()
    said = _TRUTHS[words[0]]
    if _takes_back(said, words[1:]):
        return ambiguous()
    return graded(float(said is bool(answer.value)), "yes" if said else "no")


def _takes_back(said: bool, words: list[str]) -> bool:
    seen = set(words)
    contrary = {"no", "not", "false", "never", "incorrect"} if said else {"yes", "true", "correct"}
    negated = any(w.endswith("n't") for w in words)
    unsure = ("not", "sure") in pairwise(words)
    return bool(seen & (contrary | _HEDGES)) or (said and negated) or unsure
