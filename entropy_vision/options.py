"""What each verb of the command line takes: one frozen dataclass a verb, the docstring of a field is its help text.

These live apart from the modules that do the work, so that `entropy-vision --help` loads none of them.
Every verb has `json`: exactly one JSON object on stdout, everything else on stderr.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

from tyro.conf import Positional, arg

from entropy_vision.attend import read_attend
from entropy_vision.config import HIGHEST_SEED
from entropy_vision.errors import UsageError
from entropy_vision.reduction import Inside
from entropy_vision.sampling import Sampling

if TYPE_CHECKING:
    from entropy_vision.budget import Budget

Store = Literal["mosaic", "raw", "index"]
Profile = Literal["official", "strict", "robust"]
OptionalPath = Annotated[Path | None, arg(metavar="PATH")]
OptionalFloat = Annotated[float | None, arg(metavar="FLOAT")]
OptionalInt = Annotated[int | None, arg(metavar="INT")]
OptionalName = Annotated[str | None, arg(metavar="NAME")]


def _check_keep(*keep: float) -> None:
    if not keep or not all(0.0 < one <= 1.0 for one in keep):
        raise UsageError(f"--keep takes fractions in (0, 1], got {' '.join(map(str, keep)) or 'none'}")


def _check_told_apart(*keep: float) -> None:
    """Results name a keep by six digits."""
    names = [f"{one:g}" for one in keep]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UsageError(f"--keep holds more than one {twice}, as results name it to six digits: leave one out")


def _check_seed(seed: int) -> None:
    if not 0 <= seed <= HIGHEST_SEED:
        raise UsageError(f"--seed must lie in 0..{HIGHEST_SEED}, got {seed}")


def _check_attend(attend: str | None) -> None:
    if attend is not None:
        read_attend(attend, "--attend")


def _check_positive(**values: float | None) -> None:
    for name, value in values.items():
        if value is not None and not value > 0:
            raise UsageError(f"--{name.replace('_', '-')} must be above 0, got {value}")


@dataclass(frozen=True, kw_only=True)
class DemoOptions:
    """Run the whole job on embedded data and end with a report."""

    out: Path = Path("demo")
    """Folder for videos, shards, checkpoints and report.html."""
    videos: OptionalPath = None
    """Folder of your own videos and images to add to the report."""
    seed: int = 0
    """Seed of the data, the weights and the sampling."""
    json: bool = False
    """Print one JSON object on stdout."""

    def __post_init__(self) -> None:
        _check_seed(self.seed)


@dataclass(frozen=True, kw_only=True)
class LimitOptions:
    """What limits selection; see `Budget`."""

    keep: OptionalFloat = None
    """Fraction of patches to keep, in (0, 1]; 0.25 where no limit is given. Only one limit may be."""
    tokens: OptionalInt = None
    """Patches to keep of each input."""
    bits: OptionalFloat = None
    """Bits that the patches kept of an input may have together."""
    threshold: OptionalFloat = None
    """Bits that a patch must have; every frame keeps its best one."""
    flops: OptionalFloat = None
    """FLOPs that the vision tower may take for all frames of an input together."""
    tower: OptionalName = None
    """Vision tower that --flops counts, an open_clip model name or a local folder; a ViT-B of the patch size where not
    given."""

    def __post_init__(self) -> None:
        if self.keep is not None:
            _check_keep(self.keep)
        given = [f"--{name}" for name in self._limits() if name != "tower"]
        if len(given) > 1:
            raise UsageError(f"give one limit, not {' and '.join(given)}")
        if self.tower is not None and self.flops is None:
            raise UsageError("--tower is the tower that --flops counts: give --flops as well")
        _check_positive(tokens=self.tokens, flops=self.flops)
        for name in ("bits", "threshold"):
            value = getattr(self, name)
            if value is not None and not value >= 0:
                raise UsageError(f"--{name} must not be negative, got {value}")

    def _limits(self) -> dict[str, Any]:
        named = {name: getattr(self, name) for name in ("keep", "tokens", "bits", "threshold", "flops", "tower")}
        return {name: value for name, value in named.items() if value is not None}

    def budget(self) -> Budget:
        """The limit as one."""
        from entropy_vision.budget import Budget  # which loads numpy

        return Budget(**(self._limits() or {"keep": 0.25}))


@dataclass(frozen=True, kw_only=True)
class SamplingOptions:
    """Which frames of a video are taken; see `Sampling`."""

    fps: OptionalFloat = None
    """Frames a second to take; every frame where no rule is given. Only one may be."""
    frames: OptionalInt = None
    """Frames to take of each video, spread evenly over it."""
    packets: OptionalInt = None
    """Frames to take of each video, spread evenly over the bytes of its packets: many where much happens."""
    keyframes: bool = False
    """Take the keyframes, decoding nothing else."""
    scenes: OptionalFloat = None
    """Take the first frame of every shot, and from there so many a second up to the next cut."""

    def sampling(self) -> Sampling:
        """The rule as one."""
        return Sampling(
            fps=self.fps, frames=self.frames, packets=self.packets, keyframes=self.keyframes, scenes=self.scenes
        )


@dataclass(frozen=True, kw_only=True)
class ShowOptions(LimitOptions, SamplingOptions):
    """Draw what is kept of a video, an image, or a sample of shards: a contact sheet and an HTML page."""

    source: Positional[Path]
    """Video or image file; or a folder of shards, or one of these, whose samples are shown as they are."""
    out: Path
    """Folder for kept.png and report.html."""
    selector: tuple[str, ...] = ("rate",)
    """One selector, or two to see them side by side: rate, histogram, random, uniform, uniform_frames, surprisal,
    gradient, rlt, evs, dtd, apt, pixelprune or onevision."""
    patch_size: int = 16
    """Side of a patch in pixels."""
    size: int = 224
    """Side in pixels the frames are scaled to."""
    sample: str = "0"
    """Of shards: which sample, by its number, its key, or the end of its source's name."""
    json: bool = False
    """Print one JSON object on stdout."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.sampling()
        _check_positive(patch_size=self.patch_size, size=self.size)
        if not 1 <= len(self.selector) <= 2:
            raise UsageError(f"--selector takes one name or two, got {len(self.selector)}")


@dataclass(frozen=True, kw_only=True)
class PreprocessOptions(LimitOptions, SamplingOptions):
    """Turn videos and images into WebDataset shards of kept patches; the same line again resumes."""

    sources: Positional[tuple[str, ...]]
    """Files, folders (searched recursively), glob patterns, tars of media, or lists of them: .txt, .csv, .tsv, .jsonl,
    .parquet. Addresses such as s3://bucket/folder may stand wherever paths do."""
    out: str
    """Folder for the shards."""
    selector: str = "rate"
    """Name of the selector; `show --help` lists them."""
    merge: int = 1
    """A power of two: nothing is dropped, quiet regions of up to so many patches a side become one token each. The
    limit, --keep, --tokens or --flops, must allow one for each such region; 1 drops what is not kept."""
    patch_size: int = 16
    """Side of a patch in pixels."""
    size: int = 224
    """Side in pixels the frames are scaled to."""
    store: Store = "mosaic"
    """mosaic: kept patches as one JPEG · raw: exact pixels · index: positions only."""
    workers: int = 1
    """Worker processes, one core each."""
    rank: OptionalInt = None
    """Which of --world processes this one is, each with a share of the inputs; torchrun and SLURM say it themselves."""
    world: OptionalInt = None
    """How many processes share the inputs."""
    ray: OptionalName = None
    """Run the ranks on a Ray cluster: auto, local, or its address."""
    deadline: float = 300.0
    """Seconds one input may take before its worker is killed."""
    max_bad: float = 0.05
    """How many inputs may fail before the exit code is 3: below 1 a fraction, from 1 on a count."""
    salvage: bool = False
    """Take what decodes of damaged videos, and say so in the sample; they fail where not given."""
    retry: bool = False
    """Try the inputs that failed once more; otherwise only when the file has changed."""
    overwrite: bool = False
    """Start afresh where the folder holds shards made with other settings."""
    dry_run: bool = False
    """Write nothing: count the inputs, read some headers and estimate frames and tokens."""
    shard_samples: int = 1000
    """A shard is closed before it holds more samples."""
    shard_bytes: int = 1 << 26
    """A shard is closed before it is larger."""
    json: bool = False
    """Print one JSON object on stdout."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.sampling()
        _check_positive(patch_size=self.patch_size, size=self.size)
        _check_positive(workers=self.workers, deadline=self.deadline, merge=self.merge)
        _check_positive(shard_samples=self.shard_samples, shard_bytes=self.shard_bytes)
        if not self.sources:
            raise UsageError("name at least one file or folder to preprocess")
        if not self.max_bad >= 0:
            raise UsageError(f"--max-bad must not be negative, got {self.max_bad}")


@dataclass(frozen=True, kw_only=True)
class VerifyOptions:
    """Check every hash and every sample of a folder of shards."""

    shards: Positional[str]
    """Folder, or address, that `preprocess` wrote."""
    json: bool = False
    """Print one JSON object on stdout."""


@dataclass(frozen=True, kw_only=True)
class BenchmarksOptions:
    """List the public benchmarks that load, say what one wants, or check a folder of one and count what loads."""

    name: Positional[OptionalName] = None
    """The benchmark, or NAME:FOLDER; all are listed where not given. Alone: its files, columns and metric."""
    folder: Positional[OptionalPath] = None
    """Folder or zip of its files; for vlmevalkit, llava, video-r1 and webdataset the file itself."""
    split: OptionalName = None
    """The benchmark's usual split where not given."""
    json: bool = False
    """Print one JSON object on stdout."""


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """Train a policy as a TOML file says (stage = align, sft or grpo); the same line again resumes."""

    config: Positional[Path]
    """The run's TOML file."""
    overrides: Positional[tuple[str, ...]] = ()
    """Changes to it, each written key.path=value."""
    json: bool = False
    """Print one JSON object on stdout."""


