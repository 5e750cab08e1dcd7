"""Who samples: the trainer learns from whatever an engine gives, and vLLM gives what the policy would."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import torch
from small_runs import FEW_IMAGES, small_recipe

from entropy_vision.errors import UsageError
from entropy_vision.rl.engines import Wanted
from entropy_vision.rl.metrics import read_metrics
from entropy_vision.rl.recipe import GrpoRecipe, PolicyRecipe
from entropy_vision.rl.rollout import Rollouts, pad_rows, read_questions, score
from entropy_vision.rl.trainer import Trainer
from entropy_vision.rl.vllm_engine import embed_prompts, vllm_engine

PYTHON = os.environ.get("ENTROPY_VISION_VLLM_PYTHON", "")


@dataclass
class Scripted:
    """Says the right answer and a wrong one in turns, with the policy's own log-probabilities."""

    trainer: Trainer
    asked: list[int] = field(default_factory=list)

    def __call__(self, wanted: Wanted) -> Rollouts:
        model, dialect = self.trainer.model, self.trainer.dialect
        self.asked.append(wanted.group * len(wanted.questions))
        rows = []
        for q in wanted.questions:
            right = dialect.demonstration(wanted.batch.asks[q].gold)[0]
            wrong = dialect.demonstration("<think> look </think> <answer> none </answer>")[0]
            rows += [right if i % 2 else wrong for i in range(wanted.group)]
        ids, mask = pad_rows(rows, 0)
        with torch.no_grad():
            logp = score(model, dialect, wanted.read, ids, mask)
        cut = torch.zeros(len(rows), dtype=torch.bool)
        return Rollouts(ids, mask, logp, -logp, cut, [dialect.text(row) for row in rows])


def test_the_policy_learns_from_what_an_engine_gives(tmp_path: Path, guessing: Path) -> None:
    grpo = GrpoRecipe(group_size=4, max_new_tokens=24, beta=0.0)
    recipe = small_recipe("grpo", tmp_path / "run", init=str(guessing), steps=6, grpo=grpo, **FEW_IMAGES)
    trainer = Trainer(recipe)
    engine = Scripted(trainer)
    trainer.context = replace(trainer.context, sampler=engine)
    batch = trainer.validation()[0]
    wanted = Wanted(batch, range(len(batch.asks)), None, 2, 1.0, 24, torch.Generator())  # type: ignore[arg-type]

    def right_over_wrong() -> float:
        with torch.no_grad():
            given = engine(replace(wanted, read=read_questions(trainer.model, trainer.dialect, batch)))
        each = given.logp.sum(1).view(-1, 2)
        return float((each[:, 1] - each[:, 0]).mean())

    before = right_over_wrong()
    trainer.train()
    assert right_over_wrong() > before + 0.5
    rewards = [m["reward"] for m in read_metrics(tmp_path / "run")]
    assert len(set(rewards)) == 1 and 0.5 < rewards[0] < 0.6  # of a script: half are right and well-formed


def test_prompts_are_embedded_as_the_policy_reads_them(tmp_path: Path, guessing: Path) -> None:
    trainer = Trainer(small_recipe("grpo", tmp_path / "run", init=str(guessing), **FEW_IMAGES))
    model, batch = trainer.model, trainer.validation()[0]
    chosen = [len(batch.asks) - 1, 0]
    embedded = embed_prompts(model, trainer.dialect, batch, chosen)
    counts = model.slots(batch.patches).counts
    for q, prompt in zip(chosen, embedded, strict=True):
        ids = trainer.dialect.prompt(batch.asks[q].question)
        assert prompt.shape == (counts[int(batch.owner[q])] + len(ids), model.word_embeddings.shape[1])
        assert torch.equal(prompt[-len(ids) :], model.word_embeddings[torch.tensor(ids)])


def test_vllm_is_refused_where_it_cannot_be_right(tmp_path: Path, guessing: Path) -> None:
    recipe = small_recipe("grpo", tmp_path / "run", init=str(guessing), **FEW_IMAGES)
    with pytest.raises(UsageError, match="visual_positions"):
        Trainer(replace(recipe, grpo=replace(recipe.grpo, engine="vllm"))).train()
    with pytest.raises(UsageError, match="replicate"):
        replace(recipe, grpo=replace(recipe.grpo, engine="vllm"), lora=2)


def _counting(tmp_path: Path) -> Path:
    """A policy that counts visual tokens like text, of a size that vLLM has kernels for."""
    run = tmp_path / "sft"
    policy = PolicyRecipe(width=64, layers=2, heads=2)
    Trainer(small_recipe("sft", run, steps=1, policy=policy, **FEW_IMAGES)).train()
    config = next(run.glob("step-*")) / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"visual_positions": "sequential"}))
    return run


def test_vllm_that_does_not_start_says_why(tmp_path: Path) -> None:
    trainer = Trainer(small_recipe("grpo", tmp_path / "run", init=str(_counting(tmp_path)), **FEW_IMAGES))
    with pytest.raises(UsageError, match="vLLM did not start"), vllm_engine(trainer.model, trainer.dialect, "false"):
        pass


@pytest.mark.slow
@pytest.mark.skipif(not PYTHON, reason="ENTROPY_VISION_VLLM_PYTHON names no Python with vLLM")
def test_vllm_samples_what_the_policy_scores_before_and_after_an_update(tmp_path: Path) -> None:
    grpo = GrpoRecipe(group_size=4, max_new_tokens=8, beta=0.0, temperature=0.8)
    init = str(_counting(tmp_path))
    trainer = Trainer(small_recipe("grpo", tmp_path / "run", init=init, grpo=grpo, **FEW_IMAGES))
    model, dialect, batch = trainer.model, trainer.dialect, trainer.validation()[0]
    generator, questions = torch.Generator().manual_seed(0), list(range(len(batch.asks)))
    with vllm_engine(model, dialect, PYTHON) as engine:
        seen = []
        for turn in range(2):
            if turn:
                with torch.no_grad():
                    for p in model.language.parameters():
                        p.add_(0.1 * torch.randn_like(p))
            read = read_questions(model, dialect, batch)
            given = engine(Wanted(batch, questions, read, 3, 0.8, 8, generator))
            with torch.no_grad():
                scored = score(model, dialect, read, given.ids, given.mask, temperature=0.8)
            torch.testing.assert_close(given.logp, scored, atol=1e-4, rtol=0)
            assert not torch.isin(given.ids[given.mask], model.blocked.nonzero()).any()
            assert len(given.texts) == 3 * len(questions) and len(set(given.texts)) > len(questions)
            seen.append(scored.sum())
        assert abs(seen[0] - seen[1]) > 1e-2
    trainer = Trainer(replace(trainer.recipe, steps=2, grpo=replace(grpo, engine="vllm", engine_python=PYTHON)))
    assert trainer.train()["steps"] == 2
    assert all(m["bounded"] == 0 for m in read_metrics(tmp_path / "run"))
