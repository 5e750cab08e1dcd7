"""What a job costs: tokens, FLOPs, seconds, bytes, memory, and how much of it a selection saves.

FLOPs are 2 for every multiply and add of matrix products, convolutions and attention (torch's counter); norms,
activations, softmax and everything that is done to choose patches count 0 there. So FLOPs never stand alone:
seconds stand beside them, and those of the selection are part of the bill.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from entropy_vision.errors import EntropyVisionError, UsageError
from entropy_vision.measure import Timing, measure_interleaved, measure_peak_memory, measure_seconds
from entropy_vision.tower import Tower

STAGES = ("decode_video", "select", "embed", "tower", "project", "prefill", "decode")
"""Of an answer about a video, in their order: frames out of the file; score, choose and cut out patches; pack and embed
them; the tower's blocks and last norm; the projector; the language model over visual tokens and prompt; its answer,
token by token.

A prompt's last token is the first that an answer reads. `bench` and `policy_flops` count it, with the logits of that
place, as prefill; `bill.answer_costs`, which the demo reports, runs a rollout's own steps, where it is decode's first.
Together prefill and decode are the same there and here."""

__all__ = [
    "STAGES",
    "Cost",
    "CostReport",
    "Timing",
    "UncountedAttention",
    "count_flops",
    "measure_interleaved",
    "measure_peak_memory",
    "measure_seconds",
    "tower_flops",
]

_WATCHED = ("attention", "attn", "grouped_mm")  # in the names of kernels that must not be passed over in silence


class UncountedAttention(EntropyVisionError):
    """A kernel of attention (or of a mixture's experts) ran that the FLOP counter has no formula for: the count would
    be too low."""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What one way of doing a job costs.

    Attributes:
        tokens: visual tokens that are encoded.
        flops: stage -> FLOPs, such as {"tower": ..., "prefill": ...}; `STAGES` are those measured here.
        seconds: stage -> seconds of wall time, the median; choosing patches is the stage "select".
        bytes: pixels that are handed to the tower.
        peak_memory: bytes of memory at the highest point, above where the job began; None where it was not measured.
        quartiles: stage -> (first, third quartile) of its seconds, where it was run several times.
        joules: what counters of the machine went on by (`energy`); None where it was not measured or tells nothing.

    Raises:
        ValueError: a negative number, FLOPs or seconds that sum to nothing, or quartiles of a stage without seconds or
            on one side of its median.
    """

    tokens: int
    flops: Mapping[str, int]
    seconds: Mapping[str, float]
    bytes: int = 0
    peak_memory: int | None = None
    quartiles: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    joules: float | None = None

    def __post_init__(self) -> None:
        numbers = [self.tokens, self.bytes, self.peak_memory or 0, self.joules or 0]
        if min(*numbers, *self.flops.values(), *self.seconds.values()) < 0:
            raise ValueError(f"a cost is never negative: {self}")
        if self.total_flops <= 0 or self.total_seconds <= 0:
            raise ValueError(f"a cost needs FLOPs and seconds, neither stands for the other: {self}")
        for stage, (low, high) in self.quartiles.items():
            if not low <= self.seconds.get(stage, -1.0) <= high:
                raise ValueError(f"a cost's quartiles {low}, {high} of {stage!r} are not around its seconds: {self}")

    @classmethod
    def of_laps(cls, laps: Mapping[str, Sequence[float]], **rest: Any) -> Cost:
        """The cost whose seconds and quartiles are those of what `measure_stages` gave for a job; `rest` as the
        class."""
        timings = {stage: Timing.of(seconds) for stage, seconds in laps.items()}
        return cls(
            seconds={stage: timing.median for stage, timing in timings.items()},
            quartiles={stage: (timing.low, timing.high) for stage, timing in timings.items()},
            **rest,
        )

    @property
    def total_flops(self) -> int:
        """FLOPs of all stages."""
        return sum(self.flops.values())

    @property
    def total_seconds(self) -> float:
        """Seconds of all stages."""
        return sum(self.seconds.values())

    def stages(self) -> dict[str, dict[str, float | None]]:
        """Every stage by itself, those of `STAGES` in their order and others behind them.

        Returns:
            stage -> flops (0 of what does none: decoding, choosing), seconds, and low and high, the quartiles; None
            where nothing was measured.
        """
        named = {**self.flops, **self.seconds}
        order = [stage for stage in STAGES if stage in named] + [stage for stage in named if stage not in STAGES]
        found: dict[str, dict[str, float | None]] = {}
        for stage in order:
            low, high = self.quartiles.get(stage, (None, None))
            found[stage] = {"flops": self.flops.get(stage, 0), "seconds": self.seconds.get(stage)}
            found[stage] |= {"low": low, "high": high}
        return found


@dataclass(frozen=True, kw_only=True)
class CostReport:
    """The bill of a job with every patch beside the same job with the kept ones. Ratios above 1 are savings.

    Attributes:
        dense: with every patch.
        kept: with the kept patches; its seconds hold a stage "select".

    Raises:
        UsageError: `kept` does not say what the selection cost.
    """

    dense: Cost
    kept: Cost

    def __post_init__(self) -> None:
        if "select" not in self.kept.seconds:
            raise UsageError("choosing patches costs time too: give kept.seconds a stage 'select'")

    @classmethod
    def compare(cls, dense: Cost, kept: Cost) -> CostReport:
        """The report of the two. Errors as the class."""
        return cls(dense=dense, kept=kept)

    @property
    def tokens_dense(self) -> int:
        """Visual tokens with every patch."""
        return self.dense.tokens

    @property
    def tokens_kept(self) -> int:
        """Visual tokens with the kept patches."""
        return self.kept.tokens

    @property
    def flops_ratio(self) -> float:
        """FLOPs, dense / kept."""
        return self.dense.total_flops / self.kept.total_flops

    @property
    def wall_ratio(self) -> float:
        """Seconds, dense / kept, the selection's own included."""
        return self.dense.total_seconds / self.kept.total_seconds

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain numbers for JSON."""
        sides: dict[str, Any] = {}
        for name, cost in (("dense", self.dense), ("kept", self.kept)):
            sides |= {
                f"tokens_{name}": cost.tokens,
                f"flops_{name}": dict(cost.flops),
                f"seconds_{name}": dict(cost.seconds),
                f"quartiles_{name}": {stage: list(pair) for stage, pair in cost.quartiles.items()},
                f"bytes_{name}": cost.bytes,
                f"peak_memory_{name}": cost.peak_memory,
                f"joules_{name}": cost.joules,
            }
        return sides | {"flops_ratio": self.flops_ratio, "wall_ratio": self.wall_ratio}


# --- FLOPs


def count_flops(run: Callable[[], object]) -> dict[str, int]:
    """FLOPs of everything torch does inside `run()`, backward passes included; `sum(...values())` is the total.

    Works on any device; on "meta" nothing is computed, so a model of any size can be counted where its code reads no
    values back. Attention under a causal mask counts as the full square, as torch's counter has it.

    Returns:
        Operation ("aten.addmm") -> FLOPs.

    Raises:
        UncountedAttention: a kernel of attention or of a mixture's experts without a formula ran.
    """
    counter = FlopCounterMode(display=False, custom_mapping=_missing_formulas())
    # the watch stands outside: it sees the operations as the counter hands them on, already taken apart
    with _AttentionWatch(counter) as watch, counter:
        run()
    if watch.uncounted:
        names = ", ".join(sorted(watch.uncounted))
        raise UncountedAttention(
            f"no FLOP formula for {names}: register one with torch.utils.flop_counter.register_flop_formula"
        )
    return {str(operation): int(flops) for operation, flops in counter.get_flop_counts().get("Global", {}).items()}


class _AttentionWatch(TorchDispatchMode):
    """Notes attention kernels that the counter passes over in silence."""

    def __init__(self, counter: FlopCounterMode) -> None:
        super().__init__()
        self.counter = counter
        self.uncounted: set[str] = set()

    def __torch_dispatch__(
        self, operation: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        packet = getattr(operation, "_overloadpacket", operation)
        name = str(packet)
        if any(part in name for part in _WATCHED) and packet not in self.counter.flop_registry:
            self.uncounted.add(name)
        return operation(*args, **(kwargs or {}))


def _missing_formulas() -> dict[Any, Callable[..., int]]:
    """Formulas for attention kernels where torch's counter lacks them: the CPU's (before 2.15 they counted 0), and what
    `nn.MultiheadAttention` runs as a whole when no gradient is wanted."""
    aten = torch.ops.aten
    own: dict[Any, Callable[..., int]] = {
        aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops,
        aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward_flops,
        aten._native_multi_head_attention: _whole_attention_flops,
        **_varlen_formulas(),
    }
    known = FlopCounterMode(display=False).flop_registry
    return {operation: formula for operation, formula in own.items() if operation not in known}


def _attention_flops(query: Sequence[int], key: Sequence[int], value: Sequence[int], *_: Any, **__: Any) -> int:
    """Two products a head: queries with keys, weights with values. Shapes [B, heads, length, width]."""
    batch, heads, rows, width = query
    return 2 * batch * heads * rows * key[2] * (width + value[3])


def _varlen_formulas() -> dict[Any, Callable[..., int]]:
    """Those of `torch.nn.attention.varlen`, where torch has it. They read lengths, so not on the meta device."""
    try:
        import torch.nn.attention.varlen  # registers the kernels
    except ImportError:
        return {}
    kernels = torch.ops.torch_attn
    return {kernels._varlen_attn: _varlen_flops, kernels._varlen_attn_backward: _varlen_backward_flops}


def _pairs(starts_q: torch.Tensor, starts_k: torch.Tensor | None) -> int:
    """Queries times keys, over all segments; both are int [S + 1], first row of every segment and the end."""
    keys = starts_q if starts_k is None else starts_k
    return int((starts_q.diff().long() * keys.diff().long()).sum())


def _varlen_flops(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    starts_q: torch.Tensor,
    starts_k: torch.Tensor | None,
    *_: Any,
    **__: Any,
) -> int:
    """As `_attention_flops`, segments of any lengths in one row; query [T, heads, width]."""
    heads, width = query.shape[1:]
    return int(2 * heads * _pairs(starts_q, starts_k) * (width + value.shape[-1]))


def _varlen_backward_flops(
    _grad: torch.Tensor,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    _out: torch.Tensor,
    _lse: torch.Tensor,
    starts_q: torch.Tensor,
    starts_k: torch.Tensor | None,
    *_: Any,
    **__: Any,
) -> int:
    """As `_attention_backward_flops`."""
    heads, width = query.shape[1:]
    return int(2 * heads * _pairs(starts_q, starts_k) * (3 * width + 2 * value.shape[-1]))


# the counter hands these the tensors themselves, not their shapes
_varlen_flops._get_raw = _varlen_backward_flops._get_raw = True  # type: ignore[attr-defined]


def _whole_attention_flops(query: Sequence[int], *_: Any, **__: Any) -> int:
    """Self-attention with its projections in one kernel: queries, keys and values, two products a head, the output."""
    batch, rows, width = query
    return 2 * batch * rows * width * (3 * width + 2 * rows + width)


def _attention_backward_flops(
    _grad: Sequence[int], query: Sequence[int], key: Sequence[int], value: Sequence[int], *_: Any, **__: Any
) -> int:
    """Five products a head: the scores once more, then the gradients of weights, values, queries and keys."""
    batch, heads, rows, width = query
    return 2 * batch * heads * rows * key[2] * (3 * width + 2 * value[3])


def tower_flops(config: Mapping[str, Any], segments: Sequence[int]) -> int:
    """FLOPs of an encoder's `encode`, in closed form; equals `count_flops` exactly.

    Args:
        config: of a `VisionEncoder` or `HFVisionEncoder`.
        segments: patches of every attention segment (of every frame, by default).
    """
    return Tower.from_config(config).flops(segments)
