"""slime's own code against this package: its generate contract, and its rollout code in every mode (`tests/slime_cpu`).

SLIME_DIR names a slime checkout (v0.2.2 or later), SLIME_PYTHON an interpreter that has torch and what slime's rollout
imports beside this package's dependencies; docs/compatibility.md says how to get one.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.slime_cpu.modes import MODES, has_fully_async, play, soak

ROOT = Path(__file__).resolve().parents[1]
GENERATE = "tau2_slime.generate_with_tau2.generate"


def test_the_generate_contract_of_slime(slime: str, python: str) -> None:
    script = "tests/plugin_contracts/test_plugin_generate_contracts.py"
    if not Path(slime, script).exists():
        pytest.skip("this slime has no plugin contracts (they came with v0.2.3)")
    done = subprocess.run(
        [python, script, "--custom-generate-function-path", GENERATE],
        cwd=slime,
        env={**os.environ, "PYTHONPATH": str(ROOT), "SLIME_CONTRACT_CUSTOM_GENERATE_FUNCTION_PATH": GENERATE},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 passed" in done.stdout


def total(report: dict[str, Any], name: str) -> int:
    return sum(entry[name] for entry in [*report["rollouts"], *report["evaluations"]])


def statuses(report: dict[str, Any]) -> set[str]:
    return {status for entry in [*report["rollouts"], *report["evaluations"]] for status in entry["status"]}


@pytest.mark.parametrize("mode", list(MODES))
def test_every_mode_gives_slime_true_samples(slime: str, python: str, mode: str) -> None:
    if "async" in mode and not has_fully_async(slime):
        pytest.skip("this slime has no fully-async rollout (it came with v0.3.0)")
    report = play(python, {"slime": slime, **MODES[mode]}, 500)
    assert report["problems"] == []
    assert total(report, "proven") > 0
    assert total(report, "restarted") == 0, "what was sampled once is not sampled again"
    assert statuses(report) <= {"COMPLETED", "TRUNCATED"}
    if report["slime"]["tracing"]:
        assert total(report, "traced") >= total(report, "calls")
    if mode == "eval":
        assert statuses(report) == {"COMPLETED", "TRUNCATED"}
        assert {entry["dataset"] for entry in report["evaluations"]} == {"mock", "mock-short"}
    if mode.startswith("partial"):
        assert total(report, "resumed") > 0
        assert total(report, "weights") > 0, "a resumed episode has tokens of several weights"
    if "async" in mode:
        assert report["updates"] > 0
        assert total(report, "cut") > 0
        assert total(report, "unused") == 0
        assert report["watched"]["left_behind"] == {}
        assert report["watched"]["loops"] == (2 if "eval" in mode else 1)


def test_a_hundred_episodes_with_faults_and_weight_updates_lose_nothing(slime: str, python: str) -> None:
    if not has_fully_async(slime):
        pytest.skip("this slime has no fully-async rollout (it came with v0.3.0)")
    plan = soak(120)
    report = play(python, {"slime": slime, **plan}, 500)
    assert report["problems"] == []
    assert total(report, "groups") == plan["rollouts"] * plan["groups"]
    assert report["failed"] > 0
    assert total(report, "cut") > 0
    assert total(report, "unused") == 0
    assert statuses(report) == {"COMPLETED"}
    assert total(report, "buffered") == 0, "no group was given back to be played again"
    assert report["watched"]["left_behind"] == {}
    assert not [name for name in report["watched"]["threads"] if "fully-async" in name]
