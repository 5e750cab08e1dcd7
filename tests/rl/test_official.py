"""Published metrics beside an independent retyping of their definitions: the difference is exactly 0."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence

import oracles_official as oracle
import pytest

from entropy_vision.errors import UsageError
from entropy_vision.rl import Answer, Rubric, verify
from entropy_vision.rl.verifiers import OFFICIAL_PROFILES, Status

COLOURS = ("red cube", "blue ball", "green cone", "a red ball")
CAPTIONS = ("Caption A: a cat runs: left", "Caption B: a dog sits", "Caption C: rain")
OPTIONS = ["The cat. Sits)", "B", "red", "it is not, so", "no"]


def texts_of(block: str) -> list[str]:
    """The texts of a table parted by | and lines, with \n, \t and \0 written out."""
    cells = block.replace("\n", "|").split("|")
    return [cell.replace(r"\n", "\n").replace(r"\t", "\t").replace(r"\0", "\0") for cell in cells]


TEXTS = [
    *texts_of(
        r"""A|B.|C. red cube|(B)|(B) blue ball|C or D|Answer: C|The answer is (B).|the answer is Cat|Based on this, D|b
a|a red cube|because|I think it is C, not A|A, B and C|no|No.|yes|Yes, it is|true|False|False, it is not|3|3.0|3 cubes
three|twenty-one|two hundred and five thousand|about 1.5 metres|1.5|1.05|1.1|2|0|-3|nan|inf|1e308|1_000|٣|3.|. 3
one apple, room 2|red cube|The red cube is left of the blue ball here|it is the red cube or the blue ball, hm|Z|D)
Cannot determine the answer|Caption B|B) a dog sits|a dog sits|Caption B: a dog sits|Caption C.|a cat runs|hotdog
I'm sorry, but without the image provided|Failed to obtain answer via API: A|dog|Dog!|do.g|A. B|A.  |A.red\ncube
A.\n\nred|A.\nred\ncube|Answer = (c)|answer:d|option is b|"C"|'D'|C:|[D]|{A}|A-B|1,000 B|x.y.z. E|E|F|f.|...|?|()|a,
, B|none|[]|A, C|C, A|["A"]|İ|dog\0|K|ſ|A\0|  B  |\tC|\nD\n|B\nbecause|C.\n|hundred hundred|thousand|İd|_A_
correct choice is A. My choice is B|옵션 B|yes\n|true, I think| true|TRUE|i|İ\0|B. |b. blue ball|C) green cone"""
    ),
    "",
    " ",
    "x." * 40 + "A",  # more full stops than the published code takes off
    "the answer is D, then A or D",
]


def same(said: str | None, letter: str) -> float:
    return float(said == letter)


def each(letters: str, options: Sequence[str] = ()) -> list[Answer]:
    return [Answer("choice", letter, options=tuple(options)) for letter in letters]


NUMBERS = [Answer("number", v) for v in (1.0, 1.5, 3.0, 0.0, 205_000.0)] + [Answer("integer", 21)]
BOTH = [Answer("yesno", True), Answer("yesno", False)]
WORDS = [Answer("exact", "red cube"), Answer("exact", "dog"), Answer("exact", "i"), Answer("integer", 3), *BOTH]
SETS = [Answer("set", {"A", "C"}, options=tuple("ABCD")), Answer("set", set(), options=("A", "B"))]


def words(answer: Answer) -> str:
    return ("yes" if answer.value else "no") if answer.kind == "yesno" else str(answer.value)


def vsi(number: Callable[[str, float], float]) -> Callable[[str, Answer], float]:
    return lambda t, a: oracle.vsi_choice(t, a.value) if a.kind == "choice" else number(t, float(a.value))


def tempcompass(text: str, answer: Answer) -> float:
    if answer.kind == "yesno":
        return oracle.tempcompass_yes_no(text, answer.value)
    option = answer.options["ABCD".index(answer.value)] if answer.options else ""
    if option.startswith("Caption"):
        return oracle.tempcompass_caption(text, answer.options, option)
    return oracle.tempcompass_choice(text, f"{answer.value}. {option}")


def clevrer(text: str, answer: Answer) -> float:
    if answer.kind == "set":
        return verify(text, Answer("set", answer.value), "robust").score
    return oracle.equal(text, words(answer))


# profile -> (answers, the oracle's score)
PARITY: dict[str, tuple[list[Answer], Callable[[str, Answer], float]]] = {
    "vsi-bench": ([*each("ABCD"), *each("b"), *NUMBERS], vsi(oracle.vsi_number)),
    "vsi-bench-lmms": ([*each("ABCD"), *NUMBERS], vsi(oracle.vsi_number_lmms)),
    "cv-bench": (each("ABCDF"), lambda t, a: same(oracle.leading_letter(t), a.value)),
    "blink": (each("ABCDF"), lambda t, a: same(oracle.leading_letter(t), a.value)),
    "sat": (each("AB", ("x", "y")), lambda t, a: oracle.sat(t, a.value)),
    "clevr": (WORDS, lambda t, a: oracle.equal(t, words(a))),
    "clevrer": (WORDS, clevrer),
    "super-clevr": ([Answer("integer", 3)], lambda t, a: oracle.super_clevr(t, a.value)),
    "tallyqa": ([Answer("integer", 3), Answer("integer", 0)], lambda t, a: oracle.equal(t, words(a))),
    "nlvr": (BOTH, lambda t, a: oracle.nlvr(t, a.value)),
    "nlvr2": (BOTH, lambda t, a: oracle.nlvr(t, a.value)),
    "gqa": ([WORDS[0], WORDS[1], WORDS[2], *BOTH], lambda t, a: oracle.exact_match(t, words(a))),
    "mvbench": (each("ABCDEF", (*COLOURS, "x", "y")), lambda t, a: same(oracle.mvbench(t), oracle.mvbench(a.value))),
    "video-mme": (each("ABCD", COLOURS), lambda t, a: same(oracle.video_mme(t), a.value)),
    "tempcompass": ([*each("ABCD", COLOURS), *each("ABC", CAPTIONS), *each("AD"), *BOTH], tempcompass),
    "perception-test": (each("ABC", COLOURS[:3]), lambda t, a: same(oracle.perception_test(t), a.value)),
    "next-qa": (
        [*each("ABCDE", OPTIONS), *each("ABCD", COLOURS), *each("B")],
        lambda t, a: same(oracle.next_qa(t, a.options), a.value),
    ),
    "vstar": (each("ABCD", COLOURS), lambda t, a: same(oracle.vstar(t), a.value)),
    "hr-bench": (
        [*each("ABCD", COLOURS), *each("BE", OPTIONS), *each("C")],
        lambda t, a: same(oracle.hr_bench(t, a.options), a.value),
    ),
    "geometry3k": (
        [*each("ABCD", COLOURS), *each("BE", OPTIONS), *each("C")],
        lambda t, a: same(oracle.geometry3k(t, a.options), a.value),
    ),
}

PIECES = texts_of(
    r"""A|B|C|D|E|a|b|c|d|Z|(|)|[|]|{|}|.|,|:|;|!|?|'|"|-|+|=|/|\|_|<|>|@|`| | | |\n|\t|\0|3|1.5|0|,000|-2|nan|inf|²|٣
