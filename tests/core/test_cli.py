"""The command line: exit codes, one line for a mistake, one JSON object on stdout."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from entropy_vision import cli, options, selectors
from entropy_vision.console import as_json, as_table, plain
from entropy_vision.errors import UsageError

FAKE = """
import errno
import os
from pathlib import Path
from entropy_vision.errors import *

def ok(options):
    print("a library says hello")
    os.write(1, b"a C library says hello\\n")
    os.system("echo a child says hello")
    return {"ok": True, "path": Path("a/b"), "share": 0.5}

def check(options):
    raise CheckFailed("1 of 2 is wrong", {"ok": False})

def bad(options):
    raise TooManyBad("3 inputs failed", {"failed": 3})

def ended(options):
    raise Terminated("state saved", {"steps": 7})

def usage(options):
    raise UsageError("two\\nlines")

def unreadable(options):
    raise InputError("x", InputReason.EMPTY, "it is empty")

def interrupted(options):
    raise KeyboardInterrupt

def full(options):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/x")

def over_a_file(options):
    Path(__file__).mkdir()

def in_a_file(options):
    Path(__file__, "x").mkdir()

def bug(options):
    raise ZeroDivisionError("a bug")
"""


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Verbs that end in every way a verb can."""
    (tmp_path / "fake_verbs.py").write_text(FAKE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "fake_verbs", raising=False)
    names = (
        "ok",
        "check",
        "bad",
        "ended",
        "usage",
        "unreadable",
        "interrupted",
        "bug",
        "full",
        "over_a_file",
        "in_a_file",
    )
    monkeypatch.setattr(cli, "VERBS", {name: cli.Verb(options.DoctorOptions, "fake_verbs", name) for name in names})


@pytest.mark.parametrize(
    ("verb", "code", "result", "told"),
    [
        ("ok", 0, {"ok": True, "path": "a/b", "share": 0.5}, None),
        ("check", 1, {"ok": False}, "entropy-vision check: 1 of 2 is wrong\n"),
        ("usage", 2, {"error": "two\\nlines"}, "entropy-vision usage: two\\nlines\n"),
        (
            "unreadable",
            2,
            {"error": "x: it is empty [empty]"},
            "entropy-vision unreadable: x: it is empty [empty]\n",
        ),
        ("full", 2, {"error": "/x: No space left on device"}, "entropy-vision full: /x: No space left on device\n"),
        ("bad", 3, {"failed": 3}, "entropy-vision bad: 3 inputs failed\n"),
        ("interrupted", 130, None, "entropy-vision interrupted: interrupted\n"),
        ("ended", 143, {"steps": 7}, "entropy-vision ended: state saved\n"),
    ],
)
def test_a_verb_ends_with_its_code_and_its_result(
    fake: None,
    capfd: pytest.CaptureFixture[str],
    verb: str,
    code: int,
    result: dict[str, object] | None,
    told: str | None,
) -> None:
    assert cli.main([verb, "--json"]) == code
    out, err = capfd.readouterr()
    if result is None:
        assert out == ""
    else:
        assert out.count("\n") == 1 and json.loads(out) == result
    if told is not None:
        assert err == told
    else:
        assert err.count("says hello") == 3


@pytest.mark.parametrize(("verb", "told"), [("over_a_file", "fake_verbs.py: File exists"), ("in_a_file", "Not a dir")])
def test_a_file_where_a_folder_should_be_is_one_line(
    fake: None, capfd: pytest.CaptureFixture[str], verb: str, told: str
) -> None:
    assert cli.main([verb]) == 2
    err = capfd.readouterr().err
    assert told in err and err.count("\n") == 1


def test_a_bug_stays_a_traceback(fake: None) -> None:
    with pytest.raises(ZeroDivisionError):
        cli.main(["bug"])


def test_without_json_a_result_is_a_table(fake: None, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["ok"]) == 0
    assert capfd.readouterr().out == "ok     yes\npath   a/b\nshare  0.5\n"


def test_a_verb_whose_module_is_missing_is_not_listed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = cli.Verb(options.DemoOptions, "entropy_vision.not_written_yet", "run")
    monkeypatch.setattr(cli, "VERBS", {**cli.VERBS, "demo": missing})
    assert "demo" not in cli.verbs() and "doctor" in cli.verbs()
    assert cli.main(["demo"]) == 2
    assert "no verb 'demo'" in capsys.readouterr().err


