"""Policy-gradient losses over completions: GRPO and its relatives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from entropy_vision.errors import UsageError

LossName = Literal["grpo", "dr_grpo", "dapo", "bnpo", "gspo", "cispo"]
KlName = Literal["k1", "k2", "k3", "k3+", "k3r"]
_ROW_MEAN = ("grpo", "gspo")


@dataclass(frozen=True)
class PolicyTerms:
    """The loss and what it says about the step; all but `loss` are detached scalars over the live tokens.

    Attributes:
        loss: the scalar to differentiate.
        kl: mean k3 estimate of the divergence from the reference, nats; 0 where there is no reference.
        old_kl: mean k3 estimate of the divergence from the policy that sampled, nats.
        ratio: mean importance ratio. For gspo, where the ratio belongs to the row, the rows' mean weighted by tokens.
        ratio_highest: largest importance ratio.
        bound_low, bound_high: fraction of live tokens whose gradient the lower or the upper bound takes away
            (cispo: bound_high is the fraction of positive advantage whose weight is capped, the gradient stays;
            bound_low is 0).
        tokens: number of live tokens.
    """

    loss: Tensor
    kl: Tensor
    old_kl: Tensor
    ratio: Tensor
    ratio_highest: Tensor
    bound_low: Tensor
    bound_high: Tensor
    tokens: Tensor

    def metrics(self) -> dict[str, float]:
        """Every term as a plain float, for the log."""
        return {name: float(value.detach()) for name, value in self.__dict__.items()}


def policy_loss(
    logp: Tensor,
    old_logp: Tensor,
    advantages: Tensor,
    mask: Tensor,
    *,
    ref_logp: Tensor | None = None,
    beta: float = 0.0,
    eps_low: float = 0.2,
    eps_high: float = 0.2,
    loss: LossName = "grpo",
    kl: KlName = "k3",
    denominator: float | Tensor | None = None,
) -> Tensor:
    """The loss of B completions of up to T tokens. With r = exp(logp - old_logp) and A the row's advantage:

        per token  l = -min(r·A, clamp(r, 1 - eps_low, 1 + eps_high)·A) + beta·kl      (all but cispo)

        grpo     (1/B) Σ_rows (Σ l / live tokens of the row)       DeepSeekMath, arXiv:2402.03300, eq. 3 and 4
        dr_grpo  Σ l / (B·T)                                       Dr. GRPO, arXiv:2503.20783
        dapo     Σ l / live tokens of the batch, all ranks         DAPO, arXiv:2503.14476 (there with eps_high .28)
        bnpo     Σ l / live tokens of the batch at hand            the token mean as TRL names it
        gspo     as grpo, r = exp(mean of the row's log-ratios)    GSPO, arXiv:2507.18071
        cispo    l = -stopgrad(min(r, eps_high))·A·logp + beta·kl, Σ l / live tokens, all ranks;
                 eps_high is the cap itself                        MiniMax-M1, arXiv:2506.13585

    With d = ref - logp, the estimates of the divergence from the reference (Schulman, "Approximating KL divergence",
    2020) and what their gradient is worth where the policy itself has sampled (arXiv:2506.09477):

        k1    -d                     its mean is the divergence, its gradient's mean is 0: nothing is learned from it
        k2    d²/2                   its mean is not, its gradient's mean is the divergence's
        k3    exp(d) - d - 1         never negative; its gradient's mean is that of KL(reference, policy)
        k3+   the value of k3, the gradient of k2: a straight-through form
        k3r   r·k3                   unbiased off the policy too (DeepSeek-V3.2, arXiv:2512.02556); TRL's default

    What stands where the mask is 0 never matters, not even nan or -inf; a row without live tokens adds 0 and still
    counts in B. Half-precision input is computed in float32.

    Args:
        logp: [B, T] log-probability of each token under the policy, nats; the only one that is differentiated.
        old_logp: [B, T] under the policy that sampled.
        advantages: [B].
        mask: [B, T] bool or 0/1, the tokens of the completion.
        ref_logp: [B, T] under the reference; needed where beta is not 0.
        beta: weight of the KL term, >= 0.
        eps_low, eps_high: bounds of the ratio.
        loss: name of the loss.
        kl: name of the KL estimate above.
        denominator: replaces B, B·T or the live tokens above. A trainer that splits a batch over micro-batches and
            ranks passes the count of the whole batch (`loss_denominator`), and the losses of the parts, added up,
            are the loss of the whole, whatever the split.

    Returns:
        Scalar tensor.

    Raises:
        UsageError: shapes that do not fit, an unknown loss or estimate, beta without a reference.
    """
    return policy_terms(
        logp,
        old_logp,
        advantages,
        mask,
        ref_logp=ref_logp,
        beta=beta,
        eps_low=eps_low,
        eps_high=eps_high,
        loss=loss,
        kl=kl,
        denominator=denominator,
    ).loss


def policy_terms(
    logp: Tensor,
    old_logp: Tensor,
    advantages: Tensor,
    mask: Tensor,
    *,
    ref_logp: Tensor | None = None,
    beta: float = 0.0,
    eps_low: float = 0.2,
    eps_high: float = 0.2,
    loss: LossName = "grpo",
    kl: KlName = "k3",
    denominator: float | Tensor | None = None,
) -> PolicyTerms:
    """Like `policy_loss`, with the figures a training log wants beside the loss."""
    _check(logp, old_logp, advantages, mask, ref_logp, beta, loss, kl)
    live = mask.bool()
    logp_BT = _live(logp, live)
    log_ratio_BT = logp_BT - _live(old_logp, live).detach()
    counts_B = live.sum(dim=1).clamp(min=1)
    if loss == "gspo":
        log_ratio_BT = (log_ratio_BT.sum(dim=1) / counts_B)[:, None].expand_as(logp_BT)
    ratio_BT = log_ratio_BT.exp()
    a_B1 = advantages.detach().to(logp_BT.dtype)[:, None]
    if loss == "cispo":
        per_token_BT = -ratio_BT.detach().clamp(max=eps_high) * a_B1 * logp_BT
        low_BT = torch.zeros_like(live)
        high_BT = (ratio_BT > eps_high) & (a_B1 > 0)
    else:
        bound_BT = ratio_BT.clamp(1.0 - eps_low, 1.0 + eps_high)
        per_token_BT = -torch.minimum(ratio_BT * a_B1, bound_BT * a_B1)
        low_BT = (ratio_BT < 1.0 - eps_low) & (a_B1 < 0)
        high_BT = (ratio_BT > 1.0 + eps_high) & (a_B1 > 0)
    kl_BT = torch.zeros_like(logp_BT)
    if ref_logp is not None:
        to_ref_BT = _live(ref_logp, live).detach() - logp_BT
        kl_BT = _k3(to_ref_BT)
        if beta != 0.0:
            per_token_BT = per_token_BT + beta * _penalty(kl, to_ref_BT, kl_BT, ratio_BT)
    total = _aggregate(per_token_BT.masked_fill(~live, 0.0), counts_B, live, loss, denominator)
    return PolicyTerms(
        loss=total,
        kl=_mean(kl_BT, live),
        old_kl=_mean(_k3(_live(old_logp, live) - logp_BT), live),
        ratio=_mean(ratio_BT, live),
        ratio_highest=ratio_BT.detach().masked_fill(~live, 0.0).amax(),
        bound_low=_mean(low_BT.to(logp_BT.dtype), live),
        bound_high=_mean(high_BT.to(logp_BT.dtype), live),
        tokens=live.sum(),
    )


def loss_denominator(mask: Tensor, loss: LossName = "grpo", length: int | None = None) -> Tensor:
    """What `policy_loss` divides by for this mask [B, T]: B, B·T, or the live tokens (at least 1).

    Added up over the parts of a batch it is the `denominator` of every part. `length` stands for T where the parts are
    padded to different ones: the longest completion allowed, as Dr. GRPO's constant is meant.
    """
    if loss in _ROW_MEAN:
        return torch.tensor(float(mask.shape[0]), device=mask.device)
    if loss == "dr_grpo":
        return torch.tensor(float(mask.shape[0] * (length or mask.shape[1])), device=mask.device)
    return mask.bool().sum().clamp(min=1).float()


def _aggregate(
    per_token_BT: Tensor, counts_B: Tensor, live: Tensor, loss: LossName, denominator: float | Tensor | None
) -> Tensor:
    below = loss_denominator(live, loss) if denominator is None else denominator
    if loss in _ROW_MEAN:
        return (per_token_BT.sum(dim=1) / counts_B).sum() / below
    return per_token_BT.sum() / below


def _live(x: Tensor, live: Tensor) -> Tensor:
    """Float [B, T] with zeros where nothing lives: garbage there must not meet exp, nor its gradient nan·0."""
    filled = x.masked_fill(~live, 0.0)
    return filled if filled.dtype in (torch.float32, torch.float64) else filled.float()


def _mean(x: Tensor, live: Tensor) -> Tensor:
    return x.detach().masked_fill(~live, 0.0).sum() / live.sum().clamp(min=1)


def _k3(log_ratio: Tensor) -> Tensor:
    # expm1 keeps the digits that exp(x) - 1 loses near 0, where a policy is for most of a training
    return torch.expm1(log_ratio) - log_ratio


def _penalty(kl: KlName, to_ref: Tensor, k3: Tensor, ratio: Tensor) -> Tensor:
    """The estimate that is differentiated; `to_ref` is ref - logp."""
    if kl == "k1":
        return -to_ref
    half_square = to_ref.square() / 2
    if kl == "k2":
        return half_square
    if kl == "k3+":
        return k3.detach() + (half_square - half_square.detach())
    return k3 * ratio if kl == "k3r" else k3


def _check(
    logp: Tensor,
    old_logp: Tensor,
    advantages: Tensor,
    mask: Tensor,
    ref_logp: Tensor | None,
    beta: float,
    loss: str,
    kl: str,
) -> None:
    for name, chosen, known in (("loss", loss, get_args(LossName)), ("kl", kl, get_args(KlName))):
        if chosen not in known:
            raise UsageError(f"policy_loss: {name} must be one of {', '.join(known)}, got {chosen!r}")
    if logp.ndim != 2:
        raise UsageError(f"policy_loss: logp must be [B, T], got {list(logp.shape)}")
    for name, x in (("old_logp", old_logp), ("mask", mask), ("ref_logp", ref_logp)):
        if x is not None and x.shape != logp.shape:
            raise UsageError(f"policy_loss: {name} must be {list(logp.shape)} like logp, got {list(x.shape)}")
    if advantages.shape != logp.shape[:1]:
        raise UsageError(f"policy_loss: advantages must be [{logp.shape[0]}], got {list(advantages.shape)}")
    if beta < 0.0:
        raise UsageError(f"policy_loss: beta must be >= 0, got {beta}")
    if beta != 0.0 and ref_logp is None:
        raise UsageError("policy_loss: beta is not 0, so ref_logp is needed")
