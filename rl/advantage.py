"""Group-relative advantages."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from entropy_vision.errors import UsageError

STD_FLOOR = 1e-4


def grpo_advantages(
    rewards: Tensor,
    *,
    scale: Literal["group", "batch", "none"] = "group",
    baseline: Literal["group", "others"] = "group",
) -> Tensor:
    """Compare each completion with its own group: A = (r - mean of the group) / (std + 1e-4).

    The standard deviation is the unbiased one (divisor n - 1), as in TRL 1.16.

    Args:
        rewards: [P, G], one row a question, G >= 2 completions each; finite.
        scale: "group" divides by the std of the row (DeepSeekMath, arXiv:2402.03300, section 4.1.2); "batch" by the
            std of all P·G rewards (arXiv:2508.08221); "none" does not divide (Dr. GRPO, arXiv:2503.20783).
        baseline: "group" subtracts the mean of the row; "others" leaves the completion itself out of it (RLOO,
            arXiv:2402.14740), which keeps the estimate unbiased where nothing is divided: r - mean of the others is
            the other difference times G / (G - 1).

    Returns:
        float [P, G] on the device of `rewards`. A row of equal rewards is exactly 0: its mean need not be
        representable, and a rounding error over 1e-4 would be a gradient out of nothing.

    Raises:
        UsageError: not [P, G], G < 2 (a group of one has no baseline), rewards not finite, or an unknown scale
            or baseline.
    """
    if scale not in ("group", "batch", "none"):
        raise UsageError(f"grpo_advantages: scale must be group, batch or none, got {scale!r}")
    if baseline not in ("group", "others"):
        raise UsageError(f"grpo_advantages: baseline must be group or others, got {baseline!r}")
    rewards = torch.as_tensor(rewards)
    if rewards.ndim != 2 or rewards.shape[1] < 2:
        raise UsageError(f"grpo_advantages: rewards must be [P, G] with G >= 2, got {list(rewards.shape)}")
    r = rewards if rewards.dtype in (torch.float32, torch.float64) else rewards.float()
    if not bool(torch.isfinite(r).all()):
        raise UsageError("grpo_advantages: rewards must be finite; a reward of nan or inf is a fault of the verifier")
    advantages = r - r.mean(dim=1, keepdim=True)
    if baseline == "others":
        advantages = advantages * (r.shape[1] / (r.shape[1] - 1))
    if scale == "group":
        advantages = advantages / (r.std(dim=1, keepdim=True) + STD_FLOOR)
    elif scale == "batch":
        advantages = advantages / (r.std() + STD_FLOOR)
    equal = (r == r[:, :1]).all(dim=1, keepdim=True)
    return advantages.masked_fill(equal, 0.0)
