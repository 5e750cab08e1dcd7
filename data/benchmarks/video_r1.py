"""Any question set in Video-R1's form (arXiv:2503.21776): problem, options, solution, path, and the type of each.

The prompt, with the thinking it asks for, is the template that its training and evaluation put around a problem. Its
numbers are compared after rounding to two decimals, its regressions by relative error (here: mean relative accuracy);
free-form answers are scored by ROUGE there, and skipped here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from entropy_vision.question import Answer

from .answers import choice, exact, number, unlettered
from .benchmark import Question, Spec
from .folder import Folder
from .media import Clip, Medium, Named, Stills
from .rows import BadRow, Row, json_rows, read_records
from .scores import family, meta, over_questions

_FIELDS = ("problem", "problem_type", "data_type", "solution", "path")
_SOLUTION = re.compile(r"<answer>\s*(.*?)\s*</answer>", re.DOTALL)
_PROCESS = re.compile(r"<think>\s*(.*?)\s*</think>", re.DOTALL)
_BEHIND = (
    "\nPlease think about this question as if you were a human pondering deeply. Engage in an internal dialogue using "
    "expressions such as 'let me think', 'wait', 'Hmm', 'oh, I see', 'let's break it down', etc, or other natural "
    "language thought expressions It's encouraged to include self-reflection or verification in the reasoning process. "
    "Provide your detailed reasoning between the <think> </think> tags, and then give your final answer between the "
    "<answer> </answer> tags."
)
_NUMBER = " Please provide the numerical value (e.g., 42 or 3.14) within the <answer> </answer> tags."
_BY_TYPE = {
    "multiple choice": (
        " Please provide only the single option letter (e.g., A, B, C, D, etc.) within the <answer> </answer> tags."
    ),
    "numerical": _NUMBER,
    "regression": _NUMBER,
    "OCR": (
        " Please transcribe text from the image/video clearly and provide your text answer within the <answer> "
        "</answer> tags."
    ),
}


def _rows(folder: Folder, split: str) -> Iterator[Row]:
    file = folder.file(split)
    return json_rows(read_records(file), file.name, _FIELDS)


def _ask(row: Row, folder: Folder, split: str) -> Question:
    problem, kind = row.text("problem").replace("<image>", "").replace("<video>", ""), row.text("problem_type")
    if kind not in _BY_TYPE:
        raise BadRow(f"problem_type {kind!r} is scored by likeness of text: no rule verifies it")
    options = row.texts("options") if kind == "multiple choice" else []
    question = problem + ("Options:\n" + "".join(f"{option}\n" for option in options) if options else "")
    return Question(
        key=f"video-r1-{split}-{row.number}",
        text=question + _BEHIND + _BY_TYPE[kind],
        answer=_answer(kind, row.text("solution"), [unlettered(option) for option in options]),
        family=kind,
        medium=_medium(row, folder),
        meta={"profile": "robust", "question": question, "source": str(row.values.get("data_source") or "all")},
        rationale=found.group(1) if (found := _PROCESS.fullmatch(str(row.values.get("process") or "").strip())) else "",
    )


def _answer(kind: str, solution: str, options: list[str]) -> Answer:
    found = _SOLUTION.fullmatch(solution.strip())
    if found is None:
        raise BadRow("solution is not <answer>…</answer>")
    told = found.group(1)
    if kind == "multiple choice":
        return choice(told, options)
    if kind == "OCR":
        return exact(told)
    return number(told.replace(",", ""), mra=True) if kind == "regression" else number(told, tolerance=0.005)


def _medium(row: Row, folder: Folder) -> Medium:
    path, kind = row.text("path").removeprefix("./"), row.text("data_type")
    if kind not in ("image", "video"):
        raise BadRow(f"data_type {kind!r} is neither image nor video")
    return Clip(Named(folder, (path,))) if kind == "video" else Stills((Named(folder, (path,)),))


SPEC = Spec(
    name="video-r1",
    title="Any problems in Video-R1's form (arXiv:2503.21776)",
    media="any",
    files=("the .json; the files its field path names, below its folder",),
    columns=(*_FIELDS, "options (choices)", "data_source, process (optional)"),
    splits=(),
    prompt="problem, Options: ↵ A. … ↵ and the template that asks for <think> and <answer> (Video-R1)",
    metric="accuracy over questions, MRA of regressions; by problem_type and data_source beside it",
    faults="'nan' earns a regression everything in the original; not here",
    licence="that of the file",
    profile="robust",
    rows=_rows,
    ask=_ask,
    aggregate=over_questions(family, meta("source")),
)
