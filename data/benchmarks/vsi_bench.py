"""VSI-Bench (arXiv:2412.14171): eight spatial tasks about indoor videos.

Columns, prompt and metric are those of thinking-in-space and of lmms-eval (both in their task folder vsibench);
`test.jsonl`, `test_debiased.parquet` and `test_pruned.parquet` are those of the dataset's create_pq.py. The debiased
split is that of arXiv:2511.04655.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from .answers import choice, number, unlettered
from .benchmark import Asked, Question, Spec
from .folder import Folder
from .media import Clip, Named
from .rows import BadRow, Row, json_rows, parquet_rows, read_json_lines
from .scores import family, mean, means

_COLUMNS = ("id", "dataset", "scene_name", "question_type", "question", "ground_truth", "options")
_CHOICES = ("object_rel_distance", "route_planning", "obj_appearance_order")
_DIRECTIONS = tuple(f"object_rel_direction_{level}" for level in ("easy", "medium", "hard"))
_NUMBERS = ("object_counting", "object_abs_distance", "object_size_estimation", "room_size_estimation")
_BEFORE = "These are frames of a video."
_LETTER = "Answer with the option's letter from the given choices directly."
_NUMBER = "Please answer the question using a single word or phrase."


def _rows(folder: Folder, split: str) -> Iterator[Row]:
    if split == "full" and folder.matches("test.jsonl"):
        file = folder.matches("test.jsonl")[0]
        return json_rows(read_json_lines(file), file.name, _COLUMNS)
    if split == "full":
        parts = [name for name in ("test_debiased.parquet", "test_pruned.parquet") if folder.matches(name)]
        if len(parts) == 2:  # as published: the two are the whole
            return (row for name in parts for row in parquet_rows(folder, (name,), _COLUMNS))
        return parquet_rows(folder, ("test-*.parquet", "test.parquet", "test.jsonl"), _COLUMNS)
    return parquet_rows(folder, (f"test_{split}.parquet", f"{split}/test*.parquet"), _COLUMNS)


def _ask(row: Row, folder: Folder, split: str) -> Question:
    kind, question, truth = row.text("question_type"), row.text("question"), row.name("ground_truth")
    if kind in _NUMBERS:
        answer, lines = number(truth, mra=True), [_BEFORE, question, _NUMBER]
    elif kind in (*_CHOICES, *_DIRECTIONS):
        options = row.texts("options")
        answer = choice(truth, [unlettered(option) for option in options])
        lines = [_BEFORE, question, "Options:", *options, _LETTER]
    else:
        raise BadRow(f"question_type {kind!r} is none of the benchmark's")
    video = f"{row.text('dataset')}/{row.text('scene_name')}.mp4"
    return Question(
        key=f"vsi-bench-{split}-{row.whole('id')}",
        text="\n".join(lines),
        answer=answer,
        family=kind,
        medium=Clip(Named(folder, (video, f"videos/{video}"))),
        meta={"profile": "official:vsi-bench", "question": question},
    )


def _aggregate(scores: Sequence[float], items: Sequence[Asked]) -> dict[str, float]:
    """The mean of eight tasks; the direction task is the mean of its three levels. Tasks nobody asked are left out."""
    parts = means(scores, items, family)
    levels = [parts.pop(name) for name in _DIRECTIONS if name in parts]
    tasks = {name: parts[name] for name in (*_NUMBERS, *_CHOICES) if name in parts}
    if levels:
        tasks["object_rel_direction"] = mean(levels)
    return {"overall": mean(list(tasks.values())), **tasks}


SPEC = Spec(
    name="vsi-bench",
    title="VSI-Bench, Thinking in Space (arXiv:2412.14171); debiased: arXiv:2511.04655",
    media="video",
    files=(
        "test.jsonl, or test_debiased.parquet and test_pruned.parquet",
        "{arkitscenes,scannet,scannetpp}/SCENE.mp4, or the zips of these",
    ),
    columns=_COLUMNS,
    splits=("full", "debiased", "pruned"),
    prompt=f"{_BEFORE} ↵ question ↵ Options: ↵ A. … ↵ {_LETTER} (numbers: {_NUMBER}) (lmms-eval)",
    metric="MRA of numbers, accuracy of choices; mean of 8 tasks, the direction task being the mean of 3 levels",
    faults=(
        "<= where the paper has <: half the truth earns 0.1; a truth of 0 ends the run; '(C)' is wrong, 'C or D' is C. "
        "lmms-eval reads numbers out of sentences (profile official:vsi-bench-lmms), so the two are not comparable"
    ),
    licence="questions Apache-2.0; footage under the terms of ARKitScenes, ScanNet and ScanNet++",
    profile="official:vsi-bench",
    rows=_rows,
    ask=_ask,
    aggregate=_aggregate,
)
