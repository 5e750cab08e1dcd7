"""Batches: labels say what patches show, steps are dealt alike by everyone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from entropy_vision import EntropyTokenizer, Frames
from entropy_vision.question import SceneObject
from entropy_vision.rl.batch import Batch, Dealer, alignment_groups, label_patches
from entropy_vision.rl.parallel import Team
from entropy_vision.rl.scenes import Scenes
from entropy_vision.sources import Words, world_source, world_words
from entropy_vision.text import answer_text

PLACES = tuple(f"r{row}c{column}" for row in range(1, 9) for column in range(1, 9))
TIMES = tuple(f"t{i}" for i in range(1, 9))
GROUPS = alignment_groups(
    Words(all=(), colors=("red", "blue"), shapes=("circle", "square"), places=PLACES, times=TIMES)
)


def _everything(frames: Frames) -> object:
    return EntropyTokenizer(patch_size=8, keep=1.0)(frames)


def test_labels_name_colour_shape_and_centre_cell_of_the_object_a_patch_shows() -> None:
    frames = Frames(pixels=np.zeros((2, 64, 64, 3), np.uint8), pts_seconds=np.arange(2.0))
    # a blue square from pixel 8 to 24 in both axes, in the second frame only: patches (1..2, 1..2), centre cell 2
    box = np.full((2, 4), np.nan, np.float32)
    box[1] = [8 / 64, 8 / 64, 24 / 64, 24 / 64]
    labels = label_patches(_everything(frames), [SceneObject(color="blue", shape="square", boxes=box)], GROUPS).reshape(
        2, 8, 8, 4
    )
    assert (labels[0, :, :, 0] == 0).all() and (labels[0, :, :, 1:3] == -1).all()
    shown = labels[1, 1:3, 1:3]
    assert (shown == [2, 1, 2 * 8 + 2, 4]).all()
    assert (labels[1, :, :, 1] >= 0).sum() == 4
    assert (labels[0, :, :, 3] == 0).all()


def test_labels_ask_nothing_of_a_patch_that_an_object_only_grazes() -> None:
    frames = Frames(pixels=np.zeros((1, 64, 64, 3), np.uint8), pts_seconds=np.zeros(1))
    box = np.array([[8 / 64, 8 / 64, 18 / 64, 16 / 64]], np.float32)  # a quarter of the second patch
    labels = label_patches(_everything(frames), [SceneObject(color="red", shape="circle", boxes=box)], GROUPS)
    labels = labels.reshape(8, 8, 4)
    assert labels[1, 1, 0] == 1
    assert (labels[1, 2] == -1).all()
    assert labels[1, 3, 0] == 0


def _dealer(seed: int = 0, **settings: Any) -> Dealer:
    image = world_source("image", split="train", difficulty=0.5, seed=0, size=96)
    video = world_source("video", split="train", difficulty=0.5, seed=0, size=64, frame_count=8)
    chooser = EntropyTokenizer(patch_size=8, keep=0.25)
    return Dealer(
        [(Scenes(image, chooser), 3), (Scenes(video, chooser), 2)],
        chooser,
        keeps=(1.0, 0.25, 0.125),
        weights=(1, 1, 1),
        pool=50,
        seed=seed,
        groups=alignment_groups(world_words()),
        **settings,
    )


def _same(one: list[Batch], other: list[Batch]) -> bool:
    return all(
        torch.equal(a.patches.pixels, b.patches.pixels)
        and torch.equal(a.patches.positions, b.patches.positions)
        and torch.equal(a.words, b.words)
        and a.asks == b.asks
        and a.keep == b.keep
        for a, b in zip(one, other, strict=True)
    )


def test_a_step_is_dealt_alike_whatever_was_dealt_before() -> None:
    first, second = _dealer(), _dealer()
    for step in (5, 0, 3):
        first.deal(step)
    assert _same(first.deal(7), second.deal(7))
    assert not _same(first.deal(7), first.deal(8))
    assert not _same(first.deal(7), _dealer(seed=1).deal(7))


def test_batches_hold_exactly_the_budget_and_every_question_knows_its_scene() -> None:
    dealer = _dealer()
    keeps = set()
    for step in range(8):
        images, videos = dealer.deal(step)
        keeps.add(images.keep)
        assert images.keep == videos.keep
        assert set(images.patches.counts) == {max(1, round(images.keep * 144))}
        assert set(videos.patches.counts) == {max(1, round(videos.keep * 512))}
        assert images.owner.tolist() == sorted(images.owner.tolist()) and images.owner.max() == 2
        assert len(images.words) == sum(images.patches.counts)
        for batch in (images, videos):
            assert all(a.gold.endswith(f"<answer> {answer_text(a.answer)} </answer>") for a in batch.asks)
    assert len(keeps) == 3


def test_budgets_are_drawn_for_a_step_or_for_each_scene_alike_in_any_number_of_processes() -> None:
    step, scene = _dealer(), _dealer(each="scene")
    mixed = 0
    for number in range(6):
        assert len({keep for batch in step.deal(number) for keep in batch.keeps}) == 1
        images, videos = scene.deal(number)
        for batch, patches in ((images, 144), (videos, 512)):
            assert list(batch.patches.counts) == [max(1, round(keep * patches)) for keep in batch.keeps]
            assert batch.keep == pytest.approx(np.mean(batch.keeps))
        mixed += len(set(images.keeps)) > 1
        parts = [_dealer(each="scene", team=Team(rank, 2)).deal(number) for rank in (0, 1)]
        assert images.keeps + videos.keeps == sum((part[m].keeps for m in (0, 1) for part in parts), ())
    assert mixed > 2
