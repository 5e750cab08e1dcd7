"""Answers of a policy, graded: what gates, curves and tables are made of."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from transformers import PreTrainedTokenizerFast

from entropy_vision.dialect import Dialect, spoken
from entropy_vision.options import Profile
from entropy_vision.policy import EntropyVLM
from entropy_vision.text import answer_text

from .batch import Batch
from .rollout import read_questions, sample
from .rubric import Rubric
from .scenes import Ask
from .verifiers import verify


@dataclass(frozen=True)
class Graded:
    """Q questions, S completions each.

    Attributes:
        keys, families, questions, answers: Q texts.
        accuracy, reward, format: float64 [Q, S], as the rubric reads.
        scores: float64 [Q, S], as `profiles` read: Q names of `verify`.
        completions: the first completion of each question.
        tokens: visual tokens of each question's scene, int64 [Q].
    """

    keys: tuple[str, ...]
    families: tuple[str, ...]
    questions: tuple[str, ...]
    answers: tuple[str, ...]
    accuracy: np.ndarray
    reward: np.ndarray
    format: np.ndarray
    scores: np.ndarray
    profiles: tuple[str, ...]
    completions: tuple[str, ...]
    tokens: np.ndarray

    @classmethod
    def joined(cls, parts: Sequence[Graded]) -> Graded:
        """The answers to several sets of questions as one, in order."""

        def texts(name: str) -> tuple[str, ...]:
            return tuple(text for part in parts for text in getattr(part, name))

        def numbers(name: str) -> np.ndarray:
            return np.concatenate([getattr(part, name) for part in parts])

        return cls(
            keys=texts("keys"),
            families=texts("families"),
            questions=texts("questions"),
            answers=texts("answers"),
            accuracy=numbers("accuracy"),
            reward=numbers("reward"),
            format=numbers("format"),
            scores=numbers("scores"),
            profiles=texts("profiles"),
            completions=texts("completions"),
            tokens=numbers("tokens"),
        )


@torch.no_grad()
def grade(
    model: EntropyVLM,
    dialect: Dialect | PreTrainedTokenizerFast,
    batches: Iterable[Batch],
    rubric: Rubric,
    *,
    temperature: float = 0.0,
    samples: int = 1,
    seed: int = 0,
    max_new_tokens: int | None = None,
    blind: bool = False,
    profile: Profile = "strict",
) -> Graded:
    """Let the policy answer and verify. `blind` shows it no visual tokens at all.

    `dialect` is the policy's, or its word-level tokenizer, and says how long an answer may be where `max_new_tokens`
    does not. `profile` reads the scores; "official" each question's own.
    """
    model.eval()
    dialect = spoken(dialect)
    generator = torch.Generator(model.device).manual_seed(seed)
    asked: list[Ask] = []
    first: list[str] = []
    parts: list[list[list[float]]] = []
    tokens: list[int] = []
    rules: list[str] = []
    for batch in batches:
        visual = batch.patches.counts if model.reduction is None else model.slot_counts(batch.patches)
        rollouts = sample(
            model,
            dialect,
            read_questions(model, dialect, batch, blind=blind),
            group=samples,
            temperature=temperature,
            max_new_tokens=max_new_tokens or dialect.longest,
            generator=generator,
        )
        for i, ask in enumerate(batch.asks):
            texts = rollouts.texts[i * samples : (i + 1) * samples]
            cut = rollouts.truncated[i * samples : (i + 1) * samples].tolist()
            rule = ask.profile if profile == "official" else profile
            rewards = [rubric(text, ask.answer, truncated=c) for text, c in zip(texts, cut, strict=True)]
            scores = [verify(text, ask.answer, rule).score for text in texts]
            told = [(r.verdict.score, r.total, float(r.verdict.format_ok)) for r in rewards]
            parts.append([[*one, score] for one, score in zip(told, scores, strict=True)])
            rules.append(rule)
            asked.append(ask)
            first.append(texts[0])
            tokens.append(0 if blind else visual[int(batch.owner[i])])
    found = np.asarray(parts, dtype=np.float64)
    return Graded(
        keys=tuple(ask.key for ask in asked),
        families=tuple(ask.family for ask in asked),
        questions=tuple(ask.question for ask in asked),
        answers=tuple(answer_text(ask.answer) for ask in asked),
        accuracy=found[:, :, 0],
        reward=found[:, :, 1],
        format=found[:, :, 2],
        scores=found[:, :, 3],
        profiles=tuple(rules),
        completions=tuple(first),
        tokens=np.asarray(tokens),
    )
