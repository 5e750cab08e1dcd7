"""What a run would do, found from file names and headers, and written nowhere."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from entropy_vision.budget import Budget
from entropy_vision.console import progress
from entropy_vision.errors import InputError, InputReason
from entropy_vision.grid import grid_size
from entropy_vision.probe import Limits, check_path, probe_video
from entropy_vision.sampling import Sampling, choose
from entropy_vision.still import is_still
from entropy_vision.video import quiet_ffmpeg

from .archive import markers, read_marker
from .source import Source

_PROBED = 64  # inputs whose headers are read; the rest is taken to be like them


def estimate(inputs: Sequence[Source], out: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """Count what there is and estimate what comes of it.

    Args:
        settings: of the run, as it would write them down.

    Returns:
        inputs: files named; missing: those that are not there; bytes: of the others; in_shards: those of that path
        that `out` holds already (a run tells by content); probed: whose headers were read, evenly spread over the files
        of this machine; unreadable: of these, with no frames to be had; frames, tokens_total, tokens_kept: estimates
        for all inputs, by the mean of the probed ones; None where nothing was probed, or only the pixels tell (of
        scenes, how many there are).
    """
    there = [source for source in inputs if source.size >= 0]
    held = {line["source"] for marker in markers(out) for line in read_marker(marker).samples}
    local = [source for source in there if source.stands_alone]
    probed = local[:: max(1, -(-len(local) // _PROBED))]
    quiet_ffmpeg()
    grids: list[tuple[int | None, int, int]] = []
    with progress("read headers", len(probed)) as bar:
        for source in probed:
            with suppress(InputError):  # counted below: probed less those with a grid
                grids.append(_grid(Path(source.path), settings))
            bar.advance(note=source.name)
    scale = len(there) / len(probed) if probed else 0.0
    patches = [frames and frames * rows * columns for frames, rows, columns in grids]
    kept = [count and Budget(**settings["budget"]).size(count) for count in patches]
    return {
        "inputs": len(inputs),
        "missing": len(inputs) - len(there),
        "bytes": sum(source.size for source in there),
        "in_shards": sum(source.name in held for source in inputs),
        "probed": len(probed),
        "unreadable": len(probed) - len(grids),
        "frames": _scaled(scale, [frames for frames, _, _ in grids]),
        "tokens_total": _scaled(scale, patches),
        "tokens_kept": _scaled(scale, kept),
        "out": str(out),
    }


def _scaled(scale: float, counts: Sequence[int | None]) -> int | None:
    known = [count for count in counts if count is not None]
    return round(scale * sum(known)) if scale and len(known) == len(counts) else None


def _grid(path: Path, settings: dict[str, Any]) -> tuple[int | None, int, int]:
    """(F, R, C) of an input by its header alone, F None where it does not tell. Raises InputError as decoding would."""
    side = settings["patch_size"]
    frames: int | None
    if is_still(check_path(path)):
        frames, height, width = 1, *_still_size(path)
    else:
        probe = probe_video(path, Limits())
        chosen = choose(Sampling.read(settings["sampling"]), probe.times, probe.keyframes, sizes=probe.sizes)
        if chosen == []:
            raise InputError(path, InputReason.NO_FRAMES, "none of its frames is taken")
        frames = None if chosen is None else len(chosen)
        stored = probe.layout.height, probe.layout.width
        height, width = stored[::-1] if probe.rotation % 180 else stored
    if settings["size"] is not None:
        height, width = settings["size"] if isinstance(settings["size"], list) else (settings["size"],) * 2
    return (frames, *grid_size(height, width, side))


def _still_size(path: Path) -> tuple[int, int]:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            return image.height, image.width
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(path, InputReason.DAMAGED, f"the image's header is damaged ({error})") from None
