"""The hooks inside slime's own rollout code (`tests/slime_cpu`; SLIME_DIR and SLIME_PYTHON as in test_slime)."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.slime_cpu.modes import MODES, ROOT, has_fully_async, play

HOOKS = {
    "--custom-rollout-log-function-path": "tau2_slime.hooks.log_train_rollout",
    "--custom-eval-rollout-log-function-path": "tau2_slime.hooks.log_eval_rollout",
    "--custom-reward-post-process-path": "tau2_slime.hooks.post_process_rewards",
    "--dynamic-sampling-filter-path": "tau2_slime.hooks.keep_informative_groups",
}
# Four samples a group: two simulators, one of them twice, and one that never answers.
ROTATION = {
    "user_model_rotation": ["openai/calm", "openai/cross", "openai/calm", "openai/gone"],
    "user_retries": 0,
    "simulator_baseline": "batch",
}


def plan(slime: str, mode: str, *flags: str, **changes: Any) -> dict[str, Any]:
    """`MODES[mode]` with every hook switched on, groups of four, and a policy that errs in half of the episodes."""
    base = MODES[mode]
    return {
        **{"slime": slime, **base, "user_over_http": True, "groups": 2, "group_size": 4, "tau2": ROTATION},
        "server": {"latency": 0.001, "spread": 0.8, "mistakes": 0.5, "user_delay": 0.05},
        "flags": [*base.get("flags", ()), *(part for pair in HOOKS.items() for part in pair), *flags],
        **changes,
    }


def ours(entry: dict[str, Any], prefix: str) -> dict[str, float]:
    """What the hooks logged of one rollout or dataset, without its prefix."""
    logged = {name: value for record in entry["logged"] for name, value in record.items()}
    return {name.removeprefix(prefix): value for name, value in logged.items() if name.startswith(prefix)}


def check_rollout(entry: dict[str, Any]) -> None:
    metrics = ours(entry, "rollout/tau2/")
    assert metrics["samples"] == entry["episodes"]
    assert metrics["excluded"] == entry["status"].get("FAILED", 0) / entry["episodes"] == 0.25
    assert metrics["user/openai_gone/excluded"] == 1
    assert {"user/openai_calm/reward", "user/openai_cross/reward"} <= set(metrics)
    assert "user/openai_gone/reward" not in metrics
    assert metrics["drift/environment_mismatches"] == 0
    assert "rollout/response_len/mean" in entry["metrics"], "slime's own are still there"
    assert all(record["rollout/step"] == entry["logged"][0]["rollout/step"] for record in entry["logged"])


@pytest.mark.parametrize("mode", ["train", "partial rollout"])
def test_the_default_rollout(slime: str, python: str, mode: str) -> None:
    report = play(python, plan(slime, mode, rollouts=2), 500)
    assert report["problems"] == []
    for entry in report["rollouts"]:
        check_rollout(entry)
        assert len(entry["logged"]) == 1, "ours travel in slime's own record"
        metrics = ours(entry, "rollout/tau2/")
        assert metrics["groups_informative"] == 1, "the filter saw to it"
        assert 0 < metrics["reward"] < 1


def test_a_fully_async_rollout(slime: str, python: str) -> None:
    if not has_fully_async(slime):
        pytest.skip("this slime has no fully-async rollout (it came with v0.3.0)")
    report = play(python, plan(slime, "fully-async", rollouts=2), 500)
    assert report["problems"] == []
    for entry in report["rollouts"]:
        check_rollout(entry)
        assert len(entry["logged"]) == 2, "slime hands no record over: ours is one beside it"


@pytest.mark.parametrize(
    ("samples_per_prompt", "right"), [("2", True), ("3", False)], ids=["as in the file", "slime would end the job"]
)
def test_an_evaluation(slime: str, python: str, samples_per_prompt: str, right: bool) -> None:
    flags = ("--log-passrate", "--n-samples-per-eval-prompt", samples_per_prompt)
    report = play(python, plan(slime, "eval", *flags), 500)
    assert report["problems"] == []
    for entry in report["evaluations"]:
        name = entry["dataset"]
        metrics = ours(entry, f"eval/{name}/tau2/")
        assert (metrics["tasks"], metrics["samples"], metrics["tasks_below_2"]) == (4, entry["episodes"], 0)
        assert metrics["pass@1"] == metrics["pass_hat_1"] == pytest.approx(entry["reward"])
        assert metrics["pass_hat_2"] <= metrics["pass@1"] <= metrics["pass@2"]
        assert "pass@3" not in metrics
        slimes = ours(entry, f"eval/{name}")
        assert slimes[""] == pytest.approx(entry["reward"]), "slime's own are still there"
        assert ("-pass@2" in slimes) is right
        if right:
            assert slimes["-pass@2"] == pytest.approx(metrics["pass@2"])


@pytest.mark.parametrize(
    ("file", "flag", "case"),
    [
        ("test_plugin_runtime_hook_contracts.py", "--custom-reward-post-process-path", "custom_reward_post_process"),
        ("test_plugin_path_loading_contracts.py", "--dynamic-sampling-filter-path", "dynamic_filter"),
    ],
)
def test_the_contracts_of_slime(slime: str, python: str, file: str, flag: str, case: str) -> None:
    """slime's contracts for the logging hooks ask for what its own example does (it marks args): no hook can meet them."""
    if not Path(slime, "tests", "plugin_contracts", file).exists():
        pytest.skip("this slime has no plugin contracts (they came with v0.2.3)")
    variable = "SLIME_CONTRACT_" + flag.removeprefix("--").replace("-", "_").upper()
    done = subprocess.run(
        [python, "-m", "pytest", "-p", "no:cacheprovider", "-v", "-k", case, f"tests/plugin_contracts/{file}"],
        cwd=slime,
        env={**os.environ, "PYTHONPATH": str(ROOT), variable: HOOKS[flag]},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert case in done.stdout
