"""TempCompass (arXiv:2403.00476): speed, direction, order, change; the three tasks that rules score.

Read as the authors publish it (questions/TASK.json: {video: {dimension: [{question, answer}]}}), or as lmms-eval reads
it (a Parquet table a task). The prompts are lmms-eval's. The fourth task, captioning, is scored by a model that judges
and is not loaded.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from entropy_vision.errors import UsageError

from .answers import choice_of, unlettered, yesno
from .benchmark import Question, Spec
from .folder import Folder
from .media import Clip, Named
from .rows import BadRow, Row, json_rows, parquet_rows, read_json
from .scores import family, meta, over_questions

_COLUMNS = ("video_id", "question", "answer", "dim")
_AFTER = {
    "multi-choice": "\nPlease directly give the best option:",
    "yes_no": "\nPlease answer yes or no:",
    "caption_matching": "\nPlease directly give the best option:",
}
_LETTERED = re.compile(r"\s*[A-Z]\.")  # three of the published lines lack a space, or have one too many
_CAPTION = re.compile(r"(?:Sentence|Caption|Option) (?:[A-Z]|\d): ")


def _rows(folder: Folder, split: str) -> Iterator[Row]:
    number = 0
    tasks = tuple(_AFTER) if split == "all" else (split,)
    held = [task for task in tasks if folder.matches(f"questions/{task}.json") or folder.matches(f"{task}/*.parquet")]
    if not held:
        looked = " or ".join(f"questions/{task}.json, {task}/*.parquet" for task in tasks)
        raise UsageError(f"{folder.root} holds no questions: looked for {looked} there")
    for task in held:
        for row in _task_rows(folder, task):
            yield Row(row.where, number, {**row.values, "task": task})
            number += 1


def _task_rows(folder: Folder, task: str) -> Iterator[Row]:
    files = folder.matches(f"questions/{task}.json")
    if not files:
        return parquet_rows(folder, (f"{task}/*.parquet",), _COLUMNS)
    held = read_json(files[0])
    if not isinstance(held, dict):
        raise UsageError(f"{files[0].name} is no object of questions by video")
    return json_rows([one for video, dims in held.items() for one in _flat(video, dims)], files[0].name, _COLUMNS)


def _flat(video: str, dims: Any) -> list[Any]:
    if not isinstance(dims, dict):
        return [{"video_id": video}]
    return [
        {"video_id": video, "dim": dim, **(one if isinstance(one, dict) else {})}
        for dim, questions in dims.items()
        for one in (questions if isinstance(questions, list) else [None])
    ]


def _ask(row: Row, folder: Folder, split: str) -> Question:
    task, question, truth = row.text("task"), row.text("question"), row.text("answer")
    video = row.name("video_id")
    lines = question.split("\n")[1:]
    if task == "yes_no":
        answer = yesno(truth)
    elif task == "multi-choice":
        if not lines or not all(map(_LETTERED.match, lines)):
            raise BadRow("the question lists no options A., B., …")
        answer = choice_of(unlettered(truth), [unlettered(line) for line in lines])
    else:
        if not lines or not all(map(_CAPTION.match, lines)):
            raise BadRow("the question lists no sentences, captions or options")
        answer = choice_of(truth, lines)
    return Question(
        key=f"tempcompass-{task}-{row.number}",
        text=question + _AFTER[task],
        answer=answer,
        family=task,
        medium=Clip(Named(folder, (f"videos/{video}.mp4", f"{video}.mp4"))),
        meta={"profile": "official:tempcompass", "question": question, "dim": row.text("dim")},
    )


SPEC = Spec(
    name="tempcompass",
    title="TempCompass (arXiv:2403.00476), the tasks that rules score",
    media="video",
    files=("questions/TASK.json, or TASK/*.parquet, of multi-choice, yes_no, caption_matching", "videos/ID.mp4"),
    columns=_COLUMNS,
    splits=("all", *_AFTER),
    prompt="question (options in it) ↵ Please directly give the best option: / Please answer yes or no: (lmms-eval)",
    metric="accuracy by task and by dimension; overall = mean over questions of the three tasks",
    faults="what the rules cannot read a model judges in the original: here it is 0; 'no idea' is a no",
    licence="questions: none stated in the repository; videos of stock footage under its owner's terms",
    profile="official:tempcompass",
    rows=_rows,
    ask=_ask,
    aggregate=over_questions(family, meta("dim")),
)
