"""What a training run is made of: one TOML file, these dataclasses, nothing else."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from entropy_vision.errors import UsageError

from .loss import LossName

Stage = Literal["align", "sft", "grpo"]


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
    heads: int = 4
    """Attention heads of the language model."""
    mlp_width: int = 192
    """Width inside the language model's MLPs."""


@dataclass(frozen=True, kw_only=True)
class DataRecipe:
    """Which scenes are dealt."""

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
    """Scenes a medium from which every step draws."""
    seed: int = 0
    """Seed of the World."""
    video_folder: str = ""
    """Folder where the World's videos are written as H.264 and read back; empty keeps them as arrays."""
    workers: int = 1
    """Processes that make scenes ahead of the trainer; 0 makes them in between."""


@dataclass(frozen=True, kw_only=True)
class BudgetRecipe:
    """How much of a scene the policy sees. Mixed budgets make one policy serve them all."""

    selector: str = "rate"
    """Name of the selector."""
    keep: tuple[float, ...] = (1.0, 0.5, 0.25, 0.125)
    """Fractions of patches to keep; one is drawn for each step."""
    weights: tuple[float, ...] = (0.1, 0.2, 0.4, 0.3)
    """How often each of them is drawn."""


@dataclass(frozen=True, kw_only=True)
class OptimRecipe:
    """Muon for the hidden matrices, AdamW for the rest; a linear warm-up, then constant."""

    lr: float = 2e-3
    """AdamW's learning rate."""
    muon_lr: float = 0.02
    """Muon's learning rate; 0 leaves the matrices to AdamW too."""
    warmup: int = 20
    """Steps of warm-up."""
    cooldown: int = 0
    """Steps of linear decay to a tenth at the end of the run."""
    weight_decay: float = 0.01
    """Decay of matrices; vectors and word embeddings do not decay."""
    beta2: float = 0.98
    """Second moment's decay."""
    max_grad_norm: float = 1.0
    """Gradients are scaled down to this norm."""


@dataclass(frozen=True, kw_only=True)
class SftRecipe:
    """Warm-up on the World's rationales and answers."""

    align_weight: float = 0.3
    """Weight of the alignment loss beside it."""
    stop_accuracy: float = 0.0
    """Stop once greedy accuracy on the validation split reaches this; 0 never."""
    min_steps: int = 0
    """Steps before it may stop: a policy that has only just jumped gains less by GRPO (docs/demo.md)."""


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
    temperature: float = 1.0
    """Sampling temperature."""
    updates: int = 1
    """Optimiser steps on each batch of completions; the ratio bound acts from the second on."""
    max_new_tokens: int = 28
    """Longest completion."""
    accuracy_weight: float = 1.0
    """Weight of the accuracy reward."""
    format_weight: float = 0.1
    """Weight of the format reward."""


@dataclass(frozen=True, kw_only=True)
class EvalRecipe:
    """Measurements on the validation split, for gates and for reward_before and reward_after."""

    every: int = 0
    """Steps between measurements of greedy accuracy; 0 measures none."""
    scenes: int = 60
    """Scenes a medium."""
    keep: float = 0.25
    """Budget of the measurement."""


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
    checkpoint_every: int = 100
    """Steps between checkpoints."""
    policy: PolicyRecipe = field(default_factory=PolicyRecipe)
    data: DataRecipe = field(default_factory=DataRecipe)
    budget: BudgetRecipe = field(default_factory=BudgetRecipe)
    optim: OptimRecipe = field(default_factory=OptimRecipe)
    sft: SftRecipe = field(default_factory=SftRecipe)
    grpo: GrpoRecipe = field(default_factory=GrpoRecipe)
    eval: EvalRecipe = field(default_factory=EvalRecipe)

    def __post_init__(self) -> None:
        if len(self.budget.keep) != len(self.budget.weights):
            raise UsageError("budget.keep and budget.weights must be equally long")
        if self.data.image_scenes + self.data.video_scenes < 1:
            raise UsageError("data.image_scenes and data.video_scenes are both 0: nothing to train on")
        if self.stage == "grpo" and not self.init:
            raise UsageError(
                'stage = "grpo" needs init = "RUN": a policy that cannot answer earns no reward to learn from'
            )
        if self.stage == "grpo" and self.grpo.group_size < 2:
            raise UsageError("grpo.group_size must be at least 2: a group of one has no baseline")
        smallest = min(n for n in (self.data.image_scenes, self.data.video_scenes) if n)
        if not 1 <= self.processes <= smallest:
            raise UsageError(
                f"processes must lie in 1..{smallest}, the scenes of a medium in a step, got {self.processes}"
            )
        if self.steps < 1:
            raise UsageError(f"steps must be at least 1, got {self.steps}")
