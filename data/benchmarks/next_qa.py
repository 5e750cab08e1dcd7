"""NExT-QA (arXiv:2105.08276), multiple choice: causes, order and description in everyday videos.

Columns and prompt are those of lmms-eval's task nextqa_mc_test; the authors' own CSV (doc-doc/NExT-QA, dataset/nextqa)
has the same, and beside it `map_vid_vidorID.json` says under which path of VidOR a video is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from .answers import choice_at, lettered
from .benchmark import Question, Spec
from .folder import Folder
from .media import Clip, Named
from .rows import Row, parquet_rows, read_json, separated_rows
from .scores import family, meta, over_questions

_OPTIONS = ("a0", "a1", "a2", "a3", "a4")
_COLUMNS = ("video", "question", *_OPTIONS, "answer", "type")
_GROUPS = {"C": "causal", "T": "temporal", "D": "descriptive"}


def _rows(folder: Folder, split: str) -> Iterator[Row]:
    maps = folder.matches("map_vid_vidorID.json")
    paths = read_json(maps[0]) if maps else {}
    for row in _tables(folder, split):
        path = paths.get(str(row.values.get("video"))) if isinstance(paths, dict) else None
        yield replace(row, values={**row.values, "path": path})


def _tables(folder: Folder, split: str) -> Iterator[Row]:
    tables = (f"MC/{split}-*.parquet", f"MC/{split}.parquet", f"{split}-*.parquet")
    if not any(map(folder.matches, tables)) and folder.matches(f"{split}.csv"):
        return separated_rows(folder, (f"{split}.csv",), _COLUMNS)
    return parquet_rows(folder, tables, _COLUMNS)


def _ask(row: Row, folder: Folder, split: str) -> Question:
    question, video = row.text("question").strip(), row.name("video")
    options = [row.name(name).strip() for name in _OPTIONS]
    kind, path = row.text("type"), row.values.get("path")
    names = (video, path) if isinstance(path, str) else (video,)
    return Question(
        key=f"next-qa-{split}-{row.number}",
        text="\n".join([question, *lettered(options)]),
        answer=choice_at(row.whole("answer"), options),
        family=kind,
        medium=Clip(
            Named(folder, tuple(f"{place}{one}.mp4" for one in names for place in ("NExTVideo/", "videos/", "")))
        ),
        meta={"profile": "official:next-qa", "question": question, "group": _GROUPS.get(kind[:1], "other")},
    )


SPEC = Spec(
    name="next-qa",
    title="NExT-QA, multiple choice (arXiv:2105.08276)",
    media="video",
    files=("MC/test-*.parquet, or test.csv", "NExTVideo/ID.mp4, or videos.zip"),
    columns=_COLUMNS,
    splits=("test", "val", "train"),
    prompt="question ↵ A. … ↵ … ↵ E. … (lmms-eval: nothing before, nothing behind)",
    metric="accuracy over questions; causal, temporal, descriptive and by type beside it",
    faults="an answer that cannot be read is drawn at random in the original; here it is 0",
    licence="MIT; videos of VidOR (YFCC-100M) under their own terms",
    profile="official:next-qa",
    rows=_rows,
    ask=_ask,
    aggregate=over_questions(meta("group"), family),
)
