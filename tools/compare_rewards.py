"""The table of tests/rl/verifier_cases.json through public reward functions: what each pays for, what it refuses.

    python tools/compare_rewards.py
    python tools/compare_rewards.py --markdown > table.md     # the tables of docs/verifiers_compared.md
    python tools/compare_rewards.py --json

A library that is not installed is skipped, and the output says so. All that are needed go into a folder of their own:

    pip install --target rewards trl math-verify reasoning-gym 'verifiers<0.2' && PYTHONPATH=rewards python tools/...

Each library gets the kinds of answers it claims, in the form its documentation asks for, and the truth as a text:
    TRL accuracy_reward            integers and numbers, as "<think>…</think> \\boxed{answer}"; completions with boxes
    TRL reasoning_accuracy_reward  completions with boxes and closed thinking
    TRL think_format_reward        whole completions: is the thinking one block that opens them and is closed?
    math-verify                    integers, numbers, letters (string extraction), as they are; completions with boxes
    reasoning-gym                  texts, letters, integers, yes and no, in answer tags, the default scorer
    verifiers parser               the same through XMLParser and equality, as its documentation's first example does
    verifiers MathRubric           integers and numbers, its comparison alone; completions with boxes, its own parser

Counted as wrong: a reward above 0 for an answer that is worth 0 (paid; beside it how many got half or more), less than
the full reward for one worth 1 (refused), an exception (raised).
Left out for everyone: partial credit; right answers that need a tolerance; and forms that may be called right although
`verify` does not read them (a unit, 3/1, 7 said twice, a look-alike letter). Of whole completions only those count that
both profiles of `verify` judge alike; those with boxes are judged by the profile robust, strict reads none.
"""

from __future__ import annotations

import argparse
import importlib
import json
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from entropy_vision.rl import Answer, verify
from entropy_vision.rl.verifiers import canonical

TABLE = Path(__file__).resolve().parents[1] / "tests/rl/verifier_cases.json"
# why a text is worth 0 here, where one may well say that it means the right answer
CONVENTIONS = (
    *("a unit", "a share", "percent", "a fraction", "a power", "an exponent", "equation", "a sum", "Roman", "ordinal"),
    *(
        "hexadecimal",
        "factorial",
        "number sign",
        "comma for a point",
        "decimal comma",
        "mark inside",
        "no tolerance given",
    ),
    *("wrong grouping", "as texts", "script's digit", "a digit", "a letter", "another word", "look-alike"),
    *("invisible", "control character", "another mark", "another kind", "foreign tags", "run together", "spelled out"),
    *("half bracket", "a question", "interval", "said twice", "twice over", "seventy times", "closed twice"),
    *(
        "announced twice",
        "text of another",
        "is not the text",
        "reasoning in the answer",
        "nothing can confirm",
        "sign",
    ),
)
KEPT = ("sign lost", "sign", "typographic minus")  # of these, a wrong sign is wrong
# category -> what its cases' reasons hold
CATEGORIES = {
    "more than one answer": (
        *("hedged", "both", "two ", "list", "range", "letters", "options", "guesses", "every", "bound", "twice"),
        *("text of another", "three", "a letter and", "soup", "arrow", "around it"),
    ),
    "negated or taken back": ("negat", "taken back", "change of mind", "not false", "condition"),
    "part of another text": (
        "contains",
        "starts with",
        "ends with",
        "part of",
        "a word that",
        "less",
        "more",
        "300",
        "36",
    ),
    "wrong sign": ("sign", "minus"),
    "not a number": ("not a number", "infinite", "zero as a float", "points"),
    "letter and text disagree": ("disagree", "on the other", "the other text", "nothing can confirm"),
    "a right answer in other words": ("right",),
}
Score = Callable[[str, Answer], float | None]


@dataclass(frozen=True)
class Library:
    """A public reward. `score` takes an answer's text, or a whole completion where `whole`; None is no opinion."""

    name: str
    package: str
    kinds: tuple[str, ...]
    make: Callable[[], Score]
    whole: bool = False


@dataclass(frozen=True)
class Case:
    """One judged text: `worth` is 0 or 1."""

    answer: Answer
    text: str
    worth: int
    why: str


