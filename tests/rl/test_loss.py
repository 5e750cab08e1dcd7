"""Policy losses against plain loops, and against TRL where it is installed."""

from __future__ import annotations

import types
from collections import defaultdict
from typing import Any, get_args

import oracles_rl
import pytest
import torch
from torch import Tensor

from entropy_vision.errors import UsageError
from entropy_vision.rl import policy_loss
from entropy_vision.rl.loss import KlName, LossName, loss_denominator, policy_terms

torch.set_num_threads(1)
LOSSES, KLS = get_args(LossName), get_args(KlName)
BOUNDS = {"cispo": {"eps_high": 1.5}, "dapo": {"eps_high": 0.28}}


def _off_policy(seed: int = 0, rows: int = 8, tokens: int = 12) -> dict[str, Tensor]:
    """Ratios far from 1: noise per token, and per row so that the row's ratio meets its bounds too."""
    g = torch.Generator().manual_seed(seed)
    logp = -torch.rand(rows, tokens, generator=g, dtype=torch.float64) * 3
    shift = 0.4 * torch.randn(rows, 1, generator=g, dtype=torch.float64)
    noise = 0.3 * torch.randn(rows, tokens, generator=g, dtype=torch.float64)
    lengths = torch.randint(1, tokens + 1, (rows,), generator=g)
    return {
        "logp": logp.requires_grad_(),
        "old_logp": (logp + noise + shift).detach(),
        "ref_logp": (logp + 0.5 * torch.randn(rows, tokens, generator=g, dtype=torch.float64)).detach(),
        "advantages": torch.randn(rows, generator=g, dtype=torch.float64),
        "mask": torch.arange(tokens)[None] < lengths[:, None],
    }


def _gradient(loss: Tensor, at: Tensor, retain: bool = False) -> Tensor:
    return torch.autograd.grad(loss, at, retain_graph=retain)[0]


@pytest.mark.parametrize("beta", [0.0, 0.04])
@pytest.mark.parametrize("kl", KLS)
@pytest.mark.parametrize("loss", LOSSES)
def test_policy_loss_equals_plain_loops(loss: LossName, kl: KlName, beta: float) -> None:
    x = _off_policy()
    bounds = {"eps_low": 0.2, "eps_high": 0.2, **BOUNDS.get(loss, {})}
    terms = policy_terms(**x, beta=beta, loss=loss, kl=kl, **bounds)
    plain = {name: x[name].tolist() for name in ("logp", "old_logp", "ref_logp", "advantages", "mask")}
    expected, share = oracles_rl.policy_loss(
        plain["logp"],
        plain["old_logp"],
        plain["advantages"],
        plain["mask"],
        plain["ref_logp"],
        beta,
        **bounds,
        loss=loss,
        kl=kl,
    )
    assert terms.loss.item() == pytest.approx(expected, rel=1e-12)
    assert share > 0.05, "the case must reach the bounds"
    assert (terms.bound_low + terms.bound_high).item() == pytest.approx(share)


@pytest.mark.parametrize("kl", [name for name in KLS if name != "k3+"])
@pytest.mark.parametrize("loss", [name for name in LOSSES if name != "cispo"])
def test_policy_loss_gradient_equals_finite_differences(loss: LossName, kl: KlName) -> None:
    x = _off_policy(seed=3, rows=4, tokens=5)
    gradient = _gradient(policy_loss(**x, beta=0.04, loss=loss, kl=kl), x["logp"])
    step = 1e-6
    for b, t in [(0, 0), (1, 0), (2, 0), (3, 0), (0, 4)]:
        at = []
        for sign in (1, -1):
            moved = x["logp"].detach().clone()
            moved[b, t] += sign * step
            at.append(policy_loss(**{**x, "logp": moved}, beta=0.04, loss=loss, kl=kl).item())
        assert gradient[b, t].item() == pytest.approx((at[0] - at[1]) / (2 * step), abs=1e-7)


def test_the_straight_through_estimate_has_the_value_of_k3_and_the_gradient_of_k2() -> None:
    x = _off_policy(seed=6)
    through, k2, k3 = (policy_loss(**x, beta=0.5, kl=kl) for kl in ("k3+", "k2", "k3"))  # type: ignore[arg-type]
    assert through.item() == k3.item() != k2.item()
    assert torch.equal(_gradient(through, x["logp"]), _gradient(k2, x["logp"]))


