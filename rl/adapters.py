"""The rubric as the reward of other trainers: TRL, verl, EasyR1, verifiers. None of them is needed to import this.

Every adapter reads the truth from the data set's own column, as the JSON of `answer_to_json` (or the mapping it holds,
or an `Answer`), and gives what the rubric gives. A fault in the truth raises `UsageError`, in a trainer too: paid as 0
it would be trained on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from entropy_vision.answer_json import answer_from_json, answer_to_json
from entropy_vision.errors import UsageError
from entropy_vision.question import Answer

from .rubric import Reward, Rubric

__all__ = [
    "answer_from_json",
    "answer_to_json",
    "compute_score",
    "easyr1_reward",
    "trl_reward",
    "verifiers_reward",
    "verifiers_rubric",
]

_read = lru_cache(maxsize=4096)(answer_from_json)  # a group asks for the same truth many times


def answer_of(column: Any) -> Answer:
    """The answer a column's cell holds.

    Raises:
        UsageError: it holds none.
    """
    if isinstance(column, Answer):
        return column
    if isinstance(column, str):
        return _read(column)
    if isinstance(column, Mapping):
        # a table gives every row all keys, those it does not have as None
        return answer_from_json({k: v for k, v in column.items() if v is not None or k == "value"})
    raise UsageError(f"a truth must be the JSON of answer_to_json, got {type(column).__name__}")


def text_of(completion: Any) -> str:
    """The text of a completion: itself, or what the last assistant's message of a conversation says.

    A message's content may be parts ({"type": "text", "text": …}), of which the texts are joined. Messages are mappings
    or objects with the same names.
    """
    if isinstance(completion, str):
        return completion
    said = [m for m in completion or () if _get(m, "role") in ("assistant", None)]
    content = _get(said[-1], "content") if said else ""
    if isinstance(content, str) or content is None:
        return content or ""
    return "".join(str(_get(part, "text") or "") for part in content)


def _get(message: Any, name: str) -> Any:
    return message.get(name) if isinstance(message, Mapping) else getattr(message, name, None)


def trl_reward(
    rubric: Rubric | None = None,
    *,
    column: str = "answer",
    name: str = "rubric",
    max_completion_length: int | None = None,
) -> Callable[..., list[float]]:
    """A function for TRL's `GRPOTrainer(reward_funcs=…)`.

    Args:
        column: the data set's column with the truth.
        name: under which TRL logs it.
        max_completion_length: the trainer's own; a completion of so many tokens counts as truncated. Without it none
            does.
    """
    pays = rubric or Rubric()

    def reward(
        completions: Sequence[Any], completion_ids: Sequence[Sequence[int]] | None = None, **columns: Any
    ) -> list[float]:
        if column not in columns:
            raise UsageError(f"trl_reward: the data set has no column {column!r} (it has {', '.join(sorted(columns))})")
        lengths = [len(ids) for ids in completion_ids or ()] or [0] * len(completions)
        cut = [max_completion_length is not None and length >= max_completion_length for length in lengths]
        rows = zip(completions, columns[column], cut, strict=True)
        return [pays(text_of(said), answer_of(truth), truncated=is_cut).total for said, truth, is_cut in rows]

    reward.__name__ = name  # TRL logs by it
    return reward


def compute_score(
    data_source: str,
    solution_str: str,
    ground_truth: Any,
    extra_info: Mapping[str, Any] | None = None,
    *,
    rubric: Rubric | None = None,
    **_: Any,
) -> dict[str, float]:
    """verl's `custom_reward_function`: "score" is the reward, the rest its parts before their weights.

    Args:
        data_source: any; the truth says how to verify.
        extra_info: `truncated` of it, where there is one.
    """
    cut = bool((extra_info or {}).get("truncated", False))
    return _named("score", (rubric or Rubric())(solution_str, answer_of(ground_truth), truncated=cut))


def easyr1_reward(
    reward_inputs: Sequence[Mapping[str, Any]], *, rubric: Rubric | None = None, max_response_length: int | None = None
) -> list[dict[str, float]]:
    """EasyR1's reward function of type batch: "overall" is the reward, the rest its parts before their weights.

    Args:
        reward_inputs: mappings with `response`, `ground_truth`, `response_length`.
        max_response_length: a response of so many tokens counts as truncated; without it none does.
    """
    pays, longest = rubric or Rubric(), max_response_length
    return [
        _named(
            "overall",
            pays(
                one["response"],
                answer_of(one["ground_truth"]),
                truncated=longest is not None and one.get("response_length", 0) >= longest,
            ),
        )
        for one in reward_inputs
    ]


def _named(total: str, reward: Reward) -> dict[str, float]:
    return {total: reward.total, **reward.parts}


def verifiers_rubric(rubric: Rubric | None = None) -> Any:
    """A `verifiers.Rubric` (versions 0.1) with this one's total as its reward; the parts are metrics of weight 0.

    verifiers logs what a reward function raises and scores it 0: look for a fault in the truth in its log.

    Raises:
        ImportError: verifiers is not installed.
        UsageError: it is a version without rubrics.
    """
    try:
        import verifiers
    except ModuleNotFoundError as error:
        raise ImportError("verifiers_rubric needs the package verifiers: pip install 'verifiers<0.2'") from error
    if not hasattr(verifiers, "Rubric"):
        raise UsageError("this verifiers has no Rubric; in its tasks write: score = vf.reward(verifiers_reward())")
    pays = rubric or Rubric()

    def of(completion: Any, answer: Any, state: Any) -> Reward:
        return pays(text_of(completion), answer_of(answer), truncated=bool((state or {}).get("is_truncated", False)))

    async def total(completion: Any, answer: Any, state: Any) -> float:
        return of(completion, answer, state).total

    def metric(name: str) -> Callable[..., Any]:
        async def part(completion: Any, answer: Any, state: Any) -> float:
            return float(of(completion, answer, state).parts[name])

        part.__name__ = name
        return part

    names = list(pays.weights)
    return verifiers.Rubric(funcs=[total, *map(metric, names)], weights=[1.0, *(0.0 for _ in names)])


def verifiers_reward(rubric: Rubric | None = None, *, name: str = "answer") -> Callable[..., Any]:
    """A reward method for the tasks of verifiers 0.4: `score = vf.reward(verifiers_reward())` in the task's class.

    Args:
        name: the attribute of the task's data with the truth.
    """
    pays = rubric or Rubric()

    async def reward(self: Any, task: Any, trace: Any) -> float:
        return pays(trace.last_reply, answer_of(getattr(task, name)), truncated=bool(trace.is_truncated)).total

    return reward
