"""The policy: two ways in give one arithmetic, checkpoints come back bit for bit, wrong prompts are told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from entropy_vision.errors import UsageError
from entropy_vision.policy import load_policy
from entropy_vision.rl.rollout import read_prompts, sample
from entropy_vision.text import IMAGE, completion_ids, decode, load_tokenizer, prompt_ids, token_id
from tests.small_policy import noise_frames, pack, small_policy

QUESTION = "is the red circle left of the blue circle ?"


def _row(tokenizer: object, patches: object, question: str) -> torch.Tensor:
    image = token_id(tokenizer, IMAGE)  # type: ignore[arg-type]
    return torch.tensor([[image] * patches.counts[0] + prompt_ids(tokenizer, question)])  # type: ignore


@pytest.mark.parametrize("visual_positions", ["shared", "sequential"])
def test_forward_equals_reading_in_steps(visual_positions: str) -> None:
    model, tokenizer = small_policy(visual_positions=visual_positions)
    patches = pack(noise_frames(0, frames=3, size=32))
    ids = _row(tokenizer, patches, QUESTION)
    with torch.no_grad():
        whole = model(ids, patches=patches).logits[:, patches.counts[0] :]
        text = ids[:, patches.counts[0] :]
        stepped, _ = model.read(model.read_patches(patches), text, torch.ones_like(text, dtype=torch.bool))
    allowed = ~model.blocked
    assert torch.allclose(whole[..., allowed], stepped[..., allowed], atol=1e-5)
    assert (stepped[..., ~allowed] == float("-inf")).all()


def test_eager_attention_is_that_of_sdpa() -> None:
    """Eager attention adds a mask to its scores, sdpa reads it as true or false; rows of two lengths have padding."""
    model, tokenizer = small_policy()
    patches = pack(noise_frames(0, frames=2, size=32), noise_frames(1))
    prompts = [prompt_ids(tokenizer, q) for q in (QUESTION, "how many red ?")]
    seen = []
    for kind in ("sdpa", "eager"):
        model.language.set_attn_implementation(kind)
        with torch.no_grad():
            prefix = read_prompts(model, tokenizer, model.read_patches(patches), torch.arange(2), prompts)
            logits, _ = model.read(prefix, torch.full((2, 1), prompts[0][-1]), torch.ones(2, 1, dtype=torch.bool))
        seen.append(logits[..., ~model.blocked])
    torch.testing.assert_close(*seen, rtol=0, atol=1e-5)


@pytest.mark.parametrize("visual_positions", ["shared", "sequential"])
def test_generate_equals_greedy_rollouts_of_ragged_rows(visual_positions: str) -> None:
    model, tokenizer = small_policy(visual_positions=visual_positions)
    pictures = [noise_frames(1), noise_frames(2, frames=2, size=40), noise_frames(3, size=64)]
    patches = pack(*pictures)
    assert len(set(patches.counts)) == 3
    questions = [QUESTION, "how many red ?", QUESTION]
    prompts = [prompt_ids(tokenizer, q) for q in questions]
    with torch.no_grad():
        prefix = read_prompts(model, tokenizer, model.read_patches(patches), torch.arange(3), prompts)
    rollouts = sample(model, tokenizer, prefix, temperature=0.0, max_new_tokens=10)
    assert len(set(rollouts.texts)) > 1
    for picture, question, text in zip(pictures, questions, rollouts.texts, strict=True):
        alone = pack(picture)
        ids = _row(tokenizer, alone, question)
        out = model.generate(
            ids, patches=alone, attention_mask=torch.ones_like(ids), max_new_tokens=10, do_sample=False
        )
        assert decode(tokenizer, out[0, ids.shape[1] :].tolist()) == text


def test_generate_encodes_a_picture_once_for_several_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    model, tokenizer = small_policy()
    patches = pack(noise_frames(4))
    calls = []
    encode = model.encoder.encode
    monkeypatch.setattr(model.encoder, "encode", lambda packed: calls.append(1) or encode(packed))
    ids = _row(tokenizer, patches, QUESTION)
    torch.manual_seed(0)
    out = model.generate(
        ids,
        patches=patches,
        attention_mask=torch.ones_like(ids),
        do_sample=True,
        num_return_sequences=5,
        max_new_tokens=6,
    )
    assert out.shape[0] == 5 and len(calls) == 1


def test_text_does_not_see_how_many_patches_were_kept_in_its_positions() -> None:
    model, _ = small_policy()
    few, many = (model.read_patches(pack(noise_frames(5), keep=k)) for k in (0.1, 0.9))
    assert few.next_position.tolist() == many.next_position.tolist() == [1]


def test_checkpoint_comes_back(tmp_path: Path) -> None:
    model, tokenizer = small_policy(seed=3)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    patches = pack(noise_frames(6))
    ids = _row(tokenizer, patches, QUESTION)
    with torch.no_grad():
        here = model(ids, patches=patches).logits[0, -1].tolist()
    again = load_policy(tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), again.state_dict().values(), strict=True))
    assert load_tokenizer(tmp_path).get_vocab() == tokenizer.get_vocab()
    assert again(ids, patches=patches).logits[0, -1].tolist() == pytest.approx(here, abs=1e-6)


def test_wrong_number_of_placeholders_is_told() -> None:
    model, tokenizer = small_policy()
    patches = pack(noise_frames(7))
    ids = _row(tokenizer, patches, QUESTION)[:, 1:]
    with pytest.raises(UsageError, match=r"35.*36 kept patches|\[35\].*\[36\]"):
        model(ids, patches=patches)


def test_folder_without_checkpoint_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no checkpoint"):
        load_policy(tmp_path)
    for kind, mend in (("llava", "from_llava reads it"), ("bert", "name one of `train`")):
        (tmp_path / "config.json").write_text(json.dumps({"model_type": kind}))
        with pytest.raises(UsageError, match=f"checkpoint of '{kind}', not of 'entropy_vlm': .*{mend}"):
            load_policy(tmp_path)


def test_labels_give_the_mean_negative_log_probability() -> None:
    model, tokenizer = small_policy()
    patches = pack(noise_frames(8))
    prompt = _row(tokenizer, patches, QUESTION)
    gold = torch.tensor([completion_ids(tokenizer, "<think> r1 c2 </think> <answer> left </answer>")])
    ids = torch.cat((prompt, gold), 1)
    labels = ids.clone()
    labels[:, : prompt.shape[1]] = -100
    out = model(ids, patches=patches, labels=labels)
    logp = out.logits[0, prompt.shape[1] - 1 : -1].log_softmax(-1)
    by_hand = -logp[torch.arange(gold.shape[1]), gold[0]].mean()
    assert float(out.loss.detach()) == pytest.approx(float(by_hand.detach()), abs=1e-5)


def test_gradients_reach_tower_projector_and_language_model() -> None:
    model, tokenizer = small_policy()
    patches = pack(noise_frames(9))
    ids = _row(tokenizer, patches, QUESTION)
    model(ids, patches=patches, labels=torch.where(ids == token_id(tokenizer, IMAGE), -100, ids)).loss.backward()
    silent = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    # the tower's own output projection is CLIP's, for its pooled embedding; visual tokens do not pass it
    assert all("proj" in n and n.startswith("encoder.") for n in silent), silent
