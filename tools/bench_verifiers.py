"""How quick is verifying, and how long can one completion hold it up? One thread, rounds of everything interleaved.

    python tools/bench_verifiers.py
    python tools/bench_verifiers.py --rounds 15 --json

Short answers: the canonical answer of a truth of each of the 11 kinds in a well-formed completion, and a wrong, a
hedged and a formless one beside it. `checks` is how many `verify` calls a second of CPU time takes, the median of the
rounds with their quartiles: of each kind, and of all of them together. `rubric` is the same through `Rubric`.

Repeats: completions of 128 kB (131,072 characters) that are one piece over and over: the four tags, whole blocks, end
marks, and pieces that have held up number and list parsers. Milliseconds of CPU time of one call: median, 99 of 100,
most. The first round is thrown away.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable

from entropy_vision.rl import Answer, Rubric, verify
from entropy_vision.rl.verifiers import canonical

CHECKS_BAR, MILLISECONDS_BAR = 25_000, 1.0
SIZE = 131_072
TRUTHS = (
    Answer("exact", "red cube", aliases=("scarlet cube",)),
    Answer("choice", "C", options=("red cube", "blue ball", "green cone", "white ring")),
    Answer("integer", 12),
    Answer("number", 2.5, mra=True),
    Answer("yesno", True),
    Answer("ordering", ["red", "blue", "green"]),
    Answer("point", (0.25, 0.5), radius=0.1),
    Answer("box", (10.0, 20.0, 30.0, 40.0)),
    Answer("boxes", [(0.0, 0.0, 1.0, 1.0), (2.0, 2.0, 3.0, 3.0)]),
    Answer("set", {"A", "C"}),
    Answer("interval", (5.0, 10.0)),
)
TAGS = ("<think>", "</think>", "<answer>", "</answer>", "<answer>C</answer>", "<think></think>", "<|im_end|>")
PIECES = ("1,", "[", "[[1,", "\\boxed{", "one ", "C ", "no ", "A or ", " ", "\n")


def completions(truth: Answer) -> list[str]:
    """Right, wrong, hedged and formless."""
    right = canonical(truth)
    insides = (right, "purple", f"{right} or purple")
    return [f"<think>It is near the left edge.</think><answer>{text}</answer>" for text in insides] + [right]


def checks(truths: tuple[Answer, ...], call: Callable[[str, Answer], object], seconds: float = 0.05) -> float:
    """Calls a second of CPU time."""
    asked = [(text, truth) for truth in truths for text in completions(truth)]
    done, started = 0, time.process_time()
    while True:
        for text, truth in asked:
            call(text, truth)
        done += len(asked)
        spent = time.process_time() - started
        if spent > seconds:
            return done / spent


def milliseconds(unit: str, profile: str) -> list[float]:
    """CPU time of one call on each kind of truth."""
    body, spent = unit * (SIZE // len(unit)), []
    for truth in TRUTHS:
        for text in (body, f"<think>x</think><answer>{body}</answer>"):
            started = time.process_time()
            verify(text, truth, profile)
            spent.append(1000 * (time.process_time() - started))
    return spent


def measure(rounds: int) -> dict[str, object]:
    """Everything, as JSON."""
    kinds: dict[str, list[float]] = {truth.kind: [] for truth in TRUTHS}
    whole: dict[str, list[float]] = {"strict": [], "robust": [], "rubric": []}
    repeats: dict[tuple[str, str], list[float]] = {(u, p): [] for u in TAGS + PIECES for p in ("strict", "robust")}
    rubric = Rubric()
    for turn in range(rounds + 1):
        one = {truth.kind: checks((truth,), verify, 0.01) for truth in TRUTHS}
        all_of = {
            "strict": checks(TRUTHS, verify),
            "robust": checks(TRUTHS, lambda text, truth: verify(text, truth, "robust")),
            "rubric": checks(TRUTHS, rubric),
        }
        spent = {key: milliseconds(*key) for key in repeats}
        if turn:
            for name, value in one.items():
                kinds[name].append(value)
            for name, value in all_of.items():
                whole[name].append(value)
            for key, values in spent.items():
                repeats[key] += values
    return {
        "checks": {name: quartiles(values) for name, values in whole.items()},
        "kinds": {name: quartiles(values) for name, values in kinds.items()},
        "repeats": {
            "tags": held_up([v for (u, _), values in repeats.items() if u in TAGS for v in values]),
            **{f"{unit!r} {profile}": held_up(values) for (unit, profile), values in repeats.items()},
        },
        "bars": {"checks": CHECKS_BAR, "p99_ms": MILLISECONDS_BAR},
    }


def quartiles(values: list[float]) -> dict[str, int]:
    low, middle, high = statistics.quantiles(values, n=4)
    return {"median": round(middle), "low": round(low), "high": round(high)}


def held_up(values: list[float]) -> dict[str, float]:
    ordered = sorted(values)
    return {
        "median": round(ordered[len(ordered) // 2], 3),
        "p99": round(ordered[int(0.99 * len(ordered))], 3),
        "most": round(ordered[-1], 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    result = measure(options.rounds)
    if options.json:
        print(json.dumps(result, indent=1))
        return
    for part in ("checks", "kinds"):
        for name, row in result[part].items():  # type: ignore[attr-defined]
            print(f"{name:10} {row['median']:>8,} checks a second ({row['low']:,} to {row['high']:,})")
    print(f"bar: {CHECKS_BAR:,}")
    for name, row in result["repeats"].items():  # type: ignore[attr-defined]
        print(f"{name:32} median {row['median']:.3f} ms, p99 {row['p99']:.3f} ms, most {row['most']:.3f} ms")
    print(f"bar: p99 {MILLISECONDS_BAR} ms on repeated tags")


if __name__ == "__main__":
    main()