# ---- the libraries -----------------------------------------------------------------------------------------------


def _trl_accuracy(name: str, whole: bool) -> Callable[[], Score]:
    def make() -> Score:
        reward = getattr(importlib.import_module("trl.rewards"), name)

        def score(text: str, answer: Answer) -> float | None:
            said = text if "\\boxed" in text else f"\\boxed{{{text}}}"
            talk = [{"role": "assistant", "content": text if whole else f"<think>because</think>\n{said}"}]
            return reward([talk], [f"${_gold(answer)}$"])[0]  # type: ignore[no-any-return]

        return score

    return make


def _trl_format() -> Score:
    rewards = importlib.import_module("trl.rewards")
    return lambda text, answer: rewards.think_format_reward([[{"role": "assistant", "content": text}]])[0]


def _math_verify() -> Score:
    library = importlib.import_module("math_verify")

    def score(text: str, answer: Answer) -> float:
        if answer.kind == "choice":
            letters = tuple("ABCDEFGH"[: len(answer.options) or 4])
            configs = [library.StringExtractionConfig(strings=letters)]
            gold = library.parse(answer.value, configs)
            return float(library.verify(gold, library.parse(text, configs)))
        return float(library.verify(library.parse(f"${_gold(answer)}$"), library.parse(text)))

    return score


def _reasoning_gym(whole: bool) -> Callable[[], Score]:
    def make() -> Score:
        extract = importlib.import_module("reasoning_gym.utils").extract_answer
        dataset = importlib.import_module("reasoning_gym.dataset").ProceduralDataset

        def score(text: str, answer: Answer) -> float:
            completion = text if whole else f"<think>because</think><answer>{text}</answer>"
            return float(dataset.score_answer(None, extract(completion), {"answer": _gold(answer)}))

        return score

    return make


def _verifiers_parser(whole: bool) -> Callable[[], Score]:
    def make() -> Score:
        logging.disable(logging.WARNING)
        parser = importlib.import_module("verifiers").XMLParser(["think", "answer"])

        def score(text: str, answer: Answer) -> float:
            completion = text if whole else f"<think>because</think><answer>{text}</answer>"
            said = parser.parse_answer([{"role": "assistant", "content": completion}])
            return float((said or "") == _gold(answer))

        return score

    return make


def _verifiers_math(whole: bool) -> Callable[[], Score]:
    def make() -> Score:
        library = importlib.import_module("verifiers")
        compare = importlib.import_module("verifiers.rubrics.math_rubric").verify_response
        parser = library.MaybeThinkParser(lambda text: library.extract_boxed_answer(text, strict=True))

        def score(text: str, answer: Answer) -> float:
            said = parser.parse_answer([{"role": "assistant", "content": text}]) if whole else text
            return float(compare(said or "", _gold(answer), 50_000)[0])

        return score

    return make


def _ours(whole: bool) -> Callable[[], Score]:
    def make() -> Score:
        def score(text: str, answer: Answer) -> float:
            completion = text if whole else f"<think>because</think><answer>{text}</answer>"
            return verify(completion, answer, "robust").score

        return score

    return make


def _gold(answer: Answer) -> str:
    """The truth as the text a data set would hold."""
    text = canonical(answer)
    return text.removesuffix(".0") if answer.kind == "number" else text


_TEXTS, _MATH = ("exact", "choice", "integer", "yesno"), ("integer", "number")
LIBRARIES = (
    Library("entropy_vision verify", "entropy-vision", (*_TEXTS, "number"), _ours(False)),
    Library("TRL accuracy_reward", "trl", _MATH, _trl_accuracy("accuracy_reward", False)),
    Library("math-verify", "math-verify", (*_MATH, "choice"), _math_verify),
    Library("reasoning-gym", "reasoning-gym", _TEXTS, _reasoning_gym(False)),
    Library("verifiers parser", "verifiers", _TEXTS, _verifiers_parser(False)),
    Library("verifiers MathRubric", "verifiers", _MATH, _verifiers_math(False)),
    Library("entropy_vision verify", "entropy-vision", ("whole",), _ours(True), whole=True),
    Library("reasoning-gym", "reasoning-gym", ("whole",), _reasoning_gym(True), whole=True),
    Library("verifiers parser", "verifiers", ("whole",), _verifiers_parser(True), whole=True),
    Library("TRL think_format_reward", "trl", ("form",), _trl_format, whole=True),
    Library("entropy_vision verify", "entropy-vision", ("boxes",), _ours(True), whole=True),
    Library("TRL accuracy_reward", "trl", ("boxes",), _trl_accuracy("accuracy_reward", True), whole=True),
    Library(
        *("TRL reasoning_accuracy_reward", "trl", ("thought",)),
        _trl_accuracy("reasoning_accuracy_reward", True),
        whole=True,
    ),
    Library("math-verify", "math-verify", ("boxes",), _math_verify, whole=True),
    Library("verifiers MathRubric", "verifiers", ("boxes",), _verifiers_math(True), whole=True),
)

