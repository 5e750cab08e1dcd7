"""Published metrics of benchmarks, bit for bit and faults included. For tables beside published ones, never training.

A policy that is paid by one of these learns its faults: "not C, it is A" earns C in some, "the" earns B in others.
`Rubric` refuses them. What a profile is given is the response as published code would have it: special tokens at the
end, a thinking block and one pair of answer tags around the whole rest are taken off; any other text reaches it
unchanged. Where published code draws at random, asks a judge model or crashes, the score is 0 and the status
unparsable (docs/verifiers.md lists the sources). The score is an item's; how items are averaged is the benchmark's.
"""

from __future__ import annotations

import re
import string
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from entropy_vision.errors import UsageError
from entropy_vision.question import Answer

from . import official_choice as choice
from .extract import without_special_tokens
from .listing import read_set
from .numeric import UNITS
from .verdict import Reading, graded, unparsable

PREFIX = "official:"


@dataclass(frozen=True)
class _Metric:
    """How a benchmark scores a response, and the kinds of answers it asks for. `tagged` reads the raw completion."""

    score: Callable[[str, Answer], Reading]
    kinds: tuple[str, ...]
    tagged: bool = False


def score_official(completion: str, answer: Answer, profile: str) -> Reading:
    """Score a completion by the published metric `profile` names. Never raises, whatever the completion says.

    Raises:
        UsageError: the benchmark asks for no such kind of answer.
    """
    metric = _METRICS[profile]
    if answer.kind not in metric.kinds:
        raise UsageError(f"verify: {profile} scores {', '.join(metric.kinds)}, not {answer.kind}")
    return metric.score(completion if metric.tagged else response_of(completion), answer)


def response_of(completion: str) -> str:
    """The response of a completion: behind the thinking, inside the answer tags where they wrap all of it."""
    text = completion
    bare = without_special_tokens(text)
    if len(bare) < len(text.rstrip()):
        text = bare
    if "</think>" in text:
        text = text.rpartition("</think>")[2].strip()
    inside = text.strip().removeprefix("<answer>").removesuffix("</answer>")
    wrapped = len(inside) == len(text.strip()) - len("<answer></answer>")
    return inside.strip() if wrapped and "answer>" not in inside else text


def _reading(hit: bool, said: str | None) -> Reading:
    if not hit and not said:
        return unparsable()
    return graded(float(hit), said or "")


# ---- letters ---------------------------------------------------------------------------------------------------


def _letter(parse: Callable[[str], str | None]) -> Callable[[str, Answer], Reading]:
    def score(response: str, answer: Answer) -> Reading:
        said = parse(response)
        return _reading(said == answer.value.upper(), said)

    return score


def _letter_or_text(parse: Callable[[str, tuple[str, ...]], str | None]) -> Callable[[str, Answer], Reading]:
    def score(response: str, answer: Answer) -> Reading:
        said = parse(response, answer.options)
        return _reading(said == answer.value.upper(), said)

    return score


def _mvbench(response: str, answer: Answer) -> Reading:
    said = choice.mvbench_text(response)
    return _reading(said == choice.mvbench_text(answer.value.upper()), said)


def _sat(response: str, answer: Answer) -> Reading:
    said = choice.bare_first_word(response)
    return _reading(exact_match(said, answer.value), said)


def _tempcompass(response: str, answer: Answer) -> Reading:
    if answer.kind == "yesno":
        lowered = response.lower()
        said = next((word for word in ("yes", "no") if lowered.startswith(word)), None)
        return _reading(said == _words(answer), said)
    letter, options = answer.value.upper(), answer.options
    text = options[ord(letter) - ord("A")] if options else ""
    if choice.is_caption_matching(options):
        right = choice.tempcompass_caption(response, options, text)
    else:
        right = choice.tempcompass_choice(response, f"{letter}. {text}")
    return unparsable() if right is None else graded(float(right), response)


# ---- numbers ---------------------------------------------------------------------------------------------------

# VSI-Bench asks for (.95 - .5) / .05 + 2 points, which is 10.999999999999998 and becomes 10: .50, .55, ..., .95
_BOUNDS = 1 - np.linspace(0.5, 0.95, int((0.95 - 0.5) / 0.05 + 2))
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
_LETTERS = re.compile(r"[a-z]+")
_NUMBER_WORDS = UNITS.keys() | {"hundred", "thousand"}


def _vsi_bench(number_of: Callable[[str], float | None]) -> Callable[[str, Answer], Reading]:
    def score(response: str, answer: Answer) -> Reading:
        if answer.kind == "choice":
            said = choice.first_word(response)
            return _reading(said.lower() == answer.value.lower(), said)
        given, truth = number_of(response), float(answer.value)
        if given is None or truth == 0.0:  # published code divides by the truth
            return unparsable()
        return graded(float((abs(given - truth) / truth <= _BOUNDS).mean()), repr(given))

    return score


def _float_of_first_word(response: str) -> float | None:
    try:
        return float(choice.first_word(response))
    except ValueError:
        return None


