"""Published metrics retyped step by step from their definitions, apart from `rl.verifiers.official`.

Slow and literal on purpose: lists of candidates, one rule behind the other, the published order of operations. Where
published code draws at random, asks a judge or crashes, None stands (no answer). Sources: the files of lmms-eval named
in docs/verifiers.md, thinking-in-space for VSI-Bench, the SuperCLEVR script of R1-V, the scripts of NLVR and NLVR2.
"""

from __future__ import annotations

import re
import string
from collections.abc import Sequence

import numpy as np

LETTERS = string.ascii_uppercase


# ---- VSI-Bench ---------------------------------------------------------------------------------------------------


def vsi_word(text: str) -> str:
    words = text.split(" ")
    word = words[0]
    while word.endswith("."):
        word = word[:-1]
    return word.strip()


def vsi_choice(text: str, letter: str) -> float:
    return 1.0 if vsi_word(text).lower() == letter.lower() else 0.0


def mean_relative_accuracy(given: float, truth: float) -> float:
    points = (0.95 - 0.5) / 0.05 + 2
    thresholds = np.linspace(0.5, 0.95, int(points))
    distance = abs(given - truth) / truth
    met = [1 if distance <= 1 - theta else 0 for theta in thresholds]
    return float(np.mean(met))


def vsi_number(text: str, truth: float) -> float:
    try:
        given = float(vsi_word(text))
    except ValueError:
        return 0.0
    return 0.0 if truth == 0 else mean_relative_accuracy(given, truth)


def vsi_number_lmms(text: str, truth: float) -> float:
    value = _first_number(text.strip().lower())
    return 0.0 if value is None or truth == 0 else mean_relative_accuracy(value, truth)


_ONES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]
_ONES += [f"{w}teen" for w in ("thir", "four", "fif", "six", "seven", "eigh", "nine")]
_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
_VALUE = {w: i for i, w in enumerate(_ONES)} | {w: 20 + 10 * i for i, w in enumerate(_TENS)}
_VALUE |= {"hundred": 100, "thousand": 1000}


def _first_number(text: str) -> float | None:
    digits = re.search(r"-?\d+(?:\.\d+)?", text)
    words = [(m.start(), m.group()) for m in re.finditer("[a-z]+", text)]
    first = next((i for i, (_, word) in enumerate(words) if word in _VALUE), None)
    if digits and (first is None or digits.start() < words[first][0]):
        return float(digits.group())
    if first is None:
        return None
    run = []
    for _, word in words[first:]:
        if word in _VALUE:
            run.append(_VALUE[word])
        elif word != "and":
            break
    whole = part = 0
    for value in run:
        if value == 1000:
            whole += 1000 * (part or 1)
            part = 0
        elif value == 100:
            part = 100 * (part or 1)
        else:
            part += value
    try:
        return float(whole + part)
    except OverflowError:
        return None


# ---- one letter --------------------------------------------------------------------------------------------------


def leading_letter(text: str) -> str | None:
    found = re.match(r"[\(\s]*([A-Z])[\)\.\s]*", text.strip(), flags=re.IGNORECASE)
    return found.group(1).upper() if found else None


def sat(text: str, letter: str) -> float:
    kept = "".join(c for c in text if re.match(r"[\w\s]", c))
    word = kept.strip().split(" ")[0]
    return exact_match(word, letter)


def perception_test(text: str) -> str | None:
    found = re.findall(r"\b([A-D])\b", text.strip())
    return found[0] if found else None