# ---- the cases ---------------------------------------------------------------------------------------------------


def answers_of(table: dict[str, Any]) -> list[Case]:
    """The cases of answer texts that any library may be judged by."""
    cases = []
    for group in table["inside"]:
        answer = Answer(**group["answer"])
        graded = answer.partial or answer.mra or answer.tolerance is not None
        for text, worth, why in group["cases"]:
            left_out = graded if worth == 1 else _convention(why)
            if worth in (0, 1) and not left_out and text.strip():
                cases.append(Case(answer, text, int(worth), why))
    return cases


def _convention(why: str) -> bool:
    return why not in KEPT and any(words in why for words in CONVENTIONS)


def whole_of(table: dict[str, Any]) -> list[Case]:
    """The whole completions that both profiles judge alike."""
    return [
        Case(Answer(**one["answer"]), one["completion"], int(one["strict"]), one["why"])
        for one in table["whole"]
        if one["answer"]["kind"] == "choice"
        and one["strict"] == one["robust"]
        and (one["strict"] or not _convention(one["why"]))
    ]


def forms_of(table: dict[str, Any]) -> list[Case]:
    """The same completions, worth 1 where the thinking is one block that opens them and is closed."""
    cases = []
    for one in table["whole"]:
        text = one["completion"]
        if one["answer"]["kind"] != "choice":
            continue
        once = text.count("<think>") == text.count("</think>") == 1
        fits = once and text.lstrip().startswith("<think>") and text.index("<think>") < text.index("</think>")
        cases.append(Case(Answer(**one["answer"]), text, int(fits), one["why"]))
    return cases


def boxes_of(table: dict[str, Any]) -> list[Case]:
    """Whole completions whose answers are counts in boxes."""
    return [
        Case(Answer(**one["answer"]), one["completion"], int(one["robust"]), one["why"])
        for one in table["whole"]
        if one["answer"]["kind"] == "integer" and "boxed" in one["completion"]
    ]


def category(case: Case) -> str:
    """The first category whose words its reason holds."""
    if case.worth:
        return "a right answer in other words"
    return next((name for name, words in CATEGORIES.items() if any(w in case.why for w in words)), "other")


# ---- the comparison ----------------------------------------------------------------------------------------------


