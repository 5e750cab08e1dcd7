"""World: item i of a family, made when it is asked for, the same in every process."""

from __future__ import annotations

import difflib
import hashlib
import operator
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np

from entropy_vision.errors import UsageError
from entropy_vision.frames import Frames
from entropy_vision.question import Item

from .families import FAMILIES, HAVE_TWINS, SHARED
from .family import Family, LayoutFamily, StagedFamily
from .layout import Media
from .shared import LayoutStage, shared_stage
from .splits import IID, SPLITS
from .stage import Setting, Stage

MEDIA: tuple[Media, ...] = ("image", "video")
FRAMES_PER_SECOND = 8.0
_ROOT = "entropy-vision/world/5"  # raise the number when an item changes its bytes
_ATTEMPTS = 2000  # reaching this is a defect of a family, not bad luck


class World:
    """A source of images and videos with questions that have exact answers.

    The answer is drawn first, then scenes until one has it, so that answers are exactly balanced: n successive items
    of a family with n answers hold each answer once. `world[i]` costs the same for every i and needs no other item;
    equal arguments give equal bytes in every process. Splits differ in the key of their random stream.

    Args:
        family: one of `World.families()`; or "image" / "video": several questions about every scene, of all the
            families of that kind; or None: image and video scenes in turn.
        split: "train", "val" or "test", or one of those that hold something out of all of these (`SPLITS`): "cogent_a"
            and "cogent_b" (each half of the pairs of colour and shape), "template" (a paraphrase), "more" (more things
            or frames), "background" (a kind of ground), "deeper" (longer chains).
        difficulty: 0..1: more and smaller things, stronger texture and noise, less contrast, more colours.
        seed: another world for each.
        size: width and height in pixels, at least 32; 224 unless given. The scenes are the same at every size.
        frame_count: frames of a video, at least 4; 16 unless given. An image has one.

    Raises:
        UsageError: an unknown family or split, a split that means nothing for the family, a seed that is no whole
            number, a difficulty outside 0..1, a size or frame count too small.
    """

    def __init__(
        self,
        family: str | None = None,
        split: str = "train",
        difficulty: float = 0.5,
        seed: int = 0,
        size: int | None = None,
        frame_count: int | None = None,
    ) -> None:
        if family is not None:
            _one_of("family", family, (*FAMILIES, *MEDIA))
        _one_of("split", split, SPLITS)
        _has_split(family, split)
        if isinstance(seed, bool) or not isinstance(seed, int | np.integer):
            raise UsageError(f"World seed must be a whole number, got {seed!r}")
        if not isinstance(difficulty, int | float | np.floating) or not 0.0 <= difficulty <= 1.0:
            raise UsageError(f"World difficulty must lie in 0..1, got {difficulty!r}")
        self.family, self.split, self.difficulty, self.seed = family, split, float(difficulty), int(seed)
        self.size = 224 if size is None else int(size)
        self.frame_count = 16 if frame_count is None else int(frame_count)
        if self.size < 32:
            raise UsageError(f"World size must be at least 32 pixels, got {size}")
        if self.frame_count < 4:
            raise UsageError(f"World frame_count must be at least 4, got {frame_count}")

    def __repr__(self) -> str:
        given = f"{self.family!r}, {self.split!r}, difficulty={self.difficulty}, seed={self.seed}"
        return f"World({given}, size={self.size}, frame_count={self.frame_count})"

    def fingerprint(self) -> str:
        """16 hex digits that change whenever a scene could: arguments and the World's own version."""
        return hashlib.sha256(f"{_ROOT} {self!r}".encode()).hexdigest()[:16]

    @staticmethod
    def families(shared: bool = False) -> tuple[str, ...]:
        """Names of the families of questions; only those that `World("image")` and `World("video")` ask: `shared`."""
        return tuple(SHARED if shared else FAMILIES)

    def __getitem__(self, index: int) -> Item:
        """Item `index`, any whole number from 0 on. Never ends: do not iterate without a bound."""
        scene, question = divmod(operator.index(index), self.questions_per_scene)
        return self.scene(scene)[question]

    def twin(self, index: int) -> Item:
        """Item `index` with as little changed as gives the same question another answer; same background and noise.

        Raises:
            UsageError: the World is of several families, or its family has no twins.
        """
        if self.family not in HAVE_TWINS:
            have = ", ".join(HAVE_TWINS)
            named = f"World family {self.family!r}" if self.family in FAMILIES else "a World of several families"
            raise UsageError(f"{named} has no twins; these families have: {have}")
        (item,) = self._items(operator.index(index), twin=True)
        return item

    @property
    def questions_per_scene(self) -> int:
        """How many items share one scene's frames."""
        return 1 if self.family in FAMILIES else 4

    def scene(self, index: int) -> list[Item]:
        """Every question about scene `index` (0, 1, ...); the items share one `frames`."""
        return self._items(operator.index(index))

    def _items(self, index: int, twin: bool = False) -> list[Item]:
        if not 0 <= index < 1 << 63:  # what numpy takes for a counter without rounding it
            raise IndexError(f"scenes count from 0 to 2**63 - 1, got {index}")
        media, plan = self._plan(index)
        key = self._key(self.family or media)
        rng = _stream(key, index)
        stage = self._stage(media, plan, rng, twin)
        pixels = stage.render(self.size, rng)
        frames = Frames(pixels=pixels, pts_seconds=np.arange(len(pixels)) / FRAMES_PER_SECOND)
        objects, masks = tuple(stage.objects()), stage.evidence(self.size)
        scene = f"{key}-{index}{'-twin' if twin else ''}"
        meta = {"split": self.split, "difficulty": self.difficulty, "seed": self.seed, "scene_index": int(index)}
        meta |= stage.facts
        return [
            Item(
                frames=frames,
                question=ask.question,
                answer=ask.answer,
                evidence=mask,
                family=family.name,
                key=scene if len(plan) == 1 else f"{scene}-{n}",
                scene=scene,
                rationale=ask.rationale,
                objects=objects,
                meta=meta,
            )
            for n, ((family, _), ask, mask) in enumerate(zip(plan, stage.asks, masks, strict=True))
        ]

    def _plan(self, index: int) -> tuple[Media, Sequence[tuple[Family, int]]]:
        """The kind of scene `index`, and for every question its family and the position of its answer."""
        if self.family in FAMILIES:
            family = FAMILIES[self.family]
            return family.media, [(family, self._deal(family.name, index, len(family.targets)))]
        media = MEDIA[index % 2] if self.family is None else cast(Media, self.family)
        turn = index if self.family else index // 2
        families = [family for family in SHARED.values() if family.media == media]
        # one more question, of each family in turn that nearly every scene can be asked twice
        again = [family for family in families if family.twice]
        plan = [(family, self._deal(family.name, turn, len(family.targets))) for family in families]
        extra = again[turn % len(again)]
        # its answer differs from the first one's, so that it is another question
        n, first = len(extra.targets), plan[families.index(extra)][1]
        other = (first + 1 + self._deal(f"{extra.name}-again", turn // len(again), n - 1)) % n
        return media, [*plan, (extra, other)]

    def _deal(self, name: str, turn: int, n: int) -> int:
        """One of n positions: in every round of n turns each comes once, in random order."""
        order = _stream(f"{self._key(name)}-order", turn // n).permutation(n)
        return int(order[turn % n])

    def _stage(
        self, media: Media, plan: Sequence[tuple[Family, int]], rng: np.random.Generator, twin: bool = False
    ) -> Stage:
        """A scene that has every answer of the plan; of a single one perhaps the twin."""
        setting = Setting(self.split, self.difficulty, 1 if media == "image" else self.frame_count)
        wanted: list[tuple[Family, Any]] = [(family, family.targets[position]) for family, position in plan]
        family, target = wanted[0]
        if not isinstance(family, StagedFamily):
            shared = shared_stage(media, cast("list[tuple[LayoutFamily, Any]]", wanted), setting, rng)
            return _twin(cast(LayoutFamily, family), shared) if twin else shared
        if twin and family.twin is not None:
            target = family.twin(target)
        for _ in range(_ATTEMPTS):
            stage = family.stage(family, target, setting, rng)
            if stage is not None:
                return stage
        raise RuntimeError(f"no scene of {family.name} with {target} in {_ATTEMPTS} attempts")

    def _key(self, name: str) -> str:
        hardness = repr(self.difficulty).replace(".", "p")  # no dot: shard formats cut names at the first one
        return f"{name}-{self.split}-d{hardness}-s{self.seed}"


def _twin(family: LayoutFamily, stage: LayoutStage) -> LayoutStage:
    """The changed layout and the question, whose answer has changed with it."""
    assert family.twin is not None
    layout, ask = family.twin(stage.layout, stage.asks[0])
    return replace(stage, layout=layout, asks=(ask,))


def _has_split(family: str | None, split: str) -> None:
    """Nothing, or an error where a split means nothing for a family or for one of those of a mixed World."""
    if split in IID:
        return
    asked = [FAMILIES[family]] if family in FAMILIES else [f for f in SHARED.values() if family in (None, f.media)]
    lacking = [f.name for f in asked if split not in f.splits]
    if lacking:
        have = ", ".join(name for name, f in FAMILIES.items() if split in f.splits)
        among = "" if family in FAMILIES else ", which are asked here too"
        raise UsageError(
            f"World split {split!r} means nothing for {', '.join(lacking)}{among}; choose a family of: {have}"
        )


def _stream(key: str, index: int) -> np.random.Generator:
    """Random stream of one name and index: Philox (Salmon et al., SC 2011) keyed by the name, counting from index."""
    words = np.frombuffer(hashlib.blake2b(f"{_ROOT}/{key}".encode(), digest_size=16).digest(), "<u8")
    return np.random.Generator(np.random.Philox(key=words, counter=[0, 0, 0, index]))


def _one_of(what: str, got: str, known: Sequence[str]) -> None:
    if got not in known:
        near = difflib.get_close_matches(str(got), known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"choose one of {', '.join(known)}"
        raise UsageError(f"World {what} {got!r} is unknown; {hint}")