def _first_number(response: str) -> float | None:
    """lmms-eval's: the first number in digits or English words, whatever stands around it."""
    text = response.strip().lower()
    digits = _NUMBER.search(text)
    start, run = None, list[str]()
    for match in _LETTERS.finditer(text):
        word = match.group()
        if word in _NUMBER_WORDS:
            start = match.start() if start is None else start
            run.append(word)
        elif start is not None and word != "and":
            break
    if digits is not None and (start is None or digits.start() < start):
        return float(digits.group())
    return None if start is None else _value_of(run)


def _value_of(words: list[str]) -> float | None:
    total, current = 0, 0
    for word in words:
        if word == "hundred":
            current = max(current, 1) * 100
        elif word == "thousand":
            total, current = total + max(current, 1) * 1000, 0
        else:
            current += UNITS[word]
    try:
        return float(total + current)
    except OverflowError:  # published code ends here
        return None


_COUNT = re.compile(r"<answer>\s*(\d+)\s*</answer>")


def _super_clevr(completion: str, answer: Answer) -> Reading:
    match = _COUNT.search(completion)
    if match is None or len(match.group(1)) > 4000:  # Python reads no longer integers
        return unparsable()
    return graded(float(int(match.group(1)) == int(answer.value)), match.group(1))


# ---- words -----------------------------------------------------------------------------------------------------


def _words(answer: Answer) -> str:
    return ("yes" if answer.value else "no") if answer.kind == "yesno" else str(answer.value)


def _equal(response: str, answer: Answer) -> Reading:
    said = response.strip()
    return _reading(said == _words(answer), said)


def exact_match(given: str, truth: str) -> bool:
    """lmms-eval's exact_match without case and punctuation (the metric of Hugging Face's evaluate, on NumPy texts)."""
    table: Any = str.maketrans("", "", string.punctuation)  # NumPy's annotation knows tables of bytes only
    a, b = (np.char.translate(np.char.lower(np.asarray([text])), table) for text in (given.strip(), truth))
    return bool((a == b)[0])


def _gqa(response: str, answer: Answer) -> Reading:
    return _reading(exact_match(response, _words(answer)), response.strip())


def _nlvr(response: str, answer: Answer) -> Reading:
    said = response.rstrip().partition(",")[0]  # a field of the file of predictions
    return _reading(said.lower() == ("true" if answer.value else "false"), said)


# ---- sets ------------------------------------------------------------------------------------------------------


def _clevrer(response: str, answer: Answer) -> Reading:
    """Descriptive questions by equality; others per question: every option judged rightly, which is the exact set."""
    if answer.kind != "set":
        return _equal(response, answer)
    return read_set(response, Answer("set", answer.value))


def _clevrer_options(response: str, answer: Answer) -> Reading:
    """The share of options judged rightly: named and right, or neither."""
    if not answer.options or not set(answer.value) <= set(answer.options):
        raise UsageError("verify: official:clevrer-option needs options= with every item of the set among them")
    named = read_set(response, Answer("set", answer.value))
    if named.parsed is None:
        return unparsable()
    verdicts = [_names(response, option) == (option in answer.value) for option in answer.options]
    return graded(sum(verdicts) / len(verdicts), named.parsed)


def _names(response: str, option: str) -> bool:
    # F1 with a single item is above 0 exactly where the item is named
    return read_set(response, Answer("set", {option}, partial=True)).score > 0.0


_METRICS: dict[str, _Metric] = {
    PREFIX + name: metric
    for name, metric in {
        "vsi-bench": _Metric(_vsi_bench(_float_of_first_word), ("choice", "number", "integer")),
        "vsi-bench-lmms": _Metric(_vsi_bench(_first_number), ("choice", "number", "integer")),
        "cv-bench": _Metric(_letter(choice.leading_letter), ("choice",)),
        "blink": _Metric(_letter(choice.leading_letter), ("choice",)),
        "sat": _Metric(_sat, ("choice",)),
        "clevr": _Metric(_equal, ("exact", "yesno", "integer")),
        "clevrer": _Metric(_clevrer, ("exact", "yesno", "integer", "set")),
        "clevrer-option": _Metric(_clevrer_options, ("set",)),
        "super-clevr": _Metric(_super_clevr, ("integer",), tagged=True),
        "tallyqa": _Metric(_equal, ("integer",)),
        "nlvr": _Metric(_nlvr, ("yesno",)),
        "nlvr2": _Metric(_nlvr, ("yesno",)),
        "gqa": _Metric(_gqa, ("exact", "yesno")),
        "mvbench": _Metric(_mvbench, ("choice",)),
        "video-mme": _Metric(_letter(choice.video_mme_letter), ("choice",)),
        "tempcompass": _Metric(_tempcompass, ("choice", "yesno")),
        "perception-test": _Metric(_letter(choice.first_lone_letter), ("choice",)),
        "next-qa": _Metric(_letter_or_text(choice.next_qa_letter), ("choice",)),
        "vstar": _Metric(_letter(choice.vstar_letter), ("choice",)),
        "hr-bench": _Metric(_letter_or_text(choice.hr_bench_letter), ("choice",)),
        "geometry3k": _Metric(_letter_or_text(choice.geometry3k_letter), ("choice",)),
    }.items()
}
OFFICIAL_PROFILES = tuple(_METRICS)
