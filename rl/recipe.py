"""What a training run is made of: one TOML file, these dataclasses, nothing else."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal

from entropy_vision.attend import read_attend
from entropy_vision.config import HIGHEST_SEED
from entropy_vision.device import Device
from entropy_vision.errors import UsageError

from .loss import KlName, LossName
from .rubric import Rubric, TruncatedPolicy
from .trackers import TrackerName

Stage = Literal["align", "sft", "grpo"]
Each = Literal["step", "scene"]
ContrastView = Literal["none", "shuffled", "random"]


def _check(recipe: Any, low: float, *names: str, above: bool = False, high: float = math.inf) -> None:
    """Every named number of a recipe must be finite and lie in low..high (`above`: low itself is out).

    Raises:
        UsageError: one does not; the message gives the key and the range.
    """
    for name in names:
        value = getattr(recipe, name)
        inside = math.isfinite(value) and low <= value <= high and not (above and value == low)
        if not inside:
            section = type(recipe).__name__.removesuffix("Recipe").lower()
            key = name if section == "train" else f"{section}.{name}"
            wanted = f"{'above' if above else 'at least'} {low}" + ("" if high == math.inf else f", at most {high}")
            raise UsageError(f"{key} must be {wanted}, got {value}")


@dataclass(frozen=True, kw_only=True)
class PolicyRecipe:
    """A new policy's size (used only where `init` is empty)."""

    tower: str = "ev-tiny-96"
    """open_clip model name or local folder."""
    pretrained: str = ""
    """open_clip's pretrained tag; empty for random weights."""
    width: int = 96
    """Width of the language model."""
    layers: int = 2
    """Layers of the language model."""
    heads: int = 8
    """Attention heads of the language model."""
    mlp_width: int = 192
    """Width inside the language model's MLPs."""
    attend: str = "frame"
    """Which patches see each other in the tower: those of one frame, of so many frames in a row (a number as text, a
    group of pictures), or of an input."""

    def __post_init__(self) -> None:
        read_attend(self.attend, "policy.attend")
        _check(self, 1, "width", "layers", "heads", "mlp_width")
        if self.width % (2 * self.heads):
            raise UsageError(
                f"policy.width must be a multiple of 2 * policy.heads, got {self.width} for {self.heads} heads"
            )


@dataclass(frozen=True, kw_only=True)
class DataRecipe:
    """Which scenes are dealt: the World's, or those of the user's own files."""

    questions: tuple[str, ...] = ()
    """Files to learn from, each NAME:FOLDER as `eval --tasks` takes it or NAME/SPLIT:FOLDER; none: the World."""
    shards: tuple[str, ...] = ()
    """Folders that `preprocess` wrote of the files' pictures and videos: kept patches are taken from there, nothing is
    decoded or selected, and a budget can be no larger than what they hold."""
    world_share: float = 0.0
    """Beside files, this share of each medium's scenes in a step is the World's."""
    memory: int = 256
    """Scenes of files a medium that each process keeps in memory once they are decoded, those dealt last."""
    image_scenes: int = 16
    """Image scenes a step."""
    video_scenes: int = 6
    """Video scenes a step."""
    image_size: int = 96
    """Side of an image in pixels."""
    video_size: int = 64
    """Side of a video frame in pixels."""
    frame_count: int = 8
    """Frames of a video."""
    difficulty: float = 0.5
    """The World's difficulty, 0..1."""
    pool: int = 4000
    """Scenes of the World a medium from which every step draws; files are gone through from end to end."""
    seed: int = 0
    """Seed of the World."""
    video_folder: str = ""
    """Folder where the World's videos are written as H.264 and read back; empty keeps them as arrays."""
    micro_tokens: int = 0
    """Most visual tokens a process works on at a time: gradients of the parts are added up, and no more than one part
    is held in memory, for which GRPO reads a part again to learn from it. The loss is that of the whole step; sampled
    tokens differ with the parts, as they do with the number of processes. 0 parts nothing but the media."""
    workers: int = 1
    """Processes that make scenes ahead of the trainer; 0 makes them in between."""

    def __post_init__(self) -> None:
        _check(self, 0, "image_scenes", "video_scenes", "workers", "micro_tokens", "memory")
        _check(self, 1, "image_size", "video_size", "frame_count")
        _check(self, 0, "difficulty", "world_share", high=1)
        _check(self, 0, "seed", high=HIGHEST_SEED)
        most = max(self.image_scenes, self.video_scenes)
        if not most:
            raise UsageError("data.image_scenes and data.video_scenes are both 0: nothing to train on")
        if self.pool < most:
            raise UsageError(f"data.pool must be at least {most}, the scenes of a step, got {self.pool}")
        world = not self.questions or self.world_share > 0
        if world and self.video_scenes and self.frame_count < 4:
            raise UsageError(f"data.frame_count must be at least 4 for videos of the World, got {self.frame_count}")
        if world and min(self.image_size, self.video_size) < 32:
            raise UsageError("data.image_size and data.video_size must be at least 32 for the World's scenes")
        if self.shards and not self.questions:
            raise UsageError("data.shards needs data.questions: the World's scenes are in no shard")
        if self.world_share and not self.questions:
            raise UsageError("data.world_share needs data.questions: without files all scenes are the World's")