def mvbench(text: str) -> str:
    option = re.compile(r"^([A-E])\.\s*(.+)$", re.IGNORECASE).match(text.strip())
    if option:
        return option.group(1).upper()
    text = text.replace("\n", " ").replace("\t", " ").strip()
    out = text
    for mark in [
        ";",
        "/",
        "[",
        "]",
        '"',
        "{",
        "}",
        "(",
        ")",
        "=",
        "+",
        "\\",
        "_",
        "-",
        ">",
        "<",
        "@",
        "`",
        ",",
        "?",
        "!",
    ]:
        drop = mark + " " in text or " " + mark in text or re.search(r"(\d)(\,)(\d)", text) is not None
        out = out.replace(mark, "" if drop else " ")
    stops = 0
    kept = []
    for i, c in enumerate(out):
        if c == "." and stops < 32 and not re.match(r"\d", out[i + 1 : i + 2]):
            stops += 1
        else:
            kept.append(c)
    out = "".join(kept)
    out = out.strip("'").strip('"').strip(")").strip("(").strip().lower()
    letters = re.findall(r"\b([A-E])\b", out, re.IGNORECASE)
    return letters[0].upper() if letters else out


PHRASES = """the answer is|answer is|the correct answer is|correct answer is|the best answer is|best answer is
the correct option is|correct option is|the best option is|best option is|the choice is|choice is
the correct choice is|correct choice is|i choose|i select|i pick|my answer is|my choice is
옵션|정답은|답은|답:|答案是|答案为|选|答えは""".replace("\n", "|").split("|")


def video_mme(text: str) -> str | None:
    if not text.strip():
        return None
    text = text.strip()
    for c in [",", ".", "!", "?", ";", ":", "'", '"']:
        text = text.strip(c)
    text = " " + text + " "
    core = text.strip()
    candidates = []
    for level, before, behind in ((6, "(", ")"), (5, "", "."), (4, "", ":"), (3, "", ")"), (2, "", " ")):
        for letter in "ABCD":
            place = text.rfind(before + letter + behind)
            if place != -1:
                candidates.append((level, place, letter))
    for phrase in PHRASES:
        begin = text.lower().find(phrase)
        for letter in "ABCD" if begin != -1 else "":
            place = text.find(letter, begin + len(phrase))
            if place != -1:
                candidates.append((7, place, letter))
    for letter in "ABCD":
        if core.startswith(letter) and (len(core) == 1 or not core[1].isalpha()):
            candidates.append((10, 0, letter))
        if core.endswith(letter) and (len(core) == 1 or not core[-2].isalpha()):
            candidates.append((9, len(text) - 1, letter))
    if not candidates:
        candidates = [(0, text.rfind(letter), letter) for letter in "ABCD" if letter in text]
    candidates.sort(key=lambda c: (c[0], c[1]), reverse=True)
    return candidates[0][2] if candidates else None


def next_qa(text: str, options: Sequence[str]) -> str | None:
    for c in [",", ".", "!", "?", ";", ":", "'"]:
        text = text.strip(c)
    text = " " + text + " "
    candidates = [x for x in "ABCDE" if "(" + x + ")" in text]
    places = [text.rfind("(" + x + ")") for x in candidates]
    if not candidates:
        candidates = [x for x in "ABCDE" if x + " " in text]
        places = [text.rfind(" " + x + " ") for x in candidates]
    if not candidates:
        candidates = [x for x in "ABCDE" if x + "." in text]
        places = [text.rfind(" " + x + " ") for x in candidates]
    if not candidates and len(text.split()) > 5:
        stripped = [option.strip() for option in options[:5]]
        candidates = [x for x, option in zip("ABCDE", stripped, strict=False) if option.lower() in text.lower()]
        places = [text.lower().rfind(stripped["ABCDE".index(x)].lower()) for x in candidates]
    return candidates[int(np.argmax(places))] if candidates else None


def vstar(text: str) -> str | None:
    text = text.strip().upper()
    forms = [
        r"^([A-D])\s*[\.)\]]*",
        r"(?:THE\s+)?(?:ANSWER|CHOICE|OPTION)(?:\s+IS)?[\s:]+([A-D])",
        r"\(([A-D])\)",
        r"([A-D])\s*(?:\.|\)|])",
        r"(?:^|\s)([A-D])(?:\s|$)",
    ]
    for form in forms:
        found = re.search(form, text, re.IGNORECASE)
        if found:
            return found.group(1).upper()
    every = re.findall(r"[A-D]", text)
    if len(every) == 1:
        return every[0]
    return text[0] if text and text[0] in "ABCD" else None


