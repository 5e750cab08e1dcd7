"""Is this machine fit, and what mends it: versions, the torch pair, decoders, OpenCV, accelerator, threads."""

from __future__ import annotations

import importlib
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

import numpy as np

from entropy_vision.errors import CheckFailed, EntropyVisionError
from entropy_vision.frames import Frames
from entropy_vision.options import DoctorOptions

_PACKAGES = (
    "entropy-vision",
    "torch",
    "torchvision",
    "open_clip_torch",
    "transformers",
    "tokenizers",
    "safetensors",
    "av",
    "webdataset",
    "numpy",
    "pillow",
    "tyro",
    "rich",
    "matplotlib",
)
_INSTALL = "python -m pip install"
_HEADLESS = f"python -m pip uninstall -y opencv-python && {_INSTALL} opencv-python-headless"
_PAIR = (
    f"{_INSTALL} --force-reinstall torch torchvision (both from one index: "
    "a +cpu torch needs the torchvision of PyTorch's own CPU wheel index)"
)
# what a broken installation raises when it is imported and tried; anything else is a bug of ours and stays a traceback
_BROKEN = (ImportError, OSError, RuntimeError, AttributeError)


@dataclass(frozen=True)
class Check:
    """One thing that was tried; `mend` is the line that helps ("" where nothing is wrong)."""

    name: str
    ok: bool
    detail: str
    mend: str = ""


def run_doctor(options: DoctorOptions) -> dict[str, object]:
    """Try everything the package stands on.

    Returns:
        {"ok": bool, "checks": [{"name", "ok", "detail", "mend"}]}.

    Raises:
        CheckFailed: something is wrong; its result is that same dict.
    """
    checks = [check() for check in CHECKS]
    result: dict[str, object] = {"ok": all(one.ok for one in checks), "checks": [asdict(one) for one in checks]}
    wrong = [one for one in checks if not one.ok]
    if wrong:
        mends = "; ".join(f"{one.name}: {one.mend}" for one in wrong)
        raise CheckFailed(f"{len(wrong)} of {len(checks)} checks failed: {mends}", result)
    return result


def check_python() -> Check:
    """Python is 3.11 or newer."""
    return Check(
        "python",
        sys.version_info >= (3, 11),
        f"{platform.python_version()} on {platform.system()} {platform.machine()}",
        "" if sys.version_info >= (3, 11) else "make venv PYTHON=python3.11",
    )


def check_packages() -> Check:
    """Every package that the project names is installed."""
    found, missing = [], []
    for name in _PACKAGES:
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            missing.append(name)
    if missing:
        return Check("packages", False, f"missing: {', '.join(missing)}", f"{_INSTALL} {' '.join(missing)}")
    return Check("packages", True, ", ".join(found))


def check_torch_pair() -> Check:
    """torch and torchvision were built for each other: torchvision's own operator runs."""

    def attempt() -> str:
        torch, ops = importlib.import_module("torch"), importlib.import_module("torchvision.ops")
        kept = ops.nms(torch.tensor([[0.0, 0.0, 1.0, 1.0]]), torch.tensor([1.0]), 0.5)
        if kept.tolist() != [0]:
            raise RuntimeError(f"torchvision.ops.nms gave {kept.tolist()} for one box")
        return f"torch {torch.__version__}, torchvision {importlib.import_module('torchvision').__version__}"

    return _attempt("torch + torchvision", attempt, _PAIR)


def check_models() -> Check:
    """open_clip and transformers load."""

    def attempt() -> str:
        open_clip = importlib.import_module("open_clip")
        importlib.import_module("transformers.models.qwen2.modeling_qwen2")
        return f"open_clip knows {len(open_clip.list_models())} models; transformers loads a language model"

    return _attempt("open_clip + transformers", attempt, f"{_INSTALL} --upgrade open_clip_torch transformers")


def check_cv2() -> Check:
    """OpenCV loads; on servers without libGL only its headless build does."""

    def attempt() -> str:
        cv2 = importlib.import_module("cv2")
        resized = cv2.resize(np.zeros((4, 4, 3), np.uint8), (2, 2), interpolation=cv2.INTER_AREA)
        return f"cv2 {cv2.__version__}, resizes to {resized.shape[1]}x{resized.shape[0]}"

    return _attempt("opencv", attempt, _HEADLESS)