@dataclass(frozen=True, kw_only=True)
class PromptRecipe:
    """What is said around a question, to a policy with a chat template. What is left out is what the policy of `init`
    was trained with, and of one that was not trained here the default."""

    system: str | None = None
    """The system message; by default the template's own."""
    instruction: str | None = None
    """Stands behind every question. By default it asks for <think> … </think> and <answer> … </answer>."""


@dataclass(frozen=True, kw_only=True)
class BudgetRecipe:
    """How much of a scene the policy sees. Mixed budgets make one policy serve them all."""

    selector: str = "rate"
    """Name of the selector."""
    keep: tuple[float, ...] = (1.0, 0.5, 0.25, 0.125)
    """Fractions of patches to keep."""
    weights: tuple[float, ...] = (0.1, 0.2, 0.4, 0.3)
    """How often each of them is drawn."""
    each: Each = "step"
    """What one is drawn for: every step, or every scene, so that a step learns at several budgets. All completions of a
    question see the same patches either way."""

    def __post_init__(self) -> None:
        if not self.keep or len(self.keep) != len(self.weights):
            raise UsageError("budget.keep and budget.weights must be equally long, and not empty")
        if not all(0 < k <= 1 for k in self.keep):
            raise UsageError(f"budget.keep must hold fractions in (0, 1], got {list(self.keep)}")
        if not all(0 <= w < math.inf for w in self.weights) or not any(self.weights):
            raise UsageError(f"budget.weights must be at least 0 and not all 0, got {list(self.weights)}")


@dataclass(frozen=True, kw_only=True)
class OptimRecipe:
    """Muon for the hidden matrices, AdamW for the rest; a linear warm-up, then constant, then a linear cool-down."""

    lr: float = 2e-3
    """AdamW's learning rate."""
    muon_lr: float = 0.02
    """Muon's learning rate; 0 leaves the matrices to AdamW too."""
    warmup: int = 20
    """Steps of warm-up."""
    cooldown: int = 0
    """Steps of linear decay to a tenth at the end of the run, or from the gate on that ends it."""
    weight_decay: float = 0.01
    """Decay of matrices; vectors and word embeddings do not decay."""
    beta2: float = 0.98
    """Second moment's decay."""
    max_grad_norm: float = 1.0
    """Gradients are scaled down to this norm."""

    def __post_init__(self) -> None:
        _check(self, 0, "lr", above=True, high=1e6)
        _check(self, 0, "max_grad_norm", above=True)
        _check(self, 0, "muon_lr", "warmup", "cooldown", "weight_decay")
        _check(self, 0, "beta2", high=1)


@dataclass(frozen=True, kw_only=True)
class SftRecipe:
    """Warm-up on the World's rationales and answers."""

    align_weight: float = 0.3
    """Weight of the alignment loss beside it."""
    answer_weight: float = 1.0
    """Weight of the tokens behind the rationale; those of the rationale weigh 1."""
    stop_accuracy: float = 0.0
    """Once greedy accuracy on the validation split, measured every eval.every steps, reaches this, the run cools down
    and ends; 0 never."""
    min_steps: int = 0
    """Steps before that: a policy that has only just jumped gains less by GRPO (docs/demo.md)."""

    def __post_init__(self) -> None:
        _check(self, 0, "align_weight", "min_steps")
        _check(self, 0, "answer_weight", above=True)
        _check(self, 0, "stop_accuracy", high=1)


