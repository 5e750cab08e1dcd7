"""One worker process: tasks come as JSON lines on stdin, a reply goes out for each, samples go to files.

It is a process of its own because decoders hang and die: whoever started it may kill it at any moment and loses one
input. It runs on one thread; a machine is filled with workers, one a core.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from entropy_vision.atomic import atomic_write
from entropy_vision.budget import Budget
from entropy_vision.errors import InputError, UsageError
from entropy_vision.frames import decode
from entropy_vision.sampling import Sampling
from entropy_vision.tokenizer import EntropyTokenizer

from .archive import canonical, pack
from .files import bytes_digest
from .sample import Sample, to_members
from .shards import line


def main() -> int:
    """Serve until stdin ends. The first line is {"settings"}, every other a task."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # replies own the real stdout; whatever a library prints goes to stderr
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    settings = json.loads(sys.stdin.readline())
    tokenizer = EntropyTokenizer(
        patch_size=settings["patch_size"],
        budget=Budget(**settings["budget"]),
        selector=settings["selector"],
        merge=settings["merge"],
    )
    print(json.dumps({"ready": True}), file=replies)
    for text in sys.stdin:
        task = json.loads(text)
        reply: dict[str, Any] = {"index": task["index"]}
        try:
            part, note = make(task, settings, tokenizer)
        except InputError as error:
            reply |= {"reason": str(error.reason), "detail": error.detail}
        except UsageError as error:  # a budget that these frames cannot be cut to: the run's fault, not the input's
            reply |= {"usage": f"{task['path']}: {error}"}
        else:
            reply |= _write(task, part, note)
        print(json.dumps(reply), file=replies)
    return 0


def make(task: dict[str, Any], settings: dict[str, Any], tokenizer: EntropyTokenizer) -> tuple[bytes, dict[str, Any]]:
    """Decode, choose, pack: (the sample, what is noted of it, its line for the marker included)."""
    sampling = Sampling.read(settings["sampling"])
    frames, info = decode(task["path"], sampling, size=settings["size"], salvage=settings["salvage"])
    patches = tokenizer(frames)
    sample = Sample(
        key=task["key"],
        pixels=patches.pixels,
        positions=patches.positions,
        bits=patches.bits,
        selector=patches.selector,
        spans=patches.spans,
        source=task["path"],
        pts_seconds=frames.pts_seconds,
        record={
            "sha256": task["sha256"],
            "size": list(frames.size),
            "fingerprint": tokenizer.fingerprint(),
            "decoder": asdict(info),
            "frames": {**sampling.settings(), "size": settings["size"], "salvage": settings["salvage"]},
        },
    )
    members = to_members(sample, settings["store"])
    part = pack(sample.key, members)
    return part, {"line": line(sample, members), "bytes": len(part), "sha256": bytes_digest(part)}


def _write(task: dict[str, Any], part: bytes, note: dict[str, Any]) -> dict[str, int]:
    """Write the sample, and its note last. A disk that is full is not the input's fault: {"errno"} ends the run."""
    try:
        atomic_write(Path(task["part"]), part, durable=False)
        atomic_write(Path(task["note"]), canonical(note), durable=False)
    except OSError as error:
        if error.errno is None:
            raise
        return {"errno": error.errno}
    return {}


if __name__ == "__main__":
    sys.exit(main())
