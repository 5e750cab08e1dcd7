"""The `eval` verb: accuracy of a checkpoint at each token budget, beside random selection and a blind policy."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from entropy_vision.attend import read_attend
from entropy_vision.console import progress, say
from entropy_vision.errors import InputError, UsageError
from entropy_vision.reduction import Choice, reducing
from entropy_vision.stats import wilson_interval

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from entropy_vision.data.benchmarks import Benchmark
    from entropy_vision.dialect import Dialect
    from entropy_vision.options import EvalOptions, Profile
    from entropy_vision.policy import EntropyVLM
    from entropy_vision.processor import EntropyVLMProcessor
    from entropy_vision.question import Item, QuestionSource
    from entropy_vision.rl.batch import Batch
    from entropy_vision.rl.evaluate import Graded
    from entropy_vision.rl.scenes import Scored
    from entropy_vision.tokenizer import EntropyTokenizer

BLIND = "blind"
STRICT: Final = "strict"
_BATCH = 64  # scenes answered at once
_UNTRAINED = {"frame_count": 8, "difficulty": 0.5}  # a policy that was not trained here


@dataclass(frozen=True)
class Measured:
    """Greedy answers of one policy to one fixed set of questions, by (selector, keep).

    Attributes:
        graded: the answers; ("blind", 0.0) is the policy without visual tokens. keep 1.0 is dense, whatever selects and
            however the policy reduces its tokens otherwise.
    """

    graded: dict[tuple[str, float], Graded]

    @property
    def families(self) -> list[str]:
        """Names of the question families, in the order they were asked."""
        return list(dict.fromkeys(self.graded[BLIND, 0.0].families))

    @property
    def majority(self) -> dict[str, float]:
        """Accuracy of the best constant answer of each family: what needs neither picture nor question."""
        asked = self.graded[BLIND, 0.0]
        answers = {f: [a for a, g in zip(asked.answers, asked.families, strict=True) if g == f] for f in self.families}
        return {family: max(map(found.count, found)) / len(found) for family, found in answers.items()}

    @classmethod
    def joined(cls, parts: Sequence[Measured]) -> Measured:
        """The answers to several sets of questions as one."""
        cells = parts[0].graded
        return cls({cell: type(cells[cell]).joined([part.graded[cell] for part in parts]) for cell in cells})

    @property
    def profiles(self) -> dict[str, str]:
        """The rule that read the answers of each family."""
        asked = self.graded[BLIND, 0.0]
        return {f: ", ".join(dict.fromkeys(self._of(asked, asked.profiles, f))) for f in self.families}

    def correct(self, selector: str, keep: float, family: str | None = None) -> np.ndarray:
        """float64 [n], the scores: 1 where the answer was right; published rules also give parts."""
        graded = self.graded[selector, keep]
        return np.array(self._of(graded, graded.scores[:, 0], family))

    def cell(self, selector: str, keep: float, family: str | None = None) -> dict[str, float]:
        """The contract's {accuracy, low, high, n} with a 95 % Wilson interval; `strict` beside it, the accuracy as
        training reads, where another rule read.

        Of parts the interval is too wide rather than too narrow: they vary less than zeros and ones of that mean.
        """
        graded, correct = self.graded[selector, keep], self.correct(selector, keep, family)
        low, high = wilson_interval(float(correct.sum()), len(correct))
        cell = {"accuracy": float(correct.mean()), "low": low, "high": high, "n": len(correct)}
        if set(self._of(graded, graded.profiles, family)) != {STRICT}:
            cell["strict"] = float(np.mean(self._of(graded, graded.accuracy[:, 0], family)))
        return cell

    @staticmethod
    def _of(graded: Graded, values: Iterable[Any], family: str | None) -> list[Any]:
        """Of a value for every question, those of a family."""
        return [value for value, name in zip(values, graded.families, strict=True) if family in (None, name)]


class _OneByOne:
    """Items of a family as scenes of one question each, so that answers stay exactly balanced."""

    def __init__(self, items: Any) -> None:
        self.items = items

    def scene(self, index: int) -> list[Any]:
        return [self.items[index]]


class _Spread:
    """Questions of a benchmark as scenes of one each, all of the family `label`: `count` of them, spread evenly.

    Files are in the order of their tasks. Pictures and videos come at the sizes a policy was trained on.
    """

    def __init__(self, stills: Benchmark, videos: Benchmark, label: str, count: int) -> None:
        self.stills, self.videos, self.label = stills, videos, label
        self.places = [place * len(stills) // count for place in range(count)]
        self.unread: list[str] = []

    def scored(self, chooser: EntropyTokenizer) -> list[Scored]:
        """Every question whose picture or video can be read; the others leave `places` for `unread`.

        Raises:
            UsageError: not one of them can.
        """
        from entropy_vision.rl.scenes import score_scene

        found: dict[int, Scored] = {}
        for index, place in enumerate(self.places):
            try:
                found[place] = score_scene(self.scene(index), chooser)
            except InputError as error:
                self.unread.append(str(error))
        if not found:
            raise UsageError(f"{self.label}: none of its {len(self.places)} questions can be shown: {self.unread[0]}")
        self.places = list(found)
        return list(found.values())

    @property
    def skipped(self) -> list[str]:
        """What is not measured, a line each: rows that are no question, and questions that cannot be shown."""
        return [*(f"{row.where}: {row.reason}" for row in self.stills.skipped), *self.unread]

    def scene(self, index: int) -> list[Item]:
        place = self.places[index]
        moving = self.stills.questions[place].medium.moving
        return [replace((self.videos if moving else self.stills)[place], family=self.label)]

    def published(self, scores: Sequence[float]) -> dict[str, float]:
        """The benchmark's own numbers, as fractions, from a score of every question; `overall` is the headline."""
        return self.stills.aggregate(scores, [self.stills.questions[place] for place in self.places])