@dataclass(frozen=True, kw_only=True)
class WatchOptions:
    """Watch a run of `train` that goes on in another terminal: its metrics on one screen, live, until it is done."""

    run: Positional[Path]
    """Folder of the run, the `out` of its recipe."""
    once: bool = False
    """Print one frame and end; so it is wherever stderr is no terminal."""
    every: float = 1.0
    """Seconds between two looks."""
    json: bool = False
    """Print the last step's metrics as one JSON object on stdout, and end."""

    def __post_init__(self) -> None:
        _check_positive(every=self.every)


@dataclass(frozen=True, kw_only=True)
class EvalOptions:
    """Measure a checkpoint's accuracy at several token budgets, a blind baseline included."""

    checkpoint: Positional[Path]
    """Folder that `train` or `save_pretrained` wrote, or that of a LLaVA checkpoint of transformers."""
    tasks: tuple[str, ...] = ()
    """Question families of the World, all of them where not given; or benchmarks, each as NAME:FOLDER."""
    keep: tuple[float, ...] = (1.0, 0.5, 0.25, 0.125)
    """Fractions of patches to keep, each in (0, 1]."""
    selectors: tuple[str, ...] = ("rate", "random")
    """Selectors to compare; the first one is the headline. tome and evs-features let every patch in and fewer tokens
    out of the tower; rate+evs-features selects and reduces, the square root of --keep each."""
    questions: int = 200
    """Questions of every family; of a benchmark so many, spread evenly over it."""
    profile: Profile = "official"
    """How answers are read: by the published rule of the benchmark, where it has one, else as in training (strict);
    all of them so; or wherever an answer stands unambiguously (robust)."""
    attend: OptionalName = None
    """Which patches see each other in the tower: those of a "frame", of so many frames in a row, or of an "input"; the
    policy's own where not given."""
    system: OptionalName = None
    """System message for a policy with a chat template; by default what it was trained with, else the template's."""
    instruction: OptionalName = None
    """What stands behind every question to such a policy, likewise; by default it asks for <think> and <answer>."""
    max_new_tokens: OptionalInt = None
    """Longest answer in tokens; by default what the policy was trained with, else 28, with a chat template 256."""
    seed: int = 0
    """Seed of the questions."""
    json: bool = False
    """Print one JSON object on stdout."""

    def __post_init__(self) -> None:
        _check_keep(*self.keep)
        _check_told_apart(*self.keep)
        _check_attend(self.attend)
        _check_positive(questions=self.questions, max_new_tokens=self.max_new_tokens)
        _check_seed(self.seed)
        if not self.selectors:
            raise UsageError("--selectors takes at least one name")
        if self.profile not in get_args(Profile):
            raise UsageError(f"--profile takes {', '.join(get_args(Profile))}, got {self.profile}")


