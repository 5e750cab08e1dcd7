"""One worker process: tasks come as JSON lines on stdin, a reply goes out for each, samples go to files.

It is a process of its own because decoders hang, die and take memory without end: whoever started it may kill it at any
moment and loses one input. It runs on one thread; a machine is filled with workers, one a core.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from entropy_vision.atomic import atomic_write
from entropy_vision.budget import Budget
from entropy_vision.errors import InputError, InputReason, UsageError
from entropy_vision.frames import Frames, decode
from entropy_vision.sampling import Sampling
from entropy_vision.scale import warm_up
from entropy_vision.tokenizer import EntropyTokenizer

from .archive import canonical, pack
from .paths import is_remote
from .sample import Sample, to_members
from .shards import line
from .source import NoRoom, Source, bytes_digest, localized, sha256_of

_PR_SET_PDEATHSIG = 1


def main() -> int:
    """Serve until stdin ends. The first line is {"settings"}, every other a task."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    most = memory_limit()
    resource.setrlimit(resource.RLIMIT_DATA, (most, resource.getrlimit(resource.RLIMIT_DATA)[1]))
    # replies own the real stdout; whatever a library prints goes to stderr
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    settings = json.loads(sys.stdin.readline())
    _die_with(settings["parent"])
    tokenizer = EntropyTokenizer(
        patch_size=settings["patch_size"],
        budget=Budget(**settings["budget"]),
        selector=settings["selector"],
        merge=settings["merge"],
    )
    scratch = Path(settings["scratch"])
    _warm_up(settings["patch_size"], settings["selector"])
    print(json.dumps({"ready": True}), file=replies)
    for text in sys.stdin:
        task = json.loads(text)
        reply: dict[str, Any] = {"index": task["index"]}
        try:
            part, note = make(task, settings, tokenizer, scratch)
        except InputError as error:
            reply |= {"reason": str(error.reason), "detail": error.detail}
        except NoRoom as error:
            reply |= {"errno": error.args[0]}
        except MemoryError:
            detail = (
                f"it takes more than the {most >> 20} MiB a worker may use: take fewer frames (fps) or a smaller size"
            )
            reply |= {"reason": str(InputReason.TOO_LARGE), "detail": detail}
        except UsageError as error:  # a budget that these frames cannot be cut to: the run's fault, not the input's
            reply |= {"usage": f"{task['name']}: {error}"}
        else:
            reply |= _write(task, part, note)
        print(json.dumps(reply), file=replies)
    return 0


def _warm_up(patch_size: int, selector: str) -> None:
    """Load what is compiled, or compile it: that may take a minute, which no input's deadline is for.

    A picture, a camera that rests, one that turns, and one that turns before something nearer.
    """
    tokenizer = EntropyTokenizer(patch_size=patch_size, keep=0.25, selector=selector)
    side, rng = patch_size * max(4, min(16, 256 // patch_size)), np.random.default_rng(0)
    ground, near = (cv2.resize(rng.integers(0, 256, (side // 4, side // 4, 3), np.uint8), (side, side)) for _ in "ab")
    turned = np.empty((5, side, side, 3), np.uint8)
    for t in range(5):
        turn = cv2.getRotationMatrix2D((side / 2, side / 2), t, 1.0)
        turned[t] = cv2.warpAffine(ground, turn, (side, side), borderMode=cv2.BORDER_REFLECT)
    before = turned.copy()
    for t in range(5):
        before[t, side // 3 : 2 * side // 3] = np.roll(near, -3 * t, axis=1)[side // 3 : 2 * side // 3]
    for pixels in (turned[:1], turned[:1].repeat(9, axis=0), turned, before):
        tokenizer(Frames(pixels=pixels, pts_seconds=np.arange(float(len(pixels)))))
    warm_up()


def _die_with(parent: int) -> None:
    """Let the kernel end this process when its parent is gone: whoever resumes the run must be alone with its files.

    Elsewhere than on Linux, an orphan ends by itself after the task it has.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it was gone before we asked
            os.kill(os.getpid(), signal.SIGKILL)


def memory_limit() -> int:
    """Bytes a worker may ask for: half of the machine's (or the container's) memory, so that no input takes it down.

    It does not depend on the number of workers, so what becomes of an input does not either. RLIMIT_DATA counts what
    is asked for, RLIMIT_AS also the libraries that are only mapped (824 against 172 MiB for a 1080p video).
    """
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    group = Path("/sys/fs/cgroup/memory.max")
    if group.exists() and (text := group.read_text().strip()).isdigit():  # else "max"
        total = min(total, int(text))
    return total // 2


def make(
    task: dict[str, Any], settings: dict[str, Any], tokenizer: EntropyTokenizer, scratch: Path
) -> tuple[bytes, dict[str, Any]]:
    """Decode, choose, pack: (the sample, what is noted of it, its line for the marker included)."""
    source = Source(**task["source"])
    with localized(source, scratch) as path:
        # what lies elsewhere was planned without being read
        sha256 = task["digest"] if source.stands_alone else sha256_of(path)
        if not is_remote(source.path) and task["digest"] and sha256 != task["digest"]:
            raise InputError(source.name, InputReason.CHANGED, "the tar has changed since the run began: run it again")
        sampling = Sampling.read(settings["sampling"])
        frames, info = decode(path, sampling, size=settings["size"], salvage=settings["salvage"])
    patches = tokenizer(frames)
    sample = Sample(
        key=task["key"],
        pixels=patches.pixels,
        positions=patches.positions,
        bits=patches.bits,
        selector=patches.selector,
        spans=patches.spans,
        source=source.name,
        pts_seconds=frames.pts_seconds,
        record={
            "sha256": sha256,
            "size": list(frames.size),
            "fingerprint": settings["fingerprint"],
            "decoder": asdict(info),
            "frames": {**sampling.settings(), "size": settings["size"], "salvage": settings["salvage"]},
        },
    )
    members = to_members(sample, settings["store"])
    part = pack(sample.key, members)
    about = {"mark": settings["mark"], "digest": task["digest"]}
    return part, {"line": line(sample, members), "bytes": len(part), "sha256": bytes_digest(part), **about}


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