def test_help_lists_every_verb_with_its_summary(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    out = capsys.readouterr().out
    for name, verb in cli.verbs().items():
        assert f"  {name} " in out and verb.summary in out


def test_no_verb_shows_the_usage_and_is_wrong_use(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("usage: entropy-vision VERB")


def test_every_verb_has_help_and_json(capsys: pytest.CaptureFixture[str]) -> None:
    for name in cli.verbs():
        with pytest.raises(SystemExit) as end:
            cli.parse(name, ["--help"])
        assert not end.value.code
        assert "--json" in capsys.readouterr().out, name


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["shwo"], "no verb 'shwo'; did you mean show?"),
        (["zzz"], "no verb 'zzz'; there are "),
        (["show"], "Missing from entropy-vision show: PATH"),
        (["show", "x", "--out", "y", "--kep", "0.5"], "Unrecognized options: --kep, 0.5; did you mean --keep?"),
        (["show", "x", "--out", "y", "--keep", "lots"], "Error parsing --keep"),
        (["show", "x", "--out", "y", "--keep", "1.5"], "--keep takes fractions in (0, 1], got 1.5"),
        (["show", "x", "--out", "y", "--keep", "nan"], "--keep takes fractions in (0, 1], got nan"),
        (["show", "x", "--out", "y", "--patch-size", "0"], "--patch-size must be above 0, got 0"),
        (["show", "x", "--out", "y", "--selector", "a", "b", "c"], "--selector takes one name or two, got 3"),
        (["show", "x", "--out", "y", "--selector", "rte"], "did you mean 'rate'?"),
        (["show", "x", "--out", "y" * 300], "File name too long"),
        (["demo", "--seed", "-1"], "--seed must lie in 0..4294967295, got -1"),
        (["eval", "x", "--seed", "4294967296"], "--seed must lie in 0..4294967295, got 4294967296"),
        (["bench", "--seed", "-1"], "--seed must lie in 0..4294967295, got -1"),
        (["eval", "x", "--keep", "0.1234561", "0.1234562"], "--keep holds more than one 0.123456"),
        (["bench", "--keep", "0.5", "0.5"], "--keep holds more than one 0.5"),
        (["bench", "--keep", "0.9999999"], "--keep holds more than one 1"),
        (["eval", "x", "--selectors", "rate", "rnadom"], "no selector 'rnadom': did you mean 'random'?"),
        (["preprocess", "x", "--out", "y", "--selector", "rte"], "did you mean 'rate'?"),
        (["preprocess", "nowhere/*.mp4", "--out", "y"], "nowhere/*.mp4 is not there"),
        (["preprocess", __file__, "vidoes", "--out", "y"], "vidoes is not there"),
        (["bench", "--selectors", "rte"], "did you mean 'rate'?"),
        (["bench", "--model", "ViT-B-23"], "the nearest model is 'ViT-B-32'"),
        (["bench", "--videos", "nowhere"], "nowhere: there is no such file or folder"),
        (["bench", "--checkpoint", "nowhere"], "nowhere holds no checkpoint"),
        (["bench", "--language", "qwne2"], "no language model 'qwne2'"),
        (["eval", "nowhere"], "nowhere holds no checkpoint"),
        (["show", "x", "--out", __file__], "is not a folder one may write to; name another"),
        (["show", "x", "--out", f"{__file__}/deeper"], "is not a folder one may write to; name another"),
    ],
)
def test_wrong_use_is_told_in_one_line(arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1
    assert told in err and err.startswith("entropy-vision")


SLIPS = (
    (["show", "x", "--out", "y", "--selector", "rte"], "'rate'"),
    (["preprocess", "vidoes", "--out", "y"], "vidoes is not there"),
    (["bench", "--selectors", "rte"], "'rate'"),
    (["bench", "--model", "ViT-B-23"], "'ViT-B-32'"),
    (["bench", "--checkpoint", "nowhere"], "nowhere holds"),
    (["eval", "nowhere", "--selectors", "rte"], "'rate'"),
    (["eval", "nowhere"], "nowhere holds"),
    (["eval", "made", "--tasks", "conut"], "nearest is count"),
    (["eval", "made", "--tasks", "nlvr:here"], "here is not there"),
)


def test_a_slip_is_told_before_torch_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "config.json").write_text("{}")
    code = (
        "import sys; from entropy_vision import cli; "
        f"codes = {{cli.main(line) for line in {[line for line, _ in SLIPS]!r}}}; "
        "print(codes, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.stdout == "{2} False\n", done.stderr
    for told, (_, wanted) in zip(done.stderr.splitlines(), SLIPS, strict=True):
        assert wanted in told
    assert [path.name for path in tmp_path.iterdir()] == ["made"]


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_wrong_use_is_told_the_same_way_whatever_the_terminal_can_show(encoding: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "entropy_vision.cli", "show", "x", "--out", "y", "--kep", "1"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONIOENCODING": encoding},
    )
    told = "Unrecognized options: --kep, 1; did you mean --keep?; see entropy-vision show --help"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"entropy-vision show: {told}\n")


