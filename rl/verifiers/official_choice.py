"""How published evaluation code finds a letter in a response, faults included. The text is the response alone.

Each function returns what its benchmark would compare with the letter of the truth, None or "" where it finds nothing.
Sources are files of lmms-eval (github.com/EvolvingLMMs-Lab/lmms-eval, commit 75571cf) under lmms_eval/tasks unless
said otherwise. Where a published expression takes more than linear time, an equal one that does not stands here.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_LEADING = re.compile(r"[\(\s]*([A-Z])", re.IGNORECASE)
_NO_WORD = re.compile(r"[^\w\s]")
_ALONE = re.compile(r"\b([A-D])\b")


def first_word(response: str) -> str:
    """VSI-Bench (github.com/vision-x-nyu/thinking-in-space, vsibench/utils.py): what stands before the first blank,
    without full stops behind it. "C or D" is C, "(C)" is no letter."""
    return response.partition(" ")[0].rstrip(".").strip()


def leading_letter(response: str) -> str | None:
    """CV-Bench and BLINK: the first character that is no blank or bracket, if it is a letter. "Answer: C" is A."""
    match = _LEADING.match(response.strip())
    return match.group(1).upper() if match else None


def bare_first_word(response: str) -> str:
    """SAT: the first word once everything that is no word character or white space is gone."""
    return _NO_WORD.sub("", response).strip().partition(" ")[0].strip()


def first_lone_letter(response: str) -> str | None:
    """Perception Test: the first upper-case A to D that is a word. "A cube, so C" is A."""
    match = _ALONE.search(response.strip())
    return match.group(1) if match else None


# ---- MVBench ---------------------------------------------------------------------------------------------------

_MARKS = (*';/[]"{}()=+\\_->', *"<@`,?!")
_DIGIT_COMMA = re.compile(r"\d,\d")
_STOP = re.compile(r"\.(?!\d)")
_MOST_STOPS = 32  # the published call passes a flag where the count of replacements stands, and its value is 32
_LETTER_TO_E = re.compile(r"\b([A-E])\b", re.IGNORECASE)


def mvbench_text(response: str) -> str:
    """MVBench: the letter of "A. text", else the first A to E that is a word once marks are gone, else the text.

    The article a is such a word: "a red cube" is A. The truth goes through the same function.
    """
    text = response.strip()
    if text[:1] in tuple("ABCDEabcde") and text[1:2] == "." and _option_text(text[2:]):
        return text[0].upper()
    text = _without_marks(text.replace("\n", " ").replace("\t", " ").strip())
    for mark in "'\")(":
        text = text.strip(mark)
    text = text.strip().lower()
    letter = _LETTER_TO_E.search(text)
    return letter.group(1).upper() if letter else text


def _option_text(rest: str) -> bool:
    """Whether white space and then one line are all that stands behind "A."."""
    before_last_line = rest[: rest.rfind("\n") + 1]
    return bool(rest) and (not before_last_line or before_last_line.isspace())


def _without_marks(text: str) -> str:
    number, out = _DIGIT_COMMA.search(text) is not None, text
    for mark in _MARKS:
        beside_blank = f"{mark} " in text or f" {mark}" in text
        out = out.replace(mark, "" if beside_blank or number else " ")
    return _STOP.sub("", out, count=_MOST_STOPS)


# ---- Video-MME -------------------------------------------------------------------------------------------------

_ANNOUNCED = (
    *(f"{the}{how}answer is" for the in ("the ", "") for how in ("", "correct ", "best ")),
    *(f"{the}{how}option is" for the in ("the ", "") for how in ("correct ", "best ")),
    *(f"{the}{how}choice is" for the in ("the ", "") for how in ("", "correct ")),
    *("i choose", "i select", "i pick", "my answer is", "my choice is"),
    *("옵션", "정답은", "답은", "답:", "答案是", "答案为", "选", "答えは"),
)
# (what surrounds a letter, how much it is trusted)
_SURROUNDED = (("({})", 6), ("{}.", 5), ("{}:", 4), ("{})", 3), ("{} ", 2))
_START, _END, _PHRASE, _ANYWHERE = 10, 9, 7, 0


def video_mme_letter(response: str, letters: str = "ABCD") -> str | None:
    """Video-MME (_task_utils/mcq_extract.py): the candidate of the most trusted form, of those the last one.

    A letter that begins the response outweighs one that ends it, and that one an announced one. Letters inside words
    count: "the answer is Cat" is C.
    """
    text = response.strip()
    for mark in ",.!?;:'\"":
        text = text.strip(mark)
    text = f" {text} "
    bare = text.strip()
    found: list[tuple[int, int, str]] = []  # (trust, position, letter), the first of equals counts
    for form, trust in _SURROUNDED:
        found += [(trust, text.rfind(form.format(c)), c) for c in letters if form.format(c) in text]
    lowered = text.lower()
    for phrase in _ANNOUNCED:
        at = lowered.find(phrase)
        if at >= 0:
            places = [(text.find(c, at + len(phrase)), c) for c in letters]
            found += [(_PHRASE, place, c) for place, c in places if place >= 0]
    for c in letters:
        if bare.startswith(c) and not bare[1:2].isalpha():
            found.append((_START, 0, c))
        if bare.endswith(c) and not bare[-2:-1].isalpha():
            found.append((_END, len(text) - 1, c))
    if not found:
        found = [(_ANYWHERE, text.rfind(c), c) for c in letters if c in text]
    return max(found, key=lambda one: one[:2])[2] if found else None


# ---- NExT-QA ---------------------------------------------------------------------------------------------------


def next_qa_letter(response: str, options: Sequence[str]) -> str | None:
    """NExT-QA, multiple choice (the parser of MMMU): of several candidates the last one.

    The published code draws a letter at random where it finds none; here that is no answer.
    """
    letters = "ABCDE"
    for mark in ",.!?;:'":
        response = response.strip(mark)
    text = f" {response} "
    for form, place in (("({})", "({})"), ("{} ", " {} "), ("{}.", " {} ")):
        found = [c for c in letters if form.format(c) in text]
        if found:
            return _last(found, [text.rfind(place.format(c)) for c in found])
    lowered = text.lower()
    by_text = {c: option.strip().lower() for c, option in zip(letters, options, strict=False)}
    said = [c for c, option in by_text.items() if option in lowered] if len(text.split()) > 5 else []
    return _last(said, [lowered.rfind(by_text[c]) for c in said]) if said else None


def _last(found: Sequence[str], places: Sequence[int]) -> str:
    return found[max(range(len(found)), key=places.__getitem__)]


# ---- V*, HR-Bench, Geometry3K ----------------------------------------------------------------------------------

_VSTAR = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        r"^([A-D])",
        r"(?:ANSWER|CHOICE|OPTION)(?:\s+IS)?[\s:]+([A-D])",
        r"\(([A-D])\)",
        r"([A-D])\s*[.)\]]",
        r"(?:^|\s)([A-D])(?:\s|$)",
    )
)


def vstar_letter(response: str) -> str | None:
    """V*: a letter that begins the response (of whatever word), one that is announced, bracketed, marked, alone, or
    the only one there is. Case does not count: "because" is B."""
    text = response.strip().upper()
    for pattern in _VSTAR:
        match = pattern.search(text)
        if match:
            return match.group(1).upper()
    letters = [c for c in text if c in "ABCD"]
    return letters[0] if len(letters) == 1 else None


_REFUSALS = (
    "Sorry, I can't help with images of people yet.",
    "I can't process this file.",
    "I'm sorry, but without the image provided",
    "Cannot determine the answer",
)
_NO_RESPONSE = "Failed to obtain answer via API"


def hr_bench_letter(response: str, options: Sequence[str]) -> str | None:
    """HR-Bench (the rules of VLMEvalKit): the one letter that is a word, "Z" for a refusal, else the one option whose
    text stands in the response.

    The published code asks a judge model where these rules fail; here that is no answer.
    """
    response = response.strip()
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"[: len(options)] or "ABCD"
    if _NO_RESPONSE not in response:
        if any(refusal in response for refusal in _REFUSALS):
            return "Z"
        words = set(response.translate({ord(c): " " for c in ".()[],:;!*#{}"}).split())
        said = [c for c in letters if c in words]
        if len(said) == 1:
            return said[0]
        if not said and "Z" in words:
            return "Z"
    lowered = response.lower()
    by_text = [c for c, option in zip(letters, options, strict=False) if option.lower() in lowered]
    return by_text[0] if len(by_text) == 1 else None


_GEOMETRY = tuple(
    re.compile(pattern)
    for pattern in (
        r"[Aa]nswer\s*[:=]\s*\(?([A-Da-d])",
        r"\b([A-Da-d])\s*[.)\]]",
        r"^\s*\(?([A-Da-d])\)?$",
        r"\b([A-Da-d])\b",
    )
)


def geometry3k_letter(response: str, options: Sequence[str]) -> str | None:
    """Geometry3K: the last letter of the first form that occurs (announced, marked, alone, a word), else the first
    option whose text stands in the response. The article counts: "a line" is A."""
    text = response.strip()
    for pattern in _GEOMETRY:
        found = pattern.findall(text)
        if found:
            return str(found[-1]).upper()
    lowered = text.lower()
    by_text = [c for c, option in zip("ABCD", options, strict=False) if option.lower() in lowered]
    return by_text[0] if by_text else None


# ---- TempCompass -----------------------------------------------------------------------------------------------

_CAPTION = re.compile(r"(?:Sentence|Option|Caption) \w+: ")


def is_caption_matching(options: Sequence[str]) -> bool:
    """TempCompass's caption matching asks for one of "Caption A: …", "Sentence 1: …" or "Option 1: …"."""
    return bool(options) and all(_CAPTION.match(option) for option in options)


