"""One import name, one console script, every folder in the wheel and nothing else."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text())


def packages_on_disk() -> set[str]:
    """Import names of all folders that hold Python files of the distribution."""
    tops = {"entropy_vision": "entropy_vision", "rl": "entropy_vision.rl", "data": "entropy_vision.data"}
    names = set()
    for folder, name in tops.items():
        for path in (ROOT / folder).rglob("*.py"):
            below = path.parent.relative_to(ROOT / folder).parts
            names.add(".".join([name, *below]))
    return names


def test_the_package_list_equals_the_folders() -> None:
    assert set(SETTINGS["tool"]["setuptools"]["packages"]) == packages_on_disk()


def test_every_package_has_an_init_file() -> None:
    back = SETTINGS["tool"]["setuptools"]["package-dir"]
    for name in SETTINGS["tool"]["setuptools"]["packages"]:
        top = next((one for one in back if name == one or name.startswith(f"{one}.")), None)
        folder = back[top] + name[len(top) :].replace(".", "/") if top else name.replace(".", "/")
        assert (ROOT / folder / "__init__.py").is_file(), folder


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel built from a copy of the checkout, so that the checkout stays as it is."""
    copy = tmp_path_factory.mktemp("checkout")
    ignore = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for folder in ("entropy_vision", "rl", "data", "tests", "tools"):
        if (ROOT / folder).is_dir():
            shutil.copytree(ROOT / folder, copy / folder, ignore=ignore)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy / name)
    line = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(copy / "dist"), str(copy)]
    done = subprocess.run(line, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = (copy / "dist").glob("*.whl")
    return zipfile.ZipFile(path)


def test_the_wheel_holds_one_import_name_and_no_tests_or_tools(wheel: zipfile.ZipFile) -> None:
    names = wheel.namelist()
    info = next(name.split("/")[0] for name in names if name.endswith(".dist-info/METADATA"))
    assert {name.split("/")[0] for name in names} == {"entropy_vision", info}
    assert wheel.read(f"{info}/top_level.txt").decode().split() == ["entropy_vision"]
    assert wheel.read(f"{info}/entry_points.txt").decode().split() == [
        "[console_scripts]",
        "entropy-vision",
        "=",
        "entropy_vision.cli:main",
    ]
    assert not [name for name in names if "tests/" in name or "tools/" in name]


def test_the_wheel_holds_every_module_and_data_file(wheel: zipfile.ZipFile) -> None:
    expected = set()
    for folder, name in (
        ("entropy_vision", "entropy_vision"),
        ("rl", "entropy_vision/rl"),
        ("data", "entropy_vision/data"),
    ):
        for path in (ROOT / folder).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                expected.add(f"{name}/{path.relative_to(ROOT / folder).as_posix()}")
    assert {"entropy_vision/py.typed", "entropy_vision/assets/report.css"} <= expected
    assert any(name.startswith("entropy_vision/model_configs/") for name in expected)
    assert any(name.startswith("entropy_vision/recipes/") for name in expected)
    assert expected <= set(wheel.namelist())


def test_the_version_is_written_once_and_the_same() -> None:
    import entropy_vision

    assert entropy_vision.__version__ == SETTINGS["project"]["version"]


def test_every_dependency_is_explained() -> None:
    table = (ROOT / "docs/dependencies.md").read_text()
    extras = SETTINGS["project"]["optional-dependencies"].values()
    for line in [*SETTINGS["project"]["dependencies"], *(line for extra in extras for line in extra)]:
        name = re.split(r"[;>=\[]", line)[0].strip()
        if name == "entropy-vision":  # extras that name other extras
            continue
        assert f"`{name}`" in table, f"docs/dependencies.md does not say what {name} is for"
