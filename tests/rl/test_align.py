"""Dense alignment against plain loops."""

from __future__ import annotations

import math

import pytest
import torch

from entropy_vision.rl.align import alignment_loss, label_counts


def _by_hand(tokens: torch.Tensor, words: torch.Tensor, table: torch.Tensor, groups: list[torch.Tensor]) -> float:
    """For each group: -log softmax of cosines over 0.07, objects and ground averaged apart where both are labelled."""
    total = 0.0
    for g, group in enumerate(groups):
        on_thing: list[float] = []
        on_ground: list[float] = []
        for n in range(len(tokens)):
            right = int(words[n, g])
            if right < 0:
                continue
            cosines = [float(torch.cosine_similarity(tokens[n], table[w], dim=0)) / 0.07 for w in group]
            loss = -(cosines[right] - math.log(sum(math.exp(c) for c in cosines)))
            (on_thing if words[n, 1] >= 0 else on_ground).append(loss)
        parts = [sum(p) / len(p) for p in (on_thing, on_ground) if p]
        total += sum(parts) / len(parts) if parts else 0.0
    return total


def test_alignment_loss_equals_plain_loops_with_gradients() -> None:
    torch.manual_seed(0)
    tokens, table = torch.randn(12, 8, dtype=torch.double, requires_grad=True), torch.randn(20, 8, dtype=torch.double)
    groups = [torch.tensor([0, 1, 2]), torch.tensor([3, 4]), torch.tensor([5, 6, 7, 8])]
    words = torch.full((12, 3), -1, dtype=torch.int8)
    words[:, 0] = 0
    words[2:7, 0] = torch.tensor([1, 2, 1, 2, 2])
    words[2:7, 1] = torch.tensor([0, 1, 1, 0, 1])
    words[2:7, 2] = torch.tensor([0, 3, 2, 1, 1])
    words[9, 0] = -1
    loss, accuracy = alignment_loss(tokens, words, table, groups)
    assert abs(float(loss.detach()) - _by_hand(tokens.detach(), words, table, groups)) < 1e-6
    assert 0 <= float(accuracy) <= 1
    loss.backward()
    step = 1e-5
    half = [
        alignment_loss(tokens.detach()[i], words[i], table, groups, label_counts(words))[0]
        for i in (slice(5), slice(5, 12))
    ]
    assert float(sum(half)) == pytest.approx(float(loss.detach()), abs=1e-9)  # parts of a step add up to it
    moved = tokens.detach().clone()
    moved[3, 2] += step
    slope = (_by_hand(moved, words, table, groups) - _by_hand(tokens.detach(), words, table, groups)) / step
    assert abs(float(tokens.grad[3, 2]) - slope) < 1e-3


def test_where_no_patch_has_a_label_there_is_nothing_to_learn() -> None:
    tokens, table = torch.randn(5, 8, requires_grad=True), torch.randn(20, 8)
    words = torch.full((5, 3), -1, dtype=torch.int8)
    loss, accuracy = alignment_loss(tokens, words, table, [torch.tensor([0, 1]), torch.tensor([2]), torch.tensor([3])])
    loss.backward()
    assert float(loss.detach()) == accuracy == 0 and tokens.grad is not None and not tokens.grad.any()


def test_alignment_is_perfect_where_tokens_are_their_words() -> None:
    table = torch.eye(8)
    groups = [torch.tensor([0, 1, 2]), torch.tensor([3, 4])]
    words = torch.tensor([[0, -1], [1, 0], [2, 1]], dtype=torch.int8)
    tokens = torch.stack([table[0], table[1] + table[3], table[2] + table[4]])
    loss, accuracy = alignment_loss(tokens, words, table, groups)
    assert float(accuracy) == 1.0
    assert float(loss) < 0.01