def test_the_console_script_is_the_same_program() -> None:
    script = Path(sys.executable).with_name("entropy-vision")
    done = subprocess.run([script, "--version"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "") and done.stdout.startswith("entropy-vision ")


def test_a_result_becomes_strict_json() -> None:
    result = {
        "path": Path("x"),
        "n": np.int64(3),
        "share": np.float32(0.5),
        "odd": float("nan"),
        "rows": ({"a": True},),
    }
    assert json.loads(as_json(result)) == {"path": "x", "n": 3, "share": 0.5, "odd": None, "rows": [{"a": True}]}


def test_a_result_that_json_cannot_hold_is_a_bug() -> None:
    with pytest.raises(TypeError, match="ndarray"):
        plain({"a": np.zeros(3)})


def test_rows_and_nested_mappings_become_tables() -> None:
    result = {
        "seconds": 1.23456,
        "rows": [{"selector": "rate", "tokens": 1234, "accuracy": None}, {"selector": "random", "tokens": 5}],
        "tasks": {"count": {"1.0": {"accuracy": 0.5, "n": 20}, "0.25": {"accuracy": 0.25, "n": 20}}},
    }
    assert as_table(result).splitlines() == [
        "rows",
        "  selector  tokens",
        "  rate       1,234",
        "  random         5",
        "",
        "tasks",
        "               accuracy   n",
        "  count  1.0        0.5  20",
        "  count  0.25      0.25  20",
        "",
        "seconds  1.235",
    ]


def test_a_table_that_another_holds_is_printed_once() -> None:
    rate, random = ({"count": {"0.25": {"accuracy": share, "n": 20}}} for share in (0.5, 0.25))
    assert as_table({"tasks": rate, "selectors": {"rate": rate, "random": random}}).splitlines() == [
        "selectors",
        "                       accuracy   n",
        "  rate    count  0.25       0.5  20",
        "  random  count  0.25      0.25  20",
    ]


def test_more_rows_than_a_screen_holds_are_counted() -> None:
    rows = [{"n": i} for i in range(61)]
    assert as_table({"rows": rows, "report": "x.html"}).splitlines() == [
        "rows    61 rows: --json prints them",
        "report  x.html",
    ]
    assert len(as_table({"rows": rows[:60]}).splitlines()) == 62


def test_a_mapping_in_a_cell_is_written_for_people() -> None:
    rows = [{"tokens": 5, "seconds": {"select": 0.123456789, "encode": 2}}, {"tokens": 6}]
    assert as_table({"rows": rows}).splitlines()[2].split(maxsplit=1) == ["5", "select 0.1235, encode 2"]


def test_one_row_with_mappings_in_it_is_read_downwards() -> None:
    cost = {"tokens": 5, "flops": {"tower": 70}, "quartiles": {}, "seconds": {"select": 0.123456789, "tower": 2}}
    assert as_table({"cost": cost, "seed": 0}).splitlines() == [
        "cost",
        "  tokens  5",
        "",
        "          flops  seconds",
        "  tower      70        2",
        "  select      -   0.1235",
        "",
        "seed  0",
    ]


def test_a_long_cell_is_wrapped() -> None:
    lines = as_table({"rows": [{"name": "a", "detail": "word " * 40, "n": 1}]}).splitlines()
    assert max(map(len, lines)) < 90 and "".join(lines).count("word") == 40


def test_help_lists_every_selector(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.parse("show", ["--help"])
    told = capsys.readouterr().out
    assert all(re.search(rf"\b{name}\b", told) for name in selectors())


def test_options_are_checked_when_made_in_python_too() -> None:
    with pytest.raises(UsageError, match="--questions"):
        options.EvalOptions(checkpoint=Path("x"), questions=0)
    with pytest.raises(UsageError, match="at least one"):
        options.PreprocessOptions(sources=(), out=Path("x"))


@pytest.mark.parametrize("compiled", [True, False])
def test_whoever_waits_for_the_compiler_is_told(
    compiled: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    package = tmp_path / "entropy_vision"
    (package / "__pycache__").mkdir(parents=True)
    if compiled:
        (package / "__pycache__" / "inter.news_rate-0.py311.nbi").touch()
    monkeypatch.setattr(cli, "__file__", str(package / "cli.py"))
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    assert cli.main(["show", str(tmp_path / "nothing.mp4"), "--out", str(tmp_path / "out")]) == 2
    assert ("compiling" in capsys.readouterr().err) is not compiled


@pytest.mark.parametrize(
    ("arguments", "code"),
    [("preprocess IN --out OUT --dry-run --json", 0), ("verify OUT --json", 2), ("--help", 0)],
)
def test_a_result_that_cannot_be_printed_is_no_traceback(tmp_path: Path, arguments: str, code: int) -> None:
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    places = {"IN": str(tmp_path), "OUT": str(tmp_path / "out")}
    line = [sys.executable, "-m", "entropy_vision.cli", *(places.get(word, word) for word in arguments.split())]
    reading, writing = os.pipe()
    os.close(reading)
    gone = subprocess.run(line, stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    assert gone.returncode == (code or 128 + signal.SIGPIPE) and "Traceback" not in gone.stderr
    if Path("/dev/full").exists():
        with open("/dev/full", "w") as full:
            done = subprocess.run(line, stdout=full, stderr=subprocess.PIPE, text=True)
        assert done.returncode == 2 and "the result cannot be printed: No space left" in done.stderr
        assert "Traceback" not in done.stderr