def tempcompass_choice(response: str, right: str) -> bool | None:
    """TempCompass, multiple choice: whether a response is right, None where the published code asks a judge model.

    Args:
        right: "B. text".
    """
    if response == right:
        return True
    if response in tuple("ABCD"):
        return response == right[0]
    if response[:1] in tuple("ABCD") and response[1:2] in (".", ")"):
        return response[0] == right[0]
    return None


def tempcompass_caption(response: str, options: Sequence[str], right: str) -> bool | None:
    """TempCompass, caption matching; None as above. `options` and `right` are whole lines ("Caption A: text")."""
    lines = [option.split(": ") for option in options]
    accepted: list[str] = [option for option in options if option == response]
    behind = response.split(") ")
    accepted += [line[1] for line in lines if line[1] == response or (len(behind) > 1 and line[1] == behind[1])]
    labels = [line[0] for line in lines]
    for label in (*labels, *(_bare_label(label) for label in labels)):
        if label in (response, response.replace(".", "")):
            accepted.append(label)
    if not accepted:
        return None
    label, text = right.split(": ")[:2]
    return accepted[-1] in (right, right.split(":")[0], text, label.split()[1])


def _bare_label(label: str) -> str:
    return label.replace("Sentence ", "").replace("Option ", "").replace("Caption ", "")