def test_what_the_gradients_of_the_estimates_are_worth() -> None:
    """Expectations over a vocabulary, exact: the gradient of KL(policy, reference) is k2's and k3+'s, k1's is 0."""
    g = torch.Generator().manual_seed(0)
    logits = torch.randn(7, generator=g, dtype=torch.float64, requires_grad=True)
    ref = torch.randn(7, generator=g, dtype=torch.float64).log_softmax(0)
    logp = logits.log_softmax(0)
    probability = logp.exp().detach()
    wanted = _gradient((logp.exp() * (logp - ref)).sum(), logits)
    backwards = _gradient((ref.exp() * (ref - logits.log_softmax(0))).sum(), logits)
    seen = {}
    for kl in KLS:
        logp = logits.log_softmax(0)
        each = [
            policy_loss(
                logp[i].view(1, 1), logp[i].detach().view(1, 1), torch.zeros(1), torch.ones(1, 1),
                ref_logp=ref[i].view(1, 1), beta=1.0, kl=kl,
            )
            for i in range(7)
        ]  # fmt: skip
        seen[kl] = _gradient((torch.stack(each) * probability).sum(), logits)
    for kl, expected in {"k1": torch.zeros(7).double(), "k2": wanted, "k3": backwards, "k3+": wanted}.items():
        torch.testing.assert_close(seen[kl], expected, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(seen["k3r"], wanted, rtol=1e-10, atol=1e-12)


def test_policy_loss_gradient_of_cispo_is_the_capped_weight_of_every_token() -> None:
    x = _off_policy(seed=4)
    gradient = _gradient(policy_loss(**{**x, "ref_logp": None}, eps_high=1.5, loss="cispo"), x["logp"])
    weight = (x["logp"] - x["old_logp"]).exp().clamp(max=1.5) * x["advantages"][:, None]
    expected = -weight * x["mask"] / x["mask"].sum()
    torch.testing.assert_close(gradient, expected.detach())


def test_a_bounded_token_has_no_gradient_when_moving_on_would_pay() -> None:
    logp = torch.tensor([[0.5, -0.5]], requires_grad=True)
    loss = policy_loss(logp, torch.zeros(1, 2), torch.ones(1), torch.ones(1, 2))
    gradient = _gradient(loss, logp)
    assert gradient[0, 0] == 0 and gradient[0, 1] != 0


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("kl", ["k3", "k3+", "k3r"])
@pytest.mark.parametrize("garbage", [float("nan"), float("inf"), float("-inf"), 1e30])
def test_policy_loss_ignores_whatever_stands_under_the_mask(loss: LossName, kl: KlName, garbage: float) -> None:
    x = _off_policy(seed=1)
    clean = policy_loss(**x, beta=0.1, loss=loss, kl=kl)
    for name in ("logp", "old_logp", "ref_logp"):
        dirty = {**x, name: x[name].detach().masked_fill(~x["mask"], garbage).requires_grad_(name == "logp")}
        terms = policy_terms(**dirty, beta=0.1, loss=loss, kl=kl)
        assert terms.loss.item() == clean.item()
        assert all(torch.isfinite(torch.tensor(v)) for v in terms.metrics().values())
        gradient = _gradient(terms.loss, dirty["logp"])
        torch.testing.assert_close(gradient, _gradient(clean, x["logp"], retain=True))
        assert (gradient[~x["mask"]] == 0).all()


@pytest.mark.parametrize("loss", LOSSES)
def test_a_row_without_live_tokens_adds_nothing_and_still_counts(loss: LossName) -> None:
    x = _off_policy(seed=2)
    x["mask"][0] = False
    whole = policy_loss(**x, loss=loss)
    rest = policy_loss(**{name: value[1:] for name, value in x.items()}, loss=loss)
    scale = 7 / 8 if loss in ("grpo", "gspo", "dr_grpo") else 1.0
    assert whole.item() == pytest.approx(rest.item() * scale)
    x["mask"][:] = False
    nothing = policy_loss(**x, loss=loss, beta=0.1)
    assert nothing.item() == 0.0 and (_gradient(nothing, x["logp"]) == 0).all()


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("sizes", [[8], [4, 4], [1, 2, 5]])
def test_losses_of_parts_add_up_to_the_loss_of_the_whole(loss: LossName, sizes: list[int]) -> None:
    x = _off_policy(seed=5)
    whole = policy_loss(**x, beta=0.04, loss=loss)
    parts = [dict(zip(x, values, strict=True)) for values in zip(*(v.split(sizes) for v in x.values()), strict=True)]
    below = sum(loss_denominator(p["mask"], loss) for p in parts)
    total = sum(policy_loss(**p, beta=0.04, loss=loss, denominator=below) for p in parts)
    torch.testing.assert_close(total, whole)
    torch.testing.assert_close(_gradient(total, x["logp"]), _gradient(whole, x["logp"]))


def test_policy_loss_takes_a_mask_of_any_dtype_and_half_precision_logs() -> None:
    x = _off_policy()
    expected = policy_loss(**x)
    for dtype in (torch.int64, torch.float32, torch.bool):
        assert policy_loss(**{**x, "mask": x["mask"].to(dtype)}).item() == expected.item()
    half = {name: v.detach().bfloat16() if v.is_floating_point() else v for name, v in x.items()}
    assert policy_loss(**half).dtype == torch.float32


def test_policy_terms_are_silent_at_the_sampling_policy() -> None:
    x = _off_policy()
    terms = policy_terms(**{**x, "old_logp": x["logp"].detach(), "ref_logp": x["logp"].detach()}, beta=0.1)
    m = terms.metrics()
    assert (m["kl"], m["old_kl"], m["bound_low"], m["bound_high"]) == (0, 0, 0, 0)
    assert m["ratio"] == pytest.approx(1.0) and m["ratio_highest"] == 1.0 and m["tokens"] == x["mask"].sum()


def test_policy_loss_refuses_what_does_not_fit() -> None:
    x = _off_policy()
    wrong: list[dict[str, Any]] = [
        {"loss": "ppo"},
        {"kl": "k4"},
        {"ref_logp": None, "beta": 0.1},
        {"beta": -0.1},
        {"advantages": torch.zeros(8, 1)},
        {"mask": torch.ones(8)},
        {"old_logp": torch.zeros(8, 11)},
        {"logp": torch.zeros(8)},
    ]
    for change in wrong:
        with pytest.raises(UsageError, match="policy_loss"):
            policy_loss(**{**x, **change})


def _trl_loss(
    trainer_class: Any, x: dict[str, Tensor], loss: str, beta: float, bounds: dict[str, float], kl: str
) -> Tensor:
    """TRL's own loss code on given log-probabilities: the model's forward is the only thing replaced."""
    rows, tokens = x["logp"].shape
    stand_in = types.SimpleNamespace(
        aux_loss_enabled=False,
        top_entropy_quantile=1.0,
        off_policy_mask_threshold=None,
        importance_sampling_level="sequence" if loss == "gspo" else "token",
        beta=beta,
        args=types.SimpleNamespace(use_bias_correction_kl=kl == "k3r", delta=None, steps_per_generation=1),
        loss_type="grpo" if loss == "gspo" else loss,
        epsilon_low=bounds["eps_low"],
        epsilon_high=bounds["eps_high"],
        use_vllm=False,
        model=types.SimpleNamespace(training=True),
        current_gradient_accumulation_steps=1,
        max_completion_length=tokens,
        accelerator=types.SimpleNamespace(num_processes=1, gather=lambda t: t, reduce=lambda t, **_: t),
        _entropy_bonus_enabled=False,
        use_adaptive_entropy=False,
        _metrics={"train": defaultdict(list)},
    )
    stand_in._get_per_token_logps_and_entropies = lambda *a, **k: (x["logp"], torch.zeros(rows, tokens), None)
    ids = torch.zeros(rows, tokens, dtype=torch.long)
    inputs = {
        "prompt_ids": ids[:, :1],
        "prompt_mask": torch.ones(rows, 1, dtype=torch.long),
        "completion_ids": ids,
        "completion_mask": x["mask"].long(),
        "advantages": x["advantages"],
        "old_per_token_logps": x["old_logp"],
        "ref_per_token_logps": x["ref_logp"],
        "num_items_in_batch": x["mask"].sum(),
    }
    return trainer_class._compute_loss(stand_in, None, inputs)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(("kl", "beta"), [("k3", 0.0), ("k3", 0.04), ("k3r", 0.04)])
@pytest.mark.parametrize("loss", LOSSES)
def test_policy_loss_equals_trl(loss: LossName, kl: KlName, beta: float, dtype: torch.dtype) -> None:
    """Every loss and every estimate that both have, with at least 15 % of the tokens beyond the bounds."""
    trl = pytest.importorskip("trl", reason="TRL is not installed; the plain loops above are the oracle here")
    x = {
        n: v.detach().to(dtype) if v.is_floating_point() else v
        for n, v in _off_policy(seed=3, rows=16, tokens=24).items()
    }
    x["logp"].requires_grad_()
    bounds = {"eps_low": 0.2, "eps_high": 0.2, **BOUNDS.get(loss, {})}
    terms = policy_terms(**x, beta=beta, loss=loss, kl=kl, **bounds)
    assert (terms.bound_low + terms.bound_high).item() >= 0.15, "the case must reach the bounds"
    theirs = _trl_loss(trl.GRPOTrainer, x, loss, beta, bounds, kl)
    tolerance = 1e-12 if dtype == torch.float64 else 1e-6
    torch.testing.assert_close(terms.loss, theirs, rtol=0, atol=tolerance)
    gradient = _gradient(terms.loss, x["logp"])
    assert gradient.abs().max() > 1e-3
    torch.testing.assert_close(gradient, _gradient(theirs, x["logp"]), rtol=0, atol=tolerance)