def family_source(
    family: str, inputs: dict[str, Any], *, split: str, seed: int, folder: str | None = None
) -> QuestionSource:
    """Questions of one family at the sizes a policy was trained on."""
    from entropy_vision.data import World
    from entropy_vision.data.world.families import FAMILIES
    from entropy_vision.sources import FileBacked

    video = family in FAMILIES and FAMILIES[family].media == "video"
    size = int(inputs["video_size"] if video else inputs["image_size"])
    world = World(
        family=family,
        split=split,
        difficulty=float(inputs["difficulty"]),
        seed=seed,
        size=size,
        frame_count=int(inputs["frame_count"]) if video else None,
    )
    source = _OneByOne(world)
    if not (video and folder):
        return source
    return FileBacked(source, Path(folder) / f"{family}-{split}-{seed}-{world.fingerprint()}", size=size)


def benchmark_source(task: str, inputs: dict[str, Any], most: int, label: str = "") -> tuple[_Spread, int]:
    """Questions of a benchmark, `NAME:FOLDER`, as the family `label` (its name, where not given), and how many.

    Raises:
        UsageError: no row of its files is a question.
    """
    from entropy_vision.data.benchmarks import load

    stills = load(task, size=int(inputs["image_size"]), frames=int(inputs["frame_count"]))
    if "fit" in inputs:  # the tower's own
        stills = stills.seen(
            replace(stills.view, size=tuple(inputs["size"]), fit=inputs["fit"], scaled=inputs["scaled"])
        )
    if not stills.questions:
        first = stills.skipped[0]
        raise UsageError(
            f"{task}: none of its {stills.rows} rows is a question ({first.where}: {first.reason}); "
            f"entropy-vision benchmarks {task} lists them"
        )
    videos = stills if "fit" in inputs else stills.seen(replace(stills.view, size=int(inputs["video_size"])))
    count = min(most, len(stills))
    return _Spread(stills, videos, label or stills.spec.name, count), count


def labels_of(tasks: Sequence[str]) -> dict[str, str]:
    """{task: what results call it}: a benchmark's name, or the whole NAME:FOLDER where several are of that name."""
    names = [task.partition(":")[0] for task in tasks]
    return {task: name if names.count(name) == 1 else task for task, name in zip(tasks, names, strict=True)}


def check_tasks(tasks: Sequence[str]) -> None:
    """Look up families and benchmarks; no question is read.

    Raises:
        UsageError: an unknown name, a folder that is not there, or one task twice.
    """
    from entropy_vision.data import World
    from entropy_vision.data.benchmarks.catalogue import find

    for task in tasks:
        if tasks.count(task) > 1:
            raise UsageError(f"--tasks names {task} twice: leave one out")
        if ":" in task:
            find(task)
        elif task not in World.families():
            near = difflib.get_close_matches(task, World.families(), n=1, cutoff=0.0)
            raise UsageError(
                f"--tasks: no family of questions is called {task!r}; the nearest is {near[0]}, "
                "and a benchmark is written NAME:FOLDER"
            )


