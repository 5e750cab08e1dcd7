"""What of a tower is trained: nothing, low-rank maps, everything."""

from __future__ import annotations

import sys

import pytest
import torch
from oracles_encoder import dense_tokens, make_patchset
from small_tower import FAMILIES, small_tower

from entropy_vision.encoder import VisionEncoder
from entropy_vision.errors import UsageError

pytestmark = pytest.mark.usefixtures("steady")


def trained(encoder: VisionEncoder) -> set[str]:
    """Names of the weights that one step changes."""
    before = {name: p.detach().clone() for name, p in encoder.named_parameters()}
    alive = [p for p in encoder.parameters() if p.requires_grad]
    if alive:
        optimiser = torch.optim.SGD(alive, lr=0.1)
        encoder([make_patchset((2, 4, 4), 8, [9, 4])])[0].square().sum().backward()
        optimiser.step()
    return {name for name, p in encoder.named_parameters() if not torch.equal(p, before[name])}


def test_a_frozen_tower_trains_nothing_and_a_free_one_everything_that_tokens_need() -> None:
    encoder = small_tower()
    encoder.train_only("none")
    assert not any(p.requires_grad for p in encoder.parameters())
    encoder.train_only("all")
    assert trained(encoder) == {f"tower.{name}" for name, _ in encoder.tower.named_parameters()} - {"tower.proj"}


def test_what_is_fixed_by_design_stays_so() -> None:
    encoder = small_tower(pos_embed_type="sin_cos_2d")
    encoder.train_only("none")
    encoder.train_only("all")
    assert [name for name, p in encoder.named_parameters() if not p.requires_grad] == ["tower.positional_embedding"]


@pytest.mark.parametrize("family", ["open_clip", "siglip", "eva01", "eva02"])
def test_low_rank_maps_train_alone_and_merge_into_the_weights(family: str) -> None:
    pytest.importorskip("peft", reason="the extra [lora] is not installed")
    encoder, kept = FAMILIES[family](), make_patchset((2, 4, 4), 8, [9, 4])
    names, before = set(encoder.state_dict()), encoder([kept])[0].detach()
    encoder.train_only("lora", rank=2)
    torch.testing.assert_close(encoder([kept])[0], before, rtol=0, atol=1e-6)
    first = trained(encoder)  # A gets a gradient only once B is away from 0
    assert first and all("lora_B" in name for name in first)
    both = trained(encoder)
    maps = {name for name, _ in encoder.named_parameters() if "lora_" in name}
    assert both == maps and any("attn" in name for name in maps) and any("mlp" in name for name in maps)
    after = encoder([kept])[0].detach()
    assert (after - before).abs().max() > 1e-2
    encoder.merge_lora()
    assert set(encoder.state_dict()) == names
    with torch.no_grad():
        torch.testing.assert_close(encoder([kept])[0], after, rtol=0, atol=2e-5)
        dense = dense_tokens(encoder.tower, kept, encoder.mean, encoder.std)
        torch.testing.assert_close(dense, after, rtol=0, atol=2e-5)


def test_wrong_use_says_what_to_mend(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = small_tower()
    with pytest.raises(UsageError, match="'none', 'lora' or 'all'"):
        encoder.train_only("some")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="at least 1"):
        encoder.train_only("lora", rank=0)
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(UsageError, match=r"entropy-vision\[lora\]"):
        encoder.train_only("lora")
    assert all(p.requires_grad for p in encoder.parameters())


def test_low_rank_maps_are_added_once() -> None:
    pytest.importorskip("peft", reason="the extra [lora] is not installed")
    encoder = small_tower()
    encoder.train_only("lora", rank=2)
    with pytest.raises(UsageError, match="merge_lora"):
        encoder.train_only("lora", rank=2)
    encoder.merge_lora()
    encoder.train_only("lora", rank=2)