@dataclass(frozen=True, kw_only=True)
class GrpoRecipe:
    """Group-relative policy optimisation."""

    group_size: int = 8
    """Completions of one question."""
    beta: float = 0.02
    """Weight of the KL penalty to the policy the run started from; 0 keeps no reference."""
    eps_low: float = 0.2
    """The ratio's lower bound is 1 - eps_low."""
    eps_high: float = 0.2
    """The ratio's upper bound is 1 + eps_high."""
    loss: LossName = "grpo"
    """grpo, dr_grpo, dapo, bnpo, gspo or cispo."""
    scale: Literal["group", "batch", "none"] = "group"
    """What advantages are divided by: group, batch or none."""
    baseline: Literal["group", "others"] = "group"
    """What is subtracted from a reward: the mean of its group, or of the others in it (leave-one-out)."""
    kl: KlName = "k3"
    """Estimate of the KL penalty: k1, k2, k3, k3+ (value of k3, gradient of k2) or k3r (k3 times the ratio)."""
    temperature: float = 1.0
    """Sampling temperature."""
    updates: int = 1
    """Optimiser steps on each batch of completions; the ratio bound acts from the second on."""
    max_new_tokens: int = 0
    """Longest completion, in tokens; 0 leaves it to the policy: 28 of a word-level tokenizer, 256 of any other, and the
    longest demonstration of data.questions where that is longer."""
    profile: Literal["strict", "robust"] = "strict"
    """How answers are read: in a well-formed completion only, or wherever one stands unambiguously (`verify`)."""
    accuracy_weight: float = 1.0
    """Weight of the accuracy reward."""
    format_weight: float = 0.1
    """Weight of the format reward."""
    format_when_wrong: bool = False
    """Pay the format reward to wrong answers too: teaches the form to a policy that lacks it, and can be had without
    looking."""
    format_limit: float = 0.1
    """The format weight may be at most this share of the accuracy weight."""
    when_truncated: TruncatedPolicy = "no_format"
    """What a completion earns that reaches max_new_tokens: pay (as any other), no_format, or zero."""
    when_unparsable: float = 0.0
    """Added where no answer can be read, at most 0."""
    equal_groups: Literal["keep", "skip", "resample"] = "keep"
    """Groups whose rewards are all equal carry no advantage, only their part of the KL penalty: keep reads them in the
    training forward all the same, as the objective is written; skip saves that; resample draws them again, and skips
    those that stay equal. All count in the mean."""
    engine: Literal["own", "vllm"] = "own"
    """Who samples completions: the policy itself, or vLLM (experimental; see docs/training.md)."""
    engine_python: str = ""
    """The Python of an environment with vLLM, where it is not this one."""
    resample_rounds: int = 3
    """How often resample draws a group again at most. Reward and its like are logged of the first draw."""

    contrast: ContrastView = "none"
    """Compare each group with half as many completions that see another view of its scene, and pay its right answers
    more where it does as well or better (see `contrast`): shuffled takes the frames of a video in another order, random
    as many patches by lot."""
    contrast_weight: float = 0.3
    """What a right answer then earns beside its reward."""
    contrast_factor: float = 0.8
    """The group's accuracy must be at least this much of the contrast's."""

    def __post_init__(self) -> None:
        _check(self, 0, "contrast_weight", "contrast_factor")
        _check(self, 2, "group_size")  # a group of one has no baseline
        _check(self, 0, "max_new_tokens")
        _check(self, 1, "updates", "resample_rounds")
        _check(self, 0, "temperature", above=True)
        _check(self, 0, "beta", "eps_high", "accuracy_weight", "format_weight")
        _check(self, 0, "eps_low", high=1)
        if self.format_weight > self.format_limit * self.accuracy_weight * (1 + 1e-9):
            raise UsageError(
                f"grpo.format_weight = {self.format_weight:g} is above {self.format_limit:g} (grpo.format_limit) of "
                f"grpo.accuracy_weight = {self.accuracy_weight:g}: a policy would live on it. Lower it, or raise that"
            )
        if not self.accuracy_weight + self.format_weight:
            raise UsageError("grpo.accuracy_weight and grpo.format_weight are both 0: nothing would be rewarded")
        self.rubric()

    def rubric(self) -> Rubric:
        """What its completions earn."""
        return Rubric(
            accuracy=self.accuracy_weight,
            format=self.format_weight,
            profile=self.profile,
            format_when_wrong=self.format_when_wrong,
            when_truncated=self.when_truncated,
            when_unparsable=self.when_unparsable,
            format_limit=self.format_limit,
        )


