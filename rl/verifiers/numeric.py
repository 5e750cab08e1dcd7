"""Answers in numbers: integer, number. Arithmetic is decimal, so that 2.1 is within 0.1 of 2.0."""

from __future__ import annotations

import math
import re
import unicodedata
from decimal import Decimal

from entropy_vision.question import Answer

from .normal import tidy, without_opening
from .verdict import Reading, ambiguous, graded, unparsable

_INTEGER = re.compile(r"[+-]?(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(?:\.0*)?")
_NUMBER = re.compile(r"[+-]?(?:(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,4})?")
_ANY_NUMBER = re.compile(r"[0-9][0-9,.]*(?:[eE][+-]?[0-9]+)?")
# fmt: off
_SMALL = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
)
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
UNITS = {word: i for i, word in enumerate(_SMALL)} | {word: 20 + 10 * i for i, word in enumerate(_TENS)}
# words that change or hedge a count; a plain noun behind a number ("3 cubes") does not
_CHANGING = {
    "or", "and", "to", "not", "but", "nor", "than", "more", "less", "fewer", "most", "least", "about",
    "approximately", "around", "maybe", "perhaps", "dozen", "dozens", "hundred", "hundreds", "thousand", "thousands",
    "million", "millions", "billion", "pair", "pairs", "half", "quarter", "percent", "times", "minus", "plus",
    "over", "squared", "cubed", "out", "per", "each", "point", "trillion", "trillions", "tenth", "tenths", "hundredth",
    "hundredths", "thousandth", "thousandths", "third", "thirds", "quarters", "halves", "roughly", "nearly", "almost",
    "possibly", "probably", "likely", "unsure", "wrong", "incorrect", "neither", "either", "except", "instead", *UNITS,
}
# fmt: on
_MAX_NOUNS = 4
# mean relative accuracy: VSI-Bench (arXiv:2412.14171), thresholds .50, .55, ..., .95
MRA_THRESHOLDS = tuple(Decimal(50 + 5 * i) / 100 for i in range(10))


def read_integer(text: str, answer: Answer) -> Reading:
    """Exactly one whole number, in digits or English words, a plain noun behind it at most.

    With `partial` the score is the mean relative accuracy, as for a number.
    """
    if _has_raised_digits(text):
        return unparsable()
    said = _without_nouns(without_opening(tidy(text)).replace("−", "-"))
    given = _integer_of(said)
    if given is None:
        return ambiguous() if _counts_numbers(said) > 1 else unparsable()
    if answer.partial:
        return graded(number_score(Decimal(given), Decimal(int(answer.value)), answer), str(given))
    return graded(float(given == int(answer.value)), str(given))


def read_number(text: str, answer: Answer) -> Reading:
    """One number, nothing else. Scored by tolerance, or by mean relative accuracy where the answer says `mra` (or
    `partial`, which is the same for a number).

    Without a tolerance the two must be equal as decimals. A relative tolerance is a fraction of the truth. MRA is
    the mean over theta in {.50, .55, ..., .95} of [|given - truth| / |truth| <= 1 - theta] (arXiv:2412.14171); the
    paper prints <, the benchmark's published code compares with <=, and this follows the code. A truth of 0 has no
    relative error: there only an exact 0 (or the absolute tolerance) counts.
    """
    if _has_raised_digits(text):
        return unparsable()
    said = without_opening(tidy(text)).replace("−", "-")
    given = _decimal_of(said)
    if given is None:
        return ambiguous() if _counts_numbers(said) > 1 else unparsable()
    truth = Decimal(repr(float(answer.value)))
    return graded(number_score(given, truth, answer), f"{given:f}" if abs(given.adjusted()) < 20 else str(given))


def number_score(given: Decimal, truth: Decimal, answer: Answer) -> float:
    """The score in [0, 1] of a number that was understood."""
    error = abs(given - truth)
    if (answer.mra or answer.partial) and truth != 0:
        return sum(error <= (1 - theta) * abs(truth) for theta in MRA_THRESHOLDS) / len(MRA_THRESHOLDS)
    tolerance = Decimal(repr(float(answer.tolerance or 0.0)))
    return float(error <= (tolerance * abs(truth) if answer.relative else tolerance))


def _has_raised_digits(text: str) -> bool:
    """NFKC would turn 1² into 12: such digits are no number here."""
    raised = ("<super>", "<sub>", "<fraction>")
    return not text.isascii() and any(unicodedata.decomposition(c).startswith(raised) for c in text)


def _counts_numbers(text: str) -> int:
    words = sum(word in UNITS for word in text.lower().replace("-", " ").split())
    return sum(1 for _ in _ANY_NUMBER.finditer(text)) + words


def _without_nouns(text: str) -> str:
    words = text.split()
    nouns = 0
    while len(words) > 1 and nouns < _MAX_NOUNS:
        last = words[-1].lower()
        if not (last.isascii() and last.isalpha() and len(last) > 2) or last in _CHANGING:
            break
        words.pop()
        nouns += 1
    return " ".join(words)


def _integer_of(text: str) -> int | None:
    if _INTEGER.fullmatch(text):
        return int(text.replace(",", "").partition(".")[0])
    return _integer_of_words(text.lower())


def _integer_of_words(text: str) -> int | None:
    """English number words up to 999,999; None for anything else."""
    sign, words = 1, text.replace("-", " ").split()
    if words[:1] in (["minus"], ["negative"]):
        sign, words = -1, words[1:]
    if "thousand" in words:
        cut = words.index("thousand")
        high, low = _below_thousand(words[:cut]), _below_thousand(words[cut + 1 :]) if words[cut + 1 :] else 0
        return None if high is None or low is None else sign * (1000 * high + low)
    value = _below_thousand(words)
    return None if value is None else sign * value


def _below_thousand(words: list[str]) -> int | None:
    total = 0
    if "hundred" in words:
        if len(words) < 2 or words[1] != "hundred" or not 1 <= UNITS.get(words[0], 0) <= 9:
            return None
        total, words = 100 * UNITS[words[0]], words[2:]
        if not words:
            return total
    if words[:1] == ["and"] and total:
        words = words[1:]
    values = [UNITS.get(word) for word in words]
    if len(values) == 1 and values[0] is not None:
        return total + values[0]
    if len(values) == 2 and values[0] is not None and values[1] is not None and values[0] >= 20 and 1 <= values[1] <= 9:
        return total + values[0] + values[1]
    return None


def _decimal_of(text: str) -> Decimal | None:
    if not _NUMBER.fullmatch(text):
        whole = _integer_of_words(text.lower())
        return None if whole is None else Decimal(whole)
    bare = text.replace(",", "")
    value = float(bare)
    if not math.isfinite(value):
        return None
    return Decimal(bare) if value != 0.0 else Decimal(0)  # 1e-9999 is 0 for a float and poison for a decimal
