"""The hooks inside slime's own rollout code, through a harness (SLIME_DIR, SLIME_PYTHON, SLIME_HARNESS as in test_slime)."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.test_slime import ROOT, interpreter, setting

GENERATE = "tau2_slime.generate_with_tau2.generate"
HOOKS = {
    "--custom-rollout-log-function-path": "log_train_rollout",
    "--custom-eval-rollout-log-function-path": "log_eval_rollout",
    "--custom-reward-post-process-path": "post_process_rewards",
    "--dynamic-sampling-filter-path": "keep_informative_groups",
}
FULLY_ASYNC = [
    *("--no-eval", "--sglang-server-concurrency", "3", "--weight-update-every", "1.5"),
    *("--rollout-function-path", "slime.rollout.fully_async_rollout.generate_rollout_fully_async"),
]


def drive(tmp_path: Path, mode: list[str], *, tau2: dict[str, Any] | None = None) -> dict[str, Any]:
    """The harness's report of two rollouts of three groups of four, and of an evaluation with four samples a prompt."""
    folder, harness = setting("SLIME_DIR", "a slime checkout"), setting("SLIME_HARNESS", "a script that drives slime")
    python = interpreter()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    rows = [
        {"prompt": task, "metadata": {"domain": "mock", "task_split": "base", "task_id": task}}
        for task in ("create_task_1", "update_task_1") * 3
    ]
    (tmp_path / "tasks.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = {"user_base_url": f"http://127.0.0.1:{port}/v1", "user_retries": 0, "drift_rate": 1.0}
    config |= {"user_model_rotation": ["openai/calm", "openai/cross"], "user_model": "openai/calm", **(tau2 or {})}
    (tmp_path / "tau2.yaml").write_text(json.dumps({"tau2": config}))
    (tmp_path / "eval.yaml").write_text(
        "eval:\n  defaults: {n_samples_per_eval_prompt: 4, max_response_len: 512}\n  datasets:\n"
        f"    - {{name: mock, path: '{tmp_path}/tasks.jsonl@[0:2]', input_key: prompt, metadata_key: metadata,\n"
        f"       custom_generate_function_path: {GENERATE}}}\n"
    )
    hooks = [part for flag, name in HOOKS.items() for part in (flag, f"tau2_slime.hooks.{name}")]
    done = subprocess.run(
        [
            *(python, harness, "--slime-path", folder, "--plugin-path", str(ROOT), "--generate-path", GENERATE),
            *("--prompt-data", str(tmp_path / "tasks.jsonl"), "--input-key", "prompt", "--metadata-key", "metadata"),
            *("--eval-config", str(tmp_path / "eval.yaml"), "--custom-config-path", str(tmp_path / "tau2.yaml")),
            *("--hf-checkpoint", "tiny", "--router", "mock", "--mock-port", str(port), "--workdir", str(tmp_path)),
            *("--mock-policy", "tests.hooks_policy.policy", "--mock-user-policy", "tests.hooks_policy.user"),
            *("--rollout-batch-size", "3", "--n-samples-per-prompt", "4", "--num-rollouts", "2", *hooks, *mode),
        ],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    report = json.loads(done.stdout)
    assert report["ok"]
    return report


def logged(part: dict[str, Any], axis: str) -> dict[str, float]:
    """Everything that slime's logger was handed for one rollout or evaluation."""
    out: dict[str, float] = {}
    for entry in part["metrics"]:
        assert entry["step_key"] == f"{axis}/step"
        assert entry["metrics"][f"{axis}/step"] == part["rollout_id"]
        out |= entry["metrics"]
    return out


def check_rollouts(report: dict[str, Any]) -> None:
    for rollout in report["rollouts"]:
        metrics = logged(rollout, "rollout")
        assert metrics["rollout/tau2/samples"] == 12
        assert "rollout/response_len/mean" in metrics, "slime's own metrics are still there"
        assert 0 < metrics["rollout/tau2/reward"] <= 1
        assert metrics["rollout/tau2/drift/environment_mismatches"] == 0
        assert {"rollout/tau2/user/openai_calm/reward", "rollout/tau2/user/openai_cross/reward"} <= set(metrics)
        assert all(isinstance(value, (int, float)) for name, value in metrics.items() if "/tau2/" in name)


@pytest.mark.parametrize(
    "mode", [[], ["--partial-rollout", "--over-sampling-batch-size", "6"]], ids=["train-and-eval", "partial-rollout"]
)
def test_metrics_and_rewards_of_the_default_rollout(mode: list[str], tmp_path: Path) -> None:
    report = drive(
        tmp_path, [*mode, "--log-passrate", "--n-samples-per-eval-prompt", "4"], tau2={"simulator_baseline": "batch"}
    )
    check_rollouts(report)
    for rollout in report["rollouts"]:
        assert len(rollout["metrics"]) == 1, "ours travel in slime's own record"
        for group in rollout["groups"]:
            # The filter saw to it: at least two samples that count, with different rewards.
            assert len({s["reward"] for s in group["samples"] if s["status"] in ("completed", "truncated")}) > 1
    evaluation = logged(report["evals"][0], "eval")
    assert evaluation["eval/mock/tau2/tasks"] == 2
    assert evaluation["eval/mock/tau2/samples"] == 8
    assert "eval/mock" in evaluation, "slime's own metrics are still there"
    tau2 = {name.removeprefix("eval/mock/tau2/"): value for name, value in evaluation.items()}
    for k in range(1, 5):
        if tau2[f"tasks_below_{k}"] < 2:
            assert 0 <= tau2[f"pass_hat_{k}"] <= tau2[f"pass@{k}"] + 1e-9 <= 1 + 1e-8
    assert tau2["pass@1"] == pytest.approx(tau2["pass_hat_1"])
    assert "eval/mock-pass@4" in evaluation, "and so is its pass@k, where the command line has it right"
    if tau2["excluded"] == 0:
        assert evaluation["eval/mock-pass@4"] == pytest.approx(tau2["pass@4"])


def test_metrics_of_a_fully_async_rollout(tmp_path: Path) -> None:
    report = drive(tmp_path, FULLY_ASYNC)
    check_rollouts(report)
    for rollout in report["rollouts"]:
        assert len(rollout["metrics"]) == 2, "slime hands no record over: ours is one beside it"


def test_a_command_line_that_contradicts_the_dataset_does_not_end_the_job(tmp_path: Path) -> None:
    report = drive(tmp_path, ["--log-passrate", "--n-samples-per-eval-prompt", "3", "--num-rollouts", "0"])
    evaluation = logged(report["evals"][0], "eval")
    assert "eval/mock" in evaluation
    assert not [name for name in evaluation if name.startswith("eval/mock-pass@")]
    assert "eval/mock/tau2/pass@1" in evaluation