REFUSALS = [
    "Sorry, I can't help with images of people yet.",
    "I can't process this file.",
    "I'm sorry, but without the image provided",
    "Cannot determine the answer",
]


def hr_bench(text: str, options: Sequence[str]) -> str | None:
    text = text.strip()
    letters = list(LETTERS[: len(options)] if options else "ABCD")
    by_letter = None
    if "Failed to obtain answer via API" not in text:
        if [r for r in REFUSALS if r in text]:
            return "Z"
        cut = text
        for c in ".()[],:;!*#{}":
            cut = cut.replace(c, " ")
        splits = cut.split()
        hits = [letter for letter in letters if letter in splits]
        if len(hits) == 1:
            by_letter = hits[0]
        elif not hits and "Z" in splits:
            by_letter = "Z"
    if by_letter:
        return by_letter
    hits = [letter for letter, option in zip(letters, options, strict=False) if option.lower() in text.lower()]
    return hits[0] if len(hits) == 1 else None


def geometry3k(text: str, options: Sequence[str]) -> str | None:
    text = text.strip()
    forms = [
        r"[Aa]nswer\s*[:=]\s*\(?([A-Da-d])\)?",
        r"\b([A-Da-d])\s*[.)\]]",
        r"^\s*\(?([A-Da-d])\)?$",
        r"\b([A-Da-d])\b",
    ]
    for form in forms:
        every = re.findall(form, text)
        if every:
            return str(every[-1]).upper()
    for i, option in enumerate(options):
        if option.lower() in text.lower():
            return "ABCD"[i] if i < 4 else None
    return None


def tempcompass_choice(text: str, right: str) -> float:
    if text == right:
        return 1.0
    if text in ["A", "B", "C", "D"]:
        return float(text == right[0])
    for behind in (".", ")"):
        if any(text.startswith(letter + behind) for letter in "ABCD"):
            return float(text.split(behind)[0] == right[0])
    return 0.0


def tempcompass_yes_no(text: str, truth: bool) -> float:
    said = "yes" if text.lower().startswith("yes") else "no" if text.lower().startswith("no") else ""
    return float(said == ("yes" if truth else "no"))


def tempcompass_caption(text: str, lines: Sequence[str], right: str) -> float:
    sentences = [line.split(": ")[1] for line in lines]
    labels = [line.split(": ")[0] for line in lines]
    bare = [label.replace("Sentence ", "").replace("Option ", "").replace("Caption ", "") for label in labels]
    said = None
    for line in lines:
        if line == text:
            said = line
    for sentence in sentences:
        if sentence == text or (") " in text and sentence == text.split(") ")[1]):
            said = sentence
    for label in labels + bare:
        if label == text or label == text.replace(".", ""):
            said = label
    if said is None:
        return 0.0
    label = right.split(": ")[0]
    return float(said in [right, right.split(":")[0], right.split(": ")[1], label.split()[1]])


# ---- words and counts --------------------------------------------------------------------------------------------


def exact_match(given: str, truth: str) -> float:
    predictions = np.char.lower(np.asarray([given.strip()]))
    references = np.char.lower(np.asarray([truth]))
    gone = str.maketrans("", "", string.punctuation)
    predictions, references = np.char.translate(predictions, gone), np.char.translate(references, gone)
    return float(np.mean(predictions == references))


def equal(text: str, truth: str) -> float:
    return float(text.strip() == truth)


def nlvr(text: str, truth: bool) -> float:
    row = f"split-1-2-3.png,{text}".strip().split(",")
    return float(row[1].lower() == ("true" if truth else "false"))


def super_clevr(text: str, truth: int) -> float:
    found = re.search(r"<answer>\s*(\d+)\s*</answer>", text)
    return float(found is not None and int(found.group(1)) == truth)


def clevrer_options(named: set[str], truth: set[str], options: Sequence[str]) -> float:
    right = 0
    for option in options:
        said, is_so = ("correct" if option in side else "wrong" for side in (named, truth))
        right += said == is_so
    return right / len(options)
