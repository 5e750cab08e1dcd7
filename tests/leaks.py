"""What a blind model could learn about the World's answers: probes, the limits they are held against, the gates.

A probe is trained on decks of some seeds and tested on decks of others. Its accuracy is held against what the same
guesses reach when the true answers are dealt anew among the tested items (the permutation null), at a level shared out
over all gates and families (Bonferroni). Neither k-fold nor nominal chance would do: in a deck that is exactly balanced
the answers held out are those that the training part lacks, so that a blind probe under k-fold falls below chance and
hides a leak; and chance itself is passed by every second blind probe, by more than any fixed margin in small decks.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import lru_cache
from itertools import pairwise
from statistics import NormalDist

import numpy as np
from leak_views import OPPOSITES, Look, moments, places

from entropy_vision.data.world import tokens

LETTERS = "ABCDEFGHIJ"
FEW = 12  # answers that are classes by themselves; more are put into quarters
PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)


@dataclass(frozen=True)
class Found:
    """How often a probe was right, and how often a blind one may be."""

    value: float
    limit: float

    @property
    def leak(self) -> bool:
        """Whether the view tells something."""
        return self.value > self.limit


class Coder:
    """Classes for the answers of a family, fitted on the items a probe is trained on.

    A choice is coded by the text of its answer where there are few such texts, else by its letter; guesses are made
    among the item's own options. Open answers: few values are classes; more are put into quarters by size or alphabet;
    orderings are permutations of the order of mention, points and boxes one of nine cells of the frame.
    """

    def __init__(self, train: Sequence[Look]) -> None:
        self.choice = train[0].answer.kind == "choice"
        texts = {_option(look) for look in train} if self.choice else set()
        self.by_text = 0 < len(texts) <= FEW
        values = sorted(_value(look) for look in train) if not self.choice else []
        self.edges = [values[len(values) * k // 4] for k in (1, 2, 3)] if len(set(values)) > FEW else []
        if train[0].answer.kind == "ordering":
            self.edges = []
        self.classes = sorted({self.code(look) for look in train})

    def code(self, look: Look) -> str:
        """The class of an answer."""
        if self.choice:
            return _option(look) if self.by_text else str(look.answer.value)
        value = _value(look)
        return str(sum(value >= edge for edge in self.edges)) if self.edges else str(value)

    def truth(self, look: Look) -> str:
        """What a guess is compared with."""
        return str(look.answer.value) if self.choice else self.code(look)

    def guess(self, look: Look, scores: Mapping[str, float]) -> str:
        """The best class; of a choice the letter of the best of its options."""
        if not self.choice:
            return max(scores, key=scores.__getitem__)
        letters = LETTERS[: len(look.answer.options)]
        names = look.answer.options if self.by_text else letters
        return max(zip(letters, names, strict=True), key=lambda pair: scores.get(pair[1], -math.inf))[0]

    @staticmethod
    def stratum(look: Look) -> int:
        """Answers are dealt anew only among questions with as many options, or things to order."""
        return len(look.answer.value) if look.answer.kind == "ordering" else len(look.answer.options)


def _option(look: Look) -> str:
    return look.answer.options[LETTERS.index(look.answer.value)]


def _value(look: Look) -> float | str:
    """An open answer as something that can be sorted."""
    kind, value = look.answer.kind, look.answer.value
    if kind in ("integer", "number", "yesno"):
        return float(value)
    if kind == "ordering":
        said = sorted(value, key=look.question.find)
        return " ".join(str(said.index(name)) for name in value)
    if kind in ("point", "box"):
        x, y = ((value[0] + value[2]) / 2, (value[1] + value[3]) / 2) if kind == "box" else value
        return 3.0 * min(2, int(3 * y)) + min(2, int(3 * x))
    if kind == "interval":
        return (value[0] + value[1]) / 2
    if kind == "boxes":
        return float(len(value))
    return " ".join(sorted(value)) if kind == "set" else str(value)


# --- limits ------------------------------------------------------------------------------------------------------


def permutation_limit(guesses: Sequence[str], truths: Sequence[str], strata: Sequence[int], alpha: float) -> float:
    """Accuracy that these guesses pass with chance `alpha` at most when the truths are dealt anew within strata.

    The mean of that accuracy is exact; its spread is taken from the binomial distribution, which is never narrower
    (Cauchy and Schwarz on the variance of Hoeffding, "A combinatorial central limit theorem", 1951) and, other than
    draws of permutations, reaches as far into the tail as many gates and families ask.
    """
    expected = 0.0
    for stratum in set(strata):
        within = [k for k, s in enumerate(strata) if s == stratum]
        guessed, true = Counter(guesses[k] for k in within), Counter(truths[k] for k in within)
        expected += sum(guessed[name] * true[name] for name in guessed) / len(within)
    return binomial_limit(expected / len(truths), len(truths), alpha)


def binomial_limit(p: float, n: int, alpha: float) -> float:
    """The least share of n that independent trials of chance p pass with chance `alpha` at most."""
    if p <= 0 or p >= 1:
        return p
    k = np.arange(n + 1)
    logs = np.array([math.lgamma(n + 1) - math.lgamma(j + 1) - math.lgamma(n - j + 1) for j in range(n + 1)])
    logs += k * math.log(p) + (n - k) * math.log1p(-p)
    above = np.cumsum(np.exp(logs)[::-1])[::-1] - np.exp(logs)  # chance of more than k
    return float(np.argmax(above <= alpha)) / n


# --- probes ------------------------------------------------------------------------------------------------------


def ridge(x: np.ndarray, y: np.ndarray, held: np.ndarray) -> np.ndarray:
    """Scores of held rows [m, classes] by ridge regression on one-hot y [n, classes]; missing cells are the mean.

    The penalty is that of `PENALTIES` which errs least on the last third of the rows.
    """
    mean = np.nansum(x, axis=0) / np.maximum(1, (~np.isnan(x)).sum(axis=0))
    x, held = (np.where(np.isnan(part), 0, part - mean).astype(np.float32) for part in (x, held))
    spread = x.std(axis=0)
    spread[spread < 1e-4 * (1 + np.abs(mean))] = np.inf  # always the same
    x, held = (np.clip(part / spread, -8, 8) / math.sqrt(x.shape[1]) for part in (x, held))
    part = 2 * len(x) // 3
    tried = _fits(x[:part], y[:part], x[part:], PENALTIES)
    errors = [float(((scores - y[part:]) ** 2).sum()) for scores in tried]
    return _fits(x, y, held, [PENALTIES[int(np.argmin(errors))]])[0]


def _fits(x: np.ndarray, y: np.ndarray, held: np.ndarray, penalties: Sequence[float]) -> list[np.ndarray]:
    """Scores of held rows for each penalty, by the smaller of the two equal systems."""
    n, d = x.shape
    middle = y.mean(axis=0)
    if n < d:
        known, asked, aim = x @ x.T, held @ x.T, y - middle
    else:
        known, asked, aim = x.T @ x, held, x.T @ (y - middle)
    ridges = (known.astype(float) + penalty * n * np.eye(len(known)) for penalty in penalties)
    return [middle + asked @ np.linalg.solve(system, aim) for system in ridges]


def lift(x: np.ndarray, held: np.ndarray, products: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Features and their squares around the mean of x, or all their products.

    Squares, because a straight line cannot tell the middle one of three.
    """
    if products:
        left, right = np.triu_indices(x.shape[1])
        x, held = (np.hstack([part, part[:, left] * part[:, right]]) for part in (x, held))
        return x, held
    mean = np.nansum(x, axis=0) / np.maximum(1, (~np.isnan(x)).sum(axis=0))
    return np.hstack([x, (x - mean) ** 2]), np.hstack([held, (held - mean) ** 2])


