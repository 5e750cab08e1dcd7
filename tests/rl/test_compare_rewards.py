"""The comparison with public rewards runs with none of them installed, and says so."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

TOOL = Path(__file__).resolve().parents[2] / "tools/compare_rewards.py"


def test_the_comparison_finds_no_fault_in_verify_and_names_what_is_absent() -> None:
    done = subprocess.run([sys.executable, str(TOOL), "--json"], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    ours = [r for r in found["results"] if r["name"] == "entropy_vision verify"]
    assert [r["part"] for r in ours] == ["answers", "whole", "boxes"] and not any(r["faults"] for r in ours)
    assert (
        ours[0]["worth_0"] >= 150
        and ours[0]["worth_1"] >= 80
        and ours[0]["cases"] == sum(ours[0][f"worth_{w}"] for w in (0, 1))
    )
    named = {r["name"] for r in found["results"]} | {line.split(":")[0] for line in found["absent"]}
    assert named >= {"TRL accuracy_reward", "math-verify", "reasoning-gym", "verifiers parser", "verifiers MathRubric"}
