"""MVBench (arXiv:2311.17005): twenty tasks of time, on videos of eleven datasets.

The prompt, and where each task's videos lie, are those of lmms-eval's task mvbench. Where only the uncut videos are
there, the seconds `start` to `end` are cut out of them, as the authors' own loader does (its folders, the five tasks
with times, and the frames of tvqa at 3 a second are those that VLMEvalKit's MVBench.py names).
"""

from __future__ import annotations

from collections.abc import Iterator

from entropy_vision.errors import UsageError

from .answers import choice_of, lettered
from .benchmark import Question, Spec
from .folder import Folder
from .media import Clip, Medium, Named, Unfolded
from .rows import BadRow, Row, json_rows, read_records
from .scores import family, over_parts

_FIELDS = ("video", "question", "candidates", "answer")
# where the videos of a task are cut already
_HOMES = {
    "action_sequence": "star/Charades_segment",
    "action_prediction": "star/Charades_segment",
    "action_antonym": "ssv2_video_mp4",
    "fine_grained_action": "Moments_in_Time_Raw/videos",
    "unexpected_action": "FunQA_test/test",
    "object_existence": "clevrer/video_validation",
    "object_interaction": "star/Charades_segment",
    "object_shuffle": "perception/videos",
    "moving_direction": "clevrer/video_validation",
    "action_localization": "sta/sta_video_segment",
    "scene_transition": "scene_qa/video",
    "action_count": "perception/videos",
    "moving_count": "clevrer/video_validation",
    "moving_attribute": "clevrer/video_validation",
    "state_change": "perception/videos",
    "fine_grained_pose": "nturgbd_convert",
    "character_order": "perception/videos",
    "egocentric_navigation": "vlnqa",
    "episodic_reasoning": "tvqa/video_fps3_hq_segment",
    "counterfactual_inference": "clevrer/video_validation",
}
# where they are whole
_WHOLE = {
    "action_sequence": "star/Charades_v1_480",
    "action_prediction": "star/Charades_v1_480",
    "object_interaction": "star/Charades_v1_480",
    "action_localization": "sta/sta_video",
}
_FRAMES = {"episodic_reasoning": "tvqa/frames_fps3_hq"}
_FRAMES_RATE = 3.0
_LONGEST = 1e9  # seconds; JSON also writes Infinity, and integers that are no float
_AFTER = "Only give the best option.\n"


def _rows(folder: Folder, split: str) -> Iterator[Row]:
    tasks = _HOMES if split == "all" else (split,)
    held = [(task, found[0]) for task in tasks if (found := folder.matches(f"json/{task}.json"))]
    if not held:
        looked = "json/TASK.json" if split == "all" else f"json/{split}.json"
        raise UsageError(f"{folder.root} holds no questions: looked for {looked} there")
    number = 0
    for task, file in held:
        for row in json_rows(read_records(file), file.name, _FIELDS):
            yield Row(row.where, number, {**row.values, "task": task})
            number += 1


def _ask(row: Row, folder: Folder, split: str) -> Question:
    task, question, options = row.text("task"), row.text("question"), row.texts("candidates")
    listed = "".join(f"{option}\n" for option in lettered(options, "({0}) {1}"))
    return Question(
        key=f"mvbench-{task}-{row.number}",
        text=f"Question:{question}\nOption:\n{listed}{_AFTER}",
        answer=choice_of(row.text("answer"), options),
        family=task,
        medium=_medium(row, folder, task),
        meta={"profile": "official:mvbench", "question": question},
    )


def _medium(row: Row, folder: Folder, task: str) -> Medium:
    video = row.text("video")
    cut = Named(folder, tuple(f"{place}/{_HOMES[task]}/{video}" for place in ("video", "video/data0613", "videos")))
    cut = Named(folder, (*cut.names, f"{_HOMES[task]}/{video}"))
    if task not in (*_WHOLE, *_FRAMES) or not cut.missing():
        return Clip(cut)
    start, end = row.values.get("start"), row.values.get("end")
    if not isinstance(start, int | float) or not isinstance(end, int | float) or not 0 <= start < end <= _LONGEST:
        raise BadRow(f"the uncut video needs seconds: start is {start!r}, end is {end!r}")
    span = float(start), float(end)
    if task in _FRAMES:
        return Unfolded(folder, (f"video/{_FRAMES[task]}/{video}", f"{_FRAMES[task]}/{video}"), _FRAMES_RATE, span)
    return Clip(Named(folder, (f"video/{_WHOLE[task]}/{video}", f"{_WHOLE[task]}/{video}", cut.names[0])), span)


SPEC = Spec(
    name="mvbench",
    title="MVBench (arXiv:2311.17005)",
    media="video",
    files=("json/TASK.json, of as many of the 20 tasks as are wanted", "video/STAR, CLEVRER, …, or the zips of these"),
    columns=(*_FIELDS, "start and end (uncut videos)"),
    splits=("all", *_HOMES),
    prompt="Question:question ↵ Option: ↵ (A) … ↵ Only give the best option. ↵ (lmms-eval)",
    metric="accuracy; overall = mean of the tasks",
    faults="lmms-eval leaves empty answers out of the mean, so silence raises it; here they count as wrong",
    licence="questions MIT; footage under the terms of the eleven datasets (NTU RGB+D is to be had from its owners)",
    profile="official:mvbench",
    rows=_rows,
    ask=_ask,
    aggregate=over_parts(family),
)