@dataclass(frozen=True, kw_only=True)
class CurriculumRecipe:
    """Which questions GRPO asks more of; see `curriculum`."""

    by: Literal["none", "learnability"] = "none"
    """none asks all alike; learnability asks a kind of question in proportion to p (1 - p), p being the accuracy of its
    recent groups, and of several difficulties draws scenes of those whose questions have most of it."""
    difficulties: tuple[float, ...] = ()
    """The World's difficulties to draw scenes of, each told apart; none: data.difficulty alone."""
    floor: float = 0.2
    """The least weight of a kind, as a share of the greatest: nothing is forgotten."""
    window: int = 20
    """Steps after which what a group showed weighs a third."""
    lag: int = 16
    """Steps from a group to the first that it weighs in: so far ahead batches may be made."""

    def __post_init__(self) -> None:
        _check(self, 0, "floor", above=True, high=1)
        _check(self, 1, "window", "lag")
        if not all(0 <= one <= 1 for one in self.difficulties) or len(set(self.difficulties)) < len(self.difficulties):
            raise UsageError(
                f"curriculum.difficulties must be different numbers in 0..1, got {list(self.difficulties)}"
            )
        if self.difficulties and self.by == "none":
            raise UsageError('curriculum.difficulties needs curriculum.by = "learnability": nothing chooses among them')


@dataclass(frozen=True, kw_only=True)
class EvalRecipe:
    """Measurements on the validation split, for gates and for reward_before and reward_after."""

    questions: tuple[str, ...] = ()
    """Files to be measured on, named as in data.questions; none: the World, or a share of data.questions."""
    share: float = 0.1
    """How much of data.questions is held out where eval.questions names none, in scenes."""
    every: int = 0
    """Steps between measurements of greedy accuracy; 0 measures none."""
    scenes: int = 60
    """Scenes a medium."""
    keep: float = 0.25
    """Budget of the measurement."""

    def __post_init__(self) -> None:
        _check(self, 0, "every")
        _check(self, 1, "scenes")
        _check(self, 0, "keep", "share", above=True, high=1)
        if self.share == 1:
            raise UsageError("eval.share must be below 1: at 1 nothing is left to learn from")


