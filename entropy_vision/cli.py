"""The command line: which verb, its options, its result, its exit code; nothing else.

Exit codes: 0 ok · 1 a check failed · 2 wrong use or bad input · 3 too many bad inputs · 130 interrupted ·
141 nobody reads the result · 143 ended by SIGTERM after saving. A verb's work is imported only when it runs, so
`--help` stays quick.
"""

from __future__ import annotations

import contextlib
import difflib
import importlib
import importlib.util
import io
import os
import re
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from entropy_vision import __version__, options
from entropy_vision.arguments import check_arguments
from entropy_vision.console import as_json, as_table, say, stdout_kept_clean
from entropy_vision.errors import EntropyVisionError, Outcome, UsageError, refused_by_machine

PROGRAM = "entropy-vision"


@dataclass(frozen=True)
class Verb:
    """One verb: what it takes and where its work is."""

    options: type
    module: str
    function: str

    @property
    def exists(self) -> bool:
        """Whether the module that does the work is there."""
        return importlib.util.find_spec(self.module) is not None

    @property
    def summary(self) -> str:
        """The first line of its options' docstring."""
        return (self.options.__doc__ or "").strip().splitlines()[0]


VERBS: Mapping[str, Verb] = {
    "demo": Verb(options.DemoOptions, "entropy_vision.demo", "run_demo"),
    "show": Verb(options.ShowOptions, "entropy_vision.show", "run_show"),
    "preprocess": Verb(options.PreprocessOptions, "entropy_vision.data.preprocess", "run_preprocess"),
    "verify": Verb(options.VerifyOptions, "entropy_vision.data.preprocess", "run_verify"),
    "train": Verb(options.TrainOptions, "entropy_vision.rl.train", "run_train"),
    "watch": Verb(options.WatchOptions, "entropy_vision.rl.watch", "run_watch"),
    "eval": Verb(options.EvalOptions, "entropy_vision.evaluate", "run_eval"),
    "benchmarks": Verb(options.BenchmarksOptions, "entropy_vision.data.benchmarks.check", "run_benchmarks"),
    "bench": Verb(options.BenchOptions, "entropy_vision.bench", "run_bench"),
    "doctor": Verb(options.DoctorOptions, "entropy_vision.doctor", "run_doctor"),
}


def verbs() -> dict[str, Verb]:
    """The verbs whose work is there."""
    return {name: verb for name, verb in VERBS.items() if verb.exists}


def usage() -> str:
    """The text of `entropy-vision --help`."""
    known = verbs()
    width = max(map(len, known), default=0)
    lines = [
        f"usage: {PROGRAM} VERB [OPTIONS]",
        "",
        "Choose visual tokens by the bits they carry, and train the policy that reads them.",
        "",
        *(f"  {name:<{width}}  {verb.summary}" for name, verb in known.items()),
        "",
        f"{PROGRAM} VERB --help tells the options of a verb; every verb takes --json.",
        "exit codes: 0 ok, 1 a check failed, 2 wrong use or bad input, 3 too many bad inputs, 130 Ctrl-C, 143 SIGTERM",
    ]
    return "\n".join(lines)


def parse(name: str, arguments: Sequence[str]) -> Any:
    """The options of a verb from its arguments.

    Raises:
        UsageError: the arguments do not fit; one line that names the mend.
        SystemExit: help was asked for and printed (code 0).
    """
    told = io.StringIO()
    try:
        with contextlib.redirect_stderr(told):
            return tyro.cli(
                verbs()[name].options,
                prog=f"{PROGRAM} {name}",
                args=list(arguments),
                config=(tyro.conf.FlagCreatePairsOff,),
            )
    except SystemExit as end:
        if not end.code:
            raise
        raise UsageError(f"{one_line(told.getvalue())}; see {PROGRAM} {name} --help") from None


