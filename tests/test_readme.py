"""Every block of the README runs: commands on small generated files, Python as it stands."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from media import drifting, write
from small_chat import VICUNA, pieces_tokenizer, with_parts
from tokenizers import AddedToken

from entropy_vision import EntropyVLMProcessor
from tests.core.test_llava import _save

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
PAGES = ("README.md", "CONTRIBUTING.md")
PYTHON = (sys.executable, "-P")  # without the working folder on the path: the recipes' folder is called entropy_vision
SLOW = ("bench", "train", "eval", "doctor", "demo")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def commands() -> list[str]:
    return [line for block in blocks("bash") for line in block.splitlines() if line.strip()]


def verb_of(line: str) -> str:
    return line.split()[1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files that the README's commands name."""
    folder = tmp_path_factory.mktemp("readme")
    (folder / "videos").mkdir()
    write(folder / "video.mp4", drifting(4, 96, 128), fps=2)
    write(folder / "videos" / "first.mp4", drifting(4, 64, 64))
    write(folder / "videos" / "second.mkv", drifting(4, 64, 96, seed=1))
    tokenizer = pieces_tokenizer(with_parts(VICUNA))
    tokenizer.add_tokens([AddedToken("<video>", special=True, normalized=False)])
    _save(folder / "llava-1.5", "llava", tokenizer=tokenizer)
    (folder / "entropy_vision").mkdir()
    (folder / "entropy_vision" / "recipes").symlink_to(ROOT / "entropy_vision" / "recipes")
    return folder


def run(line: list[str], folder: Path) -> str:
    done = subprocess.run(line, cwd=folder, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, f"{shlex.join(line)}\n{done.stderr}"
    return done.stdout


def test_every_block_says_its_language_and_is_known() -> None:
    languages = re.findall(r"^```(\w*)\n.*?^```$", README, re.MULTILINE | re.DOTALL)
    assert set(languages) == {"bash", "python"}
    assert all(line.split()[0] in ("make", "entropy-vision") for line in commands())


def test_the_make_commands_are_targets() -> None:
    told = {line.split()[1] for line in commands() if line.startswith("make ")}
    assert {"demo", "test"} <= told
    known = subprocess.run(["make", "-np", "-f", "Makefile"], cwd=ROOT, capture_output=True, text=True).stdout
    for target in told | {"lint", "venv"}:
        assert re.search(rf"^{target}:", known, re.MULTILINE), target


def test_the_quick_commands_run(folder: Path) -> None:
    quick = [line for line in commands() if line.startswith("entropy-vision ") and verb_of(line) not in SLOW]
    assert {verb_of(line) for line in quick} == {"show", "preprocess", "verify"}
    for line in quick:
        run([*PYTHON, "-m", "entropy_vision.cli", *shlex.split(line)[1:]], folder)
    assert (folder / "look" / "report.html").is_file() and (folder / "beside" / "kept.png").is_file()


# short of what the README's lines take: the shape of the command is what is tried here
LESS = {
    "train": [
        "steps=2",
        "data.image_scenes=2",
        "data.video_scenes=1",
        "data.pool=8",
        "eval.scenes=2",
        "grpo.max_new_tokens=8",
    ],
    "eval": ["--questions", "4"],
    "bench": ["--repeats", "1", "--frames", "2"],
}


@pytest.mark.slow
def test_the_slow_commands_run(folder: Path) -> None:
    slow = [line for line in commands() if line.startswith("entropy-vision ") and verb_of(line) in SLOW]
    for line in slow:
        arguments = shlex.split(line)[1:] + LESS.get(verb_of(line), [])
        run([*PYTHON, "-m", "entropy_vision.cli", *arguments], folder)
    assert {verb_of(line) for line in slow} == {"train", "eval", "bench", "doctor"}


@pytest.mark.slow
def test_the_python_block_runs(folder: Path) -> None:
    code, _ = blocks("python")
    assert "(49, 768)" in run([*PYTHON, "-c", code + "\nprint(tuple(tokens.shape))"], folder)


def test_the_first_lines_of_the_python_block_run(folder: Path) -> None:
    code, _ = blocks("python")
    light = "\n".join(line for line in code.splitlines() if "VisionEncoder" not in line)
    out = run([*PYTHON, "-c", light + "\nimport sys\nassert 'torch' not in sys.modules"], folder)
    assert out.split()[0] == "49"  # a quarter of 4 frames of 49 patches


@pytest.mark.parametrize(("theirs", "kind"), [("llava", "qwen2_5_vl"), ("onevision", "qwen3_vl")])
def test_the_block_of_policies_runs(theirs: str, kind: str, tmp_path: Path) -> None:
    from tests.core.test_qwen_vl import _model
    from tests.small_policy import small_policy

    model, tokenizer = small_policy()
    for one in (model, EntropyVLMProcessor.for_model(model, tokenizer)):
        one.save_pretrained(tmp_path / "runs" / "grpo" / "step-000220")
    _save(tmp_path / "llava-1.5", theirs)
    for one in _model(kind):
        one.save_pretrained(tmp_path / "qwen-vl")
    write(tmp_path / "image.jpg", drifting(1), codec="mjpeg", pixel_format="yuvj420p", container="image2")
    _, code = blocks("python")
    out = run([*PYTHON, "-c", code + "\nprint(type(llava).__name__, type(qwen).__name__)"], tmp_path)
    assert "how many red ?" not in out  # what was asked is not said again
    assert out.startswith("[") and len(out.splitlines()[0]) > 10 and out.splitlines()[-1] == "EntropyVLM PrunedVL"


def test_every_verb_of_the_command_line_is_in_the_table() -> None:
    from entropy_vision import cli

    told = set(re.findall(r"^\| `(\w+)[ `]", README, re.MULTILINE))
    assert told == set(cli.verbs())


@pytest.mark.parametrize("page", PAGES)
def test_every_link_and_picture_is_there(page: str) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", (ROOT / page).read_text()):
        if not target.startswith("https://"):
            assert (ROOT / target.partition("#")[0]).is_file(), target


def test_pictures_are_small() -> None:
    assert all(path.stat().st_size < 200_000 for path in (ROOT / "docs/images").iterdir())
