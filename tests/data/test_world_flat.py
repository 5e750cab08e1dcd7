"""The World's families on flat things, all splits of theirs, and twins."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np
import pytest
from oracles_world_flat import READ, answer_text, seen, text_from_rationale

from entropy_vision.data.world import World, tokens, vocabulary
from entropy_vision.data.world.discs import run
from entropy_vision.data.world.families import FAMILIES, HAVE_TWINS, SHARED, STAGED
from entropy_vision.data.world.splits import IID, SPLITS, forms
from entropy_vision.data.world.words import COLORS, SHAPES
from entropy_vision.errors import UsageError
from entropy_vision.question import Item
from entropy_vision.rl import verify

OWN = tuple(READ)  # the families of this file; those of shared layouts have their own tests and are in for the splits
SMALL = {"size": 32, "frame_count": 8}
HELD = SPLITS[len(IID) :]
DEALT = [(name, split) for name in (*SHARED, *OWN) for split in (*IID[:2], *FAMILIES[name].splits)]


def score(text: str, item: Item) -> float:
    """Of a text in the form that the trainer reads."""
    return verify(f"<think>{item.rationale}</think><answer>{text}</answer>", item.answer).score


def check(item: Item) -> None:
    assert score(answer_text(item), item) == 1.0, (item.key, item.question, item.answer, answer_text(item))
    if item.family in OWN:
        told = text_from_rationale(item)
        # hundredths are coarse for a ratio: four of its five tenths
        assert score(told, item) >= (0.8 if item.answer.kind == "number" else 1.0), (item.key, item.rationale, told)


@pytest.mark.parametrize(("family", "split"), DEALT)
def test_text_of_the_oracle_earns_the_full_score(family: str, split: str) -> None:
    for difficulty, frame_count in ((0.0, 8), (0.5, 16), (1.0, 5)):
        world = World(family, split, difficulty=difficulty, seed=3, size=32, frame_count=frame_count)
        for i in range(3):
            check(world[i])


@pytest.mark.slow
@pytest.mark.parametrize(("family", "split"), DEALT)
def test_text_of_the_oracle_earns_the_full_score_on_many_items(family: str, split: str) -> None:
    for difficulty in (0.0, 0.25, 0.5, 0.75, 1.0):
        world = World(family, split, difficulty=difficulty, seed=31, size=32, frame_count=16)
        for i in range(200):
            check(world[i])


@pytest.mark.parametrize("family", OWN)
def test_every_target_comes_once_a_round(family: str) -> None:
    n = len(STAGED[family].targets)
    assert n == len(set(STAGED[family].targets))
    world = World(family, seed=6, **SMALL)
    dealt = [world._plan(i)[1][0][1] for i in range(2 * n)]
    assert sorted(dealt[:n]) == sorted(dealt[n:]) == list(range(n)) and (n == 2 or dealt[:n] != dealt[n:])


@pytest.mark.parametrize("family", OWN)
def test_family_has_paraphrases_and_known_words(family: str) -> None:
    words = set(vocabulary([family]))
    own = STAGED[family]
    assert len(set(own.templates)) >= 3 and own.held_out not in own.templates
    for split in ("train", "template"):
        for difficulty in (0.0, 1.0):
            world = World(family, split, difficulty=difficulty, **SMALL)
            for i in range(30):
                item = world[i]
                spoken = item.answer.value if isinstance(item.answer.value, list) else [str(item.answer.value)]
                said = [item.question, item.rationale, *spoken, *item.answer.options]
                used = {token for text in said for token in tokens(text)}
                assert used <= words, used - words


@pytest.mark.parametrize("family", [*SHARED, *OWN])
def test_only_the_template_split_says_the_held_out_paraphrase(family: str) -> None:
    held = re.compile(re.sub(r"\\{[abc]\\}", ".+", re.escape(FAMILIES[family].held_out)))
    plain = [World(family, "train", **SMALL)[i].question for i in range(12)]
    assert not any(held.fullmatch(question) for question in plain)
    assert all(held.fullmatch(World(family, "template", **SMALL)[i].question) for i in range(6))


def test_held_out_paraphrases_of_shared_families_use_words_of_the_others() -> None:
    blank = {"a": "", "b": "", "c": ""}
    others = {word for f in SHARED.values() for template in f.templates for word in tokens(template.format(**blank))}
    for family in SHARED.values():
        assert set(tokens(family.held_out.format(**blank))) <= others, family.name


@pytest.mark.parametrize("family", [name for name in (*SHARED, *OWN) if "cogent_a" in FAMILIES[name].splits])
def test_conditions_a_and_b_share_no_pair_of_colour_and_shape(family: str) -> None:
    pairs = {
        split: {(o.color, o.shape) for i in range(60) for o in World(family, split, difficulty=1.0, **SMALL)[i].objects}
        for split in ("cogent_a", "cogent_b")
    }
    a, b = pairs["cogent_a"], pairs["cogent_b"]
    assert a and b and not a & b
    assert {color for color, _ in b} == {color for color, _ in a} == set(COLORS)
    assert {shape for _, shape in b} == {shape for _, shape in a} == set(SHAPES)


def test_pairs_of_the_conditions_are_a_latin_square() -> None:
    a, b = ({(c, s) for c in COLORS for s in forms(c, f"cogent_{x}", SHAPES)} for x in "ab")
    assert not a & b and len(a | b) == len(COLORS) * len(SHAPES)
    for color in COLORS:
        assert sum(c == color for c, _ in a) == 3
    for shape in SHAPES:  # of the first five colours, which are the rows of the square
        assert sum(s == shape and c in COLORS[:5] for c, s in a) == 3


@pytest.mark.parametrize("family", [*SHARED, *OWN])
def test_more_is_beyond_what_training_has(family: str) -> None:
    def most(split: str, what: str) -> int:
        items = [World(family, split, difficulty=1.0, **SMALL)[i] for i in range(40)]
        return max(len(item.objects) if what == "things" else item.frames.count for item in items)

    assert most("more", "frames") > most("train", "frames") or most("more", "things") > most("train", "things")


@pytest.mark.parametrize("family", ["count", "direction", "order", "collisions"])
def test_background_split_shows_stripes_that_training_never_has(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kinds: list[str] = []
    from entropy_vision.data.world import draw

    for name in ("_gradient", "_octaves", "_checker", "_stripes"):
        real = getattr(draw, name)
        monkeypatch.setattr(draw, name, lambda *a, real=real, name=name: (kinds.append(name), real(*a))[1])
    for i in range(12):
        World(family, "background", **SMALL)[i]
    assert set(kinds) == {"_stripes"} and len(kinds) == 12
    kinds.clear()
    for i in range(24):
        World(family, "train", **SMALL)[i]
    assert set(kinds) == {"_gradient", "_octaves", "_checker"}


def test_chains_are_one_or_two_deep_and_three_only_in_deeper() -> None:
    def depths(split: str, difficulty: float) -> Counter[int]:
        world = World("chain", split, difficulty=difficulty, **SMALL)
        return Counter(world[i].meta["depth"] for i in range(40))

    assert set(depths("train", 0.0)) == {1} and set(depths("train", 1.0)) == {2}
    assert set(depths("val", 0.5)) == {1, 2} and set(depths("deeper", 0.5)) == {3}


@pytest.mark.parametrize(
    ("family", "split", "mend"),
    [
        ("count", "cogent_a", "count; choose a family of: relation"),
        ("collisions", "cogent_b", "relation"),
        ("distance", "deeper", "chain"),
        ("image", "cogent_a", "count"),
        ("video", "deeper", "direction, appearance, moved"),
        (None, "cogent_b", "count"),
    ],
)
def test_split_that_means_nothing_is_named_with_the_families_that_have_it(family: str, split: str, mend: str) -> None:
    with pytest.raises(UsageError, match=mend):
        World(family, split)


def test_mixed_worlds_have_the_splits_of_all_their_families() -> None:
    for split in ("template", "more", "background"):
        for family in ("image", "video", None):
            check(World(family, split, **SMALL).scene(1)[0])
    check(World("video", "cogent_b", **SMALL).scene(0)[2])


@pytest.mark.parametrize("family", HAVE_TWINS)
def test_twin_asks_the_same_and_has_another_answer(family: str) -> None:
    for difficulty in (0.0, 1.0):
        world = World(family, difficulty=difficulty, seed=2, **SMALL)
        for i in range(12):
            item, twin = world[i], world.twin(i)
            assert twin.question == item.question and twin.answer.options == item.answer.options
            assert twin.answer.value != item.answer.value and twin.key == f"{item.key}-twin"
            if family in (*SHARED, *OWN):
                assert len(twin.objects) == len(item.objects)
                check(twin)


@pytest.mark.parametrize("family", OWN)
def test_twin_differs_nowhere_but_where_things_are(family: str) -> None:
    world = World(family, seed=5, size=64, frame_count=8)
    alike = []
    for i in range(6):
        item, twin = world[i], world.twin(i)
        free = np.ones(item.frames.pixels.shape[:3], bool)
        for thing in (*item.objects, *twin.objects):
            for f in seen(thing):
                x0, y0, x1, y1 = (thing.boxes[f] * 64).tolist()
                if thing.boxes[f].min() <= 0 or thing.boxes[f].max() >= 1:
                    free[f] = False  # cut: the rest of it is elsewhere
                free[f, max(0, int(y0) - 2) : int(y1) + 3, max(0, int(x0) - 2) : int(x1) + 3] = False
        if free.any():
            alike.append((item.frames.pixels[free] == twin.frames.pixels[free]).mean())
    # the ground is chosen by how well the things' own colours stand out; only of a chain does the twin change one
    assert np.mean(alike) > (0.5 if family == "chain" else 0.999), alike


@pytest.mark.parametrize("family", ["count", "moved", "image", None])
def test_family_without_twins_says_so(family: str | None) -> None:
    with pytest.raises(UsageError, match="no twins; these families have"):
        World(family, **SMALL).twin(0)


def test_twin_of_collisions_is_a_near_miss_of_one_pair() -> None:
    world = World("collisions", seed=4, **SMALL)
    for i in range(12):
        item, twin = world[i], world.twin(i)
        assert abs(item.answer.value - twin.answer.value) == 1
        other = [k for k, (a, b) in enumerate(zip(item.objects, twin.objects, strict=True))
                 if not np.array_equal(a.boxes, b.boxes)]  # fmt: skip
        assert len(other) == 2 and other[1] == other[0] + 1 and other[0] % 2 == 0
        gaps = sorted(meeting[3] for meeting in item.meta["meetings"])
        hits = int(item.answer.value)
        assert all(abs(gap) < 1e-9 for gap in gaps[:hits]) and all(gap > 0.02 for gap in gaps[hits:])


def test_collisions_are_those_of_a_simulation_in_small_steps() -> None:
    rng = np.random.default_rng(0)
    compared = 0
    grid = np.stack(np.meshgrid(np.arange(3), np.arange(3)), axis=-1).reshape(9, 2) / 3
    for _ in range(4):
        places, velocities = grid + rng.uniform(0, 0.1, (9, 2)), rng.normal(0, 0.04, (9, 2))
        found = run(places, velocities, 0.14, 5)
        assert found is not None
        tracks, count = small_steps(places, velocities, 0.14, 5)
        away = found.tracks - tracks
        assert np.abs(away - np.rint(away)).max() < 4e-3 and len(found.contacts) == count
        compared += count
    assert compared >= 6


def small_steps(places: np.ndarray, velocities: np.ndarray, diameter: float, frames: int) -> tuple[np.ndarray, int]:
    """The same by plain loops: move a little, and let what overlaps and comes closer exchange its approach."""
    place, velocity, count, fine = places.copy(), velocities.copy(), 0, 1000
    tracks = np.empty((len(places), frames, 2))
    for step in range((frames - 1) * fine + 1):
        if step % fine == 0:
            tracks[:, step // fine] = place % 1.0
        away = place[:, None] - place[None]
        away -= np.rint(away)
        near = np.argwhere(np.triu((away**2).sum(axis=2) < diameter**2, 1))
        for i, j in near:
            normal = away[i, j] / np.hypot(*away[i, j])
            approach = (velocity[i] - velocity[j]) @ normal
            if approach < 0:
                velocity[i] -= approach * normal
                velocity[j] += approach * normal
                count += 1
        place = place + velocity / fine
    return tracks, count


def test_collisions_keep_momentum_and_energy() -> None:
    found = run(np.array([[0.2, 0.5], [0.6, 0.53]]), np.array([[0.04, 0.0], [-0.02, 0.0]]), 0.1, 16)
    assert found is not None and len(found.contacts) == 1
    way = np.diff(found.tracks, axis=1)
    way -= np.rint(way)
    before, after = way[:, 0], way[:, -1]
    np.testing.assert_allclose(before.sum(axis=0), after.sum(axis=0), atol=1e-12)
    assert abs((before**2).sum() - (after**2).sum()) < 1e-12 and abs(after[0, 1]) > 0.005


def test_what_goes_farther_or_is_seen_longer_is_the_faster_one_in_exactly_half() -> None:
    world = World("speed", seed=8, **SMALL)
    for start in range(0, 48, 4):
        longer = 0
        for i in range(start, start + 4):
            item = world[i]
            (a, m), (b, n) = ((int(p.split()[-3]), int(p.split()[-1])) for p in item.rationale.split(" ; "))
            assert (a > b) == (m > n) and m != n
            longer += (m > n) == (item.answer.value == "A")
        assert longer == 2


def test_no_option_of_an_order_is_most_like_the_others() -> None:
    world = World("appear_order", seed=9, **SMALL)
    for i in range(40):
        options = [option.split(", ") for option in world[i].answer.options]

        def profile(k: int, options: list[list[str]] = options) -> list[int]:
            def swaps(other: list[str]) -> int:
                ranks = [other.index(name) for name in options[k]]
                return sum(ranks[a] > ranks[b] for a in range(3) for b in range(a + 1, 3))

            return sorted(swaps(other) for j, other in enumerate(options) if j != k)

        def agreement(k: int, options: list[list[str]] = options) -> int:
            return sum(name == other[at] for other in options for at, name in enumerate(options[k]))

        assert len({tuple(profile(k)) for k in range(4)}) == len({agreement(k) for k in range(4)}) == 1


def test_every_colour_is_the_answer_of_a_chain_equally_often() -> None:
    for difficulty, colors in ((0.0, 4), (0.7, 6), (1.0, 8)):
        world = World("chain", seed=12, difficulty=difficulty, **SMALL)
        assert set(Counter(world[i].answer.value for i in range(24)).values()) == {24 // colors}


@pytest.mark.parametrize("family", [name for name in OWN if name != "collisions"])
def test_things_never_overlap(family: str) -> None:
    for difficulty in (0.0, 1.0):
        world = World(family, seed=13, difficulty=difficulty, **SMALL)
        for i in range(12):
            boxes = np.stack([thing.boxes for thing in world[i].objects])
            low, high = boxes[..., :2], boxes[..., 2:]
            both = (low[:, None] < high[None]).all(axis=3) & (low[None] < high[:, None]).all(axis=3)
            assert both.sum() == (~np.isnan(boxes[..., 0])).sum()  # each with itself only


def test_chain_names_its_start_by_colour_and_shape_and_may_end_in_the_same_colour() -> None:
    world = World("chain", seed=10, difficulty=0.0, **SMALL)
    same = sum(world[i].question.split()[-2] == world[i].answer.value or
               f" {world[i].answer.value} " in world[i].question for i in range(120))  # fmt: skip
    assert abs(same - 30) < 4 * np.sqrt(120 * 3 / 16)


@pytest.mark.parametrize("family", ["appear_order", "last_left"])
def test_first_middle_and_last_frame_show_all_or_none_of_the_things_asked_about(family: str) -> None:
    world = World(family, seed=11, **SMALL)
    for i in range(30):
        item = world[i]
        names = item.answer.options[0].split(", ") if family == "appear_order" else item.answer.options
        things = [o for o in item.objects if o.color in names or f"{o.color} {o.shape}" in names]
        assert len(things) == 3
        for f in (0, item.frames.count // 2, item.frames.count - 1):
            assert len({bool(np.isnan(thing.boxes[f, 0])) for thing in things}) == 1
