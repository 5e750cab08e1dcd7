"""What must not tell the answer: words alone, one frame alone, the number of things. The probes are shown to see."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from oracles_world import centres, centroid_probe, gold, named

from entropy_vision.data.world import World, tokens
from entropy_vision.question import Item

FAMILIES = World.families(shared=True)
N = 480
_DEALT: dict[tuple[str, int], list[Item]] = {}


def dealt(family: str, seed: int) -> list[Item]:
    """N items without their pixels' cost counting twice."""
    if (family, seed) not in _DEALT:
        world = World(family, seed=seed, size=32, frame_count=8)
        _DEALT[family, seed] = [world[i] for i in range(N)]
    return _DEALT[family, seed]


def chance_limit(classes: int, n: int = N) -> float:
    """Accuracy that a blind guess stays under 99.9 % of the time and more: chance plus 3.7 standard errors."""
    p = 1 / classes
    return p + 3.7 * float(np.sqrt(p * (1 - p) / n))


def label(item: Item) -> str:
    return str(item.answer.value)


def word_probe(train: list[Item], test: list[Item]) -> float:
    """Naive Bayes over the words of the question and the order of its nouns; independent seeds."""
    words = {word for item in train for word in tokens(item.question)}
    counts: dict[str, Counter[str]] = {}
    for item in train:
        counts.setdefault(label(item), Counter()).update(clues(item) & (words | clues(item)))
    totals = Counter(label(item) for item in train)

    def score(item: Item, name: str) -> float:
        return sum(np.log((counts[name][word] + 0.5) / (totals[name] + 1)) for word in clues(item))

    return float(np.mean([max(totals, key=lambda name: score(item, name)) == label(item) for item in test]))


def clues(item: Item) -> set[str]:
    said = tokens(item.question)
    return {*said, *(f"{a} {b}" for a, b in pairwise(said)), f"length {len(said)}"}


@pytest.mark.parametrize("family", FAMILIES)
def test_words_of_the_question_do_not_tell_the_answer(family: str) -> None:
    train, test = dealt(family, 21), dealt(family, 22)
    assert word_probe(train, test) < chance_limit(len({label(item) for item in train}))


def test_word_probe_sees_a_leak_of_one_answer_in_four() -> None:
    items = [dealt("direction", 21), dealt("direction", 22)]
    leaky = []
    for group in items:
        shown = []
        for k, item in enumerate(group):
            question = item.question.replace("?", "." if label(item) == "A" and k % 2 else "?")
            shown.append(
                Item(frames=item.frames, question=question, answer=item.answer, evidence=item.evidence,
                     family=item.family, key=item.key, scene=item.scene)
            )  # fmt: skip
        leaky.append(shown)
    assert word_probe(*leaky) > chance_limit(4)


def one_frame(item: Item, which: str) -> list[float]:
    """Place of the thing asked about in its first, middle or last visible frame; how many things are visible then."""
    boxes = named(item)[0].boxes
    seen = np.flatnonzero(~np.isnan(boxes[:, 0]))
    f = int({"first": seen[0], "middle": seen[len(seen) // 2], "last": seen[-1]}[which])
    x, y = centres(named(item)[0])[f].tolist()
    width, height = (boxes[f, 2:] - boxes[f, :2]).tolist()
    visible = sum(not np.isnan(thing.boxes[f, 0]) for thing in item.objects)
    waves = [np.cos(2 * np.pi * x), np.sin(2 * np.pi * x), np.cos(2 * np.pi * y), np.sin(2 * np.pi * y)]
    return [x, y, *waves, width, height, visible / 4, len(item.objects) / 4, f / 8]


@pytest.mark.parametrize("which", ["first", "middle", "last"])
@pytest.mark.parametrize("family", ["direction", "moved"])
def test_one_frame_does_not_tell_the_motion(family: str, which: str) -> None:
    train, test = dealt(family, 21), dealt(family, 22)
    accuracy = centroid_probe(
        np.array([one_frame(item, which) for item in train]),
        [label(item) for item in train],
        np.array([one_frame(item, which) for item in test]),
        [label(item) for item in test],
    )
    assert accuracy < chance_limit(len({label(item) for item in train}))


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_nothing_tells_the_answer_on_many_items(family: str) -> None:
    n = 10_000
    worlds = [World(family, seed=seed, size=32, frame_count=8) for seed in (41, 42)]
    train, test = ([world[i] for i in range(n)] for world in worlds)
    labels, truth = [label(item) for item in train], [label(item) for item in test]
    found = {"words": word_probe(train, test)}
    for which in ("first", "middle", "last") if family in ("direction", "moved") else ():
        views = [np.array([one_frame(item, which) for item in group]) for group in (train, test)]
        found[which] = centroid_probe(views[0], labels, views[1], truth)
    limit = chance_limit(len(set(labels)), n)
    print(f"\n{family}: chance {1 / len(set(labels)):.3f}, limit {limit:.3f},", found)
    assert max(found.values()) < limit


def test_probe_sees_the_direction_from_two_frames() -> None:
    def two(item: Item) -> list[float]:
        boxes = named(item)[0].boxes
        seen = np.flatnonzero(~np.isnan(boxes[:, 0]))
        way = centres(named(item)[0])[seen[[0, -1]]]
        return [*np.sin(2 * np.pi * (way[1] - way[0])).tolist()]

    train, test = dealt("direction", 21), dealt("direction", 22)
    labels = [label(item) for item in train]
    accuracy = centroid_probe(np.array([*map(two, train)]), labels, np.array([*map(two, test)]), [*map(label, test)])
    assert accuracy > 0.9


@pytest.mark.parametrize("family", FAMILIES)
def test_number_of_things_and_place_in_the_deck_do_not_tell_the_answer(family: str) -> None:
    train, test = dealt(family, 21), dealt(family, 22)

    def look(k: int, item: Item) -> list[float]:
        groups = Counter(thing.shape for thing in item.objects)
        return [len(item.objects) / 4, k % 2, (k % 4) / 4, (k // 4 % 4) / 4, max(groups.values()) / 4]

    accuracy = centroid_probe(
        np.array([look(k, item) for k, item in enumerate(train)]),
        [label(item) for item in train],
        np.array([look(k, item) for k, item in enumerate(test)]),
        [label(item) for item in test],
    )
    assert accuracy < chance_limit(len({label(item) for item in train}))


@pytest.mark.parametrize("family", FAMILIES)
def test_number_of_things_is_as_large_for_every_answer(family: str) -> None:
    items = dealt(family, 21) + dealt(family, 22)
    numbers = np.array([len(item.objects) for item in items])
    for answer in {label(item) for item in items}:
        own = numbers[[label(item) == answer for item in items]]
        assert abs(own.mean() - numbers.mean()) < 4 * numbers.std() / np.sqrt(len(own)), answer


def test_things_appear_within_the_first_half_and_the_named_ones_never_at_once() -> None:
    for item in dealt("appearance", 21)[:200]:
        first, second = (int(np.flatnonzero(~np.isnan(thing.boxes[:, 0]))[0]) for thing in named(item))
        assert first != second and min(first, second) >= 1 and max(first, second) <= 4
        assert gold(item) in item.question
