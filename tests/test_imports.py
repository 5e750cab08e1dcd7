"""Who may import whom, what importing costs, and calls that the package must not contain."""

from __future__ import annotations

import ast
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
HEAVY = {"torch", "open_clip", "transformers", "matplotlib"}
LIGHT = (
    "entropy_vision",
    "entropy_vision.frames",
    "entropy_vision.grid",
    "entropy_vision.rate",
    "entropy_vision.budget",
    "entropy_vision.selection",
    "entropy_vision.tokenizer",
    "entropy_vision.tower",
    "entropy_vision.options",
    "entropy_vision.cli",
    "entropy_vision.rl.watch",
    "entropy_vision.report",
    "entropy_vision.show",
    "entropy_vision.data",
    "entropy_vision.data.world",
    "entropy_vision.data.benchmarks.check",
    "entropy_vision.data.shards",
    "entropy_vision.data.index",
    "entropy_vision.data.order",
    "entropy_vision.data.bins",
    "entropy_vision.rl",
    "entropy_vision.rl.verifiers",
    "entropy_vision.rl.rubric",
    "entropy_vision.rl.health",
    "entropy_vision.rl.adapters",
)


def files_of(folder: str) -> list[Path]:
    found = sorted((ROOT / folder).rglob("*.py"))
    assert found, f"no Python files in {folder}"
    return found


def imports(tree: ast.AST, *, module_level: bool) -> Iterator[tuple[int, str, int]]:
    """(line, dotted name, level of a relative import); with module_level not those inside functions or for types."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name, 0) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                yield node.lineno, f"{node.module or ''}.{alias.name}".strip("."), node.level
        elif not (module_level and runs_later(node)):
            yield from imports(node, module_level=module_level)


def runs_later(node: ast.AST) -> bool:
    """Whether what is inside runs at a call, or never because it is for type checkers."""
    if isinstance(node, ast.If):
        return "TYPE_CHECKING" in ast.unparse(node.test)
    return isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)


def within(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


def wrong_imports(source: str, folder: str, depth: int) -> list[str]:
    """What a file of a folder may not import; `depth` is the number of packages between it and the folder's top."""
    tree, other = ast.parse(source), {"rl": "data", "data": "rl"}.get(folder)
    wrong = []
    for line, name, level in imports(tree, module_level=other is None):
        outside = level > depth + 1
        absolute = level == 0
        if other is None:
            bad = absolute and any(within(name, f"entropy_vision.{side}") for side in ("rl", "data"))
        else:
            banned = (f"entropy_vision.{other}", f"entropy_vision.{folder}", "rl", "data", "tools", "tests")
            bad = outside or (absolute and any(within(name, one) for one in banned))
        if bad:
            wrong.append(f"line {line}: {'.' * level}{name}")
    return wrong


def forbidden(source: str) -> list[str]:
    """Calls and imports through which text or files could run code."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [name for _, name, level in imports(ast.Module([node], []), module_level=False) if not level]
            # its exception may be caught: torch raises it for a damaged file
            found += [f"line {node.lineno}: {name}" for name in names if within(name, "pickle") and "Error" not in name]
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called in ("eval", "exec", "torch.load", "yaml.load", "os.system"):
                found.append(f"line {node.lineno}: {called}(")
            for keyword in node.keywords:
                on = isinstance(keyword.value, ast.Constant) and keyword.value.value is True
                if keyword.arg in ("shell", "trust_remote_code", "allow_pickle") and on:
                    found.append(f"line {node.lineno}: {keyword.arg}=True")
    return found


@pytest.mark.parametrize("folder", ["entropy_vision", "rl", "data"])
def test_a_package_imports_only_what_stands_below_it(folder: str) -> None:
    wrong = {
        str(path.relative_to(ROOT)): found
        for path in files_of(folder)
        if (found := wrong_imports(path.read_text(), folder, len(path.relative_to(ROOT / folder).parts) - 1))
    }
    assert not wrong


@pytest.mark.parametrize(
    ("folder", "source"),
    [
        ("rl", "from entropy_vision.data import World"),
        ("rl", "def f():\n    import entropy_vision.data.shards"),
        ("rl", "from entropy_vision.rl.loss import policy_loss"),
        ("rl", "from ..data import World"),
        ("data", "from entropy_vision.rl import verify"),
        ("data", "import rl"),
        ("entropy_vision", "from entropy_vision.data import World"),
        ("entropy_vision", "try:\n    import entropy_vision.rl.loss\nexcept ImportError:\n    pass"),
    ],
)
def test_an_import_in_the_wrong_direction_is_found(folder: str, source: str) -> None:
    assert wrong_imports(source, folder, depth=0)


@pytest.mark.parametrize(
    ("folder", "source"),
    [
        ("rl", "from .loss import policy_loss\nfrom entropy_vision.frames import Frames"),
        ("entropy_vision", "def f():\n    from entropy_vision.data import World"),
        ("entropy_vision", "if TYPE_CHECKING:\n    from entropy_vision.rl import Verdict"),
    ],
)
def test_an_import_in_the_right_direction_passes(folder: str, source: str) -> None:
    assert not wrong_imports(source, folder, depth=0)


def test_the_package_has_no_call_that_runs_foreign_code() -> None:
    paths = [path for folder in ("entropy_vision", "rl", "data") for path in files_of(folder)]
    found = {str(path.relative_to(ROOT)): wrong for path in paths if (wrong := forbidden(path.read_text()))}
    assert not found


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from pickle import loads",
        "eval('1')",
        "exec('a = 1')",
        "torch.load(path)",
        "yaml.load(text)",
        "subprocess.run(line, shell=True)",
        "Model.from_pretrained(name, trust_remote_code=True)",
        "np.load(path, allow_pickle=True)",
    ],
)
def test_a_call_that_runs_foreign_code_is_found(source: str) -> None:
    assert forbidden(source)


def loaded_after(code: str) -> set[str]:
    """Top-level modules in memory after some code in a fresh interpreter."""
    tail = "\nimport sys\nprint(*sorted({name.split('.')[0] for name in sys.modules}), sep='\\n')"
    done = subprocess.run([sys.executable, "-c", code + tail], capture_output=True, text=True, check=True, cwd="/")
    return set(done.stdout.split())


def test_light_modules_import_no_torch() -> None:
    code = "import importlib\n" + "\n".join(f"importlib.import_module({name!r})" for name in LIGHT)
    assert not loaded_after(code) & HEAVY


def test_the_heavy_check_sees_a_heavy_import() -> None:
    assert "matplotlib" in loaded_after("import matplotlib") & HEAVY


def test_help_imports_nothing_heavy() -> None:
    code = """
import io
from contextlib import redirect_stdout
from entropy_vision import cli
with redirect_stdout(io.StringIO()):
    assert cli.main(["--help"]) == 0
    for name in cli.verbs():
        try:
            cli.parse(name, ["--help"])
        except SystemExit as end:
            assert not end.code
"""
    assert not loaded_after(code) & HEAVY


@pytest.mark.parametrize("arguments", [["--help"], ["show", "--help"]])
def test_help_takes_less_than_a_second(arguments: list[str]) -> None:
    def spent() -> float:  # what children took of a core: on an idle machine that is how long one waits
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime

    best = float("inf")
    for _ in range(3):
        start = spent()
        subprocess.run([sys.executable, "-m", "entropy_vision.cli", *arguments], capture_output=True, check=True)
        best = min(best, spent() - start)
    assert 0 < best < 1.0