def judge(library: Library, cases: Sequence[Case]) -> dict[str, Any]:
    """What a library pays, refuses and raises on, by kind and by category, with the cases."""
    score = library.make()
    faults: list[dict[str, Any]] = []
    seen: Counter[tuple[str, int]] = Counter()
    for case in cases:
        kind = library.kinds[0] if library.whole else case.answer.kind
        seen[kind, case.worth] += 1
        seen[category(case), -1] += 1
        try:
            reward = score(case.text, case.answer)
        except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
            fault, reward = f"raised {type(error).__name__}", None
        else:
            fault = "" if reward is None else "paid" if reward > 0 and not case.worth else ""
            fault = fault or ("refused" if case.worth and (reward is None or reward < 1) else "")
        if fault:
            record = {"kind": kind, "category": category(case), "fault": fault, "reward": reward}
            faults.append(record | {"truth": _gold(case.answer), "text": case.text, "why": case.why})
    return {
        "name": library.name,
        "version": _version(library.package),
        "cases": len(cases),
        "worth_0": sum(n for (_, worth), n in seen.items() if worth == 0),
        "worth_1": sum(n for (_, worth), n in seen.items() if worth == 1),
        "by_category": {name: n for (name, worth), n in seen.items() if worth == -1},
        "faults": faults,
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "this checkout"


def thought_of(table: dict[str, Any]) -> list[Case]:
    """Those of them that close their thinking."""
    return [case for case in boxes_of(table) if "</think>" in case.text]


_WHOLE = {"whole": whole_of, "form": forms_of, "boxes": boxes_of, "thought": thought_of}


def compare() -> tuple[list[dict[str, Any]], list[str]]:
    """(results, one line a library that is absent)."""
    table = json.loads(TABLE.read_text(encoding="utf-8"))
    answers, results, absent = answers_of(table), [], []
    for library in LIBRARIES:
        if library.whole:
            cases = _WHOLE[library.kinds[0]](table)
        else:
            cases = [case for case in answers if case.answer.kind in library.kinds]
        try:
            library.make()
        except (ImportError, RuntimeError, AttributeError) as error:
            absent.append(f"{library.name}: skipped, {library.package} is not there ({error})")
            continue
        results.append(judge(library, cases) | {"part": library.kinds[0] if library.whole else "answers"})
    return results, absent


def count(result: dict[str, Any], fault: str, where: str = "") -> int:
    """How many faults of a kind (of any, where it is empty) a category has (all of them, where it is empty)."""
    return sum(f["fault"].startswith(fault) and where in ("", f["category"]) for f in result["faults"])


_TITLES = {
    "answers": "Answers",
    "whole": "Whole completions",
    "form": "The form of the thinking",
    "boxes": "Completions with boxes",
    "thought": "Completions with boxes behind closed thinking",
}


def markdown(results: Sequence[dict[str, Any]], absent: Sequence[str], examples: int) -> str:
    """The tables of docs/verifiers_compared.md."""
    lines = []
    for kind, title in _TITLES.items():
        some = [r for r in results if r["part"] == kind]
        heads = ("reward", "version", "paid for a wrong one", "half or more", "refused a right one", "raised")
        lines += [f"### {title}", "", f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
        for r in some:
            paid, refused, raised = (count(r, f) for f in ("paid", "refused", "raised"))
            half = sum(f["fault"] == "paid" and f["reward"] >= 0.5 for f in r["faults"])
            wrong, right = f"{paid} of {r['worth_0']}", f"{refused} of {r['worth_1']}"
            lines.append(f"| {' | '.join(map(str, (r['name'], r['version'], wrong, half, right, raised)))} |")
        lines.append("")
        if kind == "answers":
            lines += ["| wrong in | " + " | ".join(r["name"] for r in some) + " |", "|---" * (len(some) + 1) + "|"]
            for name in [*CATEGORIES, "other"]:
                cells = [f"{count(r, '', name)} of {r['by_category'].get(name, 0)}" for r in some]
                lines.append(f"| {name} | " + " | ".join(cells) + " |")
            lines.append("")
    for r in results:
        for fault in ("paid", "refused", "raised"):
            some = [f for f in r["faults"] if f["fault"].startswith(fault)]
            wanted = len(some) if examples < 0 else min(examples, len(some))
            shown = [some[i * len(some) // wanted] for i in range(wanted)]
            if shown:
                said = "; ".join(f"`{json.dumps(f['text'], ensure_ascii=False)}` for `{f['truth']}`" for f in shown)
                where = f" ({_TITLES[r['part']].lower()})" if r["part"] != "answers" else ""
                lines.append(f"- {r['name']}{where}, {fault}: {said}.")
    return "\n".join([*lines, "", *absent]).rstrip()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--examples", type=int, default=4, help="texts shown of each fault; -1 all")
    parser.add_argument("--json", action="store_true", help="everything, every fault included")
    parser.add_argument("--markdown", action="store_true", help="the same as without it; for a redirected output")
    options = parser.parse_args()
    results, absent = compare()
    if options.json:
        print(json.dumps({"results": results, "absent": absent}, indent=1, ensure_ascii=False))
    else:
        print(markdown(results, absent, options.examples))


if __name__ == "__main__":
    main()
