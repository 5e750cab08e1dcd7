"""Configuration files are strict, and what is written reads back."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from entropy_vision.config import fingerprint, load_config, to_toml
from entropy_vision.errors import InputError, InputReason, UsageError

Writer = Callable[[str], Path]


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


@dataclass(frozen=True, kw_only=True)
class Optim:
    lr: float = 1e-5
    warmup: int = 20


@dataclass(frozen=True, kw_only=True)
class Inner:
    optim: Optim = field(default_factory=Optim)
    sizes: tuple[int, ...] = (1, 2)
    span: tuple[float, str] = (0.5, "s")


@dataclass(frozen=True, kw_only=True)
class Run:
    stage: Literal["align", "grpo"]
    out: Path
    seed: int = 0
    name: str = ""
    deep: bool = False
    limit: float | None = None
    colour: Colour = Colour.RED
    inner: Inner = field(default_factory=Inner)

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise UsageError("seed must be at least 0")


HEAD = 'stage = "grpo"\nout = "runs/a"\n'


@pytest.fixture
def write(tmp_path: Path) -> Writer:
    def write_text(text: str) -> Path:
        path = tmp_path / "run.toml"
        path.write_text(text, encoding="utf-8")
        return path

    return write_text


def test_load_config_fills_nested_dataclasses_and_leaves_the_other_defaults(write: Writer) -> None:
    run = load_config(write(HEAD + 'colour = "blue"\nlimit = 3\n[inner]\nsizes = [4]\n[inner.optim]\nlr = 1\n'), Run)
    expected = Run(
        stage="grpo",
        out=Path("runs/a"),
        colour=Colour.BLUE,
        limit=3.0,
        inner=Inner(sizes=(4,), optim=Optim(lr=1.0)),
    )
    assert run == expected
    assert isinstance(run.limit, float) and isinstance(run.inner.optim.lr, float)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (HEAD + "sede = 1", "unknown key sede; did you mean seed?"),
        (HEAD + "lr = 1", "unknown key lr; did you mean inner.optim.lr?"),
        (HEAD + "[inner.optim]\nwarmpu = 1", "unknown key inner.optim.warmpu; did you mean inner.optim.warmup?"),
        (HEAD + "zzzzz = 1", "known here: stage, out, seed"),
        (HEAD + 'seed = "1"', "seed must be a whole number, got a text ('1')"),
        (HEAD + "seed = 1.5", "seed must be a whole number, got a number (1.5)"),
        (HEAD + "seed = true", "seed must be a whole number, got a truth value"),
        (HEAD + "deep = 1", "deep must be true or false"),
        (HEAD + "[inner.optim]\nlr = true", "inner.optim.lr must be a number"),
        (HEAD + "[inner]\nsizes = [1, 2.5]", "inner.sizes[1] must be a whole number"),
        (HEAD + "[inner]\nspan = [1]", "inner.span must be a list of a number and a text"),
        (HEAD + "inner = 3", "inner must be a table"),
        (HEAD + 'colour = "green"', 'colour must be one of "red", "blue"'),
        ('stage = "sft"\nout = "x"', 'stage must be one of "align", "grpo"'),
        ('stage = "grpo"', "key out is missing; expected a path"),
        (HEAD + "seed = -1", "seed must be at least 0"),
        (HEAD + "seed = = 1", "not TOML"),
        (HEAD + "seed = 1\nseed = 2", "not TOML"),
    ],
)
def test_load_config_names_file_key_and_mend_when_the_file_is_wrong(write: Writer, text: str, wanted: str) -> None:
    path = write(text)
    with pytest.raises(UsageError) as error:
        load_config(path, Run)
    assert str(error.value).startswith(f"{path}: ") and wanted in str(error.value)
    assert str(error.value).count(str(path)) == 1 and "\n" not in str(error.value)


def test_load_config_says_which_input_is_missing_or_no_file(tmp_path: Path) -> None:
    with pytest.raises(InputError) as missing:
        load_config(tmp_path / "none.toml", Run)
    assert missing.value.reason is InputReason.MISSING
    with pytest.raises(InputError) as folder:
        load_config(tmp_path, Run)
    assert folder.value.reason is InputReason.NOT_A_FILE
    (tmp_path / "latin.toml").write_bytes(b'name = "\xff"')
    with pytest.raises(UsageError, match="not UTF-8"):
        load_config(tmp_path / "latin.toml", Run)


def test_overrides_win_over_the_file_and_later_ones_over_earlier(write: Writer) -> None:
    path = write(HEAD + "seed = 5\n")
    overrides = ["seed=6", "seed=7", "stage=align", "inner.optim.lr=1e-3", "inner.sizes=[9]", "name=a = b", "limit=2"]
    run = load_config(path, Run, overrides)
    assert (run.seed, run.stage, run.inner.optim.lr, run.inner.sizes) == (7, "align", 1e-3, (9,))
    assert (run.name, run.limit) == ("a = b", 2.0)
    assert load_config(path, Run, ["name='3'"]).name == "3" == load_config(path, Run, ["name=3"]).name


def test_an_override_supplies_a_key_the_file_lacks(write: Writer) -> None:
    assert load_config(write('stage = "grpo"'), Run, ["out=here"]).out == Path("here")


@pytest.mark.parametrize(
    ("override", "wanted"),
    [
        ("seed", "key.path=value"),
        ("=3", "key.path=value"),
        ("inner..lr=3", "key.path=value"),
        ("sede=3", "did you mean seed?"),
        ("optim.lr=3", "unknown key optim"),
        ("seed.x=3", "seed is a value, not a table"),
        ("seed=three", "not a whole number"),
        ("seed=1.5", "must be a whole number"),
        ("seed=1\ndeep=true", "one value"),
        ("deep=yes", "not true or false"),
        ("colour=green", 'one of "red", "blue"'),
        ("inner=3", "inner must be a table"),
    ],
)
def test_a_wrong_override_is_named_itself(write: Writer, override: str, wanted: str) -> None:
    with pytest.raises(UsageError) as error:
        load_config(write(HEAD), Run, [override])
    assert repr(override) in str(error.value) and wanted in str(error.value)


@settings(max_examples=60, deadline=None)
@given(
    name=st.text(st.characters(exclude_categories=["Cs"])),
    lr=st.floats(allow_nan=False),
    seed=st.integers(0, 2**60),
    limit=st.none() | st.floats(allow_nan=False),
    sizes=st.lists(st.integers(-9, 9), max_size=3),
)
def test_what_is_written_reads_back_equal(
    tmp_path_factory: pytest.TempPathFactory, name: str, lr: float, seed: int, limit: float | None, sizes: list[int]
) -> None:
    run = Run(
        stage="align",
        out=Path("a b"),
        seed=seed,
        name=name,
        limit=limit,
        deep=True,
        colour=Colour.BLUE,
        inner=Inner(sizes=tuple(sizes), optim=Optim(lr=lr)),
    )
    path = tmp_path_factory.mktemp("config") / "run.toml"
    path.write_text(to_toml(run), encoding="utf-8", newline="")
    assert load_config(path, Run) == run


def test_to_toml_writes_every_default_out() -> None:
    written = to_toml(Run(stage="grpo", out=Path("x")))
    assert "seed = 0" in written and "[inner.optim]\nlr = 1e-05\nwarmup = 20" in written
    assert "limit" not in written
    assert "nan" in to_toml(Run(stage="grpo", out=Path("x"), limit=math.nan))


def test_fingerprint_changes_with_any_setting_and_only_then() -> None:
    base = Run(stage="grpo", out=Path("x"))
    assert fingerprint(base) == fingerprint(Run(stage="grpo", out=Path("x"), seed=0))
    assert fingerprint(base) != fingerprint(Run(stage="grpo", out=Path("x"), inner=Inner(optim=Optim(warmup=21))))


def test_a_field_toml_cannot_hold_is_a_fault_of_the_program(write: Writer) -> None:
    @dataclass(frozen=True)
    class Odd:
        things: object = None

    with pytest.raises(TypeError, match="has no TOML form"):
        load_config(write("things = 3"), Odd)


def test_config_imports_neither_torch_nor_numpy() -> None:
    code = "import sys, entropy_vision.config; print(sorted({'torch', 'numpy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