one|two|hundred|thousand|and|yes|no|true|false|The|answer|Answer|is|option|choice|correct|best|my|i pick|(A)|(B)|C.|D)
red|cube|blue ball|red cube|dog|ing|Caption |Caption B|: |a dog sits|İ|ſ|K|答案是|정답은|none|A, C"""
)
PIECES += ["\ud800", "\u2003", "\x1c"]


def soup(rng: random.Random) -> str:
    return "".join(rng.choice(PIECES) + rng.choice(("", "", " ")) for _ in range(rng.randrange(14)))


def differences(profile: str, texts: Sequence[str]) -> list[tuple[str, object, float, float]]:
    answers, score = PARITY[profile]
    got = [(t, a, verify(t, a, f"official:{profile}").score, score(t, a)) for t in texts for a in answers]
    return [one for one in got if one[2] != one[3]]


def test_every_official_profile_has_a_parity_test_or_one_of_its_own() -> None:
    assert {f"official:{name}" for name in [*PARITY, "clevrer-option"]} == set(OFFICIAL_PROFILES)


@pytest.mark.parametrize("profile", PARITY)
def test_an_official_profile_equals_the_published_definition(profile: str) -> None:
    rng = random.Random(profile)
    texts = TEXTS + [f"<answer>{t}</answer>" for t in TEXTS] * (profile == "super-clevr")
    assert not differences(profile, texts + [soup(rng) for _ in range(400)])
    paid = {verify(t, a, f"official:{profile}").score > 0 for t in texts for a in PARITY[profile][0]}
    assert paid == {True, False}  # a parity of zeros would prove nothing


@pytest.mark.slow
@pytest.mark.parametrize("profile", PARITY)
def test_an_official_profile_equals_the_published_definition_on_many_texts(profile: str) -> None:
    rng = random.Random(profile + "many")
    assert not differences(profile, [soup(rng) for _ in range(10_000)])


@pytest.mark.parametrize(
    ("profile", "answer", "text", "score"),
    [
        ("vsi-bench", Answer("number", 1.0), "1.5", 0.1),  # half off: the code's <= pays, the paper's < does not
        ("vsi-bench", Answer("number", 1.0), "1.05", 1.0),
        ("vsi-bench", Answer("number", 1.0), "1.1", 0.9),
        ("vsi-bench", Answer("choice", "C"), "C or D", 1.0),
        ("vsi-bench", Answer("choice", "C"), "(C)", 0.0),
        ("vsi-bench", Answer("number", 3.0), "three", 0.0),
        ("vsi-bench-lmms", Answer("number", 3.0), "three", 1.0),
        ("cv-bench", Answer("choice", "C"), "Answer: C", 0.0),
        ("cv-bench", Answer("choice", "B"), "Based on the picture, D", 1.0),
        ("tempcompass", Answer("yesno", False), "not sure", 1.0),
        ("next-qa", Answer("choice", "C"), "who knows", 0.0),
        ("hr-bench", Answer("choice", "A"), "A or B", 0.0),
    ],
)
def test_official_profiles_keep_the_faults_they_are_known_for(
    profile: str, answer: Answer, text: str, score: float
) -> None:
    assert verify(text, answer, f"official:{profile}").score == pytest.approx(score, abs=1e-12)


def test_clevrer_scores_a_question_by_the_whole_set_and_its_options_by_their_share() -> None:
    answer = Answer("set", {"A", "C"}, options=tuple("ABCD"))
    for text, named in (("A, C", {"A", "C"}), ("A", {"A"}), ("A, B, C, D", set("ABCD")), ("none", set())):
        whole = verify(text, answer, "official:clevrer").score
        assert whole == float(named == answer.value)
        share = verify(text, answer, "official:clevrer-option").score
        assert share == oracle.clevrer_options(named, answer.value, answer.options)
    assert verify("", answer, "official:clevrer-option").status is Status.UNPARSABLE
    with pytest.raises(UsageError, match="options="):
        verify("A", Answer("set", {"A"}), "official:clevrer-option")


@pytest.mark.parametrize(
    "completion",
    [
        "B",
        "<answer>B</answer>",
        "<answer> B </answer><|im_end|>",
        "<think>A or C</think><answer>B</answer>",
        "A it was</think>\nB",
        "<think>A</think>B</s>",
    ],
)
def test_official_profiles_read_the_response_behind_the_thinking(completion: str) -> None:
    assert verify(completion, Answer("choice", "B"), "official:perception-test").score == 1.0


def test_where_published_code_asks_a_judge_draws_or_crashes_there_is_no_answer() -> None:
    for profile, answer, text in [
        ("tempcompass", Answer("choice", "A", options=COLOURS), "it could be A"),
        ("tempcompass", Answer("yesno", True), "perhaps"),
        ("next-qa", Answer("choice", "A", options=COLOURS), "no idea"),
        ("hr-bench", Answer("choice", "A", options=COLOURS), "A or B"),
        ("vsi-bench", Answer("number", 0.0), "0"),
        ("vsi-bench-lmms", Answer("number", 3.0), "hundred " * 400),
        ("super-clevr", Answer("integer", 3), f"<answer>{'3' * 5000}</answer>"),
    ]:
        verdict = verify(text, answer, f"official:{profile}")
        assert (verdict.score, verdict.status) == (0.0, Status.UNPARSABLE), profile


def test_official_profiles_take_only_what_their_benchmark_asks_and_the_rubric_takes_none() -> None:
    with pytest.raises(UsageError, match="official:cv-bench scores choice, not box"):
        verify("x", Answer("box", (0, 0, 1, 1)), "official:cv-bench")
    with pytest.raises(UsageError, match="official:vsi-bench"):
        verify("x", Answer("choice", "A"), "official:vsi")
    with pytest.raises(UsageError, match="profile"):
        Rubric(profile="official:cv-bench")


@pytest.mark.parametrize(
    "unit", ["A.", "A. ", " ", "answer ", "answer is ", "hundred ", "1,", "<answer>", ". ", "a\n", "9"]
)
def test_official_profiles_take_linear_time_and_never_raise(unit: str) -> None:
    for size in (4_000, 100_000):
        texts = ["A." + unit * (size // len(unit)) + "x\ny", unit * (size // len(unit))]
        started = time.process_time()
        for name, (answers, _) in PARITY.items():
            for text in texts:
                verify(text, answers[0], f"official:{name}")
                verify(text, answers[-1], f"official:{name}")
        assert time.process_time() - started < 4.0, f"{size} characters of {unit!r}"
