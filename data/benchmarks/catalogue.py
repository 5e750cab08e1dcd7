"""The benchmarks there are, by name, and the one way to load them."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path

from entropy_vision.errors import UsageError
from entropy_vision.frames import Size
from entropy_vision.sampling import Sampling

from . import (
    blink,
    clevr,
    clevrer,
    cv_bench,
    geometry3k,
    gqa,
    hr_bench,
    llava,
    mvbench,
    next_qa,
    nlvr,
    nlvr2,
    nlvr_scenes,
    perception_test,
    sat,
    tallyqa,
    tempcompass,
    video_mme,
    video_r1,
    vlmevalkit,
    vsi_bench,
    vstar,
    webdataset,
)
from .benchmark import Benchmark, Spec
from .folder import Folder
from .media import View

_ALL = (
    *(vsi_bench.SPEC, cv_bench.SPEC, blink.SPEC, sat.SPEC, clevr.SPEC, clevr.SUPER, clevrer.SPEC, tallyqa.SPEC),
    *(nlvr.SPEC, nlvr_scenes.SPEC, nlvr2.SPEC, gqa.SPEC, mvbench.SPEC, video_mme.SPEC, tempcompass.SPEC),
    *(perception_test.SPEC, next_qa.SPEC, vstar.SPEC, hr_bench.SPEC, geometry3k.SPEC),
    *(vlmevalkit.SPEC, llava.SPEC, video_r1.SPEC, webdataset.SPEC),
)
BENCHMARKS: Mapping[str, Spec] = {spec.name: spec for spec in _ALL}


def spec_of(name: str) -> Spec:
    """The benchmark of that name.

    Raises:
        UsageError: there is none; the line names the nearest.
    """
    if name not in BENCHMARKS:
        near = difflib.get_close_matches(name, BENCHMARKS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(BENCHMARKS)}"
        raise UsageError(f"no benchmark is called {name!r}; {hint}")
    return BENCHMARKS[name]


def find(name: str, folder: str | Path | None = None, split: str | None = None) -> tuple[Spec, Folder, str]:
    """The benchmark, its folder and its split that `load` is asked for; no question is read. Takes and raises as it."""
    if folder is None:
        name, _, given = name.partition(":")
        if not given:
            raise UsageError(f"say where the files of {name} are: load(name, folder), or NAME:FOLDER")
        folder = given
    bare, _, part = name.partition("/")
    spec = spec_of(bare if bare in BENCHMARKS else name)
    if part and not spec.splits:
        raise UsageError(f"{spec.name} has no splits, its file is one: write {spec.name}:{folder}")
    split = split or part or None
    path = Path(folder)
    if not spec.splits:
        if not path.is_file():
            raise UsageError(f"{path} is no file: {spec.name} takes {spec.files[0]} itself")
        path, split = path.parent, path.name
    split = spec.splits[0] if split is None else split
    if spec.splits and split not in spec.splits:
        raise UsageError(f"{spec.name} has no split {split!r}; it has {', '.join(spec.splits)}")
    return spec, Folder(path), split


def load(
    name: str,
    folder: str | Path | None = None,
    split: str | None = None,
    *,
    size: Size = 224,
    frames: int | None = 16,
    fps: float | None = None,
) -> Benchmark:
    """Read a benchmark's questions; pictures and videos are decoded when an item is asked for.

    Args:
        name: of the benchmark, or `NAME:FOLDER` in one; with its split, `NAME/SPLIT`.
        folder: what holds its files, unpacked or in the zips they were published in; a zip; or for a container
            (vlmevalkit, llava, video-r1, webdataset) the file itself.
        split: the benchmark's usual one where not given. A container's split is the name of its file.
        size: of the frames, as in `read_video`; None keeps the stored one.
        frames, fps: which frames of a video; with `fps`, `frames` is left aside.

    Raises:
        UsageError: no such benchmark, folder, file, column or split.
    """
    spec, place, split = find(name, folder, split)
    sampling = Sampling(fps=fps) if fps is not None else Sampling(frames=frames)
    return Benchmark(spec, place, split, View(size=size, sampling=sampling))