def clues(question: str) -> set[str]:
    """Words, pairs of words and the length of a question."""
    said = tokens(question)
    return {*said, *(f"{a} {b}" for a, b in pairwise(said)), f"length {len(said)}"}


def bayes(train: Sequence[set[str]], y: np.ndarray, test: Sequence[set[str]]) -> np.ndarray:
    """Scores of test sets [m, classes] by naive Bayes over what is in each set; y one-hot [n, classes]."""
    index: dict[str, int] = {}
    for clue_set in train:
        for clue in clue_set:
            index.setdefault(clue, len(index))

    def matrix(sets: Sequence[set[str]]) -> np.ndarray:
        filled = np.zeros((len(sets), len(index)), np.float32)
        for row, clue_set in zip(filled, sets, strict=True):
            row[[index[clue] for clue in clue_set if clue in index]] = 1
        return filled

    counts, totals = matrix(train).T @ y.astype(np.float32), y.sum(axis=0)
    return matrix(test) @ np.log((counts + 0.5) / (totals + 1)) + np.log(totals)


def filled(x: np.ndarray) -> np.ndarray:
    """Rows [n, d] in which every missing cell holds what the first row from half a deck on has there, if one has it.

    With the mean in its place a cell greyed out has no spread, its square tells where the mask lies, and a probe that
    sees the mask reads off what the mask was made for.
    """
    donors = np.roll(x, -(len(x) // 2), axis=0)
    rows = np.where(np.isnan(donors), 2 * len(x), np.arange(len(x))[:, None])
    following = np.minimum.accumulate(np.vstack([rows, rows + len(x)])[::-1])[::-1][: len(x)] % len(x)
    return np.where(np.isnan(x), np.take_along_axis(donors, following, axis=0), x)


def one_hot(coder: Coder, looks: Sequence[Look]) -> np.ndarray:
    """float64 [n, classes]."""
    return np.array([[coder.code(look) == name for name in coder.classes] for look in looks], float)


def judged(coder: Coder, test: Sequence[Look], scores: np.ndarray, alpha: float) -> Found:
    """Accuracy of the guesses that scores [m, classes] lead to, and its limit."""
    guesses = [
        coder.guess(look, dict(zip(coder.classes, row, strict=True)))
        for look, row in zip(test, scores.tolist(), strict=True)
    ]
    truths = [coder.truth(look) for look in test]
    right = sum(guess == truth for guess, truth in zip(guesses, truths, strict=True))
    return Found(right / len(test), permutation_limit(guesses, truths, [coder.stratum(look) for look in test], alpha))


# --- gates: trained on one deck, tested on another; None where a family has no such view -------------------------

Gate = Callable[[Sequence[Look], Sequence[Look], float], Found | None]


def text(train: Sequence[Look], test: Sequence[Look], alpha: float) -> Found:
    """The words of the question alone."""
    coder = Coder(train)
    said, held = ([clues(look.question) for look in looks] for looks in (train, test))
    return judged(coder, test, bayes(said, one_hot(coder, train), held), alpha)


def told_per_string(train: Sequence[Look], test: Sequence[Look], alpha: float) -> Found:
    """Total variation distance between the answers of a question string and all answers, averaged over items.

    Strings that come less than eight times are taken together with those that differ in the names of things only. The
    limit is the mean of 200 permutations plus a normal quantile of their spread: the average of many strings is close
    to normal, and its tail is out of reach of permutations.
    """
    looks = [*train, *test]
    coder = Coder(looks)
    times = Counter(look.question for look in looks)
    keys = [look.question if times[look.question] >= 8 else _nameless(look) for look in looks]
    number = {key: k for k, key in enumerate(sorted(set(keys)))}
    groups = np.array([number[key] for key in keys])
    names = sorted({coder.truth(look) for look in looks})
    answers = np.array([names.index(coder.truth(look)) for look in looks])
    strata = np.array([coder.stratum(look) for look in looks])

    def distance(answers: np.ndarray) -> float:
        table = np.zeros((groups.max() + 1, len(names)))
        np.add.at(table, (groups, answers), 1)
        apart = np.abs(table - table.sum(axis=1, keepdims=True) * (table.sum(axis=0) / len(answers)))
        return float(apart.sum() / 2 / len(answers))

    rng = np.random.default_rng(0)
    null = []
    for _ in range(200):
        dealt = answers.copy()
        for stratum in np.unique(strata):
            dealt[strata == stratum] = rng.permutation(answers[strata == stratum])
        null.append(distance(dealt))
    return Found(distance(answers), float(np.mean(null) + NormalDist().inv_cdf(1 - alpha) * np.std(null)))


def _nameless(look: Look) -> str:
    names = {word for thing in look.objects for word in (thing.color, thing.shape)}
    return " ".join("_" if word in names else word for word in tokens(look.question))


def options(train: Sequence[Look], test: Sequence[Look], alpha: float) -> Found | None:
    """The options alone: place, length, likeness to the others, words. Every option is scored, the best is the guess.

    The null deals the options of every item anew, so that a letter that is right too often is a leak as well.
    """
    if train[0].answer.kind != "choice":
        return None
    words = sorted({word for look in train for option in look.answer.options for word in tokens(option)})

    def features(looks: Sequence[Look]) -> np.ndarray:
        return np.concatenate([option_features(look.answer.options, tuple(words)) for look in looks])

    letters = [LETTERS[: len(look.answer.options)] for look in train]
    right = [[letter == look.answer.value] for look, own in zip(train, letters, strict=True) for letter in own]
    scores = ridge(features(train), np.array(right, float), features(test))[:, 0]
    ends = np.cumsum([len(look.answer.options) for look in test])
    best = [LETTERS[int(part.argmax())] for part in np.split(scores, ends[:-1])]
    hits = sum(letter == look.answer.value for letter, look in zip(best, test, strict=True))
    blind = float(np.mean([1 / len(look.answer.options) for look in test]))
    return Found(hits / len(test), binomial_limit(blind, len(test), alpha))


@lru_cache(maxsize=4096)
def option_features(texts: tuple[str, ...], words: tuple[str, ...]) -> np.ndarray:
    """float64 [options, 16 + words]: place, length beside the others', likeness to the others, words."""
    n = len(texts)
    lengths = np.array([len(text) for text in texts], float)
    like = np.array([[SequenceMatcher(None, a, b).ratio() for b in texts] for a in texts])
    near = (like.sum(axis=1) - 1) / max(1, n - 1)
    told = [lengths == lengths.max(), lengths == lengths.min(), lengths == np.sort(lengths)[n // 2],
            near == near.max(), near == near.min(), near - near.mean()]  # fmt: skip
    said = [[word in tokens(text) for word in words] for text in texts]
    return np.hstack([np.eye(len(LETTERS))[:n], np.array(told, float).T, np.array(said, float)])


def view(name: str, products: bool = False) -> Gate:
    """The gate of one view: its features, and their products, under a ridge classifier."""

    def gate(train: Sequence[Look], test: Sequence[Look], alpha: float) -> Found | None:
        if name not in train[0].views:
            return None
        x, held = (filled(np.stack([look.views[name] for look in looks])) for looks in (train, test))
        x, held = lift(x, held, products)
        coder = Coder(train)
        return judged(coder, test, ridge(x, one_hot(coder, train), held), alpha)

    return gate


def shuffled(train: Sequence[Look], test: Sequence[Look], alpha: float) -> Found | None:
    """The frames without their order: which of two opposite answers it is, for families where order alone tells."""
    pairs = OPPOSITES.get(train[0].family, ())
    guesses: list[str] = []
    truths: list[str] = []
    strata: list[int] = []
    for k, pair in enumerate(pairs):
        own, held = ([look for look in looks if _option(look) in pair] for looks in (train, test))
        x, h = (np.stack([look.views["shuffled"] for look in looks]) for looks in (own, held))
        x, h = lift(x, h)
        y = np.array([[_option(look) == name for name in pair] for look in own], float)
        guesses += [pair[k] for k in ridge(x, y, h).argmax(axis=1)]
        truths += [_option(look) for look in held]
        strata += [k] * len(held)
    if not pairs:
        return None
    right = sum(guess == truth for guess, truth in zip(guesses, truths, strict=True))
    return Found(right / len(truths), permutation_limit(guesses, truths, strata, alpha))


def wrong_video(train: Sequence[Look], test: Sequence[Look], alpha: float) -> Found:
    """The question beside the frames of the item half a deck away: what it names is looked up there."""

    def features(looks: Sequence[Look]) -> tuple[np.ndarray, np.ndarray]:
        others = [looks[(k + len(looks) // 2) % len(looks)] for k in range(len(looks))]
        rows = []
        for look, other in zip(looks, others, strict=True):
            count = len(other.objects[0].boxes) if other.objects else 1
            first, _, last = moments(look.question, other.objects, count)
            rows.append(np.concatenate([places(look.question, other.objects, f) for f in (first, last)]))
        return np.stack(rows), np.stack([other.views["ends"] for other in others])

    (spots, pixels), (held_spots, held_pixels) = features(train), features(test)
    spots, held_spots = lift(spots, held_spots, products=True)
    coder = Coder(train)
    scores = ridge(np.hstack([spots, pixels]), one_hot(coder, train), np.hstack([held_spots, held_pixels]))
    return judged(coder, test, scores, alpha)


GATES: dict[str, Gate] = {
    "text": text,
    "text per string": told_per_string,
    "options": options,
    **{f"{which} {what}": view(f"{which} {what}", products=what == "places")
       for what in ("pixels", "places") for which in ("first", "middle", "last")},
    "shuffled": shuffled,
    "background": view("background"),
    "wrong video": wrong_video,
    "metadata": view("metadata"),
    "things": view("things", products=True),
    "grey pixels": view("grey pixels"),
    "grey places": view("grey places", products=True),
}  # fmt: skip

# where a view may tell the answer: that is seeing, not a leak
MEANINGLESS: dict[tuple[str, str], str] = {
    ("things", "count"): "where three things share a colour, of different shapes, three is asked for more often",
    **{("oracle", family): "the oracle finds its way by comparing with things that are not evidence"
       for family in ("change", "change_where", "identity")},
    **{(f"{which} {what}", "static_answer"): "the plate is the same in every frame: one is enough"
       for which in ("first", "middle", "last") for what in ("pixels", "places")},
    **{(f"{which} places", family): "while one thing named is there, the other one is not yet"
       for family in ("appearance", "appear_order") for which in ("first", "middle")},
    **{(f"{which} places", "last_left"): "while one thing named is still there, the other one is not any more"
       for which in ("middle", "last")},
}  # fmt: skip


def gates_of(family: str) -> dict[str, Gate]:
    """The gates that mean something for a family."""
    return {name: gate for name, gate in GATES.items() if (name, family) not in MEANINGLESS}


def leaking(results: Mapping[str, Found]) -> dict[str, Found]:
    """The results over their limits."""
    return {name: result for name, result in results.items() if result.leak}