def check_pyav() -> Check:
    """PyAV writes a tiny H.264 video and reads every frame back."""
    return _roundtrip("pyav", f"{_INSTALL} --force-reinstall av")


def check_decord() -> Check:
    """decord reads what PyAV wrote, where it has a wheel; nothing but `decoder="decord"` needs it."""
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        told = f"no wheel for {platform.system()} {platform.machine()}"
        return Check("decord", True, f'{told}: nothing but decoder="decord" needs it')
    return _roundtrip("decord", f"{_INSTALL} --force-reinstall decord")


def _roundtrip(decoder: str, mend: str) -> Check:
    def attempt() -> str:
        from entropy_vision.video_write import write_video

        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "roundtrip.mp4"
            levels = np.repeat(np.arange(6, dtype=np.uint8) * 30, 64 * 64 * 3).reshape(6, 64, 64, 3)
            write_video(path, Frames(pixels=levels, pts_seconds=np.arange(6) / 8), fps=8)
            # in a process of its own: a decoder that hangs or dies must not take the doctor along
            code = (
                "import sys; from entropy_vision.frames import read_video; "
                f"print(read_video(sys.argv[1], size=64, decoder={decoder!r}).pixels.shape[0])"
            )
            done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, timeout=60)
        if done.returncode != 0:
            lines = done.stderr.strip().splitlines()
            raise RuntimeError(lines[-1] if lines else f"the decoder's process ended with code {done.returncode}")
        if done.stdout.strip() != "6":
            raise RuntimeError(f"6 frames were written, {done.stdout.strip()} came back")
        return "6 frames of H.264 written and read back"

    return _attempt(decoder, attempt, mend)


def check_selection() -> Check:
    """The selector keeps exactly as many patches as it was told."""

    def attempt() -> str:
        from entropy_vision.tokenizer import EntropyTokenizer

        pixels = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
        kept = EntropyTokenizer(patch_size=16, keep=0.25)(Frames(pixels=pixels, pts_seconds=np.arange(3) / 8))
        if len(kept) != 12:
            raise RuntimeError(f"kept {len(kept)} of 48 patches where 12 were asked for")
        return "12 of 48 patches kept, exactly as asked"

    return _attempt("selection", attempt, f"{_INSTALL} --force-reinstall numpy opencv-python-headless")


def check_accelerator() -> Check:
    """An accelerator that is there can be used; none at all is fine."""

    def attempt() -> str:
        torch = importlib.import_module("torch")
        if not torch.cuda.is_available():
            if Path("/dev/nvidiactl").exists():
                raise RuntimeError(f"a GPU is there, but torch {torch.__version__} cannot use it")
            return "none; everything runs on the CPU"
        ones = torch.ones(64, 64, device="cuda")
        if float((ones @ ones).sum()) != 64.0**3:
            raise RuntimeError("a matrix product on the GPU came out wrong")
        count, name = torch.cuda.device_count(), torch.cuda.get_device_name(0)
        return f"{count} x {name}, {torch.cuda.get_device_properties(0).total_memory / 2**30:.0f} GiB"

    return _attempt("accelerator", attempt, "bring the driver up to the CUDA version torch was built for (nvidia-smi)")


def check_threads() -> Check:
    """torch uses no more threads than there are cores for this process."""

    def attempt() -> str:
        threads, cores = importlib.import_module("torch").get_num_threads(), usable_cores()
        if threads > cores:
            raise RuntimeError(f"{threads} threads on {cores} cores")
        return f"{threads} threads on {cores} cores"

    return _attempt("threads", attempt, f"export OMP_NUM_THREADS={usable_cores()}")


def usable_cores() -> int:
    """Cores this process may use: the scheduler's mask and the container's quota, at least 1."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
    except (OSError, ValueError):
        return cores
    return cores if quota == "max" else max(1, min(cores, -(-int(quota) // int(period))))


def _attempt(name: str, attempt: Callable[[], str], mend: str) -> Check:
    try:
        return Check(name, True, attempt())
    except (*_BROKEN, EntropyVisionError, subprocess.TimeoutExpired) as error:
        told = str(error).strip().splitlines()
        return Check(name, False, f"{type(error).__name__}: {told[0] if told else 'no message'}", mend)


CHECKS: tuple[Callable[[], Check], ...] = (
    check_python,
    check_packages,
    check_torch_pair,
    check_models,
    check_cv2,
    check_pyav,
    check_decord,
    check_selection,
    check_accelerator,
    check_threads,
)