@dataclass(frozen=True, kw_only=True)
class TrainRecipe:
    """One run.

    Raises:
        UsageError: values that cannot work together.
    """

    stage: Stage
    """align, sft or grpo."""
    out: str
    """Folder of the run."""
    init: str = ""
    """Checkpoint or run folder to start from; empty makes a new policy."""
    steps: int = 300
    """Optimiser steps."""
    seed: int = 0
    """Seed of weights, scenes' order and sampling."""
    threads: int = 1
    """torch threads of each process; one beats two for policies of this size."""
    processes: int = 1
    """Processes on this machine that share the scenes of each step; under torchrun its own count holds."""
    parallel: Literal["replicate", "shard"] = "replicate"
    """Several processes each hold the policy and the optimiser's state, or each a part of the state (FSDP2)."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """What matrix products are computed in. Weights, the optimiser's state, logits and losses are single precision."""
    device: Device = "auto"
    """Where it is computed: cpu, cuda (each process on an accelerator of its own), or auto: cuda where there is one."""
    frozen_tower: bool = False
    """Leave the vision tower's weights as they are."""
    gradient_checkpointing: bool = False
    """Keep no activations inside the layers for the backward pass, but compute them again: less memory, more time."""
    trackers: tuple[TrackerName, ...] = ()
    """Where metrics go beside metrics.jsonl: tensorboard (into the run's folder), wandb, trackio."""
    lora: int = 0
    """Rank of the low-rank maps that are trained beside the matrices of tower and language model, with the projector;
    everything else stays as it is. 0 trains every weight."""
    timeout: int = 1800
    """Seconds that a process waits for the others before the run ends with a word on who waits for what."""
    checkpoint_every: int = 100
    """Steps between checkpoints."""
    checkpoint_keep: int = 2
    """Checkpoints that are kept; older ones are removed once a newer one is whole."""
    checkpoint_async: bool = False
    """Write checkpoints behind the steps that follow, from a copy in memory. At most one is written at a time, and the
    run ends when the last one is there."""
    checkpoint_updates: bool = False
    """Save after every update inside a step's batch of completions as well (grpo.updates above 1). A request to stop
    is answered there in any case, and a run goes on from there bit for bit."""
    policy: PolicyRecipe = field(default_factory=PolicyRecipe)
    data: DataRecipe = field(default_factory=DataRecipe)
    prompt: PromptRecipe = field(default_factory=PromptRecipe)
    budget: BudgetRecipe = field(default_factory=BudgetRecipe)
    optim: OptimRecipe = field(default_factory=OptimRecipe)
    sft: SftRecipe = field(default_factory=SftRecipe)
    grpo: GrpoRecipe = field(default_factory=GrpoRecipe)
    curriculum: CurriculumRecipe = field(default_factory=CurriculumRecipe)
    eval: EvalRecipe = field(default_factory=EvalRecipe)

    def __post_init__(self) -> None:
        _check(self, 1, "steps", "threads", "checkpoint_every", "checkpoint_keep", "processes", "timeout")
        _check(self, 0, "lora")
        _check(self, 0, "seed", high=HIGHEST_SEED)
        if self.lora and self.parallel == "shard":
            raise UsageError(
                'lora needs parallel = "replicate": low-rank maps have little of the state that "shard" divides'
            )
        if self.stage == "align" and self.data.questions:
            raise UsageError(
                'stage = "align" learns what each patch shows, which only the World knows: leave out data.questions, '
                'or take stage = "sft"'
            )
        if self.grpo.contrast == "random" and self.data.shards:
            raise UsageError(
                'grpo.contrast = "random" chooses among all patches, and data.shards holds the kept ones: take '
                '"shuffled", or leave out data.shards'
            )
        if self.grpo.contrast == "shuffled" and not self.data.video_scenes:
            raise UsageError(
                'grpo.contrast = "shuffled" takes the frames of videos in another order, and data.video_scenes is 0: '
                'take "random", or deal videos'
            )
        if self.grpo.contrast == "random" and all(keep == 1 for keep in self.budget.keep):
            raise UsageError(
                'grpo.contrast = "random" takes as many patches by lot, and budget.keep = [1.0] leaves no others: '
                "keep fewer"
            )
        if self.stage != "grpo" and self.curriculum.by != "none":
            raise UsageError('curriculum.by = "learnability" needs stage = "grpo": it goes by the accuracy of groups')
        if self.grpo.engine == "vllm" and (self.parallel == "shard" or self.lora):
            raise UsageError('grpo.engine = "vllm" takes whole weights: it needs parallel = "replicate" and lora = 0')
        if self.stage == "grpo" and not self.init:
            raise UsageError(
                'stage = "grpo" needs init = "RUN": a policy that cannot answer earns no reward to learn from'
            )
        if self.stage == "sft" and self.sft.stop_accuracy and not self.eval.every:
            raise UsageError(
                "sft.stop_accuracy is measured every eval.every steps, and that is 0: set one or the other"
            )
        self.check_team(self.processes)

    def check_team(self, size: int) -> None:
        """Every process of a team needs a scene of each medium in every step, and one to be graded on.

        Raises:
            UsageError: there are more processes than that.
        """
        data = self.data
        per_step = [count for count in (data.image_scenes, data.video_scenes) if count]
        if data.questions:  # how many a step has of files is known when they are read
            per_step = []
        most = min([*per_step, self.eval.scenes])
        if size > most:
            raise UsageError(
                f"{size} processes are too many: a step has {most} scenes of a medium (data.image_scenes, "
                "data.video_scenes) or a measurement has (eval.scenes)"
            )