def batches_of(families: Iterable[Sequence[Scored]], chooser: EntropyTokenizer, keep: float) -> list[Batch]:
    """Batches of some scenes at one budget, families apart (so all of a batch are one medium)."""
    from entropy_vision.rl.batch import make_batch

    return [make_batch(f[i : i + _BATCH], chooser, keep, None) for f in families for i in range(0, len(f), _BATCH)]


def measure(
    model: EntropyVLM,
    dialect: Dialect | PreTrainedTokenizerFast,
    scenes: dict[str, list[Scored]],
    *,
    keeps: Sequence[float],
    selectors: Sequence[str],
    on_done: Callable[[str], None] = lambda note: None,
    profile: Profile = STRICT,
    max_new_tokens: int | None = None,
    chooser_of: Callable[[str], EntropyTokenizer] | None = None,
) -> Measured:
    """Answer the same questions at every budget with every selector, and blind.

    Args:
        dialect: the policy's, or its word-level tokenizer.
        scenes: scored scenes by family; their bits are made anew for each selector.
        keeps: fractions in (0, 1].
        selectors: names as `Choice.of` takes them.
        profile: what reads the answers; "official" each question's own rule.
        max_new_tokens: longest answer; the dialect's where it is None.
        chooser_of: what selects by the selector of a name; by default patches of the tower's size.

    Raises:
        UsageError: a name that reduces tokens over a policy that does itself.
    """
    from entropy_vision.rl.evaluate import grade
    from entropy_vision.rl.rubric import Rubric
    from entropy_vision.tokenizer import EntropyTokenizer

    graded: dict[tuple[str, float], Graded] = {}
    answer = partial(grade, model, dialect, rubric=Rubric(), profile=profile, max_new_tokens=max_new_tokens)
    chooser_of = chooser_of or partial(EntropyTokenizer, model.encoder.patch_size, 1.0, None)
    for selector in selectors:
        chooser = chooser_of(Choice.of(selector, 1.0).selector)
        scored = [[replace(s, bits=chooser.score(s.frames)) for s in family] for family in scenes.values()]
        for keep in keeps:
            if keep == 1.0 and selector != selectors[0]:
                graded[selector, keep] = graded[selectors[0], keep]
                continue
            choice = Choice.of(selector, keep)
            with reducing(model, choice.reduced_by(model.reduction)):
                graded[selector, keep] = answer(batches=batches_of(scored, chooser, choice.keep))
            on_done(f"{selector} {keep:g}")
    graded[BLIND, 0.0] = answer(batches=batches_of(scored, chooser, min(keeps)), blind=True)
    on_done(BLIND)
    return Measured(graded)


def as_json(measured: Measured, keeps: Sequence[float], selectors: Sequence[str]) -> dict[str, Any]:
    """The verb's result: `tasks` of the first selector, all of them under `selectors`, and both baselines."""
    families = measured.families

    def table(selector: str, at: Sequence[float]) -> dict[str, Any]:
        named = {f: {f"{k:g}": measured.cell(selector, k, f) for k in at} for f in families}
        return {**named, "all": {f"{k:g}": measured.cell(selector, k) for k in at}}

    tables = {s: table(s, keeps) for s in selectors}
    return {
        "tasks": tables[selectors[0]],
        "selectors": tables,
        "blind": {**{f: measured.cell(BLIND, 0.0, f) for f in families}, "all": measured.cell(BLIND, 0.0)},
        "majority": measured.majority,
    }


def inputs_shown(
    model: EntropyVLM, processor: EntropyVLMProcessor, dialect: Dialect, checkpoint: Path
) -> dict[str, Any]:
    """What a policy is shown: the sizes of the World's pictures it was trained on, length of a video, difficulty.

    A policy with a chat template sees everything at its tower's size and fit, whether it was trained here or not.

    Raises:
        UsageError: one of the World's own that does not say it.
    """
    from entropy_vision.dialect import ChatDialect

    inputs, longest = dict(model.config.inputs), {"max_new_tokens": dialect.longest}
    if isinstance(dialect, ChatDialect):
        side = min(processor.image_size)
        sizes = {"image_size": side, "video_size": side, "size": processor.image_size, "fit": processor.fit}
        sizes["scaled"] = processor.scaled
        return {**_UNTRAINED, **longest, **inputs, **sizes}
    if not inputs:
        raise UsageError(
            f"{checkpoint} does not say what inputs its policy was trained on (config.json, inputs): "
            "eval needs a checkpoint that `train` wrote"
        )
    return {**longest, **inputs}


