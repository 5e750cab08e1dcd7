"""Group-relative advantages."""

from __future__ import annotations

import oracles_rl
import pytest
import torch

from entropy_vision.errors import UsageError
from entropy_vision.rl import grpo_advantages

torch.set_num_threads(1)


@pytest.mark.parametrize("baseline", ["group", "others"])
@pytest.mark.parametrize("scale", ["group", "batch", "none"])
def test_grpo_advantages_equals_plain_loops(scale: str, baseline: str) -> None:
    rewards = torch.rand(7, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    rewards[3] = 0.1
    expected = torch.tensor(oracles_rl.advantages(rewards.tolist(), scale, baseline), dtype=torch.float64)
    ours = grpo_advantages(rewards, scale=scale, baseline=baseline)  # type: ignore[arg-type]
    torch.testing.assert_close(ours, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("scale", ["group", "batch", "none"])
@pytest.mark.parametrize("value", [0.1, 1.1, 1 / 3, 1e6, -0.7])
def test_grpo_advantages_are_exactly_zero_when_a_group_is_equal(scale: str, value: float) -> None:
    rewards = torch.tensor([[value] * 7, [0.0, 1.0, 0, 0, 0, 0, 0]])
    advantages = grpo_advantages(rewards, scale=scale)
    assert (advantages[0] == 0).all() and (advantages[1] != 0).all()


def test_grpo_advantages_keep_the_order_of_the_rewards_and_sum_to_zero() -> None:
    rewards = torch.tensor([[0.0, 0.1, 1.1, 1.0]])
    advantages = grpo_advantages(rewards)
    assert advantages.argsort().tolist() == rewards.argsort().tolist()
    assert abs(advantages.sum().item()) < 1e-6


def test_grpo_advantages_gives_float32_for_whole_numbers_and_half_precision() -> None:
    for dtype in (torch.int64, torch.bool, torch.bfloat16):
        advantages = grpo_advantages(torch.tensor([[0, 1, 1, 0]]).to(dtype))
        assert advantages.dtype == torch.float32
        torch.testing.assert_close(advantages, grpo_advantages(torch.tensor([[0.0, 1, 1, 0]])))


@pytest.mark.parametrize(
    "rewards",
    [torch.zeros(4), torch.zeros(4, 1), torch.zeros(2, 2, 2), torch.tensor([[float("nan"), 1]])],
    ids=["one axis", "group of one", "three axes", "nan"],
)
def test_grpo_advantages_refuses_what_has_no_baseline(rewards: torch.Tensor) -> None:
    with pytest.raises(UsageError, match="grpo_advantages"):
        grpo_advantages(rewards)


def test_grpo_advantages_refuses_an_unknown_scale_or_baseline() -> None:
    with pytest.raises(UsageError, match="group, batch or none"):
        grpo_advantages(torch.zeros(1, 2), scale="rows")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="group or others"):
        grpo_advantages(torch.zeros(1, 2), baseline="mean")  # type: ignore[arg-type]
