"""Rollouts: the sampler's log-probabilities are the scorer's, shared prefixes change nothing, gradients included."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from entropy_vision.policy import EntropyVLM, Prefix
from entropy_vision.rl.rollout import grow, pad_rows, read_prompts, sample, score
from entropy_vision.text import ASSISTANT, IMAGE, completion_ids, prompt_ids, token_id
from tests.small_policy import noise_frames, pack, small_policy

QUESTIONS = ["is the red circle left of the blue circle ?", "how many red ?", "how many blue circle ?"]
GOLD = ["<think> r1 c2 </think> <answer> left </answer>", "<answer> 2 </answer>", "<think> none"]


def test_scorer_gives_the_samplers_log_probabilities() -> None:
    model, tokenizer = small_policy(seed=1)
    patches = pack(noise_frames(0), noise_frames(1, size=64))
    prompts = [prompt_ids(tokenizer, q) for q in QUESTIONS]
    with torch.no_grad():
        questions = read_prompts(model, tokenizer, model.read_patches(patches), torch.tensor([0, 0, 1]), prompts)
        rollouts = sample(
            model,
            tokenizer,
            questions,
            group=4,
            max_new_tokens=9,
            generator=torch.Generator().manual_seed(0),
            temperature=0.7,
        )
        again = score(model, tokenizer, questions, rollouts.ids, rollouts.mask, temperature=0.7)
        apart = questions.rows(torch.arange(3).repeat_interleave(4))
        one_a_row = score(model, tokenizer, apart, rollouts.ids, rollouts.mask, temperature=0.7)
    assert len(set(rollouts.texts)) > 6
    assert rollouts.mask.sum(1).min() >= 1
    assert torch.allclose(again, rollouts.logp, atol=1e-5)
    assert torch.allclose(again, one_a_row, atol=1e-5)
    assert (rollouts.logp[~rollouts.mask] == 0).all()


@pytest.mark.parametrize("group", [1, 3])
def test_rows_that_are_let_go_leave_the_others_as_they_are(group: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model, tokenizer = small_policy(seed=1)
    logits, let_go = EntropyVLM.logits, []

    def ends_soon(self: EntropyVLM, hidden: torch.Tensor) -> torch.Tensor:
        out = logits(self, hidden)
        out[..., tokenizer.eos_token_id] += 2.5
        return out

    monkeypatch.setattr(EntropyVLM, "logits", ends_soon)
    pictures = model.read_patches(pack(*(noise_frames(i) for i in range(24))))
    prompts = [prompt_ids(tokenizer, QUESTIONS[i % 3]) for i in range(24)]
    with torch.no_grad():
        questions = read_prompts(model, tokenizer, pictures, torch.arange(24), prompts)
        rows = Prefix.rows
        monkeypatch.setattr(Prefix, "rows", lambda self, index: let_go.append(len(index)) or rows(self, index))
        generator = torch.Generator().manual_seed(0)
        rollouts = sample(model, tokenizer, questions, group=group, max_new_tokens=12, generator=generator)
        assert len(let_go) >= 2 and let_go == sorted(let_go, reverse=True)
        again = score(model, tokenizer, questions, rollouts.ids, rollouts.mask)
    assert torch.allclose(again, rollouts.logp, atol=1e-5)


def test_a_token_stands_in_the_same_slot_for_sampler_and_scorer(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that sums over keys take the same terms in the same places, whatever other rows do; rows end early, part late
    and are let go."""
    model, tokenizer = small_policy(seed=1)
    logits, read_lanes, read = EntropyVLM.logits, EntropyVLM.read_lanes, []

    def likes_few(self: EntropyVLM, hidden: torch.Tensor) -> torch.Tensor:
        out = logits(self, hidden)
        out[..., tokenizer.eos_token_id] += 2.5
        out[..., 20:24] += 1.0
        return out

    def recorded(
        self: EntropyVLM, prefix: Prefix, ids: torch.Tensor, steps: object, *sees: object, **most: int
    ) -> object:
        read.append((ids, *sees, *most.values()))
        return read_lanes(self, prefix, ids, steps, *sees, **most)

    monkeypatch.setattr(EntropyVLM, "logits", likes_few)
    monkeypatch.setattr(EntropyVLM, "read_lanes", recorded)
    rows, group = 24, 3
    with torch.no_grad():
        pictures = model.read_patches(pack(*(noise_frames(i) for i in range(rows))))
        prompts = [prompt_ids(tokenizer, QUESTIONS[i % 3]) for i in range(rows)]
        asked = read_prompts(model, tokenizer, pictures, torch.arange(rows), prompts)
        past, row_of = asked.live.shape[1], {}
        rows_taken = Prefix.rows
        still: list[torch.Tensor] = []
        monkeypatch.setattr(Prefix, "rows", lambda self, index: still.append(index) or rows_taken(self, index))
        drawn = sample(
            model, tokenizer, asked, group=group, max_new_tokens=60, generator=torch.Generator().manual_seed(3)
        )
        steps = read.copy()
        score(model, tokenizer, asked, drawn.ids, drawn.mask, max_new_tokens=60)
    (tokens, sees, room) = read[-1]
    assert {step[-1] for step in steps} == {room} == {past + 4 * 60} and len(steps) < 60  # three lanes are four
    assert len(steps) > 4 and still and len({int(m.sum()) for m in drawn.mask}) > 3
    tree = grow(drawn.ids.tolist(), drawn.mask.sum(1).tolist(), rows, 0)
    alive = list(range(rows))
    let_go = iter(still)
    for t, (ids, seen, slots, _) in enumerate(steps):
        assert ids.shape[1] % 2 == 0  # a group of 3, at its root a single token
        if len(ids) < len(alive):
            alive = [alive[i] for i in next(let_go).tolist()]
        for place, row in enumerate(alive):
            nodes = {int(tree.node[b, t]) for b in range(row * group, (row + 1) * group) if drawn.mask[b, t]}
            lanes = {int(slot) - past: lane for lane, slot in enumerate(slots[place])}
            assert sorted(nodes) == sorted(lanes)[: len(nodes)]
            for node in nodes:
                lane, width = lanes[node], seen.shape[2]
                assert ids[place, lane] == tokens[row, node]
                there = torch.nn.functional.pad(sees[row, node], (0, max(0, width - sees.shape[2])))
                assert torch.equal(seen[place, lane], there[:width]) and not there[width:].any()
                row_of[row, node] = t
    assert len(row_of) == len(
        {(b // group, int(n)) for b in range(len(tree.node)) for n in tree.node[b][drawn.mask[b]]}
    )


def test_rows_scored_apart_from_the_others_have_what_they_were_sampled_with() -> None:
    model, tokenizer = small_policy(seed=1)
    prompts = [prompt_ids(tokenizer, q) for q in QUESTIONS]
    with torch.no_grad():
        pictures = model.read_patches(pack(*(noise_frames(i) for i in range(3))))
        asked = read_prompts(model, tokenizer, pictures, torch.arange(3), prompts)
        drawn = sample(model, tokenizer, asked, group=4, max_new_tokens=9, generator=torch.Generator().manual_seed(0))
        for some in ([0], [2], [1, 2]):
            mine = torch.tensor([row * 4 + i for row in some for i in range(4)])
            part = score(model, tokenizer, asked.rows(torch.tensor(some)), drawn.ids[mine], drawn.mask[mine])
            torch.testing.assert_close(part, drawn.logp[mine], rtol=0, atol=2e-6)


def test_sampler_never_takes_a_token_outside_the_support() -> None:
    model, tokenizer = small_policy(seed=2)
    with torch.no_grad():
        start = model.empty_prefix(256)
        rollouts = sample(model, tokenizer, start, max_new_tokens=4, generator=torch.Generator().manual_seed(0))
    assert not model.blocked[rollouts.ids[rollouts.mask]].any()


def test_completions_end_at_the_end_mark_and_say_when_they_were_cut() -> None:
    model, tokenizer = small_policy(seed=3)
    with torch.no_grad():
        rollouts = sample(
            model, tokenizer, model.empty_prefix(200), max_new_tokens=12, generator=torch.Generator().manual_seed(1)
        )
    end = tokenizer.eos_token_id
    for ids, mask, cut in zip(rollouts.ids, rollouts.mask, rollouts.truncated, strict=True):
        live = ids[mask].tolist()
        assert mask.tolist() == sorted(mask.tolist(), reverse=True)
        assert (live[-1] == end) != bool(cut)
        assert end not in live[:-1]
    assert rollouts.truncated.any() and not rollouts.truncated.all()


def test_shared_prefix_equals_one_pass_a_completion_with_gradients() -> None:
    """Oracle: every completion alone, through forward with placeholders, its picture encoded for itself."""
    model, tokenizer = small_policy(seed=4)
    pictures = [noise_frames(5), noise_frames(6, frames=3, size=48)]
    owner = [0, 1, 1]
    weights = torch.tensor([0.5, -1.0, 2.0])
    golds = [completion_ids(tokenizer, g) for g in GOLD]

    prompts = [prompt_ids(tokenizer, q) for q in QUESTIONS]
    prefix = read_prompts(model, tokenizer, model.read_patches(pack(*pictures)), torch.tensor(owner), prompts)
    shared = score(model, tokenizer, prefix, *pad_rows(golds, 0)).sum(1)
    (shared * weights).sum().backward()
    gradients = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()

    alone = []
    for gold, prompt, who in zip(golds, prompts, owner, strict=True):
        patches = pack(pictures[who])
        ids = torch.tensor([[token_id(tokenizer, IMAGE)] * patches.counts[0] + prompt + gold])
        logp = model(ids, patches=patches).logits[0, -len(gold) - 1 : -1].log_softmax(-1)
        alone.append(logp[torch.arange(len(gold)), torch.tensor(gold)].sum())
    (torch.stack(alone) * weights).sum().backward()

    assert torch.allclose(shared, torch.stack(alone), atol=1e-4)
    for name, parameter in model.named_parameters():
        if name in gradients:
            scale = parameter.grad.abs().max().clamp_min(1e-3)
            assert torch.allclose(gradients[name] / scale, parameter.grad / scale, atol=1e-4), name


def test_lanes_of_one_row_do_not_see_each_other_and_gradients_add_up() -> None:
    model, tokenizer = small_policy(seed=6)
    ids, mask = pad_rows([completion_ids(tokenizer, g) for g in GOLD], 0)
    prompt = [prompt_ids(tokenizer, QUESTIONS[0])]
    results = []
    for lanes in (True, False):
        model.zero_grad()
        question = read_prompts(model, tokenizer, model.read_patches(pack(noise_frames(8))), torch.tensor([0]), prompt)
        logp = score(
            model, tokenizer, question if lanes else question.rows(torch.zeros(3, dtype=torch.long)), ids, mask
        )
        (logp.sum(1) * torch.tensor([1.0, -2.0, 0.5])).sum().backward()
        results.append((logp.detach(), model.projector.look.weight.grad.clone()))
    (one, gradient), (other, expected) = results
    assert torch.allclose(one, other, atol=1e-5)
    assert torch.allclose(gradient, expected, atol=1e-4 * float(expected.abs().max()))


def test_padding_of_other_rows_changes_nothing() -> None:
    model, tokenizer = small_policy(seed=5)
    short = prompt_ids(tokenizer, "how many ?")
    long = prompt_ids(tokenizer, QUESTIONS[0])
    ids, mask = pad_rows([completion_ids(tokenizer, GOLD[0])], 0)
    with torch.no_grad():
        pictures = model.read_patches(pack(noise_frames(7)))
        alone = read_prompts(model, tokenizer, pictures, torch.tensor([0]), [short])
        beside = read_prompts(model, tokenizer, pictures, torch.tensor([0, 0]), [short, long])
        one = score(model, tokenizer, alone, ids, mask)
        two = score(model, tokenizer, beside, ids.repeat(2, 1), mask.repeat(2, 1))
    assert torch.allclose(one[0], two[0], atol=1e-5)


def test_prompt_ends_with_the_mark_that_starts_a_completion() -> None:
    _, tokenizer = small_policy()
    assert prompt_ids(tokenizer, QUESTIONS[0])[-1] == token_id(tokenizer, ASSISTANT)


@pytest.mark.parametrize("rows", [[[1, 2, 3], [4]], [[5], [6]]])
def test_pad_rows_keeps_every_token_and_marks_the_rest(rows: list[list[int]]) -> None:
    ids, live = pad_rows(rows, 9)
    assert [i[m].tolist() for i, m in zip(ids, live, strict=True)] == rows
    assert (ids[~live] == 9).all()


@pytest.mark.parametrize("seed", range(4))
def test_a_tree_has_every_beginning_once_and_each_sees_its_own(seed: int) -> None:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 7, 12).tolist()
    ids = rng.integers(0, 3, (12, 6)).tolist()
    tree = grow(ids, lengths, 3, start=9)
    for row in range(3):
        mine = range(4 * row, 4 * row + 4)
        beginnings = {(9, *ids[b][:t]) for b in mine for t in range(lengths[b])}
        numbers = {tuple(tree.tokens[row][tree.above[row, n]].tolist()): n for n in range(tree.tokens.shape[1])}
        assert beginnings <= set(numbers)
        for b in mine:
            for t in range(lengths[b]):
                n = int(tree.node[b, t])
                assert tuple(tree.tokens[row][tree.above[row, n]].tolist()) == (9, *ids[b][:t])
                assert int(tree.depth[row, n]) == t
    most = max(
        len({tuple(ids[b][:t]) for b in range(4 * row, 4 * row + 4) for t in range(lengths[b])}) for row in range(3)
    )
    assert tree.tokens.shape[1] == most + most % 2
    assert (tree.depth[:, :-1][tree.depth[:, 1:] > 0] <= tree.depth[:, 1:][tree.depth[:, 1:] > 0]).all()