def run_eval(options: EvalOptions) -> dict[str, Any]:
    """Measure a checkpoint on the World's test split, or on benchmarks, whose published rule reads the answers.

    Returns:
        checkpoint, profiles (what read the answers of each task), tasks (of the first selector), selectors, blind and
        majority; of benchmarks skipped, what could not be measured (their number, with `json` a line each). A cell is
        `Measured.cell`'s; of a benchmark that is read by its own rule also `published`, the
        headline it would print. With `json` all of a benchmark's own numbers besides, as published.
    """
    import torch

    from entropy_vision.data import World
    from entropy_vision.dialect import dialect_of
    from entropy_vision.reduced import check_reduction
    from entropy_vision.rl import checkpoint
    from entropy_vision.rl.scenes import score_scene
    from entropy_vision.tokenizer import EntropyTokenizer

    for name in options.selectors:
        EntropyTokenizer(selector=Choice.of(name, 1.0).selector)  # a wrong name must not wait until others are measured
    torch.set_num_threads(1)
    model, processor = checkpoint.load_whole(options.checkpoint)
    if options.attend is not None:
        model.config.attend = read_attend(options.attend)
    for choice in (Choice.of(name, keep) for name in options.selectors for keep in options.keep):
        reduction = choice.reduced_by(model.reduction)
        if reduction is not None:
            check_reduction(model.encoder, reduction)
    dialect = dialect_of(model, processor, options.system, options.instruction)
    families = options.tasks or World.families(shared=True)
    check_tasks(families)
    labels = labels_of(families)
    inputs = inputs_shown(model, processor, dialect, options.checkpoint)
    chooser_of = partial(processor.chooser, 1.0)
    chooser = chooser_of(Choice.of(options.selectors[0], 1.0).selector)
    steps = len(families) + len(options.selectors) * len(options.keep) + 1
    with progress("eval", steps) as bar, TemporaryDirectory() as folder:
        # a policy trained on decoded files is measured on decoded files
        videos = folder if inputs.get("video_files") else None
        sources: dict[str, tuple[QuestionSource, int]] = {}
        for family in families:
            if ":" in family:
                sources[family] = benchmark_source(family, inputs, options.questions, labels[family])
            else:
                source = family_source(family, inputs, split="test", seed=options.seed, folder=videos)
                sources[family] = source, options.questions
        scenes = {}
        for family, (source, count) in sources.items():
            if isinstance(source, _Spread):
                scenes[family] = source.scored(chooser)
            else:
                scenes[family] = [score_scene(source.scene(i), chooser) for i in range(count)]
            bar.advance(note=family)
        measured = measure(
            model,
            dialect,
            scenes,
            keeps=options.keep,
            selectors=options.selectors,
            on_done=lambda note: bar.advance(note=note),
            profile=options.profile,
            max_new_tokens=options.max_new_tokens or inputs["max_new_tokens"],
            chooser_of=chooser_of,
        )
    benchmarks = [source for source, _ in sources.values() if isinstance(source, _Spread)]
    result = {"checkpoint": str(options.checkpoint), "profiles": measured.profiles}
    result |= as_json(measured, options.keep, options.selectors)
    for benchmark in benchmarks:
        if benchmark.skipped:
            say(f"{benchmark.label}: {len(benchmark.skipped)} left out, the first: {benchmark.skipped[0]}")
    if benchmarks:
        result["skipped"] = {b.label: b.skipped if options.json else len(b.skipped) for b in benchmarks}
    if options.profile == "official" and benchmarks:
        numbers = _published(measured, benchmarks, result)
        result |= {"published": numbers} if options.json else {}  # a table of all parts is wider than a screen
    return result


def _published(measured: Measured, benchmarks: Sequence[_Spread], result: dict[str, Any]) -> dict[str, Any]:
    """{task: {selector: {keep: the published numbers}}}, their headlines put into the cells of `result`."""
    found: dict[str, Any] = {}
    for benchmark in benchmarks:
        for selector, keep in measured.graded:
            numbers = benchmark.published(measured.correct(selector, keep, benchmark.label).tolist())
            found.setdefault(benchmark.label, {}).setdefault(selector, {})[f"{keep:g}"] = numbers
            cells = result[BLIND] if selector == BLIND else result["selectors"][selector][benchmark.label]
            cells[benchmark.label if selector == BLIND else f"{keep:g}"]["published"] = numbers["overall"]
    return found
