"""Scenes: scored once, shared by what asks for the same, apart where anything differs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from entropy_vision import EntropyTokenizer
from entropy_vision.question import Item
from entropy_vision.rl.recipe import DataRecipe
from entropy_vision.rl.scenes import SceneMemory, Scenes, score_scene
from entropy_vision.sources import world_source

DATA = DataRecipe(image_size=64)
CHOOSER = EntropyTokenizer(patch_size=8, keep=0.25)


class _Counted:
    """A source that counts how often each scene is drawn."""

    def __init__(self) -> None:
        self.world = world_source("image", split="train", difficulty=0.5, seed=0, size=64)
        self.drawn: list[int] = []

    def scene(self, index: int) -> list[Item]:
        self.drawn.append(index)
        return self.world.scene(index)


def test_a_scene_is_drawn_and_scored_once() -> None:
    source = _Counted()
    scenes = Scenes(source, CHOOSER)
    first = [scenes[i] for i in (3, 1, 3)]
    assert source.drawn == [3, 1]
    assert first[0] is first[2]
    np.testing.assert_array_equal(first[0].bits, score_scene(source.world.scene(3), CHOOSER).bits)


def test_stages_share_scenes_and_nothing_else_does() -> None:
    memory = SceneMemory()
    mine = memory.world("image", "train", DATA, CHOOSER)
    # how many scenes a step takes is the stage's own affair
    assert memory.world("image", "train", replace(DATA, image_scenes=3, pool=7), CHOOSER) is mine
    others = [
        memory.world("image", "val", DATA, CHOOSER),
        memory.world("video", "train", DATA, CHOOSER),
        memory.world("image", "train", replace(DATA, seed=1), CHOOSER),
        memory.world("image", "train", replace(DATA, difficulty=0.1), CHOOSER),
        memory.world("image", "train", replace(DATA, image_size=96), CHOOSER),
        memory.world("image", "train", DATA, EntropyTokenizer(patch_size=16, keep=0.25)),
        memory.world("image", "train", DATA, EntropyTokenizer(patch_size=8, keep=0.25, selector="random")),
    ]
    assert all(scenes is not mine for scenes in others)
    assert mine[0].frames.pixels.shape != others[4][0].frames.pixels.shape
