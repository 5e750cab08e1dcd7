"""Video-MME (arXiv:2405.21075): 900 videos of 11 s to an hour, three questions each.

Columns and prompt are those of lmms-eval's task videomme (without subtitles).
"""

from __future__ import annotations

from collections.abc import Iterator

from .answers import choice, unlettered
from .benchmark import Question, Spec
from .folder import Folder
from .media import Clip, Named
from .rows import Row, parquet_rows
from .scores import family, meta, over_questions

_COLUMNS = (
    "videoID",
    "duration",
    "domain",
    "sub_category",
    "task_type",
    "question_id",
    "question",
    "options",
    "answer",
)
_BEFORE = (
    "Select the best answer to the following multiple-choice question based on the video and the subtitles. "
    "Respond with only the letter (A, B, C, or D) of the correct option."
)
_AFTER = "\nAnswer with the option's letter from the given choices directly."


def _rows(folder: Folder, split: str) -> Iterator[Row]:
    return parquet_rows(folder, ("videomme/test-*.parquet", "test-*.parquet", "test.parquet"), _COLUMNS)


def _ask(row: Row, folder: Folder, split: str) -> Question:
    question, options, video = row.text("question"), row.texts("options"), row.text("videoID")
    names = [f"{place}{video}.{suffix}" for suffix in ("mp4", "MP4", "mkv") for place in ("data/", "", "videos/")]
    return Question(
        key=f"video-mme-{split}-{row.name('question_id')}",
        text="\n".join([_BEFORE, question, *options, _AFTER]),
        answer=choice(row.text("answer"), [unlettered(option) for option in options]),
        family=row.text("task_type"),
        medium=Clip(Named(folder, tuple(names))),
        meta={
            "profile": "official:video-mme",
            "question": question,
            "duration": row.text("duration"),
            "domain": row.text("domain"),
        },
    )


SPEC = Spec(
    name="video-mme",
    title="Video-MME (arXiv:2405.21075)",
    media="video",
    files=("videomme/test-*.parquet", "data/VIDEOID.mp4, or videos_chunked_*.zip"),
    columns=_COLUMNS,
    splits=("test",),
    prompt="Select the best answer … (A, B, C, or D) of the correct option. ↵ question ↵ A. … ↵↵ Answer with the "
    "option's letter from the given choices directly. (lmms-eval, without subtitles)",
    metric="accuracy over questions; by duration, domain and task_type beside it; questions of a video are a cluster",
    faults="the prompt speaks of subtitles that are not given",
    licence="annotations for academic use only; the videos belong to their owners",
    profile="official:video-mme",
    rows=_rows,
    ask=_ask,
    aggregate=over_questions(meta("duration"), meta("domain"), family),
)
