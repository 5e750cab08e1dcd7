"""Answers of a policy, graded: what gates, curves and tables are made of."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from transformers import PreTrainedTokenizerFast

from entropy_vision.policy import EntropyVLM
from entropy_vision.text import answer_text

from .batch import Batch
from .rollout import read_questions, sample
from .rubric import Rubric
from .scenes import Ask


@dataclass(frozen=True)
class Graded:
    """Q questions, S completions each.

    Attributes:
        keys, families, questions, answers: Q texts.
        accuracy, reward, format: float64 [Q, S].
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
            completions=texts("completions"),
            tokens=numbers("tokens"),
        )


@torch.no_grad()
def grade(
    model: EntropyVLM,
    tokenizer: PreTrainedTokenizerFast,
    batches: Iterable[Batch],
    rubric: Rubric,
    *,
    temperature: float = 0.0,
    samples: int = 1,
    seed: int = 0,
    max_new_tokens: int = 28,
    blind: bool = False,
) -> Graded:
    """Let the policy answer and verify. `blind` shows it no visual tokens at all."""
    model.eval()
    generator = torch.Generator(model.device).manual_seed(seed)
    asked: list[Ask] = []
    first: list[str] = []
    parts: list[list[list[float]]] = []
    tokens: list[int] = []
    for batch in batches:
        rollouts = sample(
            model,
            tokenizer,
            read_questions(model, tokenizer, batch, blind=blind),
            group=samples,
            temperature=temperature,
            max_new_tokens=max_new_tokens,
            generator=generator,
        )
        for i, ask in enumerate(batch.asks):
            texts = rollouts.texts[i * samples : (i + 1) * samples]
            cut = rollouts.truncated[i * samples : (i + 1) * samples].tolist()
            rewards = [rubric(text, ask.answer, truncated=c) for text, c in zip(texts, cut, strict=True)]
            parts.append([[r.verdict.score, r.total, float(r.verdict.format_ok)] for r in rewards])
            asked.append(ask)
            first.append(texts[0])
            tokens.append(0 if blind else batch.patches.counts[int(batch.owner[i])])
    scores = np.asarray(parts, dtype=np.float64)
    return Graded(
        tuple(ask.key for ask in asked),
        tuple(ask.family for ask in asked),
        tuple(ask.question for ask in asked),
        tuple(answer_text(ask.answer) for ask in asked),
        scores[:, :, 0],
        scores[:, :, 1],
        scores[:, :, 2],
        tuple(first),
        np.asarray(tokens),
    )
