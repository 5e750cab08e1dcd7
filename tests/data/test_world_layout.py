"""What lies over what in a video of the World, and what is not asked about because of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from entropy_vision.data.world.families import FAMILIES
from entropy_vision.data.world.layout import Layout, Sprite, Wish, palette, video_layout
from entropy_vision.data.world.speed import draw_race
from entropy_vision.data.world.stage import Setting

SIDE = 400  # cells of the frame in which boxes are counted out


def of(*sprites: Sprite) -> Layout:
    return Layout("video", 8, sprites, palette(0.5))


def box(sprite: Sprite, centre: np.ndarray) -> np.ndarray:
    """bool [SIDE, SIDE]: the cells of its box on the torus, none where it is not there."""
    if np.isnan(centre[0]):
        return np.zeros((SIDE, SIDE), bool)
    along = [np.abs((np.arange(SIDE) + 0.5) / SIDE - at) for at in centre]
    columns, rows = (np.minimum(away, 1 - away) < sprite.size / 2 for away in along)
    return rows[:, None] & columns[None, :]


def test_what_is_hidden_is_what_is_counted_out() -> None:
    met = 0
    for seed in range(6):
        layout = video_layout(np.random.default_rng(seed), 0.5, 4, Wish(late=1), 6)
        layout = replace(
            layout, sprites=tuple(replace(s, size=s.size * (1 + k % 2)) for k, s in enumerate(layout.sprites))
        )
        for k, sprite in enumerate(layout.sprites):
            hidden, clear = layout.hidden(k), layout.clear(k)
            for f in range(6):
                own = box(sprite, layout.tracks[k, f])
                for other in range(k + 1, 4):
                    shared = own & box(layout.sprites[other], layout.tracks[other, f])
                    share = shared.sum() / max(1, own.sum())
                    assert hidden[other - k - 1, f] == pytest.approx(share, abs=0.04)
                    met += share > 0
                assert clear[f] == (own.any() and hidden[:, f].max(initial=0) <= 0.5)
    assert met > 20


ABOVE = Sprite("blue", "circle", 0.2, 0.5, 0.5, "left", 0.3)


@pytest.mark.parametrize(
    ("below", "asked"),
    [
        (replace(ABOVE, color="red"), {"blue"}),  # under it all the time
        (replace(ABOVE, color="red", x=0.65), {"blue", "red"}),  # a quarter of it is
        (replace(ABOVE, color="red", size=0.5), {"blue", "red"}),  # a sixth of it is
        (replace(ABOVE, color="red", path=0.31, onset=4), {"blue"}),  # it catches up with it half-way
        (replace(ABOVE, color="red", y=0.9), {"blue", "red"}),
    ],
)
def test_only_what_can_be_followed_is_asked_about(below: Sprite, asked: set[str]) -> None:
    rng = np.random.default_rng(0)
    layout = of(below, ABOVE)
    for name, target in (("direction", "left"), ("moved", True)):
        family = FAMILIES[name]
        posed = [family.pose(family, layout, target, rng) for _ in range(30)]  # type: ignore[union-attr]
        assert {layout.names[ask.needs[0][0]] for ask in posed if ask} == asked


def test_what_appears_under_another_is_not_asked_about() -> None:
    rng, family = np.random.default_rng(0), FAMILIES["appearance"]
    first, second = replace(ABOVE, color="red", motion="still", onset=2), replace(ABOVE, motion="still", onset=4)
    seen, unseen = of(first, second), of(replace(first, onset=4), replace(second, onset=2))
    assert any(family.pose(family, seen, target, rng) for target in (0, 1))  # type: ignore[union-attr]
    assert not any(family.pose(family, unseen, target, rng) for target in (0, 1))  # type: ignore[union-attr]


def test_how_long_things_are_seen_does_not_depend_on_their_ratio() -> None:
    """One of them is missing in more frames where the times differ more: that must not tell how their speeds do."""
    for seed in range(40):
        steps = set()
        for gap in (0.02, 0.3, 0.6):
            race = draw_race(np.random.default_rng(seed), Setting("train", 0.5, 16), gap, 0.64, True, True)
            steps |= {race.steps} if race else set()
        assert len(steps) <= 1, seed