def one_line(box: str) -> str:
    """tyro's framed message as one line: what is wrong, and the nearest option where it names one."""
    framed = "╭" in box  # where the output cannot show frames the title is a line of its own, above a rule
    lines = [line.strip("│ ") for line in box.splitlines() if line.strip("│ ") and line[0] not in "╭╰"]
    parts: list[list[str]] = [[]]
    for line in lines:
        if set(line) <= {"─", "-"}:
            parts.append([])
        else:
            parts[-1].append(line)
    parts = parts if framed else parts[1:] or parts
    wrong = re.sub(r"^Error parsing \w+Options: ", "", " ".join(parts[0]))
    near = next((part for part in parts if part and part[0].startswith("Perhaps you meant")), [])
    names = list(dict.fromkeys(re.findall(r"^--[\w-]+", "\n".join(near), re.MULTILINE)))
    return wrong + (f"; did you mean {' or '.join(names)}?" if names else "")


def run(name: str, arguments: Sequence[str]) -> int:
    """Run a verb: its result on stdout, everything else on stderr.

    Returns:
        The exit code.
    """
    as_text = as_json if "--json" in arguments else as_table
    try:
        chosen = parse(name, arguments)
        check_arguments(chosen)
        verb = VERBS[name]
        if name in _SCORING and not _is_compiled():
            say("compiling the scores, once for this installation: up to a minute")
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # bars of libraries would run across ours
        with stdout_kept_clean():
            result = getattr(importlib.import_module(verb.module), verb.function)(chosen)
        code = 0
    except Outcome as outcome:
        say(f"{PROGRAM} {name}: {_flat(outcome.message)}")
        result, code = outcome.result, outcome.code
    except EntropyVisionError as error:
        return _refused(name, str(error), as_text)
    except OSError as error:
        if not refused_by_machine(error):
            raise
        return _refused(name, f"{error.filename or 'the output'}: {error.strerror or error}", as_text)
    except _refusals_of_stores() as error:
        return _refused(name, f"a store cannot be reached ({type(error).__name__}: {error})", as_text)
    except KeyboardInterrupt:
        say(f"{PROGRAM} {name}: interrupted")
        return 130
    if os.environ.get("RANK", "0") != "0":  # under torchrun one of the processes speaks for all
        return code
    printed = _print(as_text(result))
    return code or printed


def _print(text: str) -> int:
    """The text on stdout: 0, or the exit code where it cannot be printed."""
    try:
        print(text, flush=True)
    except (OSError, UnicodeEncodeError) as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python tries again as it ends
        if isinstance(error, BrokenPipeError):  # whoever read has what he wanted
            return 128 + signal.SIGPIPE
        say(f"{PROGRAM}: the result cannot be printed: {getattr(error, 'strerror', None) or error}")
        return 2
    return 0


def _refusals_of_stores() -> tuple[type[Exception], ...]:
    """What S3's library raises where there are no credentials or no network; nothing where it was not used."""
    if "botocore" not in sys.modules:
        return ()
    from botocore.exceptions import BotoCoreError

    return (BotoCoreError,)


_SCORING = ("demo", "show", "preprocess", "bench")


def _is_compiled() -> bool:
    """Whether numba has kept its machine code of the scores; where it is told another place, nobody is kept posted."""
    kept = Path(__file__).parent / "__pycache__"
    return "NUMBA_CACHE_DIR" in os.environ or any(kept.glob("inter.*.nbi"))


def _refused(name: str, message: str, as_text: Callable[[Any], str]) -> int:
    """Say why a verb could not be done: a line for people, and an object where one was asked for."""
    say(f"{PROGRAM} {name}: {_flat(message)}")
    if as_text is as_json and os.environ.get("RANK", "0") == "0":
        _print(as_json({"error": _flat(message)}))
    return 2


def _flat(message: str) -> str:
    return message.replace("\r", "\\r").replace("\n", "\\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of the console script; gives the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given:
        say(usage())
        return 2
    if given[0] in ("-h", "--help", "help"):
        return _print(usage())
    if given[0] == "--version":
        return _print(f"{PROGRAM} {__version__}")
    name, known = given[0], verbs()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
        say(f"{PROGRAM}: no verb {name!r}; {hint}")
        return 2
    return run(name, given[1:])


if __name__ == "__main__":
    sys.exit(main())