@dataclass(frozen=True, kw_only=True)
class BenchOptions:
    """Measure what every selector saves beside the dense tower, selection's own cost included."""

    videos: OptionalPath = None
    """Folder of videos; small ones are made where not given."""
    checkpoint: OptionalPath = None
    """Folder that `train` wrote: adds accuracy to every row."""
    model: str = "ViT-B-32"
    """Vision tower: an open_clip model name or a local folder."""
    keep: tuple[float, ...] = (0.5, 0.25, 0.125)
    """Fractions of patches to keep, each in (0, 1]."""
    selectors: tuple[str, ...] = ()
    """Selectors to compare; all of them where not given. As of eval: also rate+tome and the like."""
    inside: tuple[Inside, ...] = ()
    """Beside them, what lets every patch in and fewer tokens out: merged in every block, or pruned behind the last."""
    attend: OptionalName = None
    """Which patches see each other in the tower: those of a "frame", of so many frames in a row, or of an "input"; a
    checkpoint's own where not given, else those of a frame."""
    frames: int = 8
    """Frames taken of every video."""
    repeats: int = 5
    """Times everything is measured; the median is reported."""
    language: OptionalName = None
    """Adds what a language model then costs, counted without running it: a folder with config.json, a name on the hub,
    or a model_type of transformers such as qwen2 for its default sizes."""
    prompt: int = 64
    """Text tokens that the language model reads beside the visual ones."""
    answer: int = 64
    """Tokens that it answers with; of a checkpoint's own language model, which is then run and timed, too."""
    energy: bool = False
    """Adds the joules of every row, where counters of the machine tell them."""
    out: OptionalPath = None
    """Folder for the table and its plot."""
    seed: int = 0
    """Seed of the videos that are made and of random selection."""
    json: bool = False
    """Print one JSON object on stdout."""

    def __post_init__(self) -> None:
        _check_keep(*self.keep)
        dense = () if 1.0 in self.keep else (1.0,)  # a row of every bench
        _check_told_apart(*dense, *self.keep)
        _check_attend(self.attend)
        _check_positive(frames=self.frames, repeats=self.repeats, prompt=self.prompt, answer=self.answer)
        _check_seed(self.seed)
        if not set(self.inside) <= set(get_args(Inside)) or len(set(self.inside)) < len(self.inside):
            raise UsageError(f"--inside takes {' and '.join(get_args(Inside))}, each once, got {' '.join(self.inside)}")
        twice = [name for name, count in Counter((*self.selectors, *self.inside)).items() if count > 1]
        if twice:  # its rows could not be told apart
            raise UsageError(f"{twice[0]} is named twice by --selectors and --inside: once is enough")


@dataclass(frozen=True, kw_only=True)
class DoctorOptions:
    """Check versions, decoders and the accelerator, and say the one line that mends what is wrong."""

    json: bool = False
    """Print one JSON object on stdout."""
